#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import Checkpoint
import InternVL
import Tensors
import Training
import TrainingData
import Transport

/// One step of training, with everything that came of it: the file with which people compare it
/// to their own reference.
public struct TrainingProbe: Sendable {
  public var model: String
  /// JSON lines; pictures are found from the file's folder.
  public var samples: String
  public var learningRate: Double
  public var weightDecay: Double
  /// Largest norm of the gradient; 0: no clipping.
  public var clip: Double
  public var decay: WeightDecayGrouping
  /// How micro-batches, of a sample each, go through a mesh.
  public var schedule = ScheduleKind.oneForwardOneBackward

  public init(
    model: String, samples: String, learningRate: Double = 1e-5, weightDecay: Double = 0.05,
    clip: Double = 1, decay: WeightDecayGrouping = .all
  ) {
    self.model = model
    self.samples = samples
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    self.clip = clip
    self.decay = decay
  }

  /// Parameters fetched by one call.
  private static let fetched = 32

  /// Makes the step and writes the file.
  ///
  /// - Throws: ``TrainingRunError/unusableSamples(reason:)``,
  ///   ``TrainingRunError/unsuitableMesh(reason:)``; what the stages throw; `CheckpointError` when
  ///   the file cannot be written.
  public func run(_ stages: any TrainingStages, output: String) async throws {
    try SafetensorsWriter.write(try await tensors(stages), to: output)
  }

  /// What the file holds.
  public func tensors(
    _ stages: any TrainingStages
  ) async throws -> [(name: String, tensor: Tensor)] {
    let samples = try load()
    let batch = try StepBatch(samples.map { [$0] }, weighting: .tokens)
    var options = TrainingOptions()
    options.weightDecay = weightDecay
    options.decay = decay
    let configuration = try ModelConfiguration.load(folder: model)
    try configuration.requireFloats(folder: model, purpose: "cannot be trained")
    try await stages.placement().requireFit(configuration, options)
    let prepared = try await stages.prepare(TrainingPreparation(options: options))
    let names = prepared.held.joined().filter(\.isTrained).map(\.name)

    let outcome = try await stages.step(batch.work(step: 1, schedule: schedule))
    let norm = outcome.gradientNorm
    let gradients = try await fetch(names, .gradient, stages)
    let scale = clip > 0 ? min(1, clip / (norm + 1e-6)) : 1
    try await stages.update(
      ParameterUpdate(step: 1, learningRate: learningRate, gradientScale: scale))
    let values = try await fetch(names, .value, stages)
    let after = try await stages.step(batch.work(step: 2, schedule: schedule, forwardOnly: true))

    func number(_ value: Double) -> Tensor { Tensor([Float(value)], [1]) }
    var tensors: [(name: String, tensor: Tensor)] = [
      ("loss", number(batch.plan.loss(sums: outcome.losses.map(\.sum)))),
      ("loss_after", number(batch.plan.loss(sums: after.losses.map(\.sum)))),
      ("grad_norm", number(norm)),
    ]
    for (index, sample) in samples.enumerated() {
      let labels = Tensor(uninitialized: .int64, [sample.labels.count])
      labels.withElements(of: Int64.self) { elements in
        for (place, label) in sample.labels.enumerated() { elements[place] = Int64(label) }
      }
      tensors.append(("labels.\(index)", labels))
    }
    var seen: Set<String> = []
    for name in names where seen.insert(name).inserted {
      guard let gradient = gradients[name], let value = values[name] else {
        throw RPCError(.internal, "no stage sent the gradient of \(name)")
      }
      tensors.append(("grad.\(name)", gradient))
      tensors.append(("after.\(name)", value))
    }
    // What no stage holds, such as vision layers behind the one that is read, has no part in it.
    let folder = try CheckpointReader(folder: model)
    for name in folder.names where !seen.contains(name) {
      let stored = try folder.tensor(name)
      guard [.float32, .bfloat16].contains(stored.scalarType) else { continue }
      let value = Tensor(stored.floats, stored.shape)
      tensors.append(("grad.\(name)", Tensor(zeros: .float32, value.shape)))
      tensors.append(("after.\(name)", value))
    }
    return tensors
  }

  private func fetch(
    _ names: [String], _ what: FetchedTensor, _ stages: any TrainingStages
  ) async throws -> [String: Tensor] {
    var found: [String: Tensor] = [:]
    for start in stride(from: 0, to: names.count, by: TrainingProbe.fetched) {
      let part = Array(names[start..<min(start + TrainingProbe.fetched, names.count)])
      found.merge(try await stages.fetch(part, what)) { first, _ in first }
    }
    return found
  }

  /// All samples, through a meta file of their own.
  private func load() throws -> [TrainingSample] {
    var template = Array("/tmp/chiasm-probe-XXXXXX".utf8CString)
    let folder = template.withUnsafeMutableBufferPointer { buffer in
      buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
    }
    guard let folder else {
      throw TrainingRunError.unusableFolder(path: "/tmp", reason: String(cString: strerror(errno)))
    }
    defer { removeFolder(folder) }
    var resolved = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    guard realpath(samples, &resolved) != nil else {
      throw TrainingRunError.unusableFolder(
        path: samples, reason: String(cString: strerror(errno)))
    }
    let path = String(
      decoding: resolved.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    let root = path.split(separator: "/").dropLast().joined(separator: "/")
    let (link, metaPath) = ("\(folder)/samples.jsonl", "\(folder)/meta.json")
    symlink(path, link)
    let meta = JSONValue.object([
      (
        "samples",
        .object([
          ("root", .string("/" + root)), ("annotation", .string(link)),
        ])
      )
    ])
    try RunFolder.replace(metaPath, with: Array(meta.text.utf8))
    do {
      let source = try SampleSource(metaPath: metaPath, modelFolder: model)
      return try (0..<source.count).map { try source.load($0) }
    } catch let error as TrainingDataError {
      if case .noSamples = error {
        throw TrainingRunError.unusableSamples(
          reason: "\(samples) has no samples; give it one JSON object a line")
      }
      throw TrainingRunError.unusableSamples(
        reason: "\(error)".replacing(link, with: samples).replacing(metaPath, with: samples))
    }
  }
}
