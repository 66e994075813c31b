import HTTPTypes
import Hummingbird
import Messages
import Sequencer

/// Whether the process lives, whether it can answer, and what it counted.
struct HealthRoutes: Sendable {
  let gateway: GatewayService

  func register(on router: Router<GatewayContext>) {
    router.get("/health/live") { _, _ in Response(status: .ok) }
    router.get("/health/ready") { _, _ in await self.ready() }
    router.get("/health") { _, _ in await self.ready() }
    router.get("/metrics") { _, _ in
      Response(
        status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
        body: ResponseBody(
          byteBuffer: .init(string: Metrics.text(await self.gateway.describe()))))
    }
  }

  private struct Readiness: Encodable {
    struct Stage: Encodable {
      let name: String
      let address: String
      let ready: Bool
      /// Why it is not.
      let detail: String?
    }

    let ready: Bool
    /// What is in the way.
    let detail: String?
    let stages: [Stage]
  }

  private func ready() async -> Response {
    let description = await gateway.describe()
    let obstacle = gateway.obstacle
    return JSON.response(
      Readiness(
        ready: obstacle == nil, detail: obstacle,
        stages: description.stages.map {
          .init(
            name: $0.name, address: $0.address, ready: $0.ready,
            detail: $0.detail.isEmpty ? nil : $0.detail)
        }), status: obstacle == nil ? .ok : .serviceUnavailable)
  }
}

/// Numbers in Prometheus' text format; under vLLM's names where vLLM has them.
enum Metrics {
  static func text(_ gateway: GatewayDescription) -> String {
    var text = ""
    func family(
      _ name: String, _ type: String, _ help: String, _ values: [(labels: String, value: Double)]
    ) {
      guard !values.isEmpty else { return }
      text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
      for (labels, value) in values { text += "\(name)\(labels) \(value)\n" }
    }
    let model = "{model_name=\"\(escaped(gateway.model))\"}"
    family(
      "vllm:num_requests_running", "gauge", "Answers being computed.",
      [(model, Double(gateway.running))])
    family(
      "vllm:num_requests_waiting", "gauge", "Requests that wait for a place.",
      [(model, Double(gateway.waiting))])
    let known = gateway.stages.compactMap { stage in
      stage.description.map { ("{stage=\"\(escaped(stage.name))\"}", $0) }
    }
    let caches = known.filter { $0.1.cacheTokens > 0 }
    family(
      "vllm:kv_cache_usage_perc", "gauge", "Share of the fullest key-value cache in use, 0 to 1.",
      caches.map { Double($0.1.cacheTokensUsed) / Double($0.1.cacheTokens) }.max()
        .map { [(model, $0)] } ?? [])
    family(
      "chiasm_stage_up", "gauge", "Whether the stage is attached.",
      gateway.stages.map { ("{stage=\"\(escaped($0.name))\"}", $0.ready ? 1 : 0) })
    family(
      "chiasm_stage_calls_total", "counter", "Calls that the stage answered.",
      known.map { ($0.0, Double($0.1.calls)) })
    family(
      "chiasm_stage_busy_seconds_total", "counter", "Time that the stage computed.",
      known.map { ($0.0, Double($0.1.busyMicroseconds) / 1e6) })
    family(
      "chiasm_stage_sequences", "gauge", "Sequences that the stage holds.",
      known.map { ($0.0, Double($0.1.sequences)) })
    family(
      "chiasm_stage_cache_tokens", "gauge", "Positions that fit in the stage's cache.",
      caches.map { ($0.0, Double($0.1.cacheTokens)) })
    family(
      "chiasm_stage_cache_tokens_used", "gauge", "Positions in use in the stage's cache.",
      caches.map { ($0.0, Double($0.1.cacheTokensUsed)) })
    family(
      "chiasm_stage_weight_bytes", "gauge", "Bytes of the stage's weights.",
      known.map { ($0.0, Double($0.1.weightBytes)) })
    return text
  }

  private static func escaped(_ label: String) -> String {
    var text = ""
    for character in label {
      switch character {
      case "\\": text += "\\\\"
      case "\"": text += "\\\""
      case "\n": text += "\\n"
      default: text.append(character)
      }
    }
    return text
  }
}
