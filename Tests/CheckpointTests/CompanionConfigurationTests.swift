import Support
import Testing

@testable import Checkpoint

@Suite struct GenerationConfigurationTests {
  private let folder: TemporaryFolder
  private let language = LanguageConfiguration(
    hiddenSize: 64, layerCount: 2, headCount: 4, keyValueHeadCount: 2, intermediateSize: 100,
    vocabularySize: 300, eosTokens: [7])

  init() throws { folder = try TemporaryFolder() }

  @Test(arguments: [
    (#"{"eos_token_id": 2}"#, [2]), (#"{"eos_token_id": [2, 6, 7]}"#, [2, 6, 7]),
    (#"{"eos_token_id": null}"#, [7]), (#"{"eos_token_id": []}"#, [7]), ("{}", [7]),
  ])
  func `end tokens are one, several, or the language model's`(text: String, tokens: [Int]) throws {
    try folder.write("generation_config.json", text)
    #expect(
      try GenerationConfiguration.load(folder: folder.path, language: language).endTokens == tokens)
  }

  @Test func `without the file the language model's count`() throws {
    #expect(
      try GenerationConfiguration.load(folder: folder.path, language: language).endTokens == [7])
  }

  @Test(arguments: ["", "[]", #"{"eos_token_id": "2"}"#, #"{"eos_token_id": [2.5]}"#, "{"])
  func `a damaged file is an error`(text: String) throws {
    try folder.write("generation_config.json", text)
    #expect(throws: CheckpointError.self) {
      try GenerationConfiguration.load(folder: folder.path, language: language)
    }
  }
}

@Suite struct PreprocessorConfigurationTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  @Test func `statistics are read`() throws {
    try folder.write(
      "preprocessor_config.json", #"{"image_mean":[0,0.5,1],"image_std":[0.25,1,2.0],"size":448}"#)
    let configuration = try PreprocessorConfiguration.load(folder: folder.path)
    #expect(configuration.imageMean == [0, 0.5, 1])
    #expect(configuration.imageStandardDeviation == [0.25, 1, 2])
  }

  @Test func `without the file, or its keys, they are ImageNet's`() throws {
    #expect(try PreprocessorConfiguration.load(folder: folder.path) == .imageNet)
    try folder.write("preprocessor_config.json", "{}")
    #expect(try PreprocessorConfiguration.load(folder: folder.path) == .imageNet)
    let golden = Fixtures.path("golden/v12-tiny/checkpoint")
    #expect(try PreprocessorConfiguration.load(folder: golden) == .imageNet)
  }

  @Test(arguments: [
    #"{"image_mean":0.5}"#, #"{"image_mean":[0.5,0.5]}"#, #"{"image_mean":["a","b","c"]}"#,
    #"{"image_std":[0.1,0,0.1]}"#, #"{"image_std":[0.1,-1,0.1]}"#, #"{"image_std":[NaN,1,1]}"#,
    #"{"image_mean":[Infinity,1,1]}"#, "",
  ])
  func `a damaged file is an error`(text: String) throws {
    try folder.write("preprocessor_config.json", text)
    #expect(throws: CheckpointError.self) {
      try PreprocessorConfiguration.load(folder: folder.path)
    }
  }
}
