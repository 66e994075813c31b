import Messages
import Synchronization
import Tensors
import Training
import Transport

/// One step of training in a stage, from its first micro-batch fed to its end: what has come for
/// its actions, and who waits for it.
final class TrainingStep: Sendable {
  /// A step, and which attempt at it: what is left of an earlier one is told apart.
  struct Key: Hashable, Sendable, CustomStringConvertible {
    let step: UInt64
    let attempt: Int

    var description: String { attempt == 0 ? "step \(step)" : "step \(step), attempt \(attempt)" }
  }

  /// What a stage knows of a micro-batch.
  struct Fed: Sendable {
    let microBatch: MicroBatch
    /// Of each chunk: what comes in and what goes on; nil: nothing does.
    let inputs: [[Int]?]
    let outputs: [[Int]?]
  }

  /// An activation, and whom its gradient goes to.
  struct Arrival: Sendable {
    let tensor: Tensor
    let sender: Connection
  }

  private typealias Wait = Task<Void, any Error>

  private struct State {
    var fed: [Int: Fed] = [:]
    /// Micro-batches whose pixels are here, on their way, or were.
    var pixels: Set<Int> = []
    /// The one whose pixels the forward pass waits for.
    var awaited: Int?
    /// What waits in calls.
    var waits: [Int: Wait] = [:]
    var nextWait = 0
    var task: Task<StepOutcome, any Error>?
    var failure: RPCError?
  }

  let key: Key
  let activations = Mailbox<Arrival>("activations")
  private let pixels = Mailbox<HeldPixels>("pixels")
  /// Gradients of what this stage handed on.
  let gradients = Mailbox<Tensor>("gradients")
  /// Gradients of what came in, for the calls that brought it; nil: there is none.
  let replies = Mailbox<Tensor?>("gradients of the input")
  private let state = Mutex(State())

  init(_ key: Key) { self.key = key }

  func feed(_ fed: Fed, microBatch: Int) throws(RPCError) {
    let isTooMany = state.withLock { state in
      guard state.fed[microBatch] != nil || state.fed.count < TrainingLimits.microBatches else {
        return true
      }
      state.fed[microBatch] = fed
      return false
    }
    if isTooMany {
      throw RPCError(
        .invalidArgument, "more than \(TrainingLimits.microBatches) micro-batches in \(key)")
    }
  }

  func fed(_ microBatch: Int) -> Fed? { state.withLock { $0.fed[microBatch] } }

  // MARK: Pixels

  /// Puts pixels where the forward pass finds them, as soon as the room has place for them.
  ///
  /// - Throws: ALREADY_EXISTS for those of a micro-batch that came before; ABORTED when the step
  ///   ends first.
  func put(_ tensor: Tensor, of microBatch: Int, in room: PixelRoom) async throws {
    guard state.withLock({ $0.pixels.insert(microBatch).inserted }) else {
      throw RPCError(.alreadyExists, "pixels of micro-batch \(microBatch) of \(key) came twice")
    }
    do {
      try await whileOpen { [self] in
        let held = try await room.hold(tensor) { [self] in isAwaited(microBatch) }
        try pixels.put(held, at: TrainingPlace(microBatch: microBatch, chunk: 0))
      }
    } catch {
      state.withLock { _ = $0.pixels.remove(microBatch) }
      throw error
    }
  }

  /// Waits until the room has place for the pixels that come next after a micro-batch's.
  ///
  /// - Throws: ABORTED when the step ends first.
  func roomForPixels(after microBatch: Int, in room: PixelRoom) async throws {
    let next = state.withLock { state in
      state.fed.filter {
        $0.key > microBatch && $0.value.microBatch.tiles > 0 && !state.pixels.contains($0.key)
      }.min { $0.key < $1.key }
    }
    guard let (next, fed) = next, let shape = fed.inputs.first ?? nil else { return }
    let bytes = shape.reduce(MemoryLayout<Float>.size, *)
    try await whileOpen { [self] in
      try await room.wait(for: bytes) { [self] in isAwaited(next) }
    }
  }

  /// The pixels of a micro-batch, waiting for them where they have not come.
  func takePixels(_ microBatch: Int, from room: PixelRoom) async throws -> HeldPixels {
    state.withLock { $0.awaited = microBatch }
    defer { state.withLock { $0.awaited = nil } }
    room.reconsider()
    let held = try await pixels.take(TrainingPlace(microBatch: microBatch, chunk: 0))
    held.leave()
    return held
  }

  private func isAwaited(_ microBatch: Int) -> Bool {
    state.withLock { $0.awaited == microBatch }
  }

  /// Runs something that waits, until the step fails.
  ///
  /// - Throws: ABORTED when it does.
  private func whileOpen(_ body: @escaping @Sendable () async throws -> Void) async throws {
    let (task, id) = state.withLock { state in
      let task = Wait(operation: body)
      if state.failure != nil { task.cancel() }
      defer { state.nextWait += 1 }
      state.waits[state.nextWait] = task
      return (task, state.nextWait)
    }
    defer { state.withLock { $0.waits[id] = nil } }
    do {
      try await withTaskCancellationHandler {
        try await task.value
      } onCancel: {
        task.cancel()
      }
    } catch {
      throw failure.map(ended) ?? error
    }
  }

  // MARK: Its end

  /// Why the step failed; nil while it has not.
  var failure: RPCError? { state.withLock { $0.failure } }

  /// Runs the step's actions, unless it has failed.
  func run(
    _ body: @escaping @Sendable () async throws -> StepOutcome
  ) async throws -> StepOutcome {
    let task = state.withLock { state in
      let task = Task(operation: body)
      if state.failure != nil { task.cancel() }
      state.task = task
      return task
    }
    do {
      return try await withTaskCancellationHandler {
        try await task.value
      } onCancel: {
        fail(RPCError(.cancelled, "\(key) was cancelled"))
      }
    } catch {
      fail(RPCError(handlerError: error))
      throw failure ?? RPCError(handlerError: error)
    }
  }

  /// Ends everything that waits in this step, with `error`; others in the mesh, who only lose
  /// their neighbour by it, see ABORTED. Only the first error counts.
  func fail(_ error: RPCError) {
    let (task, waits) = state.withLock { state -> (Task<StepOutcome, any Error>?, [Wait]) in
      guard state.failure == nil else { return (nil, []) }
      state.failure = error
      return (state.task, Array(state.waits.values))
    }
    close(ended(error))
    task?.cancel()
    for wait in waits { wait.cancel() }
  }

  /// What those see who only waited for the step.
  private func ended(_ error: RPCError) -> RPCError {
    error.code == .aborted ? error : RPCError(.aborted, "\(key) ended: \(error.message)")
  }

  /// Turns away what still comes. Replies that are there go out: calls that brought an
  /// activation may come for its gradient after the last action.
  func end() {
    let error = RPCError(.failedPrecondition, "\(key) is over")
    pixels.close(error)
    activations.close(error)
    gradients.close(error)
    replies.close(error, keepsValues: true)
  }

  /// Drops everything that came and nobody took; what still comes is turned away.
  private func close(_ error: RPCError) {
    pixels.close(error)
    activations.close(error)
    gradients.close(error)
    replies.close(error)
  }

  /// Waits until no action is at work.
  func ended() async {
    let task = state.withLock { $0.task }
    _ = await task?.result
  }
}

/// What a stage's part of a step came to.
struct StepOutcome: Sendable {
  var losses: [MicroBatchLoss] = []
  var objectives: [ObjectiveLoss] = []
  var norms: [ParameterNorm] = []
  var timings: [ActionTiming] = []
  var peakSavedBytes = 0
  var peakSavedMicroBatches = 0
}

/// Bounds of what training calls may bring.
enum TrainingLimits {
  /// Micro-batches of one step.
  static let microBatches = 4096
  /// Rows of text, and tiles, of one micro-batch.
  static let rows = 1 << 18
  static let tiles = 4096
  /// Bytes of one activation: what the wire takes after one message.
  static let activationBytes = 1 << 30
  /// Actions of one step.
  static let actions = 1 << 16
  /// Tensors fetched by one call.
  static let fetched = 64
  /// Steps open at a time: one that runs, and the next, which is fed meanwhile.
  static let openSteps = 2
  /// Steps that were abandoned and are remembered.
  static let remembered = 64
}
