/// Ways in which a mesh cannot be read, started, kept up or stopped.
public enum MeshError: Error, Equatable, Sendable, CustomStringConvertible {
  // Mesh files.
  case unreadableFile(path: String, reason: String)
  case invalidFile(path: String, line: Int, ComposeProblem)
  case invalidLayout(part: String, stages: Int, layers: Int)
  // Before anything runs.
  case executableNotFound(service: String, program: String, searched: [String])
  case socketPathTooLong(path: String, limit: Int)
  case unusableDirectory(path: String, reason: String)
  case directoryNotPrivate(path: String, reason: String)
  case noSpace(path: String)
  case meshRunning(directory: String, process: Int)
  // Services.
  case cannotStart(service: String, program: String, reason: String)
  case exitedEarly(service: String, ExitStatus, lines: [String])
  case notHealthy(service: String, seconds: Int, reason: String, lines: [String])
  case failed(service: String, ExitStatus, restarts: Int, lines: [String])
  // A mesh that another process runs.
  case noMesh(directory: String)
  case damagedState(path: String, reason: String)
  case didNotStop(process: Int, seconds: Int)
  case system(operation: String, reason: String)

  public var description: String {
    switch self {
    case .unreadableFile(let path, let reason):
      return "\(path) cannot be read: \(reason)"
    case .invalidFile(let path, let line, let problem):
      return line > 0 ? "\(path):\(line): \(problem)" : "\(path): \(problem)"
    case .invalidLayout(let part, let stages, let layers):
      return "the \(part) has \(layers) layers, which do not make \(stages) stages; "
        + "give a number from 1 to \(layers)"
    case .executableNotFound(let service, let program, let searched):
      return "service \(service): \(program) was found nowhere in "
        + searched.joined(separator: ":") + "; install it, or give its path in the mesh file"
    case .socketPathTooLong(let path, let limit):
      return "socket path \(path) has \(path.utf8.count) bytes, and the system takes \(limit); "
        + "choose a shorter run directory with CHIASM_RUN"
    case .unusableDirectory(let path, let reason):
      return "run directory \(path) cannot be used: \(reason); choose another with CHIASM_RUN"
    case .directoryNotPrivate(let path, let reason):
      return "run directory \(path) \(reason); chmod 700 a directory of your own, "
        + "or choose another with CHIASM_RUN"
    case .noSpace(let path):
      return "no space left to write \(path); free some, "
        + "or choose another run directory with CHIASM_RUN"
    case .meshRunning(let directory, let process):
      return "process \(process) already runs a mesh in \(directory); stop it with chiasm down, "
        + "or choose another run directory with CHIASM_RUN"
    case .cannotStart(let service, let program, let reason):
      return "service \(service): \(program) cannot be started: \(reason)"
    case .exitedEarly(let service, let status, let lines):
      return "service \(service) \(status) before it was healthy" + Self.tail(lines)
    case .notHealthy(let service, let seconds, let reason, let lines):
      return "service \(service) was not healthy after \(seconds) s: \(reason)" + Self.tail(lines)
    case .failed(let service, let status, let restarts, let lines):
      let count = restarts == 1 ? "1 restart" : "\(restarts) restarts"
      return "service \(service) \(status) after \(count); its policy allows no more"
        + Self.tail(lines)
    case .noMesh(let directory):
      return "no mesh runs in \(directory); start one with chiasm up, "
        + "or name its directory with CHIASM_RUN"
    case .damagedState(let path, let reason):
      return "\(path) is not a mesh's state: \(reason); remove it if no mesh runs there"
    case .didNotStop(let process, let seconds):
      return "the mesh's supervisor, process \(process), still runs \(seconds) s after SIGTERM"
    case .system(let operation, let reason):
      return "\(operation) failed: \(reason)"
    }
  }

  private static func tail(_ lines: [String]) -> String {
    guard !lines.isEmpty else { return "; it printed nothing" }
    return "; its last lines:\n" + lines.map { "  " + $0 }.joined(separator: "\n")
  }
}

/// How a process ended.
public enum ExitStatus: Equatable, Sendable, CustomStringConvertible {
  case code(Int)
  case signal(Int)

  public var isSuccess: Bool { self == .code(0) }

  public var description: String {
    switch self {
    case .code(let code): "exited with code \(code)"
    case .signal(let number): "was ended by signal \(number)\(Self.name(number))"
    }
  }

  private static func name(_ signal: Int) -> String {
    let names = [
      4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV",
      13: "SIGPIPE", 15: "SIGTERM",
    ]
    return names[signal].map { " (\($0))" } ?? ""
  }
}
