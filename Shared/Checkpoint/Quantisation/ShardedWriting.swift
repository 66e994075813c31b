import Dispatch
import Synchronization
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// How far a model's files are written.
public struct WritingProgress: Sendable, Equatable {
  /// Bytes of weights that are written, those of an earlier attempt included.
  public var done: Int
  public var total: Int
  /// The file that is being written, and which of how many it is, counted from 1.
  public var file: String
  public var number: Int
  public var fileCount: Int
}

/// Writes a model's shards one after another, each by several threads, piece by piece: what is in
/// memory at a time is a few pieces for every thread.
struct ShardedWriting: Sendable {
  let plan: ShardPlan
  var threads: Int
  var progress: @Sendable (WritingProgress) -> Void

  /// Bytes of a piece, about; one panel at least.
  private static let pieceBytes = 4 << 20

  /// A piece of a tensor: some of its panels, or of its elements.
  struct Piece: Sendable {
    var entry: SafetensorsWriter.Entry
    var range: Range<Int>
  }

  /// Writes what is not there yet.
  ///
  /// - Parameters:
  ///   - fill: gives a piece's bytes; called from several threads.
  ///   - afterShard: called when a shard is on disk, before it counts as finished.
  /// - Throws: ``CheckpointError``, and what the closures throw.
  func write(
    into folder: ResumableFolder, fill: @Sendable (Piece, Tensor) throws -> Void,
    afterShard: () throws -> Void = {}
  ) throws {
    let left = plan.shards.filter { !folder.isFinished($0.fileName) }
    let total = plan.shards.reduce(0) { $0 + $1.byteCount }
    let needed = left.reduce(0) { $0 + $1.byteCount }
    if let free = freeBytes(in: folder.path), needed > free {
      throw CheckpointError.noRoomForModel(folder: folder.path, needed: needed, free: free)
    }
    let done = Atomic(total - needed)
    for (index, shard) in plan.shards.enumerated() where !folder.isFinished(shard.fileName) {
      @Sendable func report() {
        progress(
          WritingProgress(
            done: done.load(ordering: .relaxed), total: total, file: shard.fileName,
            number: index + 1, fileCount: plan.shards.count))
      }
      report()
      let writer = try SafetensorsWriter(
        path: "\(folder.path)/\(shard.fileName)", entries: shard.entries)
      try concurrently(shard.entries.flatMap(ShardedWriting.pieces)) { piece in
        let part = try ShardedWriting.part(piece)
        try fill(piece, part)
        try withExtendedLifetime(part.storage) {
          try writer.write(
            piece.entry.name, at: ShardedWriting.byteOffset(piece),
            UnsafeRawBufferPointer(start: part.baseAddress, count: part.byteCount))
        }
        done.add(part.byteCount, ordering: .relaxed)
        report()
      }
      try writer.commit()
      try afterShard()
      try folder.finish(shard.fileName)
    }
  }

  /// Calls `body` with every piece, from some threads; after an error with no more.
  private func concurrently(
    _ pieces: [Piece], _ body: @Sendable (Piece) throws -> Void
  ) throws {
    let next = Atomic(0)
    let failure = Mutex<(any Error)?>(nil)
    DispatchQueue.concurrentPerform(iterations: min(threads, pieces.count)) { _ in
      while true {
        let index = next.add(1, ordering: .relaxed).oldValue
        guard index < pieces.count else { return }
        do {
          try body(pieces[index])
        } catch {
          failure.withLock { $0 = $0 ?? error }
          next.store(pieces.count, ordering: .relaxed)
        }
      }
    }
    if let error = failure.withLock({ $0 }) { throw error }
  }

  private static func pieces(_ entry: SafetensorsWriter.Entry) -> [Piece] {
    let (count, size) = units(entry)
    let step = max(1, pieceBytes / max(size, 1))
    return stride(from: 0, to: count, by: step).map {
      Piece(entry: entry, range: $0..<min($0 + step, count))
    }
  }

  /// How many panels or elements a tensor has, and their size in memory, rows they come from
  /// included.
  private static func units(_ entry: SafetensorsWriter.Entry) -> (count: Int, size: Int) {
    guard let panels = entry.panels else {
      return (entry.shape.reduce(1, *), entry.scalarType.byteCount)
    }
    return (
      PackedMatrix.panelCount(panels.outputs), PackedMatrix.panelOutputs * panels.depth * 4
    )
  }

  private static func part(_ piece: Piece) throws -> Tensor {
    piece.entry.panels.map {
      Tensor(uninitialized: .uint8, [piece.range.count, $0.panelBytes])
    } ?? Tensor(uninitialized: piece.entry.scalarType, [piece.range.count])
  }

  private static func byteOffset(_ piece: Piece) -> Int {
    piece.range.lowerBound * (piece.entry.panels?.panelBytes ?? piece.entry.scalarType.byteCount)
  }
}
