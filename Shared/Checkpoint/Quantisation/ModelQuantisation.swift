import Tensors

/// Writes a model folder whose linear weights and embedding tables are quantised, everything else
/// as the source has it.
///
/// The model is never in memory: rows are read, packed and written piece by piece. Files that are
/// finished stay when the process is ended, and are used by the next one with the same source and
/// recipe; the folder has its name when it is whole.
public struct ModelQuantisation: Sendable {
  public let source: String
  public let recipe: QuantisationRecipe
  public var threads = 1
  public var shardBytes = 2 << 30

  /// What came of it.
  public struct Outcome: Sendable, Equatable {
    public var configuration: ModelConfiguration
    /// Linear weights that stay as they are, for their rows are no multiple of a block.
    public var unquantised: [String]
    /// Bytes of all weights, before and after.
    public var sourceBytes: Int
    public var bytes: Int
    public var weights: Int
  }

  /// Says before the work what is left of an earlier attempt.
  public enum Start: Sendable, Equatable {
    case new
    case resumed(files: Int, damaged: [String])
    /// An earlier attempt is thrown away: these were other than now.
    case restarted(changed: [String])
  }

  private let configuration: ModelConfiguration
  private let reader: CheckpointReader
  private let packing: PanelPacking

  /// Reads the source's headers and checks that it is whole.
  ///
  /// - Throws: ``CheckpointError``: the folder is no model, is damaged, or quantised already.
  public init(
    source: String, recipe: QuantisationRecipe, packing: @escaping PanelPacking
  ) throws {
    configuration = try ModelConfiguration.load(folder: source)
    try configuration.requireFloats(folder: source, purpose: "cannot be quantised once more")
    reader = try CheckpointReader(folder: source)
    try reader.verify(configuration)
    self.source = source
    self.recipe = recipe.adapted(to: configuration)
    self.packing = packing
  }

  /// - Parameters:
  ///   - output: a folder that does not exist yet, or is empty.
  ///   - started: told what there is of an earlier attempt.
  ///   - progress: called often, from several threads.
  /// - Throws: ``CheckpointError``: the output is in use or there is no room, the source was
  ///   changed or cut meanwhile, or has values that are not finite; what the packing throws.
  public func write(
    to output: String, started: (Start) -> Void = { _ in },
    progress: @escaping @Sendable (WritingProgress) -> Void = { _ in }
  ) throws -> Outcome {
    var unquantised: [String] = []
    var sourceBytes = 0
    let entries = try WeightNames.all(configuration).map { weight in
      let stored = try reader.entry(weight.name)
      sourceBytes += stored.byteCount
      let storage = recipe.storage(of: weight)
      if storage == nil, WeightNames.part(of: weight) != nil { unquantised.append(weight.name) }
      guard let storage else { return stored }
      guard let format = storage.format,
        let layout = PanelLayout(format, outputs: weight.shape[0], depth: weight.shape[1])
      else { return SafetensorsWriter.Entry(weight.name, .bfloat16, weight.shape) }
      return SafetensorsWriter.Entry(weight.name, panels: layout)
    }
    try ModelCompanions.check(source)
    let ingredients = try ingredients()
    let folder = try ResumableFolder(output, ingredients: ingredients)
    started(ModelQuantisation.start(folder.found))
    let plan = ShardPlan(entries, shardBytes: shardBytes)
    try ShardedWriting(plan: plan, threads: threads, progress: progress).write(
      into: folder, fill: fill,
      // A shard of two sources would be kept by the next attempt.
      afterShard: { try requireUnchanged(ingredients) })
    try plan.writeIndex(to: folder.path)
    try ModelCompanions.copy(from: source, to: folder.path, torchType: nil)
    let encoded = configuration.encoded(with: recipe)
    try AtomicFile.write(encoded, to: "\(folder.path)/config.json")
    try requireUnchanged(ingredients)
    try folder.commit()
    return Outcome(
      configuration: try ModelConfiguration(encoded, file: "\(output)/config.json"),
      unquantised: unquantised, sourceBytes: sourceBytes,
      bytes: entries.reduce(0) { $0 + $1.byteCount }, weights: entries.count)
  }

  private static func start(_ found: ResumableFolder.Found) -> Start {
    switch found {
    case .nothing: .new
    case .files(let kept, let damaged):
      kept == 0 && damaged.isEmpty ? .new : .resumed(files: kept, damaged: damaged)
    case .other(let changed): .restarted(changed: changed)
    }
  }

  private func ingredients() throws -> [String: String] {
    var ingredients = try reader.fileIdentities()
    ingredients["config.json"] = try Digest.sha256(file: "\(source)/config.json")
    ingredients["the recipe"] = recipe.json.compactText
    ingredients["the size of files"] = "\(shardBytes)"
    return ingredients
  }

  private func requireUnchanged(_ ingredients: [String: String]) throws {
    let now = try self.ingredients()
    for (name, was) in ingredients.sorted(by: { $0.key < $1.key }) where now[name] != was {
      throw CheckpointError.changedWhileInUse(file: "\(source)/\(name)")
    }
  }

  // MARK: Pieces

  private func fill(_ piece: ShardedWriting.Piece, _ target: Tensor) throws {
    let stored = try reader.entry(piece.entry.name)
    guard let layout = piece.entry.panels else {
      let part = Tensor(uninitialized: stored.scalarType, [piece.range.count])
      try read(piece.entry.name, from: piece.range.lowerBound, into: part)
      target.copyElements(from: part.converted(to: target.scalarType))
      return
    }
    let width = PackedMatrix.panelOutputs
    let first = piece.range.lowerBound * width
    let count = min(piece.range.upperBound * width, layout.outputs) - first
    let rows = Tensor(uninitialized: stored.scalarType, [count, layout.depth])
    try read(piece.entry.name, from: first * layout.depth, into: rows)
    if let element = rows.firstUnquantisable {
      throw CheckpointError.unquantisable(
        file: reader.path(of: piece.entry.name), tensor: piece.entry.name,
        row: first + element / layout.depth, column: element % layout.depth,
        value: "\(rows.element(element))")
    }
    try packing(rows, layout.format, target)
  }

  private func read(_ name: String, from element: Int, into tensor: Tensor) throws {
    try withExtendedLifetime(tensor.storage) {
      try reader.read(
        name, at: element * tensor.scalarType.byteCount,
        into: UnsafeMutableRawBufferPointer(
          start: tensor.baseAddress, count: tensor.byteCount))
    }
  }
}

extension Tensor {
  /// The first element of a float32 or bfloat16 tensor that no block of integers with a float16
  /// scale can hold: not finite, or 2^18 and more. Weights are nowhere near.
  fileprivate var firstUnquantisable: Int? {
    let limit: UInt32 = 0x4880_0000
    return scalarType == .bfloat16
      ? first(UInt16.self, magnitude: 0x7FFF, from: UInt16(limit >> 16))
      : first(UInt32.self, magnitude: 0x7FFF_FFFF, from: limit)
  }

  /// The first element whose bits without their sign are as large as a limit.
  private func first<Bits: FixedWidthInteger>(
    _ type: Bits.Type, magnitude: Bits, from limit: Bits
  ) -> Int? {
    withElements(of: Bits.self) { elements in
      // All are looked at without a branch; the search is for the rare case.
      var largest: Bits = 0
      for element in elements { largest = max(largest, element & magnitude) }
      return largest < limit ? nil : elements.firstIndex { $0 & magnitude >= limit }
    }
  }

  fileprivate func element(_ index: Int) -> Float {
    reshaped([count]).rows(index..<index + 1).floats[0]
  }
}

extension ModelConfiguration {
  /// config.json of the model quantised.
  func encoded(with recipe: QuantisationRecipe) -> [UInt8] {
    guard case .object(var members)? = try? JSONValue.parse(encoded, file: "config.json") else {
      preconditionFailure("a configuration was read from no object")
    }
    members.removeAll { $0.0 == QuantisationRecipe.key }
    members.append((QuantisationRecipe.key, recipe.json))
    return Array(JSONValue.object(members).text.utf8)
  }
}
