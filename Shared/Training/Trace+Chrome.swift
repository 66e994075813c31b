/// The trace event format of Chrome, which Perfetto (ui.perfetto.dev) reads too: an object with
/// `traceEvents`, complete events (`ph` "X") in microseconds, a process of the mesh as a process.
extension Trace {
  /// Bytes of a trace that are read at most.
  public static let fileLimit = 256 << 20

  private static let categories: [(kind: Action.Kind, name: String)] = [
    (.forward, "forward"), (.backward, "backward"), (.backwardInput, "backward_input"),
    (.backwardWeight, "backward_weight"),
  ]

  static func name(_ kind: Action.Kind) -> String {
    categories.first { $0.kind == kind }?.name ?? ""
  }

  /// Times count from the first span.
  public var chromeJSON: String {
    let origin = Trace.bounds(spans).start
    var text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"
    var events: [String] = []
    events.reserveCapacity(spans.count + 2 * processes.count)
    for (index, process) in processes.enumerated() {
      events.append(
        "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":\(index + 1),\"tid\":1,"
          + "\"args\":{\"name\":\(JSONText.quoted(process))}}")
      events.append(
        "{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":\(index + 1),\"tid\":1,"
          + "\"args\":{\"sort_index\":\(index)}}")
    }
    for span in spans {
      events.append(
        "{\"ph\":\"X\",\"name\":\"\(span.action)\",\"cat\":\"\(Trace.name(span.action.kind))\","
          + "\"pid\":\(span.process + 1),\"tid\":1,\"ts\":\(span.start - origin),"
          + "\"dur\":\(span.duration),\"args\":{\"step\":\(span.step),"
          + "\"micro_batch\":\(span.action.microBatch),\"chunk\":\(span.action.chunk)}}")
    }
    text += events.joined(separator: ",\n")
    return text + "\n]}\n"
  }

  /// Reads what ``chromeJSON`` writes. Events of other kinds, which other tools add, are passed
  /// over; a bare list of events is taken too.
  ///
  /// - Throws: ``TrainingError/traceTooLarge(found:limit:)``,
  ///   ``TrainingError/invalidJSON(offset:reason:)``,
  ///   ``TrainingError/invalidTrace(event:reason:)``.
  public init(chromeJSON bytes: [UInt8], limit: Int = 1_000_000) throws {
    guard bytes.count <= Trace.fileLimit else {
      throw TrainingError.traceTooLarge(found: bytes.count, limit: Trace.fileLimit)
    }
    let root = try JSONText.parse(bytes)
    let events: [JSONText]
    switch (root, root["traceEvents"]) {
    case (.array(let list), _), (_, .array(let list)?): events = list
    default: throw TrainingError.invalidTrace(event: 0, reason: "there is no list traceEvents")
    }
    // Sorted by what the writer numbered; the numbers themselves may be anything.
    var names: [Int: String] = [:]
    var order: [Int: Int] = [:]
    var seen: Set<Int> = []
    var found: [(pid: Int, span: Span)] = []
    for (index, event) in events.enumerated() {
      func refuse(_ reason: String) -> TrainingError { .invalidTrace(event: index, reason: reason) }
      func count(_ value: JSONText?, _ name: String) throws -> Int {
        guard let number = value?.double, let count = Int(exactly: number),
          (0...Int(Trace.timeLimit)).contains(count)
        else { throw refuse("\(name) is no count") }
        return count
      }
      func time(_ value: JSONText?, _ name: String) throws -> Int64 {
        guard let number = value?.double, (0...Double(Trace.timeLimit)).contains(number) else {
          throw refuse("\(name) is no time in microseconds")
        }
        return Int64(number.rounded())
      }
      switch event["ph"]?.text {
      case "M":
        let pid = try count(event["pid"], "pid")
        if event["name"]?.text == "process_name", let name = event["args"]?["name"]?.text {
          names[pid] = String(name.prefix(256))
        } else if event["name"]?.text == "process_sort_index" {
          order[pid] = try count(event["args"]?["sort_index"], "sort_index")
        }
      case "X":
        let category = event["cat"]?.text
        guard let kind = Trace.categories.first(where: { $0.name == category })?.kind else {
          continue
        }
        let pid = try count(event["pid"], "pid")
        let arguments = event["args"]
        let chunk = try arguments?["chunk"].map { try count($0, "chunk") } ?? 0
        let action = Action(
          kind, microBatch: try count(arguments?["micro_batch"], "micro_batch"), chunk: chunk)
        seen.insert(pid)
        found.append(
          (
            pid,
            Span(
              process: 0, step: try count(arguments?["step"], "step"), action: action,
              start: try time(event["ts"], "ts"), duration: try time(event["dur"], "dur"))
          ))
      default: continue
      }
    }
    let pids = seen.union(names.keys).sorted { (order[$0] ?? $0, $0) < (order[$1] ?? $1, $1) }
    guard pids.count <= 4096 else {
      throw TrainingError.invalidTrace(event: 0, reason: "\(pids.count) processes, 4096 at most")
    }
    var places: [Int: Int] = [:]
    for (place, pid) in pids.enumerated() { places[pid] = place }
    self.init(processes: pids.map { names[$0] ?? "process \($0)" }, limit: limit)
    for entry in found {
      var span = entry.span
      span.process = places[entry.pid] ?? 0
      add(span)
    }
  }
}
