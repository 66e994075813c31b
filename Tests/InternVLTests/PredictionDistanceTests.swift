import InternVL
import Tensors
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct PredictionDistanceTests {
  private func logits(_ probabilities: [Double], shift: Float = 0) -> Tensor {
    Tensor(probabilities.map { Float(log($0)) + shift }, [probabilities.count])
  }

  @Test func `divergence, first choice and cross entropy are those of the definition`() {
    let (p, q) = ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25])
    var distance = PredictionDistance()
    // What is added to all logits changes nothing.
    distance.add(reference: logits(p, shift: 50), other: logits(q, shift: -30), target: 1)
    let expected = zip(p, q).reduce(0) { $0 + $1.0 * log($1.0 / $1.1) }
    #expect(abs(distance.mean - expected) < 1e-5)
    #expect(distance.agreement == 0 && distance.count == 1 && distance.scored == 1)
    #expect(abs(distance.meanLosses.reference + log(0.25)) < 1e-5)
    #expect(abs(distance.meanLosses.other + log(0.5)) < 1e-5)

    distance.add(reference: logits(p), other: logits(p), target: nil)
    #expect(abs(distance.mean - expected / 2) < 1e-5)
    #expect(distance.agreement == 0.5 && distance.count == 2 && distance.scored == 1)
  }

  @Test func `equal predictions are at no distance`() {
    var distance = PredictionDistance()
    let row = Tensor((0..<1009).map { Float(sin(Double($0) * 7)) * 9 }, [1009])
    for target in 0..<20 {
      distance.add(reference: row, other: row, target: Int32(target))
    }
    #expect(distance.mean < 1e-12 && distance.percentile(1) < 1e-12)
    #expect(distance.agreement == 1)
    #expect(distance.meanLosses.reference == distance.meanLosses.other)
  }

  @Test func `of equally probable tokens the first is the choice of both`() {
    var distance = PredictionDistance()
    distance.add(
      reference: Tensor([1, 1], [2]), other: Tensor([1, 1], [2]), target: nil)
    distance.add(
      reference: Tensor([1, 1], [2]), other: Tensor([1, 1.5], [2]), target: nil)
    #expect(distance.agreement == 0.5)
  }

  @Test func `a percentile is what so many do not exceed`() {
    var distance = PredictionDistance()
    #expect(distance.percentile(0.99) == 0 && distance.mean == 0 && distance.agreement == 1)
    // Growing divergences, out of order.
    for step in (0..<100).map({ $0 * 37 % 100 }) {
      distance.add(
        reference: Tensor([0, 0], [2]), other: Tensor([0, Float(step) / 10], [2]), target: nil)
    }
    let sorted = distance.divergences.sorted()
    #expect(distance.percentile(0.99) == sorted[98] && distance.percentile(1) == sorted[99])
    #expect(distance.percentile(0.5) == sorted[49] && distance.percentile(0) == sorted[0])
    #expect(sorted[98] > sorted[97])
  }

  @Test func `logits that are far apart stay finite`() {
    var distance = PredictionDistance()
    distance.add(
      reference: Tensor([300, -300], [2]), other: Tensor([-300, 300], [2]), target: 0)
    #expect(abs(distance.mean - 600) < 1e-9)
    #expect(abs(distance.meanLosses.other - 600) < 1e-9 && distance.meanLosses.reference == 0)
  }
}
