import CKernels
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// y [T, D]: rows of a table [V, D].
enum Embedding {
  static func forward(
    _ ids: [Int32], table: LinearWeight, into y: Tensor, on device: CPUDevice
  ) throws {
    if case .rows(let table) = table {
      try table.require(.float32, .bfloat16, what: "the embedding table")
    }
    let shape = table.shape
    guard shape.count == 2 else {
      throw TensorError.shapeMismatch(
        what: "the embedding table", expected: [shape.first ?? 0, shape.reduce(1, *)],
        found: shape)
    }
    let (rows, width) = (shape[0], shape[1])
    try y.require(.float32, what: "embedded tokens")
    try y.require(shape: [ids.count, width], "embedded tokens")
    for id in ids where id < 0 || Int(id) >= rows {
      throw KernelError.tokenOutOfRange(id: Int(id), rows: rows)
    }
    guard width > 0 else { return }

    withExtendedLifetime((table.storage, y.storage)) {
      for (row, id) in ids.enumerated() {
        let into = y.floatBase + row * width
        switch table {
        case .rows(let table): read(Int(id), of: table, width: width, into: into, on: device)
        case .panels(let table): read(Int(id), of: table, into: into)
        }
      }
    }
  }

  private static func read(
    _ row: Int, of table: Tensor, width: Int, into: UnsafeMutablePointer<Float>,
    on device: CPUDevice
  ) {
    let from = table.baseAddress + row * width * table.scalarType.byteCount
    if table.scalarType == .bfloat16 {
      device.kernels.widen(from.assumingMemoryBound(to: UInt16.self), width, into)
    } else {
      memcpy(into, from, width * MemoryLayout<Float>.size)
    }
  }

  private static func read(
    _ row: Int, of table: PackedMatrix, into: UnsafeMutablePointer<Float>
  ) {
    let (panel, lane) = row.quotientAndRemainder(dividingBy: PackedMatrix.panelOutputs)
    let base = table.panels.baseAddress + panel * table.panelBytes
    switch table.format {
    case .float32:
      let from = base.assumingMemoryBound(to: Float.self) + lane
      for k in 0..<table.depth { into[k] = from[k &* PackedMatrix.panelOutputs] }
    case .bfloat16:
      let from = base.assumingMemoryBound(to: UInt16.self) + 2 * lane
      for k in 0..<table.depth {
        let pair = from + 2 * (k / 2 &* PackedMatrix.panelOutputs)
        into[k] = Float(bitPattern: UInt32(pair[k % 2]) << 16)
      }
    case .q8, .q4:
      Quantiser.widen(row, of: table, into: into)
    }
  }

  /// dTable: row `ids[t]` += dY row t, in order of t. A negative id is passed over.
  static func gradient(dY: Tensor, ids: [Int32], into dTable: Tensor, on device: CPUDevice) throws {
    try dTable.requireRows(nil, "the gradient of the embedding table")
    let (rows, width) = (dTable.shape[0], dTable.shape[1])
    try dY.requireRows(width, "the gradient of embedded tokens")
    try dY.require(shape: [ids.count, width], "the gradient of embedded tokens")
    for id in ids where Int(id) >= rows {
      throw KernelError.tokenOutOfRange(id: Int(id), rows: rows)
    }
    guard width > 0, !ids.isEmpty else { return }

    // A token may come more than once: the columns are shared out, not the rows.
    let columns = 128
    let (from, into) = (dY.floatBase, dTable.floatBase)
    device.parallel(tiles: (width + columns - 1) / columns, cost: columns * ids.count) { tile, _ in
      let first = tile * columns
      let count = min(columns, width - first)
      for (row, id) in ids.enumerated() where id >= 0 {
        device.kernels.add_scaled(
          from + row * width + first, nil, count, into + Int(id) * width + first)
      }
    }
    withExtendedLifetime((dY, dTable)) {}
  }
}
