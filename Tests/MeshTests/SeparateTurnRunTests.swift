import Messages
import Support
import Testing
import Training
import TrainingData

@testable import Sequencer

/// Runs whose conversations are learnt turn by turn.
@Suite(.timeLimit(.minutes(3)), .serialized) struct SeparateTurnRunTests {
  private static let conversations: [([(String, String)], String)] = [
    (
      [("What is it?", "A circle."), ("Which colour?", "Red."), ("Is it round?", "Quite so.")],
      "image.jpg"
    ),
    ([("Name the colours.", "Red, green and blue."), ("And now?", "Yes.")], "second.jpg"),
    ([("How many are there?", "One.")], "image.jpg"),
    ([("Say hello.", "Hello."), ("Once more.", "Hello again.")], ""),
  ]

  private func write(_ data: RunData) throws {
    let lines = (Self.conversations + Self.conversations).map { pairs, image in
      let turns = pairs.enumerated().map { index, pair in
        let mark = index == 0 && !image.isEmpty ? "<image>\\n" : ""
        return #"{"from": "human", "value": "\#(mark)\#(pair.0)"}, "#
          + #"{"from": "gpt", "value": "\#(pair.1)"}"#
      }
      let picture = image.isEmpty ? "" : #""image": "\#(image)", "#
      return #"{\#(picture)"conversations": [\#(turns.joined(separator: ", "))]}"#
    }
    try data.write("data.jsonl", lines.joined(separator: "\n") + "\n")
  }

  @Test func `A served question has the tokens that were learnt`() async throws {
    try await withRunData { data in
      try write(data)
      let builder = try PromptBuilder(modelFolder: data.model)
      let configuration = data.configuration("out") { $0.separateTurns = 1 }
      let plan = try await DataSteps.check(configuration).steps.batch(after: 0).plan
      var compared = 0
      for microBatch in plan.microBatches {
        for (sample, rows) in zip(microBatch.samples, microBatch.sequences) {
          let (pairs, image) = Self.conversations[Int(sample.key) % Self.conversations.count]
          #expect(sample.turns.count == (image.isEmpty || pairs.count == 1 ? 0 : pairs.count))
          guard !sample.turns.isEmpty else { continue }
          let files = try GoldenModel.tiny.pictures(image).map(\.tensor)
          var start = rows.upperBound - sample.turns.reduce(0, +)
          let prefix = microBatch.ids[rows.lowerBound..<start]
          for ((question, answer), turn) in zip(pairs, sample.turns) {
            let prompt = try builder.build(turns: [.user(question)], files: files)
            let rows = Array(prefix) + microBatch.ids[start..<start + turn]
            #expect(Array(rows.prefix(prompt.tokens.count)) == prompt.tokens)
            // What follows is the answer, and what ends it.
            let text = builder.tokenizer.decode(
              rows.dropFirst(prompt.tokens.count).dropLast().map { Int($0) })
            #expect(text == answer)
            #expect(try builder.endTokens.contains(#require(rows.last)))
            // The first token of the answer is learnt at the end of the question.
            #expect(
              microBatch.labels[start + prompt.tokens.count - prefix.count - 1]
                == rows[prompt.tokens.count])
            start += turn
            compared += 1
          }
        }
      }
      #expect(compared == 10)
    }
  }

  @Test(arguments: [0.5, 1]) func `A run in a mesh has the bits of a run in one process`(
    _ share: Double
  ) async throws {
    try await withRunData { data in
      try write(data)
      func change(_ configuration: inout TrainingConfiguration) {
        configuration.separateTurns = share
        configuration.pack = true
      }
      let expected = try await data.expected(change)
      #expect(expected.losses.count == 3)
      let whole = data.configuration("whole") { $0.pack = true }
      try await data.run(whole)
      #expect(try RunBits(whole).losses[0] != expected.losses[0])
      let plan = RunPlan(
        vision: [0..<2, 2..<3], language: [[0..<2], [2..<3]], schedule: .zeroBubble)
      let configuration = data.configuration("mesh") {
        change(&$0)
        $0.schedule = plan.schedule
        $0.recompute = plan.recompute
      }
      _ = try await withRunMesh(plan) { mesh in
        try await data.run(configuration, on: mesh.session.stages)
      }
      #expect(try RunBits(configuration) == expected)
    }
  }
}
