import Messages
import Tensors
import Training
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A stage's work in one step: its list of actions, one after another, each as soon as its input
/// is there.
///
/// Nothing here holds memory of an arena while it waits for anything but its own computing, and
/// what comes early is copied out of the sender's arena: so stages can wait for each other in any
/// order that the schedule allows, with room for no more than one tensor between them.
struct StepRun {
  let core: StageCore
  let worker: TrainingWorker
  let pixels: PixelRoom
  let shape: TrainingShape
  let step: TrainingStep
  let request: TrainingStepRequest
  let deadline: Deadline?
  /// When the request came.
  let origin: Int
  private var outcome = StepOutcome()
  /// Where the gradients of what came in go.
  private var senders: [TrainingPlace: Connection] = [:]

  init(
    core: StageCore, worker: TrainingWorker, pixels: PixelRoom, shape: TrainingShape,
    step: TrainingStep, request: TrainingStepRequest, deadline: Deadline?, origin: Int
  ) {
    self.core = core
    self.worker = worker
    self.pixels = pixels
    self.shape = shape
    self.step = step
    self.request = request
    self.deadline = deadline
    self.origin = origin
  }

  /// CLOCK_MONOTONIC in microseconds.
  static func now() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1_000_000 + time.tv_nsec / 1000
  }

  /// - Throws: INVALID_ARGUMENT for a list that is no schedule of the step's micro-batches.
  static func check(_ request: TrainingStepRequest, _ shape: TrainingShape) throws {
    let chunks = shape.chunks.count
    guard (1...TrainingLimits.microBatches).contains(request.microBatches),
      request.actions.count <= TrainingLimits.actions
    else {
      throw RPCError(
        .invalidArgument,
        "a step of \(request.microBatches) micro-batches and \(request.actions.count) actions; at "
          + "most \(TrainingLimits.microBatches) and \(TrainingLimits.actions) are taken")
    }
    var seen: [TrainingPlace: Set<ActionKind>] = [:]
    for action in request.actions {
      let place = TrainingPlace(microBatch: action.microBatch, chunk: action.chunk)
      func refuse(_ what: String) -> RPCError {
        RPCError(.invalidArgument, "\(action.kind) of \(place): \(what)")
      }
      guard action.microBatch < request.microBatches, action.chunk < chunks else {
        throw refuse(
          "the step has \(request.microBatches) micro-batches, the stage \(chunks) slices")
      }
      guard shape.chunks[action.chunk].takesPart else {
        throw refuse("nothing in this step's loss needs that slice")
      }
      var kinds = seen[place] ?? []
      let isInOrder: Bool =
        switch action.kind {
        case .forward: kinds.isEmpty
        case .backward, .backwardInput: kinds == [.forward]
        case .backwardWeight: kinds == [.forward, .backwardInput]
        }
      guard isInOrder else {
        throw refuse("listed twice, or before what it needs")
      }
      kinds.insert(action.kind)
      seen[place] = kinds
    }
    let complete: [Set<ActionKind>] = [
      [.forward, .backward], [.forward, .backwardInput, .backwardWeight],
    ]
    guard seen.count == request.microBatches * shape.chunks.count(where: \.takesPart),
      request.forwardOnly || seen.values.allSatisfy({ complete.contains($0) })
    else {
      throw RPCError(
        .invalidArgument,
        "the list of actions does not take \(request.microBatches) micro-batches through "
          + "\(chunks) slices and back")
    }
  }

  mutating func run() async throws -> StepOutcome {
    let deferred = Set(request.actions.filter { $0.kind == .backwardInput }.map(\.chunk))
    let worker = worker
    _ = try await core.compute(isLimited: false) { _ in try worker.begin(deferred: deferred) }
    try await withThrowingDiscardingTaskGroup { group in
      for action in request.actions {
        if let failure = step.failure { throw failure }
        let place = TrainingPlace(microBatch: action.microBatch, chunk: action.chunk)
        guard let fed = step.fed(action.microBatch) else {
          throw RPCError(.failedPrecondition, "\(place) of \(step.key) was not fed")
        }
        if shape.isPassed(by: fed.microBatch) { continue }
        switch action.kind {
        case .forward:
          if let parcel = try await forward(action, place, fed) {
            let (core, step, deadline) = (core, step, deadline)
            let expected = hasReply(place) ? fed.outputs[place.chunk] : nil
            group.addTask {
              await StepRun.handOn(
                parcel, of: place, in: step, over: core, expecting: expected, deadline)
            }
          }
        case .backward, .backwardInput:
          if !request.forwardOnly { try await backward(action, place, fed) }
        case .backwardWeight:
          if !request.forwardOnly, shape.chunks[place.chunk].hasBackward {
            try await compute(action) { try worker.accumulate(place) }
          }
        }
      }
    }
    if let failure = step.failure { throw failure }
    if !request.forwardOnly {
      outcome.norms = try await core.compute(isLimited: false) { _ in try worker.norms() }.0
    }
    outcome.objectives = try await core.compute(isLimited: false) { _ in
      worker.takeObjectives()
    }.0
    return outcome
  }

  /// Whether the next stage's reply brings a gradient.
  private func hasReply(_ place: TrainingPlace) -> Bool {
    !request.forwardOnly && shape.chunks[place.chunk].hasBackward
  }

  // MARK: Forward

  /// - Returns: what goes to the next stage.
  private mutating func forward(
    _ action: TrainingAction, _ place: TrainingPlace, _ fed: TrainingStep.Fed
  ) async throws -> Parcel<ForwardRequest>? {
    let chunk = shape.chunks[place.chunk]
    var input: Tensor?
    // Gone when this returns: what the backward pass needs of them, the slice has copied.
    var held: HeldPixels?
    if shape.takesPixels(place.chunk) {
      held = try await step.takePixels(place.microBatch, from: pixels)
    } else if fed.inputs[place.chunk] != nil {
      let arrival = try await step.activations.take(place)
      input = arrival.tensor
      senders[place] = arrival.sender
    }
    var output: Tensor?
    if let outputShape = fed.outputs[place.chunk] {
      output = try await room(outputShape, place, holding: &input)
    }
    let (worker, step, forwardOnly) = (worker, step, request.forwardOnly)
    try await compute(action) { [input, held, output] in
      let loss = try worker.forward(
        place, fed, step: step.key.step, input: held?.tensor ?? input, into: output,
        forwardOnly: forwardOnly)
      if forwardOnly, input != nil, chunk.needsInputGradient {
        try step.replies.put(nil, at: place)
      }
      return loss
    }
    guard let output else { return nil }
    let message = ForwardRequest(
      step: step.key.step, microBatch: place.microBatch, chunk: chunk.next,
      attempt: step.key.attempt)
    return Parcel(Payload(message, tensors: [Attachment(output, name: "activations")]))
  }

  /// Memory that the next stage reads.
  private func room(
    _ shape: [Int], _ place: TrainingPlace, holding input: inout Tensor?
  ) async throws -> Tensor {
    guard let next = core.next else {
      throw RPCError(.internal, "nothing comes after this stage, and \(place) has to go on")
    }
    if let tensor = try await next.allocateNow(.float32, shape, deadline: deadline) {
      return tensor
    }
    // Whoever makes room may wait for the room that the input takes.
    input = input?.onHeap()
    do {
      return try await next.allocate(.float32, shape, deadline: deadline)
    } catch let error as RPCError {
      guard error.code == .resourceExhausted else { throw error }
      // More than the whole of the shared memory: it goes as bytes, which is slower.
      return Tensor(uninitialized: .float32, shape)
    }
  }

  /// Hands activations on, and puts the gradient that comes back where its action finds it.
  private static func handOn(
    _ parcel: Parcel<ForwardRequest>, of place: TrainingPlace, in step: TrainingStep,
    over core: StageCore, expecting shape: [Int]?, _ deadline: Deadline?
  ) async {
    do {
      guard let next = core.next else { return }
      let tensors = try await next.exchange(
        Methods.Trainer.forward, parcel, deadline: deadline)
      guard let shape else { return }
      guard let gradient = tensors.first?.tensor, tensors.count == 1,
        gradient.scalarType == .float32, gradient.shape == shape
      else {
        throw RPCError(
          .failedPrecondition,
          "the next stage answered \(place) with \(tensors.map(\.tensor.shape)) instead of a "
            + "gradient \(shape); prepare all stages alike")
      }
      try step.gradients.put(gradient, at: place) { $0.onHeap() }
    } catch {
      step.fail(RPCError(handlerError: error))
    }
  }

  // MARK: Backward

  private mutating func backward(
    _ action: TrainingAction, _ place: TrainingPlace, _ fed: TrainingStep.Fed
  ) async throws {
    let chunk = shape.chunks[place.chunk]
    let worker = worker
    guard chunk.hasBackward else {
      return try await compute(action) { try worker.loss(place) }
    }
    var gradient: Tensor?
    if fed.outputs[place.chunk] != nil { gradient = try await step.gradients.take(place) }
    var inputGradient: Tensor?
    if chunk.needsInputGradient, let inputShape = fed.inputs[place.chunk],
      let sender = senders.removeValue(forKey: place)
    {
      // Where there is no room, the reply waits for it instead of this stage.
      inputGradient =
        (try? sender.allocateNow(.float32, inputShape))
        ?? Tensor(uninitialized: .float32, inputShape)
    }
    let step = step
    try await compute(action) { [gradient, inputGradient] in
      let loss = try worker.backward(place, gradient: gradient, into: inputGradient)
      // On its way while the weights' gradients are computed.
      if let inputGradient { try step.replies.put(inputGradient, at: place) }
      if action.kind == .backward { try worker.accumulate(place) }
      return loss
    }
  }

  // MARK: Computing

  private mutating func compute(
    _ action: TrainingAction, _ body: @escaping @Sendable () throws -> Void
  ) async throws {
    try await compute(action) {
      try body()
      return nil
    }
  }

  /// Runs one action on the computing thread, and notes what it took.
  private mutating func compute(
    _ action: TrainingAction, _ body: @escaping @Sendable () throws -> MicroBatchLoss?
  ) async throws {
    let (worker, origin) = (worker, origin)
    let (done, _) = try await core.compute(isLimited: false) { _ in
      let start = StepRun.now()
      let loss = try body()
      let timing = ActionTiming(
        action: action, startMicroseconds: max(0, start - origin),
        durationMicroseconds: StepRun.now() - start)
      return (
        loss: loss, timing: timing, bytes: worker.savedBytes, count: worker.microBatchesUnderway
      )
    }
    if let loss = done.loss { outcome.losses.append(loss) }
    outcome.timings.append(done.timing)
    outcome.peakSavedBytes = max(outcome.peakSavedBytes, done.bytes)
    outcome.peakSavedMicroBatches = max(outcome.peakSavedMicroBatches, done.count)
  }
}
