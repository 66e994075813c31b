#include "model_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "CSentencePiece.h"

namespace chiasm {
namespace {

// Far above every model in use (largest known vocabulary: 256,000 pieces), far below trouble.
constexpr size_t kMaxPieces = size_t{1} << 20;
// The library re-segments unused pieces by recursion, one level a character.
constexpr size_t kMaxPieceBytes = 1024;
// Lists inside these parts cost the parser many bytes of memory for each byte of file.
constexpr size_t kMaxTrainerBytes = size_t{1} << 20;
constexpr size_t kMaxSelfTestBytes = size_t{1} << 20;
constexpr size_t kMaxNormalizerBytes = size_t{1} << 24;
// The library collects the prefixes found by a trie search in arrays of fixed size, and reads on
// past their end when there are more (normalizer.h: 32 for rules, 64 for user-defined pieces).
constexpr int kMaxNestedRules = 32;
constexpr size_t kMaxNestedSymbols = 64;

enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint64_t number = 0;
  int wire = 0;
  uint64_t value = 0;      // varint and fixed
  std::string_view bytes;  // length-delimited
};

// Steps through the fields of one protobuf message.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  bool Next(Field *field) {
    if (rest_.empty()) return false;
    uint64_t key = 0;
    if (!Varint(&key)) return Fail();
    field->number = key >> 3;
    field->wire = static_cast<int>(key & 7);
    if (field->number == 0 || field->number > 0x1fffffff) return Fail();
    switch (field->wire) {
      case kVarint:
        return Varint(&field->value) || Fail();
      case kFixed64:
        return Fixed(8, &field->value) || Fail();
      case kFixed32:
        return Fixed(4, &field->value) || Fail();
      case kBytes: {
        uint64_t size = 0;
        if (!Varint(&size) || size > rest_.size()) return Fail();
        field->bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return true;
      }
      default:
        return Fail();
    }
  }

  bool failed() const { return failed_; }

 private:
  bool Fail() {
    failed_ = true;
    return false;
  }

  bool Varint(uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (rest_.empty()) return false;
      const uint64_t byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      if (shift < 64) *value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool Fixed(size_t size, uint64_t *value) {
    if (rest_.size() < size) return false;
    *value = 0;
    for (size_t i = 0; i < size; ++i)
      *value |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
  bool failed_ = false;
};

bool IsUTF8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const size_t size = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3
                        : lead < 0xf5 ? 4 : 0;
    if (size == 0 || text.size() - i < size) return false;
    uint32_t scalar = size == 1 ? lead : lead & (0x7f >> size);
    for (size_t k = 1; k < size; ++k) {
      const auto byte = static_cast<uint8_t>(text[i + k]);
      if ((byte & 0xc0) != 0x80) return false;
      scalar = scalar << 6 | (byte & 0x3f);
    }
    constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    if (scalar < kLeast[size] || scalar > 0x10ffff || (scalar >= 0xd800 && scalar < 0xe000))
      return false;
    i += size;
  }
  return true;
}

std::string At(const char *what, size_t index, const char *complaint) {
  return std::string(what) + " " + std::to_string(index) + " " + complaint;
}

std::string ReadPiece(std::string_view bytes, size_t index, Piece *piece) {
  piece->type = CSP_NORMAL;
  Fields fields(bytes);
  for (Field field; fields.Next(&field);) {
    if (field.number == 1 && field.wire == kBytes) {
      piece->text = field.bytes;
    } else if (field.number == 2 && field.wire == kFixed32) {
      float score = 0;
      const auto bits = static_cast<uint32_t>(field.value);
      std::memcpy(&score, &bits, sizeof score);
      // The queue of merges is ordered by score.
      if (!std::isfinite(score)) return At("piece", index, "has a score that is not finite");
    } else if (field.number == 3 && field.wire == kVarint) {
      if (field.value < CSP_NORMAL || field.value > CSP_BYTE)
        return At("piece", index, "has a type that is not defined");
      piece->type = static_cast<int>(field.value);
    } else if (field.number <= 3) {
      return At("piece", index, "has a field of the wrong wire type");
    }
  }
  if (fields.failed()) return At("piece", index, "is not a protobuf message");
  if (piece->text.empty()) return At("piece", index, "is empty");
  if (piece->text.size() > kMaxPieceBytes) return At("piece", index, "is longer than 1,024 bytes");
  if (!IsUTF8(piece->text)) return At("piece", index, "is not UTF-8");
  if (piece->type == CSP_USER_DEFINED && piece->text.find('\0') != std::string_view::npos)
    return At("piece", index, "is user-defined and holds a zero byte");
  return "";
}

std::string ReadTrainer(std::string_view bytes, int *model_type, ModelSummary *summary) {
  Fields fields(bytes);
  for (Field field; fields.Next(&field);) {
    if (field.number == 3 && field.wire == kVarint) {
      *model_type = static_cast<int>(std::min<uint64_t>(field.value, 1000));
    } else if (field.number == 35 && field.wire == kVarint) {
      summary->has_byte_fallback = field.value != 0;
    } else if (field.number == 44 && field.wire == kBytes) {
      // The library reads it as a C string.
      summary->unknown_surface = field.bytes.substr(0, field.bytes.find('\0'));
    } else if (field.number == 3 || field.number == 35 || field.number == 44) {
      return "the trainer part has a field of the wrong wire type";
    }
  }
  if (fields.failed()) return "the trainer part is not a protobuf message";
  if (!IsUTF8(summary->unknown_surface)) return "the surface of unknown tokens is not UTF-8";
  return "";
}

std::string ReadNormalizer(std::string_view bytes, ModelSummary *summary,
                           std::string_view *rules) {
  Fields fields(bytes);
  for (Field field; fields.Next(&field);) {
    if (field.number == 2 && field.wire == kBytes) {
      *rules = field.bytes;
    } else if (field.number == 3 && field.wire == kVarint) {
      summary->adds_dummy_prefix = field.value != 0;
    } else if (field.number == 4 && field.wire == kVarint) {
      summary->removes_extra_whitespaces = field.value != 0;
    } else if (field.number == 5 && field.wire == kVarint) {
      if (field.value == 0) return "the model does not escape whitespace, which is not supported";
    } else if (field.number >= 2 && field.number <= 5) {
      return "the normalizer part has a field of the wrong wire type";
    }
  }
  if (fields.failed()) return "the normalizer part is not a protobuf message";
  return "";
}

// The rules of a normalizer: the size of a double-array trie (darts-clone), the trie, and the
// replacements, each ended by a zero byte, which the trie's leaves point to. The library walks
// the trie without looking at its size, so every node that can be reached is walked here first.
std::string CheckRules(std::string_view rules) {
  if (rules.empty()) return "";
  const std::string broken = "the table of normalization rules is broken";
  if (rules.size() <= 4) return broken;
  uint32_t trie_size = 0;
  std::memcpy(&trie_size, rules.data(), 4);
  if (trie_size > rules.size() - 4 || trie_size < 4 || trie_size % 4 != 0) return broken;
  std::vector<uint32_t> units(trie_size / 4);
  std::memcpy(units.data(), rules.data() + 4, trie_size);
  const std::string_view replacements = rules.substr(4 + trie_size);
  if (replacements.empty() || replacements.back() != '\0') return broken;

  const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  const auto label = [](uint32_t unit) { return unit & ((1u << 31) | 0xff); };
  const auto has_leaf = [](uint32_t unit) { return (unit >> 8 & 1) == 1; };

  // Depth first. Words with a common ending share its nodes, so a node may have several parents.
  struct Visit {
    size_t unit;
    uint32_t next_byte;
  };
  constexpr int kUnseen = -1, kOpen = -2;
  std::vector<int> leaves(units.size(), kUnseen);  // most on a way down from here, here included
  std::vector<Visit> path;
  const auto enter = [&](size_t index) {
    const uint32_t unit = units[index];
    const size_t base = index ^ offset(unit);
    // Any byte of a text may be tried as a label.
    if ((base | 0xff) >= units.size()) return false;
    if (has_leaf(unit) && (units[base] & 0x7fffffff) >= replacements.size()) return false;
    leaves[index] = kOpen;
    path.push_back({index, 0});
    return true;
  };
  std::vector<int> best(1, 0);  // for each node of the path, of its children seen so far
  if (!enter(0)) return broken;
  while (!path.empty()) {
    Visit &visit = path.back();
    const uint32_t unit = units[visit.unit];
    if (visit.next_byte == 256) {
      const int total = best.back() + (has_leaf(unit) ? 1 : 0);
      if (total > kMaxNestedRules) return broken;
      leaves[visit.unit] = total;
      path.pop_back();
      best.pop_back();
      if (!best.empty()) best.back() = std::max(best.back(), total);
      continue;
    }
    const uint32_t byte = visit.next_byte++;
    const size_t child = visit.unit ^ offset(unit) ^ byte;
    if (label(units[child]) != byte || (byte == 0 && has_leaf(unit))) continue;
    if (leaves[child] == kOpen) return broken;  // a cycle
    if (leaves[child] >= 0) {
      best.back() = std::max(best.back(), leaves[child]);
    } else {
      if (!enter(child)) return broken;
      best.push_back(0);
    }
  }
  return IsUTF8(replacements) ? "" : broken;
}

// The library finds all user-defined pieces that are prefixes of a text at once.
std::string CheckUserDefined(const std::vector<Piece> &pieces) {
  std::vector<std::string_view> symbols;
  for (const Piece &piece : pieces)
    if (piece.type == CSP_USER_DEFINED) symbols.push_back(piece.text);
  std::sort(symbols.begin(), symbols.end());
  std::vector<std::string_view> prefixes;
  for (const std::string_view symbol : symbols) {
    while (!prefixes.empty() && symbol.substr(0, prefixes.back().size()) != prefixes.back())
      prefixes.pop_back();
    prefixes.push_back(symbol);
    if (prefixes.size() > kMaxNestedSymbols)
      return "more than 64 user-defined pieces are prefixes of one another";
  }
  return "";
}

}  // namespace

std::string CheckModel(std::string_view bytes, ModelSummary *summary) {
  int model_type = 1;  // unigram, the proto's default
  std::string_view rules, reverse_rules;
  size_t trainer_bytes = 0, normalizer_bytes = 0, self_test_bytes = 0;
  Fields fields(bytes);
  for (Field field; fields.Next(&field);) {
    if (field.number > 5) continue;
    if (field.wire != kBytes) return "a part of the model has the wrong wire type";
    std::string problem;
    switch (field.number) {
      case 1: {
        if (summary->pieces.size() == kMaxPieces) return "there are more than 1,048,576 pieces";
        Piece piece;
        problem = ReadPiece(field.bytes, summary->pieces.size(), &piece);
        summary->pieces.push_back(piece);
        break;
      }
      case 2:
        trainer_bytes += field.bytes.size();
        if (trainer_bytes > kMaxTrainerBytes) return "the trainer part is larger than 1 MiB";
        problem = ReadTrainer(field.bytes, &model_type, summary);
        break;
      case 3:
        normalizer_bytes += field.bytes.size();
        if (normalizer_bytes > kMaxNormalizerBytes)
          return "the normalizer part is larger than 16 MiB";
        problem = ReadNormalizer(field.bytes, summary, &rules);
        break;
      case 4:
        self_test_bytes += field.bytes.size();
        if (self_test_bytes > kMaxSelfTestBytes) return "the self-test is larger than 1 MiB";
        break;
      case 5: {
        ModelSummary ignored;
        problem = ReadNormalizer(field.bytes, &ignored, &reverse_rules);
        if (!reverse_rules.empty()) return "the model denormalizes, which is not supported";
        break;
      }
    }
    if (!problem.empty()) return problem;
  }
  if (fields.failed() || summary->pieces.empty()) return "this is not a SentencePiece model";
  if (model_type != 2) return "this is not a byte-pair model, the only type supported";
  if (std::string problem = CheckRules(rules); !problem.empty()) return problem;
  return CheckUserDefined(summary->pieces);
}

}  // namespace chiasm
