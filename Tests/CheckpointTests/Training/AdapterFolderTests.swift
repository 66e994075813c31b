import Tensors
import Testing

@testable import Checkpoint

@Suite struct AdapterFolderTests {
  private let language = "language_model.base_model.model.model.layers"

  @Test func `a part's adapters are saved under PEFT's names`() throws {
    let folder = try TemporaryFolder()
    let names = [
      "\(language).0.self_attn.q_proj.lora_A.default.weight",
      "\(language).0.self_attn.q_proj.lora_B.default.weight",
      "\(language).11.mlp.gate_proj.lora_A.default.weight",
      "vision_model.base_model.model.encoder.layers.0.attn.qkv.lora_A.default.weight",
    ]
    let adapters = names.map { (name: $0, tensor: SmallRun.value($0, [2, 3])) }
    let path = "\(folder.path)/adapters/language"
    try AdapterFolder(
      part: "language_model", rank: 2, alpha: 4, dropout: 0.05, baseModel: "models/base"
    ).write(adapters, to: path)
    let file = try SafetensorsFile(path: "\(path)/adapter_model.safetensors")
    let saved = "base_model.model.model.layers"
    #expect(
      file.names == [
        "\(saved).0.self_attn.q_proj.lora_A.weight", "\(saved).0.self_attn.q_proj.lora_B.weight",
        "\(saved).11.mlp.gate_proj.lora_A.weight",
      ])
    #expect(try file.tensor(file.names[1]).floats == adapters[1].tensor.floats)
    let object = try ConfigurationObject(
      readFile("\(path)/adapter_config.json", limit: 1 << 16), file: "f")
    #expect(try object.strings("target_modules") == ["mlp.gate_proj", "self_attn.q_proj"])
    #expect(try object.integer("r", in: 2...2) == 2)
    #expect(try object.number("lora_alpha", in: 4...4) == 4)
    #expect(try object.string("base_model_name_or_path") == "models/base")
  }

  @Test func `modules of the vision encoder are named without their layer`() throws {
    let folder = try TemporaryFolder()
    let name = "vision_model.base_model.model.encoder.layers.7.attn.qkv.lora_A.default.weight"
    try AdapterFolder(part: "vision_model", rank: 1, alpha: 2, dropout: 0, baseModel: "")
      .write([(name: name, tensor: SmallRun.value(name, [1, 2]))], to: folder.path)
    let object = try ConfigurationObject(
      readFile("\(folder.path)/adapter_config.json", limit: 1 << 16), file: "f")
    #expect(try object.strings("target_modules") == ["attn.qkv"])
  }
}
