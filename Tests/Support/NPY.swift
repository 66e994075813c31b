import Tensors

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// NumPy's array files, as far as fixtures use them: version 1, little-endian float32, C order.
public enum NPY {
  public enum Failure: Error, CustomStringConvertible {
    case unreadable(String, reason: String)

    public var description: String {
      switch self {
      case .unreadable(let path, let reason): "\(path) is no float32 array file: \(reason)"
      }
    }
  }

  /// Reads the array at `path`.
  public static func read(_ path: String) throws -> Tensor {
    let bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
    guard bytes.count >= 10, Array(bytes[..<8]) == [0x93] + Array("NUMPY".utf8) + [1, 0] else {
      throw Failure.unreadable(path, reason: "it does not begin with version 1's magic bytes")
    }
    let start = 10 + Int(bytes[8]) + Int(bytes[9]) << 8
    guard start <= bytes.count else { throw Failure.unreadable(path, reason: "it is cut short") }
    let header = String(decoding: bytes[10..<start], as: UTF8.self)
    guard header.contains("'descr': '<f4'"), header.contains("'fortran_order': False"),
      let open = header.firstIndex(of: "("), let close = header.firstIndex(of: ")")
    else { throw Failure.unreadable(path, reason: "its header says \(header)") }
    let shape = header[header.index(after: open)..<close].split(separator: ",").compactMap {
      Int($0.filter { $0 != " " })
    }
    let tensor = Tensor(zeros: .float32, shape)
    guard tensor.byteCount == bytes.count - start else {
      throw Failure.unreadable(path, reason: "its elements do not fill the shape \(shape)")
    }
    tensor.withElements(of: Float.self) { elements in
      bytes[start...].withUnsafeBytes {
        UnsafeMutableRawBufferPointer(elements).copyMemory(from: $0)
      }
    }
    return tensor
  }
}
