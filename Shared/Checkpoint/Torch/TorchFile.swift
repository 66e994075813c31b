import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A file that `torch.save` wrote: a zip archive with a pickle that describes tensors, and their
/// bytes beside it. Nothing in the pickle is run.
///
/// Contiguous tensors are looked at in place, in the mapped file; transposed ones and other views
/// are copied. float16, which ``ScalarType`` does not have, becomes float32.
final class TorchFile: TensorFile {
  let path: String
  private let mapping: MappedFile
  private let archive: ZipArchive
  /// The archive's one folder.
  private let root: String
  private let records: [String: TorchPickle.TensorRecord]
  /// Bytes of PyTorch's complex128.
  private static let largestElement = 16

  /// - Throws: ``CheckpointError`` when the file is missing, no archive, or its pickle holds
  ///   anything but tensors.
  init(path: String) throws {
    self.path = path
    let file = try OpenFile(reading: path)
    let start = try file.bytes(at: 0, count: min(4, file.byteCount))
    if start.first == 0x80 {
      throw CheckpointError.invalidArchive(
        file: path,
        reason: "it is in PyTorch's format before 1.6; load it there and save it again")
    }
    guard start == [0x50, 0x4B, 3, 4] else {
      throw CheckpointError.invalidArchive(file: path, reason: "it does not begin like one")
    }
    do {
      archive = try ZipArchive(reading: file)
    } catch is ByteCursor.End {
      throw CheckpointError.invalidArchive(file: path, reason: "it is cut off")
    }
    let pickleName = archive.entries.keys.filter { name in
      name.hasSuffix("/data.pkl") && name.utf8.count { $0 == UInt8(ascii: "/") } == 1
    }
    guard pickleName.count == 1, let pickle = archive.entries[pickleName[0]] else {
      throw CheckpointError.invalidArchive(file: path, reason: "it has no data.pkl")
    }
    root = String(pickleName[0].dropLast("/data.pkl".count))
    try TorchFile.requireLittleEndian(archive, root, file)
    guard pickle.byteCount <= TorchPickle.maximumBytes else {
      throw CheckpointError.tooLarge(
        file: "\(path): data.pkl", byteCount: pickle.byteCount,
        limit: TorchPickle.maximumBytes)
    }
    let bytes = try file.bytes(
      at: archive.offset(of: pickle, in: file), count: pickle.byteCount)
    records = try TorchPickle.stateDictionary(bytes, file: path)
    for (name, record) in records
    where !isMeasurable(record.shape, elementSize: TorchFile.largestElement) {
      throw CheckpointError.invalidTorchTensor(
        file: path, tensor: name, reason: "has the impossible shape \(record.shape)")
    }
    mapping = MappedFile(file)
  }

  var names: [String] { records.keys.sorted() }

  func entry(_ name: String) -> SafetensorsWriter.Entry? {
    guard let record = records[name], let type = ScalarType(torchStorage: record.storage.type)
    else { return nil }
    return SafetensorsWriter.Entry(name, type, record.shape)
  }

  /// - Throws: ``CheckpointError/missingTensor(file:tensor:neededFor:)``,
  ///   ``CheckpointError/unsupportedScalarType(file:tensor:found:expected:)``,
  ///   ``CheckpointError/invalidTorchTensor(file:tensor:reason:)`` and errors of the archive.
  func tensor(_ name: String, neededFor: String?) throws -> Tensor {
    guard let record = records[name] else {
      throw CheckpointError.missingTensor(file: path, tensor: name, neededFor: neededFor)
    }
    let storage = record.storage
    guard let type = ScalarType(torchStorage: storage.type) else {
      throw CheckpointError.unsupportedScalarType(
        file: path, tensor: name, found: storage.type, expected: "bfloat16 or float32")
    }
    let isHalf = storage.type == "HalfStorage"
    let size = isHalf ? 2 : type.byteCount
    guard let entry = archive.entries["\(root)/data/\(storage.key)"] else {
      throw invalid(name, "has no data in the archive")
    }
    guard storage.count <= entry.byteCount, entry.byteCount == storage.count * size else {
      throw invalid(
        name, "has \(entry.byteCount) bytes of data, its \(storage.count) elements take others")
    }
    let isContiguous = try check(record, name)
    let start = try archive.offset(of: entry, in: mapping.file)
    if isContiguous, !isHalf {
      return try mapping.tensor(
        type, record.shape, at: start + record.offset * size,
        byteCount: record.shape.reduce(size, *), name: name)
    }
    // As bytes, which have no alignment.
    let data = try mapping.tensor(
      .uint8, [entry.byteCount], at: start, byteCount: entry.byteCount, name: name)
    let gathered = record.gather(data, elementBytes: size)
    if !isHalf { return try Tensor(type, record.shape, storage: gathered) }
    return TorchFile.widened(gathered, record.shape)
  }

  func requireWeight(_ name: String, shape: [Int], neededFor: String) throws {
    guard let record = records[name] else {
      throw CheckpointError.missingTensor(file: path, tensor: name, neededFor: neededFor)
    }
    guard let type = ScalarType(torchStorage: record.storage.type), type.isFloat else {
      throw CheckpointError.unsupportedScalarType(
        file: path, tensor: name, found: record.storage.type, expected: "bfloat16 or float32")
    }
    guard record.shape == shape else {
      throw CheckpointError.shapeMismatch(
        file: path, tensor: name, expected: shape, found: record.shape, neededFor: neededFor)
    }
  }

  // MARK: Private

  private func invalid(_ name: String, _ reason: String) -> CheckpointError {
    .invalidTorchTensor(file: path, tensor: name, reason: reason)
  }

  private static func requireLittleEndian(
    _ archive: ZipArchive, _ root: String, _ file: borrowing OpenFile
  ) throws {
    guard let entry = archive.entries["\(root)/byteorder"] else { return }
    guard entry.byteCount == 6,
      try file.bytes(at: archive.offset(of: entry, in: file), count: 6) == Array("little".utf8)
    else {
      throw CheckpointError.invalidArchive(
        file: file.path, reason: "its numbers are not little-endian")
    }
  }

  /// Checks that every element lies in the storage. The shape is measurable.
  ///
  /// - Returns: whether the elements lie one after another.
  private func check(_ record: TorchPickle.TensorRecord, _ name: String) throws -> Bool {
    guard record.offset >= 0, record.strides.allSatisfy({ $0 >= 0 }) else {
      throw invalid(name, outside)
    }
    let count = record.shape.reduce(1, *)
    if count == 0 {
      guard record.offset <= record.storage.count else { throw invalid(name, outside) }
      return true
    }
    var last = record.offset
    var contiguous = 1
    var isContiguous = true
    for (size, stride) in zip(record.shape, record.strides).reversed() where size > 1 {
      let (reach, overflow) = (size - 1).multipliedReportingOverflow(by: stride)
      let (sum, tooFar) = last.addingReportingOverflow(reach)
      guard !overflow, !tooFar else { throw invalid(name, outside) }
      last = sum
      if stride != contiguous { isContiguous = false }
      contiguous *= size
    }
    guard last < record.storage.count else { throw invalid(name, outside) }
    // Without this, a stride of 0 would make much of little.
    guard count <= record.storage.count else {
      throw invalid(name, "repeats its elements; save a contiguous copy")
    }
    return isContiguous
  }

  private var outside: String { "reaches outside its storage" }

  private static func widened(_ storage: Storage, _ shape: [Int]) -> Tensor {
    let result = Tensor(uninitialized: .float32, shape)
    result.withElements(of: UInt32.self) { target in
      for index in 0..<target.count {
        target[index] = float32(
          half: storage.base.load(fromByteOffset: 2 * index, as: UInt16.self))
      }
    }
    return result
  }
}

extension TorchPickle.TensorRecord {
  /// The elements in row-major order. All lie in `data`.
  fileprivate func gather(_ data: Tensor, elementBytes: Int) -> Storage {
    let count = shape.reduce(1, *)
    let result = Storage(uninitialized: count * elementBytes)
    guard count > 0 else { return result }
    withExtendedLifetime(data.storage) {
      let source = UnsafeRawPointer(data.baseAddress)
      var index = [Int](repeating: 0, count: shape.count)
      var place = offset
      for element in 0..<count {
        memcpy(
          result.base + element * elementBytes, source + place * elementBytes, elementBytes)
        for axis in shape.indices.reversed() {
          index[axis] += 1
          // An axis of one element may have any stride.
          place &+= strides[axis]
          if index[axis] < shape[axis] { break }
          place &-= index[axis] &* strides[axis]
          index[axis] = 0
        }
      }
    }
    return result
  }
}

extension ScalarType {
  /// What the elements of a storage are read as.
  init?(torchStorage type: String) {
    switch type {
    case "FloatStorage", "HalfStorage": self = .float32
    case "BFloat16Storage": self = .bfloat16
    case "LongStorage": self = .int64
    case "IntStorage": self = .int32
    case "ByteStorage", "BoolStorage": self = .uint8
    default: return nil
    }
  }
}

/// The bits of the float32 that equals a float16.
func float32(half: UInt16) -> UInt32 {
  let sign = UInt32(half & 0x8000) << 16
  let exponent = UInt32(half >> 10 & 0x1F)
  let fraction = UInt32(half & 0x3FF)
  switch exponent {
  case 0: return sign | (Float(fraction) * 0x1p-24).bitPattern
  case 31: return sign | 0x7F80_0000 | fraction << 13
  default: return sign | (exponent + 112) << 23 | fraction << 13
  }
}
