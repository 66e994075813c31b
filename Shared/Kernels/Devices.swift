/// The devices that `--device` can name.
public enum Devices {
  /// Makes the device `name`: `cpu`; `cpu:bf16`, which rounds the inputs of products by bfloat16
  /// weights; or `cuda:N` with N the number of the card.
  ///
  /// - Parameter threads: threads that compute, for `cpu`.
  /// - Throws: ``KernelError/unknownDevice(_:)``, ``KernelError/deviceUnavailable(_:reason:)``,
  ///   ``KernelError/threadsUnavailable(count:code:)``.
  public static func make(_ name: String, threads: Int) throws -> any Device {
    try makeCPU(name, threads: threads)
  }

  /// Makes the device `name` for training, which rounds nothing; everything else as
  /// ``make(_:threads:)`` does.
  public static func makeTraining(_ name: String, threads: Int) throws -> any TrainingDevice {
    if case .cpu(roundsInputs: true) = DeviceName(name) {
      throw KernelError.deviceUnavailable(
        name, reason: "training computes in float32; name the device \"cpu\"")
    }
    return try makeCPU(name, threads: threads)
  }

  private static func makeCPU(_ name: String, threads: Int) throws -> CPUDevice {
    switch DeviceName(name) {
    case .cpu(let roundsInputs):
      return try CPUDevice(threads: threads, roundsInputs: roundsInputs)
    case .cuda:
      throw KernelError.deviceUnavailable(name, reason: "this build has no code for CUDA")
    case nil: throw KernelError.unknownDevice(name)
    }
  }
}

/// A device as people name it: `cpu`, `cpu:bf16` or `cuda:N`.
public enum DeviceName: Hashable, Sendable, CustomStringConvertible {
  case cpu(roundsInputs: Bool)
  case cuda(Int)

  /// Nil when the text names no device.
  public init?(_ text: String) {
    if text == "cpu" || text == "cpu:bf16" {
      self = .cpu(roundsInputs: text != "cpu")
      return
    }
    let digits = text.dropFirst("cuda:".count)
    guard text.hasPrefix("cuda:"), digits.allSatisfy({ $0.isASCII && $0.isNumber }),
      let number = Int(digits)
    else { return nil }
    self = .cuda(number)
  }

  public var description: String {
    switch self {
    case .cpu(let roundsInputs): roundsInputs ? "cpu:bf16" : "cpu"
    case .cuda(let number): "cuda:\(number)"
    }
  }
}
