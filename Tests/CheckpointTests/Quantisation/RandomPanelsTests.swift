import Support
import Synchronization
import Tensors
import Testing

@testable import Checkpoint

@Suite struct RandomPanelsTests {
  private func matrix(
    _ format: PackedMatrix.Format, _ outputs: Int, _ depth: Int, seed: UInt64 = 1,
    name: String = "w", piece: Int = 1000
  ) throws -> PackedMatrix {
    let layout = try #require(PanelLayout(format, outputs: outputs, depth: depth))
    let panels = Tensor(uninitialized: .uint8, layout.tensorShape)
    panels.withElements(of: UInt8.self) { $0.update(repeating: 0xAA) }
    let random = RandomPanels(name: name, seed: seed, layout: layout)
    for first in stride(from: 0, to: panels.shape[0], by: piece) {
      random.fill(panels.rows(first..<min(first + piece, panels.shape[0])), from: first)
    }
    return try PackedMatrix(format, outputs: outputs, depth: depth, panels: panels)
  }

  private func bytes(_ matrix: PackedMatrix) -> [UInt8] {
    matrix.panels.withElements(of: UInt8.self) { Array($0) }
  }

  @Test(arguments: [PackedMatrix.Format.q8, .q4])
  func `weights have mean zero and their scale`(format: PackedMatrix.Format) throws {
    let weights = PlainPanels.weights(try matrix(format, 100, 3200))
    let count = Double(weights.count)
    let mean = weights.reduce(0) { $0 + Double($1) } / count
    let deviation = (weights.reduce(0) { $0 + Double($1) * Double($1) } / count).squareRoot()
    #expect(abs(mean) < 2e-4 && abs(deviation - 0.02) < 2e-4, "\(mean) \(deviation)")
    #expect(weights.allSatisfy { abs($0) < 0.04 } && Set(weights.prefix(3200)).count > 40)
    for row in stride(from: 0, to: 100, by: 9) {
      let sum = weights[row * 3200..<(row + 1) * 3200].reduce(0, +)
      #expect(abs(sum) < 5 * 0.02 * 56.6)
    }
  }

  @Test(arguments: [PackedMatrix.Format.q8, .q4])
  func `seed, name and place decide the bytes, pieces do not`(
    format: PackedMatrix.Format
  ) throws {
    let whole = bytes(try matrix(format, 90, 96))
    #expect(try bytes(matrix(format, 90, 96, piece: 1)) == whole)
    #expect(try bytes(matrix(format, 90, 96, piece: 4)) == whole)
    #expect(try bytes(matrix(format, 90, 96, seed: 2)) != whole)
    #expect(try bytes(matrix(format, 90, 96, name: "v")) != whole)
    let size = whole.count / 6
    #expect(Set((0..<6).map { Array(whole[$0 * size..<($0 + 1) * size]) }).count == 6)
  }

  @Test func `no byte stands for a weight that 8 bits do not have`() throws {
    let matrix = try matrix(.q8, 32, 3200)
    for panel in 0..<2 {
      let values = matrix.panels[panel].withElements(of: UInt8.self) { Array($0.prefix(51_200)) }
      #expect(!values.contains(0) && Set(values).count == 255)
    }
  }

  @Test(arguments: [PackedMatrix.Format.q8, .q4], [1, 7, 8, 9, 15, 16, 17])
  func `outputs behind the last are zeros`(
    format: PackedMatrix.Format, outputs: Int
  ) throws {
    let found = try matrix(format, outputs, 64)
    let last = found.panelCount - 1
    let padded = try PackedMatrix(
      format, outputs: found.panelCount * 16, depth: 64, panels: found.panels)
    let weights = PlainPanels.weights(padded)
    #expect(weights[(outputs * 64)...].allSatisfy { $0 == 0 })
    #expect(weights[..<(outputs * 64)].contains { $0 != 0 })
    // The same weights that the panel has whole.
    let whole = try matrix(format, found.panelCount * 16, 64)
    #expect(PlainPanels.weights(whole).prefix(outputs * 64) == weights.prefix(outputs * 64))
    // Behind the panel's data, and where the other outputs' numbers would be.
    let tail = found.panels[last].withElements(of: UInt8.self) { Array($0) }
    let data = format == .q8 ? 2 * 544 : 2 * 296
    #expect(tail[data...].allSatisfy { $0 == 0 })
    let groups = format == .q8 ? 16 : 8
    let inPanel = outputs - last * 16
    for group in 0..<groups {
      #expect(tail[group * 64 + inPanel * 4..<(group + 1) * 64].allSatisfy { $0 == 0 })
    }
  }

  @Test func `an empty weight has no bytes`() throws {
    #expect(try matrix(.q4, 0, 64).panelCount == 0)
    #expect(try matrix(.q4, 16, 0).panelBytes == 0)
  }
}

@Suite struct RandomQuantisedModelTests {
  private let folder: TemporaryFolder
  private let tokenizer = Fixtures.path("golden/v12-tiny/checkpoint")

  init() throws { folder = try TemporaryFolder() }

  @Test(arguments: [QuantisationRecipe.Storage.q8, .q4])
  func `a written model loads and verifies`(type: QuantisationRecipe.Storage) throws {
    let configuration = try QuantisationRecipeTests.configuration()
    let path = "\(folder.path)/deep/model"
    var model = RandomQuantisedModel(configuration, recipe: QuantisationRecipe(type), seed: 3)
    model.shardBytes = 50_000
    model.threads = 2
    let last = Mutex<WritingProgress?>(nil)
    try model.write(to: path, tokenizerFolder: tokenizer) { progress in
      last.withLock { $0 = $0.map { $0.done > progress.done ? $0 : progress } ?? progress }
    }
    let progress = try #require(last.withLock { $0 })
    #expect(progress.done == progress.total && progress.total == model.byteCount)
    #expect(progress.number == progress.fileCount && progress.fileCount > 2)
    let read = try ModelConfiguration.load(folder: path)
    #expect(read.quantisation == QuantisationRecipe(type))
    let reader = try CheckpointReader(folder: path)
    try reader.verify(read)
    for weight in WeightNames.all(read) where weight.shape.count == 2 {
      guard case .panels(let matrix) = try reader.matrix(weight, neededFor: "test") else {
        Issue.record("\(weight.name) is not quantised")
        continue
      }
      let isLanguageLayer = weight.name.contains("model.layers.")
      #expect(matrix.format == (isLanguageLayer ? type.format : .q8), "\(weight.name)")
      #expect(UInt(bitPattern: matrix.panels.baseAddress) % 64 == 0)
    }
    #expect(try reader.tensor("vision_model.encoder.layers.0.ls1").floats.allSatisfy { $0 != 0 })
    let names = folderEntries(path)
    #expect(names.contains("tokenizer.model") && names.contains("preprocessor_config.json"))
    #expect(!names.contains { $0.hasPrefix(".") || $0 == ResumableFolder.journalName })
    #expect(folderEntries("\(folder.path)/deep") == ["model"])
  }

  @Test func `threads and the size of files do not change the weights`() throws {
    let configuration = try QuantisationRecipeTests.configuration(tied: true)
    func write(_ name: String, threads: Int, shardBytes: Int) throws -> CheckpointReader {
      var model = RandomQuantisedModel(configuration, recipe: QuantisationRecipe(.q4), seed: 3)
      model.threads = threads
      model.shardBytes = shardBytes
      try model.write(to: "\(folder.path)/\(name)", tokenizerFolder: nil)
      return try CheckpointReader(folder: "\(folder.path)/\(name)")
    }
    let one = try write("one", threads: 1, shardBytes: 1 << 30)
    let many = try write("many", threads: 3, shardBytes: 30_000)
    for weight in WeightNames.all(configuration) {
      let bytes = try [one, many].map { reader in
        try ModelQuantisationTests.bytes(weight, reader)
      }
      #expect(bytes[0] == bytes[1], "\(weight.name)")
    }
  }

  @Test func `the release's shape has 40 billion weights`() throws {
    let model = RandomQuantisedModel(
      try RandomModel.releaseConfiguration(), recipe: QuantisationRecipe(.q4), seed: 1)
    #expect(model.parameterCount == 40_068_684_160)
    #expect((26_000_000_000..<27_000_000_000).contains(model.byteCount))
  }
}
