import ArgumentParser
import Mesh
import Synchronization

/// `chiasm up`: starts a mesh and watches over it until Ctrl-C.
struct Up: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Start a mesh, show its services, and stop it on Ctrl-C.")

  @Option(
    name: [.customShort("f"), .long],
    help: ArgumentHelp("Mesh file in Compose format.", valueName: "file"))
  var file = "compose/local.yaml"

  @Option(help: ArgumentHelp("Model folder (default: $CHIASM_MODEL).", valueName: "folder"))
  var model: String?

  @OptionGroup var location: MeshLocation

  func run() async throws {
    let directory = location.runDirectory
    var environment = Environment.current
    if let model { environment["CHIASM_MODEL"] = model }
    environment = ComposeFile.variables(environment, runDirectory: directory)
    let compose = try load(environment)
    let screen = MeshScreen()
    var options = Supervisor.Options(
      directory: directory.path, environment: environment, probe: .transport)
    options.onLine = { screen.add($0) }
    let supervisor = try Supervisor(file: compose, options: options)
    do {
      try await Interruption.cancelling {
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask { await screen.follow(supervisor) }
          group.addTask {
            try await supervisor.run { _ in
              // The mesh stays up for as long as this waits.
              while true { try await Task.sleep(for: .seconds(3600)) }
            }
          }
          defer { group.cancelAll() }
          // Following never ends the mesh; its end, or an error, does.
          while try await group.next() != nil {}
        }
      }
    } catch {
      // Ctrl-C is how a mesh is meant to end.
      guard (error as? ExitCode) == Interruption.exitCode else { throw error }
      screen.put("stopped")
    }
  }

  private func load(_ environment: [String: String]) throws -> ComposeFile {
    do {
      return try ComposeFile.load(path: file, environment: environment)
    } catch {
      if "\(error)".contains("CHIASM_MODEL") {
        Terminal.say("Give --model a model folder, or set CHIASM_MODEL to one.")
      }
      throw error
    }
  }
}

/// What `chiasm up` shows: events and the services' lines as they come, and under them, on a
/// terminal, the table of services as it is now.
private final class MeshScreen: Sendable {
  private let isLive = Terminal.outputIsShown
  /// Lines of the table on the screen, to be drawn over.
  private let shown = Mutex(0)

  func add(_ line: ServiceLine) {
    put("\(line.service)  \(line.text)")
  }

  func follow(_ supervisor: Supervisor) async {
    await withDiscardingTaskGroup { group in
      group.addTask {
        for await event in supervisor.events {
          if let text = Self.text(event) { self.put(text) }
        }
      }
      guard isLive else { return }
      group.addTask {
        while !Task.isCancelled {
          self.draw(MeshTable.render(await supervisor.snapshot(), width: Terminal.width))
          try? await Task.sleep(for: .seconds(1))
        }
      }
    }
  }

  private static func text(_ event: MeshEvent) -> String? {
    switch event {
    case .starting(let service, let process): "\(service) starts as process \(process)"
    case .healthy(let service): "\(service) is healthy"
    case .unhealthy(let service, let reason): "\(service) is unhealthy: \(reason)"
    case .exited(let service, let status): "\(service) \(status)"
    case .restarting(let service, let pause): "\(service) starts again in \(pause)"
    case .stopping(let service): "\(service) is asked to stop"
    case .stopped: nil
    case .ready: "the mesh is ready"
    }
  }

  func put(_ line: String) {
    shown.withLock { count in
      Terminal.write(erase(count) + line + "\n")
      count = 0
    }
  }

  private func draw(_ table: String) {
    shown.withLock { count in
      Terminal.write(erase(count) + table + "\n")
      count = table.split(separator: "\n", omittingEmptySubsequences: false).count
    }
  }

  /// Goes up over the table and clears from there to the end of the screen.
  private func erase(_ lines: Int) -> String {
    lines > 0 ? "\u{1B}[\(lines)A\u{1B}[J" : ""
  }
}
