import Checkpoint
import Support
import Testing
import Text

@testable import TrainingData

@Suite struct PictureClassTests {
  static let path = Fixtures.path("objectives/classes.json")

  // MARK: The list

  @Test func `A list has its groups in order, and weights of 1 where there are none`() throws {
    let list = try PictureClasses(path: Self.path)
    #expect(list.patchSize == 14)
    #expect(list.groups.map(\.name) == ["what", "colour"])
    #expect(list.groups.map(\.weight) == [1, 0.5])
    #expect(list.groups[0].classes.map(\.weight) == [0.3, 1, 2.5])
    #expect(list.groups[1].classes.allSatisfy { $0.weight == 1 })
    #expect(list.groups[0].classes[0].words.isEmpty)
    #expect(list.groups[0].classes[2].words == ["disc", "圆"])
  }

  @Test func `It lies beside the meta file`() {
    #expect(PictureClasses.path(beside: "/data/meta.json") == "/data/classes.json")
    #expect(PictureClasses.path(beside: "meta.json") == "./classes.json")
  }

  private static func list(_ groups: String, format: String = "1", size: String = "14") -> String {
    #"{"format": \#(format), "patch_size": \#(size), "groups": \#(groups)}"#
  }

  static let wrong: [(String, String)] = [
    ("", "no JSON at byte 0"), ("[]", "it is no object"),
    (list("{}"), "groups is no object of 1 to 64"),
    (list("[]"), "groups is no object"), (list("{}", format: "2"), "format is not 1"),
    (list(#"{"a": {"classes": [{"name": "x"}]}}"#, size: "0"), "patch_size"),
    (list(#"{"a": 1}"#), "the group a: it has no list"),
    (list(#"{"a": {"classes": []}}"#), "it has no list of 1 to 65536 classes"),
    (list(#"{"a b": {"classes": [{"name": "x"}]}}"#), "letters, digits, _ and -"),
    (list(#"{"": {"classes": [{"name": "x"}]}}"#), "a name is 1 to 64"),
    (list(#"{"a": {"classes": [1]}}"#), "class 0 is no object with a name"),
    (list(#"{"a": {"classes": [{"words": []}]}}"#), "class 0 is no object with a name"),
    (list(#"{"a": {"classes": [{"name": "x", "words": "dog"}]}}"#), "words of class 0"),
    (list(#"{"a": {"classes": [{"name": "x", "words": [""]}]}}"#), "words of class 0"),
    (list(#"{"a": {"classes": [{"name": "x", "weight": -1}]}}"#), "a weight is no number"),
    (list(#"{"a": {"classes": [{"name": "x", "weight": NaN}]}}"#), "a weight is no number"),
    (list(#"{"a": {"weight": "1", "classes": [{"name": "x"}]}}"#), "a weight is no number"),
    (list(#"{"a": {"classes": [{"name": "x"}]}, "a": {}}"#), "a is there twice"),
  ]

  @Test(arguments: wrong)
  func `What is no list is refused`(_ text: String, _ reason: String) throws {
    do {
      _ = try PictureClasses(Array(text.utf8), path: "classes.json")
      Issue.record("taken: \(text)")
    } catch let error as TrainingDataError {
      #expect("\(error)".contains(reason), "\(error)")
      #expect("\(error)".contains("classes.json"))
    }
  }

  @Test func `A list that is not there is named`() {
    #expect(
      throws: TrainingDataError.unreadableFile(path: "/nowhere", reason: "there is no such file")
    ) {
      try PictureClasses(path: "/nowhere")
    }
  }

  @Test func `Words have the tokens with which an answer begins, and those behind a space`() throws
  {
    let tokenizer = try Tokenizer(folder: DataFolder.model)
    let forms = try PictureClasses(path: Self.path).forms(tokenizer)
    #expect(forms[0][0].isEmpty)
    // Latin words have two forms, the others one.
    #expect(forms[0].map(\.count) == [0, 4, 3])
    let opening = "<|im_start|>assistant\n"
    let before = try tokenizer.encode(opening).map { Int32($0) }
    for (form, text) in zip(forms[0][2], ["disc", " disc", "圆"]) {
      #expect(try tokenizer.encode(opening + text).map { Int32($0) } == before + form)
    }
  }

  // MARK: Lines

  private func options() throws -> DataOptions {
    var options = DataOptions()
    options.classes = try PictureClasses(path: Self.path)
    return options
  }

  /// A line about pictures of 56 × 56 pixels, which have 16 patches and 4 cells.
  private func line(_ keys: String, images: [String] = ["square.png"]) -> String {
    let list = images.map { #""\#($0)""# }.joined(separator: ", ")
    let marks = images.map { _ in "<image>\\n" }.joined()
    return
      #"{"image": [\#(list)], "conversations": [{"from": "human", "value": "\#(marks)What?"}, "#
      + #"{"from": "gpt", "value": "A square."}]\#(keys)}"#
  }

  private func folder() throws -> DataFolder {
    let folder = try DataFolder()
    try folder.copy("objectives/square.png", to: "square.png")
    try folder.copy("objectives/disc.png", to: "disc.png")
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    return folder
  }

  private static let patches = "[\((0..<16).map { "\($0 % 4 - 1)" }.joined(separator: ", "))]"
  private static let colours = "[\([String](repeating: "3", count: 16).joined(separator: ", "))]"

  @Test func `A sample says what its patches and cells show`() throws {
    let folder = try folder()
    let keys =
      #", "patches": {"what": \#(Self.patches)}, "#
      + #""cells": {"colour": [[], [3], [0, 2], []], "what": [[1], [], [2], [0]]}"#
    let source = try folder.source([line(keys), line("")], options: options())
    let classes = try #require(try source.load(0).classes)
    let numbers: [Int32] = (0..<16).map { Int32($0 % 4 - 1) }
    #expect(classes.patches == [numbers, []])
    let cells: [[[Int32]]] = [[[1], [], [2], [0]], [[], [3], [0, 2], []]]
    #expect(classes.cells == cells)
    #expect(try source.load(1).classes == nil)
  }

  @Test func `Of several pictures one follows the other`() throws {
    let folder = try folder()
    let keys = #", "cells": {"what": [[0],[1],[2],[],[1],[1],[],[]]}"#
    let source = try folder.source(
      [line(keys, images: ["square.png", "disc.png"])], options: options())
    #expect(try source.load(0).classes?.cells[0].count == 8)
  }

  static let flaws: [(String, [String], String)] = [
    (#", "patches": 1"#, ["square.png"], "patches is no object"),
    (#", "cells": {"what": 1}"#, ["square.png"], "cells.what is no list"),
    (#", "patches": {"what": [0.5]}"#, ["square.png"], "other entries than whole numbers"),
    (#", "cells": {"what": [1]}"#, ["square.png"], "other entries than lists of whole numbers"),
    (#", "cells": {"what": [["a"]]}"#, ["square.png"], "other entries than lists"),
    (
      #", "patches": {"what": [0, 1]}"#, ["square.png"],
      "patches.what has 2 entries, and its pictures have 16 patches"
    ),
    (
      #", "patches": {"what": \#(patches)}"#, ["square.png", "disc.png"],
      "patches.what has 16 entries, and its pictures have 32 patches"
    ),
    (
      #", "cells": {"what": [[], [], []]}"#, ["square.png"],
      "cells.what has 3 entries, and its pictures have 4 cells"
    ),
    (#", "patches": {"shape": \#(patches)}"#, ["square.png"], "the group shape"),
    (
      #", "patches": {"what": \#(colours)}"#, ["square.png"],
      "patches.what has the class 3, expected -1 to 2"
    ),
    (
      #", "cells": {"what": [[-1], [], [], []]}"#, ["square.png"],
      "cells.what has the class -1, expected 0 to 2"
    ),
    (
      #", "cells": {"what": [[1, 1], [], [], []]}"#, ["square.png"],
      "cells.what has a cell with 2 classes or one of them twice"
    ),
    (
      #", "patches": {"what": \#(patches)}"#, ["image.jpg"], "320 × 213 pixels and would be resized"
    ),
  ]

  @Test(arguments: flaws)
  func `What does not fit the pictures is a flaw, with its line`(
    _ keys: String, _ images: [String], _ detail: String
  ) throws {
    let folder = try folder()
    let flaw = try #require(try folder.flaw(line(keys, images: images), options: options()))
    #expect(flaw.kind == .invalidField)
    #expect(flaw.detail.contains(detail), "\(flaw.detail)")
    #expect(flaw.source.file.hasSuffix("a.jsonl") && flaw.source.line == 1)
    // Without a list nobody looks.
    #expect(try folder.flaw(line(keys, images: images)) == nil)
  }

  @Test func `A sample without pictures adds nothing`() throws {
    let folder = try folder()
    let source = try folder.source(
      [line(#", "patches": {"what": [0]}"#, images: [])], options: options())
    #expect(try source.load(0).classes == nil)
  }

  @Test func `Patches of another size than the model's are refused`() throws {
    let folder = try folder()
    var options = try options()
    let text = Self.list(#"{"a": {"classes": [{"name": "x"}]}}"#, size: "16")
    options.classes = try PictureClasses(Array(text.utf8), path: "classes.json")
    do {
      _ = try folder.source([line("")], options: options)
      Issue.record("taken")
    } catch let error as TrainingDataError {
      #expect("\(error)".contains("16 pixels on a side, and the model's have 14"))
    }
  }

  @Test func `Another list is other data`() async throws {
    let folder = try folder()
    func digest(_ options: DataOptions) async throws -> String {
      try await DataCheck(folder.source([line("")], options: options)).run().digest()
    }
    var other = try options()
    let text = Self.list(#"{"a": {"classes": [{"name": "x"}]}}"#)
    other.classes = try PictureClasses(Array(text.utf8), path: "classes.json")
    let digests = try await [digest(.init()), digest(options()), digest(other)]
    #expect(Set(digests).count == 3)
  }
}
