import Tensors
import Testing

@testable import Checkpoint

@Suite struct QuantisationRecipeTests {
  static func configuration(
    tied: Bool = false, width: Int = 64, inner: Int = 96
  ) throws -> ModelConfiguration {
    try ModelConfiguration(
      vision: VisionConfiguration(
        hiddenSize: 96, layerCount: 2, headCount: 3, intermediateSize: 128, imageSize: 56,
        qkvBias: true, norm: .layer),
      language: {
        var language = LanguageConfiguration(
          hiddenSize: width, layerCount: 2, headCount: 4, keyValueHeadCount: 2,
          intermediateSize: inner, vocabularySize: 1007, eosTokens: [2, 6, 7])
        language.tiesEmbeddings = tied
        return language
      }())
  }

  @Test func `only the language model's layers have 4 bits`() throws {
    let configuration = try Self.configuration()
    let recipe = QuantisationRecipe(.q4)
    for weight in WeightNames.all(configuration) {
      let expected: QuantisationRecipe.Storage? =
        if weight.shape.count != 2 {
          nil
        } else {
          weight.name.hasPrefix("language_model.model.layers.") ? .q4 : .q8
        }
      #expect(recipe.storage(of: weight) == expected, "\(weight.name)")
    }
    #expect(recipe.storage(of: Weight("vision_model.encoder.layers.0.ls1", [96])) == nil)
  }

  @Test func `every product's weight is quantised, and nothing else`() throws {
    let configuration = try Self.configuration()
    let quantised = WeightNames.all(configuration)
      .filter { QuantisationRecipe(.q8).storage(of: $0) == .q8 }.map(\.name)
    #expect(quantised.count == 2 * 4 + 2 + 1 + 2 * 7 + 1)
    #expect(!quantised.contains { $0.contains("norm") || $0.contains("embeddings") })
    #expect(quantised.contains("language_model.lm_head.weight"))
  }

  @Test func `a weight whose rows are no multiple of a block stays`() throws {
    let configuration = try Self.configuration(inner: 100)
    let layer = WeightNames.LanguageLayer(configuration, 0)
    #expect(QuantisationRecipe(.q4).storage(of: layer.downWeight) == nil)
    #expect(QuantisationRecipe(.q4).storage(of: layer.gateWeight) == .q4)
  }

  @Test func `a tied head is stored as the embedding`() throws {
    var recipe = QuantisationRecipe(.q4)
    recipe[.embedding] = .bfloat16
    #expect(recipe.adapted(to: try Self.configuration(tied: true))[.head] == .bfloat16)
    #expect(recipe.adapted(to: try Self.configuration())[.head] == .q8)
  }

  @Test(arguments: QuantisationRecipe.Storage.allCases)
  func `config.json says how a model is quantised`(type: QuantisationRecipe.Storage) throws {
    let configuration = try Self.configuration()
    #expect(configuration.quantisation == nil)
    var recipe = QuantisationRecipe(type)
    recipe[.projector] = .bfloat16
    let read = try ModelConfiguration(configuration.encoded(with: recipe), file: "c")
    #expect(read.quantisation == recipe)
    #expect(read.vision == configuration.vision && read.language == configuration.language)
    let again = try ModelConfiguration(read.encoded(with: recipe), file: "c")
    #expect(again.encoded == read.encoded)
  }

  private func configuration(_ quantisation: String) throws -> [UInt8] {
    let text = String(decoding: try Self.configuration().encoded, as: UTF8.self)
    return Array(
      (#"{"quantization_config": "# + quantisation + "," + text.drop { $0 != "{" }.dropFirst())
        .utf8)
  }

  @Test func `null is no quantisation`() throws {
    #expect(try ModelConfiguration(configuration("null"), file: "c").quantisation == nil)
  }

  @Test(arguments: ["gptq", "awq", "bitsandbytes", "compressed-tensors"])
  func `other methods are refused by name`(method: String) throws {
    #expect(
      throws: CheckpointError.unsupported(
        file: "c", key: "quantization_config.quant_method", found: method,
        supported: "models that are not quantised, and those that chiasm quantize wrote")
    ) {
      try ModelConfiguration(configuration(#"{"quant_method": "\#(method)"}"#), file: "c")
    }
  }

  @Test(arguments: [
    "{}", "[]", "7", #""q4""#, #"{"quant_method": 4}"#, #"{"quant_method": "chiasm"}"#,
    #"{"quant_method": "chiasm", "version": 0}"#, #"{"quant_method": "chiasm", "version": 2}"#,
    #"{"quant_method": "chiasm", "version": 1, "vision": "q8"}"#,
    #"{"quant_method": "chiasm", "version": 1, "vision": "q5", "projector": "q8", "language": "q8", "embedding": "q8", "head": "q8"}"#,
    #"{"quant_method": "chiasm", "version": 1, "vision": 8, "projector": "q8", "language": "q8", "embedding": "q8", "head": "q8"}"#,
  ])
  func `anything that is not ours is refused`(text: String) throws {
    #expect(throws: CheckpointError.self) {
      try ModelConfiguration(configuration(text), file: "c")
    }
  }

  @Test func `a part that is quantised on its own is refused`() throws {
    let text = String(decoding: try Self.configuration().encoded, as: UTF8.self)
      .replacing(
        #""llm_config": {"#,
        with: #""llm_config": {"quantization_config": {"quant_method": "awq"},"#)
    #expect(
      throws: CheckpointError.unsupported(
        file: "c", key: "llm_config.quantization_config.quant_method", found: "awq",
        supported: "models that are quantised as a whole, by chiasm quantize")
    ) { try ModelConfiguration(Array(text.utf8), file: "c") }
  }

  @Test func `what needs floats refuses a quantised model and says which to take`() throws {
    let configuration = try Self.configuration()
    try configuration.requireFloats(folder: "f", purpose: "cannot be trained")
    let quantised = try ModelConfiguration(
      configuration.encoded(with: QuantisationRecipe(.q8)), file: "c")
    let error = CheckpointError.quantisedModel(folder: "f", purpose: "cannot be trained")
    #expect(throws: error) {
      try quantised.requireFloats(folder: "f", purpose: "cannot be trained")
    }
    #expect("\(error)".contains("use the folder of the model that it was quantised from"))
  }
}
