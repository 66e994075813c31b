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
    let pixels: Tensor?
  }

  /// An activation, and whom its gradient goes to.
  struct Arrival: Sendable {
    let tensor: Tensor
    let sender: Connection
  }

  private struct State {
    var fed: [Int: Fed] = [:]
    var task: Task<StepOutcome, any Error>?
    var failure: RPCError?
  }

  let key: Key
  let activations = Mailbox<Arrival>("activations")
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
    let task: Task<StepOutcome, any Error>? = state.withLock { state in
      guard state.failure == nil else { return nil }
      state.failure = error
      return state.task
    }
    close(error.code == .aborted ? error : RPCError(.aborted, "\(key) ended: \(error.message)"))
    task?.cancel()
  }

  /// Turns away what still comes. Replies that are there go out: calls that brought an
  /// activation may come for its gradient after the last action.
  func end() {
    let error = RPCError(.failedPrecondition, "\(key) is over")
    activations.close(error)
    gradients.close(error)
    replies.close(error, keepsValues: true)
  }

  /// Drops everything that came and nobody took; what still comes is turned away.
  private func close(_ error: RPCError) {
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
