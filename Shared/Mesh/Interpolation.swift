/// Replaces variables in a value of a mesh file, by Compose's rules.
///
/// `$NAME`, `${NAME}`; `${NAME:-default}` when unset or empty, `${NAME-default}` when unset;
/// `${NAME:?message}`, `${NAME?message}` refuse the file then; `${NAME:+other}`, `${NAME+other}`
/// put `other` when the variable is set; `$$` is a dollar sign. Defaults may hold variables.
struct Interpolation {
  let environment: [String: String]
  /// Variables that were used without a default and are not set: they became empty.
  private(set) var unset: Set<String> = []

  private static let depthLimit = 8

  init(environment: [String: String]) {
    self.environment = environment
  }

  mutating func expand(_ text: String) throws(ComposeProblem) -> String {
    guard text.utf8.contains(UInt8(ascii: "$")) else { return text }
    return try expand(Substring(text), depth: 0)
  }

  private mutating func expand(_ text: Substring, depth: Int) throws(ComposeProblem) -> String {
    guard depth <= Self.depthLimit else {
      throw .badInterpolation(Self.excerpt(text), reason: "defaults are nested too deep")
    }
    var result = ""
    var rest = text
    while let dollar = rest.firstIndex(of: "$") {
      result += rest[..<dollar]
      rest = rest[dollar...]
      let start = rest
      rest = rest.dropFirst()
      switch rest.first {
      case "$":
        result += "$"
        rest = rest.dropFirst()
      case "{":
        let body = try Self.braced(&rest)
        result += try substitute(body, in: start, depth: depth)
      case let character? where Self.isStart(character):
        let name = rest.prefix(while: Self.isPart)
        rest = rest.dropFirst(name.count)
        result += value(String(name))
      default:
        throw .badInterpolation(Self.excerpt(start), reason: "no name follows the $")
      }
    }
    return result + rest
  }

  private mutating func substitute(
    _ body: Substring, in whole: Substring, depth: Int
  ) throws(ComposeProblem) -> String {
    let name = String(body.prefix(while: Self.isPart))
    guard let first = name.first, Self.isStart(first) else {
      throw .badInterpolation(Self.excerpt(whole), reason: "no name follows the brace")
    }
    var modifier = body.dropFirst(name.count)
    guard !modifier.isEmpty else { return value(name) }
    let emptyCounts = modifier.first == ":"
    if emptyCounts { modifier = modifier.dropFirst() }
    guard let operation = modifier.first, "-?+".contains(operation) else {
      throw .badInterpolation(
        Self.excerpt(whole), reason: "after the name come :-, -, :?, ?, :+ or +")
    }
    let argument = modifier.dropFirst()
    var present = environment[name]
    if emptyCounts, present?.isEmpty == true { present = nil }
    switch operation {
    case "-":
      if let present { return present }
      return try expand(argument, depth: depth + 1)
    case "?":
      guard let present else {
        throw .requiredVariable(name, message: try expand(argument, depth: depth + 1))
      }
      return present
    default:
      return present == nil ? "" : try expand(argument, depth: depth + 1)
    }
  }

  private mutating func value(_ name: String) -> String {
    if let value = environment[name] { return value }
    unset.insert(name)
    return ""
  }

  /// Takes `{…}` off the front and returns what is inside.
  private static func braced(_ rest: inout Substring) throws(ComposeProblem) -> Substring {
    var depth = 0
    for index in rest.indices {
      switch rest[index] {
      case "{": depth += 1
      case "}":
        depth -= 1
        if depth == 0 {
          let body = rest[rest.index(after: rest.startIndex)..<index]
          rest = rest[rest.index(after: index)...]
          return body
        }
      default: break
      }
    }
    throw .badInterpolation("$" + excerpt(rest), reason: "the brace has no end")
  }

  private static func excerpt(_ text: Substring) -> String {
    text.count <= 40 ? String(text) : text.prefix(40) + "…"
  }

  private static func isStart(_ character: Character) -> Bool {
    character == "_" || (character.isASCII && character.isLetter)
  }

  private static func isPart(_ character: Character) -> Bool {
    isStart(character) || (character.isASCII && character.isNumber)
  }
}
