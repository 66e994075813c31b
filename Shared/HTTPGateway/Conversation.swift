import Messages
import Text
import Transport

/// A request's turns as the gateway takes them: texts with placeholders, and the pictures' files.
struct Conversation {
  private(set) var turns: [Messages.ChatTurn] = []
  private(set) var pictures: [Attachment] = []

  /// - Throws: 400, naming the message at fault.
  init(_ messages: [ChatCompletionRequest.Turn], media: PictureSource) throws {
    for (index, message) in messages.enumerated() {
      let parameter = "messages.[\(index)]"
      let role =
        switch message.role {
        case "developer": "system"
        case "system", "user", "assistant": message.role
        default:
          throw APIError.invalid(
            "\(parameter).role",
            "\(message.role) is no role here; there are system, developer, user and assistant")
        }
      turns.append(
        Messages.ChatTurn(
          role: role, text: try text(message.content, role: role, at: parameter, media)))
    }
  }

  /// Pictures take their places among the texts, unless the text has places for them itself.
  private mutating func text(
    _ content: ChatCompletionRequest.Content?, role: String, at parameter: String,
    _ media: PictureSource
  ) throws -> String {
    switch content {
    case nil:
      throw APIError.invalid("\(parameter).content", "\(parameter) has no content")
    case .text(let text): return text
    case .parts(let parts):
      let hasPlaces = parts.contains {
        if case .text(let text) = $0 { text.contains(ImagePlaceholders.placeholder) } else { false }
      }
      var text = ""
      for (index, part) in parts.enumerated() {
        switch part {
        case .text(let more): text += more
        case .picture(let url):
          guard role == "user" else {
            throw APIError.invalid(
              "\(parameter).content.[\(index)]", "only a user's message can show a picture")
          }
          do {
            pictures.append(try media.picture(url))
          } catch {
            var failure = APIError(error)
            failure.parameter = "\(parameter).content.[\(index)].image_url"
            throw failure
          }
          if !hasPlaces { text += ImagePlaceholders.placeholder + "\n" }
        }
      }
      return text
    }
  }
}
