import Messages
import Transport

/// Ways in which a training run cannot begin, or cannot go on.
public enum TrainingRunError: Error, Sendable, CustomStringConvertible {
  case outputInUse(folder: String, step: Int)
  case outputTaken(folder: String, process: Int?)
  case notFinite(step: Int, what: String, samples: [String])
  case noProgress(step: Int, recoveries: Int, last: String)
  case notRecovered(step: Int, seconds: Int, last: String)
  /// The run that wrote the checkpoint had another model, other settings or other data.
  case otherRun(checkpoint: String, differences: [String])
  case flawedData(flaws: Int, first: [String])
  case noSamples(meta: String)
  case alreadyRunning(output: String)
  case notRunning
  case invalidRequest(reason: String)
  case diskFull(step: Int, reason: String)
  case unsuitableMesh(reason: String)
  case unusableFolder(path: String, reason: String)
  case unusableSamples(reason: String)

  public var description: String {
    switch self {
    case .outputInUse(let folder, let step):
      return "\(folder) has a checkpoint of step \(step) already; go on from it with --resume, or "
        + "give another --output"
    case .outputTaken(let folder, let process):
      let who = process.map { "process \($0)" } ?? "another process"
      return "\(who) writes a run to \(folder); wait for its end, or give another --output"
    case .notFinite(let step, let what, let samples):
      let names = samples.prefix(16).joined(separator: ", ")
      let more = samples.count > 16 ? " and \(samples.count - 16) more" : ""
      return "step \(step): \(what) is not a finite number; its samples are \(names)\(more). Look "
        + "at them and pass such steps over with --resume --on-not-finite skip; or begin a run "
        + "with a lower --learning-rate or other data: a new --output, and the last checkpoint "
        + "as --model"
    case .noProgress(let step, let recoveries, let last):
      return "step \(step) was begun \(recoveries + 1) times and lost a stage each time (\(last)); "
        + "look at the services' last lines, then go on with --resume"
    case .notRecovered(let step, let seconds, let last):
      return "step \(step): the stages were not all back after \(seconds) s (\(last)); start the "
        + "mesh again, then go on with --resume"
    case .otherRun(let checkpoint, let differences):
      return "\(checkpoint) was written by a run with \(differences.joined(separator: ", ")); "
        + "resume it with the same, or start anew with another --output"
    case .flawedData(let flaws, let first):
      let list = first.map { "\n  " + $0 }.joined()
      let more = flaws > first.count ? "\n  and \(flaws - first.count) more" : ""
      return "\(flaws) \(flaws == 1 ? "sample" : "samples") cannot be trained on:\(list)\(more)\n"
        + "`chiasm data check` shows all; --skip-bad trains without them"
    case .noSamples(let meta):
      return "\(meta) has no sample to train on"
    case .alreadyRunning(let output):
      return "a run that writes to \(output) is under way on this mesh; wait for its end, or stop "
        + "it"
    case .notRunning:
      return "no training run is under way on this mesh"
    case .invalidRequest(let reason):
      return "the request for a run cannot be read: \(reason)"
    case .diskFull(let step, let reason):
      return
        "what step \(step) has to write finds no room: \(reason). Older checkpoints are as they "
        + "were; free some space and go on with --resume, or let runs go on without with "
        + "--on-disk-full go-on"
    case .unsuitableMesh(let reason):
      return "the mesh cannot train so: \(reason)"
    case .unusableFolder(let path, let reason):
      return "\(path) cannot be used: \(reason)"
    case .unusableSamples(let reason):
      return reason
    }
  }
}

extension TrainingRunError: StatusConvertible {
  public var statusCode: StatusCode {
    switch self {
    case .outputInUse, .outputTaken, .otherRun, .flawedData, .noSamples, .alreadyRunning,
      .notRunning, .unsuitableMesh, .unusableFolder, .unusableSamples:
      .failedPrecondition
    // UNAVAILABLE would say that the gateway is gone.
    case .notFinite, .noProgress, .notRecovered: .aborted
    case .invalidRequest: .invalidArgument
    case .diskFull: .resourceExhausted
    }
  }
}

extension Error {
  /// Whether a stage went away, or came back without what it knew: everybody goes back to a
  /// checkpoint then, and tries again.
  var isStageLoss: Bool {
    guard let error = self as? RPCError else { return false }
    switch error.code {
    case .unavailable, .deadlineExceeded, .aborted, .cancelled: return true
    default: return false
    }
  }
}
