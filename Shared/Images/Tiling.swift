/// How a picture is cut into square tiles near its own aspect ratio (InternVL 1.5 and later,
/// `dynamic_preprocess`).
public struct Tiling: Sendable, Hashable {
  /// Bounds of the number of tiles, without the thumbnail.
  public var minTiles: Int
  public var maxTiles: Int
  /// Side of a tile, in pixels.
  public var tileSize: Int
  /// Whether the whole picture at tile size follows the tiles when there are several.
  public var thumbnail: Bool

  /// 1 ≤ `minTiles` ≤ `maxTiles`.
  public init(minTiles: Int = 1, maxTiles: Int = 6, tileSize: Int = 448, thumbnail: Bool = false) {
    precondition(
      minTiles >= 1 && maxTiles >= minTiles && tileSize >= 1,
      "\(minTiles) to \(maxTiles) tiles of \(tileSize) pixels")
    self.minTiles = minTiles
    self.maxTiles = maxTiles
    self.tileSize = tileSize
    self.thumbnail = thumbnail
  }

  public struct Grid: Sendable, Hashable {
    public let columns: Int
    public let rows: Int

    public init(columns: Int, rows: Int) {
      self.columns = columns
      self.rows = rows
    }

    public var tileCount: Int { columns * rows }
  }

  /// All grids within the bounds, by number of tiles; those of one number by columns, an order
  /// that the reference leaves open.
  public var candidates: [Grid] {
    (minTiles...maxTiles).flatMap { count in
      (1...count).compactMap { columns in
        count % columns == 0 ? Grid(columns: columns, rows: count / columns) : nil
      }
    }
  }

  /// The grid whose aspect ratio is nearest to the picture's.
  ///
  /// Of two that are equally near, the later wins only if the picture has more than half of
  /// its pixels.
  public func grid(width: Int, height: Int) -> Grid {
    let aspectRatio = Double(width) / Double(height)
    let area = Double(width) * Double(height)
    let tileArea = Double(tileSize) * Double(tileSize)
    var best = Grid(columns: 1, rows: 1)
    var smallest = Double.infinity
    for candidate in candidates {
      let difference = abs(aspectRatio - Double(candidate.columns) / Double(candidate.rows))
      if difference < smallest {
        smallest = difference
        best = candidate
      } else if difference == smallest && area > 0.5 * tileArea * Double(candidate.tileCount) {
        best = candidate
      }
    }
    return best
  }

  /// How many pictures ``RGBImage/tiles(_:)`` gives for a picture of this size.
  public func imageCount(width: Int, height: Int) -> Int {
    let count = grid(width: width, height: height).tileCount
    return thumbnail && count > 1 ? count + 1 : count
  }
}

extension RGBImage {
  /// The picture resized to the grid of its tiles, whatever that does to the aspect ratio, and
  /// cut, row by row; the thumbnail last.
  public func tiles(_ tiling: Tiling) -> [RGBImage] {
    let grid = tiling.grid(width: width, height: height)
    let side = tiling.tileSize
    let whole = resized(width: grid.columns * side, height: grid.rows * side)
    var tiles: [RGBImage] = []
    for row in 0..<grid.rows {
      for column in 0..<grid.columns {
        tiles.append(whole.cropped(x: column * side, y: row * side, width: side, height: side))
      }
    }
    if tiling.thumbnail && tiles.count > 1 { tiles.append(resized(width: side, height: side)) }
    return tiles
  }
}
