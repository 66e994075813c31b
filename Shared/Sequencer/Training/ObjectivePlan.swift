import Checkpoint
import InternVL
import Text
import Training
import TrainingData

/// What the parts of a run's loss are: their weights, and the classes with the tokens of their
/// words.
struct RunObjectives: Sendable {
  /// Of patch classes.
  struct Group: Sendable {
    var name: String
    var weight: Double
    var classWeights: [Double]
    /// By class.
    var forms: [PictureClasses.Forms]
  }

  let configuration: TrainingConfiguration
  /// Empty where nobody asks what pictures show.
  let groups: [Group]
  /// Image tokens of a tile, and where each cell of it lies among them.
  let places: [Int]

  init(_ configuration: TrainingConfiguration, groups: [Group], places: [Int]) {
    self.configuration = configuration
    self.groups = groups
    self.places = places
  }

  /// - Throws: `TextError` of a word.
  init(
    _ configuration: TrainingConfiguration, _ classes: PictureClasses?,
    _ model: ModelConfiguration, _ tokenizer: Tokenizer
  ) throws {
    self.configuration = configuration
    places = RunObjectives.places(count: model.imageTokenCount, model.pixelShuffle)
    let forms = try configuration.learnsNaming ? classes?.forms(tokenizer) : nil
    groups = (classes?.groups ?? []).enumerated().map { index, group in
      Group(
        name: group.name, weight: group.weight, classWeights: group.classes.map(\.weight),
        forms: forms?[index] ?? [])
    }
  }

  /// The image token of each cell, cells counted from top to bottom, and in these from left to
  /// right: pixel shuffle v1 goes down the columns.
  static func places(count: Int, _ order: ModelConfiguration.PixelShuffle) -> [Int] {
    let side = Int(Double(count).squareRoot().rounded())
    return (0..<count).map { cell in
      switch order {
      case .v1: cell % side * side + cell / side
      case .v2: cell
      }
    }
  }

  /// What the slices have to know.
  var training: TrainingObjectives {
    TrainingObjectives(
      answers: configuration.learnsAnswers, naming: configuration.learnsNaming,
      groups: configuration.learnsPatchClasses
        ? groups.map { .init(name: $0.name, classWeights: $0.classWeights) } : [])
  }

  /// What an image row of a cell should be near to; empty: nothing, for what the cell shows has no
  /// words.
  ///
  /// - Parameter cell: classes by group.
  func target(_ cell: [(group: Int, number: Int32)]) -> [(token: Int32, share: Double)] {
    let named = cell.map { groups[$0.group].forms[Int($0.number)] }.filter { !$0.isEmpty }
    var target: [(token: Int32, share: Double)] = []
    for forms in named {
      for form in forms {
        let share = 1 / (Double(named.count) * Double(forms.count) * Double(form.count))
        for token in form {
          if let index = target.firstIndex(where: { $0.token == token }) {
            target[index].share += share
          } else {
            target.append((token, share))
          }
        }
      }
    }
    return target
  }
}

/// What the parts of the loss come to in one step.
struct ObjectivePlan: Sendable {
  private let objectives: RunObjectives
  private let namingWeight: Double
  /// By group: what all patches of the step count together.
  private var totals: [Double]
  /// Cells of the step that have a target.
  private var named = 0

  /// Lays out what the samples' pictures show, and how much it counts.
  ///
  /// - Parameters:
  ///   - samples: of each micro-batch, as they lie in the plan.
  ///   - done: steps before this one, of all.
  init(
    _ objectives: RunObjectives, _ samples: [[TrainingSample]], after done: Int, of steps: Int,
    into plan: inout StepPlan
  ) {
    self.objectives = objectives
    let configuration = objectives.configuration
    namingWeight = configuration.namingLossWeight(after: done, of: steps)
    totals = Array(repeating: 0, count: objectives.groups.count)
    plan.weighAnswers(configuration.answerLossWeight)
    guard configuration.readsClasses else { return }
    if configuration.learnsPatchClasses {
      // In the order of the samples, however they are cut into micro-batches.
      for sample in samples.joined() {
        for (group, numbers) in (sample.classes?.patches ?? []).enumerated() {
          for number in numbers where number >= 0 {
            totals[group] += objectives.groups[group].classWeights[Int(number)]
          }
        }
      }
    }
    var naming = samples.map { samples in
      configuration.learnsNaming ? ObjectivePlan.naming(samples, objectives) : nil
    }
    named = naming.reduce(0) { $0 + ($1?.rows.count ?? 0) }
    for index in samples.indices {
      naming[index]?.scale = namingWeight / Double(max(1, named))
      plan.add(to: index, patches: patches(samples[index]), naming: naming[index])
    }
  }

  /// The groups of which the samples of a micro-batch say something.
  private func patches(_ samples: [TrainingSample]) -> [PatchTargets] {
    guard objectives.configuration.learnsPatchClasses else { return [] }
    let each = samples.compactMap { sample -> Int? in
      guard sample.tiles > 0, let first = sample.classes?.patches.first(where: { !$0.isEmpty })
      else { return nil }
      return first.count / sample.tiles
    }.first
    guard let each else { return [] }
    return objectives.groups.indices.compactMap { group in
      guard totals[group] > 0 else { return nil }
      let classes = samples.flatMap { sample -> [Int32] in
        if let numbers = sample.classes?.patches[group], !numbers.isEmpty { return numbers }
        return Array(repeating: -1, count: sample.tiles * each)
      }
      guard classes.contains(where: { $0 >= 0 }) else { return nil }
      let weight = objectives.configuration.patchClassLossWeight * objectives.groups[group].weight
      return PatchTargets(group: group, classes: classes, scale: weight / totals[group])
    }
  }

  /// The image rows of a micro-batch that have something to be near to; nil: none.
  private static func naming(
    _ samples: [TrainingSample], _ objectives: RunObjectives
  ) -> NamingTargets? {
    let each = objectives.places.count
    var naming = NamingTargets()
    var first = 0
    for sample in samples {
      defer { first += sample.tiles * each }
      guard let cells = sample.classes?.cells else { continue }
      for tile in 0..<sample.tiles {
        // In the order of the tokens.
        var targets: [(row: Int, target: [(token: Int32, share: Double)])] = []
        for cell in 0..<each {
          let shown = cells.enumerated().flatMap { group, cells in
            cells.isEmpty ? [] : cells[tile * each + cell].map { (group: group, number: $0) }
          }
          let target = objectives.target(shown)
          if !target.isEmpty {
            targets.append((first + tile * each + objectives.places[cell], target))
          }
        }
        for (row, target) in targets.sorted(by: { $0.row < $1.row }) {
          naming.append(row: row, target)
        }
      }
    }
    return naming.rows.isEmpty ? nil : naming
  }

  /// What a step came to.
  struct Losses: Equatable {
    /// All parts by their weights.
    var total: Double
    var answers: Double?
    var patchClasses: Double?
    /// Of the patches of the group `what` that show something; nil: there are none.
    var patchAccuracy: Double?
    var naming: Double?
  }

  /// The group whose patches are counted.
  static let countedGroup = "what"

  /// - Parameter answers: their loss, which counts only if it is asked for.
  func losses(answers: Double, _ found: [ObjectiveLoss]) -> Losses {
    let configuration = objectives.configuration
    // Sums in the order of the micro-batches, whoever came first.
    let found = found.sorted { $0.microBatch < $1.microBatch }
    var losses = Losses(total: 0)
    if configuration.learnsAnswers {
      losses.answers = answers
      losses.total = configuration.answerLossWeight * answers
    }
    if configuration.learnsPatchClasses {
      var sum = 0.0
      for (group, total) in totals.enumerated() where total > 0 {
        let own = found.filter { $0.group == group }
        sum += objectives.groups[group].weight * (own.reduce(0) { $0 + $1.sum } / total)
        let rows = own.reduce(0) { $0 + $1.rows }
        if objectives.groups[group].name == ObjectivePlan.countedGroup, rows > 0 {
          losses.patchAccuracy = Double(own.reduce(0) { $0 + $1.right }) / Double(rows)
        }
      }
      losses.patchClasses = sum
      losses.total += configuration.patchClassLossWeight * sum
    }
    if configuration.learnsNaming {
      let sum = found.reduce(0) { $0 + ($1.group == nil ? $1.sum : 0) }
      let loss = sum / Double(max(1, named))
      losses.naming = loss
      losses.total += namingWeight * loss
    }
    return losses
  }
}
