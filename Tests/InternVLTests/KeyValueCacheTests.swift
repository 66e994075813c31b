import InternVL
import Kernels
import Testing

@Suite struct KeyValueCacheTests {
  private func cache(tokens: Int) -> KeyValueCache {
    KeyValueCache(layers: 2, keyValueHeads: 3, headSize: 4, tokens: tokens)
  }

  @Test(
    "The budget is rounded up to whole blocks",
    arguments: [(0, 0), (1, 64), (64, 64), (65, 128), (4096, 4096)])
  func capacity(tokens: Int, capacity: Int) {
    let cache = cache(tokens: tokens)
    #expect(cache.capacity == capacity)
    // Two layers, three heads of four float32 for a key, and of sixteen for a value.
    #expect(cache.byteLimit == capacity * 2 * 3 * (4 + 16) * 4)
  }

  @Test(
    "A narrower type takes fewer bytes",
    arguments: [
      // A key and a value of 64 elements; bytes have two scales besides.
      (CacheType.float32, 2 * 64 * 4), (.bfloat16, 2 * 64 * 2), (.int8, 2 * 64 + 2 * 4),
    ])
  func types(type: CacheType, bytes: Int) {
    let cache = KeyValueCache(layers: 5, keyValueHeads: 3, headSize: 64, tokens: 128, type: type)
    #expect(cache.byteLimit == 128 * 5 * 3 * bytes)
  }

  @Test("A sequence owns whole blocks, and grows only when it needs another")
  func growth() throws {
    let cache = cache(tokens: 256)
    try cache.reserve(sequence: 7, tokens: 1)
    #expect(cache.tokensInUse == 64)
    try cache.reserve(sequence: 7, tokens: 64)
    #expect(cache.tokensInUse == 64)
    try cache.reserve(sequence: 7, tokens: 65)
    #expect(cache.tokensInUse == 128)
    // A smaller wish takes nothing away.
    try cache.reserve(sequence: 7, tokens: 2)
    #expect(cache.tokensInUse == 128)
    #expect(cache.sequences == [7])
    #expect(cache.length(of: 7) == 0)
  }

  @Test("More than the budget is refused, and nothing changes")
  func full() throws {
    let cache = cache(tokens: 192)
    try cache.reserve(sequence: 1, tokens: 100)
    #expect(
      throws: InternVLError.cacheFull(sequence: 2, tokens: 65, freeTokens: 64, capacity: 192)
    ) { try cache.reserve(sequence: 2, tokens: 65) }
    #expect(cache.tokensInUse == 128)
    #expect(cache.sequences == [1])
    #expect(cache.length(of: 2) == nil)
    #expect(
      throws: InternVLError.cacheFull(sequence: 1, tokens: 193, freeTokens: 64, capacity: 192)
    ) { try cache.reserve(sequence: 1, tokens: 193) }
    #expect(cache.tokensInUse == 128)
    // A wish whose count of blocks would overflow is too much like any other.
    #expect(throws: InternVLError.self) { try cache.reserve(sequence: 1, tokens: .max) }
    try cache.reserve(sequence: 2, tokens: 64)
    #expect(cache.tokensInUse == 192)
  }

  @Test("Blocks of a sequence that ended serve the next")
  func release() throws {
    let cache = cache(tokens: 128)
    for sequence: UInt64 in 0..<50 {
      try cache.reserve(sequence: sequence, tokens: 128)
      #expect(throws: InternVLError.self) { try cache.reserve(sequence: 99, tokens: 1) }
      cache.release(sequence: sequence)
      cache.release(sequence: sequence)
      #expect(cache.tokensInUse == 0)
    }
    #expect(cache.sequences.isEmpty)
  }
}
