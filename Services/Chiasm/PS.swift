import ArgumentParser
import Mesh
import Transport

/// `chiasm ps`: the services of the running mesh.
struct PS: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ps", abstract: "Show the services of the running mesh.")

  @OptionGroup var location: MeshLocation

  func run() async throws {
    var services = try MeshState.running(in: location.runDirectory).statuses()
    let describe = ServiceProbe.transport.describe
    for index in services.indices {
      if let address = services[index].address, services[index].state == .healthy {
        services[index].stage = await describe(address, .seconds(1))
      }
    }
    Terminal.write(MeshTable.render(services, width: Terminal.width) + "\n")
  }
}

/// `chiasm down`: stops the running mesh.
struct Down: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Stop the running mesh.")

  @OptionGroup var location: MeshLocation

  func run() async throws {
    let directory = location.runDirectory
    try await MeshState.running(in: directory).stop(directory, within: .seconds(30))
    Terminal.say("stopped")
  }
}

/// `chiasm health`: asks services whether they serve.
struct Health: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Ask services whether they are healthy; fails when one is not.")

  @Argument(
    help: ArgumentHelp(
      "Addresses of services (default: all of the running mesh).", valueName: "address"))
  var addresses: [String] = []

  @OptionGroup var location: MeshLocation

  func run() async throws {
    let asked =
      addresses.isEmpty
      ? try MeshState.running(in: location.runDirectory).services.compactMap(\.address)
      : addresses
    var isHealthy = true
    for address in asked {
      do {
        try await ServiceProbe.transport.check(address, .seconds(5))
        Terminal.write("\(address) serves\n")
      } catch {
        isHealthy = false
        Terminal.write("\(address) does not serve: \(error)\n")
      }
    }
    if !isHealthy { throw ExitCode.failure }
  }
}
