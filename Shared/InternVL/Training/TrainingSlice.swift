import Tensors
import Training

/// A slice of the model that trains: some layers of one part, forward and backward.
///
/// Micro-batches are known by their index in the step. Those under way keep what their backward
/// pass needs; gradients of parameters add up over the micro-batches of a step, in the order of
/// the calls, so that every schedule which keeps that order gives the same bits. Owned by the
/// thread that computes.
///
/// Legend: n tiles, P patches of a tile, C vision channels, T rows of text, D model width.
public protocol TrainingSlice: AnyObject {
  /// What is trained here, in the order of the release.
  var parameters: [Parameter] { get }
  /// Bytes kept for backward passes that are still to come.
  var savedBytes: Int { get }
  /// Whether anything in front of this slice, or in it, is trained: otherwise it has no backward.
  var hasBackward: Bool { get }
  /// Whether anything in front of this slice is trained.
  var needsInputGradient: Bool { get }

  /// Shape of what comes in: pixels [n, 3, H, W], hidden states [n, 1 + P, C], image rows
  /// [n·tokens, D] (for the first language slice) or hidden states [T, D]; nil: nothing does.
  func inputShape(of microBatch: MicroBatch) -> [Int]?
  /// Shape of what goes on; nil: nothing does, because this is the end or the micro-batch has no
  /// pictures.
  func outputShape(of microBatch: MicroBatch) -> [Int]?

  /// The forward pass. `input` is not kept: what is needed of it is copied.
  func forward(
    _ index: Int, _ microBatch: MicroBatch, step: UInt64, input: Tensor?, into output: Tensor?
  ) throws

  /// The gradient of the input from that of the output; what it leaves over of the weights'
  /// gradients waits for ``accumulate(_:)``.
  ///
  /// - Returns: of the last language slice the sum of the labelled rows' losses and their number.
  func backward(
    _ index: Int, gradient: Tensor?, into inputGradient: Tensor?
  ) throws -> (sum: Double, rows: Int)?

  /// The weights' gradients that ``backward(_:gradient:into:)`` left over.
  func accumulate(_ index: Int) throws

  /// Instead of the two, for a loss without gradients.
  func loss(_ index: Int) throws -> (sum: Double, rows: Int)?

  /// Forgets all micro-batches.
  func discard()
}
