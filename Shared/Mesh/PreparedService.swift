import Glibc

/// A service whose program, address and way of being checked have been found.
struct PreparedService: Sendable {
  enum Check: Equatable, Sendable {
    /// Healthy as soon as it runs.
    case none
    /// By a command that exits with 0: path of the program, and its arguments.
    case command(program: String, arguments: [String])
    /// By the health service at the address.
    case address(String)
  }

  var service: ComposeFile.Service
  var program: String
  var directory: String?
  var address: String?
  var check: Check
  /// The intervals of the check.
  var timing: ComposeFile.Healthcheck

  /// For a service without a healthcheck of its own: loading weights may take a long while, and
  /// a process that ends in it is noticed at once anyway.
  static let defaultTiming = ComposeFile.Healthcheck(
    test: .none, interval: .seconds(5), timeout: .seconds(5), retries: 3,
    startPeriod: .seconds(900), startInterval: .milliseconds(100))

  /// - Throws: ``MeshError/executableNotFound(service:program:searched:)``,
  ///   ``MeshError/socketPathTooLong(path:limit:)``, ``MeshError/invalidFile(path:line:_:)``.
  init(
    _ service: ComposeFile.Service, file: String, directory: RunDirectory, search: ProgramSearch
  ) throws(MeshError) {
    self.service = service
    if let directory = service.workingDirectory {
      // Relative to the mesh file, as in Compose.
      let slash = file.lastIndex(of: "/").map { String(file[..<$0]) } ?? "."
      self.directory = directory.hasPrefix("/") ? directory : "\(slash)/\(directory)"
    }
    program = try search.find(service.arguments[0], service: service.name)
    address =
      service.usesStandardStreams
      ? "unix:" + directory.socketPath(service.name) : service.listenAddress
    for word in service.arguments + [address ?? ""] {
      for part in word.split(separator: ",") {
        try RunDirectory.checkLength(ofAddress: String(part))
      }
    }
    timing = service.healthcheck ?? Self.defaultTiming
    switch service.healthcheck?.test {
    case .none?: check = .none
    case .shell(let line)?: check = .command(program: "/bin/sh", arguments: ["sh", "-c", line])
    case .command(let words)?:
      if words.count == 3, words[0].split(separator: "/").last == "chiasm", words[1] == "health" {
        // The same question, without a process for each time it is asked.
        check = .address(words[2])
      } else {
        check = .command(
          program: try search.find(words[0], service: service.name), arguments: words)
      }
    case nil: check = address.map { .address($0) } ?? .none
    }
    // Asking there would fail until the deadline, and never for another reason.
    if case .address(let address) = check, !address.hasPrefix("unix:"), !address.hasPrefix("tcp:") {
      throw .invalidFile(
        path: file, line: service.line,
        .invalidValue(
          key: "address of \(service.name)", value: address,
          expected: "unix:PATH or tcp:HOST:PORT"))
    }
  }
}

/// Where programs are looked for: beside the running program, then along PATH.
struct ProgramSearch: Sendable {
  let directories: [String]

  init(own: String?, path: String?) {
    directories =
      (own.map { [$0] } ?? [])
      + (path ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":").map(String.init)
  }

  /// The directory of the running program.
  static func ownDirectory() -> String? {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    guard count > 0 else { return nil }
    let path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return path.lastIndex(of: "/").map { String(path[..<$0]) }
  }

  func find(_ program: String, service: String) throws(MeshError) -> String {
    // A name with a slash is a path already: exec says what is wrong with it.
    if program.contains("/") { return program }
    for directory in directories {
      let candidate = "\(directory)/\(program)"
      var info = stat()
      if stat(candidate, &info) == 0, info.st_mode & S_IFMT == S_IFREG,
        access(candidate, X_OK) == 0
      {
        return candidate
      }
    }
    throw .executableNotFound(service: service, program: program, searched: directories)
  }
}
