import Tensors

/// Reads the pickle of a state dictionary (Python's pickletools, protocols 2 to 5) without
/// running anything: of all that pickles may refer to, only what tensors are made of is known,
/// and the rest is refused by name.
///
/// Every value lies flat in an arena and containers refer to each other by index, so that neither
/// nesting nor cycles can exhaust the stack, and memory grows with the bytes read alone.
struct TorchPickle {
  /// A tensor as the pickle describes it, not yet checked against the archive.
  struct TensorRecord: Equatable {
    var storage: StorageRecord
    /// In elements, as the strides.
    var offset: Int
    var shape: [Int]
    var strides: [Int]
  }

  struct StorageRecord: Equatable {
    /// Such as `FloatStorage`.
    var type: String
    var key: String
    var count: Int
  }

  static let maximumBytes = 16 << 20
  private static let maximumValues = 1 << 20
  static let maximumRank = 16

  private enum Value {
    case none
    case boolean(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case tuple(Int)
    case list(Int)
    case dictionary(Int)
    case global(Global)
    case storage(Int)
    case tensor(Int)
  }

  private enum Global: Equatable {
    case orderedDictionary
    case rebuildTensor
    case rebuildParameter
    case storage(String)
  }

  private static let storageTypes: Set<String> = [
    "FloatStorage", "BFloat16Storage", "HalfStorage", "DoubleStorage", "LongStorage",
    "IntStorage", "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage",
  ]

  private let file: String
  private var cursor: ByteCursor
  private var stack: [Value] = []
  private var marks: [Int] = []
  private var memo: [Int: Value] = [:]
  private var tuples: [[Value]] = []
  private var lists: [[Value]] = []
  private var dictionaries: [[(key: Value, value: Value)]] = []
  private var storages: [StorageRecord] = []
  private var tensors: [TensorRecord] = []
  private var valueCount = 0

  /// The tensors of the dictionary that a pickle holds, by name: its own or, if it has none,
  /// those of a dictionary in it that is called as training scripts call them.
  ///
  /// - Parameter file: what errors name.
  /// - Throws: ``CheckpointError/forbiddenGlobal(file:name:)``,
  ///   ``CheckpointError/unsupportedPickle(file:offset:what:)``,
  ///   ``CheckpointError/invalidPickle(file:offset:reason:)``.
  static func stateDictionary(
    _ bytes: [UInt8], file: String
  ) throws -> [String: TensorRecord] {
    var machine = TorchPickle(file: file, cursor: ByteCursor(bytes))
    do {
      guard case .dictionary(let index) = try machine.run() else {
        throw machine.failure("it holds no dictionary")
      }
      return machine.namedTensors(index)
    } catch is ByteCursor.End {
      throw machine.failure("it is cut off")
    }
  }

  private init(file: String, cursor: ByteCursor) {
    self.file = file
    self.cursor = cursor
  }

  private func namedTensors(_ index: Int) -> [String: TensorRecord] {
    let own = tensors(in: index)
    if !own.isEmpty { return own }
    for name in ["state_dict", "model_state_dict", "model", "module"] {
      for case (.string(name), .dictionary(let inner)) in dictionaries[index] {
        let found = tensors(in: inner)
        if !found.isEmpty { return found }
      }
    }
    return [:]
  }

  private func tensors(in index: Int) -> [String: TensorRecord] {
    var found: [String: TensorRecord] = [:]
    for case (.string(let name), .tensor(let tensor)) in dictionaries[index] {
      found[name] = tensors[tensor]
    }
    return found
  }

  // MARK: The machine

  private mutating func run() throws -> Value {
    while true {
      let code = UInt8(try cursor.integer(1))
      if code == UInt8(ascii: ".") {
        guard stack.count == 1, marks.isEmpty else { throw failure("it ends with a stack") }
        return stack[0]
      }
      try step(code)
      guard valueCount <= TorchPickle.maximumValues else {
        throw failure("more than \(TorchPickle.maximumValues) values")
      }
    }
  }

  private mutating func step(_ code: UInt8) throws {
    switch code {
    case 0x80:
      let version = try cursor.integer(1)
      guard (2...5).contains(version) else { throw unsupported("protocol \(version)") }
    case 0x95: try cursor.skip(8)
    case UInt8(ascii: "("):
      marks.append(stack.count)
      valueCount += 1
    case UInt8(ascii: "N"): push(.none)
    case 0x88: push(.boolean(true))
    case 0x89: push(.boolean(false))
    case UInt8(ascii: "J"):
      push(.integer(Int(Int32(truncatingIfNeeded: try cursor.integer(4)))))
    case UInt8(ascii: "K"): push(.integer(try cursor.integer(1)))
    case UInt8(ascii: "M"): push(.integer(try cursor.integer(2)))
    case 0x8A: push(.integer(try long(try cursor.integer(1))))
    case UInt8(ascii: "G"):
      let bits = UInt64(truncatingIfNeeded: try cursor.integer(8)).byteSwapped
      push(.number(Double(bitPattern: bits)))
    case UInt8(ascii: "X"): push(.string(try string(try cursor.integer(4))))
    case 0x8C: push(.string(try string(try cursor.integer(1))))
    case 0x8D: push(.string(try string(try cursor.integer(8))))
    case UInt8(ascii: ")"): pushTuple([])
    case UInt8(ascii: "t"): pushTuple(try popToMark())
    case 0x85: pushTuple(try pop(1))
    case 0x86: pushTuple(try pop(2))
    case 0x87: pushTuple(try pop(3))
    case UInt8(ascii: "]"):
      lists.append([])
      push(.list(lists.count - 1))
    case UInt8(ascii: "}"): pushDictionary()
    case UInt8(ascii: "a"): try append(try pop(1))
    case UInt8(ascii: "e"): try append(try popToMark())
    case UInt8(ascii: "s"): try setItems(try pop(2))
    case UInt8(ascii: "u"): try setItems(try popToMark())
    case UInt8(ascii: "q"): try memoize(try cursor.integer(1))
    case UInt8(ascii: "r"): try memoize(try cursor.integer(4))
    case 0x94: try memoize(memo.count)
    case UInt8(ascii: "h"): try recall(try cursor.integer(1))
    case UInt8(ascii: "j"): try recall(try cursor.integer(4))
    case UInt8(ascii: "c"): push(.global(try global(try line(), try line())))
    case 0x93: try stackGlobal()
    case UInt8(ascii: "Q"): try persistentID()
    case UInt8(ascii: "R"): try reduce()
    case UInt8(ascii: "b"): try build()
    default: throw unsupported("instruction 0x" + String(code, radix: 16))
    }
  }

  private mutating func push(_ value: Value) {
    stack.append(value)
    valueCount += 1
  }

  private mutating func pushTuple(_ elements: [Value]) {
    tuples.append(elements)
    push(.tuple(tuples.count - 1))
  }

  private mutating func pushDictionary() {
    dictionaries.append([])
    push(.dictionary(dictionaries.count - 1))
  }

  /// The values above the last mark stay above it.
  private mutating func pop(_ count: Int) throws -> [Value] {
    guard stack.count - (marks.last ?? 0) >= count else { throw failure("an empty stack") }
    defer { stack.removeLast(count) }
    return Array(stack.suffix(count))
  }

  private mutating func popToMark() throws -> [Value] {
    guard let mark = marks.popLast() else { throw failure("no mark on the stack") }
    defer { stack.removeLast(stack.count - mark) }
    return Array(stack[mark...])
  }

  private func top() throws -> Value {
    guard let value = stack.last, stack.count > marks.last ?? 0 else {
      throw failure("an empty stack")
    }
    return value
  }

  private mutating func append(_ elements: [Value]) throws {
    guard case .list(let index) = try top() else { throw failure("no list to append to") }
    lists[index] += elements
  }

  private mutating func setItems(_ items: [Value]) throws {
    guard case .dictionary(let index) = try top(), items.count.isMultiple(of: 2) else {
      throw failure("no dictionary for pairs")
    }
    for item in stride(from: 0, to: items.count, by: 2) {
      dictionaries[index].append((items[item], items[item + 1]))
    }
  }

  private mutating func memoize(_ index: Int) throws {
    memo[index] = try top()
    valueCount += 1
  }

  private mutating func recall(_ index: Int) throws {
    guard let value = memo[index] else { throw failure("nothing is kept as \(index)") }
    push(value)
  }

  // MARK: What tensors are made of

  private func global(_ module: String, _ name: String) throws -> Global {
    switch (module, name) {
    case ("collections", "OrderedDict"): return .orderedDictionary
    case ("torch._utils", "_rebuild_tensor_v2"): return .rebuildTensor
    case ("torch._utils", "_rebuild_parameter"), ("torch.nn.parameter", "_rebuild_parameter"):
      return .rebuildParameter
    case ("torch", let type) where TorchPickle.storageTypes.contains(type):
      return .storage(type)
    default: throw CheckpointError.forbiddenGlobal(file: file, name: "\(module).\(name)")
    }
  }

  private mutating func stackGlobal() throws {
    let names = try pop(2)
    guard case .string(let module) = names[0], case .string(let name) = names[1] else {
      throw failure("a global without a name")
    }
    push(.global(try global(module, name)))
  }

  /// `("storage", type, key, device, count)`, by which an archive's entry is meant.
  private mutating func persistentID() throws {
    guard case .tuple(let index) = try pop(1)[0] else { throw failure("a storage without a key") }
    let parts = tuples[index]
    guard parts.count == 5, case .string("storage") = parts[0],
      case .global(.storage(let type)) = parts[1], case .string(let key) = parts[2],
      case .integer(let count) = parts[4], count >= 0, key.utf8.count <= 64
    else { throw failure("a storage without a key") }
    storages.append(StorageRecord(type: type, key: key, count: count))
    push(.storage(storages.count - 1))
  }

  private mutating func reduce() throws {
    let call = try pop(2)
    guard case .global(let function) = call[0], case .tuple(let index) = call[1] else {
      throw unsupported("a call of something else than a known function")
    }
    let arguments = tuples[index]
    switch function {
    case .orderedDictionary:
      guard arguments.isEmpty else { throw unsupported("an OrderedDict made of something") }
      pushDictionary()
    case .rebuildTensor:
      tensors.append(try tensor(arguments))
      push(.tensor(tensors.count - 1))
    case .rebuildParameter:
      guard case .tensor? = arguments.first else { throw failure("a parameter of no tensor") }
      push(arguments[0])
    case .storage(let type): throw unsupported("a \(type) made of something")
    }
  }

  /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks, …)`
  private func tensor(_ arguments: [Value]) throws -> TensorRecord {
    guard arguments.count >= 4, case .storage(let storage) = arguments[0],
      case .integer(let offset) = arguments[1]
    else { throw failure("a tensor without a storage") }
    let shape = try integers(arguments[2])
    let strides = try integers(arguments[3])
    guard shape.count == strides.count else { throw failure("a tensor without strides") }
    return TensorRecord(
      storage: storages[storage], offset: offset, shape: shape, strides: strides)
  }

  private func integers(_ value: Value) throws -> [Int] {
    guard case .tuple(let index) = value, tuples[index].count <= TorchPickle.maximumRank else {
      throw failure("a shape that is none")
    }
    return try tuples[index].map { element in
      guard case .integer(let integer) = element else { throw failure("a shape that is none") }
      return integer
    }
  }

  /// A state dictionary carries versions of its modules as an attribute, which tensors do not
  /// depend on.
  private mutating func build() throws {
    _ = try pop(1)
    guard case .dictionary = try top() else {
      throw unsupported("attributes of something else than a dictionary")
    }
  }

  // MARK: Bytes

  private mutating func string(_ count: Int) throws -> String {
    guard let text = String(validating: try cursor.bytes(count), as: UTF8.self) else {
      throw failure("a string is not UTF-8")
    }
    return text
  }

  /// Up to a line's end, which names of modules and classes never are far from.
  private mutating func line() throws -> String {
    var bytes: [UInt8] = []
    while true {
      let byte = UInt8(try cursor.integer(1))
      if byte == UInt8(ascii: "\n") { break }
      bytes.append(byte)
      guard bytes.count <= 512 else { throw failure("a name of more than 512 bytes") }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// A little-endian integer in two's complement.
  private mutating func long(_ count: Int) throws -> Int {
    guard count <= 8 else { throw failure("an integer of more than 64 bits") }
    let bits = UInt64(truncatingIfNeeded: try cursor.integer(count))
    let shift = 64 - 8 * UInt64(count)
    return count == 0 ? 0 : Int(Int64(bitPattern: bits << shift) >> Int64(shift))
  }

  private func failure(_ reason: String) -> CheckpointError {
    .invalidPickle(file: file, offset: cursor.offset, reason: reason)
  }

  private func unsupported(_ what: String) -> CheckpointError {
    .unsupportedPickle(file: file, offset: cursor.offset, what: what)
  }
}
