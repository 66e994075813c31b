import Logging
import Messages
import Threads
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
    /// Told once, when the answer is no longer the scheduler's.
    let ended: @Sendable () -> Void
    var isUnderWay = false
  }

  private let send: Send
  private let limits: GatewayLimits
  private let stepsAtOnce: Int
  /// Where steps are composed, sent and taken in: an answer to a step wakes this thread sooner
  /// than one of Swift's own, and does not queue behind what else the gateway does.
  private let thread = DedicatedThread(name: "steps")
  private var answers: [UInt64: Answer] = [:]
  /// Ids in the order in which they last had a turn.
  private var turns: [UInt64] = []
  /// Steps under way, by the number of the worker that carries each out.
  private var underWay: [Int: Task<Payload<StepReply>, any Error>] = [:]
  /// Workers that wait for something to send.
  private var idle: [Int: CheckedContinuation<StepRequest?, Never>] = [:]

  init(limits: GatewayLimits, stepsAtOnce: Int, send: @escaping Send) {
    self.limits = limits
    self.stepsAtOnce = stepsAtOnce
    self.send = send
  }

  var running: Int { answers.count }

  /// Sends steps until the task is cancelled.
  func run() async {
    await withDiscardingTaskGroup { group in
      for worker in 0..<stepsAtOnce {
        group.addTask(executorPreference: thread) { await self.work(worker) }
      }
    }
  }

  /// Begins an answer whose pictures are in place.
  ///
  /// - Parameter ended: called once when the answer is over, whether it was read or not.
  /// - Returns: its events; the last one has a finish reason.
  func begin(
    _ generation: Generation, ended: @escaping @Sendable () -> Void
  ) -> AsyncThrowingStream<Payload<ChatEvent>, any Error> {
    let (stream, continuation) = AsyncThrowingStream<Payload<ChatEvent>, any Error>.makeStream()
    answers[generation.id] = Answer(
      generation: generation, events: continuation, ended: ended)
    turns.append(generation.id)
    wakeWorkers()
    return stream
  }

  /// Forgets an answer. A step that it is part of goes on without being waited for.
  func end(_ id: UInt64) {
    remove(id)?.events.finish()
    wakeWorkers()
  }

  /// Ends every answer with an error: their cached keys and values are gone.
  func failAll(_ error: RPCError) {
    for id in turns { remove(id)?.events.finish(throwing: error) }
    // They are nobody's any more, and may wait for a stage that hangs.
    for step in underWay.values { step.cancel() }
  }

  // MARK: Workers

  /// Carries out one step after the other. There is one worker for each language stage.
  private func work(_ worker: Int) async {
    while let request = await next(worker) {
      let step = Task(executorPreference: thread) { [send] in try await send(request) }
      underWay[worker] = step
      let result = await withTaskCancellationHandler {
        await step.result
      } onCancel: {
        step.cancel()
      }
      underWay[worker] = nil
      switch result {
      case .success(let reply): accept(reply, of: request)
      case .failure(let error): fail(request, Scheduler.plain(error))
      }
      wakeWorkers()
    }
  }

  /// The next step to send, when there is one; nil when the task is cancelled.
  private func next(_ worker: Int) async -> StepRequest? {
    if Task.isCancelled { return nil }
    if let request = compose(at: worker) { return request }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { idle[worker] = $0 }
    } onCancel: {
      Task { await self.dismiss(worker) }
    }
  }

  private func dismiss(_ worker: Int) {
    idle.removeValue(forKey: worker)?.resume(returning: nil)
  }

  private func wakeWorkers() {
    while let worker = idle.keys.min(), let request = compose(at: worker) {
      idle.removeValue(forKey: worker)?.resume(returning: request)
    }
  }

  /// A step of the answers that waited longest: decoding ones share the stages evenly, prompts
  /// fill what the token budget leaves.
  private func compose(at worker: Int) -> StepRequest? {
    let waiting = turns.filter { answers[$0]?.isUnderWay == false }
    guard !waiting.isEmpty else { return nil }
    let free = max(1, stepsAtOnce - underWay.keys.count { $0 != worker })
    let share = (waiting.count + free - 1) / free
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

  // MARK: Results

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
      guard (result.token != nil) == step.sample else {
        fail(
          id, answer,
          RPCError(.internal, "a language stage sampled where it should not, or did not"))
        continue
      }
      let event = answer.generation.accept(result, of: step.tokens.count)
      // Captured logits go out as they come: a long prompt has more chunks than an event tensors.
      if event != nil || !reply.tensors.isEmpty {
        // A reader that takes its time must not keep the stage's arena.
        let tensors = reply.tensors.isEmpty ? [] : reply.outOfArena().tensors
        answer.events.yield(Payload(event ?? ChatEvent(), tensors: tensors))
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
        remove(id)?.events.finish()
      }
    }
  }

  private func fail(_ request: StepRequest, _ error: any Error) {
    for step in request.steps {
      if let answer = answers[step.sequence] { fail(step.sequence, answer, error) }
    }
  }

  /// A lost connection as the one who asked should read it.
  private static func plain(_ error: any Error) -> any Error {
    guard let error = error as? RPCError, error.code == .unavailable else { return error }
    return RPCError(
      .unavailable, "a language stage went away in mid-answer (\(error.message)); ask again")
  }

  private func fail(_ id: UInt64, _ answer: Answer, _ error: any Error) {
    remove(id)
    answer.events.finish(throwing: error)
  }

  @discardableResult
  private func remove(_ id: UInt64) -> Answer? {
    turns.removeAll { $0 == id }
    let answer = answers.removeValue(forKey: id)
    answer?.ended()
    return answer
  }
}
