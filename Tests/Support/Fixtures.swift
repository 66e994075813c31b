/// Files that tests read, by their path inside `Tests/Fixtures`.
public enum Fixtures {
  public static func path(_ relative: String) -> String {
    repository("Tests/Fixtures/\(relative)")
  }

  /// What lies elsewhere in the sources, such as a model that is shipped.
  public static func repository(_ relative: String) -> String {
    "\(root)/\(relative)"
  }

  private static let root: String = {
    var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
    parts.removeLast(3)
    return parts.joined(separator: "/")
  }()
}
