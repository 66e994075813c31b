/// The text of a picture in SVG.
struct SVG {
  private(set) var text: String
  private let width: Double
  private let height: Double

  /// - Parameter style: CSS; colours that differ between light and dark screens are variables.
  init(width: Double, height: Double, title: String, style: String) {
    self.width = width
    self.height = height
    let size = "\(SVG.number(width)) \(SVG.number(height))"
    text = """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(size)" width="\(SVG.number(width))" \
      height="\(SVG.number(height))" role="img" font-family="Helvetica, Arial, sans-serif">
      <title>\(SVG.escaped(title))</title>
      <style>
      \(style)
      </style>
      <rect class="ground" width="100%" height="100%"/>

      """
  }

  mutating func add(_ element: String) {
    text += element + "\n"
  }

  mutating func rectangle(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, class name: String,
    tip: String? = nil
  ) {
    let start =
      "<rect class=\"\(name)\" x=\"\(SVG.number(x))\" y=\"\(SVG.number(y))\" "
      + "width=\"\(SVG.number(width))\" height=\"\(SVG.number(height))\""
    add(start + (tip.map { "><title>\(SVG.escaped($0))</title></rect>" } ?? "/>"))
  }

  mutating func line(
    _ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, class name: String
  ) {
    add(
      "<line class=\"\(name)\" x1=\"\(SVG.number(x1))\" y1=\"\(SVG.number(y1))\" "
        + "x2=\"\(SVG.number(x2))\" y2=\"\(SVG.number(y2))\"/>")
  }

  mutating func label(
    _ text: String, _ x: Double, _ y: Double, size: Double, anchor: String = "start",
    class name: String = "ink"
  ) {
    add(
      "<text class=\"\(name)\" x=\"\(SVG.number(x))\" y=\"\(SVG.number(y))\" "
        + "font-size=\"\(SVG.number(size))\" text-anchor=\"\(anchor)\">\(SVG.escaped(text))</text>")
  }

  func finished() -> String { text + "</svg>\n" }

  /// To a hundredth, which no screen shows.
  static func number(_ value: Double) -> String {
    guard value.isFinite, abs(value) < 1e9 else { return "0" }
    let rounded = (value * 100).rounded() / 100
    return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
  }

  /// Characters that XML cannot hold are left out.
  static func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      default:
        let isAllowed =
          scalar.value >= 0x20 && scalar.value != 0xFFFE && scalar.value != 0xFFFF
          && scalar.value != 0x7F
        if isAllowed || scalar == "\t" || scalar == "\n" { result.unicodeScalars.append(scalar) }
      }
    }
    return result
  }
}
