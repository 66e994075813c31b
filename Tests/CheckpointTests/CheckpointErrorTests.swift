import Testing

@testable import Checkpoint

@Suite struct CheckpointErrorTests {
  @Test(
    arguments: [
      (
        CheckpointError.missingTensor(
          file: "m/model-2.safetensors", tensor: "vision_model.encoder.layers.3.ls1",
          neededFor: "this stage holds vision layers 0–8"),
        [
          "m/model-2.safetensors", "layers.3.ls1", "this stage holds vision layers 0–8",
          "mesh file",
        ]
      ),
      (
        .unsupported(
          file: "m/config.json", key: "model_type", found: "llava", supported: "internvl_chat"),
        ["m/config.json", "model_type", "llava", "Chiasm runs internvl_chat"]
      ),
      (
        .unsupportedScalarType(file: "f", tensor: "a", found: "F16", expected: "BF16 or F32"),
        ["F16", "convert", "BF16 or F32"]
      ),
      (.diskFull(file: "f", byteCount: 12345), ["f", "12345", "free space"]),
      (.invalidPanels(file: "f", tensor: "a", found: "q5 [1, 32]"), ["q5 [1, 32]", "q4", "q8"]),
      (
        .missingPanels(file: "f", tensor: "a", layout: "q4 [1, 32]"),
        ["f", "a", "q4 [1, 32]", "quantise the model anew"]
      ),
      (
        .panelMismatch(
          file: "f", tensor: "a", layout: "q4 [1, 32]", expected: "U8 [1, 320]", found: "I8 [2]"),
        ["q4 [1, 32]", "U8 [1, 320]", "I8 [2]", "quantise the model anew"]
      ),
      (
        .packedWeight(file: "f", tensor: "a", layout: "q4 [1, 32]"),
        ["f", "a", "q4 [1, 32]", "needed as floats", "quantised from"]
      ),
      (
        .quantisedModel(folder: "f", purpose: "cannot be trained"),
        ["f", "cannot be trained", "quantised from"]
      ),
      (
        .unquantisable(file: "f", tensor: "a", row: 3, column: 4, value: "nan"),
        ["f", "a", "row 3", "column 4", "nan"]
      ),
      (
        .noRoomForModel(folder: "f", needed: 12345, free: 67),
        ["f", "12345", "67", "run the command again"]
      ),
      (.missingFolder("/models/none"), ["/models/none", "does not exist"]),
      (
        .shapeMismatch(file: "f", tensor: "a", expected: [2, 3], found: [3, 2], neededFor: "why"),
        ["[2, 3]", "[3, 2]", "why"]
      ),
      (
        .noRoom(folder: "out", needed: 4096, free: 512),
        ["out", "4096", "512", "--save-total-limit"]
      ),
      (.beingWritten(folder: "out/tmp-checkpoint-2"), ["tmp-checkpoint-2", "another process"]),
      (
        .damaged(file: "c/config.json", expected: "12 bytes", found: "11"),
        ["c/config.json", "12 bytes", "11"]
      ),
      (
        .unexpectedTensor(
          file: "f", tensor: "a", expected: "bfloat16 [2]", found: "float32 [2]"),
        ["f", "a", "bfloat16 [2]", "float32 [2]"]
      ),
      (
        .missingState(folder: "c", parameter: "ls1", state: "exp_avg.ls1"),
        ["c", "ls1", "exp_avg.ls1", "freeze"]
      ),
      (.invalidArchive(file: "a.pth", reason: "why"), ["a.pth", "why"]),
      (.invalidPickle(file: "a.pth", offset: 17, reason: "why"), ["a.pth", "17", "why"]),
      (
        .forbiddenGlobal(file: "a.pth", name: "posix.system"),
        ["a.pth", "posix.system", "nothing of it was run", "safetensors"]
      ),
      (
        .unsupportedPickle(file: "a.pth", offset: 17, what: "instruction 0x81"),
        ["a.pth", "17", "instruction 0x81"]
      ),
      (
        .invalidTorchTensor(file: "a.pth", tensor: "w", reason: "reaches outside"),
        ["a.pth", "w", "reaches outside"]
      ),
      (.unsuitablePart(file: "tok", reason: "why"), ["tok", "why"]),
    ] as [(CheckpointError, [String])])
  func `a description says what, where and what to do`(error: CheckpointError, parts: [String]) {
    for part in parts { #expect(error.description.contains(part), "\(error)") }
  }

  @Test func `names from files are shown without control characters and not at any length`() {
    let name = "a\u{1B}[31m\n" + String(repeating: "x", count: 10_000)
    let text = CheckpointError.duplicateName(file: "f", name: name).description
    #expect(!text.contains("\u{1B}") && !text.contains("\n") && text.utf8.count < 500)
  }
}
