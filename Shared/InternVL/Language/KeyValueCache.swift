import Kernels
import Synchronization
import Tensors

/// Keys and values of the sequences a language stage works on, for the layers it holds.
///
/// A pool of blocks of ``blockTokens`` positions, taken from the heap when first needed, kept
/// for the next sequence, and never more than the budget allows. A sequence owns whole blocks.
///
/// Bookkeeping is safe from any thread. The stage's owner keeps two things apart: one forward
/// call at a time, and no release of a sequence while a step with it runs.
///
/// Legend: L layers of the stage, KV key-value heads, H head size.
public final class KeyValueCache: Sendable {
  /// Positions in a block.
  public static let blockTokens = CacheLayout.blockPositions

  /// Positions that fit in all, over all sequences: the budget, rounded up to whole blocks.
  public let capacity: Int
  /// Bytes of a full cache.
  public let byteLimit: Int

  private let layerCount: Int
  /// What a layer's part of a block looks like.
  private let layout: CacheLayout
  private let state = Mutex(State())

  /// Keys and values of ``blockTokens`` positions in every layer.
  private struct Block {
    /// For each layer uint8 [bytes].
    var layers: [Tensor]
  }

  private struct Sequence {
    var blocks: [Block] = []
    /// For each layer the parts of all blocks, as an attention call wants them.
    var layers: [CacheBlocks]
    /// Positions written.
    var length = 0
  }

  private struct State {
    var free: [Block] = []
    /// Blocks made so far, free or owned.
    var made = 0
    var sequences: [UInt64: Sequence] = [:]
  }

  /// - Parameters:
  ///   - layers: The number of layers, L.
  ///   - tokens: The budget in positions, over all sequences.
  ///   - type: How keys and values are held.
  public init(
    layers: Int, keyValueHeads: Int, headSize: Int, tokens: Int, type: CacheType = .float32
  ) {
    precondition(layers >= 0 && keyValueHeads > 0 && headSize > 0 && tokens >= 0)
    let blocks = CacheLayout.blocks(holding: tokens)
    self.layerCount = layers
    self.layout = CacheLayout(type: type, keyValueHeads: keyValueHeads, headSize: headSize)
    self.capacity = blocks * KeyValueCache.blockTokens
    self.byteLimit = blocks * layers * layout.blockBytes
  }

  /// Makes room for the first `tokens` positions of a sequence, beginning it if it is new.
  ///
  /// - Throws: ``InternVLError/cacheFull(sequence:tokens:freeTokens:capacity:)``; nothing has
  ///   changed then.
  public func reserve(sequence: UInt64, tokens: Int) throws {
    try state.withLock { state in
      let owned = state.sequences[sequence]?.blocks.count ?? 0
      let missing = CacheLayout.blocks(holding: tokens) - owned
      let limit = capacity / KeyValueCache.blockTokens
      let available = state.free.count + limit - state.made
      guard missing <= available else {
        throw InternVLError.cacheFull(
          sequence: sequence, tokens: tokens, freeTokens: available * KeyValueCache.blockTokens,
          capacity: capacity)
      }
      var entry =
        state.sequences[sequence]
        ?? Sequence(layers: Array(repeating: CacheBlocks(layout: layout), count: layerCount))
      for _ in 0..<max(missing, 0) {
        let block: Block
        if let used = state.free.popLast() {
          block = used
        } else {
          block = makeBlock()
          state.made += 1
        }
        for layer in 0..<layerCount { try entry.layers[layer].append(block.layers[layer]) }
        entry.blocks.append(block)
      }
      state.sequences[sequence] = entry
    }
  }

  /// Ends a sequence and gives its blocks back. An unknown one is none of the cache's business.
  public func release(sequence: UInt64) {
    state.withLock { state in
      if let entry = state.sequences.removeValue(forKey: sequence) {
        state.free += entry.blocks
      }
    }
  }

  /// Sequences that own blocks, or have been begun.
  public var sequences: [UInt64] { state.withLock { Array($0.sequences.keys) } }

  /// Positions in blocks that sequences own.
  public var tokensInUse: Int {
    state.withLock { ($0.made - $0.free.count) * KeyValueCache.blockTokens }
  }

  /// Positions of a sequence that have been written; nil when it is not known.
  public func length(of sequence: UInt64) -> Int? {
    state.withLock { $0.sequences[sequence]?.length }
  }

  /// Forgets what a sequence holds from `length` on, or counts what has been written up to it.
  /// Its blocks stay its own.
  func setLength(of sequence: UInt64, to length: Int) {
    state.withLock { $0.sequences[sequence]?.length = length }
  }

  /// The attention spans of a step in the stage's layer number `layer`, counted from 0. Room
  /// has been reserved.
  func spans(for steps: [SequenceRows], layer: Int) -> [AttentionSpan] {
    state.withLock { state in
      steps.map { step in
        let entry = state.sequences[step.sequence]
        precondition(
          (entry?.blocks.count ?? 0) * KeyValueCache.blockTokens >= step.end,
          "no room reserved for sequence \(step.sequence)")
        return AttentionSpan(
          rows: step.rows, position: step.position,
          cache: entry?.layers[layer] ?? CacheBlocks(layout: layout))
      }
    }
  }

  /// The largest budget whose bytes can be addressed (2⁴⁸ on the machines of today).
  static func maximumTokens(
    layers: Int, keyValueHeads: Int, headSize: Int, type: CacheType
  ) -> Int {
    let layout = CacheLayout(type: type, keyValueHeads: keyValueHeads, headSize: headSize)
    return (1 << 48) * blockTokens / (layers * layout.blockBytes)
  }

  private func makeBlock() -> Block {
    let whole = Tensor(zeros: .uint8, [layerCount, layout.blockBytes])
    return Block(layers: (0..<layerCount).map { whole[$0] })
  }
}
