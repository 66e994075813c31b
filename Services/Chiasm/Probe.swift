import ArgumentParser
import InternVL
import Kernels
import Logging
import Messages
import Sequencer
import Tensors
import Training
import Transport

/// `chiasm probe`: writes what the model computes for a prompt, to be compared with another
/// implementation.
struct Probe: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write everything the model computes for one prompt, or in one step of training.",
    discussion: """
      With --prompt writes pixels, vision, projector and logits (float32), input_ids and token_ids \
      (int64), and the SHA-256 of the decoded and of the resized 8-bit pixels as metadata.

      With --train takes all lines of a file of samples as one batch, makes one step of AdamW, \
      and writes loss, loss_after and grad_norm (float32 [1]), labels.I of sample I (int64), and of \
      every parameter grad.NAME, before clipping, and after.NAME (float32).
      """)

  @Option(help: ArgumentHelp("Model folder in the release format.", valueName: "folder"))
  var model: String

  @Option(help: ArgumentHelp("A JPEG or PNG; may be given again.", valueName: "file"))
  var image: [String] = []

  @Option(help: "What to say; <image> marks a picture's place, at the start where it is missing.")
  var prompt: String?

  @Option(
    help: ArgumentHelp(
      "Samples to train on, one JSON object a line, pictures beside the file.",
      valueName: "file"))
  var train: String?

  @Option(name: .customLong("lr"), help: ArgumentHelp("Of the step of training.", valueName: "x"))
  var learningRate = 1e-5

  @Option(help: ArgumentHelp("Of the step of training.", valueName: "x"))
  var weightDecay = 0.05

  @Option(
    help: ArgumentHelp("Largest norm of the gradient; 0: no clipping.", valueName: "x"))
  var clip = 1.0

  @Option(help: ArgumentHelp("What decays: all, or hf: no biases and norms.", valueName: "which"))
  var decay = WeightDecayGrouping.all

  @Option(name: .customLong("out"), help: ArgumentHelp("File to write.", valueName: "file"))
  var output: String

  @Flag(help: "Compute in this process instead of in a mesh.")
  var inProcess = false

  @Option(help: ArgumentHelp("Processes the vision encoder is split into.", valueName: "n"))
  var visionStages = 1

  @Option(help: ArgumentHelp("Processes the language model is split into.", valueName: "n"))
  var languageStages = 1

  @Option(help: ArgumentHelp("Tokens to generate.", valueName: "n"))
  var maxNewTokens = 32

  @Option(
    help: ArgumentHelp("cpu, cpu:bf16 (rounds inputs of products) or cuda:N.", valueName: "device"))
  var device = "cpu"

  @Option(help: ArgumentHelp("Threads of every process (default: all cores).", valueName: "n"))
  var threads: Int?

  func validate() throws {
    guard (prompt == nil) != (train == nil) else {
      throw ValidationError("give one of --prompt and --train")
    }
    if train != nil, !image.isEmpty { throw ValidationError("--image goes with --prompt") }
    for (name, value) in [
      ("--lr", learningRate), ("--weight-decay", weightDecay), ("--clip", clip),
    ] where !(value.isFinite && value >= 0) {
      throw ValidationError("\(name) must be 0 or more")
    }
    if inProcess && (visionStages != 1 || languageStages != 1) {
      throw ValidationError(
        "--in-process has no stages; leave --vision-stages and "
          + "--language-stages out")
    }
    for (name, value) in [
      ("--vision-stages", visionStages), ("--language-stages", languageStages),
      ("--max-new-tokens", maxNewTokens), ("--threads", threads ?? 1),
    ] where value < 1 {
      throw ValidationError("\(name) must be at least 1")
    }
  }

  func run() async throws {
    if let train { return try await probeTraining(train) }
    guard let prompt else { return }
    let turns = [ChatTurn(role: "user", text: prompt)]
    let pictures = try image.map { try PictureFile.read($0) }
    let result =
      inProcess ? try probeHere(turns, pictures) : try await probeMesh(turns, pictures)
    try result.write(to: output)
    Terminal.say("wrote \(output)")
  }

  private func probeTraining(_ samples: String) async throws {
    let probe = TrainingProbe(
      model: model, samples: samples, learningRate: learningRate, weightDecay: weightDecay,
      clip: clip, decay: decay)
    if inProcess {
      let stages = InProcessStages(
        model: model, device: device, threads: threads ?? Machine.cores)
      try await probe.run(stages, output: output)
    } else {
      let shape = MeshShape(
        model: model, visionStages: visionStages, languageStages: languageStages, device: device,
        threads: threads)
      let (model, output) = (model, output)
      try await LocalMesh.run(shape) { _, addresses in
        let session = try StageSession(
          model: model, addresses: addresses,
          logger: Logger(label: "probe") { _ in
            SwiftLogNoOpLogHandler()
          })
        do {
          try await session.stages.ready(within: .seconds(60))
          try await probe.run(session.stages, output: output)
        } catch {
          await session.close()
          throw error
        }
        await session.close()
      }
    }
    Terminal.say("wrote \(output)")
  }

  private func probeHere(_ turns: [ChatTurn], _ pictures: [Attachment]) throws -> ProbeResult {
    let builder = try PromptBuilder(modelFolder: model)
    let prompt = try builder.build(turns: turns, files: pictures.map(\.tensor))
    let model = try InternVLModel(
      folder: model, device: Devices.make(device, threads: threads ?? Machine.cores),
      cacheTokens: prompt.tokens.count + maxNewTokens)
    var vision: [Tensor] = []
    var rows: [Tensor] = []
    for picture in prompt.pictures {
      for tile in 0..<picture.pixels.shape[0] {
        let output = try model.visionOutput(picture.pixels[tile])
        vision.append(output.reshaped([1] + output.shape))
        rows.append(try model.projectorOutput(output))
      }
    }
    let projector = ProbeResult.joined(rows)
    let placeholder = prompt.pictures.isEmpty ? nil : builder.imageTokenID
    let logits = try model.prefill(
      0, ids: prompt.tokens, images: projector, placeholder: placeholder)
    var tokens = [InternVLModel.greatest(logits[prompt.tokens.count - 1])]
    while tokens.count < maxNewTokens {
      tokens.append(
        InternVLModel.greatest(try model.decode([(0, tokens[tokens.count - 1])])[0]))
    }
    return ProbeResult(
      pixels: ProbeResult.joined(prompt.pictures.map(\.pixels)),
      vision: ProbeResult.joined(vision), projector: projector, logits: logits,
      inputIDs: prompt.tokens, tokenIDs: tokens,
      decodedSHA256: prompt.pictures.map(\.decodedSHA256),
      resizedSHA256: prompt.pictures.map(\.resizedSHA256))
  }

  private func probeMesh(
    _ turns: [ChatTurn], _ pictures: [Attachment]
  ) async throws -> ProbeResult {
    let stages = MeshShape(
      model: model, visionStages: visionStages, languageStages: languageStages, device: device,
      threads: threads)
    return try await LocalMesh.run(stages) { gateway in
      let client = ChatClient(gateway)
      defer { client.close() }
      var settings = ChatSettings()
      settings.maxTokens = maxNewTokens
      settings.ignoresEnd = true
      let (result, events) = try await client.probe(turns, pictures: pictures, settings: settings)
      func tensors(_ name: String) -> [Tensor] {
        events.flatMap(\.tensors).filter { $0.name == name }.map(\.tensor)
      }
      guard let first = events.first, let logits = ProbeResult.joined(tensors("logits")) else {
        throw RPCError(.internal, "the gateway sent no logits")
      }
      return ProbeResult(
        pixels: ProbeResult.joined(tensors("pixels")),
        vision: ProbeResult.joined(tensors("vision")),
        projector: ProbeResult.joined(tensors("projector")), logits: logits,
        inputIDs: first.message.promptTokens, tokenIDs: result.tokenIDs,
        decodedSHA256: first.message.decodedSHA256,
        resizedSHA256: first.message.resizedSHA256)
    }
  }
}

extension WeightDecayGrouping: ExpressibleByArgument {}
