import Images
import Support
import Testing

@Suite struct ResizingTests {
  @Test("Every size gives Pillow's bytes, in both orders of the passes")
  func pillowBytes() throws {
    var otherOrder = 0
    for (name, expected) in try PillowHashes.read().files.sorted(by: { $0.key < $1.key }) {
      let image = try RGBImage(decoding: fixture("images/\(name)"))
      for target in expected.resized {
        let size: Comment = "\(name) to \(target.width) × \(target.height)"
        let after = image.resized(width: target.width, height: target.height)
        #expect(after.width == target.width && after.height == target.height, size)
        #expect(after.sha256 == target.sha256, size)
        let before = image.resized(width: target.width, height: target.height, as: .before13)
        guard let expectedBefore = target.before13 else {
          #expect(before == after, size)
          continue
        }
        #expect(before.sha256 == expectedBefore, size)
        otherOrder += 1
      }
    }
    #expect(otherOrder > 5)
  }

  @Test("The same size gives the same picture")
  func identity() {
    let image = RGBImage.patterned(7, 5)
    #expect(image.resized(width: 7, height: 5) == image)
  }

  @Test(
    "One colour stays that colour at any size",
    arguments: [(1, 1), (1, 9), (9, 1), (3, 4), (40, 2), (2, 40), (64, 64), (65, 63)])
  func constant(width: Int, height: Int) {
    let color = RGBColor(red: 0, green: 129, blue: 255)
    let image = RGBImage(width: 13, height: 11, filledWith: color)
    #expect(
      image.resized(width: width, height: height)
        == RGBImage(width: width, height: height, filledWith: color))
  }

  @Test("A pixel grows to a picture of its colour")
  func onePixel() {
    let image = RGBImage(width: 1, height: 1, pixels: [3, 200, 77])
    let grown = image.resized(width: 50, height: 3)
    #expect(
      grown == RGBImage(width: 50, height: 3, filledWith: .init(red: 3, green: 200, blue: 77)))
  }

  @Test("The passes change places where the height shrinks by more than twice the width's loss")
  func passOrder() {
    let image = RGBImage.patterned(100, 100)
    // 80 < 2 · 50, 80 = 2 · 40, 80 > 2 · 39.
    for (width, swapped) in [(50, false), (60, false), (61, true), (120, true)] {
      let now = image.resized(width: width, height: 20)
      let columnsFirst = image.resized(width: width, height: 100).resized(width: width, height: 20)
      let rowsFirst = image.resized(width: 100, height: 20).resized(width: width, height: 20)
      #expect(columnsFirst != rowsFirst)
      #expect(now == (swapped ? rowsFirst : columnsFirst), "\(width)")
      #expect(image.resized(width: width, height: 20, as: .before13) == columnsFirst)
    }
    // A height that grows never goes first.
    let grown = image.resized(width: 400, height: 130)
    #expect(grown == image.resized(width: 400, height: 100).resized(width: 400, height: 130))
  }
}
