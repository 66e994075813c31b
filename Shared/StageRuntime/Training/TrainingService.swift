import Checkpoint
import InternVL
import Kernels
import Messages
import Synchronization
import Tensors
import Threads
import Training
import Transport

/// The calls by which a stage trains. See `proto/training.proto`.
final class TrainingService: Sendable {
  /// What a kind of stage makes of a request to train.
  struct Recipe: Sendable {
    var shape: TrainingShape
    var model: String
    var device: String
    var threads: Int
    /// Bytes of pixels that wait for their forward pass, at most.
    var pixelBytes = 0
    /// Makes the slices that train. Runs on the computing thread, as the others do.
    var make:
      @Sendable (
        TrainingWeights, any TrainingDevice, TrainingOptions, _ imageToken: Int32?
      ) throws -> [any TrainingSlice]
    /// Lets the stage serve from the slices' weights.
    var serve: @Sendable ([any TrainingSlice]) -> Void
    /// Lets the stage serve from the model folder again.
    var serveModel: @Sendable () throws -> Void
  }

  private let core: StageCore
  private let recipe: Recipe
  private let worker = TrainingWorker()
  private let session = TrainingSession()
  let pixels: PixelRoom
  /// Set by the last Prepare.
  private let shape: Mutex<TrainingShape>
  /// Of the slices that train; nil: there are none.
  private let shapes = Mutex<SliceShapes?>(nil)
  /// Who called Prepare last.
  private let owner = Mutex<Connection?>(nil)
  private let isSaving = Mutex(false)
  private let trainingBytes = Atomic<Int>(0)
  private let peakSavedBytes = Atomic<Int>(0)

  init(core: StageCore, recipe: Recipe) {
    self.core = core
    self.recipe = recipe
    shape = Mutex(recipe.shape)
    pixels = PixelRoom(bound: recipe.pixelBytes)
    core.onLeave { [weak self] in await self?.leave($0) }
  }

  /// Adds what training holds: parameters, gradients and moments; a snapshot of parameters and
  /// moments; and the most that was kept for backward passes, and of pixels, so far.
  func fill(_ description: inout StageDescription) {
    let bytes = trainingBytes.load(ordering: .relaxed)
    description.workingBytes +=
      bytes + bytes / 4 * 3 + peakSavedBytes.load(ordering: .relaxed) + pixels.peakBytes
  }

  func register(in router: inout Router) {
    router.handle(Methods.Trainer.prepare) { payload, context in
      try await self.prepare(payload.message, context.connection)
    }
    router.handleParcel(Methods.Trainer.feed) { parcel, _ in try await self.feed(parcel) }
    router.handle(Methods.Trainer.step) { payload, context in
      try await self.step(payload.message, context)
    }
    router.handleParcel(Methods.Trainer.forward) { parcel, context in
      try await self.forward(parcel, context)
    }
    router.handle(Methods.Trainer.update) { payload, _ in try await self.update(payload.message) }
    router.handle(Methods.Trainer.abandon) { payload, _ in
      await self.abandon(payload.message.step)
      return Payload(AbandonReply())
    }
    router.handle(Methods.Trainer.release) { _, _ in
      try await self.release()
      return Payload(ReleaseTrainingReply())
    }
    router.handle(Methods.Trainer.save) { payload, _ in try await self.save(payload.message) }
    router.handle(Methods.Trainer.fetch) { payload, _ in
      try self.session.requireReady()
      let request = payload.message
      let worker = self.worker
      let (tensors, _) = try await self.core.compute { _ in try worker.fetch(request) }
      return Payload(FetchReply(), tensors: tensors)
    }
  }

  // MARK: Setting up

  private func prepare(
    _ request: PrepareTrainingRequest, _ connection: Connection
  ) async throws -> Payload<PrepareTrainingReply> {
    let options = try TrainingOptions(request)
    for path in request.sharedFiles { try SharedFile.require(path) }
    for step in try await session.beginPreparing() {
      step.fail(RPCError(.aborted, "\(step.key) ended: the stage is being prepared anew"))
      await step.ended()
    }
    owner.withLock { $0 = connection }
    shapes.withLock { $0 = nil }
    let (worker, recipe) = (worker, recipe)
    do {
      let (reply, shape, shapes) = try await uncancelled {
        // The old state goes first: there may not be room for both.
        worker.adopt(nil)
        try recipe.serveModel()
        let device = try Devices.makeTraining(recipe.device, threads: recipe.threads)
        let state = try request.resume.map { try TrainingStateReader(folder: $0) }
        let weights = TrainingWeights(
          model: try CheckpointReader(folder: recipe.model), state: state)
        let slices = try recipe.make(
          weights, device, options, request.imageToken.flatMap { Int32(exactly: $0) })
        worker.adopt(
          TrainedStage(
            slices: slices, optimizer: Optimizer(options, device: device),
            updates: state?.updates ?? 0, keepsGradients: request.keepGradients))
        recipe.serve(slices)
        var shape = recipe.shape
        shape.answers = options.objectives.answers
        for chunk in slices.indices {
          shape.chunks[chunk].takesPart = slices[chunk].takesPart
          shape.chunks[chunk].hasBackward = slices[chunk].hasBackward
          shape.chunks[chunk].needsInputGradient = slices[chunk].needsInputGradient
        }
        return (try worker.description(), shape, SliceShapes(slices))
      }
      self.shape.withLock { $0 = shape }
      self.shapes.withLock { $0 = shapes }
      trainingBytes.store(reply.trainingBytes, ordering: .relaxed)
      session.endPreparing(isPrepared: true)
      return Payload(reply)
    } catch {
      await core.giveBack { worker.adopt(nil) }
      trainingBytes.store(0, ordering: .relaxed)
      session.endPreparing(isPrepared: false)
      throw error
    }
  }

  /// Ends the training: all goes but the weights, which are served on as they are.
  private func release() async throws {
    for step in try await session.beginPreparing() {
      step.fail(RPCError(.aborted, "\(step.key) ended: the training is over"))
      await step.ended()
    }
    owner.withLock { $0 = nil }
    shapes.withLock { $0 = nil }
    await core.giveBack { [worker] in worker.adopt(nil) }
    trainingBytes.store(0, ordering: .relaxed)
    session.endPreparing(isPrepared: false)
  }

  /// A session is over: when it was the one that trains, nobody comes for the rest.
  private func leave(_ connection: Connection) async {
    guard owner.withLock({ $0 === connection }) else { return }
    // Whoever left has no part in the caller's cancellation.
    try? await Task {
      guard owner.withLock({ $0 === connection }) else { return }
      try await release()
    }.value
  }

  /// Runs `body` on the computing thread to its end, whoever has stopped waiting for it.
  private func uncancelled<Result: Sendable>(
    _ body: @escaping @Sendable () throws -> Result
  ) async throws -> Result {
    try await Task { try await core.thread.run { _ in try body() } }.value
  }

  // MARK: A step

  private func feed(_ parcel: Parcel<FeedRequest>) async throws -> Payload<FeedReply> {
    let request = parcel.message
    try session.requireReady()
    // The sender's memory goes back before anybody waits for room for the next.
    let step = try await take(parcel)
    try await step?.roomForPixels(after: request.microBatch, in: pixels)
    return Payload(FeedReply())
  }

  /// - Returns: the step, if there were pixels.
  private func take(_ parcel: Parcel<FeedRequest>) async throws -> TrainingStep? {
    let request = parcel.message
    let key = TrainingStep.Key(step: request.step, attempt: request.attempt)
    let tensors = parcel.takeTensors()
    guard request.samples.isEmpty, !tensors.isEmpty else {
      let fed = try await layout(request, tensors)
      let step = try session.stepToFeed(key)
      try step.feed(fed, microBatch: request.microBatch)
      guard let pixels = tensors.first else { return nil }
      try await step.put(pixels.tensor, of: request.microBatch, in: self.pixels)
      return step
    }
    let step = try session.stepToReceive(key)
    guard let fed = step.fed(request.microBatch) else {
      throw RPCError(
        .failedPrecondition,
        "pixels of micro-batch \(request.microBatch) of \(key), which was not fed here")
    }
    try shape.withLock { $0 }.check(fed.microBatch, pixels: tensors)
    try TrainingService.check(tensors[0].tensor, fed, request)
    try await step.put(tensors[0].tensor, of: request.microBatch, in: pixels)
    return step
  }

  /// - Throws: INVALID_ARGUMENT for pixels that are none of the micro-batch's.
  private static func check(
    _ pixels: Tensor, _ fed: TrainingStep.Fed, _ request: FeedRequest
  ) throws {
    guard pixels.scalarType == .float32, pixels.shape == fed.inputs[0] else {
      throw RPCError(
        .invalidArgument,
        "pixels of micro-batch \(request.microBatch) are \(pixels.scalarType) \(pixels.shape), "
          + "expected float32 \(fed.inputs[0] ?? [])")
    }
  }

  /// What the stage has to know of a micro-batch.
  private func layout(
    _ request: FeedRequest, _ tensors: [Attachment]
  ) async throws -> TrainingStep.Fed {
    let shape = shape.withLock { $0 }
    var microBatch = MicroBatch(
      samples: request.samples.map {
        .init(key: $0.key, tokens: $0.tokens, tiles: $0.tiles, turns: $0.turns)
      },
      ids: shape.takesTokens ? request.tokens : [],
      labels: shape.takesLabels ? request.labels : [], lossScale: request.lossScale)
    if shape.takesPatchTargets {
      microBatch.patchTargets = try request.patchTargets.map { try PatchTargets($0) }
    }
    if shape.takesNamingTargets {
      microBatch.namingTargets = try request.namingTargets.map { try NamingTargets($0) }
    }
    try shape.check(microBatch, pixels: tensors)
    // Not on the computing thread: a step's layouts would wait behind its passes, and chat's.
    guard let shapes = shapes.withLock({ $0 }) else { throw TrainingSession.notPrepared }
    let (inputs, outputs) = shapes.of(microBatch)
    for shape in (inputs + outputs).compactMap({ $0 }) {
      let bytes = (try? Tensor.elementCount(shape)).map { $0.multipliedReportingOverflow(by: 4) }
      guard let bytes, !bytes.overflow, bytes.partialValue <= TrainingLimits.activationBytes else {
        throw RPCError(
          .resourceExhausted,
          "activations \(shape) of micro-batch \(request.microBatch) take more than the "
            + "\(TrainingLimits.activationBytes) bytes that travel at a time; make micro-batches "
            + "smaller")
      }
    }
    let fed = TrainingStep.Fed(microBatch: microBatch, inputs: inputs, outputs: outputs)
    if let pixels = tensors.first { try TrainingService.check(pixels.tensor, fed, request) }
    return fed
  }

  private func step(
    _ request: TrainingStepRequest, _ context: CallContext
  ) async throws -> Payload<TrainingStepReply> {
    let origin = StepRun.now()
    let shape = shape.withLock { $0 }
    try StepRun.check(request, shape)
    let step = try session.begin(.init(step: request.step, attempt: request.attempt))
    let outcome = try await step.run { [core, worker, pixels, session] in
      var run = StepRun(
        core: core, worker: worker, pixels: pixels, shape: shape, step: step, request: request,
        deadline: context.deadline, origin: origin)
      do {
        let outcome = try await run.run()
        try session.finish(step, hasGradients: !request.forwardOnly)
        return outcome
      } catch {
        step.fail(RPCError(handlerError: error))
        await core.giveBack { worker.abandon() }
        session.settle(step)
        throw error
      }
    }
    peakSavedBytes.max(outcome.peakSavedBytes, ordering: .relaxed)
    var reply = TrainingStepReply()
    reply.losses = outcome.losses
    reply.norms = outcome.norms
    reply.objectives = outcome.objectives.map { ObjectiveLossMessage($0) }
    reply.timings = outcome.timings
    reply.originMicroseconds = origin
    reply.peakSavedBytes = outcome.peakSavedBytes
    reply.peakSavedMicroBatches = outcome.peakSavedMicroBatches
    return Payload(reply)
  }

  private func forward(
    _ parcel: Parcel<ForwardRequest>, _ context: CallContext
  ) async throws -> Payload<ForwardReply> {
    let request = parcel.message
    let step = try session.stepToReceive(.init(step: request.step, attempt: request.attempt))
    let place = TrainingPlace(microBatch: request.microBatch, chunk: request.chunk)
    guard try receive(parcel, for: step, at: place, from: context.connection) else {
      return Payload(ForwardReply())
    }
    do {
      let gradient = try await step.replies.take(place)
      return Payload(
        ForwardReply(), tensors: gradient.map { [Attachment($0, name: "gradient")] } ?? [])
    } catch let error as CancellationError {
      // Without its neighbour the step cannot end well.
      step.fail(
        context.connection.isOpen
          ? RPCError(.aborted, "\(step.key) ended: the stage before has given it up")
          : RPCError(.unavailable, "\(step.key) ended: the connection to the stage before is gone"))
      throw error
    }
  }

  /// - Returns: whether a gradient is to be replied.
  private func receive(
    _ parcel: Parcel<ForwardRequest>, for step: TrainingStep, at place: TrainingPlace,
    from sender: Connection
  ) throws -> Bool {
    let shape = shape.withLock { $0 }
    let tensors = parcel.takeTensors()
    guard shape.chunks.indices.contains(place.chunk) else {
      throw RPCError(
        .invalidArgument,
        "chunk \(place.chunk) of a stage with \(shape.chunks.count) slices; fix --virtual-stages")
    }
    guard let fed = step.fed(place.microBatch) else {
      throw RPCError(.failedPrecondition, "\(place) of \(step.key) was not fed here")
    }
    guard let expected = fed.inputs[place.chunk], !shape.takesPixels(place.chunk) else {
      throw RPCError(.invalidArgument, "nothing is to come for \(place) of \(step.key)")
    }
    guard tensors.count == 1, tensors[0].tensor.scalarType == .float32,
      tensors[0].tensor.shape == expected
    else {
      throw RPCError(
        .invalidArgument,
        "\(tensors.map(\.tensor.shape)) came for \(place) of \(step.key), expected float32 "
          + "\(expected); fix --next")
    }
    try step.activations.put(.init(tensor: tensors[0].tensor, sender: sender), at: place) {
      .init(tensor: $0.tensor.onHeap(), sender: $0.sender)
    }
    return shape.chunks[place.chunk].needsInputGradient
  }

  private func update(_ request: UpdateRequest) async throws -> Payload<UpdateReply> {
    guard request.skip || request.learningRate.isFinite && request.gradientScale.isFinite else {
      throw RPCError(
        .invalidArgument,
        "learning rate \(request.learningRate), gradient scale \(request.gradientScale)")
    }
    try session.beginUpdate(request.step)
    let worker = worker
    do {
      try await uncancelled { try worker.update(request) }
      session.endUpdate(nil)
    } catch {
      session.endUpdate(error)
      throw error
    }
    return Payload(UpdateReply())
  }

  private func abandon(_ number: UInt64) async {
    for step in session.steps(number) {
      step.fail(RPCError(.aborted, "\(step.key) was abandoned"))
      await step.ended()
      if session.beginDropping(step) {
        await core.giveBack { [worker] in worker.abandon() }
        session.endUpdate(nil)
      }
      session.settle(step)
    }
  }

  // MARK: State

  private func save(_ request: SaveRequest) async throws -> Payload<SaveReply> {
    do {
      try session.requireReady()
    } catch let error as RPCError {
      // It was away: what it is to save is lost, and everybody goes back.
      throw RPCError(.unavailable, error.message)
    }
    let begins = isSaving.withLock { isSaving in
      defer { isSaving = true }
      return !isSaving
    }
    guard begins else {
      throw RPCError(
        .aborted,
        "this stage is writing a checkpoint already; save again when that is done")
    }
    defer { isSaving.withLock { $0 = false } }
    let worker = worker
    let (snapshot, _) = try await core.compute(isLimited: false) { _ in
      try TrainingSnapshot(worker.prepared(), worker.parameters, request)
    }
    // Its thread ends with it.
    let writer = DedicatedThread(name: "save")
    do {
      return Payload(SaveReply(bytes: try await writer.run { try snapshot.write($0) }))
    } catch let error as CheckpointError {
      // Told apart from all else that a call may lack room for.
      guard error.isLackOfRoom else { throw error }
      return Payload(SaveReply(noRoom: "\(error)"))
    }
  }
}

/// The shapes of what slices take and hand on, known outside of the computing thread.
///
/// They follow from the model's configuration, which never changes; nothing else of the slices is
/// touched here.
private struct SliceShapes: @unchecked Sendable {
  private let slices: [any TrainingSlice]

  init(_ slices: [any TrainingSlice]) { self.slices = slices }

  func of(_ microBatch: MicroBatch) -> (inputs: [[Int]?], outputs: [[Int]?]) {
    (
      slices.map { $0.inputShape(of: microBatch) }, slices.map { $0.outputShape(of: microBatch) }
    )
  }
}

extension TrainingWorker {
  /// What the stage would write into a checkpoint.
  func description() throws -> PrepareTrainingReply {
    let trained = Set(parameters.map(\.name))
    let stage = try prepared()
    return PrepareTrainingReply(
      parameters: stage.tensors.map {
        ParameterDescription(
          name: $0.name, shape: $0.tensor.shape, scalarType: $0.storedType,
          isTrained: trained.contains($0.name))
      },
      trainingBytes: trainingBytes, updates: UInt64(max(0, stage.updates)))
  }
}

extension TrainingOptions {
  /// - Throws: INVALID_ARGUMENT for values that make no sense.
  init(_ request: PrepareTrainingRequest) throws {
    self.init()
    func refuse(_ what: String) -> RPCError { RPCError(.invalidArgument, what) }
    func lora(_ settings: LoRASettings?) throws -> LoRA? {
      guard let settings else { return nil }
      guard settings.rank > 0, settings.rank <= 65_536, settings.alpha.isFinite,
        settings.dropout >= 0, settings.dropout < 1
      else {
        throw refuse(
          "LoRA of rank \(settings.rank), alpha \(settings.alpha), dropout \(settings.dropout)")
      }
      return LoRA(rank: settings.rank, alpha: settings.alpha, dropout: settings.dropout)
    }
    trainsVision = request.trainVision
    trainsProjector = request.trainProjector
    trainsLanguage = request.trainLanguage
    visionLoRA = try lora(request.visionLoRA)
    languageLoRA = try lora(request.languageLoRA)
    guard request.dropPathRate >= 0, request.dropPathRate < 1 else {
      throw refuse("a drop path rate of \(request.dropPathRate), expected 0 ≤ rate < 1")
    }
    dropPathRate = request.dropPathRate
    guard let recompute = Recompute(rawValue: request.recompute) else {
      throw refuse("\"\(request.recompute)\" is none of full, selective, none")
    }
    self.recompute = recompute
    seed = request.seed
    guard (0..<1).contains(request.beta1), (0..<1).contains(request.beta2),
      request.epsilon >= 0, request.epsilon.isFinite, request.weightDecay.isFinite
    else {
      throw refuse(
        "AdamW with betas \(request.beta1) and \(request.beta2), epsilon \(request.epsilon), "
          + "weight decay \(request.weightDecay)")
    }
    beta1 = request.beta1
    beta2 = request.beta2
    epsilon = request.epsilon
    weightDecay = request.weightDecay
    guard let decay = WeightDecayGrouping(rawValue: request.decay) else {
      throw refuse("\"\(request.decay)\" is none of all, hf")
    }
    self.decay = decay
    if let settings = request.objectives { objectives = try TrainingObjectives(settings) }
  }
}
