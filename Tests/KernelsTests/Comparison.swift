import CKernels
import Support
import Tensors
import Testing

@testable import Kernels

/// Devices under test, started once.
enum TestDevices {
  /// By number of threads.
  static let byThreads: [Int: CPUDevice] = {
    var devices: [Int: CPUDevice] = [:]
    for threads in [1, 2, 3, 5] { devices[threads] = try? CPUDevice(threads: threads) }
    return devices
  }()

  /// One for each instruction set that this processor can run.
  static let byPath: [CPUDevice] = [
    CK_PLAIN, CK_AVX2, CK_AVX2_VNNI, CK_AVX512, CK_AVX512_VNNI,
    CK_AVX512_BF16,
  ].compactMap { path in
    guard let kernels = ck_kernels_for(path), let pool = try? ThreadPool(threads: 1) else {
      return nil
    }
    return CPUDevice(pool: pool, kernels: kernels.pointee)
  }

  /// Every device: threads and instruction sets.
  static var all: [CPUDevice] { byThreads.sorted { $0.key < $1.key }.map(\.value) + byPath }
}

/// Runs `operation` on every device and expects the same bits from each, and the reference's
/// numbers within `tolerance` of the greatest of them (or of 1).
func expectEverywhere(
  _ expected: [Double], tolerance: Double = 2e-6, sourceLocation: SourceLocation = #_sourceLocation,
  _ operation: (CPUDevice) throws -> Tensor
) throws {
  try #require(TestDevices.byThreads.count == 4, sourceLocation: sourceLocation)
  try #require(!TestDevices.byPath.isEmpty, sourceLocation: sourceLocation)
  var first: Tensor?
  for device in TestDevices.all {
    let result = try operation(device)
    if let first {
      #expect(
        result.hasSameBits(as: first),
        "\(device.instructionSet), \(device.pool.threadCount) threads",
        sourceLocation: sourceLocation)
    } else {
      first = result
      expectClose(result, expected, tolerance: tolerance, sourceLocation: sourceLocation)
    }
  }
}

/// Expects the reference's numbers within `tolerance` of the greatest of them (or of 1).
func expectClose(
  _ found: Tensor, _ expected: [Double], tolerance: Double = 2e-6,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  let values = found.doubles
  guard values.count == expected.count else {
    Issue.record(
      "\(values.count) elements, expected \(expected.count)", sourceLocation: sourceLocation)
    return
  }
  let scale = max(1, expected.map(abs).max() ?? 1)
  let error = zip(values, expected).map { $0.isNaN ? .infinity : abs($0 - $1) }.max() ?? 0
  #expect(error <= tolerance * scale, sourceLocation: sourceLocation)
}
