import NIOCore
import Support
import Testing

@testable import HTTPGateway

@Suite struct ConversationTests {
  private func conversation(_ messages: String) throws -> Conversation {
    let request = try JSON.decode(
      ChatCompletionRequest.self, from: ByteBuffer(string: #"{"messages": [\#(messages)]}"#))
    return try Conversation(request.messages, media: PictureSource())
  }

  private let picture =
    #"{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC"}}"#

  @Test func `pictures take their places among the words`() throws {
    let conversation = try conversation(
      """
      {"role": "user", "content": [{"type": "text", "text": "Look: "}, \(picture), \(picture),
        {"type": "text", "text": "Which is older?"}]}
      """)
    #expect(conversation.turns.map(\.text) == ["Look: <image>\n<image>\nWhich is older?"])
    #expect(conversation.pictures.count == 2)
    #expect(
      conversation.pictures[0].tensor.withElements(of: UInt8.self) { Array($0) } == [0, 1, 2])
  }

  @Test func `a text that has places itself gets no others`() throws {
    let conversation = try conversation(
      #"{"role": "user", "content": [\#(picture), {"type": "text", "text": "a <image> b"}]}"#)
    #expect(conversation.turns.map(\.text) == ["a <image> b"])
  }

  @Test func `developers speak as the system`() throws {
    let conversation = try conversation(
      #"{"role": "developer", "content": "s"}, {"role": "user", "content": "u"}"#)
    #expect(conversation.turns.map(\.role) == ["system", "user"])
  }

  @Test(arguments: [
    (#"{"role": "user"}"#, "messages.[0].content"),
    (#"{"role": "tool", "content": "x"}"#, "messages.[0].role"),
    (
      #"{"role": "assistant", "content": [{"type": "image_url", "image_url": "data:"}]}"#,
      "messages.[0].content.[0]"
    ),
    (
      #"{"role": "user", "content": [{"type": "image_url", "image_url": "data:"}]}"#,
      "messages.[0].content.[0].image_url"
    ),
  ])
  func `what cannot be is refused where it stands`(message: String, parameter: String) throws {
    #expect {
      try conversation(message)
    } throws: { error in
      (error as? APIError)?.parameter == parameter
    }
  }
}

@Suite struct PictureSourceTests {
  private func status(of url: String, _ source: PictureSource) -> Int? {
    do {
      _ = try source.picture(url)
      return nil
    } catch {
      return APIError(error).status.code
    }
  }

  @Test(arguments: [
    ("data:image/png;base64,", 400), ("data:image/png,AAEC", 400), ("data:", 400),
    ("data:image/png;base64,A", 400), ("data:image/png;base64,\u{0}", 400),
    ("data:image/png;base64,AAAAAAAAAAAAAAAA", 413), ("http://127.0.0.1/x.png", 400),
    ("https://example.org/x.png", 400), ("ftp://x", 400), ("", 400), ("file:///etc/passwd", 403),
  ])
  func `an address that holds no picture is refused`(url: String, status code: Int) {
    #expect(status(of: url, PictureSource(byteLimit: 8)) == code)
  }

  @Test func `files are read under the open folder and nowhere else`() throws {
    let folder = try TemporaryFolder()
    try folder.write([1, 2, 3], to: "open/a b.png")
    try folder.write([4], to: "closed.png")
    try folder.write([5], to: "open-too/c.png")
    try folder.link("open/out.png", to: "../closed.png")
    let source = PictureSource(folder: folder.path + "/open")
    let found = try source.picture("file://\(folder.path)/open/a%20b.png")
    #expect(found.tensor.withElements(of: UInt8.self) { Array($0) } == [1, 2, 3])
    for path in [
      "/closed.png", "/open/../closed.png", "/open/%2e%2e/closed.png", "/open/out.png",
      "/open-too/c.png", "/open/none.png", "/open/a%2", "/open/a%00.png",
    ] {
      #expect(status(of: "file://\(folder.path)\(path)", source) == 403, "\(path)")
    }
    #expect(status(of: "file:relative.png", source) == 403)
  }
}
