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
/// Legend: L layers of the stage, KV key-value heads, B tokens in a block, H head size.
public final class KeyValueCache: Sendable {
  /// Positions in a block.
  public static let blockTokens = 64

  /// Positions that fit in all, over all sequences: the budget, rounded up to whole blocks.
  public let capacity: Int
  /// Bytes of a full cache.
  public let byteLimit: Int

  private let layerCount: Int
  private let keyValueHeads: Int
  private let headSize: Int
  private let state = Mutex(State())

  /// Keys and values of ``blockTokens`` positions in every layer.
  private struct Block {
    /// For each layer [KV, B, H].
    var keys: [Tensor]
    var values: [Tensor]
  }

  private struct Sequence {
    var blocks: [Block] = []
    /// For each layer the keys of all blocks, as an attention call wants them.
    var keys: [[Tensor]]
    var values: [[Tensor]]
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
  public init(layers: Int, keyValueHeads: Int, headSize: Int, tokens: Int) {
    precondition(layers >= 0 && keyValueHeads > 0 && headSize > 0 && tokens >= 0)
    let blocks = KeyValueCache.blocks(holding: tokens)
    self.layerCount = layers
    self.keyValueHeads = keyValueHeads
    self.headSize = headSize
    self.capacity = blocks * KeyValueCache.blockTokens
    self.byteLimit =
      capacity * layers * keyValueHeads * headSize * 2 * ScalarType.float32.byteCount
  }

  /// Makes room for the first `tokens` positions of a sequence, beginning it if it is new.
  ///
  /// - Throws: ``InternVLError/cacheFull(sequence:tokens:freeTokens:capacity:)``; nothing has
  ///   changed then.
  public func reserve(sequence: UInt64, tokens: Int) throws {
    try state.withLock { state in
      let owned = state.sequences[sequence]?.blocks.count ?? 0
      let missing = KeyValueCache.blocks(holding: tokens) - owned
      let limit = capacity / KeyValueCache.blockTokens
      let available = state.free.count + limit - state.made
      guard missing <= available else {
        throw InternVLError.cacheFull(
          sequence: sequence, tokens: tokens, freeTokens: available * KeyValueCache.blockTokens,
          capacity: capacity)
      }
      var entry =
        state.sequences[sequence]
        ?? Sequence(
          keys: Array(repeating: [], count: layerCount),
          values: Array(repeating: [], count: layerCount))
      for _ in 0..<max(missing, 0) {
        let block: Block
        if let used = state.free.popLast() {
          block = used
        } else {
          block = makeBlock()
          state.made += 1
        }
        for layer in 0..<layerCount {
          entry.keys[layer].append(block.keys[layer])
          entry.values[layer].append(block.values[layer])
        }
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
          rows: step.rows, position: step.position, keys: entry?.keys[layer] ?? [],
          values: entry?.values[layer] ?? [])
      }
    }
  }

  /// The largest budget whose bytes can be addressed (2⁴⁸ on the machines of today).
  static func maximumTokens(layers: Int, keyValueHeads: Int, headSize: Int) -> Int {
    (1 << 48) / (layers * keyValueHeads * headSize * 2 * ScalarType.float32.byteCount)
  }

  private static func blocks(holding tokens: Int) -> Int {
    tokens / blockTokens + (tokens % blockTokens > 0 ? 1 : 0)
  }

  private func makeBlock() -> Block {
    // Zeros, so that a kernel may load a whole vector across the last written position.
    let shape = [keyValueHeads, KeyValueCache.blockTokens, headSize]
    let halves = Tensor(zeros: .float32, [layerCount * 2] + shape)
    return Block(
      keys: (0..<layerCount).map { halves[2 * $0] },
      values: (0..<layerCount).map { halves[2 * $0 + 1] })
  }
}
