/// Ways in which training data cannot be used.
public enum TrainingDataError: Error, Equatable, Sendable {
  /// A file cannot be opened or read.
  case unreadableFile(path: String, reason: String)
  /// A file is larger than any honest one, or has too many lines.
  case oversizedFile(path: String, found: Int, limit: Int, unit: String)
  /// A file is another than it was when its lines were counted.
  case changedFile(path: String)
  /// A meta file is no JSON. Line and column are counted from 1.
  case invalidMeta(path: String, line: Int, column: Int, reason: String)
  /// A data set of a meta file lacks a key.
  case missingKey(path: String, dataset: String, key: String)
  /// A key of a data set has another value than it can have.
  case invalidKey(path: String, dataset: String, key: String, found: String, expected: String)
  /// A meta file without data sets, or data without samples.
  case noSamples(path: String)
  /// A class list is no such list, or not one for the model.
  case invalidClasses(path: String, reason: String)
  /// Repetitions make more samples than can be numbered in memory.
  case tooManySamples(path: String, dataset: String, lines: Int, times: Int, limit: Int)
  /// The annotation file of a data set is in none of the places looked at.
  case missingAnnotation(path: String, dataset: String, places: [String])
  /// The model folder does not go with training.
  case unusableModel(folder: String, reason: String)
  /// One sample cannot be used.
  case sample(SampleFlaw)
  /// Some samples cannot be used, and nobody said to leave them out.
  case flawedSamples(count: Int, total: Int, first: [SampleFlaw])
  case invalidOption(name: String, found: String, expected: String)
  /// The machine has no thread to read with.
  case noThread(reason: String)
}

extension TrainingDataError: CustomStringConvertible {
  public var description: String {
    func shown(_ path: String) -> String { Clip.path(path) }
    func text(_ data: String) -> String { Clip.text(data) }
    switch self {
    case .unreadableFile(let path, let reason):
      return "\(shown(path)) cannot be read: \(reason)"
    case .oversizedFile(let path, let found, let limit, let unit):
      return "\(shown(path)) has \(found) \(unit); at most \(limit) are read. Is it the right "
        + "file?"
    case .changedFile(let path):
      return "\(shown(path)) was changed while it was in use; start anew, and leave it "
        + "alone meanwhile"
    case .invalidMeta(let path, let line, let column, let reason):
      return "\(shown(path)):\(line):\(column): \(text(reason)); a meta file is a JSON object of "
        + "data sets, each with root and annotation"
    case .missingKey(let path, let dataset, let key):
      return "\(shown(path)): the data set \(text(dataset)) lacks \(text(key)); add it"
    case .invalidKey(let path, let dataset, let key, let found, let expected):
      return "\(shown(path)): \(text(key)) of the data set \(text(dataset)) is \(text(found)), "
        + "expected \(expected)"
    case .noSamples(let path):
      return "\(shown(path)) names no samples; a meta file names data sets with annotation files "
        + "that have a line for each sample"
    case .invalidClasses(let path, let reason):
      return "\(shown(path)) is no list of classes that can be used: \(reason)"
    case .tooManySamples(let path, let dataset, let lines, let times, let limit):
      let many = times > 1 ? "\(lines) lines \(times) times" : "\(lines) lines"
      return "\(shown(path)): with \(many) of the data set \(text(dataset)) there are more "
        + "than \(limit) samples, which memory is not made for; lower repeat_time"
    case .missingAnnotation(let path, let dataset, let places):
      return "\(shown(path)): the annotation of the data set \(text(dataset)) is not there; "
        + "looked at "
        + places.map(shown).joined(separator: " and ")
    case .unusableModel(let folder, let reason):
      return "the model in \(folder) cannot be trained on this: \(reason)"
    case .sample(let flaw):
      return flaw.description
    case .flawedSamples(let count, let total, let first):
      let more = count - first.count
      return "\(count) of \(total) samples cannot be used:\n"
        + first.map { "  \($0)\n" }.joined()
        + (more > 0 ? "  and \(more) more\n" : "")
        + "Correct them (chiasm data check lists all), or leave them out with --skip-bad."
    case .invalidOption(let name, let found, let expected):
      return "\(name) is \(text(found)), expected \(expected)"
    case .noThread(let reason):
      return "no thread to read data with could be started (\(reason)); end other processes, or "
        + "raise the limit that `ulimit -u` shows"
    }
  }
}
