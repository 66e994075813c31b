import InternVL
import Messages
import Training
import Transport

extension TrainingObjectives {
  /// Groups of classes at most, and classes of a group.
  private static let limits = (groups: 64, classes: 1 << 16)

  /// - Throws: INVALID_ARGUMENT for groups that no gateway of ours would send.
  init(_ settings: ObjectiveSettings) throws {
    guard settings.groups.count <= TrainingObjectives.limits.groups,
      Set(settings.groups.map(\.name)).count == settings.groups.count
    else {
      throw RPCError(
        .invalidArgument,
        "\(settings.groups.count) groups of patch classes; give each once, and at most "
          + "\(TrainingObjectives.limits.groups)")
    }
    self.init(
      answers: !settings.withoutAnswers, naming: settings.naming,
      groups: try settings.groups.map { group in
        guard !group.name.isEmpty,
          (1...TrainingObjectives.limits.classes).contains(group.classWeights.count),
          group.classWeights.allSatisfy({ $0.isFinite && $0 >= 0 })
        else {
          throw RPCError(
            .invalidArgument,
            "the group \"\(group.name)\" of \(group.classWeights.count) patch classes; give a "
              + "name, and 1 to \(TrainingObjectives.limits.classes) weights from 0 on")
        }
        return Group(name: group.name, classWeights: group.classWeights)
      })
  }
}

extension PatchTargets {
  /// - Throws: INVALID_ARGUMENT for a scale that is no number.
  init(_ message: PatchTargetsMessage) throws {
    guard message.scale.isFinite else {
      throw RPCError(.invalidArgument, "patches that count \(message.scale)")
    }
    self.init(group: message.group, classes: message.patches, scale: message.scale)
  }
}

extension NamingTargets {
  /// - Throws: INVALID_ARGUMENT for a scale or a share that is no number.
  init(_ message: NamingTargetsMessage) throws {
    guard message.scale.isFinite, message.shares.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
      throw RPCError(.invalidArgument, "image rows to be named that count \(message.scale)")
    }
    self.init()
    (rows, counts, tokens) = (message.rows, message.counts, message.tokens)
    (shares, scale) = (message.shares, message.scale)
  }
}

extension ObjectiveLossMessage {
  init(_ loss: ObjectiveLoss) {
    self.init()
    (microBatch, group, sum) = (loss.microBatch, loss.group, loss.sum)
    (rows, right) = (loss.rows, loss.right)
  }
}
