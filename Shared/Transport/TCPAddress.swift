#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A resolved TCP address.
struct TCPAddress {
  let family: Int32
  private let bytes: [UInt8]

  /// Blocks while a name is looked up.
  /// - Throws: ``RPCError``/UNAVAILABLE when there is no such host.
  static func resolve(_ host: String, _ port: UInt16, toServe: Bool) throws -> [TCPAddress] {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    hints.ai_flags = AI_NUMERICSERV | (toServe ? AI_PASSIVE : 0)
    var list: UnsafeMutablePointer<addrinfo>?
    let failure = getaddrinfo(host, String(port), &hints, &list)
    guard failure == 0 else {
      throw RPCError(.unavailable, "host \(host): \(String(cString: gai_strerror(failure)))")
    }
    defer { freeaddrinfo(list) }
    var addresses: [TCPAddress] = []
    var next = list
    while let entry = next {
      if let address = entry.pointee.ai_addr {
        addresses.append(
          TCPAddress(
            family: entry.pointee.ai_family,
            bytes: Array(
              UnsafeRawBufferPointer(start: address, count: Int(entry.pointee.ai_addrlen)))))
      }
      next = entry.pointee.ai_next
    }
    return addresses
  }

  func withPointer<Result>(_ body: (UnsafePointer<sockaddr>?, socklen_t) -> Result) -> Result {
    bytes.withUnsafeBytes {
      body($0.baseAddress?.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
    }
  }

  /// The port a socket is bound to.
  static func port(of socket: Int32) -> UInt16? {
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        guard getsockname(socket, $0, &length) == 0 else { return nil }
        // The port stands at the same place in both families.
        return UnsafeRawPointer($0).load(fromByteOffset: 2, as: UInt16.self).bigEndian
      }
    }
  }
}
