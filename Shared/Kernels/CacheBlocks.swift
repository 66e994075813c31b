import CKernels
import Tensors

/// How a cache holds keys and values.
public enum CacheType: String, Sendable, Hashable, CaseIterable {
  /// As they were computed.
  case float32 = "f32"
  /// Rounded to bfloat16.
  case bfloat16 = "bf16"
  /// Bytes −127…127, with a float32 scale for each position and head.
  case int8 = "q8"

  var kernelType: ck_cache_type {
    switch self {
    case .float32: CK_CACHE_FLOAT32
    case .bfloat16: CK_CACHE_BFLOAT16
    case .int8: CK_CACHE_INT8
    }
  }
}

/// What the blocks of a key-value cache look like: keys and values of ``blockPositions`` positions
/// in every key-value head of a layer.
///
/// A head's keys lie in panels of 16 positions, [B/16][H][16], its values in panels of 16 elements,
/// [⌈H/16⌉][B][16]: what attention reads together lies together.
///
/// Legend: B positions in a block, H head size.
public struct CacheLayout: Sendable, Hashable {
  public let type: CacheType
  public let keyValueHeads: Int
  /// H.
  public let headSize: Int

  /// B.
  public static let blockPositions = Int(CK_ATTENTION_BLOCK)

  public init(type: CacheType, keyValueHeads: Int, headSize: Int) {
    precondition(keyValueHeads >= 0 && headSize >= 0)
    self.type = type
    self.keyValueHeads = keyValueHeads
    self.headSize = headSize
  }

  /// Bytes of a block.
  public var blockBytes: Int { keyValueHeads * headBytes }

  /// Bytes of one head in a block, a multiple of a cache line.
  var headBytes: Int {
    ck_kernels_best().pointee.cache_head_bytes(type.kernelType, headSize)
  }

  /// Blocks that hold so many positions.
  public static func blocks(holding positions: Int) -> Int {
    positions / blockPositions + (positions % blockPositions > 0 ? 1 : 0)
  }
}

/// The keys and values of a sequence in one layer, from position 0 on.
///
/// Copies share the blocks' memory.
public struct CacheBlocks: @unchecked Sendable {
  public let layout: CacheLayout
  /// uint8 [block bytes] each.
  public private(set) var blocks: [Tensor] = []
  /// Where they begin, as the kernels want it; alive as long as `blocks`, which is why the struct
  /// may cross threads.
  private(set) var addresses: [UnsafeRawPointer?] = []

  public init(layout: CacheLayout) {
    self.layout = layout
  }

  /// - Parameter block: uint8 [`layout.blockBytes`], of any content.
  /// - Throws: `TensorError`.
  public mutating func append(_ block: Tensor) throws {
    try block.require(.uint8, what: "a cache block")
    try block.require(shape: [layout.blockBytes], "a cache block")
    blocks.append(block)
    addresses.append(UnsafeRawPointer(block.baseAddress))
  }

  /// Positions that fit.
  public var positions: Int { blocks.count * CacheLayout.blockPositions }
}

/// One sequence's share of a batched attention call over a key-value cache.
public struct AttentionSpan: Sendable {
  /// Rows of the batch that belong to the sequence, in order of position.
  public var rows: Range<Int>
  /// Position in the sequence of the first of those rows.
  public var position: Int
  /// Keys and values of the sequence, with room for the last row.
  public var cache: CacheBlocks

  public init(rows: Range<Int>, position: Int, cache: CacheBlocks) {
    self.rows = rows
    self.position = position
    self.cache = cache
  }

  /// Positions up to the last row.
  var end: Int { position + rows.count }
}
