import Yams

/// A YAML document as a tree that remembers lines, with aliases and merge keys already expanded.
struct YAMLTree {
  enum Content {
    /// `isPlain`: written without quotes, so that `5`, `true` and `null` are not strings.
    case scalar(String, isPlain: Bool)
    case sequence([YAMLTree])
    case mapping([Entry])
  }

  struct Entry {
    var key: String
    var line: Int
    var value: YAMLTree
  }

  var content: Content
  /// Counted from 1.
  var line: Int

  static let byteLimit = 1 << 20
  static let depthLimit = 32
  static let nodeLimit = 100_000
}

extension YAMLTree {
  /// What the value is, for messages about wrong types.
  var kind: String {
    switch content {
    case .sequence: "a list"
    case .mapping: "a map"
    case .scalar(let text, let isPlain): isPlain ? Self.plainKind(text) : "text"
    }
  }

  var isNull: Bool { kind == "nothing" }

  /// YAML 1.2's core types, which Compose uses: `no` and `off` are text.
  private static func plainKind(_ text: String) -> String {
    switch text {
    case "", "~", "null", "Null", "NULL": return "nothing"
    case "true", "True", "TRUE", "false", "False", "FALSE": return "a boolean"
    default: break
    }
    guard let first = text.utf8.first, first <= UInt8(ascii: "9") else { return "text" }
    return Int(text) != nil || Double(text) != nil ? "a number" : "text"
  }
}

/// Builds a ``YAMLTree`` from text that nobody vouches for.
///
/// Yams expands aliases while it parses, without a limit, and hashes mapping keys through them.
/// So the parser gets to see no alias: each `*` is replaced by a private-use character, which
/// makes an alias a plain scalar that starts with it, and is put back afterwards. Expanding is
/// then done here, where it is counted.
struct YAMLTreeBuilder {
  private let path: String
  private var anchors: [String: YAMLTree] = [:]
  private var nodeCount = 0

  private static let star: Unicode.Scalar = "\u{E000}"

  private init(path: String) {
    self.path = path
  }

  /// - Throws: ``MeshError/invalidFile(path:line:_:)``.
  static func build(_ bytes: [UInt8], path: String) throws(MeshError) -> YAMLTree? {
    guard bytes.count <= YAMLTree.byteLimit else {
      throw .invalidFile(
        path: path, line: 1, .tooLarge(bytes: bytes.count, limit: YAMLTree.byteLimit))
    }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw .invalidFile(path: path, line: 1, .notUTF8)
    }
    try check(text, path: path)
    var masked = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      masked.append(scalar == "*" ? star : scalar)
    }
    do {
      let parser = try Parser(yaml: String(masked), encoding: .utf8)
      // Nodes refer to their anchors weakly; the parser owns them.
      return try withExtendedLifetime(parser) {
        guard let root = try parser.singleRoot() else { return nil }
        var builder = YAMLTreeBuilder(path: path)
        return try builder.tree(root, depth: 0)
      }
    } catch let error as MeshError {
      throw error
    } catch let error as YamlError {
      throw convert(error, text: text, path: path)
    } catch {
      throw .invalidFile(path: path, line: 1, .syntax("\(error)"))
    }
  }

  /// Refuses what would make the parser itself slow: very deep nesting.
  private static func check(_ text: String, path: String) throws(MeshError) {
    let columnLimit = 4 * YAMLTree.depthLimit
    var line = 1
    var prefix = 0
    var isPrefix = true
    var brackets = 0
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\n":
        line += 1
        prefix = 0
        isPrefix = true
        continue
      case "\t", "\r":
        break
      case star, "\u{0}"..<" ", "\u{7F}"..."\u{84}", "\u{86}"..."\u{9F}", "\u{FFFE}", "\u{FFFF}":
        throw .invalidFile(path: path, line: line, .controlCharacter(scalar.value))
      case "[", "{": brackets += 1
      case "]", "}": brackets = max(0, brackets - 1)
      default: break
      }
      if isPrefix {
        isPrefix = scalar == " " || scalar == "-" || scalar == "?" || scalar == ":"
        prefix += 1
      }
      if brackets > YAMLTree.depthLimit || prefix > columnLimit {
        throw .invalidFile(path: path, line: line, .tooDeep(limit: YAMLTree.depthLimit))
      }
    }
  }

  private mutating func tree(_ node: Node, depth: Int) throws(MeshError) -> YAMLTree {
    let line = node.mark?.line ?? 1
    guard depth <= YAMLTree.depthLimit else {
      throw .invalidFile(path: path, line: line, .tooDeep(limit: YAMLTree.depthLimit))
    }
    try count(1, line: line)
    var result = YAMLTree(content: .sequence([]), line: line)
    switch node {
    case .scalar(let scalar):
      let isPlain = try checkTag(scalar.tag, line: line) && scalar.style == .plain
      if isPlain, scalar.string.unicodeScalars.first == Self.star {
        return try expand(Self.unmask(scalar.string), line: line)
      }
      result.content = .scalar(Self.unmask(scalar.string), isPlain: isPlain)
    case .sequence(let sequence):
      _ = try checkTag(sequence.tag, line: line)
      var items: [YAMLTree] = []
      for item in sequence {
        items.append(try tree(item, depth: depth + 1))
      }
      result.content = .sequence(items)
    case .mapping(let mapping):
      _ = try checkTag(mapping.tag, line: line)
      result.content = .mapping(try entries(mapping, depth: depth))
    case .alias(let alias):
      return try expand("*\(alias.anchor.rawValue)", line: line)
    }
    if let anchor = node.anchor {
      anchors[Self.unmask(anchor.rawValue)] = result
    }
    return result
  }

  private mutating func entries(
    _ mapping: Node.Mapping, depth: Int
  ) throws(MeshError) -> [YAMLTree.Entry] {
    var own: [YAMLTree.Entry] = []
    var merged: [YAMLTree.Entry] = []
    var names: Set<String> = []
    for (keyNode, valueNode) in mapping {
      let line = keyNode.mark?.line ?? 1
      guard case .scalar(let scalar) = keyNode, scalar.string.unicodeScalars.first != Self.star
      else { throw .invalidFile(path: path, line: line, .complexKey) }
      try count(1, line: line)
      let key = Self.unmask(scalar.string)
      let value = try tree(valueNode, depth: depth + 1)
      guard names.insert(key).inserted else {
        throw .invalidFile(path: path, line: line, .duplicateKey(key))
      }
      if key == "<<", scalar.style == .plain {
        merged += try mergeSources(value, line: line)
      } else {
        own.append(.init(key: key, line: line, value: value))
      }
    }
    // A map's own keys win over merged ones, earlier merged ones over later.
    for entry in merged where names.insert(entry.key).inserted {
      own.append(entry)
    }
    return own
  }

  private func mergeSources(
    _ value: YAMLTree, line: Int
  ) throws(MeshError) -> [YAMLTree.Entry] {
    switch value.content {
    case .mapping(let entries): return entries
    case .sequence(let items):
      var result: [YAMLTree.Entry] = []
      for item in items {
        guard case .mapping(let entries) = item.content else {
          throw .invalidFile(path: path, line: line, .badMerge)
        }
        result += entries
      }
      return result
    case .scalar:
      throw .invalidFile(path: path, line: line, .badMerge)
    }
  }

  private mutating func expand(_ alias: String, line: Int) throws(MeshError) -> YAMLTree {
    let name = String(alias.dropFirst())
    guard var value = anchors[name] else {
      throw .invalidFile(path: path, line: line, .unknownAlias(name))
    }
    try count(value.size(limit: YAMLTree.nodeLimit), line: line)
    value.line = line
    return value
  }

  private mutating func count(_ nodes: Int, line: Int) throws(MeshError) {
    nodeCount += nodes
    guard nodeCount <= YAMLTree.nodeLimit else {
      throw .invalidFile(path: path, line: line, .tooManyNodes(limit: YAMLTree.nodeLimit))
    }
  }

  /// Whether the node has no tag of its own. Quoted text comes with YAML's string tag.
  private func checkTag(_ tag: Tag, line: Int) throws(MeshError) -> Bool {
    switch tag.description {
    case "": return true
    case Tag.Name.str.rawValue: return false
    case let other: throw .invalidFile(path: path, line: line, .tag(other))
    }
  }

  private static func unmask(_ text: String) -> String {
    guard text.unicodeScalars.contains(star) else { return text }
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      result.append(scalar == star ? "*" : scalar)
    }
    return String(result)
  }

  private static func convert(_ error: YamlError, text: String, path: String) -> MeshError {
    switch error {
    case .scanner(let context, let problem, let mark, _),
      .parser(let context, let problem, let mark, _):
      let lines = text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
      let tab = UInt8(ascii: "\t")
      if mark.line >= 1, mark.line <= lines.count,
        lines[mark.line - 1].prefix(while: { $0 == UInt8(ascii: " ") || $0 == tab }).contains(tab)
      {
        return .invalidFile(path: path, line: mark.line, .tabIndentation)
      }
      let reason = context.map { "\($0.text), \(problem)" } ?? problem
      return .invalidFile(path: path, line: mark.line, .syntax(unmask(reason)))
    case .composer(_, let problem, let mark, _):
      return .invalidFile(path: path, line: mark.line, .syntax(problem))
    case .duplicatedKeysInMapping(let keys, let context):
      return .invalidFile(
        path: path, line: max(1, context.mark.line),
        .duplicateKey(unmask(keys.first ?? "a key")))
    case .reader(let problem, _, _, _):
      return .invalidFile(path: path, line: 1, .syntax(problem))
    default:
      return .invalidFile(path: path, line: 1, .syntax("the YAML parser gave up"))
    }
  }
}

extension YAMLTree {
  /// Nodes in the tree, counted no further than just past `limit`.
  fileprivate func size(limit: Int) -> Int {
    var total = 1
    switch content {
    case .scalar: break
    case .sequence(let items):
      for item in items where total <= limit {
        total += item.size(limit: limit - total)
      }
    case .mapping(let entries):
      for entry in entries where total <= limit {
        total += 1 + entry.value.size(limit: limit - total)
      }
    }
    return total
  }
}
