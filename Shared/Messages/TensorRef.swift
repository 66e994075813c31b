import CMessages
import Tensors

/// How `chiasm.v1.ScalarType` numbers the scalar types.
extension ScalarType {
  /// The number in the proto file.
  var number: UInt32 {
    switch self {
    case .float32: 1
    case .bfloat16: 2
    case .int64: 3
    case .int32: 4
    case .uint8: 5
    }
  }

  /// - Parameter field: where the number was found, for the error.
  init(number: UInt32, in field: StaticString = "TensorRef.scalar") throws {
    guard let type = ScalarType.allCases.first(where: { $0.number == number }) else {
      throw MessagesError.unknownEnumValue(
        field: "\(field)", value: Int(Int32(bitPattern: number)))
    }
    self = type
  }
}

/// Says what a tensor beside a message is, and where its elements lie.
public struct TensorRef: Message {
  public var scalarType: ScalarType = .float32
  /// Row-major, outermost dimension first.
  public var shape: [Int] = []
  /// Bytes of all elements.
  public var byteCount = 0
  /// Offset in the arena that the frame's sender shared; nil when the elements follow the head.
  public var arenaOffset: Int?
  public var name: String?

  public init() {}

  public init(
    scalarType: ScalarType, shape: [Int], byteCount: Int, arenaOffset: Int? = nil,
    name: String? = nil
  ) {
    self.scalarType = scalarType
    self.shape = shape
    self.byteCount = byteCount
    self.arenaOffset = arenaOffset
    self.name = name
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension TensorRef: CodedMessage {
  static var protoName: String { "TensorRef" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__TensorRef>?) -> Void {
    chiasm__v1__tensor_ref__init
  }

  init(_ c: Chiasm__V1__TensorRef) throws {
    self.init()
    scalarType = try ScalarType(number: c.has_scalar != 0 ? c.scalar.rawValue : 0)
    shape = try Read.integers(c.n_dimension, c.dimension, "TensorRef.dimension")
    if c.has_byte_count != 0 {
      byteCount = try Read.integer(c.byte_count, "TensorRef.byte_count")
    }
    if c.has_arena_offset != 0 {
      arenaOffset = try Read.integer(c.arena_offset, "TensorRef.arena_offset")
    }
    name = try Read.string(c.name, "TensorRef.name")
  }

  func fill(_ c: inout Chiasm__V1__TensorRef, _ memory: BumpMemory) {
    (c.has_scalar, c.scalar) = (1, Chiasm__V1__ScalarType(scalarType.number))
    (c.n_dimension, c.dimension) = (shape.count, memory.integers(shape))
    (c.has_byte_count, c.byte_count) = (1, UInt64(clamping: byteCount))
    if let arenaOffset { (c.has_arena_offset, c.arena_offset) = (1, UInt64(clamping: arenaOffset)) }
    if let name { c.name = memory.string(name) }
  }
}
