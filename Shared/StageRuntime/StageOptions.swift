import Checkpoint
import InternVL
import Kernels
import Transport

/// What every stage is told on its command line.
public struct StageOptions: Sendable {
  /// The model folder.
  public var model: String
  public var slice: Slice
  /// Slices of layers in each process: more than one for a language model whose stages form a
  /// ring, as the interleaved schedule of training wants it.
  public var virtualStages = 1
  /// Where the stage's output goes.
  public var next: Next?
  public var device: String
  public var threads: Int
  /// Positions of the key-value cache.
  public var cacheTokens: Int
  /// How the cache holds keys and values.
  public var cacheType = CacheType.float32
  /// Shared memory for the tensors that go to the next stage.
  public var arenaBytes: Int
  /// Image rows of sequences that are not over, in bytes.
  public var pictureBytes: Int
  /// Pixels of a training step that wait for their forward pass, in bytes; those of one
  /// micro-batch may take more.
  public var pixelBytes = 256 << 20

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
    /// Several slices in one process, in the order in which data passes them.
    case several([Range<Int>])

    /// Reads `I/N`.
    public init(stage text: String) throws {
      let parts = text.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
      guard parts.count == 2, let index = parts[0], let count = parts[1], index >= 0, index < count
      else { throw StageError.invalidStage(text) }
      self = .stage(index, of: count)
    }

    /// Reads `A-B`, both included, or several such, `A-B,C-D`.
    public init(layers text: String) throws {
      let ranges = try text.split(separator: ",", omittingEmptySubsequences: false).map {
        try Slice.range(String($0))
      }
      self = ranges.count == 1 ? .layers(ranges[0]) : .several(ranges)
    }

    private static func range(_ text: String) throws -> Range<Int> {
      let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
      guard parts.count == 2, let first = parts[0], let last = parts[1], first <= last,
        last < Int.max
      else { throw StageError.invalidLayers(text) }
      return first..<last + 1
    }

    /// The one slice of a stage that cannot hold several.
    ///
    /// - Throws: ``InternVLError`` for more stages than layers, ``StageError/severalSlices(role:)``.
    func range(of layerCount: Int, role: String) throws -> Range<Int> {
      let ranges = try ranges(of: layerCount, virtualStages: 1)
      guard ranges.count == 1 else { throw StageError.severalSlices(role: role) }
      return ranges[0]
    }

    /// Of `count` processes with `virtualStages` slices each, process `index` has every
    /// `count`-th slice of `count · virtualStages` even ones.
    ///
    /// - Throws: ``InternVLError`` for more slices than layers, ``StageError`` for slices that are
    ///   not in order.
    func ranges(of layerCount: Int, virtualStages: Int) throws -> [Range<Int>] {
      switch self {
      case .stage(let index, let count):
        let (slices, overflow) = count.multipliedReportingOverflow(by: virtualStages)
        guard virtualStages > 0, !overflow else {
          throw StageError.invalidVirtualStages(virtualStages)
        }
        let even = try LayerSplit.even(layers: layerCount, stages: slices)
        return stride(from: index, to: slices, by: count).map { even[$0] }
      case .layers(let range):
        guard virtualStages == 1 else { throw StageError.virtualStagesAndLayers }
        return [range]
      case .several(let ranges):
        guard virtualStages == 1 else { throw StageError.virtualStagesAndLayers }
        for (range, next) in zip(ranges, ranges.dropFirst())
        where range.upperBound >= next.lowerBound {
          throw StageError.slicesOutOfOrder(ranges)
        }
        return ranges
      }
    }
  }
}
