import Checkpoint
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Rotary position embedding (arXiv:2104.09864): the angles by which queries and keys turn.
///
/// Angles are computed in Float32 in the reference's order (transformers 4.37.2,
/// modeling_llama.py; for `llama3` the later modeling_rope_utils.py), since at large positions
/// another order of rounding shows: `inverse = 1 / base^(2i/H)`, `angle = position · inverse`.
///
/// Tables are made for the rows of a step, once for all layers of a stage. That costs little
/// beside one matrix product and makes no table as long as the context necessary.
///
/// With dynamic scaling the base grows with the length of the sequence. The reference takes it
/// from the longest input its process has seen so far, so that a long request changes the next,
/// short one. Here the row at position p takes it from max(prompt length, p + 1), which is what
/// the reference does for the first request of a process: all rows of a prompt turn by the same
/// base, however the prompt is cut into chunks, and each generated token by that of its own
/// length.
///
/// Legend: T rows, H head size.
struct RotaryEmbedding: Sendable {
  private let headSize: Int
  private let base: Float
  private let scaling: RopeScaling?
  /// Positions the model was trained at, for dynamic scaling.
  private let trainedPositions: Int
  /// For bases that do not change: [H/2].
  private let inverseFrequencies: [Float]

  init(_ language: LanguageConfiguration) {
    headSize = language.headSize
    base = language.ropeTheta
    scaling = language.ropeScaling
    trainedPositions = language.maxPositions
    let plain = RotaryEmbedding.inverseFrequencies(headSize: headSize, base: base)
    if case .llama3(let factor, let low, let high, let trained) = scaling {
      self.inverseFrequencies = plain.map {
        RotaryEmbedding.llama3($0, factor: factor, low: low, high: high, trained: Float(trained))
      }
    } else {
      self.inverseFrequencies = plain
    }
  }

  /// Writes the cosines and sines [T, H/2] of a step's rows.
  func fill(_ steps: [SequenceRows], cosines: Tensor, sines: Tensor) {
    let half = headSize / 2
    cosines.withElements(of: Float.self) { cosines in
      sines.withElements(of: Float.self) { sines in
        for step in steps {
          // The frequencies of the row before serve this one unless the length has grown.
          var inverse = inverseFrequencies
          var length = 0
          for (offset, row) in step.rows.enumerated() {
            let position = step.position + offset
            if case .dynamic(let factor) = scaling {
              let needed = max(step.promptLength, position + 1)
              if needed != length {
                length = needed
                inverse = dynamicFrequencies(length: length, factor: factor)
              }
            }
            var place = Float(position)
            if case .linear(let factor) = scaling { place /= factor }
            for index in 0..<half {
              let angle = place * inverse[index]
              cosines[row * half + index] = cos(angle)
              sines[row * half + index] = sin(angle)
            }
          }
        }
      }
    }
  }

  private func dynamicFrequencies(length: Int, factor: Float) -> [Float] {
    guard length > trainedPositions else { return inverseFrequencies }
    // In Double, as Python computes the base before the tensors see it.
    let size = Double(headSize)
    let stretch = Double(factor) * Double(length) / Double(trainedPositions) - (Double(factor) - 1)
    let grown = Double(base) * pow(stretch, size / (size - 2))
    return RotaryEmbedding.inverseFrequencies(headSize: headSize, base: Float(grown))
  }

  private static func inverseFrequencies(headSize: Int, base: Float) -> [Float] {
    stride(from: 0, to: headSize - headSize % 2, by: 2).map { index in
      1 / powf(base, Float(index) / Float(headSize))
    }
  }

  private static func llama3(
    _ inverse: Float, factor: Float, low: Float, high: Float, trained: Float
  ) -> Float {
    let wavelength = Float(2 * Double.pi) / inverse
    if wavelength > trained / low { return inverse / factor }
    if wavelength < trained / high { return inverse }
    let smooth = (trained / wavelength - low) / (high - low)
    return (1 - smooth) * (inverse / factor) + smooth * inverse
  }
}
