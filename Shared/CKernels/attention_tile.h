// Products of small tiles, the lanes along the outputs: C[m][n] = Σ_k A[m][k] · B[k][n], one
// chain of fused multiply-adds in order of k.
//
// B lies in panels of sixteen outputs, [depth][16] each; its elements may be narrower than float
// and are widened exactly.

typedef uint16_t halves16 __attribute__((ext_vector_type(16)));
typedef int8_t bytes16 __attribute__((ext_vector_type(16)));

/// Where the elements of A lie.
enum attention_layout {
  /// Packed: [depth][rows of the tile].
  PACKED,
  /// Rows of ATTENTION_BLOCK.
  ROWS,
  /// The transpose of that: rows of A are columns.
  COLUMNS,
};

enum { ATTENTION_BLOCK = CK_ATTENTION_BLOCK, ATTENTION_ROWS = 6 };

/// Panels computed at once: enough chains to hide the latency of an addition, few enough that
/// their sums stay in registers.
CK_INLINE size_t panels_at_once(size_t rows) {
  if (CK_WIDTH == 16) return 4;
  if (CK_WIDTH == 8) return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
  return 1;
}

CK_INLINE v16 load_widened(const void *p, size_t index, ck_cache_type type) {
  if (type == CK_CACHE_FLOAT32) return load16((const float *)p + index);
  if (type == CK_CACHE_BFLOAT16) {
    halves16 halves;
    memcpy(&halves, (const uint16_t *)p + index, sizeof halves);
    return (v16)(__builtin_convertvector(halves, u16x32) << 16);
  }
  bytes16 bytes;
  memcpy(&bytes, (const int8_t *)p + index, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, i16x32), v16);
}

CK_INLINE size_t element_bytes(ck_cache_type type) {
  return type == CK_CACHE_FLOAT32 ? 4 : type == CK_CACHE_BFLOAT16 ? 2 : 1;
}

CK_INLINE void attention_tile(
    size_t rows, size_t panels, enum attention_layout layout, ck_cache_type type, bool adding,
    bool fetching, size_t depth, const float *a, const void *b, size_t b_panel, float *c,
    size_t c_row, size_t c_panel, const char *next) {
  v16 sums[ATTENTION_ROWS][4];
#pragma unroll
  for (size_t m = 0; m < rows; m++) {
#pragma unroll
    for (size_t n = 0; n < panels; n++)
      sums[m][n] = adding ? load16(c + m * c_row + n * c_panel) : splat(0);
  }
  const size_t bytes = 16 * element_bytes(type);
  for (size_t k = 0; k < depth; k++) {
    v16 w[4];
    if (fetching && k % (64 / bytes) == 0)
#pragma unroll
      for (size_t n = 0; n < panels; n++)
        __builtin_prefetch(next + n * b_panel * element_bytes(type) + k * bytes, 0, 2);
#pragma unroll
    for (size_t n = 0; n < panels; n++) w[n] = load_widened(b, n * b_panel + 16 * k, type);
#pragma unroll
    for (size_t m = 0; m < rows; m++) {
      v16 x = splat(
          layout == PACKED ? a[k * rows + m]
          : layout == ROWS ? a[m * ATTENTION_BLOCK + k]
                           : a[k * ATTENTION_BLOCK + m]);
#pragma unroll
      for (size_t n = 0; n < panels; n++) sums[m][n] = fma16(x, w[n], sums[m][n]);
    }
  }
#pragma unroll
  for (size_t m = 0; m < rows; m++) {
#pragma unroll
    for (size_t n = 0; n < panels; n++) store16(c + m * c_row + n * c_panel, sums[m][n]);
  }
}

/// A tile of `rows` rows against `panels` panels, `b_panel` elements apart. If `fetching`, as much
/// is brought near from `next` on.
CK_INLINE void attention_tiles(
    size_t rows, enum attention_layout layout, ck_cache_type type, bool adding, bool fetching,
    size_t panels, size_t depth, const float *a, const void *b, size_t b_panel, float *c,
    size_t c_row, size_t c_panel, const char *next) {
  const size_t b_bytes = b_panel * element_bytes(type);
  const size_t at_once = panels_at_once(rows);
  size_t n = 0;
  for (; n + at_once <= panels; n += at_once)
    attention_tile(
        rows, at_once, layout, type, adding, fetching, depth, a, (const char *)b + n * b_bytes,
        b_panel, c + n * c_panel, c_row, c_panel, next + n * b_bytes);
  if (at_once > 1)
    for (; n < panels; n++)
      attention_tile(
          rows, 1, layout, type, adding, fetching, depth, a, (const char *)b + n * b_bytes, b_panel,
          c + n * c_panel, c_row, c_panel, next + n * b_bytes);
}

#define CK_TILES(name, layout, type, adding, fetching) \
  static void name( \
      size_t rows, size_t panels, size_t depth, const float *a, const void *b, size_t b_panel, \
      float *c, size_t c_row, size_t c_panel, const char *next) { \
    switch (rows) { \
      CK_CASE(1, layout, type, adding, fetching) \
      CK_CASE(2, layout, type, adding, fetching) \
      CK_CASE(3, layout, type, adding, fetching) \
      CK_CASE(4, layout, type, adding, fetching) \
      CK_CASE(5, layout, type, adding, fetching) \
      CK_CASE(6, layout, type, adding, fetching) \
    } \
  }
#define CK_CASE(rows, layout, type, adding, fetching) \
  case rows: \
    attention_tiles( \
        rows, layout, type, adding, fetching, panels, depth, a, b, b_panel, c, c_row, c_panel, \
        next); \
    break;

CK_TILES(score_near, PACKED, CK_CACHE_FLOAT32, false, false)
CK_TILES(score_float32, PACKED, CK_CACHE_FLOAT32, false, true)
CK_TILES(score_bfloat16, PACKED, CK_CACHE_BFLOAT16, false, true)
CK_TILES(score_int8, PACKED, CK_CACHE_INT8, false, true)
CK_TILES(weigh_near, ROWS, CK_CACHE_FLOAT32, true, false)
CK_TILES(weigh_float32, ROWS, CK_CACHE_FLOAT32, true, true)
CK_TILES(weigh_bfloat16, ROWS, CK_CACHE_BFLOAT16, true, true)
CK_TILES(weigh_int8, ROWS, CK_CACHE_INT8, true, true)

/// S [rows][ATTENTION_BLOCK] = queries, packed, by `panels` panels of keys [size][16].
///
/// - Parameter next: what will be read next and lies far from the processor, or null. Never null
///   for narrow types, which are read in place by few rows only.
CK_INLINE void score(
    ck_cache_type type, size_t rows, size_t panels, size_t size, const float *queries,
    const void *keys, float *scores, const char *next) {
  (type == CK_CACHE_BFLOAT16 ? score_bfloat16
   : type == CK_CACHE_INT8   ? score_int8
   : next                    ? score_float32
                             : score_near)(
      rows, panels, size, queries, keys, 16 * size, scores, ATTENTION_BLOCK, 16, next);
}

/// output [rows][row_stride] += weights [rows][ATTENTION_BLOCK] by values
/// [panels][ATTENTION_BLOCK][16].
CK_INLINE void weigh(
    ck_cache_type type, size_t rows, size_t panels, size_t depth, const float *weights,
    const void *values, float *output, size_t row_stride, const char *next) {
  (type == CK_CACHE_BFLOAT16 ? weigh_bfloat16
   : type == CK_CACHE_INT8   ? weigh_int8
   : next                    ? weigh_float32
                             : weigh_near)(
      rows, panels, depth, weights, values, 16 * ATTENTION_BLOCK, output, row_stride, 16, next);
}
