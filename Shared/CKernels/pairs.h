// Products of inputs rounded to bfloat16 by bfloat16 panels: two k to a lane.
//
// Each lane adds the product of a pair's second numbers, then that of its first, both fused: what
// the processors' instruction for it does, but that takes subnormal numbers for zero.

CK_INLINE part add_pair(part sum, part weights, uint32_t word) {
#ifdef CK_PAIR_DOTS
  return (part)CK_PAIR_DOTS(
      (__m512)sum, (__m512bh)weights, (__m512bh)_mm512_set1_epi32((int)word));
#else
  const part_bits both = (part_bits)word, other = (part_bits)weights;
  sum = __builtin_elementwise_fma(widen_second(other), widen_second(both), sum);
  return __builtin_elementwise_fma(widen_first(other), widen_first(both), sum);
#endif
}

/// As multiply, for inputs in pairs [rows][DEPTH_BLOCK]. An odd depth's last weight and input have
/// zeros beside them.
CK_INLINE void multiply_pairs(
    const uint16_t *x, size_t rows, const char *weights, const char *ahead, size_t apart,
    size_t panels, size_t depth, bool first, bool streaming, float *sums) {
  const uint16_t *next = x + rows * DEPTH_BLOCK;
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

  for (size_t k = 0; k < depth; k += 2) {
    if (streaming) {
#pragma unroll
      for (size_t n = 0; n < panels; n++) __builtin_prefetch(ahead + n * apart, 0, 2);
      ahead += 64;
    } else {
#pragma unroll
      for (size_t i = 0; i < (rows + 15) / 16; i++) __builtin_prefetch(next + i * 32, 0, 3);
      next += rows * 2;
    }
    part w[ROW_PANELS][PARTS];
#pragma unroll
    for (size_t n = 0; n < panels; n++)
#pragma unroll
      for (size_t p = 0; p < PARTS; p++)
        w[n][p] = load_part((const float *)(weights + n * apart) + p * CK_WIDTH);
#pragma unroll
    for (size_t r = 0; r < rows; r++) {
      uint32_t word;
      memcpy(&word, x + r * DEPTH_BLOCK + k, sizeof word);
#pragma unroll
      for (size_t n = 0; n < panels; n++)
#pragma unroll
        for (size_t p = 0; p < PARTS; p++) tile[r][n][p] = add_pair(tile[r][n][p], w[n][p], word);
    }
    weights += 64;
  }
  keep_sums(tile, rows, panels, first, sums);
}

static void pack_pairs(
    const float *x, size_t stride, size_t rows, size_t depth, size_t first_row, size_t count,
    uint16_t *packed) {
  for (size_t row = first_row; row < first_row + count; row++)
    for (size_t block = 0; block < depth; block += DEPTH_BLOCK) {
      const size_t left = depth - block < DEPTH_BLOCK ? depth - block : DEPTH_BLOCK;
      const float *from = x + row * stride + block;
      uint16_t *into = packed + block * rows + row * DEPTH_BLOCK;
      for (size_t k = 0; k < left; k++) into[k] = narrow_half(from[k]);
      if (left % 2) into[left] = 0;
    }
}
