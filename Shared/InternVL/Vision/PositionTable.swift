import Tensors

/// The vision encoder's learned position table, fitted to the grid of patches in use.
///
/// The entry of the class token is kept; the others are resized as the reference does
/// (`_get_pos_embed` of modeling_intern_vit.py): PyTorch's `interpolate(mode: bicubic,
/// align_corners: false)` in Float32, a = −0.75, without antialiasing, borders repeated.
///
/// Legend: G patches on a side of the stored table, g of the grid in use, C channels.
enum PositionTable {
  /// table [1, 1 + G², C] → [1 + g², C] in float32.
  static func fitted(_ table: Tensor, from stored: Int, to used: Int) -> Tensor {
    let channels = table.shape[table.shape.count - 1]
    let values = table.floats
    guard stored != used else { return Tensor(values, [1 + used * used, channels]) }
    let steps = weights(from: stored, to: used)
    var result = Array(values[..<channels])
    result.reserveCapacity((1 + used * used) * channels)
    for row in steps {
      for column in steps {
        for channel in 0..<channels {
          var sum: Float = 0
          for (source, weight) in row {
            var line: Float = 0
            for (place, share) in column {
              line += values[(1 + source * stored + place) * channels + channel] * share
            }
            sum += line * weight
          }
          result.append(sum)
        }
      }
    }
    return Tensor(result, [1 + used * used, channels])
  }

  /// dTable [1, 1 + G², C] += the gradient of the table from that of the fitted one
  /// [1 + g², C]: every place gives to the sixteen that made it.
  static func addGradient(
    _ dFitted: Tensor, from stored: Int, to used: Int, into dTable: Tensor
  ) {
    let channels = dTable.shape[dTable.shape.count - 1]
    let steps = weights(from: stored, to: used)
    dFitted.withElements(of: Float.self) { source in
      dTable.withElements(of: Float.self) { target in
        for channel in 0..<channels { target[channel] += source[channel] }
        for (y, row) in steps.enumerated() {
          for (x, column) in steps.enumerated() {
            let from = (1 + y * used + x) * channels
            for (line, weight) in row {
              for (place, share) in column {
                let to = (1 + line * stored + place) * channels
                for channel in 0..<channels {
                  target[to + channel] += weight * share * source[from + channel]
                }
              }
            }
          }
        }
      }
    }
  }

  /// For each place along a side of the new grid, the four places of the old one and their
  /// shares.
  private static func weights(from stored: Int, to used: Int) -> [[(Int, Float)]] {
    let scale = Float(stored) / Float(used)
    return (0..<used).map { place in
      let source = (Float(place) + 0.5) * scale - 0.5
      let start = source.rounded(.down)
      let t = source - start
      let shares = [outer(t + 1), inner(t), inner(1 - t), outer(2 - t)]
      return shares.enumerated().map { offset, share in
        (min(max(Int(start) - 1 + offset, 0), stored - 1), share)
      }
    }
  }

  private static let a: Float = -0.75

  /// The cubic convolution kernel at distances up to 1, and from 1 to 2.
  private static func inner(_ x: Float) -> Float { ((a + 2) * x - (a + 3)) * x * x + 1 }
  private static func outer(_ x: Float) -> Float { ((a * x - 5 * a) * x + 8 * a) * x - 4 * a }
}
