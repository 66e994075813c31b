import Tensors
import Testing

@testable import Kernels

/// Working memory that operations share.
@Suite struct WorkspaceTests {
  @Test("It is kept, and grows")
  func growth() {
    let workspace = Workspace()
    func address(_ count: Int) -> UnsafeMutableRawPointer {
      workspace.withFloats(count) { room in
        #expect(room.shape == [count])
        for index in 0..<count { room.withElements(of: Float.self) { $0[index] = 1 } }
        return room.baseAddress
      }
    }
    let first = address(1000)
    #expect(address(10) == first)
    #expect(address(0) == first)
    let grown = address(100_000)
    #expect(address(1000) == grown)
  }

  @Test("Who finds it in use gets memory of its own")
  func nested() {
    let workspace = Workspace()
    workspace.withFloats(16) { outer in
      workspace.withFloats(16) { inner in #expect(inner.baseAddress != outer.baseAddress) }
    }
  }

  @Test("It is kept after an error")
  func errors() {
    struct Failure: Error {}
    let workspace = Workspace()
    let first = workspace.withFloats(16) { $0.baseAddress }
    #expect(throws: Failure.self) { try workspace.withFloats(16) { _ in throw Failure() } }
    #expect(workspace.withFloats(16) { $0.baseAddress } == first)
  }
}
