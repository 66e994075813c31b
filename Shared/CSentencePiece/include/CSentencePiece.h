#ifndef CHIASM_CSENTENCEPIECE_H
#define CHIASM_CSENTENCEPIECE_H

// A C door to libsentencepiece: byte-pair models, encoding only.
//
// Decoding is a few rules over pieces and lives in Swift. No exception and no C++ type crosses
// this header. A model is immutable once opened: any number of threads may encode with it.

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct csp_model csp_model;

// The types of a piece, numbered as in sentencepiece_model.proto.
enum {
  CSP_NORMAL = 1,
  CSP_UNKNOWN = 2,
  CSP_CONTROL = 3,
  CSP_USER_DEFINED = 4,
  CSP_UNUSED = 5,
  CSP_BYTE = 6,
};

typedef struct {
  int32_t piece_count;
  // What an unknown token is decoded to, UTF-8, not terminated; lives as long as the model.
  const char *unknown_surface;
  size_t unknown_surface_size;
  int adds_dummy_prefix;
  int removes_extra_whitespaces;
  int has_byte_fallback;
} csp_traits;

typedef struct {
  size_t count;
  int32_t *ids;
  // The pieces' UTF-8 in one run; piece i ends before ends[i].
  char *bytes;
  size_t *ends;
} csp_encoding;

// Opens the contents of a tokenizer.model. They are checked before libsentencepiece sees them:
// the library trusts its models, and some malformed ones make it read out of bounds.
//
// without_dummy_prefix: opens the model with add_dummy_prefix off, whatever it says.
// Returns NULL and writes the reason, zero-terminated and cut to capacity, to message.
csp_model *csp_open(const uint8_t *bytes, size_t count, int without_dummy_prefix, char *message,
                    size_t capacity);
void csp_close(csp_model *model);

csp_traits csp_describe(const csp_model *model);

// The bytes of piece `id` (UTF-8, not terminated; lives as long as the model), its size and its
// type. NULL when there is no such piece.
const char *csp_piece(const csp_model *model, int32_t id, size_t *size, int *type);

// Encodes UTF-8 text. Returns 0 and fills `encoding`, which the caller frees; otherwise writes
// the reason to message.
int csp_encode(const csp_model *model, const char *text, size_t size, csp_encoding *encoding,
               char *message, size_t capacity);
void csp_encoding_free(csp_encoding *encoding);

#ifdef __cplusplus
}
#endif

#endif
