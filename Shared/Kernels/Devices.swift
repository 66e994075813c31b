/// The devices that `--device` can name.
public enum Devices {
  /// Makes the device `name`: `cpu`, or `cuda:N` with N the number of the card.
  ///
  /// - Parameter threads: threads that compute, for `cpu`.
  /// - Throws: ``KernelError/unknownDevice(_:)``, ``KernelError/deviceUnavailable(_:reason:)``,
  ///   ``KernelError/threadsUnavailable(count:code:)``.
  public static func make(_ name: String, threads: Int) throws -> any Device {
    try makeCPU(name, threads: threads)
  }

  /// Makes the device `name` for training; everything else as ``make(_:threads:)`` does.
  public static func makeTraining(_ name: String, threads: Int) throws -> any TrainingDevice {
    try makeCPU(name, threads: threads)
  }

  private static func makeCPU(_ name: String, threads: Int) throws -> CPUDevice {
    switch DeviceName(name) {
    case .cpu: return try CPUDevice(threads: threads)
    case .cuda:
      throw KernelError.deviceUnavailable(name, reason: "this build has no code for CUDA")
    case nil: throw KernelError.unknownDevice(name)
    }
  }
}

/// A device as people name it: `cpu` or `cuda:N`.
public enum DeviceName: Hashable, Sendable, CustomStringConvertible {
  case cpu
  case cuda(Int)

  /// Nil when the text names no device.
  public init?(_ text: String) {
    if text == "cpu" {
      self = .cpu
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
    case .cpu: "cpu"
    case .cuda(let number): "cuda:\(number)"
    }
  }
}
