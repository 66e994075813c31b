import Synchronization
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Writes one safetensors file, tensor by tensor, none of which has to be in memory for longer
/// than its own write.
///
/// The file appears under its name when ``commit()`` has put all of it on disk; until then, and
/// if the writer is let go without, only a temporary file in the same folder exists, which is
/// removed. Writes of different tensors, or of different parts of one, may come from several
/// threads and in any order.
public final class SafetensorsWriter: Sendable {
  /// A tensor to come.
  public struct Entry: Sendable, Equatable {
    public var name: String
    public var scalarType: ScalarType
    public var shape: [Int]
    /// What the bytes are of a tensor that holds a weight's panels.
    public var panels: PanelLayout?

    public init(_ name: String, _ scalarType: ScalarType, _ shape: [Int]) {
      self.name = name
      self.scalarType = scalarType
      self.shape = shape
    }

    public init(_ name: String, panels: PanelLayout) {
      self.init(name, .uint8, panels.tensorShape)
      self.panels = panels
    }

    /// Of the caller's own shape, or one that the readers of files let pass.
    public var byteCount: Int { shape.reduce(scalarType.byteCount, *) }

    fileprivate var alignment: Int {
      panels == nil ? scalarType.byteCount : PanelLayout.alignment
    }
  }

  private struct Place {
    var byteCount: Int
    /// Where the tensor begins in the file.
    var offset: Int
    var scalarType: ScalarType
    var shape: [Int]
  }

  public let path: String
  /// Bytes of the whole file.
  public let byteCount: Int
  private let file: AtomicFile
  private let places: [String: Place]
  private let writtenBytes = Mutex<[String: Int]>([:])

  /// Makes the temporary file, claims its room on disk and writes the header. Within the file,
  /// panels come first, then wider scalar types, which aligns every tensor.
  ///
  /// - Parameter metadata: strings for `__metadata__`; readers of the reference's ecosystem
  ///   expect `format` to be `pt`.
  /// - Throws: ``CheckpointError/diskFull(file:byteCount:)``,
  ///   ``CheckpointError/unwritable(file:reason:)``,
  ///   ``CheckpointError/duplicateName(file:name:)`` when two entries have one name.
  public init(
    path: String, entries: [Entry], metadata: [String: String] = ["format": "pt"]
  ) throws {
    self.path = path
    let ordered = entries.enumerated().sorted { first, second in
      (-first.element.alignment, first.offset) < (-second.element.alignment, second.offset)
    }.map(\.element)
    var metadata = metadata
    for entry in entries {
      guard let layout = entry.panels else { continue }
      metadata[PanelLayout.metadataPrefix + entry.name] = "\(layout)"
    }

    var members: [(String, JSONValue)] = []
    if !metadata.isEmpty {
      let sorted = metadata.sorted { $0.key < $1.key }
      members.append(("__metadata__", .object(sorted.map { ($0.key, .string($0.value)) })))
    }
    var begin = 0
    for entry in ordered {
      let end = begin + entry.byteCount
      members.append(
        (
          entry.name,
          .object([
            ("dtype", .string(entry.scalarType.safetensorsName)),
            ("shape", .array(entry.shape.map { .integer($0) })),
            ("data_offsets", .array([.integer(begin), .integer(end)])),
          ])
        ))
      begin = end
    }
    var header = Array(JSONValue.object(members).compactText.utf8)
    // The length before it takes 8 bytes. Panels' sizes are multiples of their alignment.
    let alignment = max(8, ordered.first?.alignment ?? 0)
    while !(8 + header.count).isMultiple(of: alignment) { header.append(0x20) }
    precondition(header.count <= SafetensorsHeader.maximumLength, "a header over the format's cap")

    var places: [String: Place] = [:]
    var offset = 8 + header.count
    for entry in ordered {
      let place = Place(
        byteCount: entry.byteCount, offset: offset, scalarType: entry.scalarType,
        shape: entry.shape)
      guard places.updateValue(place, forKey: entry.name) == nil, entry.name != "__metadata__"
      else { throw CheckpointError.duplicateName(file: path, name: entry.name) }
      offset += entry.byteCount
    }
    self.places = places
    byteCount = offset
    file = try AtomicFile(path: path, byteCount: offset)
    let length = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) }
    try (length + header).withUnsafeBytes { try file.write($0, at: 0) }
  }

  /// Writes a whole tensor.
  ///
  /// - Throws: ``CheckpointError/diskFull(file:byteCount:)``,
  ///   ``CheckpointError/unwritable(file:reason:)``.
  public func write(_ name: String, _ tensor: Tensor) throws {
    let place = place(name)
    precondition(
      place.scalarType == tensor.scalarType && place.shape == tensor.shape,
      "\(name) was announced as \(place.scalarType) \(place.shape)")
    try withExtendedLifetime(tensor.storage) {
      try write(
        name, at: 0,
        UnsafeRawBufferPointer(start: tensor.baseAddress, count: tensor.byteCount))
    }
  }

  /// Writes a part of a tensor, `byteOffset` bytes from its beginning. Parts do not overlap.
  ///
  /// - Throws: what ``write(_:_:)`` throws.
  public func write(_ name: String, at byteOffset: Int, _ bytes: UnsafeRawBufferPointer) throws {
    let place = place(name)
    precondition(
      byteOffset >= 0 && byteOffset + bytes.count <= place.byteCount,
      "bytes \(byteOffset) to \(byteOffset + bytes.count) of \(name)")
    try file.write(bytes, at: place.offset + byteOffset)
    writtenBytes.withLock { $0[name, default: 0] += bytes.count }
  }

  /// Flushes the file to disk and gives it its name, replacing what had it.
  ///
  /// - Throws: ``CheckpointError/incompleteTensor(file:tensor:written:expected:)`` when a tensor
  ///   was not written in full, and what ``write(_:_:)`` throws; the file that had the name is
  ///   then untouched.
  public func commit() throws {
    let written = writtenBytes.withLock { $0 }
    for (name, place) in places.sorted(by: { $0.value.offset < $1.value.offset })
    where written[name, default: 0] != place.byteCount {
      throw CheckpointError.incompleteTensor(
        file: path, tensor: name, written: written[name, default: 0], expected: place.byteCount)
    }
    try file.commit()
  }

  /// Writes a file of tensors that are all at hand.
  ///
  /// - Throws: what ``init(path:entries:metadata:)`` and ``write(_:_:)`` throw.
  public static func write(
    _ tensors: [(name: String, tensor: Tensor)], metadata: [String: String] = ["format": "pt"],
    to path: String
  ) throws {
    let writer = try SafetensorsWriter(
      path: path,
      entries: tensors.map { Entry($0.name, $0.tensor.scalarType, $0.tensor.shape) },
      metadata: metadata)
    for (name, tensor) in tensors { try writer.write(name, tensor) }
    try writer.commit()
  }

  private func place(_ name: String) -> Place {
    guard let place = places[name] else { preconditionFailure("\(name) was not announced") }
    return place
  }
}
