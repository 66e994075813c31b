import Checkpoint
import InternVL
import Transport

/// What every stage is told on its command line.
public struct StageOptions: Sendable {
  /// The model folder.
  public var model: String
  public var slice: Slice
  /// Where the stage's output goes.
  public var next: Next?
  public var device: String
  public var threads: Int
  /// Positions of the key-value cache.
  public var cacheTokens: Int
  /// Shared memory for the tensors that go to the next stage.
  public var arenaBytes: Int
  /// Image rows of sequences that are not over, in bytes.
  public var pictureBytes: Int

  public init(
    model: String, slice: Slice = .stage(0, of: 1), next: Next? = nil,
    device: String = "cpu", threads: Int = 1,
    cacheTokens: Int = 16384, arenaBytes: Int = 256 << 20, pictureBytes: Int = 1 << 30
  ) {
    self.model = model
    self.slice = slice
    self.next = next
    self.device = device
    self.threads = threads
    self.cacheTokens = cacheTokens
    self.arenaBytes = arenaBytes
    self.pictureBytes = pictureBytes
  }

  /// Most bytes of tensors that wait for the next stage.
  var tensorBytes: Int { next == nil ? 0 : arenaBytes }

  /// Which layers of a model part a stage holds.
  public enum Slice: Sendable, Equatable {
    /// The index-th of `count` even slices.
    case stage(Int, of: Int)
    case layers(Range<Int>)

    /// Reads `I/N`.
    public init(stage text: String) throws {
      let parts = text.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
      guard parts.count == 2, let index = parts[0], let count = parts[1], index >= 0, index < count
      else { throw StageError.invalidStage(text) }
      self = .stage(index, of: count)
    }

    /// Reads `A-B`, both included.
    public init(layers text: String) throws {
      let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
      guard parts.count == 2, let first = parts[0], let last = parts[1], first <= last,
        last < Int.max
      else { throw StageError.invalidLayers(text) }
      self = .layers(first..<last + 1)
    }

    /// - Throws: ``InternVLError`` for more stages than layers.
    func range(of layerCount: Int) throws -> Range<Int> {
      switch self {
      case .stage(let index, let count):
        try LayerSplit.even(layers: layerCount, stages: count)[index]
      case .layers(let range): range
      }
    }
  }
}
