#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>

#include "CSentencePiece.h"
#include "model_check.h"

struct csp_model {
  std::string bytes;  // the summary's views point here
  chiasm::ModelSummary summary;
  sentencepiece::SentencePieceProcessor processor;
};

namespace {

void Report(std::string_view text, char *message, size_t capacity) {
  if (message == nullptr || capacity == 0) return;
  const size_t size = std::min(text.size(), capacity - 1);
  std::memcpy(message, text.data(), size);
  message[size] = '\0';
}

// ModelProto { normalizer_spec { add_dummy_prefix: false } }: protobuf messages merge when their
// bytes are joined.
constexpr std::string_view kNoDummyPrefix("\x1a\x02\x18\x00", 4);

}  // namespace

csp_model *csp_open(const uint8_t *bytes, size_t count, int without_dummy_prefix, char *message,
                    size_t capacity) {
  try {
    auto model = std::make_unique<csp_model>();
    model->bytes.assign(reinterpret_cast<const char *>(bytes), count);
    if (without_dummy_prefix) model->bytes.append(kNoDummyPrefix);
    const std::string problem = chiasm::CheckModel(model->bytes, &model->summary);
    if (!problem.empty()) {
      Report(problem, message, capacity);
      return nullptr;
    }
    const auto status = model->processor.LoadFromSerializedProto(model->bytes);
    if (!status.ok()) {
      Report(status.message(), message, capacity);
      return nullptr;
    }
    return model.release();
  } catch (const std::exception &error) {
    Report(error.what(), message, capacity);
  } catch (...) {
    Report("libsentencepiece failed", message, capacity);
  }
  return nullptr;
}

void csp_close(csp_model *model) { delete model; }

csp_traits csp_describe(const csp_model *model) {
  const chiasm::ModelSummary &summary = model->summary;
  return {static_cast<int32_t>(summary.pieces.size()), summary.unknown_surface.data(),
          summary.unknown_surface.size(), summary.adds_dummy_prefix,
          summary.removes_extra_whitespaces, summary.has_byte_fallback};
}

const char *csp_piece(const csp_model *model, int32_t id, size_t *size, int *type) {
  const auto &pieces = model->summary.pieces;
  if (id < 0 || static_cast<size_t>(id) >= pieces.size()) return nullptr;
  *size = pieces[id].text.size();
  *type = pieces[id].type;
  return pieces[id].text.data();
}

int csp_encode(const csp_model *model, const char *text, size_t size, csp_encoding *encoding,
               char *message, size_t capacity) {
  *encoding = {};
  try {
    sentencepiece::ImmutableSentencePieceText result;
    const auto status =
        model->processor.Encode(absl::string_view(text, size), result.mutable_proto());
    if (!status.ok()) {
      Report(status.message(), message, capacity);
      return 1;
    }
    const size_t count = result.pieces_size();
    size_t total = 0;
    for (size_t i = 0; i < count; ++i) total += result.pieces(static_cast<int>(i)).piece().size();
    // One more than needed: malloc(0) may return NULL.
    encoding->ids = static_cast<int32_t *>(std::malloc((count + 1) * sizeof(int32_t)));
    encoding->ends = static_cast<size_t *>(std::malloc((count + 1) * sizeof(size_t)));
    encoding->bytes = static_cast<char *>(std::malloc(total + 1));
    if (!encoding->ids || !encoding->ends || !encoding->bytes) {
      csp_encoding_free(encoding);
      Report("out of memory", message, capacity);
      return 1;
    }
    size_t end = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto piece = result.pieces(static_cast<int>(i));
      std::memcpy(encoding->bytes + end, piece.piece().data(), piece.piece().size());
      end += piece.piece().size();
      encoding->ids[i] = static_cast<int32_t>(piece.id());
      encoding->ends[i] = end;
    }
    encoding->count = count;
    return 0;
  } catch (const std::exception &error) {
    Report(error.what(), message, capacity);
  } catch (...) {
    Report("libsentencepiece failed", message, capacity);
  }
  csp_encoding_free(encoding);
  return 1;
}

void csp_encoding_free(csp_encoding *encoding) {
  std::free(encoding->ids);
  std::free(encoding->ends);
  std::free(encoding->bytes);
  *encoding = {};
}
