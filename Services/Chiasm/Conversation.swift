import Messages
import Sequencer
import Transport

/// A conversation in the terminal: turns, pictures, and the answers as they stream.
struct Conversation {
  private let chat: ChatClient
  private let settings: ChatSettings
  /// The system turn, if there is one.
  private let opening: [ChatTurn]
  private var turns: [ChatTurn]
  private var pictures: [Attachment] = []
  /// Pictures that go with the next turn.
  private var pending: [Attachment]

  init(
    chat: ChatClient, settings: ChatSettings, opening: [ChatTurn], pictures: [Attachment]
  ) {
    self.chat = chat
    self.settings = settings
    self.opening = opening
    turns = opening
    pending = pictures
  }

  static let help = """
    /image PATH  show a picture with your next words
    /reset       forget the conversation
    /help        this list
    /quit        leave (so does Ctrl-D)
    """

  /// Talks until the input ends.
  mutating func run() async throws {
    let editor = LineEditor()
    Terminal.say("Ask about pictures; /help lists the commands.")
    while let line = try await editor.read(prompt: "> ") {
      let words = line.drop { $0 == " " }
      if words.isEmpty { continue }
      if words.first == "/" {
        if !command(String(words)) { return }
        continue
      }
      do {
        try await ask(String(words))
      } catch let error as RPCError {
        // The turn is taken back, so that the person can try again.
        Terminal.complain("\(error)")
      }
    }
  }

  /// - Returns: false when the person wants to leave.
  private mutating func command(_ line: String) -> Bool {
    let parts = line.split(separator: " ", maxSplits: 1)
    switch parts[0] {
    case "/image" where parts.count == 2:
      do {
        pending.append(try PictureFile.read(String(parts[1])))
        Terminal.say("picture \(pictures.count + pending.count) goes with your next words")
      } catch {
        Terminal.complain("\(error)")
      }
    case "/image": Terminal.complain("/image needs a path")
    case "/reset":
      turns = opening
      pictures = []
      pending = []
      Terminal.say("a new conversation")
    case "/help": Terminal.say(Conversation.help)
    case "/quit", "/exit": return false
    default: Terminal.complain("\(parts[0]) is no command; /help lists them")
    }
    return true
  }

  private mutating func ask(_ words: String) async throws {
    let placeholders = String(repeating: "<image>\n", count: pending.count)
    let asked = turns + [ChatTurn(role: "user", text: placeholders + words)]
    let shown = pictures + pending
    let result = try await chat.ask(asked, pictures: shown, settings: settings) {
      Terminal.writeAnswer($0)
    }
    Terminal.write("\n")
    turns = asked + [ChatTurn(role: "assistant", text: result.text)]
    pictures = shown
    pending = []
  }
}
