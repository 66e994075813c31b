import Training

/// What values of a mesh file may look like.
extension ComposeReader {
  /// A map's entries by key; keys that start with `x-` are dropped, unknown ones refused.
  func fields(
    of tree: YAMLTree, _ owner: String, known: Set<String>
  ) throws(MeshError) -> [String: YAMLTree.Entry] {
    var result: [String: YAMLTree.Entry] = [:]
    for entry in try mapping(tree, owner) where !entry.key.hasPrefix("x-") {
      guard known.contains(entry.key) else {
        let nearest = NearestName.of(entry.key, in: known)
        throw error(entry.line, .unknownKey(entry.key, of: owner, nearest: nearest))
      }
      result[entry.key] = entry
    }
    return result
  }

  /// Keys of a map whose values are of no interest here.
  func names(_ tree: YAMLTree, _ key: String) throws(MeshError) -> [String] {
    if tree.isNull { return [] }
    return try mapping(tree, key).map(\.key)
  }

  func mapping(_ tree: YAMLTree, _ key: String) throws(MeshError) -> [YAMLTree.Entry] {
    guard case .mapping(let entries) = tree.content else { throw wrongType(tree, key, "a map") }
    return entries
  }

  func sequence(_ tree: YAMLTree, _ key: String) throws(MeshError) -> [YAMLTree] {
    guard case .sequence(let items) = tree.content else { throw wrongType(tree, key, "a list") }
    return items
  }

  /// Text that YAML, too, takes for text.
  func string(_ tree: YAMLTree, _ key: String) throws(MeshError) -> String {
    guard case .scalar(let text, _) = tree.content, tree.kind == "text" else {
      let expected = tree.kind == "a number" || tree.kind == "a boolean" ? "text in quotes" : "text"
      throw wrongType(tree, key, expected)
    }
    guard !text.contains("\0") else {
      throw error(
        tree.line, .invalidValue(key: key, value: "\\0", expected: "text without a zero byte"))
    }
    return text
  }

  /// Text, a number or a boolean, as text.
  func text(_ tree: YAMLTree, _ key: String) throws(MeshError) -> String {
    guard case .scalar(let text, _) = tree.content, !tree.isNull else {
      throw wrongType(tree, key, "text or a number")
    }
    guard !text.contains("\0") else {
      throw error(
        tree.line, .invalidValue(key: key, value: "\\0", expected: "text without a zero byte"))
    }
    return text
  }

  func words(_ tree: YAMLTree, _ key: String) throws(MeshError) -> [String] {
    if tree.isNull { return [] }
    switch tree.content {
    case .sequence(let items):
      var words: [String] = []
      for item in items { words.append(try string(item, key)) }
      return words
    case .scalar:
      let line = try string(tree, key)
      guard let words = ShellWords.split(line) else {
        throw error(tree.line, .unbalancedQuote(line))
      }
      return words
    case .mapping:
      throw wrongType(tree, key, "text or a list of texts")
    }
  }

  func boolean(_ tree: YAMLTree, _ key: String) throws(MeshError) -> Bool {
    let word = try text(tree, key)
    switch word.lowercased() {
    case "true": return true
    case "false": return false
    default:
      throw error(tree.line, .invalidValue(key: key, value: word, expected: "true or false"))
    }
  }

  func duration(
    _ tree: YAMLTree, _ key: String, atLeast least: Duration = .zero
  ) throws(MeshError) -> Duration {
    let word = try string(tree, key)
    guard let duration = ComposeDuration.parse(word), duration >= least else {
      throw error(
        tree.line,
        .invalidValue(key: key, value: word, expected: "a duration such as 500ms, 30s or 1m30s"))
    }
    return duration
  }

  func positive(_ tree: YAMLTree, _ key: String) throws(MeshError) -> Double {
    let word = try text(tree, key)
    guard let number = Double(word), number > 0, number.isFinite else {
      throw error(
        tree.line, .invalidValue(key: key, value: word, expected: "a number above 0"))
    }
    return number
  }

  func bytes(_ tree: YAMLTree, _ key: String) throws(MeshError) -> UInt64 {
    let word = try text(tree, key)
    let digits = word.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    let factors: [String: Double] = [
      "": 1, "b": 1, "k": 0x1p10, "kb": 0x1p10, "m": 0x1p20, "mb": 0x1p20, "g": 0x1p30,
      "gb": 0x1p30, "t": 0x1p40, "tb": 0x1p40,
    ]
    guard let number = Double(digits),
      let factor = factors[word.dropFirst(digits.count).lowercased()],
      number * factor < 0x1p62
    else {
      throw error(
        tree.line, .invalidValue(key: key, value: word, expected: "a size such as 64m or 2gb"))
    }
    return UInt64(number * factor)
  }

  static func isNamePart(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9", ".", "_", "-": true
    default: false
    }
  }

  func wrongType(_ tree: YAMLTree, _ key: String, _ expected: String) -> MeshError {
    error(tree.line, .wrongType(key: key, expected: expected, found: tree.kind))
  }

  func error(_ line: Int, _ problem: ComposeProblem) -> MeshError {
    .invalidFile(path: path, line: line, problem)
  }
}
