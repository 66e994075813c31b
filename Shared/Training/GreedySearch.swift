/// Lists actions as a run would take them: whenever a process is free, a backward if one is ready,
/// else a forward, else a weight's gradient. Which of several is a ``Preference``.
///
/// The link at place g of G takes a forward only while fewer than G − g micro-batches of its own
/// wait for their backward, and fewer than G for their weights' gradients. That bounds what is
/// kept, and cannot deadlock: the first micro-batch that is not through is alone in its link once
/// those before it are gone, so its next action is always allowed.
struct GreedySearch {
  private typealias Move = ScheduleBuilder.Move

  /// No one is best for all chains and costs.
  enum Preference: CaseIterable {
    /// Links nearest to the end of the chain.
    case deep
    /// Backwards of links nearest to the end, forwards of those nearest to the start.
    case shallow
    /// The first micro-batches.
    case oldest
    /// Forwards before backwards, as far as they are allowed, nearest to the end first.
    case eager
  }

  private let builder: ScheduleBuilder
  private let splitsBackward: Bool
  private let preference: Preference
  /// `[link][microBatch]`: when it ends; nil: not listed yet.
  private var forwardEnd: [[Double?]]
  private var backwardEnd: [[Double?]]
  private var nextForward: [Int]
  private var nextBackward: [Int]
  private var nextWeight: [Int]

  init(_ builder: ScheduleBuilder, splitsBackward: Bool, preference: Preference) {
    self.builder = builder
    self.splitsBackward = splitsBackward
    self.preference = preference
    let none = Array(
      repeating: Array(repeating: Double?.none, count: builder.microBatches),
      count: builder.links.count)
    forwardEnd = none
    backwardEnd = none
    nextForward = Array(repeating: 0, count: builder.links.count)
    nextBackward = nextForward
    nextWeight = nextForward
  }

  func run() -> (moves: [[ScheduleBuilder.Move]], makespan: Double) {
    var search = self
    return search.list()
  }

  private mutating func list() -> (moves: [[ScheduleBuilder.Move]], makespan: Double) {
    var free = Array(repeating: 0.0, count: builder.processes)
    var moves = Array(repeating: [ScheduleBuilder.Move](), count: builder.processes)
    var left = builder.links.count * builder.microBatches * (splitsBackward ? 3 : 2)
    while left > 0 {
      var best: (process: Int, start: Double, move: Move)?
      for process in 0..<builder.processes {
        guard let next = choice(process, free: free[process]) else { continue }
        if next.start < best?.start ?? .infinity { best = (process, next.start, next.move) }
      }
      guard let best else { preconditionFailure("a greedy schedule that cannot go on") }
      let end = best.start + duration(best.move)
      free[best.process] = end
      moves[best.process].append(best.move)
      note(best.move, end: end)
      left -= 1
    }
    return (moves, free.max() ?? 0)
  }

  /// The move that starts first; of several, the one to prefer.
  private func choice(_ process: Int, free: Double) -> (start: Double, move: Move)? {
    let links = builder.linksOfProcess[process]
    var backward: [(start: Double, move: Move)] = []
    var forward = backward
    for link in links.reversed() {
      if let ready = backwardReady(link) {
        let kind: Action.Kind = splitsBackward ? .backwardInput : .backward
        backward.append((max(free, ready), Move(kind, link, nextBackward[link])))
      }
      if let ready = forwardReady(link) {
        forward.append((max(free, ready), Move(.forward, link, nextForward[link])))
      }
    }
    switch preference {
    case .deep, .eager: break
    case .shallow: forward.reverse()
    case .oldest:
      backward.sort { $0.move.microBatch < $1.move.microBatch }
      forward.sort { $0.move.microBatch < $1.move.microBatch }
    }
    var candidates = preference == .eager ? forward + backward : backward + forward
    if splitsBackward {
      for link in links.reversed() where nextWeight[link] < nextBackward[link] {
        let ready = backwardEnd[link][nextWeight[link]] ?? 0
        candidates.append((max(free, ready), Move(.backwardWeight, link, nextWeight[link])))
      }
    }
    guard let first = candidates.map(\.start).min() else { return nil }
    return candidates.first { $0.start == first }
  }

  private func forwardReady(_ link: Int) -> Double? {
    let index = nextForward[link]
    let count = builder.links.count
    guard index < builder.microBatches, index - nextBackward[link] < count - link else {
      return nil
    }
    if splitsBackward, index - nextWeight[link] >= count { return nil }
    guard !builder.working(link, index).isEmpty else { return 0 }
    guard let before = (0..<link).last(where: { !builder.working($0, index).isEmpty }) else {
      return 0
    }
    return forwardEnd[before][index].map { $0 + transfer(before, link) }
  }

  private func backwardReady(_ link: Int) -> Double? {
    let index = nextBackward[link]
    guard index < nextForward[link], let own = forwardEnd[link][index] else { return nil }
    guard !builder.working(link, index).isEmpty else { return own }
    let behind = (link + 1..<builder.links.count).first { !builder.working($0, index).isEmpty }
    guard let behind else { return own }
    return backwardEnd[behind][index].map { max(own, $0 + transfer(behind, link)) }
  }

  private func transfer(_ a: Int, _ b: Int) -> Double {
    builder.links[a].process == builder.links[b].process ? 0 : builder.costs.transfer
  }

  private func duration(_ move: Move) -> Double {
    builder.working(move.link, move.microBatch).reduce(0) {
      $0 + builder.costs.duration(move.kind, stage: $1, microBatch: move.microBatch)
    }
  }

  private mutating func note(_ move: Move, end: Double) {
    switch move.kind {
    case .forward:
      forwardEnd[move.link][move.microBatch] = end
      nextForward[move.link] += 1
    case .backward, .backwardInput:
      backwardEnd[move.link][move.microBatch] = end
      nextBackward[move.link] += 1
    case .backwardWeight:
      nextWeight[move.link] += 1
    }
  }
}
