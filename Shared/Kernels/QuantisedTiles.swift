import CKernels
import Tensors

/// Products of one input with quantised weights, cut into tiles for the thread pool: bands of rows
/// by groups of panels. The input's rows are rounded to 8-bit blocks once for all of them.
///
/// Where the cuts fall shows in the time alone: a sum is the same in any tile.
struct QuantisedTiles {
  private let products: UnsafeBufferPointer<ck_product>
  /// From this product on weights have 4 bits.
  private let firstOf4Bits: Int
  private let rows: Int
  private let depth: Int
  private let bandRows: Int
  private let bands: Int
  private let groupBytes: Int
  private let groups: Int

  /// - Parameters:
  ///   - products: of the same depth, each with some outputs; they outlive the tiles.
  ///   - firstOf4Bits: where in them those of 4 bits begin, behind those of 8.
  init(
    _ products: UnsafeBufferPointer<ck_product>, firstOf4Bits: Int, rows: Int,
    on device: CPUDevice
  ) {
    self.products = products
    self.firstOf4Bits = firstOf4Bits
    self.rows = rows
    depth = products.first?.depth ?? 0
    let most = max(24, QuantisedTiles.bandBytes / max(rowWords(depth) * 4, 1) / 24 * 24)
    let wanted = (rows + most - 1) / most
    // Of equal height, in whole tiles of 4 or 8 rows.
    bandRows = ((rows + wanted - 1) / wanted + 7) / 8 * 8
    bands = (rows + bandRows - 1) / bandRows

    // Long runs, so that reading them seldom starts anew, yet a share for every thread. The more
    // rows use a weight, the fewer are worth handing out.
    let bytes = products.reduce(0) { $0 + QuantisedTiles.panels($1) * $1.stride }
    let least = 65_536 / max(1, rows / 8)
    let run = min(max(bytes / (8 * device.pool.threadCount), least), 524_288)
    groupBytes = run
    groups = products.reduce(0) { $0 + QuantisedTiles.groups($1, bytes: run) }
  }

  /// - Parameter x: [rows, depth], rows `stride` elements apart.
  func compute(_ x: UnsafePointer<Float>, stride: Int, on device: CPUDevice) {
    let words = rowWords(depth)
    device.inputs.withMemory(rows * words) { floats in
      floats.withMemoryRebound(to: Int32.self, capacity: rows * words) { quantised in
        device.parallel(rows: rows, cost: depth) { row in
          let top = row - row % bandRows
          device.kernels.quantise_rows(
            x + top * stride, stride, min(bandRows, rows - top), depth, row - top, 1,
            quantised + top * words)
        }
        // Bands of the same panels follow each other, while their weights are in the last cache.
        device.pool.parallel(groups * bands) { tile, _ in
          let (group, band) = tile.quotientAndRemainder(dividingBy: bands)
          compute(group: group, top: band * bandRows, quantised, on: device)
        }
      }
    }
  }

  private func compute(
    group: Int, top: Int, _ quantised: UnsafePointer<Int32>, on device: CPUDevice
  ) {
    var group = group
    for index in products.indices {
      let count = QuantisedTiles.groups(products[index], bytes: groupBytes)
      guard group < count else {
        group -= count
        continue
      }
      guard let product = products.baseAddress else { return }
      // Groups of one product differ by a panel at most.
      let panels = QuantisedTiles.panels(products[index])
      let first = panels * group / count
      device.kernels.quantised_product(
        quantised + top * rowWords(depth), top, min(bandRows, rows - top), product + index,
        index >= firstOf4Bits, first, panels * (group + 1) / count - first)
      return
    }
  }

  private static func panels(_ product: ck_product) -> Int {
    PackedMatrix.panelCount(product.outputs)
  }

  private static func groups(_ product: ck_product, bytes: Int) -> Int {
    let panels = panels(product)
    return min(panels, max(1, panels * product.stride / max(bytes, 1)))
  }

  /// Bytes of rows that stay in a core's second cache beside a panel.
  private static let bandBytes = 262_144
}

/// Words that a quantised row takes.
private func rowWords(_ depth: Int) -> Int { depth / 32 * 11 }
