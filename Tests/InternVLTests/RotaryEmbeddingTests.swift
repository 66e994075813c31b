import Checkpoint
import Tensors
import Testing

@testable import InternVL

@Suite struct RotaryEmbeddingTests {
  struct Row: Sendable {
    let headSize: Int
    let base: Float
    let position: Int
    let places: [Int]
    let cosines: [Float]
    let sines: [Float]
  }

  /// Computed with PyTorch in float32: `1 / base ** (arange(0, H, 2) / H)`, times the position.
  static let rows = [
    Row(
      headSize: 128, base: 5_000_000, position: 4095, places: [0, 1, 2, 3, 5, 8, 13, 21, 34, 63],
      cosines: [
        -0.06597599387168884, 0.5545288324356079, -0.9797048568725586, -0.1336517184972763,
        -0.3484302759170532, 0.16860362887382507, -0.8155913352966309, 0.6834819912910461,
        0.42584121227264404, 0.999999463558197,
      ],
      sines: [
        -0.9978212118148804, 0.8321645259857178, 0.20044557750225067, 0.991028368473053,
        0.9373347163200378, -0.9856839179992676, 0.5786283612251282, 0.7299674153327942,
        0.9047979116439819, 0.0010422099148854613,
      ]),
    Row(
      headSize: 128, base: 10_000, position: 4095, places: [0, 1, 2, 3, 5, 8, 13, 21, 34, 63],
      cosines: [
        -0.06597599387168884, -0.742445707321167, -0.09004636108875275, 0.13994693756103516,
        -0.7114373445510864, 0.8159282207489014, -0.6522791981697083, -0.07784665375947952,
        0.7598210573196411, 0.8902588486671448,
      ],
      sines: [
        -0.9978212118148804, 0.6699061989784241, -0.9959375858306885, 0.9901589751243591,
        0.7027495503425598, 0.5781531929969788, 0.7579787969589233, -0.9969653487205505,
        -0.6501322984695435, 0.4554549753665924,
      ]),
    Row(
      headSize: 16, base: 5_000_000, position: 100_000, places: [0, 1, 2, 3, 5, 7],
      cosines: [
        -0.9993607997894287, -0.9618473649024963, -0.9000901579856873, 0.9404086470603943,
        0.9758398532867432, 0.9905574917793274,
      ],
      sines: [
        0.03574879840016365, 0.2735866904258728, -0.43570369482040405, -0.3400464355945587,
        0.21848691999912262, 0.1370980590581894,
      ]),
  ]

  private func language(
    headSize: Int, base: Float, scaling: RopeScaling? = nil, positions: Int = 4096
  ) -> LanguageConfiguration {
    LanguageConfiguration(
      hiddenSize: headSize, layerCount: 1, headCount: 1, keyValueHeadCount: 1,
      intermediateSize: 1, vocabularySize: 1, ropeTheta: base, ropeScaling: scaling,
      maxPositions: positions)
  }

  private func angles(
    _ language: LanguageConfiguration, _ steps: [SequenceRows], rows: Int
  ) -> (cosines: [Float], sines: [Float]) {
    let half = language.headSize / 2
    let cosines = Tensor(zeros: .float32, [rows, half])
    let sines = Tensor(zeros: .float32, [rows, half])
    RotaryEmbedding(language).fill(steps, cosines: cosines, sines: sines)
    return (cosines.floats, sines.floats)
  }

  @Test("Angles at large positions round as the reference's do", arguments: rows)
  func large(_ row: Row) {
    let found = angles(
      language(headSize: row.headSize, base: row.base),
      [SequenceRows(sequence: 1, position: row.position, rows: 0..<1)], rows: 1)
    for (index, place) in row.places.enumerated() {
      #expect(abs(found.cosines[place] - row.cosines[index]) < 2e-7)
      #expect(abs(found.sines[place] - row.sines[index]) < 2e-7)
    }
  }

  @Test("A linear factor divides positions")
  func linear() {
    let plain = angles(
      language(headSize: 8, base: 100), [SequenceRows(sequence: 1, position: 3, rows: 0..<1)],
      rows: 1)
    let stretched = angles(
      language(headSize: 8, base: 100, scaling: .linear(factor: 2)),
      [SequenceRows(sequence: 1, position: 6, rows: 0..<1)], rows: 1)
    #expect(plain.cosines == stretched.cosines)
    #expect(plain.sines == stretched.sines)
  }

  @Test("With dynamic scaling a prompt's rows share its length, and later rows have their own")
  func dynamic() {
    let scaled = language(
      headSize: 8, base: 100, scaling: .dynamic(factor: 2), positions: 8)
    let plain = language(headSize: 8, base: 100)
    func row(
      _ language: LanguageConfiguration, at position: Int, prompt: Int
    ) -> [Float] {
      angles(
        language,
        [SequenceRows(sequence: 1, position: position, rows: 0..<1, promptLength: prompt)],
        rows: 1
      ).sines
    }
    #expect(row(scaled, at: 7, prompt: 8) == row(plain, at: 7, prompt: 8))
    #expect(row(scaled, at: 7, prompt: 9) != row(plain, at: 7, prompt: 8))
    #expect(row(scaled, at: 8, prompt: 8) == row(scaled, at: 8, prompt: 9))
    #expect(row(scaled, at: 8, prompt: 10) != row(scaled, at: 8, prompt: 9))
    // Several rows at once are what each is alone.
    let together = angles(
      scaled, [SequenceRows(sequence: 1, position: 6, rows: 0..<5, promptLength: 8)], rows: 5)
    #expect(together.sines == (6..<11).flatMap { row(scaled, at: $0, prompt: 8) })
  }
}
