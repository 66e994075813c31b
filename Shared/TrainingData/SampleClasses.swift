import Checkpoint

/// What the patches and cells of a sample's pictures show, by group of the class list.
///
/// Tile after tile in the order of the pictures, rows from top to bottom, columns from left to
/// right.
public struct SampleClasses: Sendable, Equatable {
  /// One class a patch, −1: nothing is said; empty for a group of which the sample says nothing.
  public var patches: [[Int32]]
  /// Classes of each cell, which is the patches that make one image token; empty likewise.
  public var cells: [[[Int32]]]

  public init(patches: [[Int32]], cells: [[[Int32]]]) {
    self.patches = patches
    self.cells = cells
  }

  /// Classes of a cell at most.
  public static let maximumInCell = 16
}

/// The keys `patches` and `cells` of a line, as they stand there.
struct ClassFields: Sendable, Equatable {
  var patches: [String: [Int]] = [:]
  var cells: [String: [[Int]]] = [:]

  /// - Throws: ``UnplacedFlaw``.
  mutating func readPatches(_ value: JSONValue) throws {
    patches = try ClassFields.groups(value, "patches") { element in
      if case .integer(let number) = element { number } else { nil }
    }
  }

  /// - Throws: ``UnplacedFlaw``.
  mutating func readCells(_ value: JSONValue) throws {
    cells = try ClassFields.groups(value, "cells") { element in
      guard case .array(let numbers) = element else { return nil }
      let cell = numbers.compactMap { number -> Int? in
        if case .integer(let number) = number { number } else { nil }
      }
      return cell.count == numbers.count ? cell : nil
    }
  }

  private static func groups<Entry>(
    _ value: JSONValue, _ key: String, _ read: (JSONValue) -> Entry?
  ) throws -> [String: [Entry]] {
    if case .null = value { return [:] }
    guard case .object(let members) = value else {
      throw UnplacedFlaw(.invalidField, "\(key) is no object of groups")
    }
    var groups: [String: [Entry]] = [:]
    for (name, list) in members {
      guard case .array(let elements) = list else {
        throw UnplacedFlaw(.invalidField, "\(key).\(Clip.text(name)) is no list")
      }
      let entries = elements.compactMap(read)
      guard entries.count == elements.count else {
        throw UnplacedFlaw(
          .invalidField,
          "\(key).\(Clip.text(name)) has other entries than "
            + (key == "cells" ? "lists of whole numbers" : "whole numbers"))
      }
      groups[name] = entries
    }
    return groups
  }
}

/// Reads what samples say of their pictures, against a class list and the model's grid.
struct ClassReader: Sendable {
  let list: PictureClasses
  let pictures: PictureProcessor
  let patchesEach: Int
  let cellsEach: Int

  /// - Throws: ``TrainingDataError/invalidClasses(path:reason:)`` for patches of another size than
  ///   the model's.
  init(
    _ list: PictureClasses, _ configuration: ModelConfiguration, _ pictures: PictureProcessor
  ) throws {
    guard list.patchSize == configuration.vision.patchSize else {
      throw TrainingDataError.invalidClasses(
        path: list.path,
        reason: "its patches have \(list.patchSize) pixels on a side, and the model's have "
          + "\(configuration.vision.patchSize)")
    }
    self.list = list
    self.pictures = pictures
    patchesEach = configuration.gridSize * configuration.gridSize
    cellsEach = configuration.imageTokenCount
  }

  /// - Returns: nil for a sample that says nothing, or has no pictures.
  /// - Throws: ``UnplacedFlaw``.
  func read(
    _ fields: ClassFields, _ files: [PictureProcessor.File], tiles: [Int], maxTiles: Int?
  ) throws -> SampleClasses? {
    guard !files.isEmpty, !(fields.patches.isEmpty && fields.cells.isEmpty) else { return nil }
    for (key, names) in [
      ("patches", fields.patches.keys.sorted()), ("cells", fields.cells.keys.sorted()),
    ] {
      for name in names where !list.groups.contains(where: { $0.name == name }) {
        throw UnplacedFlaw(
          .invalidField, "\(key) has the group \(Clip.text(name)), which the class list does not")
      }
    }
    for file in files
    where !pictures.isOnGrid(width: file.width, height: file.height, maxTiles: maxTiles) {
      let side = pictures.imageSize
      throw UnplacedFlaw(
        .invalidField,
        "patches and cells of \(Clip.path(file.name)), which is \(file.width) × \(file.height) "
          + "pixels and would be resized; classes lie on tiles of \(side) × \(side) pixels")
    }
    let count = tiles.reduce(0, +)
    return SampleClasses(
      patches: try list.groups.map { group in
        guard let numbers = fields.patches[group.name] else { return [] }
        let what = "patches.\(group.name)"
        try require(numbers.count, count * patchesEach, what, "patches")
        return try numbers.map { try number($0, from: -1, group, what) }
      },
      cells: try list.groups.map { group in
        guard let cells = fields.cells[group.name] else { return [] }
        let what = "cells.\(group.name)"
        try require(cells.count, count * cellsEach, what, "cells")
        return try cells.map { cell in
          guard cell.count <= SampleClasses.maximumInCell, Set(cell).count == cell.count else {
            throw UnplacedFlaw(
              .invalidField,
              "\(what) has a cell with \(cell.count) classes or one of them twice; at most "
                + "\(SampleClasses.maximumInCell), each once, are taken")
          }
          return try cell.map { try number($0, from: 0, group, what) }
        }
      })
  }

  private func require(_ found: Int, _ expected: Int, _ what: String, _ unit: String) throws {
    guard found == expected else {
      throw UnplacedFlaw(
        .invalidField, "\(what) has \(found) entries, and its pictures have \(expected) \(unit)")
    }
  }

  private func number(
    _ number: Int, from first: Int, _ group: PictureClasses.Group, _ what: String
  ) throws -> Int32 {
    guard (first..<group.classes.count).contains(number) else {
      throw UnplacedFlaw(
        .invalidField,
        "\(what) has the class \(number), expected \(first) to \(group.classes.count - 1)")
    }
    return Int32(number)
  }
}
