import Checkpoint
import InternVL
import Logging
import Messages
import Synchronization
import Tensors
import Training
import Transport

/// The stages of a mesh as a training run uses them, by calls to each.
final class MeshStages: TrainingStages {
  private let links: StageLinks
  private let barrier: UpdateBarrier
  private let logger: Logger
  /// In the order of the data.
  private var all: [StageLink] { links.all }
  /// The id of the token in whose places image rows stand.
  private let imageToken: Int?
  /// By stage, the names of the tensors that it holds.
  private let held = Mutex<[[String]]>([])
  /// Ends the answers under way: what the stages cached for them goes.
  private let endAnswers: @Sendable () async -> Void

  /// How long those who may know the cause of a failure are waited for, once somebody has failed
  /// who only lost a neighbour by it.
  private static let causeWait = Duration.seconds(3)

  init(
    links: StageLinks, barrier: UpdateBarrier, imageToken: Int?, logger: Logger,
    endAnswers: @escaping @Sendable () async -> Void = {}
  ) {
    self.links = links
    self.endAnswers = endAnswers
    self.imageToken = imageToken
    self.barrier = barrier
    self.logger = logger
  }

  func placement() async throws -> StagePlacement {
    func stages(_ links: [StageLink]) -> [StagePlacement.Stage] {
      links.map { .init(name: $0.name, chunks: $0.description?.allSlices.count ?? 1) }
    }
    return StagePlacement(
      vision: stages(links.vision), projector: stages([links.projector])[0],
      language: stages(links.language))
  }

  func ready(within duration: Duration) async throws {
    try await links.ready(within: duration)
  }

  // MARK: Setting up

  func prepare(_ preparation: TrainingPreparation) async throws -> PreparedStages {
    var request = PrepareTrainingRequest(preparation)
    request.imageToken = imageToken
    await endAnswers()
    return try await barrier.update { [request] in
      // Those that began while the last calls of the others were waited for.
      await self.endAnswers()
      let replies = try await self.each { link in
        try await link.channel.call(Methods.Trainer.prepare, request).message
      }
      guard let updates = replies.first?.updates, replies.allSatisfy({ $0.updates == updates })
      else {
        throw RPCError(
          .failedPrecondition,
          "the stages resume from different numbers of updates (\(replies.map(\.updates))); the "
            + "checkpoint is damaged, take another one")
      }
      self.held.withLock { $0 = replies.map { $0.parameters.map(\.name) } }
      return PreparedStages(
        held: replies.map { reply in
          reply.parameters.map {
            .init(
              name: $0.name, shape: $0.shape, storedType: $0.scalarType, isTrained: $0.isTrained)
          }
        },
        trainingBytes: replies.map(\.trainingBytes), updates: updates)
    }
  }

  // MARK: A step

  func step(_ work: StepWork) async throws -> StepOutcome {
    let placement = try await placement()
    let schedule = try placement.schedule(work)
    let replies = try await knowing {
      // An activation must find its micro-batch known.
      _ = try await self.each { link, index in try await self.feed(index, link, work) }
      return try await withThrowingTaskGroup(of: [TrainingStepReply]?.self) { group in
        group.addTask { try await self.run(schedule, work) }
        group.addTask {
          try await self.feedPixels(work)
          return nil
        }
        defer { group.cancelAll() }
        var replies: [TrainingStepReply] = []
        while let result = try await group.next() { replies = result ?? replies }
        return replies
      }
    }
    var outcome = try outcome(work, replies)
    outcome.schedule = schedule
    return outcome
  }

  private func run(_ schedule: Schedule, _ work: StepWork) async throws -> [TrainingStepReply] {
    try await each { link, index in
      var request = TrainingStepRequest(step: work.step)
      if schedule.actions.indices.contains(index) {
        request.actions = schedule.actions[index].map(TrainingAction.init)
      }
      request.microBatches = work.microBatches.count
      request.forwardOnly = work.forwardOnly
      request.attempt = work.attempt
      return try await link.channel.call(Methods.Trainer.step, request).message
    }
  }

  /// Brings the first stage its pixels while the step runs: one micro-batch at a time, the next
  /// when the stage has room for it.
  private func feedPixels(_ work: StepWork) async throws {
    let first = all[0]
    for (number, microBatch) in work.microBatches.enumerated() where microBatch.tiles > 0 {
      let pixels = Attachment(try await work.pixels(number), name: "pixels")
      let request = FeedRequest(step: work.step, microBatch: number, attempt: work.attempt)
      do {
        _ = try await first.channel.call(Methods.Trainer.feed, request, tensors: [pixels])
      } catch let error as RPCError {
        // Why the step ended there, its own call says.
        if error.code == .aborted { return }
        throw RPCError(error.code, "\(first.name): \(error.message)")
      }
    }
  }

  /// Tells a stage of the micro-batches in their order: all but the pixels.
  private func feed(_ index: Int, _ link: StageLink, _ work: StepWork) async throws {
    let isLastVision = index == links.vision.count - 1
    let isFirstLanguage = index == links.vision.count + 1
    let isLast = index == all.count - 1
    for (number, microBatch) in work.microBatches.enumerated() {
      var request = FeedRequest(
        step: work.step, microBatch: number, attempt: work.attempt)
      request.samples = microBatch.samples.map {
        MicroBatchSample(
          key: $0.key, tokens: $0.tokens, tiles: $0.tiles, turns: $0.turns)
      }
      if isLastVision {
        request.patchTargets = microBatch.patchTargets.map { PatchTargetsMessage($0) }
      }
      if isFirstLanguage {
        request.tokens = microBatch.ids
        request.namingTargets = microBatch.namingTargets.map { NamingTargetsMessage($0) }
      }
      if isLast {
        request.labels = microBatch.labels
        request.lossScale = microBatch.lossScale
      }
      _ = try await link.channel.call(Methods.Trainer.feed, request)
    }
  }

  private func outcome(_ work: StepWork, _ replies: [TrainingStepReply]) throws -> StepOutcome {
    let awaited = work.objectives.answers ? -1 : 0
    var losses = Array(repeating: (sum: 0.0, rows: awaited), count: work.microBatches.count)
    var squares: [String: Double] = [:]
    for reply in replies {
      for loss in reply.losses where losses.indices.contains(loss.microBatch) {
        losses[loss.microBatch] = (loss.sum, loss.rows)
      }
      for norm in reply.norms { squares[norm.name] = norm.sumOfSquares }
    }
    if let missing = losses.firstIndex(where: { $0.rows < 0 }) {
      throw RPCError(.internal, "no stage sent the loss of micro-batch \(missing)")
    }
    var outcome = StepOutcome(
      losses: losses, squares: squares,
      timings: replies.map { reply in
        reply.timings.map {
          TimedAction(
            action: Action($0.action), start: reply.originMicroseconds + $0.startMicroseconds,
            duration: $0.durationMicroseconds)
        }
      },
      peakSavedBytes: replies.map(\.peakSavedBytes),
      peakSavedMicroBatches: replies.map(\.peakSavedMicroBatches))
    outcome.objectives = replies.flatMap(\.objectives).map { ObjectiveLoss($0) }
    return outcome
  }

  func update(_ update: ParameterUpdate) async throws {
    var request = UpdateRequest(step: update.step)
    request.learningRate = update.learningRate
    request.gradientScale = update.gradientScale
    request.skip = update.skips
    try await knowing { [request] in
      _ = try await self.barrier.update {
        try await self.each { link in
          try await link.channel.call(Methods.Trainer.update, request)
        }
      }
    }
  }

  func abandon(step: UInt64) async {
    await tell("abandoning a step") { link in
      _ = try await link.channel.call(
        Methods.Trainer.abandon, AbandonRequest(step: step), deadline: .after(.seconds(30)))
    }
  }

  func release() async {
    await tell("ending the training") { link in
      _ = try await link.channel.call(
        Methods.Trainer.release, ReleaseTrainingRequest(), deadline: .after(.seconds(5)))
    }
  }

  /// Tells everybody who is there something, also when the run was cancelled.
  private func tell(
    _ what: String, _ body: @escaping @Sendable (StageLink) async throws -> Void
  ) async {
    // A task of its own has no part in the caller's cancellation.
    await Task { [all, logger] in
      await withDiscardingTaskGroup { group in
        for link in all where link.description != nil {
          group.addTask {
            do {
              try await body(link)
            } catch {
              logger.debug("\(what)", metadata: ["\(link.name)": "\(error)"])
            }
          }
        }
      }
    }.value
  }

  // MARK: State

  private static let fetchedAtOnce = 16

  func save(_ work: SaveWork) async throws -> Task<Int, any Error> {
    let requests = work.layout.shares.map { share in
      var request = SaveRequest()
      request.folder = work.folder
      request.model = share.model.map { SavedShard(path: $0.path, names: $0.names) }
      request.optimizerPath = share.optimizer?.path
      request.mergeLoRA = work.mergesLoRA
      request.scalarType = work.scalarType
      request.isVolatile = work.isVolatile
      request.updates = work.updates
      return request
    }
    return Task {
      let replies = try await self.each { link, index in
        try await link.channel.call(Methods.Trainer.save, requests[index]).message
      }
      for (link, reply) in zip(self.all, replies) {
        if let reason = reply.noRoom { throw NoRoom("\(link.name): \(reason)") }
      }
      return replies.map(\.bytes).reduce(0, +)
    }
  }

  func fetch(_ names: [String], _ what: FetchedTensor) async throws -> [String: Tensor] {
    let wanted = Set(names)
    let held = held.withLock { $0 }
    let parts = try await each { link, index -> [(String, Tensor)] in
      var found: [(String, Tensor)] = []
      let own = held[index].filter(wanted.contains)
      for start in stride(from: 0, to: own.count, by: MeshStages.fetchedAtOnce) {
        let part = Array(own[start..<min(start + MeshStages.fetchedAtOnce, own.count)])
        let reply = try await link.channel.call(
          Methods.Trainer.fetch, FetchRequest(names: part, what: what.rawValue))
        for attachment in reply.outOfArena().tensors {
          if let name = attachment.name { found.append((name, attachment.tensor)) }
        }
      }
      return found
    }
    return Dictionary(parts.joined(), uniquingKeysWith: { first, _ in first })
  }

  // MARK: All at once

  /// A stage that was away for a moment refuses what it has never heard of: it counts as lost.
  private func knowing<Result>(
    _ body: @Sendable () async throws -> Result
  ) async throws -> Result {
    do {
      return try await body()
    } catch let error as RPCError {
      throw error.code == .failedPrecondition ? RPCError(.aborted, error.message) : error
    }
  }

  private func each<Result: Sendable>(
    _ body: @escaping @Sendable (StageLink) async throws -> Result
  ) async throws -> [Result] {
    try await each { link, _ in try await body(link) }
  }

  /// Runs `body` for all stages at once; results in the order of the data.
  ///
  /// - Throws: of several failures the one that says most: who only lost a neighbour does not know
  ///   why.
  private func each<Result: Sendable>(
    _ body: @escaping @Sendable (StageLink, Int) async throws -> Result
  ) async throws -> [Result] {
    try await withThrowingTaskGroup(of: (Int, Swift.Result<Result, any Error>)?.self) { group in
      for (index, link) in all.enumerated() {
        group.addTask {
          do {
            return (index, .success(try await body(link, index)))
          } catch let error as RPCError {
            return (index, .failure(RPCError(error.code, "\(link.name): \(error.message)")))
          } catch {
            return (index, .failure(error))
          }
        }
      }
      var results: [(Int, Result)] = []
      var failures: [any Error] = []
      var missing = all.count
      while missing > 0, let outcome = try await group.next() {
        // The wait for a cause is over.
        guard let (index, result) = outcome else {
          group.cancelAll()
          continue
        }
        missing -= 1
        switch result {
        case .success(let value): results.append((index, value))
        case .failure(let error):
          if !error.isEcho {
            group.cancelAll()
          } else if failures.isEmpty {
            group.addTask {
              try? await Task.sleep(for: MeshStages.causeWait)
              return nil
            }
          }
          failures.append(error)
        }
      }
      group.cancelAll()
      if let cause = failures.cause { throw cause }
      return results.sorted { $0.0 < $1.0 }.map(\.1)
    }
  }
}

extension [any Error] {
  /// The one that says most about what all of them come from.
  var cause: (any Error)? {
    first { !$0.isStageLoss && !$0.isEcho } ?? first { !$0.isEcho } ?? first
  }
}

extension Error {
  /// Whether it only says that somebody else failed, or that nobody waits any more.
  fileprivate var isEcho: Bool {
    if self is CancellationError { return true }
    guard let error = self as? RPCError else { return false }
    return error.code == .aborted || error.code == .cancelled
  }
}

extension StagePlacement {
  /// Who does what in a step.
  ///
  /// Slices behind the last part of the loss have nothing to do, and are not in it.
  func schedule(_ work: StepWork) throws -> Schedule {
    let front = vision.count + 1
    var slices = slices
    if !work.objectives.answers {
      slices = Array(slices.prefix(work.objectives.naming ? front + 1 : front - 1))
    }
    let textOnly = work.microBatches.indices.filter { work.microBatches[$0].tiles == 0 }
    return try Schedule(
      kind: work.schedule, placement: slices.map(\.process),
      microBatches: work.microBatches.count,
      skips: Schedule.skips(
        Set(textOnly), firstStages: work.objectives.answers ? front : slices.count,
        of: slices.count))
  }
}

extension TrainingAction {
  init(_ action: Action) {
    self.init()
    kind =
      switch action.kind {
      case .forward: .forward
      case .backward: .backward
      case .backwardInput: .backwardInput
      case .backwardWeight: .backwardWeight
      }
    microBatch = action.microBatch
    chunk = action.chunk
  }
}

extension Action {
  init(_ action: TrainingAction) {
    let kind: Kind =
      switch action.kind {
      case .forward: .forward
      case .backward: .backward
      case .backwardInput: .backwardInput
      case .backwardWeight: .backwardWeight
      }
    self.init(kind, microBatch: action.microBatch, chunk: action.chunk)
  }
}

extension PrepareTrainingRequest {
  init(_ preparation: TrainingPreparation) {
    self.init()
    let options = preparation.options
    seed = options.seed
    trainVision = options.trainsVision
    trainProjector = options.trainsProjector
    trainLanguage = options.trainsLanguage
    visionLoRA = options.visionLoRA.map {
      LoRASettings(rank: $0.rank, alpha: $0.alpha, dropout: $0.dropout)
    }
    languageLoRA = options.languageLoRA.map {
      LoRASettings(rank: $0.rank, alpha: $0.alpha, dropout: $0.dropout)
    }
    dropPathRate = options.dropPathRate
    recompute = options.recompute.rawValue
    beta1 = options.beta1
    beta2 = options.beta2
    epsilon = options.epsilon
    weightDecay = options.weightDecay
    decay = options.decay.rawValue
    resume = preparation.checkpoint
    keepGradients = preparation.keepsGradients
    sharedFiles = preparation.sharedFiles
    if options.objectives != TrainingObjectives() {
      objectives = ObjectiveSettings(options.objectives)
    }
  }
}

extension ObjectiveSettings {
  init(_ objectives: TrainingObjectives) {
    self.init()
    withoutAnswers = !objectives.answers
    naming = objectives.naming
    groups = objectives.groups.map { group in
      var message = PatchClassGroup()
      (message.name, message.classWeights) = (group.name, group.classWeights)
      return message
    }
  }
}

extension PatchTargetsMessage {
  init(_ targets: PatchTargets) {
    self.init()
    (group, patches, scale) = (targets.group, targets.classes, targets.scale)
  }
}

extension NamingTargetsMessage {
  init(_ targets: NamingTargets) {
    self.init()
    (rows, counts, tokens) = (targets.rows, targets.counts, targets.tokens)
    (shares, scale) = (targets.shares, targets.scale)
  }
}

extension ObjectiveLoss {
  init(_ message: ObjectiveLossMessage) {
    self.init(
      microBatch: message.microBatch, group: message.group, sum: message.sum, rows: message.rows,
      right: message.right)
  }
}
