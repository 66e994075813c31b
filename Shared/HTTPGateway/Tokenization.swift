import Hummingbird
import Sequencer

/// `POST /tokenize` and `/detokenize`, as vLLM has them.
struct Tokenization: Sendable {
  let gateway: GatewayService
  let options: HTTPOptions

  private struct Text: Decodable { var prompt: String }

  private struct Tokens: Encodable {
    let count: Int
    let maxModelLen: Int
    let tokens: [Int]

    enum CodingKeys: String, CodingKey {
      case count, tokens
      case maxModelLen = "max_model_len"
    }
  }

  private struct TokenList: Decodable { var tokens: [Int] }
  private struct Prompt: Encodable { let prompt: String }

  func register(on group: some RouterMethods<GatewayContext>) {
    group.post("/tokenize") { request, _ in
      var request = request
      let body = try await request.collected(options)
      let tokens = try gateway.builder.tokenizer.encode(
        try JSON.decode(Text.self, from: body).prompt)
      return JSON.response(
        Tokens(
          count: tokens.count, maxModelLen: gateway.builder.contextLength, tokens: tokens))
    }
    group.post("/detokenize") { request, _ in
      var request = request
      let tokens = try JSON.decode(
        TokenList.self, from: try await request.collected(options)
      ).tokens
      let tokenizer = gateway.builder.tokenizer
      if let stranger = tokens.first(where: { tokenizer.token(of: $0) == nil }) {
        throw APIError.invalid("tokens", "\(stranger) is no token of this model")
      }
      return JSON.response(
        Prompt(prompt: tokenizer.decode(tokens, skippingSpecialTokens: false)))
    }
  }
}
