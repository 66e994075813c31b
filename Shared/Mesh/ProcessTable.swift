import Glibc

/// What `/proc` says of processes (proc(5)).
enum ProcessTable {
  struct Usage: Equatable {
    /// Resident memory, pages shared with other processes included.
    var residentBytes: UInt64
    /// User and system time.
    var cpuSeconds: Double
    /// Start in clock ticks since boot: with the id, it names a process for good.
    var startTicks: UInt64
    var isZombie: Bool
    var group: Int
  }

  /// nil: no such process.
  static func usage(_ process: Int) -> Usage? {
    guard process > 0, let bytes = try? BoundedFile.read("/proc/\(process)/stat", limit: 4096)
    else { return nil }
    return parse(String(decoding: bytes, as: UTF8.self))
  }

  static func parse(_ stat: String) -> Usage? {
    // The second field is the program's name in parentheses, and may hold any character.
    guard let end = stat.lastIndex(of: ")") else { return nil }
    let fields = stat[stat.index(after: end)...].split(separator: " ")
    guard fields.count > 21, let group = Int(fields[2]), let user = Double(fields[11]),
      let system = Double(fields[12]), let start = UInt64(fields[19]),
      let pages = UInt64(fields[21])
    else { return nil }
    let ticks = Double(max(1, sysconf(Int32(_SC_CLK_TCK))))
    let page = UInt64(max(1, sysconf(Int32(_SC_PAGESIZE))))
    return Usage(
      residentBytes: pages &* page, cpuSeconds: (user + system) / ticks, startTicks: start,
      isZombie: fields[0] == "Z", group: group)
  }

  /// Whether the process that had this id and started then still runs.
  static func isAlive(_ process: Int, startTicks: UInt64) -> Bool {
    guard let usage = usage(process) else { return false }
    return usage.startTicks == startTicks && !usage.isZombie
  }
}

extension ProcessTable {
  /// Seconds since the process that started then has started.
  static func uptime(startTicks: UInt64) -> Double {
    var now = timespec()
    clock_gettime(CLOCK_BOOTTIME, &now)
    let ticks = Double(max(1, sysconf(Int32(_SC_CLK_TCK))))
    return max(0, Double(now.tv_sec) + Double(now.tv_nsec) * 1e-9 - Double(startTicks) / ticks)
  }
}
