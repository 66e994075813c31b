import NIOCore
import Testing

@testable import HTTPGateway

@Suite struct ChatCompletionRequestTests {
  private func decode(_ text: String) throws -> ChatCompletionRequest {
    try JSON.decode(ChatCompletionRequest.self, from: ByteBuffer(string: text))
  }

  private func failure(of text: String) -> APIError? {
    do {
      try decode(text).check(HTTPOptions(address: .unix(path: "/none")))
      return nil
    } catch {
      return error as? APIError
    }
  }

  @Test func `every field reaches the chat request`() throws {
    let request = try decode(
      """
      {"messages": [{"role": "user", "content": "x"}], "temperature": 0.5, "top_p": 0.25,
       "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5, "seed": -1, "max_tokens": 9,
       "stop": ["a", "b"], "stop_token_ids": [3], "ignore_eos": true, "logprobs": true,
       "top_logprobs": 4}
      """
    ).chatRequest([], choice: 2)
    let sampling = try #require(request.sampling)
    #expect(sampling.temperature == 0.5)
    #expect(sampling.topP == 0.25)
    #expect(sampling.topK == 7)
    #expect(sampling.minP == 0.125)
    #expect(sampling.repetitionPenalty == 1.5)
    // Each answer has a seed of its own, the first the one that was given.
    #expect(sampling.seed == 1)
    #expect(sampling.topLogprobs == 4)
    #expect(request.maxTokens == 9)
    #expect(request.stop == ["a", "b"])
    #expect(request.stopTokens == [3])
    #expect(request.ignoreEnd)
  }

  @Test func `without fields an answer is greedy, as the release's own chat`() throws {
    let request = try decode(#"{"messages": [{"role": "user", "content": "x"}]}"#)
      .chatRequest([], choice: 0)
    #expect(request.sampling?.temperature == 0)
    #expect(request.sampling?.seed == nil)
    #expect(request.sampling?.topLogprobs == nil)
    #expect(request.maxTokens == nil)
  }

  @Test func `max_completion_tokens goes before max_tokens`() throws {
    let request = try decode(#"{"messages": [], "max_tokens": 1, "max_completion_tokens": 2}"#)
    #expect(request.chatRequest([], choice: 0).maxTokens == 2)
  }

  @Test(arguments: [
    (#""temperature": -0.1"#, "temperature"), (#""temperature": 2.1"#, "temperature"),
    (#""top_p": 0"#, "top_p"), (#""top_p": 1.1"#, "top_p"), (#""min_p": 2"#, "min_p"),
    (#""top_k": -2"#, "top_k"), (#""repetition_penalty": 0"#, "repetition_penalty"),
    (#""n": 0"#, "n"), (#""n": 9"#, "n"), (#""max_tokens": 0"#, "max_tokens"),
    (#""max_completion_tokens": -1"#, "max_completion_tokens"),
    (#""logprobs": true, "top_logprobs": 21"#, "top_logprobs"),
    (#""top_logprobs": 1"#, "top_logprobs"), (#""stop": """#, "stop"),
    (#""stream_options": {"include_usage": true}"#, "stream_options"),
    (#""presence_penalty": 1"#, "presence_penalty"),
    (#""frequency_penalty": 1"#, "frequency_penalty"), (#""logit_bias": {"1": 2}"#, "logit_bias"),
    (#""response_format": {"type": "json_object"}"#, "response_format"),
    (#""tools": [{}]"#, "tools"), (#""seed": "x""#, "seed"), (#""stop": 5"#, "stop"),
  ])
  func `a field that cannot be is refused by its name`(field: String, name: String) throws {
    let text = #"{"messages": [{"role": "user", "content": "x"}], \#(field)}"#
    let refusal = try #require(failure(of: text))
    #expect(refusal.parameter == name)
    #expect(refusal.status == .badRequest)
    #expect(refusal.body.error.type == "invalid_request_error")
  }

  @Test func `what is off may be given`() {
    let text = """
      {"messages": [{"role": "user", "content": "x"}], "presence_penalty": 0, "logit_bias": {},
       "frequency_penalty": 0, "response_format": {"type": "text"}, "tools": [], "top_k": -1,
       "nobody_knows": {"deep": [1, 2]}}
      """
    #expect(failure(of: text) == nil)
  }

  @Test(arguments: ["", "{", "[]", "null", #"{"messages": 5}"#, #"{"messages": [{"role": 1}]}"#])
  func `a body of another shape is refused`(text: String) {
    #expect(failure(of: text)?.status == .badRequest)
  }

  @Test func `nesting without end costs no stack`() {
    let deep = String(repeating: "[", count: 200_000)
    #expect(failure(of: #"{"messages": "# + deep)?.status == .badRequest)
  }
}
