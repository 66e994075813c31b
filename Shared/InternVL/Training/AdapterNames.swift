import Checkpoint
import Tensors

/// The names of an adapter's two matrices, as PEFT puts them into the state of a model whose
/// vision encoder or language model it has wrapped:
/// `language_model.model.layers.0.self_attn.q_proj.weight` gets
/// `language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight`.
/// (The weight itself keeps the release's name here.)
public struct AdapterNames: Sendable, Equatable {
  public let a: String
  public let b: String

  /// - Parameters:
  ///   - weight: The release's name of the weight beside which the adapter stands.
  ///   - prefix: The wrapped part, "vision_model" or "language_model".
  init(_ weight: String, prefix: String) {
    let suffix = ".weight"
    precondition(weight.hasPrefix(prefix + ".") && weight.hasSuffix(suffix))
    let inner = weight.dropFirst(prefix.count + 1).dropLast(suffix.count)
    a = "\(prefix).base_model.model.\(inner).lora_A.default.weight"
    b = "\(prefix).base_model.model.\(inner).lora_B.default.weight"
  }
}

/// How an adapter's A starts: PyTorch's `kaiming_uniform_(a: √5)`, which is uniform within
/// ±1/√K. Element i of a name is the same on every machine.
enum AdapterStart {
  static func tensor(_ name: String, rank: Int, _ inputs: Int, _ seed: UInt64) -> Tensor {
    let bound = 1 / Float(inputs).squareRoot()
    let key = Draws.mix(Draws.place(name) ^ Draws.mix(seed))
    return Tensor(
      (0..<rank * inputs).map { index in
        let bits = Draws.mix(key &+ UInt64(index) &* 0x9E37_79B9_7F4A_7C15)
        return (Float(bits >> 40) * 0x1p-23 - 1) * bound
      }, [rank, inputs])
  }
}
