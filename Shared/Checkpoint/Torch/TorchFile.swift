import Tensors

/// A file that `torch.save` wrote.
final class TorchFile: TensorFile {
  let path: String
  let names: [String] = []

  init(path: String) throws {
    self.path = path
    throw CheckpointError.invalidArchive(file: path, reason: "not yet read")
  }

  func tensor(_ name: String, neededFor: String?) throws -> Tensor {
    throw CheckpointError.missingTensor(file: path, tensor: name, neededFor: neededFor)
  }

  func requireWeight(_ name: String, shape: [Int], neededFor: String) throws {
    throw CheckpointError.missingTensor(file: path, tensor: name, neededFor: neededFor)
  }
}
