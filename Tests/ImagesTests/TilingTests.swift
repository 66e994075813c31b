import Images
import Testing

@Suite struct TilingTests {
  @Test(
    "The grid is the one that the reference's search finds",
    arguments: [
      (448, 448, 1...6, 1, 1), (300, 300, 1...6, 1, 1), (700, 700, 1...6, 2, 2),
      (900, 900, 1...6, 2, 2), (1344, 1344, 1...12, 3, 3), (1920, 1080, 1...6, 2, 1),
      (1080, 1920, 1...12, 2, 4), (800, 600, 1...12, 4, 3), (600, 800, 1...6, 2, 3),
      (4000, 300, 1...6, 6, 1), (4000, 300, 1...12, 12, 1), (200, 3000, 1...6, 1, 6),
      (1280, 1024, 1...1, 1, 1), (1280, 1024, 2...2, 2, 1), (1000, 500, 1...6, 2, 1),
      (400, 200, 1...12, 2, 1), (3000, 1500, 1...12, 4, 2), (640, 480, 3...6, 3, 2),
      (1, 1, 1...6, 1, 1), (1, 1, 4...4, 2, 2), (500, 333, 1...40, 3, 2),
    ])
  func grid(width: Int, height: Int, tiles: ClosedRange<Int>, columns: Int, rows: Int) {
    let tiling = Tiling(minTiles: tiles.lowerBound, maxTiles: tiles.upperBound)
    #expect(tiling.grid(width: width, height: height) == .init(columns: columns, rows: rows))
  }

  @Test("Of equally near grids the larger needs more than half of its pixels")
  func tie() {
    let tiling = Tiling(maxTiles: 4, tileSize: 10)
    // Half of 2 × 2 tiles of 10 × 10 is 200 pixels.
    #expect(tiling.grid(width: 14, height: 14) == .init(columns: 1, rows: 1))
    #expect(tiling.grid(width: 15, height: 15) == .init(columns: 2, rows: 2))
  }

  @Test("Candidates lie within the bounds, smallest first, none twice")
  func candidates() {
    let grids = Tiling(minTiles: 2, maxTiles: 12).candidates
    #expect(grids.allSatisfy { (2...12).contains($0.tileCount) })
    #expect(grids.map(\.tileCount) == grids.map(\.tileCount).sorted())
    #expect(Set(grids).count == grids.count)
    // The sum of the numbers of divisors of 2…12.
    #expect(grids.count == 34)
  }

  @Test("Tiles are cut row by row, and the thumbnail comes last")
  func tiles() {
    let image = RGBImage.patterned(30, 20)
    let tiling = Tiling(maxTiles: 6, tileSize: 8, thumbnail: true)
    let tiles = image.tiles(tiling)
    let whole = image.resized(width: 24, height: 16)
    #expect(tiles.count == 7 && tiling.imageCount(width: 30, height: 20) == 7)
    #expect(tiles[0] == whole.cropped(x: 0, y: 0, width: 8, height: 8))
    #expect(tiles[1] == whole.cropped(x: 8, y: 0, width: 8, height: 8))
    #expect(tiles[3] == whole.cropped(x: 0, y: 8, width: 8, height: 8))
    #expect(tiles[5] == whole.cropped(x: 16, y: 8, width: 8, height: 8))
    #expect(tiles[6] == image.resized(width: 8, height: 8))
  }

  @Test("A single tile needs no thumbnail")
  func single() {
    let tiling = Tiling(maxTiles: 1, tileSize: 8, thumbnail: true)
    #expect(RGBImage.patterned(30, 20).tiles(tiling).count == 1)
    #expect(tiling.imageCount(width: 30, height: 20) == 1)
  }
}
