import Support
import Tensors
import Testing

@testable import Kernels

/// Every operation's gradients against central differences of its formula in Double.
@Suite struct GradientTests {
  private typealias Input = GradientCase.Input

  @Test("gradients are those of the formula, the same bits on every device", arguments: cases)
  func gradients(operation: GradientCase) throws {
    try operation.check()
  }

  static let cases: [GradientCase] =
    linear + norms + activations + residuals + rotations + attention + lookups

  private static let linear: [GradientCase] = [
    (1, 1, 1), (2, 17, 5), (7, 64, 66), (70, 33, 130), (0, 3, 2), (3, 5, 1030), (130, 70, 3),
  ].flatMap { rows, depth, outputs in
    [ScalarType.float32, .bfloat16].flatMap { type in
      [Input.Gradient.written, .added].map { mode in
        GradientCase(
          name: "linear \(type)",
          inputs: [
            Input(shape: [rows, depth], gradient: mode),
            Input(
              shape: [outputs, depth], type: type, gradient: type == .float32 ? .added : .unwanted),
            Input(shape: [outputs], gradient: mode == .added ? .added : .unwanted),
          ],
          outputShape: [rows, outputs],
          reference: {
            ReferenceMath.linear(
              $0[0], weight: $0[1], bias: $0[2], rows: rows, depth: depth, outputs: outputs)
          },
          gradient: { device, inputs, dY, gradients in
            if let dX = gradients[0] {
              try device.linearInputGradient(
                dY: dY, weight: inputs[1], adding: mode == .added, into: dX)
            }
            try device.linearWeightGradient(
              x: inputs[0], dY: dY, weight: gradients[1], bias: gradients[2])
          })
      }
    }
  }

  private static let norms: [GradientCase] = [
    (1, 1), (3, 15), (5, 33), (66, 130), (0, 4), (2, 16), (200, 7),
  ].flatMap { rows, width in
    [ScalarType.float32, .bfloat16].flatMap { type in
      [Input.Gradient.written, .added, .unwanted].flatMap { mode -> [GradientCase] in
        let inputs = [
          Input(shape: [rows, width], range: -2...3, gradient: mode),
          Input(
            shape: [width], type: type, gradient: type == .float32 ? .added : .unwanted),
          Input(shape: [width], gradient: mode == .added ? .unwanted : .added),
        ]
        return [
          GradientCase(
            name: "RMS norm \(type)", inputs: Array(inputs[..<2]), outputShape: [rows, width],
            reference: { ReferenceMath.rmsNorm($0[0], weight: $0[1], epsilon: 1e-2) },
            gradient: { device, inputs, dY, gradients in
              try device.rmsNormGradient(
                dY: dY, x: inputs[0], weight: inputs[1], epsilon: 1e-2, adding: mode == .added,
                into: gradients[0], weight: gradients[1])
            }),
          GradientCase(
            name: "layer norm \(type)", inputs: inputs, outputShape: [rows, width],
            reference: {
              ReferenceMath.layerNorm($0[0], weight: $0[1], bias: $0[2], epsilon: 1e-2)
            },
            gradient: { device, inputs, dY, gradients in
              try device.layerNormGradient(
                dY: dY, x: inputs[0], weight: inputs[1], epsilon: 1e-2, adding: mode == .added,
                into: gradients[0], weight: gradients[1], bias: gradients[2])
            }),
        ]
      }
    }
  }

  private static let activations: [GradientCase] = [[1], [3, 15], [16], [70, 1030], [0]].flatMap {
    shape in
    [
      GradientCase(
        name: "GELU", inputs: [Input(shape: shape, range: -6...6)], outputShape: shape,
        reference: { $0[0].map(ReferenceMath.gelu) },
        gradient: { device, inputs, dY, gradients in
          try gradients[0].map { try device.geluGradient(dY: dY, x: inputs[0], into: $0) }
        }),
      GradientCase(
        name: "SwiGLU", inputs: [Input(shape: shape, range: -9...9), Input(shape: shape)],
        outputShape: shape,
        reference: { zip($0[0], $0[1]).map { ReferenceMath.silu($0) * $1 } },
        gradient: { device, inputs, dY, gradients in
          guard let dGate = gradients[0], let dUp = gradients[1] else { return }
          try device.siluMultiplyGradient(
            dY: dY, gate: inputs[0], up: inputs[1], into: dGate, up: dUp)
        }),
    ]
  }

  private static let residuals: [GradientCase] = [
    (1, 1, 1), (3, 5, 15), (2, 70, 33), (1, 2, 16), (0, 0, 3),
  ].flatMap { groups, rowsEach, width in
    [nil, ScalarType.float32, .bfloat16].flatMap { scaleType in
      [false, true].map { dropping in
        let rows = groups * rowsEach
        let factors = (0..<groups).map { dropping ? [2.5, 0, 1][$0 % 3] as Float : 1 }
        var inputs = [Input(shape: [rows, width])]
        if let scaleType {
          inputs.append(
            Input(
              shape: [width], type: scaleType,
              gradient: scaleType == .float32 ? .added : .unwanted))
        }
        return GradientCase(
          name: "residual \(dropping)", inputs: inputs, outputShape: [rows, width],
          reference: { inputs in
            inputs[0].enumerated().map { index, y in
              y * (scaleType == nil ? 1 : inputs[1][index % width])
                * Double(factors[index / width / rowsEach])
            }
          },
          gradient: { device, inputs, dY, gradients in
            guard let into = gradients[0] else { return }
            try device.addScaledGradient(
              dX: dY, y: inputs[0], scale: scaleType == nil ? nil : inputs[1],
              factors: dropping ? factors : nil, into: into,
              scale: scaleType == nil ? nil : gradients[1])
          })
      }
    }
  }

  private static let rotations: [GradientCase] = [
    (1, 1, 2), (3, 2, 20), (5, 3, 24), (40, 7, 64), (0, 1, 8),
  ].map { rows, heads, size in
    var random = SeededRandom(9)
    let cosines = random.tensor([50, size / 2])
    let sines = random.tensor([50, size / 2])
    let positions = (0..<rows).map { _ in Int.random(in: 0..<50, using: &random) }
    return GradientCase(
      name: "rotation", inputs: [Input(shape: [rows, heads * size])],
      outputShape: [rows, heads * size],
      reference: {
        ReferenceMath.rotate(
          $0[0], heads: heads, size: size, cosines: positions.map { cosines[$0].doubles },
          sines: positions.map { sines[$0].doubles })
      },
      gradient: { device, _, dY, gradients in
        guard let dX = gradients[0] else { return }
        dX.copyElements(from: dY)
        try device.rotateGradient(
          dX, heads: heads, positions: positions, cosines: cosines, sines: sines)
      })
  }

  private static let attention: [GradientCase] =
    [
      (1, 1, 1, 1), (2, 5, 2, 20), (3, 17, 3, 24), (1, 130, 2, 16), (0, 3, 1, 2),
    ].map { pictures, rowsEach, heads, size in
      let shape = [pictures * rowsEach, heads * size]
      return attentionCase(
        "bidirectional attention", heads: heads, keyValueHeads: heads, size: size,
        shape: shape, groups: (0..<pictures).map { $0 * rowsEach..<($0 + 1) * rowsEach },
        rowsEach: rowsEach)
    }
    + [
      (1, 1, 1, 1, [0..<1]), (9, 2, 2, 20, [0..<9]), (37, 6, 2, 24, [0..<5, 5..<37]),
      (80, 4, 1, 16, [3..<70, 71..<72]), (140, 2, 1, 8, [0..<140]),
      (12, 14, 2, 3, [7..<12, 0..<6]),
      (4, 2, 1, 4, []), (0, 2, 1, 4, [0..<0]),
    ].map { rows, heads, keyValueHeads, size, sequences in
      attentionCase(
        "causal attention", heads: heads, keyValueHeads: keyValueHeads, size: size,
        shape: [rows, heads * size], groups: sequences, rowsEach: nil)
    }
    + SharedPrefixCase.all.map { layout in
      let narrow = [layout.rows, layout.keyValueHeads * layout.size]
      let shape = [layout.rows, layout.heads * layout.size]
      return GradientCase(
        name: "attention behind a shared prefix",
        inputs: [
          Input(shape: shape, range: -3...3), Input(shape: narrow, range: -3...3),
          Input(shape: narrow),
        ],
        outputShape: shape,
        reference: { layout.reference(q: $0[0], k: $0[1], v: $0[2]) },
        gradient: { device, inputs, dY, gradients in
          guard let dQ = gradients[0], let dK = gradients[1], let dV = gradients[2] else { return }
          let y = Tensor([Float](repeating: .nan, count: dY.count), shape)
          try device.causalAttention(
            q: inputs[0], k: inputs[1], v: inputs[2], heads: layout.heads,
            keyValueHeads: layout.keyValueHeads, sequences: layout.sequences, into: y)
          try device.causalAttentionGradient(
            dY: dY, q: inputs[0], k: inputs[1], v: inputs[2], y: y, heads: layout.heads,
            keyValueHeads: layout.keyValueHeads, sequences: layout.sequences, dQ: dQ, dK: dK,
            dV: dV)
        })
    }

  private static func attentionCase(
    _ name: String, heads: Int, keyValueHeads: Int, size: Int, shape: [Int],
    groups: [Range<Int>], rowsEach: Int?
  ) -> GradientCase {
    let narrow = [shape[0], keyValueHeads * size]
    return GradientCase(
      name: name,
      inputs: [
        Input(shape: shape, range: -3...3), Input(shape: narrow, range: -3...3),
        Input(shape: narrow),
      ],
      outputShape: shape,
      reference: {
        ReferenceMath.attention(
          q: $0[0], k: $0[1], v: $0[2], heads: heads, keyValueHeads: keyValueHeads, size: size,
          groups: groups, causal: rowsEach == nil)
      },
      gradient: { device, inputs, dY, gradients in
        guard let dQ = gradients[0], let dK = gradients[1], let dV = gradients[2] else { return }
        let (q, k, v) = (inputs[0], inputs[1], inputs[2])
        let y = Tensor([Float](repeating: .nan, count: q.count), q.shape)
        if let rowsEach {
          try device.bidirectionalAttention(
            q: q, k: k, v: v, heads: heads, rowsEach: rowsEach, into: y)
          try device.bidirectionalAttentionGradient(
            dY: dY, q: q, k: k, v: v, y: y, heads: heads, rowsEach: rowsEach, dQ: dQ, dK: dK,
            dV: dV)
        } else {
          try device.causalAttention(
            q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads,
            sequences: groups.map { AttentionSequence($0) }, into: y)
          try device.causalAttentionGradient(
            dY: dY, q: q, k: k, v: v, y: y, heads: heads, keyValueHeads: keyValueHeads,
            sequences: groups.map { AttentionSequence($0) }, dQ: dQ, dK: dK, dV: dV)
        }
      })
  }

  private static let lookups: [GradientCase] = [
    ([3], 1), ([0, 4, 4, -1, 2, 4], 5), ([-7], 3), ([], 2), ([1, 1], 300),
  ].map { (ids: [Int32], width: Int) in
    GradientCase(
      name: "embedding", inputs: [Input(shape: [5, width], gradient: .added)],
      outputShape: [ids.count, width],
      reference: { inputs in
        ids.flatMap { id in
          (0..<width).map { id < 0 ? 0 : inputs[0][Int(id) * width + $0] }
        }
      },
      gradient: { device, _, dY, gradients in
        try gradients[0].map { try device.embedGradient(dY: dY, ids: ids, into: $0) }
      })
  }
}
