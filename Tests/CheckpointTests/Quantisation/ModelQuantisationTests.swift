import Support
import Synchronization
import Tensors
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct ModelQuantisationTests {
  private let folder: TemporaryFolder
  private let source: String
  private let output: String

  init() throws {
    folder = try TemporaryFolder()
    source = "\(folder.path)/source"
    output = "\(folder.path)/output"
  }

  private func makeSource(
    tied: Bool = false, inner: Int = 96, type: ScalarType = .bfloat16, shardBytes: Int = 100_000
  ) throws -> ModelConfiguration {
    let configuration = try QuantisationRecipeTests.configuration(tied: tied, inner: inner)
    try RandomModel.write(
      configuration, seed: 7, scalarType: type, to: source, shardBytes: shardBytes,
      tokenizerFolder: Fixtures.path("golden/v12-tiny/checkpoint"))
    return configuration
  }

  private func quantisation(
    _ recipe: QuantisationRecipe = QuantisationRecipe(.q4), shardBytes: Int = 40_000,
    packing: @escaping PanelPacking = PlainPanels.packing
  ) throws -> ModelQuantisation {
    var work = try ModelQuantisation(source: source, recipe: recipe, packing: packing)
    work.shardBytes = shardBytes
    work.threads = 2
    return work
  }

  /// The bytes of a weight as it is stored.
  static func bytes(_ weight: Weight, _ reader: CheckpointReader) throws -> [UInt8] {
    let tensor: Tensor
    if try reader.panelLayout(weight.name) != nil,
      case .panels(let matrix) = try reader.matrix(weight, neededFor: "test")
    {
      tensor = matrix.panels
    } else {
      tensor = try reader.tensor(weight, neededFor: "test")
    }
    return withExtendedLifetime(tensor.storage) {
      Array(UnsafeRawBufferPointer(start: tensor.baseAddress, count: tensor.byteCount))
    }
  }

  @Test(arguments: [QuantisationRecipe.Storage.q8, .q4], [ScalarType.bfloat16, .float32])
  func `every weight is near the source's, or the same`(
    type: QuantisationRecipe.Storage, stored: ScalarType
  ) throws {
    let configuration = try makeSource(type: stored)
    let outcome = try quantisation(QuantisationRecipe(type)).write(to: output)
    #expect(outcome.unquantised.isEmpty && outcome.bytes < outcome.sourceBytes)
    let read = try ModelConfiguration.load(folder: output)
    #expect(read == outcome.configuration && read.quantisation == QuantisationRecipe(type))
    let (before, after) = (
      try CheckpointReader(folder: source), try CheckpointReader(folder: output)
    )
    try after.verify(read)
    #expect(after.names == before.names && outcome.weights == before.names.count)
    for weight in WeightNames.all(configuration) {
      guard let layout = try after.panelLayout(weight.name) else {
        #expect(weight.shape.count != 2)
        #expect(try Self.bytes(weight, before) == Self.bytes(weight, after))
        continue
      }
      let isLanguage = weight.name.contains("model.layers.")
      #expect(layout.format == (isLanguage ? type.format : .q8), "\(weight.name)")
      guard case .panels(let matrix) = try after.matrix(weight, neededFor: "test") else {
        Issue.record("\(weight.name) has no panels")
        continue
      }
      // Weights have deviation 0.02 and reach 0.07.
      let bound: Float = layout.format == .q8 ? 0.0004 : 0.006
      let worst = zip(PlainPanels.weights(matrix), try before.tensor(weight.name).floats)
        .reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(worst < bound && worst > 0, "\(weight.name): \(worst)")
    }
  }

  @Test func `what lies beside the weights comes along`() throws {
    _ = try makeSource()
    try folder.write("source/modeling_internvl_chat.py", "print(1)")
    try folder.write("source/unfinished.json", "{}")
    _ = try quantisation().write(to: output)
    let names = folderEntries(output)
    for name in ["tokenizer.model", "modeling_internvl_chat.py", "preprocessor_config.json"] {
      #expect(
        try readFile("\(output)/\(name)", limit: 1 << 24)
          == readFile("\(source)/\(name)", limit: 1 << 24), "\(name)")
    }
    #expect(names.contains(CheckpointReader.indexName) && !names.contains("unfinished.json"))
    #expect(folder.names == ["output", "source"])
  }

  @Test func `a tied head stays the embedding`() throws {
    let configuration = try makeSource(tied: true)
    _ = try quantisation().write(to: output)
    let reader = try CheckpointReader(folder: output)
    #expect(!reader.contains("language_model.lm_head.weight"))
    let head = WeightNames.languageHead(configuration)
    #expect(try reader.panelLayout(head.name)?.format == .q8)
    try reader.verify(ModelConfiguration.load(folder: output))
  }

  @Test func `rows that are no multiple of a block stay, and are named`() throws {
    let configuration = try makeSource(inner: 100)
    let outcome = try quantisation().write(to: output)
    let expected = (0..<2).map { WeightNames.LanguageLayer(configuration, $0).downWeight.name }
    #expect(outcome.unquantised == expected)
    let reader = try CheckpointReader(folder: output)
    let (before, name) = (try CheckpointReader(folder: source), expected[1])
    #expect(try reader.tensor(name).floats == before.tensor(name).floats)
    guard
      case .rows = try reader.matrix(
        WeightNames.LanguageLayer(configuration, 1).downWeight, neededFor: "test")
    else {
      Issue.record("panels of odd rows")
      return
    }
  }

  @Test func `parts stay at 16 bits where the recipe says so`() throws {
    let configuration = try makeSource(type: .float32)
    var recipe = QuantisationRecipe(.q4)
    recipe[.vision] = .bfloat16
    recipe[.head] = .q4
    _ = try quantisation(recipe).write(to: output)
    let reader = try CheckpointReader(folder: output)
    let vision = WeightNames.VisionLayer(configuration, 0)
    #expect(try reader.tensor(vision.qkvWeight.name).scalarType == .bfloat16)
    #expect(try reader.tensor(vision.norm1Weight.name).scalarType == .float32)
    #expect(
      try reader.panelLayout(WeightNames.languageHead(configuration).name)?.format == .q4)
  }

  @Test func `threads and the size of files do not change the weights`() throws {
    let configuration = try makeSource()
    _ = try quantisation().write(to: output)
    var other = try quantisation(shardBytes: 1 << 30)
    other.threads = 1
    _ = try other.write(to: "\(folder.path)/other")
    let readers = [
      try CheckpointReader(folder: output), try CheckpointReader(folder: "\(folder.path)/other"),
    ]
    for weight in WeightNames.all(configuration) {
      #expect(
        try Self.bytes(weight, readers[0]) == Self.bytes(weight, readers[1]), "\(weight.name)")
    }
    #expect(folderEntries("\(folder.path)/other").contains("model.safetensors"))
  }

  @Test func `a quantised model is not quantised again`() throws {
    _ = try makeSource()
    _ = try quantisation().write(to: output)
    #expect(
      throws: CheckpointError.quantisedModel(
        folder: output, purpose: "cannot be quantised once more")
    ) {
      try ModelQuantisation(
        source: output, recipe: QuantisationRecipe(.q8), packing: PlainPanels.packing)
    }
  }

  @Test func `a quantised model is no checkpoint to export, nor a part to assemble`() throws {
    let configuration = try makeSource()
    _ = try quantisation().write(to: output)
    #expect(
      throws: CheckpointError.quantisedModel(
        folder: output, purpose: "is no checkpoint of training")
    ) { try ModelExport.write(checkpoint: output, to: "\(folder.path)/export") }

    let reader = try CheckpointReader(folder: output)
    let (parts, language) = ("\(folder.path)/parts", "language_model.")
    _ = try folder.makeFolder("parts")
    for name in ["vision", "language", "tokenizer"] { _ = try folder.makeFolder("parts/\(name)") }
    guard
      case .object(let members) = try JSONValue.parse(
        readFile("\(output)/config.json", limit: 1 << 20), file: "f")
    else { return }
    for case (let key, .object(let part)) in members where key.hasSuffix("_config") {
      guard key != QuantisationRecipe.key else { continue }
      try folder.write(
        "parts/\(key == "llm_config" ? "language" : "vision")/config.json",
        JSONValue.object(part).text)
    }
    for (prefix, part) in [("vision_model.", "vision"), (language, "language")] {
      let weights = WeightNames.all(configuration).filter { $0.name.hasPrefix(prefix) }
      let entries = try weights.map { weight in
        let name = String(weight.name.dropFirst(prefix.count))
        return try reader.panelLayout(weight.name).map { .init(name, panels: $0) }
          ?? SafetensorsWriter.Entry(name, .bfloat16, weight.shape)
      }
      let writer = try SafetensorsWriter(
        path: "\(parts)/\(part)/model.safetensors", entries: entries)
      for entry in entries {
        try writer.write(entry.name, Tensor(zeros: entry.scalarType, entry.shape))
      }
      try writer.commit()
    }
    let assembly = ModelAssembly(
      parts: ModelParts(
        vision: "\(parts)/vision", projector: nil, language: "\(parts)/language",
        tokenizer: source),
      growth: TokenizerGrowth(size: 1007) { _ in 1 })
    let error = #expect(throws: CheckpointError.self) {
      try assembly.write(to: "\(folder.path)/assembled")
    }
    guard case .packedWeight = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(!fileExists("\(folder.path)/assembled") && !fileExists("\(folder.path)/export"))
  }

  // MARK: Interruptions

  private struct Stop: Error, Equatable {}

  private func contents(_ path: String) throws -> [String: String] {
    Dictionary(
      uniqueKeysWithValues: try folderEntries(path).map {
        ($0, try Digest.sha256(file: "\(path)/\($0)"))
      })
  }

  /// Instead of packing: bytes that tell of rows and format, at once.
  private static func mark(
    _ rows: Tensor, _ format: PackedMatrix.Format, into panels: Tensor
  ) {
    let digest = withExtendedLifetime(rows.storage) {
      Digest.sha256(
        UnsafeRawBufferPointer(start: rows.baseAddress, count: rows.byteCount))
    }
    let mark = Array("\(format) \(digest)".utf8)
    withExtendedLifetime(panels.storage) {
      let bytes = UnsafeMutableRawBufferPointer(
        start: panels.baseAddress, count: panels.byteCount)
      for index in bytes.indices { bytes[index] = 0 }
      bytes.copyBytes(from: mark.prefix(bytes.count))
    }
  }

  @Test func `stopped at any piece of work, it goes on with the files that are finished`() throws {
    let weights = WeightNames.all(try makeSource()).count
    let whole = "\(folder.path)/whole"
    let pieces = Mutex(0)
    _ = try quantisation { rows, format, panels in
      pieces.withLock { $0 += 1 }
      Self.mark(rows, format, into: panels)
    }.write(to: whole)
    let expected = try contents(whole)
    let files = expected.keys.filter { $0.hasSuffix(".safetensors") }.count
    #expect(files > 4)
    let total = pieces.withLock { $0 }
    for stop in stride(from: 0, to: total, by: 2) {
      let left = Mutex(stop)
      let interrupted = try quantisation { rows, format, panels in
        let isStopped = left.withLock { left in
          left -= 1
          return left < 0
        }
        if isStopped { throw Stop() }
        Self.mark(rows, format, into: panels)
      }
      #expect(throws: Stop.self) { try interrupted.write(to: output) }
      #expect(!fileExists(output))
      // What a process leaves that had no time to clean up.
      try folder.write(".output.unfinished/.model-00001.1.1.tmp", "half")
      let repeated = Mutex(0)
      var found = ModelQuantisation.Start.new
      let outcome = try quantisation { rows, format, panels in
        repeated.withLock { $0 += 1 }
        Self.mark(rows, format, into: panels)
      }.write(to: output, started: { found = $0 })
      #expect(try contents(output) == expected, "stopped after \(stop) pieces")
      let again = repeated.withLock { $0 }
      if case .resumed(let kept, let damaged) = found {
        #expect(kept > 0 && kept < files && damaged.isEmpty && again <= total)
      } else {
        #expect(found == .new && again == total && stop < total / 2)
      }
      #expect(outcome.weights == weights)
      removeFolder(output)
    }
  }

  /// Leaves an attempt that wrote about half.
  private func interrupt() throws {
    let left = Mutex(12)
    let work = try quantisation { rows, format, panels in
      let isStopped = left.withLock { left in
        left -= 1
        return left < 0
      }
      if isStopped { throw Stop() }
      PlainPanels.pack(rows, format, into: panels)
    }
    #expect(throws: Stop.self) { try work.write(to: output) }
  }

  private func start(_ work: ModelQuantisation) throws -> ModelQuantisation.Start? {
    var start: ModelQuantisation.Start?
    _ = try work.write(to: output, started: { start = $0 })
    return start
  }

  @Test func `a source that changed since is noticed`() throws {
    _ = try makeSource()
    try interrupt()
    let name = try #require(folderEntries(source).first { $0.hasPrefix("model-00002") })
    let path = "\(source)/\(name)"
    let bytes = try readFile(path, limit: 1 << 24)
    try AtomicFile.write(bytes.dropLast() + [bytes[bytes.count - 1] ^ 1], to: path)
    #expect(try start(quantisation()) == .restarted(changed: [name]))
  }

  @Test func `another recipe begins anew`() throws {
    _ = try makeSource()
    try interrupt()
    #expect(
      try start(quantisation(QuantisationRecipe(.q8))) == .restarted(changed: ["the recipe"]))
    #expect(try ModelConfiguration.load(folder: output).quantisation == QuantisationRecipe(.q8))
  }

  @Test func `a finished file that was damaged is written again`() throws {
    _ = try makeSource()
    try interrupt()
    let unfinished = "\(folder.path)/.output.unfinished"
    let name = try #require(folderEntries(unfinished).first { $0.hasSuffix(".safetensors") })
    var bytes = try readFile("\(unfinished)/\(name)", limit: 1 << 24)
    bytes[bytes.count - 1] ^= 1
    try AtomicFile.write(bytes, to: "\(unfinished)/\(name)")
    guard case .resumed(_, let damaged) = try start(quantisation()) else {
      Issue.record("nothing was kept")
      return
    }
    #expect(damaged == [name])
    let whole = "\(folder.path)/whole"
    _ = try quantisation().write(to: whole)
    #expect(try contents(output) == contents(whole))
  }

  @Test func `a source that changes meanwhile is noticed, and what was made of it goes`() throws {
    _ = try makeSource()
    let name = try #require(folderEntries(source).first { $0.hasPrefix("model-00001") })
    let path = "\(source)/\(name)"
    let done = Mutex(0)
    let work = try quantisation { rows, format, panels in
      if done.withLock({ count in
        count += 1
        return count == 8
      }) {
        try AtomicFile.write(readFile(path, limit: 1 << 24), to: path)
      }
      PlainPanels.pack(rows, format, into: panels)
    }
    #expect(throws: CheckpointError.changedWhileInUse(file: path)) { try work.write(to: output) }
    #expect(!fileExists(output))
    #expect(try start(quantisation()) == .restarted(changed: [name]))
  }

  @Test func `a source that is cut meanwhile ends with an error, not the process`() throws {
    _ = try makeSource()
    let name = try #require(folderEntries(source).first { $0.hasPrefix("model-00001") })
    let path = "\(source)/\(name)"
    let done = Mutex(false)
    let work = try quantisation { rows, format, panels in
      if done.withLock({ was in
        defer { was = true }
        return !was
      }) {
        truncate(path, 4096)
      }
      PlainPanels.pack(rows, format, into: panels)
    }
    let error = #expect(throws: CheckpointError.self) { try work.write(to: output) }
    #expect("\(try #require(error))".contains(path))
    #expect(!fileExists(output))
  }

  @Test func `a source that was cut before is refused`() throws {
    _ = try makeSource()
    let name = try #require(folderEntries(source).first { $0.hasPrefix("model-00002") })
    let size = try OpenFile(reading: "\(source)/\(name)").byteCount
    truncate("\(source)/\(name)", size - 1)
    let error = #expect(throws: CheckpointError.self) { try quantisation() }
    #expect("\(try #require(error))".contains("truncated"))
    #expect(folder.names == ["source"])
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity, 300_000])
  func `a value that no block can hold is named`(value: Float) throws {
    for type in [ScalarType.float32, .bfloat16] {
      removeFolder(source)
      let configuration = try makeSource(type: type, shardBytes: 1 << 30)
      let weight = WeightNames.LanguageLayer(configuration, 1).gateWeight
      let path = "\(source)/model.safetensors"
      let reader = try CheckpointReader(file: path)
      let tensors = try reader.names.map { (name: $0, tensor: try reader.tensor($0).widened()) }
      for (name, tensor) in tensors where name == weight.name {
        tensor.withElements(of: Float.self) { $0[37 * 64 + 5] = value }
      }
      try SafetensorsWriter.write(
        tensors.map { (name: $0.name, tensor: $0.tensor.converted(to: type)) }, to: path)
      let shown = type == .float32 ? value : Tensor([value], [1]).converted(to: type).floats[0]
      #expect(
        throws: CheckpointError.unquantisable(
          file: path, tensor: weight.name, row: 37, column: 5, value: "\(shown)")
      ) { try quantisation().write(to: output) }
      removeFolder("\(folder.path)/.output.unfinished")
    }
  }

  @Test func `a folder in use is refused`() throws {
    _ = try makeSource()
    _ = try folder.makeFolder("output")
    try folder.write("output/mine", "mine")
    #expect(throws: CheckpointError.folderInUse(folder: output, file: "mine")) {
      try quantisation().write(to: output)
    }
    #expect(folder.names == ["output", "source"])
  }
}
