import Tensors

/// Quantised panels by the letter of their description, one weight at a time.
enum PlainPanels {
  static let packing: PanelPackingClosure = { rows, format, panels in
    pack(rows, format, into: panels)
  }

  typealias PanelPackingClosure =
    @Sendable (Tensor, PackedMatrix.Format, Tensor) throws -> Void

  static func pack(_ rows: Tensor, _ format: PackedMatrix.Format, into panels: Tensor) {
    let (outputs, depth) = (rows.shape[0], rows.shape[1])
    let values = rows.floats
    panels.withElements(of: UInt8.self) { bytes in
      for index in bytes.indices { bytes[index] = 0 }
      for output in 0..<outputs {
        let (panel, j) = (output / 16, output % 16)
        let start = panel * panels.shape[1]
        for b in 0..<depth / 32 {
          let block = values[output * depth + 32 * b..<output * depth + 32 * b + 32]
          if format == .q8 {
            let scale = Float16((block.map(abs).max() ?? 0) / 127)
            for (k, value) in block.enumerated() {
              let q = scale == 0 ? 0 : max(-127, min(127, (value / Float(scale)).rounded()))
              bytes[start + b * 512 + (k / 4) * 64 + j * 4 + k % 4] = UInt8(128 + Int(q))
            }
            store(scale, bytes, start + depth * 16 + b * 32 + j * 2)
          } else {
            let low = min(block.min() ?? 0, 0)
            let step = (max(block.max() ?? 0, 0) - low) / 15
            // To twelve bits, upwards, so that the steps reach both ends.
            let scale = Float16(bitPattern: (Float16(step).bitPattern + 15) & 0xFFF0)
            let zero = scale == 0 ? 0 : max(0, min(255, (-16 * low / Float(scale)).rounded()))
            for (k, value) in block.enumerated() {
              let q =
                scale == 0 ? 0 : max(0, min(15, (value / Float(scale) + zero / 16).rounded()))
              let place = start + b * 256 + (k % 16 / 4) * 64 + j * 4 + k % 4
              bytes[place] |= UInt8(q) << (k < 16 ? 0 : 4)
            }
            let bits = scale.bitPattern | UInt16(zero) & 15
            store(Float16(bitPattern: bits), bytes, start + depth * 8 + b * 32 + j * 2)
            bytes[start + depth * 9 + b * 8 + j % 8] |= (UInt8(zero) >> 4) << (j < 8 ? 0 : 4)
          }
        }
      }
    }
  }

  private static func store(
    _ scale: Float16, _ bytes: UnsafeMutableBufferPointer<UInt8>, _ place: Int
  ) {
    bytes[place] = UInt8(truncatingIfNeeded: scale.bitPattern)
    bytes[place + 1] = UInt8(truncatingIfNeeded: scale.bitPattern >> 8)
  }

  /// The weights [N, K] that quantised panels stand for.
  static func weights(_ matrix: PackedMatrix) -> [Float] {
    let (depth, size) = (matrix.depth, matrix.panelBytes)
    return matrix.panels.withElements(of: UInt8.self) { bytes in
      (0..<matrix.outputs).flatMap { output in
        let (start, j) = (output / 16 * size, output % 16)
        return (0..<depth).map { column -> Float in
          let (b, k) = (column / 32, column % 32)
          let isWide = matrix.format == .q8
          let scales = start + depth * (isWide ? 16 : 8) + b * 32 + j * 2
          let bits = UInt16(bytes[scales]) | UInt16(bytes[scales + 1]) << 8
          if isWide {
            let byte = bytes[start + b * 512 + (k / 4) * 64 + j * 4 + k % 4]
            return Float(Float16(bitPattern: bits)) * (Float(byte) - 128)
          }
          let byte = bytes[start + b * 256 + (k % 16 / 4) * 64 + j * 4 + k % 4]
          let halves = bytes[start + depth * 9 + b * 8 + j % 8]
          let zero = UInt16(j < 8 ? halves & 15 : halves >> 4) << 4 | bits & 15
          return Float(Float16(bitPattern: bits & 0xFFF0)) / 16
            * (16 * Float(k < 16 ? byte & 15 : byte >> 4) - Float(zero))
        }
      }
    }
  }
}
