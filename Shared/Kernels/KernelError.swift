/// Ways in which an operation cannot be carried out, besides wrong shapes.
public enum KernelError: Error, Equatable, CustomStringConvertible {
  /// A token id that the embedding table has no row for.
  case tokenOutOfRange(id: Int, rows: Int)
  /// A device name other than `cpu` and `cuda:N`.
  case unknownDevice(String)
  /// A device kind that this build has no code for, or this machine does not have.
  case deviceUnavailable(String, reason: String)

  public var description: String {
    switch self {
    case .tokenOutOfRange(let id, let rows):
      "token id \(id) is outside the embedding table of \(rows) rows; "
        + "the tokenizer and the model do not belong together"
    case .unknownDevice(let name):
      "\(name) is no device; give cpu or cuda:N"
    case .deviceUnavailable(let name, let reason):
      "device \(name) cannot be used: \(reason); give --device cpu"
    }
  }
}
