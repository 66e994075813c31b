/// The table of a mesh's services, as text.
public enum MeshTable {
  /// One line for each service under a head line. Lines have at most `width` characters; columns
  /// that do not fit are left out, least needed first, and names are cut before that.
  public static func render(_ services: [ServiceStatus], width: Int) -> String {
    var columns: [Column] = [
      Column("SERVICE", services.map(\.name), need: 0, isNumber: false),
      Column("STATE", services.map(state), need: 0, isNumber: false),
      Column("HOLDS", services.map(holds), need: 2, isNumber: false),
      Column("WEIGHTS", services.map { bytes($0.stage?.weightBytes) }, need: 3, isNumber: true),
      Column("MEMORY", services.map { bytes($0.residentBytes) }, need: 1, isNumber: true),
      Column("CPU", services.map { load($0.cpuLoad) }, need: 5, isNumber: true),
      Column("RESTARTS", services.map { "\($0.restarts)" }, need: 4, isNumber: true),
      Column("UP", services.map { time($0.uptimeSeconds) }, need: 6, isNumber: true),
      Column("PID", services.map { $0.process.map(String.init) ?? "–" }, need: 7, isNumber: true),
    ]
    while total(columns) > width, let least = columns.map(\.need).max(), least > 0 {
      columns.removeAll { $0.need == least }
    }
    let excess = total(columns) - width
    if excess > 0 { columns[0].width = max(1, columns[0].width - excess) }
    let rows = (-1..<services.count).map { row in
      var line = ""
      for (index, column) in columns.enumerated() {
        if index > 0 { line += "  " }
        line += column.cell(row)
      }
      while line.last == " " { line.removeLast() }
      return String(line.prefix(max(0, width)))
    }
    return rows.joined(separator: "\n")
  }

  private struct Column {
    let title: String
    let cells: [String]
    /// 0: always shown; the higher, the sooner it goes.
    let need: Int
    let isNumber: Bool
    var width: Int

    init(_ title: String, _ cells: [String], need: Int, isNumber: Bool) {
      self.title = title
      self.cells = cells
      self.need = need
      self.isNumber = isNumber
      width = max(title.count, cells.map(\.count).max() ?? 0)
    }

    /// -1: the title.
    func cell(_ row: Int) -> String {
      let text = row < 0 ? title : cells[row]
      if text.count > width { return text.prefix(width - 1) + "…" }
      let padding = String(repeating: " ", count: width - text.count)
      return isNumber ? padding + text : text + padding
    }
  }

  private static func total(_ columns: [Column]) -> Int {
    columns.reduce(2 * (columns.count - 1)) { $0 + $1.width }
  }

  private static func state(_ service: ServiceStatus) -> String {
    switch service.state {
    case .stopped, .failed, .restarting:
      service.lastExit.map { "\(service.state.rawValue): \($0)" } ?? service.state.rawValue
    default: service.state.rawValue
    }
  }

  private static func holds(_ service: ServiceStatus) -> String {
    guard let stage = service.stage else { return "–" }
    guard stage.layerCount > 1, stage.endLayer > stage.firstLayer else { return stage.role }
    return "\(stage.role) \(stage.firstLayer)–\(stage.endLayer - 1) of \(stage.layerCount)"
  }

  /// In binary units, three digits: `812 MiB`, `1.62 GiB`.
  static func bytes(_ count: UInt64?) -> String {
    guard let count else { return "–" }
    var amount = Double(count)
    var unit = 0
    // Rounding must not show 1024 of a unit.
    while amount >= 999.5, unit < 4 {
      amount /= 1024
      unit += 1
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB"][unit]
    if unit == 0 { return "\(count) B" }
    return decimal(amount, digits: amount < 9.995 ? 2 : amount < 99.95 ? 1 : 0) + " " + name
  }

  private static func load(_ load: Double?) -> String {
    load.map { decimal($0, digits: 1) } ?? "–"
  }

  static func time(_ seconds: Double?) -> String {
    guard let seconds, seconds.isFinite, seconds >= 0 else { return "–" }
    let whole = Int(min(seconds, 1e12))
    switch whole {
    case ..<60: return "\(whole)s"
    case ..<3600: return "\(whole / 60)m\(whole % 60)s"
    case ..<86400: return "\(whole / 3600)h\(whole % 3600 / 60)m"
    default: return "\(whole / 86400)d\(whole % 86400 / 3600)h"
    }
  }

  private static func decimal(_ value: Double, digits: Int) -> String {
    var scale = 1
    for _ in 0..<digits { scale *= 10 }
    let scaled = Int((value * Double(scale)).rounded())
    guard digits > 0 else { return "\(scaled)" }
    let fraction = "\(scaled % scale)"
    return "\(scaled / scale)." + String(repeating: "0", count: digits - fraction.count) + fraction
  }
}
