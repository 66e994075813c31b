/// What a run's loss is made of, as its slices have to know.
public struct TrainingObjectives: Sendable, Equatable {
  /// Classes of which a patch has one.
  public struct Group: Sendable, Equatable {
    public var name: String
    /// What a patch of each class counts.
    public var classWeights: [Double]

    public init(name: String, classWeights: [Double]) {
      self.name = name
      self.classWeights = classWeights
    }
  }

  /// The cross-entropy of the answers. Without it no decoder layer works, and of the language model
  /// its embedding table alone is trained.
  public var answers = true
  /// The first language slice has image rows named.
  public var naming = false
  /// The last vision slice has patches classified; none: it does not.
  public var groups: [Group] = []

  public init() {}

  public init(answers: Bool = true, naming: Bool = false, groups: [Group] = []) {
    self.answers = answers
    self.naming = naming
    self.groups = groups
  }

  /// Whether anything behind the vision encoder has a part in it.
  public var reachesImageRows: Bool { answers || naming }
}
