import Logging
import Messages
import Transport

/// Decides which tokens of which answers go through the language stages next, and sends them.
///
/// Every step takes the tokens of several answers in one pass over the weights: the last token
/// of those that are decoding, and chunks of the prompts of those that are not. As many steps
/// are under way at once as there are language stages, so that each stage has one to work on.
/// What a step is composed of changes no answer: rows are computed independently.
actor Scheduler {
  /// What the scheduler sends steps through.
  typealias Send = @Sendable (StepRequest) async throws -> Payload<StepReply>

  private struct Answer {
    var generation: Generation
    let events: AsyncThrowingStream<Payload<ChatEvent>, any Error>.Continuation
    var isUnderWay = false
  }

  private let send: Send
  private let limits: GatewayLimits
  private let stepsAtOnce: Int
  private let steps: AsyncStream<StepRequest>
  private let stepQueue: AsyncStream<StepRequest>.Continuation
  private var answers: [UInt64: Answer] = [:]
  /// Ids in the order in which they last had a turn.
  private var turns: [UInt64] = []
  private var underWay = 0

  init(limits: GatewayLimits, stepsAtOnce: Int, send: @escaping Send) {
    self.limits = limits
    self.stepsAtOnce = stepsAtOnce
    self.send = send
    (steps, stepQueue) = AsyncStream.makeStream()
  }

  var running: Int { answers.count }

  /// Sends steps until the task is cancelled.
  func run() async {
    await withDiscardingTaskGroup { group in
      for await step in steps {
        group.addTask { await self.carryOut(step) }
      }
      group.cancelAll()
    }
  }

  /// Begins an answer whose pictures are in place.
  ///
  /// - Returns: its events; the last one has a finish reason.
  func begin(_ generation: Generation) -> AsyncThrowingStream<Payload<ChatEvent>, any Error> {
    let (stream, continuation) = AsyncThrowingStream<Payload<ChatEvent>, any Error>.makeStream()
    answers[generation.id] = Answer(generation: generation, events: continuation)
    turns.append(generation.id)
    pump()
    return stream
  }

  /// Forgets an answer. A step that it is part of goes on without being waited for.
  func end(_ id: UInt64) {
    if let answer = answers.removeValue(forKey: id) { answer.events.finish() }
    turns.removeAll { $0 == id }
    pump()
  }

  /// Ends every answer with an error: their cached keys and values are gone.
  func failAll(_ error: RPCError) {
    for answer in answers.values { answer.events.finish(throwing: error) }
    answers.removeAll()
    turns.removeAll()
  }

  /// Composes steps for as long as there is something to send and a stage to work on it.
  private func pump() {
    while underWay < stepsAtOnce, let request = compose() {
      underWay += 1
      stepQueue.yield(request)
    }
  }

  /// A step of the answers that waited longest: decoding ones share the stages evenly, prompts
  /// fill what the token budget leaves.
  private func compose() -> StepRequest? {
    let waiting = turns.filter { answers[$0]?.isUnderWay == false }
    guard !waiting.isEmpty else { return nil }
    let share = max(1, (waiting.count + stepsAtOnce - underWay - 1) / (stepsAtOnce - underWay))
    var budget = limits.stepTokens
    var request = StepRequest()
    for id in waiting.prefix(share) {
      guard budget > 0, let answer = answers[id] else { break }
      let captures = answer.generation.options.captures
      // Captured logits come back as the only tensor of their step.
      if captures && !request.steps.isEmpty { continue }
      let step = answer.generation.nextStep(limit: budget)
      budget -= step.tokens.count
      request.steps.append(step)
      answers[id]?.isUnderWay = true
      if captures { break }
    }
    let taken = Set(request.steps.map(\.sequence))
    turns = turns.filter { !taken.contains($0) } + turns.filter(taken.contains)
    return request.steps.isEmpty ? nil : request
  }

  private func carryOut(_ request: StepRequest) async {
    do {
      let reply = try await send(request)
      accept(reply, of: request)
    } catch {
      let failure = Scheduler.plain(error)
      for step in request.steps {
        if let answer = answers[step.sequence] { fail(step.sequence, answer, failure) }
      }
    }
    underWay -= 1
    pump()
  }

  private func accept(_ reply: Payload<StepReply>, of request: StepRequest) {
    var results: [UInt64: SequenceResult] = [:]
    for result in reply.message.results { results[result.sequence] = result }
    for step in request.steps {
      let id = step.sequence
      guard var answer = answers[id] else { continue }
      answer.isUnderWay = false
      guard let result = results[id] else {
        fail(id, answer, RPCError(.internal, "the language stages sent no result for a sequence"))
        continue
      }
      if let code = result.errorCode {
        fail(
          id, answer,
          RPCError(
            code, result.errorMessage ?? "a language stage failed without saying why"))
        continue
      }
      let event = answer.generation.accept(result, of: step.tokens.count)
      // Captured logits go out as they come: a long prompt has more chunks than an event tensors.
      if event != nil || !reply.tensors.isEmpty {
        answer.events.yield(Payload(event ?? ChatEvent(), tensors: reply.tensors))
      }
      answers[id] = answer
      if let reason = answer.generation.finishReason {
        var last = ChatEvent()
        last.finishReason = reason.rawValue
        var usage = Usage()
        usage.promptTokens = answer.generation.prompt.tokens.count
        usage.completionTokens = answer.generation.generated.count
        usage.imageTokens = answer.generation.prompt.imageTokenCount
        last.usage = usage
        answer.events.yield(Payload(last))
        answer.events.finish()
        answers[id] = nil
        turns.removeAll { $0 == id }
      }
    }
  }

  /// A lost connection as the one who asked should read it.
  private static func plain(_ error: any Error) -> any Error {
    guard let error = error as? RPCError, error.code == .unavailable else { return error }
    return RPCError(
      .unavailable, "a language stage went away in mid-answer (\(error.message)); ask again")
  }

  private func fail(_ id: UInt64, _ answer: Answer, _ error: any Error) {
    answers[id] = nil
    turns.removeAll { $0 == id }
    answer.events.finish(throwing: error)
  }
}
