#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// This process.
enum ProcessIdentity {
  static var current: Int32 { getpid() }
}
