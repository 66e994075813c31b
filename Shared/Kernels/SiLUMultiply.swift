import CKernels
import Tensors

/// y = gate / (1 + e^−gate) ⊙ up: the gate of SwiGLU (arXiv:2002.05202). All of one shape.
enum SiLUMultiply {
  static func forward(gate: Tensor, up: Tensor, into y: Tensor, on device: CPUDevice) throws {
    try gate.require(.float32, what: "the gate of SwiGLU")
    for (tensor, what) in [(up, "the values of SwiGLU"), (y, "the output of SwiGLU")] {
      try tensor.require(.float32, what: what)
      try tensor.require(shape: gate.shape, what)
    }
    let (gates, values, into) = (gate.floatBase, up.floatBase, y.floatBase)
    device.parallel(elements: gate.count) { range in
      let first = range.lowerBound
      device.kernels.silu_multiply(gates + first, values + first, range.count, into + first)
    }
    withExtendedLifetime((gate, up, y)) {}
  }

  /// With s = 1 / (1 + e^−gate): dUp = dY · gate · s, dGate = dY · up · s · (1 + gate · (1 − s)).
  static func gradient(
    dY: Tensor, gate: Tensor, up: Tensor, into dGate: Tensor, up dUp: Tensor,
    on device: CPUDevice
  ) throws {
    try gate.require(.float32, what: "the gate of SwiGLU")
    for (tensor, what) in [
      (up, "the values of SwiGLU"), (dY, "the gradient of SwiGLU"),
      (dGate, "the gradient of SwiGLU's gate"), (dUp, "the gradient of SwiGLU's values"),
    ] {
      try tensor.require(.float32, what: what)
      try tensor.require(shape: gate.shape, what)
    }
    let (from, gates, values) = (dY.floatBase, gate.floatBase, up.floatBase)
    let (intoGate, intoUp) = (dGate.floatBase, dUp.floatBase)
    device.parallel(elements: gate.count) { range in
      let first = range.lowerBound
      device.kernels.silu_multiply_gradient(
        from + first, gates + first, values + first, range.count, intoGate + first,
        intoUp + first)
    }
    withExtendedLifetime((dY, gate, up, dGate, dUp)) {}
  }
}
