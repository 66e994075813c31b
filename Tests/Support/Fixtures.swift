/// Files that tests read, by their path inside `Tests/Fixtures`.
public enum Fixtures {
  public static func path(_ relative: String) -> String {
    "\(root)/\(relative)"
  }

  private static let root: String = {
    var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
    parts.removeLast(2)
    return (parts + ["Fixtures"]).joined(separator: "/")
  }()
}
