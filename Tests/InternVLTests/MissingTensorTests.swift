import Checkpoint
import InternVL
import Kernels
import Testing

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Folders that lack what a stage needs. Errors say which tensor, and for which layers.
@Suite struct MissingTensorTests {
  /// A copy of a checkpoint folder, without some files, with a changed config.json.
  private func withCopy(
    of modelCase: ModelCase, without removed: [String] = [],
    replacing changes: [(String, String)] = [], _ body: (String) throws -> Void
  ) throws {
    let files = FileManager.default
    let copy = "\(files.temporaryDirectory.path)/chiasm-\(UUID().uuidString)"
    try files.copyItem(atPath: modelCase.checkpoint, toPath: copy)
    defer { try? files.removeItem(atPath: copy) }
    for name in removed { try files.removeItem(atPath: "\(copy)/\(name)") }
    let path = URL(fileURLWithPath: "\(copy)/config.json")
    var text = String(decoding: try Data(contentsOf: path), as: UTF8.self)
    for (old, new) in changes {
      try #require(text.contains(old))
      text = text.replacing(old, with: new)
    }
    try Data(text.utf8).write(to: path)
    try body(copy)
  }

  private func message(_ body: () throws -> Void) -> String {
    do {
      try body()
      return ""
    } catch {
      return "\(error)"
    }
  }

  @Test("A layer that config.json has and the weights have not")
  func layer() throws {
    let change = ("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4")
    try withCopy(of: ModelCase.golden[0], replacing: [change]) { folder in
      let configuration = try ModelConfiguration.load(folder: folder)
      let checkpoint = try CheckpointReader(folder: folder)
      let device = try CPUDevice(threads: 1)
      let vision = message {
        _ = try VisionStage(configuration, layers: 2..<4, checkpoint: checkpoint, device: device)
      }
      #expect(vision.contains("vision_model.encoder.layers.3."))
      #expect(vision.contains("this stage holds vision layers 2–3"))
      let language = message {
        _ = try LanguageStage(
          configuration, layers: 3..<4, checkpoint: checkpoint, device: device, cacheTokens: 64)
      }
      #expect(language.contains("language_model.model.layers.3."))
      #expect(language.contains("this stage holds language layer 3"))
    }
  }

  @Test("A shard that is not there stops the stages that need it, and only those")
  func shard() throws {
    let modelCase = ModelCase.golden[1]
    let all = try CheckpointReader(folder: modelCase.checkpoint)
    #expect(all.contains("language_model.lm_head.weight"))
    try withCopy(of: modelCase, without: ["model-00020-of-00020.safetensors"]) { folder in
      let configuration = try ModelConfiguration.load(folder: folder)
      let checkpoint = try CheckpointReader(folder: folder)
      let device = try CPUDevice(threads: 1)
      _ = try VisionStage(configuration, layers: 0..<1, checkpoint: checkpoint, device: device)
      let found = message {
        _ = try InternVLModel(configuration, checkpoint: checkpoint, device: device)
      }
      #expect(found.contains("model-00020-of-00020.safetensors"))
    }
  }

  @Test("A tensor of another shape")
  func shape() throws {
    let change = ("\"vocab_size\": 512", "\"vocab_size\": 513")
    try withCopy(of: ModelCase.golden[0], replacing: [change]) { folder in
      let found = message { _ = try InternVLModel(folder: folder, device: CPUDevice(threads: 1)) }
      #expect(found.contains("language_model.model.embed_tokens.weight"))
      #expect(found.contains("[513, 64]") && found.contains("[512, 64]"))
    }
  }
}
