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
  /// Everything held that belongs into a checkpoint, in the order of the release.
  var tensors: [HeldTensor] { get }
  /// Bytes held for training besides the weights: gradients, moments, and trained weights, which
  /// are copies.
  var trainingBytes: Int { get }
  /// Bytes kept for backward passes that are still to come.
  var savedBytes: Int { get }
  /// Whether anything in front of this slice, or in it, is trained: otherwise it has no backward.
  var hasBackward: Bool { get }
  /// Whether anything in front of this slice is trained.
  var needsInputGradient: Bool { get }
  /// Whether ``backward(_:gradient:into:)`` leaves the products of weights' gradients over, with
  /// all they are made of, for ``accumulate(_:)``, as zero-bubble schedules want it; true at the
  /// start. A schedule that would call the two in sequence sets it to false and spares the
  /// memory. The bits are the same.
  var defersWeightGradients: Bool { get set }

  /// Whether the slice does anything in a step: not where no part of the loss is behind it.
  var takesPart: Bool { get }

  /// Shape of what comes in: pixels [n, 3, H, W], hidden states [n, 1 + P, C], image rows
  /// [n·tokens, D] (for the first language slice) or hidden states [T, D]; nil: nothing does.
  func inputShape(of microBatch: MicroBatch) -> [Int]?
  /// Shape of what goes on; nil: nothing does, because this is the end, or nothing behind takes
  /// part, or the micro-batch has no pictures.
  func outputShape(of microBatch: MicroBatch) -> [Int]?

  /// The forward pass. `input` is not kept: what is needed of it is copied.
  ///
  /// - Throws: ``InternVLError``, `KernelError`, `TensorError` for a wrong shape.
  func forward(
    _ index: Int, _ microBatch: MicroBatch, step: UInt64, input: Tensor?, into output: Tensor?
  ) throws

  /// The gradient of the input from that of the output; what it leaves over of the weights'
  /// gradients waits for ``accumulate(_:)``. Nothing is done for a slice without
  /// ``hasBackward``, or for a micro-batch that passed it by.
  ///
  /// - Parameters:
  ///   - gradient: Of the shape of the output; for the end of the model nil.
  ///   - inputGradient: Written; of the shape of the input. Not asked for by the first slice.
  /// - Returns: of the last language slice the sum of the labelled rows' losses and their number.
  /// - Throws: ``InternVLError/unknownMicroBatch(index:)``, `TensorError` for a wrong shape.
  func backward(
    _ index: Int, gradient: Tensor?, into inputGradient: Tensor?
  ) throws -> (sum: Double, rows: Int)?

  /// The weights' gradients that ``backward(_:gradient:into:)`` left over, if any.
  func accumulate(_ index: Int) throws

  /// Instead of the two, for a loss without gradients: forgets the micro-batch.
  ///
  /// - Returns: nil but for the last language slice.
  func loss(_ index: Int) throws -> (sum: Double, rows: Int)?

  /// What came of other parts of the loss than the answers, in the last backward pass or loss of a
  /// micro-batch; once.
  func takeObjectives(_ index: Int) -> [ObjectiveLoss]

  /// Forgets all micro-batches; gradients stay as they are.
  func discard()
}

extension TrainingSlice {
  public var takesPart: Bool { true }
  public func takeObjectives(_ index: Int) -> [ObjectiveLoss] { [] }
}
