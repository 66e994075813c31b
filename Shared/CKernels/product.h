// Products of rows by a transposed matrix: panels of sixteen outputs.
//
// A register tile holds the sums of some rows and one or two panels over a block of the depth:
// for each k, the panels' sixteen weights times a row's input spread over all lanes. So every
// sum is one chain in order of k, however the tile is cut.

enum {
  PRODUCT_ROWS = CK_PRODUCT_ROWS,
  PRODUCT_PANELS = CK_PRODUCT_PANELS,
  /// Rows that leave registers for two panels, and two k of their weights.
  PAIR_ROWS = PRODUCT_PANELS == 2 ? PRODUCT_ROWS : PRODUCT_ROWS > 2 ? 2 : 1,
  /// Panels that one row takes at once: enough chains of sums to hide how long each step takes.
  ROW_PANELS = CK_WIDTH == 16 ? 4 : 2,
  /// Sums of a tile.
  TILE_SUMS = PRODUCT_ROWS * PRODUCT_PANELS * 16,
  DEPTH_BLOCK = CK_DEPTH_BLOCK,
  /// Bytes between weights that are widened and those asked for.
  STREAM_AHEAD = 2048,
  /// Floats of a panel's block.
  PANEL_BLOCK = DEPTH_BLOCK * 16,
};

// ---- The register tile ------------------------------------------------------------------------

/// Two halves in a word, the first one below.
CK_INLINE part widen_first(part_bits words) { return (part)(words << 16); }
CK_INLINE part widen_second(part_bits words) { return (part)(words & 0xffff0000); }

/// A panel's weights for two consecutive k, or for the first of them alone.
CK_INLINE void load_lines(
    const char *p, bool bfloat16, size_t count, part first[PARTS], part second[PARTS]) {
#pragma unroll
  for (size_t i = 0; i < PARTS; i++) {
    const float *line = (const float *)p + i * CK_WIDTH;
    first[i] = load_part(line);
    if (bfloat16) {
      const part_bits words = (part_bits)first[i];
      first[i] = widen_first(words);
      second[i] = widen_second(words);
    } else if (count > 1) {
      second[i] = load_part(line + 16);
    }
  }
}

/// sums [rows][panels][16] = or += a tile.
CK_INLINE void keep_sums(
    part tile[PRODUCT_ROWS][ROW_PANELS][PARTS], size_t rows, size_t panels, bool first,
    float *sums) {
#pragma unroll
  for (size_t r = 0; r < rows; r++)
#pragma unroll
    for (size_t n = 0; n < panels; n++)
#pragma unroll
      for (size_t p = 0; p < PARTS; p++) {
        float *into = sums + (r * panels + n) * 16 + p * CK_WIDTH;
        store_part(into, first ? tile[r][n][p] : load_part(into) + tile[r][n][p]);
      }
}

/// sums [rows][panels][16] = or += the products of a block of the depth. x is [rows][DEPTH_BLOCK],
/// weights a panel's lines, the next panel's `apart` bytes behind. Rows, panels, the type and
/// `streaming` are constants after inlining. Streaming weights come from memory, and those `ahead`,
/// which lie alike, are asked for; else the next strip is.
CK_INLINE void multiply(
    const float *x, size_t rows, const char *weights, const char *ahead, size_t apart,
    size_t panels, bool bfloat16, size_t depth, bool first, bool streaming, float *sums) {
  const size_t line = bfloat16 ? 32 : 64;
  const float *next = x + rows * DEPTH_BLOCK;
  if (!first && !streaming) {
#pragma unroll
    for (size_t i = 0; i < rows * panels; i++) __builtin_prefetch(sums + i * 16, 1, 3);
  }
  part tile[PRODUCT_ROWS][ROW_PANELS][PARTS];
#pragma unroll
  for (size_t r = 0; r < rows; r++)
#pragma unroll
    for (size_t n = 0; n < panels; n++)
#pragma unroll
      for (size_t p = 0; p < PARTS; p++) tile[r][n][p] = (part)0.0f;

#define CK_STEP(k, w)                                                                    \
  _Pragma("unroll") for (size_t r = 0; r < rows; r++) {                                  \
    part factor = (part)x[r * DEPTH_BLOCK + (k)];                                        \
    _Pragma("unroll") for (size_t n = 0; n < panels; n++)                                \
        _Pragma("unroll") for (size_t p = 0; p < PARTS; p++)                             \
            tile[r][n][p] = __builtin_elementwise_fma(factor, (w)[n][p], tile[r][n][p]); \
  }

  for (; depth >= 4; depth -= 4) {
    if (streaming) {
#pragma unroll
      for (size_t n = 0; n < panels; n++)
#pragma unroll
        for (size_t i = 0; i < 4 * line; i += 64)
          __builtin_prefetch(ahead + n * apart + i, 0, 2);
      ahead += 4 * line;
    } else {
      // The next strip: its rows are too short for a processor to see where they go on.
#pragma unroll
      for (size_t i = 0; i < (rows + 3) / 4; i++) __builtin_prefetch(next + i * 16, 0, 3);
      next += rows * 4;
    }
#pragma unroll
    for (size_t k = 0; k < 4; k += 2) {
      part w[2][ROW_PANELS][PARTS];
#pragma unroll
      for (size_t n = 0; n < panels; n++)
        load_lines(weights + n * apart + k * line, bfloat16, 2, w[0][n], w[1][n]);
      CK_STEP(k, w[0])
      CK_STEP(k + 1, w[1])
    }
    weights += 4 * line;
    x += 4;
  }
  while (depth > 0) {
    const size_t count = depth > 1 ? 2 : 1;
    part w[2][ROW_PANELS][PARTS];
#pragma unroll
    for (size_t n = 0; n < panels; n++)
      load_lines(weights + n * apart, bfloat16, count, w[0][n], w[1][n]);
    CK_STEP(0, w[0])
    if (count > 1) {
      CK_STEP(1, w[1])
    }
    weights += count * line;
    x += count;
    depth -= count;
  }
#undef CK_STEP

  keep_sums(tile, rows, panels, first, sums);
}

#include "pairs.h"

typedef void tile_kernel(
    const void *x, const char *weights, const char *ahead, size_t apart, size_t depth, bool first,
    float *sums);

#define CK_TILE(name, rows, panels, bfloat16, streaming)                                       \
  static __attribute__((noinline)) void name##_##rows##_##panels(                              \
      const void *x, const char *weights, const char *ahead, size_t apart, size_t depth,       \
      bool first, float *sums) {                                                               \
    multiply(x, rows, weights, ahead, apart, panels, bfloat16, depth, first, streaming, sums); \
  }
#define CK_PAIR_TILE(name, rows, panels, streaming)                                            \
  static __attribute__((noinline)) void name##_##rows##_##panels(                              \
      const void *x, const char *weights, const char *ahead, size_t apart, size_t depth,       \
      bool first, float *sums) {                                                               \
    multiply_pairs(x, rows, weights, ahead, apart, panels, depth, first, streaming, sums);     \
  }
#define CK_TILES(rows, panels)                  \
  CK_TILE(block, rows, panels, false, false)    \
  CK_TILE(floats, rows, panels, false, true)    \
  CK_TILE(halves, rows, panels, true, true)     \
  CK_PAIR_TILE(near_pairs, rows, panels, false) \
  CK_PAIR_TILE(pairs, rows, panels, true)
#define CK_NAMES(rows, panels)                                                      \
  {                                                                                 \
    block_##rows##_##panels, floats_##rows##_##panels, halves_##rows##_##panels,    \
        near_pairs_##rows##_##panels, pairs_##rows##_##panels                       \
  }

CK_TILES(1, 1)
CK_TILES(2, 1)
CK_TILES(1, 2)
#if CK_WIDTH == 16
CK_TILES(1, 3)
CK_TILES(1, 4)
#endif
#if CK_PRODUCT_ROWS >= 6
CK_TILES(3, 1)
CK_TILES(4, 1)
CK_TILES(5, 1)
CK_TILES(6, 1)
CK_TILES(2, 2)
#endif
#if CK_PRODUCT_ROWS >= 14
CK_TILES(7, 1)
CK_TILES(8, 1)
CK_TILES(9, 1)
CK_TILES(10, 1)
CK_TILES(11, 1)
CK_TILES(12, 1)
CK_TILES(13, 1)
CK_TILES(14, 1)
CK_TILES(3, 2)
CK_TILES(4, 2)
CK_TILES(5, 2)
CK_TILES(6, 2)
CK_TILES(7, 2)
CK_TILES(8, 2)
CK_TILES(9, 2)
CK_TILES(10, 2)
CK_TILES(11, 2)
CK_TILES(12, 2)
CK_TILES(13, 2)
CK_TILES(14, 2)
#endif

/// Floats in a cache; weights of either type from memory; pairs, for inputs in pairs, either way.
enum { WEIGHTS_IN_CACHE, WEIGHTS_FLOATS, WEIGHTS_HALVES, PAIRS_IN_CACHE, PAIRS, KINDS };

static tile_kernel *const tile_kernels[2][PRODUCT_ROWS][KINDS] = {
    {
        CK_NAMES(1, 1), CK_NAMES(2, 1),
#if CK_PRODUCT_ROWS >= 6
        CK_NAMES(3, 1), CK_NAMES(4, 1), CK_NAMES(5, 1), CK_NAMES(6, 1),
#endif
#if CK_PRODUCT_ROWS >= 14
        CK_NAMES(7, 1), CK_NAMES(8, 1), CK_NAMES(9, 1), CK_NAMES(10, 1), CK_NAMES(11, 1),
        CK_NAMES(12, 1), CK_NAMES(13, 1), CK_NAMES(14, 1),
#endif
    },
    {
        CK_NAMES(1, 2),
#if CK_PRODUCT_ROWS >= 6
        CK_NAMES(2, 2),
#endif
#if CK_PRODUCT_ROWS >= 14
        CK_NAMES(3, 2), CK_NAMES(4, 2), CK_NAMES(5, 2), CK_NAMES(6, 2), CK_NAMES(7, 2),
        CK_NAMES(8, 2), CK_NAMES(9, 2), CK_NAMES(10, 2), CK_NAMES(11, 2), CK_NAMES(12, 2),
        CK_NAMES(13, 2), CK_NAMES(14, 2),
#endif
    },
};

#if CK_WIDTH == 16
/// One row by more panels than two.
static tile_kernel *const row_kernels[2][KINDS] = {CK_NAMES(1, 3), CK_NAMES(1, 4)};
#endif
#undef CK_TILE
#undef CK_PAIR_TILE
#undef CK_TILES
#undef CK_NAMES

static tile_kernel *tile_kernel_of(size_t rows, size_t panels, int kind) {
#if CK_WIDTH == 16
  if (panels > 2) return row_kernels[panels - 3][kind];
#endif
  return tile_kernels[panels - 1][rows - 1][kind];
}

// ---- Transposing ------------------------------------------------------------------------------

CK_INLINE v8 load8(const float *p) {
  v8 v;
  memcpy(&v, p, sizeof v);
  return v;
}

CK_INLINE void transpose8(v8 m[8]) {
  v8 t[8], u[8];
#pragma unroll
  for (size_t i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(m[i], m[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(m[i], m[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma unroll
  for (size_t i = 0; i < 8; i += 4) {
#pragma unroll
    for (size_t j = 0; j < 2; j++) {
      u[i + 2 * j] = __builtin_shufflevector(t[i + j], t[i + 2 + j], 0, 1, 8, 9, 4, 5, 12, 13);
      u[i + 2 * j + 1] =
          __builtin_shufflevector(t[i + j], t[i + 2 + j], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
#pragma unroll
  for (size_t i = 0; i < 4; i++) {
    m[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    m[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

CK_INLINE void store8(float *p, v8 v) { memcpy(p, &v, sizeof v); }

/// into [count][16]: words of `outputs` rows, rows `stride` bytes apart, column by column, zeros
/// behind the last row. `widening`: words are pairs of halves, and become two floats [2·count][16].
CK_INLINE void panel_of_words(
    const char *x, size_t stride, size_t outputs, size_t count, bool widening, float *into) {
  typedef uint32_t w8 __attribute__((ext_vector_type(8)));
  const size_t line = widening ? 32 : 16;
  size_t k = 0;
  for (; k + 8 <= count; k += 8) {
    for (size_t half = 0; half < 16; half += 8) {
      const char *from = x + half * stride + k * 4;
      v8 m[8];
      if (__builtin_expect(outputs >= half + 8, 1)) {
#pragma unroll
        for (size_t j = 0; j < 8; j++) m[j] = load8((const float *)(from + j * stride));
      } else {
        for (size_t j = 0; j < 8; j++)
          m[j] = half + j < outputs ? load8((const float *)(from + j * stride)) : (v8)0.0f;
      }
      transpose8(m);
#pragma unroll
      for (size_t i = 0; i < 8; i++) {
        float *place = into + (k + i) * line + half;
        store8(place, widening ? (v8)((w8)m[i] << 16) : m[i]);
        if (widening) store8(place + 16, (v8)((w8)m[i] & 0xffff0000));
      }
    }
  }
  for (; k < count; k++)
    for (size_t j = 0; j < 16; j++) {
      uint32_t word = 0;
      if (j < outputs) memcpy(&word, x + j * stride + k * 4, sizeof word);
      const uint32_t first = widening ? word << 16 : word, second = word & 0xffff0000;
      memcpy(into + k * line + j, &first, sizeof first);
      if (widening) memcpy(into + k * line + 16 + j, &second, sizeof second);
    }
}

/// The same of halves: pairs as they are, or floats. A half without a partner makes a pair with
/// zero, or a line of its own.
CK_INLINE void panel_of_halves(
    const uint16_t *x, size_t stride, size_t outputs, size_t depth, bool widening, float *into) {
  panel_of_words((const char *)x, stride * 2, outputs, depth / 2, widening, into);
  if (depth % 2 == 0) return;
  into += depth / 2 * (widening ? 32 : 16);
  for (size_t j = 0; j < 16; j++) {
    const uint32_t half = j < outputs ? x[j * stride + depth - 1] : 0;
    const uint32_t word = widening ? half << 16 : half;
    memcpy(into + j, &word, sizeof word);
  }
}

static void pack_panel(
    const void *weight, bool bfloat16, size_t depth, size_t outputs, void *panel) {
  if (bfloat16)
    panel_of_halves(weight, depth, outputs, depth, false, panel);
  else
    panel_of_words(weight, depth * 4, outputs, depth, false, panel);
}

/// into [depth][16]: sixteen columns of x from `depth` rows, zeros behind the last.
static void panel_of_columns(
    const void *x, bool bfloat16, size_t stride, size_t outputs, size_t depth, float *into) {
  for (size_t k = 0; k < depth; k++, into += 16) {
    // Rows lie far apart: no pattern that a processor would see. The next panel is beside this.
    if (bfloat16) {
      const uint16_t *from = (const uint16_t *)x + k * stride;
      __builtin_prefetch(from + 32);
      if (__builtin_expect(outputs >= 16, 1)) {
#pragma unroll
        for (size_t p = 0; p < PARTS; p++)
          store_part(into + p * CK_WIDTH, widen_part(from + p * CK_WIDTH));
      } else {
        for (size_t j = 0; j < 16; j++) into[j] = j < outputs ? widen_half(from[j]) : 0;
      }
    } else {
      const float *from = (const float *)x + k * stride;
      __builtin_prefetch(from + 32);
      if (__builtin_expect(outputs >= 16, 1))
        memcpy(into, from, 64);
      else
        for (size_t j = 0; j < 16; j++) into[j] = j < outputs ? from[j] : 0;
    }
  }
}

// ---- Inputs -----------------------------------------------------------------------------------

/// Rows of a tile: as many as make tiles of like height, the last one less.
static size_t strip_rows(size_t rows) {
  const size_t count = rows > 0 ? (rows + PRODUCT_ROWS - 1) / PRODUCT_ROWS : 1;
  return (rows + count - 1) / count;
}

static void pack_input(
    const float *x, size_t stride, size_t rows, size_t depth, size_t first_row, size_t count,
    float *packed) {
  for (size_t row = first_row; row < first_row + count; row++)
    for (size_t k = 0; k < depth; k += DEPTH_BLOCK)
      memcpy(
          packed + k * rows + row * DEPTH_BLOCK, x + row * stride + k,
          (depth - k < DEPTH_BLOCK ? depth - k : DEPTH_BLOCK) * sizeof(float));
}

/// The same of the transpose: row r is column r of x [depth][stride].
static void pack_transposed_input(
    const float *x, size_t stride, size_t rows, size_t depth, size_t first_row, size_t count,
    float *packed) {
  const size_t end = first_row + count;
  for (size_t block = 0; block < depth; block += DEPTH_BLOCK) {
    const size_t left = depth - block < DEPTH_BLOCK ? depth - block : DEPTH_BLOCK;
    for (size_t row = first_row; row < end; row += 8) {
      const size_t taken = end - row < 8 ? end - row : 8;
      const float *from = x + block * stride + row;
      float *into = packed + block * rows + row * DEPTH_BLOCK;
      size_t k = 0;
      if (__builtin_expect(taken == 8, 1)) {
        for (; k + 8 <= left; k += 8) {
          v8 m[8];
#pragma unroll
          for (size_t i = 0; i < 8; i++) {
            m[i] = load8(from + (k + i) * stride);
            __builtin_prefetch(from + (k + i) * stride + 16);
          }
          transpose8(m);
#pragma unroll
          for (size_t i = 0; i < 8; i++) memcpy(into + i * DEPTH_BLOCK + k, &m[i], sizeof m[i]);
        }
      }
      for (; k < left; k++)
        for (size_t i = 0; i < taken; i++) into[i * DEPTH_BLOCK + k] = from[k * stride + i];
    }
  }
}

// ---- The product ------------------------------------------------------------------------------

CK_INLINE v16 vector_block(ck_vector vector, size_t first, size_t left) {
  if (!vector.bfloat16) return load((const float *)vector.elements + first, left);
  float lanes[16] = {0};
  const uint16_t *from = (const uint16_t *)vector.elements + first;
  for (size_t i = 0; i < (left < 16 ? left : 16); i++) lanes[i] = widen_half(from[i]);
  return load16(lanes);
}

/// Takes a tile's sums [rows][panels][16] to where they belong.
static void finish_tile(
    const ck_product *product, const float *sums, size_t first_row, size_t rows,
    size_t first_panel, size_t panels) {
  for (size_t n = 0; n < panels; n++) {
    const size_t first = (first_panel + n) * 16, left = product->outputs - first;
    v16 bias = splat(0), scale = splat(0);
    if (product->bias.elements) bias = vector_block(product->bias, first, left);
    if (product->scale.elements) scale = vector_block(product->scale, first, left);
    for (size_t r = 0; r < rows; r++) {
      float *y = product->y + (first_row + r) * product->y_stride + first;
      v16 v = load16(sums + (r * panels + n) * 16);
      if (product->bias.elements) v += bias;
      switch (product->finish) {
        case CK_STORE:
          break;
        case CK_GELU:
          v = gelu16(v);
          break;
        case CK_ADD:
          // As two operations: the sum rounds what the product has rounded.
          if (product->scale.elements) v = scale * v;
          v = load(y, left) + v;
          break;
      }
      store(y, v, left);
    }
  }
}

/// Floats of a panel's block, of weights that are not.
CK_INLINE void expand_panel(
    const ck_product *product, size_t panel, size_t first, size_t depth, float *into) {
  const char *weight = product->weight;
  const size_t width = product->bfloat16 ? 2 : 4, output = panel * 16;
  const size_t outputs = product->outputs - output < 16 ? product->outputs - output : 16;
  switch (product->layout) {
    case CK_ROWS:
      weight += (output * product->stride + first) * width;
      if (product->bfloat16)
        panel_of_halves((const uint16_t *)weight, product->stride, outputs, depth, true, into);
      else
        panel_of_words(weight, product->stride * 4, outputs, depth, false, into);
      break;
    case CK_COLUMNS:
      weight += (first * product->stride + output) * width;
      panel_of_columns(weight, product->bfloat16, product->stride, outputs, depth, into);
      break;
    case CK_PANELS:
      weight += panel * product->stride + first * 32;
      for (size_t k = 0; k < depth; k += 2) {
        part first[PARTS], second[PARTS];
        __builtin_prefetch(weight + k * 32 + STREAM_AHEAD);
        load_lines(weight + k * 32, true, 2, first, second);
#pragma unroll
        for (size_t i = 0; i < PARTS; i++) {
          store_part(into + k * 16 + i * CK_WIDTH, first[i]);
          if (k + 1 < depth) store_part(into + k * 16 + 16 + i * CK_WIDTH, second[i]);
        }
      }
      break;
  }
}

/// Strips that a panel's weights pass while they are in the first cache; more of them, and the
/// weights of a block are kept.
enum { STREAM_STRIPS = 4 };

static size_t product_scratch(size_t strips, size_t panels) {
  return 2 * PANEL_BLOCK + strips * (strips > STREAM_STRIPS ? panels + 1 : 1) * TILE_SUMS;
}

static void product(
    const void *packed, bool in_pairs, size_t input_rows, size_t first_row, size_t rows,
    const ck_product *product, size_t first_panel, size_t panels, float *scratch) {
  const size_t depth = product->depth;
  const size_t height = strip_rows(input_rows);
  const size_t strip_count = (rows + height - 1) / height;
  const size_t blocks = depth > 0 ? (depth + DEPTH_BLOCK - 1) / DEPTH_BLOCK : 1;
  const bool streaming = strip_count <= STREAM_STRIPS;
  const bool in_place =
      product->layout == CK_PANELS && (!product->bfloat16 || in_pairs || strip_count <= 2);
  const size_t step = in_place && rows == 1 ? ROW_PANELS
                      : height <= PAIR_ROWS ? 2
                                            : PRODUCT_PANELS;
  const size_t groups = (panels + step - 1) / step;
  float *expanded = scratch, *sums = scratch + 2 * PANEL_BLOCK;

  for (size_t pass = 0; pass < blocks * groups; pass++) {
    const size_t block = streaming ? pass % blocks : pass / groups;
    const size_t group = streaming ? pass / blocks : pass % groups;
    const size_t first = block * DEPTH_BLOCK;
    const size_t taken = depth - first < DEPTH_BLOCK ? depth - first : DEPTH_BLOCK;
    const size_t panel = first_panel + group * step;
    const size_t width = panels - group * step < step ? panels - group * step : step;

    const char *weights = (const char *)expanded, *ahead = weights;
    size_t apart = PANEL_BLOCK * sizeof(float);
    if (in_place) {
      const size_t line = product->bfloat16 ? 32 : 64;
      weights = (const char *)product->weight + panel * product->stride + first * line;
      apart = product->stride;
      // What is next: panels first or blocks first, and behind the last block the next panels.
      ahead = weights + (!streaming ? width * apart
                         : block + 1 == blocks ? taken * line + (width - 1) * apart
                                               : taken * line);
    } else {
      for (size_t n = 0; n < width; n++)
        expand_panel(product, panel + n, first, taken, expanded + n * PANEL_BLOCK);
    }
    for (size_t strip = 0; strip < strip_count; strip++) {
      const size_t top = strip * height;
      const size_t count = rows - top < height ? rows - top : height;
      float *tile = sums + (streaming ? strip : group * strip_count + strip) * TILE_SUMS;
      // The first strip to meet weights brings them in from memory.
      const int kind = !in_place           ? WEIGHTS_IN_CACHE
                       : in_pairs          ? (strip == 0 ? PAIRS : PAIRS_IN_CACHE)
                       : product->bfloat16 ? WEIGHTS_HALVES
                       : strip == 0        ? WEIGHTS_FLOATS
                                           : WEIGHTS_IN_CACHE;
      const size_t input = first * input_rows + (first_row + top) * DEPTH_BLOCK;
      tile_kernel_of(count, width, kind)(
          (const char *)packed + input * (in_pairs ? 2 : 4), weights, ahead, apart, taken,
          block == 0, tile);
      if (block + 1 == blocks)
        finish_tile(product, tile, first_row + top, count, panel, width);
    }
  }
}
