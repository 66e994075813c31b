import Checkpoint
import Tensors

/// Pixel shuffle: neighbouring patches become one image token with their channels side by side
/// (`pixel_shuffle` of the reference's modeling_internvl_chat.py).
///
/// The patches of an f×f square lie row by row in a token: channel (r mod f)·f·C + (c mod f)·C
/// + k comes from channel k of the patch at row r, column c. In which order the squares become
/// tokens depends on the version: `v1` goes down the columns of the picture, `v2` along its
/// rows.
///
/// Legend: P patches of a tile, G on a side, f merged on a side, C channels.
struct PatchMerge: Sendable {
  /// G
  let grid: Int
  /// f
  let factor: Int
  /// C
  let channels: Int
  let order: ModelConfiguration.PixelShuffle

  /// Tokens of a tile: (G / f)².
  var tokenCount: Int { (grid / factor) * (grid / factor) }
  /// f²·C
  var tokenWidth: Int { factor * factor * channels }

  /// patches [P, C] → merged [tokens, f²·C], both float32.
  func apply(_ patches: Tensor, into merged: Tensor) {
    patches.withElements(of: Float.self) { source in
      merged.withElements(of: Float.self) { target in
        forEachPatch { patch, place in
          for channel in 0..<channels { target[place + channel] = source[patch + channel] }
        }
      }
    }
  }

  /// merged [tokens, f²·C] → patches [P, C]: also takes the gradient back.
  func undo(_ merged: Tensor, into patches: Tensor) {
    merged.withElements(of: Float.self) { source in
      patches.withElements(of: Float.self) { target in
        forEachPatch { patch, place in
          for channel in 0..<channels { target[patch + channel] = source[place + channel] }
        }
      }
    }
  }

  /// Where a patch's first channel lies, and where it lies in the merged rows.
  private func forEachPatch(_ body: (_ patch: Int, _ place: Int) -> Void) {
    let side = grid / factor
    for row in 0..<grid {
      for column in 0..<grid {
        let token =
          switch order {
          case .v1: column / factor * side + row / factor
          case .v2: row / factor * side + column / factor
          }
        let part = row % factor * factor + column % factor
        body((row * grid + column) * channels, token * tokenWidth + part * channels)
      }
    }
  }
}
