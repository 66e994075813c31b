import Tensors

/// A cut of rows into tiles for the thread pool, each some tens of microseconds of work.
struct RowTiles {
  let rows: Int
  let rowsPerTile: Int

  /// - Parameter cost: work of one row, in elements read or written.
  init(rows: Int, cost: Int) {
    self.rows = rows
    rowsPerTile = max(1, RowTiles.costPerTile / max(cost, 1))
  }

  var count: Int { (rows + rowsPerTile - 1) / rowsPerTile }

  subscript(tile: Int) -> Range<Int> {
    tile * rowsPerTile..<min((tile + 1) * rowsPerTile, rows)
  }

  private static let costPerTile = 65_536
}

extension Tensor {
  /// The address of a float32 tensor's first element.
  ///
  /// Valid while the tensor is alive: an operation's arguments are, until it returns.
  var floatBase: UnsafeMutablePointer<Float> {
    baseAddress.assumingMemoryBound(to: Float.self)
  }

  /// Checks a float32 activation of two dimensions.
  func requireRows(_ width: Int?, _ what: String) throws {
    try require(.float32, what: what)
    guard shape.count == 2, width == nil || shape[1] == width else {
      throw TensorError.shapeMismatch(
        what: what, expected: [shape.first ?? 0, width ?? count], found: shape)
    }
  }

  /// Checks that the rows are whole pictures.
  func requirePictures(of rowsEach: Int, _ what: String) throws {
    guard rowsEach > 0, shape[0] % rowsEach == 0 else {
      throw TensorError.shapeMismatch(
        what: "\(what), in pictures of \(rowsEach) rows",
        expected: [max(rowsEach, 1)] + shape.dropFirst(), found: shape)
    }
  }

  /// Checks a float32 activation of another one's shape.
  func requireRows(like other: Tensor, _ what: String) throws {
    try require(.float32, what: what)
    try require(shape: other.shape, what)
  }

  /// Checks a parameter's gradient.
  func requireGradient(_ shape: [Int], _ what: String) throws {
    try require(.float32, what: what)
    try require(shape: shape, what)
  }

  /// Checks a vector of parameters.
  func requireParameters(_ width: Int, _ what: String) throws {
    try require(.float32, .bfloat16, what: what)
    try require(shape: [width], what)
  }
}

extension CPUDevice {
  /// Calls `body` with parameters as floats, widened beforehand where they are bfloat16.
  func withFloats<Result>(
    of tensor: Tensor, _ body: (UnsafePointer<Float>) throws -> Result
  ) rethrows -> Result {
    if tensor.scalarType == .float32 {
      return try withExtendedLifetime(tensor.storage) { try body(tensor.floatBase) }
    }
    return try withUnsafeTemporaryAllocation(of: Float.self, capacity: max(tensor.count, 1)) {
      floats in
      guard let base = floats.baseAddress else { preconditionFailure("empty allocation") }
      tensor.withElements(of: UInt16.self) { halves in
        if let first = halves.baseAddress { kernels.widen(first, tensor.count, base) }
      }
      return try body(base)
    }
  }

  /// ``withFloats(of:_:)`` for parameters that may be absent.
  func withFloats<Result>(
    ofOptional tensor: Tensor?, _ body: (UnsafePointer<Float>?) throws -> Result
  ) rethrows -> Result {
    guard let tensor else { return try body(nil) }
    return try withFloats(of: tensor) { try body($0) }
  }
}

extension CPUDevice {
  /// Calls `body` for each row, spread over the threads.
  ///
  /// - Parameter cost: work of one row, in elements read or written.
  func parallel(rows: Int, cost: Int, _ body: (Int) -> Void) {
    let tiles = RowTiles(rows: rows, cost: cost)
    pool.parallel(tiles.count) { tile, _ in
      for row in tiles[tile] { body(row) }
    }
  }

  /// Calls `body` for each tile, spread over the threads, small ones several at a time.
  ///
  /// - Parameter cost: work of one tile, in elements read or written.
  func parallel(tiles: Int, cost: Int, _ body: (Int, Scratch) -> Void) {
    let groups = RowTiles(rows: tiles, cost: cost)
    pool.parallel(groups.count) { group, scratch in
      for tile in groups[group] { body(tile, scratch) }
    }
  }

  /// Calls `body` for ranges that make up 0 ..< `elements`, spread over the threads.
  func parallel(elements: Int, _ body: (Range<Int>) -> Void) {
    let tiles = RowTiles(rows: elements, cost: 1)
    pool.parallel(tiles.count) { tile, _ in body(tiles[tile]) }
  }
}
