import ArgumentParser

@main
struct Chiasm: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chiasm",
    abstract: "Run, ask and measure InternVL models as a mesh of services.",
    subcommands: [
      Up.self, PS.self, Down.self, Health.self, Chat.self, Probe.self, RandomModelCommand.self,
      Assemble.self, Quantize.self, Compare.self, DataCommand.self, Train.self, Export.self,
      TraceCommand.self, Curve.self, Bench.self, BenchParty.self,
    ])
}
