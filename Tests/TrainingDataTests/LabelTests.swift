import Checkpoint
import Support
import Testing

@testable import TrainingData

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

@Suite struct LabelTests {
  struct Expected: Decodable {
    struct Train: Decodable {
      var input_ids: [[Int32]]
      var labels: [[Int32]]
    }
    var train: Train
  }

  @Test(arguments: ["v12-tiny", "v12-sharded-bf16"])
  func `the golden samples have the reference's ids and labels`(_ name: String) throws {
    let folder = try DataFolder()
    let golden = Fixtures.path("golden/\(name)")
    let meta = try folder.write(
      "meta.json",
      #"{"golden": {"root": "\#(golden)", "annotation": "\#(golden)/samples.jsonl", "length": 2}}"#)
    let source = try SampleSource(metaPath: meta, modelFolder: "\(golden)/checkpoint")
    let expected = try JSONDecoder().decode(
      Expected.self, from: Data(contentsOf: URL(filePath: "\(golden)/expected.json"))
    ).train
    #expect(source.count == expected.input_ids.count)
    let width = try #require(expected.input_ids.first).count
    for index in 0..<source.count {
      let sample = try source.load(index)
      // The reference pads a batch's samples to one length.
      let padding = width - sample.ids.count
      #expect(sample.ids + Array(repeating: 0, count: padding) == expected.input_ids[index])
      #expect(sample.labels + Array(repeating: -100, count: padding) == expected.labels[index])
      #expect(sample.key == UInt64(index))
      #expect(sample.source.line == index + 1)
    }
  }

  @Test func `the golden picture has the reference's pixels`() throws {
    let golden = Fixtures.path("golden/v12-tiny")
    let folder = try DataFolder()
    let meta = try folder.write(
      "meta.json", #"{"a": {"root": "\#(golden)", "annotation": "\#(golden)/samples.jsonl"}}"#)
    let source = try SampleSource(metaPath: meta, modelFolder: "\(golden)/checkpoint")
    let pixels = try #require(source.load(0).pixels)
    let expected = try NPY.read("\(golden)/dump/pixels.npy")
    #expect(pixels.shape == expected.shape)
    #expect(pixels.hasSameBits(as: expected))
  }

  /// Whole prompts, each with all turns before it, would take a quarter of an hour.
  @Test(.timeLimit(.minutes(5)))
  func `a long conversation is encoded in time that grows with its length`() throws {
    let (encoder, folder) = try chineseEncoder(limit: 1 << 20)
    let turns = (0..<4000).flatMap { number in
      [
        SampleRecord.Turn(from: "human", value: "What is number \(number) of all the numbers?"),
        SampleRecord.Turn(from: "gpt", value: "It is the number \(number), and no other one."),
      ]
    }
    let encoded = try encoder.encode(
      SampleEncoder.turns(SampleRecord(conversations: turns)), tiles: [])
    let short = try encoder.encode(
      SampleEncoder.turns(SampleRecord(conversations: Array(turns[..<6]))), tiles: [])
    #expect(Array(encoded.ids.prefix(short.ids.count)) == short.ids)
    #expect(Array(encoded.labels.prefix(short.ids.count)) == short.labels)
    let end = try #require(encoded.ids.last)
    #expect(encoded.labels.count { $0 == end } == 4000)
    _ = folder
  }

  private func chineseEncoder(limit: Int) throws -> (SampleEncoder, DataFolder) {
    let labels = try JSONDecoder().decode(
      Labels.self, from: Data(contentsOf: URL(filePath: Fixtures.path("training/labels.json"))))
    let folder = try DataFolder()
    for (name, text) in labels.chineseFiles { try folder.write(name, text) }
    try folder.copy("text/prefix.model", to: "tokenizer.model")
    let model = try ModelConfiguration.load(folder: DataFolder.model)
    var language = model.language
    language.maxPositions = limit
    let configuration = try ModelConfiguration(vision: model.vision, language: language)
    let encoder = try SampleEncoder(
      modelFolder: folder.path, configuration: configuration, template: "internvl_zh",
      maxSequenceLength: limit)
    return (encoder, folder)
  }

  // MARK: Random conversations

  struct Labels: Decodable {
    struct Case: Decodable {
      struct Sample: Decodable {
        struct Turn: Decodable {
          var from: String
          var value: String
        }
        var image: [String]
        var conversations: [Turn]
      }
      var folder: String
      var template: String
      var sample: Sample
      var limit: Int
      var ids: [Int32]
      var learnt: [[Int]]
      var masked: Bool
      var wholeImages: Bool
    }
    var chineseFiles: [String: String]
    var cases: [Case]
  }

  @Test func `random conversations have the ids and labels of an account in Python`() throws {
    let labels = try JSONDecoder().decode(
      Labels.self, from: Data(contentsOf: URL(filePath: Fixtures.path("training/labels.json"))))
    let chinese = try DataFolder()
    for (name, text) in labels.chineseFiles { try chinese.write(name, text) }
    try chinese.copy("text/prefix.model", to: "tokenizer.model")
    var compared = 0
    for entry in labels.cases {
      let folder = Fixtures.path(entry.folder)
      let configuration = try ModelConfiguration.load(folder: folder)
      let encoder = try SampleEncoder(
        modelFolder: entry.template == "internvl_zh" ? chinese.path : folder,
        configuration: configuration, template: entry.template, maxSequenceLength: entry.limit)
      let record = SampleRecord(
        images: entry.sample.image,
        conversations: entry.sample.conversations.map { .init(from: $0.from, value: $0.value) })
      let tiles = [Int](repeating: 1, count: entry.sample.image.count)
      do {
        let encoded = try encoder.encode(SampleEncoder.turns(record), tiles: tiles)
        #expect(!entry.masked)
        #expect(entry.wholeImages)
        #expect(encoded.ids == entry.ids)
        var expected = [Int32](repeating: -100, count: entry.ids.count)
        for range in entry.learnt {
          for index in range[0]..<range[1] { expected[index] = entry.ids[index] }
        }
        #expect(encoded.labels == expected, "\(entry.sample)")
        compared += 1
      } catch let flaw as UnplacedFlaw {
        switch flaw.kind {
        case .cutImage: #expect(!entry.wholeImages)
        case .nothingLearnt: #expect(entry.learnt.isEmpty)
        case .tokenization: #expect(entry.masked)
        default: Issue.record("\(flaw) of \(entry.sample)")
        }
      }
    }
    #expect(compared > labels.cases.count * 3 / 4)
  }
}
