import Testing
import Threads

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct PauseTests {
  private struct Broken: Error {}

  /// A pause whose last sleep counted as short, or not.
  private func pause(patience: Duration = .seconds(3600), wasShort: Bool) -> Pause {
    var pause = Pause(patience: patience, short: wasShort ? .seconds(3600) : .zero)
    pause.sleep { usleep(1) }
    return pause
  }

  @Test("a thread sleeps at once the first time, and after a long pause")
  func long() {
    for pause in [Pause(patience: .seconds(3600)), pause(wasShort: false)] {
      var looks = 0
      let found: Int? = pause.look {
        looks += 1
        return 1
      }
      #expect(found == nil)
      #expect(looks == 0)
    }
  }

  @Test("after a short pause it looks until there is something")
  func short() {
    var looks = 0
    let found = pause(wasShort: true).look {
      looks += 1
      return looks == 3 ? "work" : nil
    }
    #expect(found == "work")
    #expect(looks == 3)
  }

  @Test("it does not look for ever", arguments: [Duration.zero, .microseconds(50)])
  func patience(_ patience: Duration) {
    var looks = 0
    let found: Int? = pause(patience: patience, wasShort: true).look {
      looks += 1
      return nil
    }
    #expect(found == nil)
    #expect(looks >= 1)
  }

  @Test("one long pause among short ones is enough to sleep at once")
  func change() {
    var pause = Pause(patience: .seconds(3600), short: .milliseconds(50))
    pause.sleep { usleep(100_000) }
    #expect(pause.look { 1 } == nil)
  }

  @Test("errors of looking and sleeping pass through")
  func errors() {
    let short = pause(wasShort: true)
    #expect(throws: Broken.self) { try short.look { () -> Int? in throw Broken() } }
    var pause = Pause()
    #expect(throws: Broken.self) { try pause.sleep { throw Broken() } }
  }

  @Test("what a sleep returns is handed on")
  func result() {
    var pause = Pause()
    #expect(pause.sleep { 7 } == 7)
  }
}
