/// Finds the word somebody meant to type.
enum Spelling {
  /// The candidate with the fewest edits, if few enough for a slip: at most two, and fewer than
  /// half of the word's letters.
  static func nearest(to word: String, in candidates: some Sequence<String>) -> String? {
    let limit = min(2, max(1, word.count / 2))
    var best: (word: String, distance: Int)?
    for candidate in candidates.sorted() {
      let distance = distance(Array(word.lowercased()), Array(candidate.lowercased()))
      if distance <= limit, distance < best?.distance ?? .max {
        best = (candidate, distance)
      }
    }
    return best?.word
  }

  /// Edits between two words: insert, delete, replace, or swap of neighbours (optimal string
  /// alignment).
  private static func distance(_ a: [Character], _ b: [Character]) -> Int {
    // A word far too long to be a slip needs no table.
    guard abs(a.count - b.count) <= 2 else { return .max }
    var beforeLast: [Int] = []
    var last = Array(0...b.count)
    for i in a.indices {
      var row = [i + 1]
      for j in b.indices {
        var cost = min(last[j + 1] + 1, row[j] + 1, last[j] + (a[i] == b[j] ? 0 : 1))
        if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] {
          cost = min(cost, beforeLast[j - 1] + 1)
        }
        row.append(cost)
      }
      beforeLast = last
      last = row
    }
    return last[b.count]
  }
}
