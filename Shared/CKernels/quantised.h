// Products of rows rounded to 8-bit blocks by panels of 8-bit and 4-bit weights.
//
// Blocks of 32 along the depth. Rows are kept in tiles of few, each tile block by block, for each
// block eleven words of every row: eight of four numbers each, −128 times their sum, −1 times it,
// and the step d between numbers, a float. So a tile reads its operands in the order of memory.

typedef float lane_floats __attribute__((ext_vector_type(CK_WIDTH)));
typedef int32_t lane_ints __attribute__((ext_vector_type(CK_WIDTH)));

enum {
  BLOCK = 32,
  LANE_PARTS = 16 / CK_WIDTH,
  ROW_WORDS = 11,
  Q8_BYTES = 512,
  Q4_BYTES = 256,
  // As far as weights are asked for before they are used.
  Q8_FETCH_BYTES = 4096,
  Q4_FETCH_BYTES = 6144,
};

CK_INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/// Rows of a tile: all but the last tile of a call have so many.
CK_INLINE size_t tile_rows(size_t rows) {
  const size_t tiles = (rows + CK_QUANTISED_ROWS - 1) / CK_QUANTISED_ROWS;
  return tiles ? (rows + tiles - 1) / tiles : 1;
}

/// Thirty-two elements to −127…127; their words lie `apart` words from each other.
CK_INLINE void quantise_block(const float *x, int32_t *words, size_t apart) {
  const v16 low = load16(x), high = load16(x + 16);
  // Of numbers without a sign the bits are in the order of the values, infinity and NaN highest.
  const u16x32 magnitudes =
      __builtin_elementwise_max((u16x32)low & 0x7fffffff, (u16x32)high & 0x7fffffff);
  const uint32_t bits = __builtin_reduce_max(magnitudes);
  float greatest;
  memcpy(&greatest, &bits, sizeof greatest);

  i16x32 a = 0, b = 0;
  float step = 0;
  if (!(greatest < INFINITY)) {
    step = NAN;
  } else if (greatest >= 0x1p-100f) {
    step = greatest / 127.0f;
    const v16 factor = splat(127.0f / greatest);
    // Adding 1.5·2²³ rounds to an integer, ties to even, and leaves it in the low bits.
    const v16 rounder = splat(12582912.0f);
    a = (i16x32)(low * factor + rounder) - (i16x32)rounder;
    b = (i16x32)(high * factor + rounder) - (i16x32)rounder;
  }
  typedef int8_t bytes16 __attribute__((ext_vector_type(16)));
  const bytes16 first = __builtin_convertvector(a, bytes16);
  const bytes16 second = __builtin_convertvector(b, bytes16);
  int32_t numbers[8];
  memcpy(numbers, &first, sizeof first);
  memcpy(numbers + 4, &second, sizeof second);
  const int32_t sum = __builtin_reduce_add(a + b);
  for (size_t g = 0; g < 8; g++) words[g * apart] = numbers[g];
  words[8 * apart] = -128 * sum;
  words[9 * apart] = -sum;
  memcpy(words + 10 * apart, &step, sizeof step);
}

static void quantise_rows(
    const float *x, size_t xStride, size_t rows, size_t depth, size_t first, size_t count,
    int32_t *quantised) {
  const size_t height = tile_rows(rows), words = depth / BLOCK * ROW_WORDS;
  for (size_t r = first; r < first + count; r++) {
    const size_t top = r - r % height, apart = smaller(height, rows - top);
    int32_t *block = quantised + top * words + r % height;
    for (size_t k = 0; k < depth; k += BLOCK, block += ROW_WORDS * apart)
      quantise_block(x + r * xStride + k, block, apart);
  }
}

#include "quantised_block.h"

/// A panel's place.
typedef struct {
  const uint8_t *panel;
  /// The panel behind it, or itself at the end.
  const uint8_t *next;
  size_t blocks;
} panel_place;

/// A tile of rows by a panel: sums [rows][16]. rows and `four` are constants after inlining. With
/// `fetching` it asks for the weights ahead, the panel's and those behind.
CK_INLINE void quantised_tile(
    const int32_t *tile, size_t rows, bool four, bool fetching, const panel_place *place,
    float *whole) {
  const size_t blocks = place->blocks, bytes = four ? Q4_BYTES : Q8_BYTES;
  const uint8_t *values = place->panel;
  const uint8_t *scales = values + blocks * bytes, *zeros = scales + blocks * BLOCK;
  const size_t skip = (size_t)(place->next - place->panel);
  const size_t distance = smaller((four ? Q4_FETCH_BYTES : Q8_FETCH_BYTES) / bytes, blocks);
  const uint8_t *ahead = values + distance * bytes;

  lane_floats results[CK_QUANTISED_ROWS][LANE_PARTS];
#pragma unroll
  for (size_t r = 0; r < rows; r++)
#pragma unroll
    for (size_t p = 0; p < LANE_PARTS; p++) results[r][p] = 0;

  for (size_t b = 0; b < blocks; b++) {
    if (fetching) {
      if (b + distance == blocks) ahead = place->next;
#pragma unroll
      for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(ahead + line, 0, 2);
      ahead += bytes;
      __builtin_prefetch(scales + skip, 0, 2);
      if (four) __builtin_prefetch(zeros + skip, 0, 2);
    }
    lane_ints sums[CK_QUANTISED_ROWS][LANE_PARTS];
    if (four)
      q4_block(values, scales, zeros, tile, rows, sums);
    else
      q8_block(values, tile, rows, sums);
#pragma unroll
    for (size_t p = 0; p < LANE_PARTS; p++) {
      const lane_floats scale = widen_scales(scales, p, four);
#pragma unroll
      for (size_t r = 0; r < rows; r++) {
        float step;
        memcpy(&step, tile + 10 * rows + r, sizeof step);
        results[r][p] = __builtin_elementwise_fma(
            __builtin_convertvector(sums[r][p], lane_floats), scale * (lane_floats)step,
            results[r][p]);
      }
    }
    values += bytes;
    scales += BLOCK;
    zeros += 8;
    tile += ROW_WORDS * rows;
  }
#pragma unroll
  for (size_t r = 0; r < rows; r++) memcpy(whole + 16 * r, results[r], sizeof results[r]);
}

CK_INLINE void quantised_tiles(
    const int32_t *tile, size_t rows, bool four, bool fetching, const panel_place *place,
    float *sums) {
  switch (rows) {
    case 1: quantised_tile(tile, 1, four, fetching, place, sums); break;
    case 2: quantised_tile(tile, 2, four, fetching, place, sums); break;
    case 3: quantised_tile(tile, 3, four, fetching, place, sums); break;
    case 4: quantised_tile(tile, 4, four, fetching, place, sums); break;
#if CK_QUANTISED_ROWS > 4
    case 5: quantised_tile(tile, 5, four, fetching, place, sums); break;
    case 6: quantised_tile(tile, 6, four, fetching, place, sums); break;
    case 7: quantised_tile(tile, 7, four, fetching, place, sums); break;
    case 8: quantised_tile(tile, 8, four, fetching, place, sums); break;
#endif
  }
}

static __attribute__((noinline)) void tile_by_q8(
    const int32_t *tile, size_t rows, bool fetching, const panel_place *place, float *sums) {
  quantised_tiles(tile, rows, false, fetching, place, sums);
}

static __attribute__((noinline)) void tile_by_q4(
    const int32_t *tile, size_t rows, bool fetching, const panel_place *place, float *sums) {
  quantised_tiles(tile, rows, true, fetching, place, sums);
}

static void quantised_product(
    const int32_t *quantised, size_t first_row, size_t rows, const ck_product *product, bool four,
    size_t first_panel, size_t panels) {
  const size_t height = tile_rows(rows), blocks = product->depth / BLOCK;
  const uint8_t *weight = product->weight;
  for (size_t n = first_panel; n < first_panel + panels; n++) {
    const uint8_t *panel = weight + n * product->stride;
    const bool last = n + 1 == first_panel + panels;
    const panel_place place = {panel, last ? panel : panel + product->stride, blocks};
    // The first tile brings the weights from memory, the others find them in the cache.
    for (size_t r = 0; r < rows; r += height) {
      const size_t count = smaller(height, rows - r);
      float sums[CK_QUANTISED_ROWS * 16];
      (four ? tile_by_q4 : tile_by_q8)(
          quantised + r * blocks * ROW_WORDS, count, r == 0, &place, sums);
      finish_tile(product, sums, first_row + r, count, n, 1);
    }
  }
}
