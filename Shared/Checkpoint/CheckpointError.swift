import Tensors

/// Ways in which a model folder cannot be read or written.
///
/// `file` is a path; `tensor` a name in a checkpoint; `neededFor` says who asked, for example
/// "this stage holds vision layers 0–8".
public enum CheckpointError: Error, Equatable, CustomStringConvertible {
  // The file system.
  case missingFolder(String)
  case notAFolder(String)
  case missingFile(String)
  case notAFile(String)
  case unreadable(file: String, reason: String)
  case tooLarge(file: String, byteCount: Int, limit: Int)
  /// The file is another than it was when its header was read.
  case changedWhileInUse(file: String)

  // JSON.
  case invalidJSON(file: String, offset: Int, reason: String)
  case duplicateName(file: String, name: String)

  // config.json and its companions.
  case missingKey(file: String, key: String)
  case wrongType(file: String, key: String, expected: String)
  case invalidValue(file: String, key: String, found: String, expected: String)
  case unsupported(file: String, key: String, found: String, supported: String)

  // safetensors.
  case truncatedHeader(file: String, headerLength: UInt64, byteCount: Int)
  case headerTooLong(file: String, headerLength: UInt64, limit: Int)
  case missingField(file: String, tensor: String, field: String)
  case unknownScalarType(file: String, tensor: String, found: String)
  case invalidShape(file: String, tensor: String, shape: [Int])
  case reversedOffsets(file: String, tensor: String, begin: Int, end: Int)
  case overlappingOffsets(file: String, tensor: String, begin: Int, previousEnd: Int)
  case hole(file: String, tensor: String, begin: Int, previousEnd: Int)
  case offsetsBeyondData(file: String, tensor: String, end: Int, dataByteCount: Int)
  case trailingData(file: String, end: Int, dataByteCount: Int)
  case byteCountMismatch(file: String, tensor: String, expected: Int, found: Int)

  // Packed and quantised weights.
  case invalidPanels(file: String, tensor: String, found: String)
  case missingPanels(file: String, tensor: String, layout: String)
  case panelMismatch(
    file: String, tensor: String, layout: String, expected: String, found: String)
  /// Somebody needs the weight as floats.
  case packedWeight(file: String, tensor: String, layout: String)
  case quantisedModel(folder: String, purpose: String)
  /// A weight has a value that no block can hold.
  case unquantisable(file: String, tensor: String, row: Int, column: Int, value: String)
  case noRoomForModel(folder: String, needed: Int, free: Int)

  // The tensors of a model folder.
  case noWeights(folder: String)
  case missingIndex(folder: String)
  case invalidShardName(file: String, tensor: String, shard: String)
  case nameCollision(tensor: String, first: String, second: String)
  case missingTensor(file: String, tensor: String, neededFor: String?)
  case missingShard(file: String, tensor: String, neededFor: String?)
  case shapeMismatch(
    file: String, tensor: String, expected: [Int], found: [Int], neededFor: String)
  case unsupportedScalarType(file: String, tensor: String, found: String, expected: String)
  case misaligned(file: String, tensor: String, byteCount: Int)

  // Writing.
  case unwritable(file: String, reason: String)
  case diskFull(file: String, byteCount: Int)
  case incompleteTensor(file: String, tensor: String, written: Int, expected: Int)
  case folderInUse(folder: String, file: String)

  // Checkpoints of a training run.
  case noRoom(folder: String, needed: Int, free: Int)
  /// Another process writes the same checkpoint.
  case beingWritten(folder: String)
  case damaged(file: String, expected: String, found: String)
  case unexpectedTensor(file: String, tensor: String, expected: String, found: String)
  case missingState(folder: String, parameter: String, state: String)

  // PyTorch's archives.
  case invalidArchive(file: String, reason: String)
  case invalidPickle(file: String, offset: Int, reason: String)
  case forbiddenGlobal(file: String, name: String)
  case unsupportedPickle(file: String, offset: Int, what: String)
  case invalidTorchTensor(file: String, tensor: String, reason: String)

  // Putting parts together.
  case unsuitablePart(file: String, reason: String)

  public var description: String {
    switch self {
    case .missingFolder(let path):
      "\(path) does not exist; give the folder of a model (with config.json in it)"
    case .notAFolder(let path):
      "\(path) is not a folder; give the folder of a model, not one of its files"
    case .missingFile(let path):
      "\(path) does not exist"
    case .notAFile(let path):
      "\(path) is not a regular file"
    case .unreadable(let file, let reason):
      "\(file) cannot be read: \(reason)"
    case .tooLarge(let file, let byteCount, let limit):
      "\(file) has \(byteCount) bytes, more than the \(limit) such a file may have"
    case .changedWhileInUse(let file):
      "\(file) changed after its header was read; replace a checkpoint by renaming, then reload it"
    case .invalidJSON(let file, let offset, let reason):
      "\(file) is not valid JSON at byte \(offset): \(reason)"
    case .duplicateName(let file, let name):
      "\(file) names \(quoted(name)) twice in one object"
    case .missingKey(let file, let key):
      "\(file) lacks \(key)"
    case .wrongType(let file, let key, let expected):
      "\(file): \(key) is not \(expected)"
    case .invalidValue(let file, let key, let found, let expected):
      "\(file): \(key) is \(found), expected \(expected)"
    case .unsupported(let file, let key, let found, let supported):
      "\(file): \(key) is \(found), Chiasm runs \(supported)"
    case .truncatedHeader(let file, let headerLength, let byteCount):
      """
      \(file) is truncated or no safetensors file: it has \(byteCount) bytes, its header alone \
      would take 8 + \(headerLength)
      """
    case .headerTooLong(let file, let headerLength, let limit):
      """
      \(file) announces a header of \(headerLength) bytes, more than the \(limit) the format \
      allows; it is damaged or no safetensors file
      """
    case .missingField(let file, let tensor, let field):
      "\(file): tensor \(quoted(tensor)) has no \(field)"
    case .unknownScalarType(let file, let tensor, let found):
      "\(file): tensor \(quoted(tensor)) has the unknown dtype \(quoted(found))"
    case .invalidShape(let file, let tensor, let shape):
      "\(file): tensor \(quoted(tensor)) has the impossible shape \(shape)"
    case .reversedOffsets(let file, let tensor, let begin, let end):
      "\(file): tensor \(quoted(tensor)) begins at \(begin) and ends before that, at \(end)"
    case .overlappingOffsets(let file, let tensor, let begin, let previousEnd):
      """
      \(file): tensor \(quoted(tensor)) begins at \(begin), inside the one before it, which ends \
      at \(previousEnd)
      """
    case .hole(let file, let tensor, let begin, let previousEnd):
      "\(file): bytes \(previousEnd) to \(begin), before tensor \(quoted(tensor)), belong to none"
    case .offsetsBeyondData(let file, let tensor, let end, let dataByteCount):
      """
      \(file): tensor \(quoted(tensor)) ends at \(end) of \(dataByteCount) data bytes; the file \
      is truncated, copy it again
      """
    case .trailingData(let file, let end, let dataByteCount):
      "\(file): the last tensor ends at \(end) of \(dataByteCount) data bytes"
    case .byteCountMismatch(let file, let tensor, let expected, let found):
      """
      \(file): tensor \(quoted(tensor)) takes \(found) bytes, its shape and dtype \(expected)
      """
    case .invalidPanels(let file, let tensor, let found):
      """
      \(file): \(quoted(tensor)) is said to hold panels of \(quoted(found)); Chiasm knows \
      \(PackedMatrix.Format.allCases.map(\.rawValue).joined(separator: ", ")), written such as \
      "q4 [20480, 7168]"
      """
    case .missingPanels(let file, let tensor, let layout):
      """
      \(file): its metadata tell of panels of \(quoted(tensor)) (\(quoted(layout))), which the \
      file does not hold; quantise the model anew
      """
    case .panelMismatch(let file, let tensor, let layout, let expected, let found):
      """
      \(file): panels of \(quoted(tensor)), \(quoted(layout)), take \(expected), the file has \
      \(found); quantise the model anew
      """
    case .packedWeight(let file, let tensor, let layout):
      """
      \(file): \(quoted(tensor)) is stored as panels, \(layout), and is needed as floats; use the \
      folder of the model that this one was quantised from
      """
    case .quantisedModel(let folder, let purpose):
      """
      \(folder) holds a quantised model, which \(purpose); use the folder of the model that it \
      was quantised from
      """
    case .unquantisable(let file, let tensor, let row, let column, let value):
      """
      \(file): \(quoted(tensor)) has \(value) in row \(row), column \(column), which cannot be \
      quantised; the checkpoint is damaged, or its training failed
      """
    case .noRoomForModel(let folder, let needed, let free):
      """
      \(folder): \(needed) bytes are still to be written there, and \(free) are free; free space \
      and run the command again, which keeps the files that are finished
      """
    case .noWeights(let folder):
      """
      \(folder) has neither model.safetensors nor pytorch_model.bin, nor an index of shards; convert \
      weights of another format to safetensors
      """
    case .missingIndex(let folder):
      "\(folder) has shards of weights but no index, such as model.safetensors.index.json, of them"
    case .invalidShardName(let file, let tensor, let shard):
      """
      \(file) looks for \(quoted(tensor)) in \(quoted(shard)), which is not the name of such a \
      file of weights in the same folder
      """
    case .nameCollision(let tensor, let first, let second):
      "\(quoted(tensor)) is in \(first), where the index says, and also in \(second)"
    case .missingTensor(let file, let tensor, let neededFor):
      "\(file) lacks \(quoted(tensor))\(because(neededFor))"
    case .missingShard(let file, let tensor, let neededFor):
      """
      \(file) does not exist, and the index says that \(quoted(tensor)) is in it\
      \(because(neededFor))
      """
    case .shapeMismatch(let file, let tensor, let expected, let found, let neededFor):
      """
      \(file): \(quoted(tensor)) has shape \(found), config.json asks for \(expected)\
      \(because(neededFor))
      """
    case .unsupportedScalarType(let file, let tensor, let found, let expected):
      "\(file): \(quoted(tensor)) is stored as \(found); convert the checkpoint to \(expected)"
    case .misaligned(let file, let tensor, let byteCount):
      """
      \(file): \(quoted(tensor)), of \(byteCount) bytes, is not aligned to its scalar type and too \
      large to copy; write the file anew with a header padded to 8 bytes
      """
    case .unwritable(let file, let reason):
      "\(file) cannot be written: \(reason)"
    case .diskFull(let file, let byteCount):
      "\(file): no room for its \(byteCount) bytes; free space or write to another disk"
    case .incompleteTensor(let file, let tensor, let written, let expected):
      "\(file): \(written) of the \(expected) bytes of \(quoted(tensor)) were written"
    case .folderInUse(let folder, let file):
      "\(folder) already holds \(file); write a new model to a folder of its own"
    case .noRoom(let folder, let needed, let free):
      """
      \(folder): a checkpoint takes about \(needed) bytes there, and \(free) are free; free space, \
      lower --save-total-limit, or give another --output
      """
    case .beingWritten(let folder):
      "\(folder) is being written by another process; give every run an output of its own"
    case .damaged(let file, let expected, let found):
      "\(file) is damaged: \(found), the manifest says \(expected)"
    case .unexpectedTensor(let file, let tensor, let expected, let found):
      "\(file): \(quoted(tensor)) was written as \(found), the checkpoint needs \(expected)"
    case .missingState(let folder, let parameter, let state):
      """
      \(folder) has no \(state) of \(quoted(parameter)); it was written by a run that did not \
      train it: freeze it again, or start a new run from this folder
      """
    case .invalidArchive(let file, let reason):
      "\(file) is damaged or no PyTorch archive: \(reason)"
    case .invalidPickle(let file, let offset, let reason):
      "\(file): its pickle is damaged at byte \(offset): \(reason)"
    case .forbiddenGlobal(let file, let name):
      """
      \(file) refers to \(quoted(name)), which tensors do not need; nothing of it was run. Save \
      the state dictionary alone, or as safetensors
      """
    case .unsupportedPickle(let file, let offset, let what):
      """
      \(file): \(what) at byte \(offset) of its pickle is none of what state dictionaries are \
      made of; save the state dictionary alone, or as safetensors
      """
    case .invalidTorchTensor(let file, let tensor, let reason):
      "\(file): tensor \(quoted(tensor)) \(reason)"
    case .unsuitablePart(let file, let reason):
      "\(file): \(reason)"
    }
  }
}

private func because(_ neededFor: String?) -> String {
  guard let neededFor else { return "" }
  return "; \(neededFor). Fix the checkpoint, or what the mesh file lets this process hold."
}

/// Names come from files: shown without control characters, and never at unbounded length.
private func quoted(_ name: String) -> String {
  let shown = name.unicodeScalars.prefix(200).map { scalar in
    scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) ? "\u{FFFD}" : String(scalar)
  }
  return shown.joined() + (name.unicodeScalars.count > 200 ? "…" : "")
}
