import Support
import Tensors
import Testing

@testable import Kernels

/// An operation, its formula in Double, and the call that computes its gradients.
struct GradientCase: CustomTestStringConvertible, Sendable {
  /// A tensor that goes into the operation.
  struct Input: Sendable {
    enum Gradient { case written, added, unwanted }

    var shape: [Int]
    var type = ScalarType.float32
    var range: ClosedRange<Float> = -1...1
    var gradient = Gradient.written
  }

  typealias Reference = @Sendable ([[Double]]) -> [Double]
  typealias Call =
    @Sendable (
      _ device: CPUDevice, _ inputs: [Tensor], _ dY: Tensor, _ gradients: [Tensor?]
    ) throws -> Void

  let name: String
  let inputs: [Input]
  let outputShape: [Int]
  /// The operation's result from its inputs.
  let reference: Reference
  /// Computes the gradients by the inputs into the tensors given.
  let gradient: Call

  var testDescription: String { "\(name) \(inputs.map(\.shape))" }

  /// Compares the gradients of a random projection of the result with central differences of
  /// the formula, element by element and along random directions through all elements, and
  /// expects the same bits from every device.
  func check(tolerance: Double = 1e-5) throws {
    try #require(TestDevices.byThreads.count == 4)
    var random = SeededRandom(name.utf8.reduce(7) { $0 &* 31 &+ UInt64($1) })
    let tensors = inputs.map { random.tensor($0.shape, $0.type, in: $0.range) }
    let before = inputs.map { random.tensor($0.shape) }
    let dY = random.tensor(outputShape)

    var found: [Tensor?] = []
    for device in TestDevices.all {
      let gradients = zip(inputs, before).map { input, before -> Tensor? in
        switch input.gradient {
        case .unwanted: nil
        // What was there must not show in the result.
        case .written: Tensor([Float](repeating: .nan, count: before.count), input.shape)
        case .added: Tensor(before.floats, input.shape)
        }
      }
      let copies = tensors.map(Self.copy)
      try gradient(device, copies, Self.copy(dY), gradients)
      if found.isEmpty { found = gradients }
      for (first, other) in zip(found, gradients) {
        guard let first, let other else { continue }
        #expect(
          first.hasSameBits(as: other),
          "\(device.instructionSet), \(device.pool.threadCount) threads")
      }
      for (copy, tensor) in zip(copies, tensors) where copy.scalarType == .float32 {
        #expect(copy.hasSameBits(as: tensor), "an input changed")
      }
    }

    let values = tensors.map(\.doubles)
    let weights = dY.doubles
    func projection(_ inputs: [[Double]]) -> Double {
      zip(reference(inputs), weights).reduce(0) { $0 + $1.0 * $1.1 }
    }
    for (index, input) in inputs.enumerated() {
      guard let tensor = found[index] else { continue }
      let gradient = zip(tensor.doubles, before[index].doubles).map {
        input.gradient == .added ? $0 - $1 : $0
      }
      guard !gradient.isEmpty else { continue }
      let greatest = max(gradient.map(abs).max() ?? 0, 1e-3)
      let step = 1e-5
      func difference(_ direction: [Double]) -> Double {
        func moved(_ by: Double) -> [[Double]] {
          var moved = values
          for i in direction.indices { moved[index][i] += by * direction[i] }
          return moved
        }
        return (projection(moved(step)) - projection(moved(-step))) / (2 * step)
      }

      let elements =
        gradient.count <= 24
        ? Array(gradient.indices)
        : (0..<24).map { _ in gradient.indices.randomElement(using: &random) ?? 0 }
      for element in elements {
        var direction = [Double](repeating: 0, count: gradient.count)
        direction[element] = 1
        let expected = difference(direction)
        #expect(
          abs(gradient[element] - expected) <= tolerance * greatest,
          "input \(index), element \(element): \(gradient[element]), expected \(expected)")
      }
      for _ in 0..<3 {
        let direction = gradient.map { _ in Double.random(in: -1...1, using: &random) }
        let product = zip(gradient, direction).reduce(0) { $0 + $1.0 * $1.1 }
        let expected = difference(direction)
        let size = Double(gradient.count).squareRoot() * greatest
        #expect(
          abs(product - expected) <= tolerance * size,
          "input \(index), all elements: \(product), expected \(expected)")
      }
    }
  }

  private static func copy(_ tensor: Tensor) -> Tensor {
    let copy = Tensor(uninitialized: tensor.scalarType, tensor.shape)
    copy.copyElements(from: tensor)
    return copy
  }
}
