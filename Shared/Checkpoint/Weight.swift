/// A tensor as a checkpoint knows it.
public struct Weight: Sendable, Hashable {
  public var name: String
  public var shape: [Int]

  public init(_ name: String, _ shape: [Int]) {
    self.name = name
    self.shape = shape
  }
}
