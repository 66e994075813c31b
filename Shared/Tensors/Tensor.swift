#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A dense row-major array: a shape and a scalar type over shared ``Storage``.
///
/// A tensor is a reference to its bytes: copies of the value see the same elements, and an
/// operation writes its result into a tensor it is given. Views made by ``rows(_:)`` and
/// ``reshaped(_:)`` copy nothing.
public struct Tensor: Sendable {
  public let scalarType: ScalarType
  public let shape: [Int]
  public let storage: Storage
  /// Where the first element lies in the storage.
  public let byteOffset: Int

  /// Number of elements.
  public let count: Int

  /// A tensor over part of a storage.
  ///
  /// - Throws: ``TensorError/invalidShape(_:)`` when a dimension is negative, the byte count
  ///   overflows, or the bytes do not lie inside the storage.
  public init(
    _ scalarType: ScalarType, _ shape: [Int], storage: Storage, byteOffset: Int = 0
  ) throws {
    let count = try Tensor.elementCount(shape)
    let (bytes, overflow) = count.multipliedReportingOverflow(by: scalarType.byteCount)
    guard !overflow, byteOffset >= 0, byteOffset <= storage.byteCount,
      bytes <= storage.byteCount - byteOffset
    else { throw TensorError.invalidShape(shape) }
    self.init(unchecked: scalarType, shape, count, storage, byteOffset)
  }

  private init(
    unchecked scalarType: ScalarType, _ shape: [Int], _ count: Int, _ storage: Storage,
    _ byteOffset: Int
  ) {
    self.scalarType = scalarType
    self.shape = shape
    self.count = count
    self.storage = storage
    self.byteOffset = byteOffset
  }

  /// Zeros on the heap. The shape is the caller's own, not read from outside.
  public init(zeros scalarType: ScalarType, _ shape: [Int]) {
    let count = Tensor.trustedCount(shape)
    self.init(
      unchecked: scalarType, shape, count, Storage(zeroed: count * scalarType.byteCount), 0)
  }

  /// Uninitialized elements on the heap, for a result about to be written in full.
  public init(uninitialized scalarType: ScalarType, _ shape: [Int]) {
    let count = Tensor.trustedCount(shape)
    self.init(
      unchecked: scalarType, shape, count, Storage(uninitialized: count * scalarType.byteCount), 0)
  }

  /// A float32 copy of `values`, in row-major order.
  public init(_ values: [Float], _ shape: [Int]) {
    self.init(uninitialized: .float32, shape)
    precondition(values.count == count, "\(values.count) values for shape \(shape)")
    withElements(of: Float.self) { elements in
      _ = elements.initialize(from: values)
    }
  }

  /// Number of bytes the elements take.
  public var byteCount: Int { count * scalarType.byteCount }

  /// The first element's address. The bytes stay valid only while a tensor over the storage
  /// is alive; prefer ``withElements(of:_:)``.
  public var baseAddress: UnsafeMutableRawPointer { storage.base + byteOffset }

  /// Calls `body` with the elements, which must not escape it.
  @inlinable
  public func withElements<Element, Result>(
    of type: Element.Type, _ body: (UnsafeMutableBufferPointer<Element>) throws -> Result
  ) rethrows -> Result {
    precondition(MemoryLayout<Element>.size == scalarType.byteCount)
    return try withExtendedLifetime(storage) {
      try body(
        UnsafeMutableBufferPointer(
          start: baseAddress.assumingMemoryBound(to: type), count: count))
    }
  }

  /// The elements of a float32 or bfloat16 tensor, widened to Float.
  public var floats: [Float] {
    switch scalarType {
    case .float32: withElements(of: Float.self) { Array($0) }
    case .bfloat16:
      withElements(of: UInt16.self) { $0.map { Float(bitPattern: UInt32($0) << 16) } }
    case .int64, .int32, .uint8: preconditionFailure("floats of a \(scalarType) tensor")
    }
  }

  /// A float32 copy of a float32 or bfloat16 tensor, on the heap.
  public func widened() -> Tensor {
    let copy = Tensor(uninitialized: .float32, shape)
    switch scalarType {
    case .float32: copy.copyElements(from: self)
    case .bfloat16:
      withElements(of: UInt16.self) { halves in
        copy.withElements(of: UInt32.self) { words in
          for index in halves.indices { words[index] = UInt32(halves[index]) << 16 }
        }
      }
    case .int64, .int32, .uint8: preconditionFailure("floats of a \(scalarType) tensor")
    }
    return copy
  }

  /// The same elements in another shape of the same element count.
  public func reshaped(_ shape: [Int]) -> Tensor {
    precondition(Tensor.trustedCount(shape) == count, "\(self.shape) reshaped to \(shape)")
    return Tensor(unchecked: scalarType, shape, count, storage, byteOffset)
  }

  /// Rows `range` of the first dimension, as a view.
  public func rows(_ range: Range<Int>) -> Tensor {
    precondition(
      !shape.isEmpty && range.lowerBound >= 0 && range.upperBound <= shape[0],
      "rows \(range) of shape \(shape)")
    let rowCount = shape.dropFirst().reduce(1, *)
    return Tensor(
      unchecked: scalarType, [range.count] + shape.dropFirst(), range.count * rowCount, storage,
      byteOffset + range.lowerBound * rowCount * scalarType.byteCount)
  }

  /// One entry of the first dimension, as a view without that dimension.
  public subscript(index: Int) -> Tensor {
    rows(index..<index + 1).reshaped(Array(shape.dropFirst()))
  }

  /// Copies the elements of a tensor of the same type and count into this one.
  public func copyElements(from other: Tensor) {
    precondition(other.byteCount == byteCount && other.scalarType == scalarType)
    withExtendedLifetime((storage, other.storage)) {
      baseAddress.copyMemory(from: other.baseAddress, byteCount: byteCount)
    }
  }

  /// Lets go of the memory of elements that lie in a mapped file and will hardly be read again;
  /// whoever reads them gets them from the file. Others are left alone.
  public func giveBackPages() {
    guard storage.isMappedFile, byteCount > 0 else { return }
    let page = Int(getpagesize())
    let start = UInt(bitPattern: baseAddress) / UInt(page) * UInt(page)
    let end = UInt(bitPattern: baseAddress) + UInt(byteCount)
    withExtendedLifetime(storage) {
      _ = madvise(UnsafeMutableRawPointer(bitPattern: start), Int(end - start), MADV_DONTNEED)
    }
  }

  /// - Throws: ``TensorError/shapeMismatch(what:expected:found:)``.
  public func require(shape expected: [Int], _ what: @autoclosure () -> String) throws {
    guard shape == expected else {
      throw TensorError.shapeMismatch(what: what(), expected: expected, found: shape)
    }
  }

  /// - Throws: ``TensorError/scalarTypeMismatch(what:expected:found:)``.
  public func require(_ types: ScalarType..., what: @autoclosure () -> String) throws {
    guard types.contains(scalarType) else {
      throw TensorError.scalarTypeMismatch(what: what(), expected: types, found: scalarType)
    }
  }

  /// The product of the dimensions.
  ///
  /// - Throws: ``TensorError/invalidShape(_:)`` when one is negative or the product overflows.
  public static func elementCount(_ shape: [Int]) throws -> Int {
    var count = 1
    for dimension in shape {
      let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
      guard dimension >= 0, !overflow else { throw TensorError.invalidShape(shape) }
      count = product
    }
    return count
  }

  private static func trustedCount(_ shape: [Int]) -> Int { shape.reduce(1, *) }
}
