import CMessages
import CProtobufC

/// A message together with the C struct that protoc-c made for it.
protocol CodedMessage: Message {
  associatedtype C
  /// Sets a C struct to its message type, every field absent.
  static var initialize: (UnsafeMutablePointer<C>?) -> Void { get }
  /// Name in the proto file.
  static var protoName: String { get }
  init(_ c: C) throws
  func fill(_ c: inout C, _ memory: BumpMemory)
}

extension CodedMessage {
  static func unpack(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try withUnsafeTemporaryAllocation(byteCount: 2048, alignment: BumpMemory.alignment) { first in
      let memory = BumpMemory(
        first: first, limit: min(64 << 10 + 32 * bytes.count, DecodingLimit.bytes))
      var prototype = Self.prototype
      let descriptor = withUnsafePointer(to: &prototype) {
        UnsafeRawPointer($0).load(as: ProtobufCMessage.self).descriptor
      }
      var allocator = ProtobufCAllocator(
        alloc: { context, size in
          guard let context else { return nil }
          return Unmanaged<BumpMemory>.fromOpaque(context).takeUnretainedValue().allocate(size)
        },
        // Everything goes at once, with `memory`.
        free: { _, _ in },
        allocator_data: Unmanaged.passUnretained(memory).toOpaque())
      return try withExtendedLifetime(memory) {
        guard
          let unpacked = protobuf_c_message_unpack(
            descriptor, &allocator, bytes.count,
            bytes.baseAddress?.assumingMemoryBound(to: UInt8.self))
        else {
          throw MessagesError.malformed(message: protoName, byteCount: bytes.count)
        }
        return try Self(UnsafeRawPointer(unpacked).assumingMemoryBound(to: C.self).pointee)
      }
    }
  }

  func pack(into bytes: inout [UInt8]) {
    withUnsafeTemporaryAllocation(byteCount: 2048, alignment: BumpMemory.alignment) { first in
      let memory = BumpMemory(first: first, limit: .max)
      withExtendedLifetime(memory) {
        var c = Self.prototype
        fill(&c, memory)
        withUnsafePointer(to: &c) { pointer in
          let message = UnsafeRawPointer(pointer).assumingMemoryBound(to: ProtobufCMessage.self)
          let size = protobuf_c_message_get_packed_size(message)
          let start = bytes.count
          bytes.append(contentsOf: repeatElement(0, count: size))
          bytes.withUnsafeMutableBufferPointer { buffer in
            guard size > 0, let base = buffer.baseAddress else { return }
            _ = protobuf_c_message_pack(message, base + start)
          }
        }
      }
    }
  }

  private static var prototype: C {
    withUnsafeTemporaryAllocation(of: C.self, capacity: 1) { buffer in
      initialize(buffer.baseAddress)
      return buffer[0]
    }
  }
}

private enum DecodingLimit {
  /// However long the input: no decoding takes more memory than this.
  static let bytes = 64 << 20
}

// MARK: - Reading fields

/// Reads the fields of a C struct; every function names the field in what it throws.
enum Read {
  typealias CString = UnsafeMutablePointer<CChar>

  static func string(_ pointer: CString?, _ field: StaticString) throws -> String? {
    guard let pointer else { return nil }
    guard let string = String(validatingCString: pointer) else {
      throw MessagesError.invalidText(field: "\(field)")
    }
    return string
  }

  static func strings(
    _ count: Int, _ pointers: UnsafeMutablePointer<CString?>?, _ field: StaticString
  ) throws -> [String] {
    try UnsafeBufferPointer(start: pointers, count: count).map { try string($0, field) ?? "" }
  }

  static func bytes(_ data: ProtobufCBinaryData) -> [UInt8] {
    Array(UnsafeBufferPointer(start: data.data, count: data.len))
  }

  static func text(_ data: ProtobufCBinaryData, _ field: StaticString) throws -> String {
    let bytes = UnsafeBufferPointer(start: data.data, count: data.len)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw MessagesError.invalidText(field: "\(field)")
    }
    return text
  }

  static func texts(
    _ count: Int, _ pointer: UnsafeMutablePointer<ProtobufCBinaryData>?, _ field: StaticString
  ) throws -> [String] {
    try UnsafeBufferPointer(start: pointer, count: count).map { try text($0, field) }
  }

  static func integer<Source: BinaryInteger, Target: FixedWidthInteger>(
    _ value: Source, _ field: StaticString, as type: Target.Type = Target.self
  ) throws -> Target {
    guard let target = Target(exactly: value) else {
      throw MessagesError.numberOutOfRange(
        field: "\(field)", value: UInt64(truncatingIfNeeded: value))
    }
    return target
  }

  static func integers<Source: BinaryInteger, Target: FixedWidthInteger>(
    _ count: Int, _ pointer: UnsafeMutablePointer<Source>?, _ field: StaticString
  ) throws -> [Target] {
    try UnsafeBufferPointer(start: pointer, count: count).map { try integer($0, field) }
  }

  static func doubles(_ count: Int, _ pointer: UnsafeMutablePointer<Double>?) -> [Double] {
    Array(UnsafeBufferPointer(start: pointer, count: count))
  }

  static func choice<Choice: RawRepresentable>(
    _ value: UInt32, _ field: StaticString
  ) throws -> Choice where Choice.RawValue == UInt32 {
    guard let choice = Choice(rawValue: value) else {
      throw MessagesError.unknownEnumValue(
        field: "\(field)", value: Int(Int32(bitPattern: value)))
    }
    return choice
  }

  static func message<M: CodedMessage>(_ pointer: UnsafeMutablePointer<M.C>?) throws -> M? {
    try pointer.map { try M($0.pointee) }
  }

  static func messages<M: CodedMessage>(
    _ count: Int, _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<M.C>?>?
  ) throws -> [M] {
    try UnsafeBufferPointer(start: pointers, count: count).compactMap { try message($0) }
  }
}

// MARK: - Writing fields

/// Memory of an encoding is bounded by the value encoded, so it only ends when the machine's
/// does.
extension BumpMemory {
  private func array<Element>(_ type: Element.Type, _ count: Int) -> UnsafeMutablePointer<Element> {
    guard let piece = allocate(max(count, 1) * MemoryLayout<Element>.stride) else {
      preconditionFailure("out of memory")
    }
    return piece.bindMemory(to: Element.self, capacity: count)
  }

  /// A C string. It ends at its first NUL, so a NUL inside becomes U+FFFD.
  func string(_ string: String) -> UnsafeMutablePointer<CChar>? {
    var string = string
    if string.utf8.contains(0) {
      string = String(
        decoding: string.utf8.flatMap { $0 == 0 ? [0xEF, 0xBF, 0xBD] : [$0] }, as: UTF8.self)
    }
    return string.withUTF8 { utf8 in
      let pointer = array(CChar.self, utf8.count + 1)
      UnsafeMutableRawBufferPointer(start: pointer, count: utf8.count).copyMemory(
        from: UnsafeRawBufferPointer(utf8))
      pointer[utf8.count] = 0
      return pointer
    }
  }

  func strings(_ strings: [String]) -> UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? {
    let pointers = array(UnsafeMutablePointer<CChar>?.self, strings.count)
    for (index, value) in strings.enumerated() { (pointers + index).initialize(to: string(value)) }
    return pointers
  }

  func bytes(_ bytes: [UInt8]) -> ProtobufCBinaryData {
    let pointer = array(UInt8.self, bytes.count)
    pointer.initialize(from: bytes, count: bytes.count)
    return ProtobufCBinaryData(len: bytes.count, data: pointer)
  }

  func text(_ text: String) -> ProtobufCBinaryData {
    var text = text
    return text.withUTF8 { utf8 in
      let pointer = array(UInt8.self, utf8.count)
      _ = UnsafeMutableBufferPointer(start: pointer, count: utf8.count).initialize(from: utf8)
      return ProtobufCBinaryData(len: utf8.count, data: pointer)
    }
  }

  func texts(_ texts: [String]) -> UnsafeMutablePointer<ProtobufCBinaryData>? {
    let pointer = array(ProtobufCBinaryData.self, texts.count)
    for (index, value) in texts.enumerated() { (pointer + index).initialize(to: text(value)) }
    return pointer
  }

  func integers<Source: BinaryInteger, Target: FixedWidthInteger>(
    _ values: [Source]
  ) -> UnsafeMutablePointer<Target>? {
    let pointer = array(Target.self, values.count)
    for (index, value) in values.enumerated() {
      (pointer + index).initialize(to: Target(clamping: value))
    }
    return pointer
  }

  func doubles(_ values: [Double]) -> UnsafeMutablePointer<Double>? {
    let pointer = array(Double.self, values.count)
    for (index, value) in values.enumerated() { (pointer + index).initialize(to: value) }
    return pointer
  }

  func message<M: CodedMessage>(_ message: M) -> UnsafeMutablePointer<M.C>? {
    let pointer = array(M.C.self, 1)
    M.initialize(pointer)
    message.fill(&pointer.pointee, self)
    return pointer
  }

  func messages<M: CodedMessage>(
    _ messages: [M]
  ) -> UnsafeMutablePointer<UnsafeMutablePointer<M.C>?>? {
    let pointers = array(UnsafeMutablePointer<M.C>?.self, messages.count)
    for (index, value) in messages.enumerated() {
      (pointers + index).initialize(to: message(value))
    }
    return pointers
  }
}
