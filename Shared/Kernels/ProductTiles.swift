import CKernels
import Tensors

/// Products of one input, cut into tiles for the thread pool: bands of rows by groups of panels.
///
/// Where the cuts fall shows in the time alone: a sum is the same in any tile.
struct ProductTiles {
  private let products: UnsafeBufferPointer<ck_product>
  private let rows: Int
  private let depth: Int
  private let stripRows: Int
  private let bandRows: Int
  private let bands: Int
  private let groupPanels: Int
  private let groups: Int
  /// Whether inputs are rounded to bfloat16.
  private let inPairs: Bool

  /// - Parameters:
  ///   - products: of the same depth, each with some outputs; they outlive the tiles.
  ///   - inPairs: rounds the input to bfloat16, for bfloat16 panels.
  init(
    _ products: UnsafeBufferPointer<ck_product>, rows: Int, inPairs: Bool = false,
    on device: CPUDevice
  ) {
    self.products = products
    self.inPairs = inPairs
    self.rows = rows
    depth = products.first?.depth ?? 0
    stripRows = device.kernels.strip_rows(rows)
    let strips = (rows + stripRows - 1) / stripRows
    let mostStrips = max(1, ProductTiles.bandRows / stripRows)
    let bands = max(1, (strips + mostStrips - 1) / mostStrips)
    bandRows = (strips + bands - 1) / bands * stripRows
    self.bands = (rows + bandRows - 1) / bandRows

    let threads = device.pool.threadCount
    var groupPanels = ProductTiles.groupPanels
    if strips <= ProductTiles.fewStrips {
      // Weights pass once, at the speed of memory: long runs, yet a share for every thread.
      let bytes = products.reduce(0) { $0 + ProductTiles.panels($1) * ProductTiles.panelBytes($1) }
      let panels = products.reduce(0) { $0 + ProductTiles.panels($1) }
      let run = min(max(bytes / (8 * threads), 65_536), 524_288)
      groupPanels = max(1, run / max(bytes / max(panels, 1), 1) / 2) * 2
    } else {
      // Some for every thread, unless that were less work than waking one.
      let panelWork = bandRows * PackedMatrix.panelOutputs * depth
      while groupPanels > 2, groupPanels * panelWork > ProductTiles.smallWork,
        self.bands * ProductTiles.groups(products, groupPanels) < 6 * threads
      {
        groupPanels /= 2
      }
    }
    self.groupPanels = groupPanels
    groups = ProductTiles.groups(products, groupPanels)
  }

  /// - Parameter x: [rows, depth], rows `stride` elements apart.
  func compute(_ x: UnsafePointer<Float>, stride: Int, on device: CPUDevice) {
    // One row of floats is packed as it is.
    if rows == 1 && !inPairs { return compute(packed: x, on: device) }
    compute(on: device) { first, count, packed in
      guard inPairs else {
        return device.kernels.pack_input(x, stride, rows, depth, first, count, packed)
      }
      packed.withMemoryRebound(to: UInt16.self, capacity: 2 * rows * paddedDepth) {
        device.kernels.pack_pairs(x, stride, rows, depth, first, count, $0)
      }
    }
  }

  /// - Parameter x: the input's transpose, [depth, rows], `stride` elements apart.
  func compute(transposeOf x: UnsafePointer<Float>, stride: Int, on device: CPUDevice) {
    compute(on: device) { first, count, packed in
      device.kernels.pack_transposed_input(x, stride, rows, depth, first, count, packed)
    }
  }

  private func compute(
    on device: CPUDevice,
    _ pack: (_ first: Int, _ count: Int, _ packed: UnsafeMutablePointer<Float>) -> Void
  ) {
    device.inputs.withMemory(rows * paddedDepth) { packed in
      let tiles = RowTiles(rows: rows, cost: paddedDepth)
      device.pool.parallel(tiles.count) { tile, _ in
        pack(tiles[tile].lowerBound, tiles[tile].count, packed)
      }
      compute(packed: packed, on: device)
    }
  }

  private func compute(packed: UnsafePointer<Float>, on device: CPUDevice) {
    let kernels = device.kernels
    let scratchFloats = kernels.product_scratch(bandRows / stripRows, groupPanels)
    // Bands of the same panels follow each other, while their weights are in the last cache.
    device.pool.parallel(groups * bands) { tile, scratch in
      var group = tile / bands
      for index in products.indices {
        let panels = ProductTiles.panels(products[index])
        let count = (panels + groupPanels - 1) / groupPanels
        guard group < count else {
          group -= count
          continue
        }
        guard let product = products.baseAddress else { return }
        let (top, first) = (tile % bands * bandRows, group * groupPanels)
        kernels.product(
          packed, inPairs, rows, top, min(bandRows, rows - top), product + index, first,
          min(groupPanels, panels - first), scratch.floats(scratchFloats))
        return
      }
    }
  }

  /// In whole blocks.
  private var paddedDepth: Int {
    let block = Int(CK_DEPTH_BLOCK)
    return (depth + block - 1) / block * block
  }

  private static func panels(_ product: ck_product) -> Int {
    PackedMatrix.panelCount(product.outputs)
  }

  /// What a panel's weights take in memory.
  private static func panelBytes(_ product: ck_product) -> Int {
    product.depth * PackedMatrix.panelOutputs * (product.bfloat16 ? 2 : 4)
  }

  private static func groups(_ products: UnsafeBufferPointer<ck_product>, _ size: Int) -> Int {
    products.reduce(0) { $0 + (panels($1) + size - 1) / size }
  }

  /// Rows whose block of the depth stays in a core's second cache beside the sums.
  private static let bandRows = 336
  private static let groupPanels = 8
  /// Multiplications that take some tens of microseconds.
  private static let smallWork = 1_000_000
  /// Strips that read weights as fast as memory gives them.
  private static let fewStrips = 4
}
