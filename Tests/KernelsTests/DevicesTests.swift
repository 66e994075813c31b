import Tensors
import Testing

@testable import Kernels

@Suite struct DevicesTests {
  @Test("cpu is a device")
  func cpu() throws {
    let device = try Devices.make("cpu", threads: 2)
    #expect(device.name == "cpu")
    #expect((device as? CPUDevice)?.pool.threadCount == 2)
    #expect((try Devices.makeTraining("cpu", threads: 2) as? CPUDevice)?.pool.threadCount == 2)
  }

  @Test("cpu:bf16 rounds inputs, and does not train")
  func rounding() throws {
    let device = try Devices.make("cpu:bf16", threads: 1)
    #expect(device.name == "cpu:bf16")
    #expect((device as? CPUDevice)?.roundsInputs == true)
    #expect(throws: KernelError.self) { try Devices.makeTraining("cpu:bf16", threads: 1) }
  }

  @Test("less than one thread is one thread", arguments: [0, -3])
  func fewThreads(threads: Int) throws {
    #expect(try CPUDevice(threads: threads).pool.threadCount == 1)
  }

  @Test("a card is a device that this build has no code for", arguments: ["cuda:0", "cuda:12"])
  func cuda(name: String) {
    let error = KernelError.deviceUnavailable(name, reason: "this build has no code for CUDA")
    #expect(throws: error) { try Devices.make(name, threads: 1) }
    #expect(throws: error) { try Devices.makeTraining(name, threads: 1) }
  }

  @Test(
    "anything else is no device",
    arguments: [
      "", "CPU", "cpu:0", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:１", "gpu",
      "cuda:99999999999999999999",
    ])
  func unknown(name: String) {
    #expect(throws: KernelError.unknownDevice(name)) { try Devices.make(name, threads: 1) }
  }

  @Test(
    "a device's name reads back",
    arguments: [
      DeviceName.cpu(roundsInputs: false), .cpu(roundsInputs: true), .cuda(0), .cuda(7),
    ])
  func names(name: DeviceName) {
    #expect(DeviceName(name.description) == name)
  }

  @Test(
    "every error says what was found",
    arguments: [
      (KernelError.tokenOutOfRange(id: 5, rows: 3), "token id 5"),
      (.positionOutOfRange(position: 9, rows: 4), "position 9"),
      (.targetOutOfRange(row: 7, rows: 4), "row 7"),
      (.spanOutOfRange(rows: 1..<6, batch: 2), "1..<6"),
      (.turnsOutOfRange(turns: [2, 3], rows: 4), "4 rows has turns of [2, 3]"),
      (.cacheTooShort(positions: 2, needed: 3), "hold 2 positions, 3 are needed"),
      (
        .sequencesOverlap(rows: 4..<7, end: 5),
        "rows 4..<7 of a batch, but another one reaches to row 5"
      ),
      (.unknownDevice("gpu"), "gpu is no device"),
      (.deviceUnavailable("cuda:1", reason: "why"), "why"),
      (.notQuantisable(row: 5, column: 9, value: .infinity), "row 5, column 9 is inf"),
      (.threadsUnavailable(count: 8, code: 11), "8 threads (errno 11)"),
    ])
  func descriptions(error: KernelError, part: String) {
    #expect(error.description.contains(part))
  }
}
