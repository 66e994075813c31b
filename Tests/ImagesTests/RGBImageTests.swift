import Images
import Testing

@Suite struct RGBImageTests {
  private let fill = RGBColor(red: 9, green: 8, blue: 7)

  @Test("A wide picture gets the wider margin below")
  func wide() {
    let image = RGBImage(width: 4, height: 1, pixels: Array(1...12))
    let margin = Array(repeating: [9, 8, 7] as [UInt8], count: 4).flatMap { $0 }
    #expect(image.paddedToSquare(fill: fill).pixels == margin + Array(1...12) + margin + margin)
  }

  @Test("A tall picture gets the wider margin on the right")
  func tall() {
    let image = RGBImage(width: 1, height: 2, pixels: [1, 2, 3, 4, 5, 6])
    #expect(image.paddedToSquare(fill: fill).pixels == [1, 2, 3, 9, 8, 7, 4, 5, 6, 9, 8, 7])
  }

  @Test("A square picture is padded to itself")
  func square() {
    let image = RGBImage.patterned(3, 3)
    #expect(image.paddedToSquare(fill: fill) == image)
  }

  @Test("A crop takes the pixels inside its corners")
  func crop() {
    let image = RGBImage(width: 3, height: 2, pixels: Array(0..<18))
    let part = image.cropped(x: 1, y: 1, width: 2, height: 1)
    #expect(part == RGBImage(width: 2, height: 1, pixels: [12, 13, 14, 15, 16, 17]))
    #expect(image.cropped(x: 0, y: 0, width: 3, height: 2) == image)
  }
}
