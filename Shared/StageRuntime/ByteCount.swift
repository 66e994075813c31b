/// A number of bytes as people read it: three digits and a binary unit.
public struct ByteCount: CustomStringConvertible, Sendable {
  private let bytes: Int

  public init(_ bytes: Int) { self.bytes = bytes }

  public var description: String {
    var value = Double(bytes)
    for unit in ["B", "KiB", "MiB", "GiB"] {
      if value < 1000 || unit == "GiB" {
        guard unit != "B" else { return "\(bytes) B" }
        // Tenths below one hundred, whole units above.
        let tenths = (value * 10).rounded()
        return tenths < 1000 ? "\(tenths / 10) \(unit)" : "\(Int(value.rounded())) \(unit)"
      }
      value /= 1024
    }
    return "\(bytes) B"
  }
}
