import Messages

/// Messages of a run whose loss is more than the answers.
enum ObjectiveMessages {
  static let prepare: PrepareTrainingRequest = {
    var group = PatchClassGroup()
    (group.name, group.classWeights) = ("what", [0.3, 1, 2.5])
    var settings = ObjectiveSettings()
    settings.withoutAnswers = true
    settings.naming = true
    settings.groups = [group, PatchClassGroup()]
    var request = PrepareTrainingRequest()
    request.objectives = settings
    return request
  }()

  static let feed: FeedRequest = {
    var patches = PatchTargetsMessage()
    (patches.group, patches.patches, patches.scale) = (1, [-1, 0, 4095, .max], 1e-3)
    var naming = NamingTargetsMessage()
    (naming.rows, naming.counts, naming.tokens) = ([0, 9], [2, 1], [5, .max, 0])
    (naming.shares, naming.scale) = ([0.25, 0.75, 1], -0.5)
    var request = FeedRequest(step: 2)
    request.patchTargets = [patches, PatchTargetsMessage()]
    request.namingTargets = naming
    return request
  }()

  static let reply: TrainingStepReply = {
    var named = ObjectiveLossMessage()
    (named.microBatch, named.sum, named.rows, named.right) = (3, 1.5, 17, 4)
    var classified = named
    classified.group = 0
    var reply = TrainingStepReply()
    reply.objectives = [named, classified]
    return reply
  }()
}
