import ArgumentParser
import Checkpoint
import InternVL
import Kernels
import Mesh
import Sequencer
import Tensors
import Training

/// How a training mesh's layers are shared out.
struct TrainBalance {
  private enum How {
    case even
    case measured
    /// Layers of every vision stage, then of every slice of the language model.
    case counts([Int])
  }

  private let how: How

  /// - Throws: `ValidationError` for what is neither a word nor numbers.
  init(_ text: String) throws {
    switch text {
    case "even": how = .even
    case "auto": how = .measured
    default:
      let numbers = text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
      let counts = numbers.compactMap { $0 }
      guard counts.count == numbers.count, counts.allSatisfy({ $0 > 0 }) else {
        throw ValidationError("--balance is even, auto, or numbers of layers as in 2,1,3,3")
      }
      how = .counts(counts)
    }
  }

  /// Sets the slices of the layout.
  ///
  /// - Throws: `ValidationError`, `TrainingError` where layers and stages do not fit.
  func apply(
    to layout: inout Layout, _ model: ModelConfiguration, _ configuration: TrainingConfiguration,
    say: (String) -> Void
  ) throws {
    let slices = layout.languageStages * layout.virtualStages
    switch how {
    case .even: return
    case .counts(let counts):
      guard counts.count == layout.visionStages + slices else {
        throw ValidationError(
          "--balance has \(counts.count) numbers; \(layout.visionStages) vision stages and "
            + "\(slices) slices of the language model take \(layout.visionStages + slices)")
      }
      let vision = TrainBalance.ranges(counts.prefix(layout.visionStages))
      let language = TrainBalance.ranges(counts.dropFirst(layout.visionStages))
      guard vision.last?.upperBound == layout.visionLayers,
        language.last?.upperBound == layout.languageLayers
      else {
        throw ValidationError(
          "--balance must share out \(layout.visionLayers) vision layers and "
            + "\(layout.languageLayers) of the language model")
      }
      layout.visionSlices = vision
      layout.languageSlices = language
    case .measured:
      let costs = try StageProfile.measure(model, configuration, folder: layout.model)
      let assignment = try Balance.assign(
        vision: costs.vision, projector: costs.projector, language: costs.language,
        visionStages: layout.visionStages, languageStages: slices)
      layout.visionSlices = assignment.vision
      layout.languageSlices = assignment.language
      func text(_ ranges: [Range<Int>]) -> String {
        ranges.map { "\($0.count)" }.joined(separator: ",")
      }
      say(
        "layers by measured costs: vision \(text(assignment.vision)), language "
          + "\(text(assignment.language)); stages are \(Percent(assignment.evenness)) even")
    }
  }

  private static func ranges(_ counts: some Sequence<Int>) -> [Range<Int>] {
    var start = 0
    return counts.map { count in
      defer { start += count }
      return start..<start + count
    }
  }
}
