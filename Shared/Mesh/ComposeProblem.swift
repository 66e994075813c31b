/// What can be wrong with a mesh file. ``MeshError/invalidFile(path:line:_:)`` says where.
public enum ComposeProblem: Error, Equatable, Sendable, CustomStringConvertible {
  // The file as bytes and as YAML.
  case tooLarge(bytes: Int, limit: Int)
  case notUTF8
  case controlCharacter(UInt32)
  case tabIndentation
  case tooDeep(limit: Int)
  case tooManyNodes(limit: Int)
  case syntax(String)
  case unknownAlias(String)
  case tag(String)
  case complexKey
  case duplicateKey(String)
  case badMerge
  // Variables.
  case badInterpolation(String, reason: String)
  case requiredVariable(String, message: String)
  // The file as a mesh.
  case unknownKey(String, of: String, nearest: String?)
  case wrongType(key: String, expected: String, found: String)
  case invalidValue(key: String, value: String, expected: String)
  case missingKey(String, of: String)
  case unbalancedQuote(String)
  case noServices
  case invalidServiceName(String)
  case unknownDependency(String, nearest: String?)
  case dependencyCycle([String])
  case unknownVolume(String)
  case unknownNetwork(String)

  public var description: String {
    switch self {
    case .tooLarge(let bytes, let limit):
      "the file has \(bytes) bytes; a mesh file has at most \(limit)"
    case .notUTF8:
      "the file is not UTF-8; save it as UTF-8"
    case .controlCharacter(let scalar):
      "character U+\(String(scalar, radix: 16, uppercase: true)) is not allowed; remove it"
    case .tabIndentation:
      "a tab indents this line; YAML wants spaces"
    case .tooDeep(let limit):
      "nested deeper than \(limit) levels"
    case .tooManyNodes(let limit):
      "the file has more than \(limit) values, counting each alias as what it stands for"
    case .syntax(let problem):
      "not YAML: \(problem)"
    case .unknownAlias(let name):
      "alias *\(name) names no anchor; write &\(name) before the value it stands for"
    case .tag(let tag):
      "tag \(tag) is not supported; remove it"
    case .complexKey:
      "a key must be plain text, not a list, a map or an alias"
    case .duplicateKey(let key):
      "\(key) appears twice; remove one"
    case .badMerge:
      "<< takes an alias of a map, or a list of such aliases"
    case .badInterpolation(let text, let reason):
      "\(text) is no variable: \(reason); write $$ for a dollar sign"
    case .requiredVariable(let name, let message):
      message.isEmpty
        ? "variable \(name) is required; set it" : "variable \(name) is required: \(message)"
    case .unknownKey(let key, let owner, let nearest):
      "\(owner) has no key \(key)" + Self.suggestion(nearest)
    case .wrongType(let key, let expected, let found):
      "\(key) must be \(expected), not \(found)"
    case .invalidValue(let key, let value, let expected):
      "\(key) is \"\(value)\"; it must be \(expected)"
    case .missingKey(let key, let owner):
      "\(owner) needs the key \(key)"
    case .unbalancedQuote(let text):
      "a quote or backslash in \(text) has no end"
    case .noServices:
      "no services; a mesh has at least one under services:"
    case .invalidServiceName(let name):
      "\"\(name)\" is no service name; use letters, digits, '.', '_' and '-'"
    case .unknownDependency(let name, let nearest):
      "depends_on names \(name), which is no service here" + Self.suggestion(nearest)
    case .dependencyCycle(let names):
      "services wait for each other: \(names.joined(separator: " → ")); remove one dependency"
    case .unknownVolume(let name):
      "volume \(name) is not declared; add it under volumes:"
    case .unknownNetwork(let name):
      "network \(name) is not declared; add it under networks:"
    }
  }

  private static func suggestion(_ nearest: String?) -> String {
    nearest.map { "; did you mean \($0)?" } ?? ""
  }
}
