/// The name somebody meant to type.
public enum NearestName {
  /// The candidate with the fewest edits (insert, delete, replace, or swap of neighbours), if few
  /// enough for a slip: two, or a quarter of a long word's letters.
  public static func of(_ word: String, in candidates: some Sequence<String>) -> String? {
    let letters = Array(word.lowercased())
    let limit = min(max(2, letters.count / 4), max(1, letters.count / 2))
    var best: (word: String, distance: Int)?
    for candidate in candidates.sorted() {
      let other = Array(candidate.lowercased())
      // A word far too long to be a slip needs no table.
      guard abs(letters.count - other.count) <= limit else { continue }
      let distance = distance(letters, other)
      if distance <= limit, distance < best?.distance ?? .max { best = (candidate, distance) }
    }
    return best?.word
  }

  /// Optimal string alignment.
  private static func distance(_ a: [Character], _ b: [Character]) -> Int {
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
