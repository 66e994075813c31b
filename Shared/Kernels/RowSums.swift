import Tensors

extension CPUDevice {
  /// Calls `body` for each row, spread over the threads, with a place of `width` floats for each
  /// of `gradients` to which it adds the row's share (nil for a nil one).
  ///
  /// Every 64 rows add up in a place of their own and the places in order: the sums depend on
  /// the number of rows alone.
  func parallelSums(
    rows: Int, width: Int, into gradients: [Tensor?],
    _ body: (_ row: Int, _ sums: [UnsafeMutablePointer<Float>?]) -> Void
  ) {
    guard gradients.contains(where: { $0 != nil }) else {
      let none = [UnsafeMutablePointer<Float>?](repeating: nil, count: gradients.count)
      parallel(rows: rows, cost: width) { body($0, none) }
      return
    }
    let blockRows = 64
    let blocks = (rows + blockRows - 1) / blockRows
    let partials = gradients.map { gradient in
      gradient.map { _ in Tensor(uninitialized: .float32, [blocks, width]) }
    }
    parallel(tiles: blocks, cost: blockRows * width) { block, _ in
      let sums = partials.map { $0.map { $0.floatBase + block * width } }
      for sum in sums { sum?.update(repeating: 0, count: width) }
      for row in block * blockRows..<min((block + 1) * blockRows, rows) { body(row, sums) }
    }
    for (gradient, partial) in zip(gradients, partials) {
      guard let gradient, let partial else { continue }
      addRows(of: partial, to: gradient)
    }
  }

  /// y [N] += the sum of the rows of x [T, N], in blocks of 64 rows.
  func addRows(of x: Tensor, to y: Tensor) {
    let (rows, width) = (x.shape[0], x.shape[1])
    let columns = 64
    let (from, into) = (x.floatBase, y.floatBase)
    parallel(tiles: (width + columns - 1) / columns, cost: columns * rows) { tile, _ in
      let first = tile * columns
      kernels.add_rows(from + first, width, rows, min(columns, width - first), into + first)
    }
    withExtendedLifetime((x, y)) {}
  }
}
