import Kernels
import Tensors
import Training

/// AdamW (arXiv:1711.05101) over a slice's parameters.
public struct Optimizer: Sendable {
  private let options: TrainingOptions
  private let device: any TrainingDevice

  public init(_ options: TrainingOptions, device: any TrainingDevice) {
    self.options = options
    self.device = device
  }

  /// One update of each parameter from its gradient, which stays as it is.
  ///
  /// - Parameters:
  ///   - gradientScale: What every gradient counts: clipping.
  ///   - number: Updates made, this one included: 1 for the first.
  public func update(
    _ parameters: [Parameter], learningRate: Double, gradientScale: Double = 1, number: Int
  ) throws {
    for parameter in parameters {
      let decays = options.decay == .all || parameter.decaysInHF
      let step = AdamWStep(
        learningRate: learningRate, beta1: options.beta1, beta2: options.beta2,
        epsilon: options.epsilon, weightDecay: decays ? options.weightDecay : 0,
        update: number, gradientScale: gradientScale)
      switch parameter.gradientSum {
      case .whole(let gradient):
        try device.adamW(
          parameter.value, gradient: gradient, firstMoment: parameter.firstMoment,
          secondMoment: parameter.secondMoment, step: step)
      case .rows(let rows):
        try device.adamW(
          parameter.value, gradient: rows.value, firstMoment: parameter.firstMoment,
          secondMoment: parameter.secondMoment, step: step)
      }
      parameter.valueDidChange()
    }
  }

  /// Of each parameter's gradient, in order: what the global norm is the root of the sum of.
  public func sumsOfSquares(_ parameters: [Parameter]) throws -> [Double] {
    try parameters.map { parameter in
      switch parameter.gradientSum {
      case .whole(let gradient): try device.sumOfSquares(gradient)
      case .rows(let rows): try device.sumOfSquares(rows.value)
      }
    }
  }

  /// Makes all gradients zero, for the next step.
  public func clearGradients(_ parameters: [Parameter]) throws {
    for parameter in parameters {
      switch parameter.gradientSum {
      case .whole(let gradient): try device.clear(gradient)
      case .rows(let rows): try rows.clear(on: device)
      }
    }
  }
}
