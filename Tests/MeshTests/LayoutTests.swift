import Testing

@testable import Mesh

@Suite struct LayoutTests {
  let directory = RunDirectory(path: "/r")

  @Test func `Each stage hands on to the one after it`() throws {
    var layout = Layout(
      model: "/m", visionLayers: 45, languageLayers: 60, visionStages: 2, languageStages: 3)
    layout.threads = 2
    layout.languageArguments = ["--cache-tokens", "512"]
    let file = try layout.file(in: directory)
    let commands = Dictionary(
      uniqueKeysWithValues: file.services.map { ($0.name, $0.command.joined(separator: " ")) })
    #expect(
      commands == [
        "vision-0": "chiasm-vision --model /m --stage 0/2 --listen unix:/r/vision-0.sock "
          + "--next unix:/r/vision-1.sock --threads 2",
        "vision-1": "chiasm-vision --model /m --stage 1/2 --listen unix:/r/vision-1.sock "
          + "--next unix:/r/projector.sock --threads 2",
        "projector": "chiasm-projector --model /m --listen unix:/r/projector.sock "
          + "--next unix:/r/language-0.sock --threads 2",
        "language-0": "chiasm-language --model /m --stage 0/3 --cache-tokens 512 "
          + "--listen unix:/r/language-0.sock --next unix:/r/language-1.sock --threads 2",
        "language-1": "chiasm-language --model /m --stage 1/3 --cache-tokens 512 "
          + "--listen unix:/r/language-1.sock --next unix:/r/language-2.sock --threads 2",
        "language-2": "chiasm-language --model /m --stage 2/3 --cache-tokens 512 "
          + "--listen unix:/r/language-2.sock --threads 2",
        "gateway": "chiasm-gateway --model /m --listen unix:/r/gateway.sock "
          + "--vision unix:/r/vision-0.sock,unix:/r/vision-1.sock "
          + "--projector unix:/r/projector.sock "
          + "--language unix:/r/language-0.sock,unix:/r/language-1.sock,unix:/r/language-2.sock",
      ])
    #expect(Layout.gatewayAddress(in: directory) == "unix:/r/gateway.sock")
  }

  @Test func `The gateway waits for every stage's health`() throws {
    let file = try Layout(model: "/m", visionLayers: 1, languageLayers: 1).file(in: directory)
    let gateway = try #require(file.startOrder().last)
    #expect(gateway.name == "gateway")
    #expect(Set(gateway.dependencies.map(\.service)) == ["vision-0", "projector", "language-0"])
    #expect(gateway.dependencies.allSatisfy { $0.condition == .healthy })
    #expect(file.services.allSatisfy { $0.restart == .no })
  }

  @Test(arguments: [(0, 1), (4, 1), (1, 0), (1, 3), (-1, 1)])
  func `More stages than layers, or none, are refused`(vision: Int, language: Int) {
    let layout = Layout(
      model: "/m", visionLayers: 3, languageLayers: 2, visionStages: vision,
      languageStages: language)
    let expected: MeshError =
      (1...3).contains(vision)
      ? .invalidLayout(part: "language model", stages: language, layers: 2)
      : .invalidLayout(part: "vision encoder", stages: vision, layers: 3)
    #expect(throws: expected) { try layout.file(in: directory) }
  }
}

@Suite struct MeshTableTests {
  let services = [
    ServiceStatus(
      name: "vision-0", state: .healthy, process: 4711, restarts: 1, residentBytes: 1_740_000_000,
      cpuLoad: 1.94, uptimeSeconds: 3725,
      stage: StageFacts(
        role: "vision", firstLayer: 0, endLayer: 23, layerCount: 45, device: "cpu",
        weightBytes: 6_000_000_000)),
    ServiceStatus(name: "gateway", state: .waiting),
  ]

  @Test func `A wide table shows everything`() {
    #expect(
      MeshTable.render(services, width: 120)
        == """
        SERVICE   STATE    HOLDS               WEIGHTS    MEMORY  CPU  RESTARTS    UP   PID
        vision-0  healthy  vision 0–22 of 45  5.59 GiB  1.62 GiB  1.9         1  1h2m  4711
        gateway   waiting  –                         –         –    –         0     –     –
        """)
  }

  @Test(arguments: [0, 1, 10, 17, 18, 40, 60, 79, 80])
  func `No line is wider than asked`(width: Int) {
    let table = MeshTable.render(services, width: width)
    #expect(table.split(separator: "\n", omittingEmptySubsequences: false).count == 3)
    for line in table.split(separator: "\n") { #expect(line.count <= width) }
  }

  @Test func `A narrow table keeps names, states and memory`() {
    #expect(
      MeshTable.render(services, width: 30)
        == """
        SERVICE   STATE      MEMORY
        vision-0  healthy  1.62 GiB
        gateway   waiting         –
        """)
  }

  @Test func `A very narrow table cuts names`() {
    #expect(
      MeshTable.render(services, width: 14)
        == """
        SERV…  STATE
        visi…  healthy
        gate…  waiting
        """)
  }

  @Test func `A service that ended says how`() {
    let table = MeshTable.render(
      [ServiceStatus(name: "a", state: .failed, lastExit: "exited with code 3")], width: 80)
    #expect(table.contains("failed: exited with code 3"))
  }

  @Test func `An empty mesh is a head line`() {
    #expect(MeshTable.render([], width: 80).hasPrefix("SERVICE  STATE"))
  }

  @Test(
    arguments: [
      (0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1024, "1.00 KiB"), (10_240, "10.0 KiB"),
      (1_048_000, "1.00 MiB"), (1 << 30, "1.00 GiB"), (80 << 30, "80.0 GiB"),
      (UInt64.max, "16777216 TiB"),
    ] as [(UInt64, String)])
  func `Sizes have three digits`(count: UInt64, text: String) {
    #expect(MeshTable.bytes(count) == text)
  }

  @Test(
    arguments: [
      (0.9, "0s"), (59.9, "59s"), (61, "1m1s"), (3600, "1h0m"), (90_000, "1d1h"), (-1, "–"),
      (.infinity, "–"), (.nan, "–"),
    ] as [(Double, String)])
  func `Times have two units`(seconds: Double, text: String) {
    #expect(MeshTable.time(seconds) == text)
  }
}
