/// Makes the lists of actions of a ``Schedule``.
///
/// Works on *links*: runs of neighbouring virtual stages on one process, which act as one.
struct ScheduleBuilder {
  struct Link {
    var process: Int
    var stages: Range<Int>
  }

  /// An action of a link.
  struct Move {
    var kind: Action.Kind
    var link: Int
    var microBatch: Int

    init(_ kind: Action.Kind, _ link: Int, _ microBatch: Int) {
      self.kind = kind
      self.link = link
      self.microBatch = microBatch
    }
  }

  let placement: [Int]
  let microBatches: Int
  let skips: [Set<Int>]
  let costs: StageCosts
  let links: [Link]
  let processes: Int
  /// Of each process, in the chain's order.
  let linksOfProcess: [[Int]]

  init(placement: [Int], microBatches: Int, skips: [Set<Int>], costs: StageCosts) {
    self.placement = placement
    self.microBatches = microBatches
    self.skips = skips
    self.costs = costs
    var links: [Link] = []
    for (stage, process) in placement.enumerated() {
      if let last = links.last, last.process == process {
        links[links.count - 1].stages = last.stages.lowerBound..<stage + 1
      } else {
        links.append(Link(process: process, stages: stage..<stage + 1))
      }
    }
    let processes = (placement.max() ?? -1) + 1
    var linksOfProcess = Array(repeating: [Int](), count: processes)
    for (index, link) in links.enumerated() { linksOfProcess[link.process].append(index) }
    self.links = links
    self.processes = processes
    self.linksOfProcess = linksOfProcess
  }

  func actions(_ kind: ScheduleKind) -> [[Action]] {
    let isChain = linksOfProcess.allSatisfy { $0.count == 1 }
    switch kind {
    case .gpipe:
      return expand((0..<processes).map(gpipe))
    case .serial:
      return expand((0..<processes).map(serial))
    case .oneForwardOneBackward:
      return isChain ? expand((0..<processes).map(oneForwardOneBackward)) : searched(split: false)
    case .zeroBubble:
      return isChain ? expand((0..<processes).map(zeroBubble)) : searched(split: true)
    case .interleaved:
      if isChain { return expand((0..<processes).map(oneForwardOneBackward)) }
      if let group = groupSize() {
        return expand((0..<processes).map { interleaved($0, group: group) })
      }
      return searched(split: false)
    }
  }

  /// All forwards, then all backwards; the backwards, too, from the first micro-batch on.
  private func gpipe(_ process: Int) -> [Move] {
    let own = linksOfProcess[process]
    let forward = own.flatMap { link in (0..<microBatches).map { Move(.forward, link, $0) } }
    let backward = own.reversed().flatMap { link in
      (0..<microBatches).map { Move(.backward, link, $0) }
    }
    return forward + backward
  }

  /// One micro-batch after another.
  private func serial(_ process: Int) -> [Move] {
    let own = linksOfProcess[process]
    return (0..<microBatches).flatMap { index in
      own.map { Move(.forward, $0, index) } + own.reversed().map { Move(.backward, $0, index) }
    }
  }

  /// As many forwards as there are links behind, then one forward and one backward in turn
  /// (PipeDream-Flush, arXiv:2006.09503).
  private func oneForwardOneBackward(_ process: Int) -> [Move] {
    let link = linksOfProcess[process][0]
    let ahead = min(microBatches, links.count - 1 - link)
    var moves = (0..<ahead).map { Move(.forward, link, $0) }
    for index in 0..<microBatches {
      if index + ahead < microBatches { moves.append(Move(.forward, link, index + ahead)) }
      moves.append(Move(.backward, link, index))
    }
    return moves
  }

  /// 1F1B with the backward cut in two. The link at place g of the chain leaves the weights'
  /// gradients of g micro-batches for the end, where 1F1B idles: with the links − g micro-batches
  /// that wait for their backward, each keeps as many as the first link of 1F1B.
  private func zeroBubble(_ process: Int) -> [Move] {
    let link = linksOfProcess[process][0]
    let ahead = min(microBatches, links.count - 1 - link)
    var moves = (0..<ahead).map { Move(.forward, link, $0) }
    for index in 0..<microBatches {
      if index + ahead < microBatches { moves.append(Move(.forward, link, index + ahead)) }
      moves.append(Move(.backwardInput, link, index))
      if index >= link { moves.append(Move(.backwardWeight, link, index - link)) }
    }
    for index in max(0, microBatches - link)..<microBatches {
      moves.append(Move(.backwardWeight, link, index))
    }
    return moves
  }

  /// Micro-batches that pass a chunk before the process goes on to the next, where links are dealt
  /// to the processes round robin: P, or a little more when that leaves a last group smaller than
  /// P, which would stall the ring. nil: other placements, and fewer micro-batches than processes.
  private func groupSize() -> Int? {
    guard links.count % processes == 0, microBatches >= processes else { return nil }
    for (index, link) in links.enumerated()
    where link.process != links[index % processes].process { return nil }
    return (processes...microBatches).first {
      microBatches % $0 == 0 || microBatches % $0 >= processes
    }
  }

  /// Interleaved 1F1B (arXiv:2104.04473): micro-batches in groups, each group through all chunks.
  private func interleaved(_ process: Int, group: Int) -> [Move] {
    let own = linksOfProcess[process]
    var forward: [Move] = []
    var backward: [Move] = []
    for start in stride(from: 0, to: microBatches, by: group) {
      for chunk in own.indices {
        for index in start..<min(start + group, microBatches) {
          forward.append(Move(.forward, own[chunk], index))
          backward.append(Move(.backward, own[own.count - 1 - chunk], index))
        }
      }
    }
    let rank = own[0]
    let ahead = min(
      forward.count, (processes - 1 - rank) * 2 + (own.count - 1) * group)
    var moves = Array(forward[..<ahead])
    for index in backward.indices {
      if index + ahead < forward.count { moves.append(forward[index + ahead]) }
      moves.append(backward[index])
    }
    return moves
  }

  /// The shortest of several greedy searches.
  private func searched(split: Bool) -> [[Action]] {
    var best: (moves: [[Move]], makespan: Double)?
    for preference in GreedySearch.Preference.allCases {
      let found = GreedySearch(self, splitsBackward: split, preference: preference).run()
      if found.makespan < best?.makespan ?? .infinity { best = found }
    }
    return expand(best?.moves ?? [])
  }

  private func expand(_ moves: [[Move]]) -> [[Action]] {
    var chunk: [Int] = []
    var held = Array(repeating: 0, count: processes)
    for process in placement {
      chunk.append(held[process])
      held[process] += 1
    }
    return moves.map { row in
      row.flatMap { move in
        let stages = links[move.link].stages
        let order = move.kind == .forward ? Array(stages) : stages.reversed()
        return order.map { Action(move.kind, microBatch: move.microBatch, chunk: chunk[$0]) }
      }
    }
  }

  /// Stages of a link that do not skip a micro-batch; empty: the link has nothing to do.
  func working(_ link: Int, _ microBatch: Int) -> [Int] {
    links[link].stages.filter { $0 >= skips.count || !skips[$0].contains(microBatch) }
  }
}
