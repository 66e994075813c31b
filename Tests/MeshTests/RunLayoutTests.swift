import Testing

@testable import Mesh

/// Meshes made in code for training.
@Suite struct RunLayoutTests {
  private func commands(_ layout: Layout) throws -> [String: String] {
    let file = try layout.file(in: RunDirectory(path: "/r"))
    return Dictionary(
      uniqueKeysWithValues: file.services.map { ($0.name, $0.command.joined(separator: " ")) })
  }

  @Test func `Language processes with several slices form a ring`() throws {
    var layout = Layout(model: "/m", visionLayers: 2, languageLayers: 9, languageStages: 2)
    layout.virtualStages = 2
    let commands = try commands(layout)
    #expect(
      commands["language-0"] == "chiasm-language --model /m --layers 0-1,4-5 "
        + "--listen unix:/r/language-0.sock --next unix:/r/language-1.sock")
    #expect(
      commands["language-1"] == "chiasm-language --model /m --layers 2-3,6-8 "
        + "--listen unix:/r/language-1.sock --next unix:/r/language-0.sock")
  }

  @Test func `Given slices take the place of even ones`() throws {
    var layout = Layout(
      model: "/m", visionLayers: 4, languageLayers: 4, visionStages: 2, languageStages: 2)
    layout.visionSlices = [0..<1, 1..<4]
    layout.languageSlices = [0..<3, 3..<4]
    let commands = try commands(layout)
    #expect(commands["vision-1"]?.contains("--layers 1-3 ") == true)
    #expect(commands["language-0"]?.contains("--layers 0-2 ") == true)
    #expect(commands["language-1"]?.contains("--next") == false)
  }

  @Test func `Services start again where that is asked for`() throws {
    var layout = Layout(model: "/m", visionLayers: 1, languageLayers: 1)
    layout.restarts = true
    let file = try layout.file(in: RunDirectory(path: "/r"))
    #expect(file.services.allSatisfy { $0.restart == .onFailure(limit: nil) })
  }

  @Test func `More slices than layers are refused`() {
    var layout = Layout(model: "/m", visionLayers: 1, languageLayers: 3, languageStages: 2)
    layout.virtualStages = 2
    #expect(throws: MeshError.invalidLayout(part: "language model", stages: 4, layers: 3)) {
      try layout.file(in: RunDirectory(path: "/r"))
    }
  }
}
