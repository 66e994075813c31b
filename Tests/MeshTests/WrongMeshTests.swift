import Messages
import Sequencer
import Testing
import Transport

/// Stages that do not make up the model are never asked for an answer.
@Suite(.timeLimit(.minutes(1))) struct WrongMeshTests {
  struct Mistake: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let plan: MeshPlan
    /// Words of the error that name the obstacle.
    let words: [String]

    init(_ description: String, _ words: [String], _ change: (inout MeshPlan) -> Void) {
      testDescription = description
      self.words = words
      var plan = MeshPlan(visionStages: 2, languageStages: 2)
      plan.limits.stageWait = .milliseconds(50)
      plan.waitsForStages = false
      change(&plan)
      self.plan = plan
    }
  }

  static let mistakes = [
    Mistake("language gap", ["language-1", "begins at layer 2", "expected 1"]) {
      $0.language = [0..<1, 2..<3]
    },
    Mistake("language overlap", ["language-1", "begins at layer 1", "expected 2"]) {
      $0.language = [0..<2, 1..<3]
    },
    Mistake("language end missing", ["language", "end at layer 2 of 3"]) {
      $0.language = [0..<1, 1..<2]
    },
    Mistake("language beginning missing", ["language-0", "begins at layer 1", "expected 0"]) {
      $0.language = [1..<2, 2..<3]
    },
    Mistake("vision gap", ["vision-1", "begins at layer 2", "expected 1"]) {
      $0.vision = [0..<1, 2..<3]
    },
    Mistake("vision overlap", ["vision-1", "begins at layer 0", "expected 3"]) {
      $0.vision = [0..<3, 0..<3]
    },
    Mistake("vision end missing", ["vision", "end at layer 2 of 3"]) { $0.vision = [0..<2] },
    Mistake("another model in one stage", ["different models"]) {
      $0.models["projector"] = .sharded
    },
    Mistake("another model in the gateway", ["different models"]) {
      $0.models["gateway"] = .sharded
    },
    Mistake("a stage that is not there", ["projector", "not ready"]) {
      $0.absent = ["projector"]
    },
  ]

  @Test(arguments: mistakes)
  func `A mistake is UNAVAILABLE and named`(_ mistake: Mistake) async throws {
    try await withMesh(mistake.plan) { mesh in
      for name in mesh.stages.keys where !mistake.plan.absent.contains(name) {
        try await mesh.sees(name, ready: true)
      }
      let error = await status { _ = try await mesh.client.ask([.user("Hello")]) }
      #expect(error?.code == .unavailable)
      for word in mistake.words {
        #expect(error?.message.contains(word) == true, "\(error?.message ?? "") lacks \(word)")
      }
      let health = try await mesh.channel.call(Methods.Health.check, HealthCheckRequest())
      #expect(health.message.status == .notServing)
      #expect(try await mesh.client.describe().waiting == 0)
    }
  }

  @Test(arguments: ["vision-0", "projector", "language-0"])
  func `A stage at the place of another is UNAVAILABLE and named`(_ place: String) async throws {
    try await withMesh { mesh in
      var addresses = mesh.addresses
      var limits = GatewayLimits()
      limits.stageWait = .milliseconds(50)
      switch place {
      case "vision-0": addresses.vision[0] = addresses.projector
      case "projector": addresses.projector = addresses.language[0]
      default: addresses.language[0] = addresses.vision[0]
      }
      let gateway = try GatewayHost(
        mesh.directory.socket("other"), model: .tiny, addresses: addresses, limits: limits)
      let client = ChatClient(gateway.endpoint)
      try await eventually("every stage is attached") {
        try await client.describe().stages.allSatisfy(\.ready)
      }
      let error = await status { _ = try await client.ask([.user("Hello")]) }
      #expect(error?.code == .unavailable)
      #expect(error?.message.contains("not \(place)") == true, "\(error?.message ?? "")")
      client.close()
      await gateway.stop()
    }
  }
}
