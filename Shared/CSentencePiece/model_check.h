#ifndef CHIASM_MODEL_CHECK_H
#define CHIASM_MODEL_CHECK_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chiasm {

struct Piece {
  std::string_view text;
  int type;
};

// What a tokenizer.model says, read without libsentencepiece. Views point into the bytes read.
struct ModelSummary {
  std::vector<Piece> pieces;
  std::string_view unknown_surface = " \xe2\x81\x87 ";
  bool adds_dummy_prefix = true;
  bool removes_extra_whitespaces = true;
  bool has_byte_fallback = false;
};

// Reads the ModelProto in `bytes` and refuses everything that libsentencepiece 0.1.97 would take
// on trust. Returns an empty string, or what is wrong.
std::string CheckModel(std::string_view bytes, ModelSummary *summary);

}  // namespace chiasm

#endif
