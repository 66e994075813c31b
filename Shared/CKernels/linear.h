// Products of rows by a transposed matrix: dot products of sixteen lanes.

enum { TILE_ROWS = CK_TILE_ROWS, TILE_OUTPUTS = CK_TILE_OUTPUTS };

CK_INLINE part load_weight(const void *weight, size_t index, bool bfloat16) {
  return bfloat16 ? widen_part((const uint16_t *)weight + index)
                  : load_part((const float *)weight + index);
}

CK_INLINE float weight_at(const void *weight, size_t index, bool bfloat16) {
  return bfloat16 ? widen_half(((const uint16_t *)weight)[index]) : ((const float *)weight)[index];
}

CK_INLINE v16 join(const part *parts) {
  v16 whole;
  memcpy(&whole, parts, sizeof whole);
  return whole;
}

/// Adds up the lanes of a tile and writes what lies within rows × outputs.
CK_INLINE void store_tile(
    part sums[TILE_ROWS][TILE_OUTPUTS][PARTS], size_t rows, size_t outputs, const float *bias,
    float *y, size_t yStride) {
  for (size_t r = 0; r < rows; r++) {
    if (TILE_OUTPUTS == 4 && outputs == 4) {
      v4 row = sums16(
          join(sums[r][0]), join(sums[r][1]), join(sums[r][2 % TILE_OUTPUTS]),
          join(sums[r][3 % TILE_OUTPUTS]));
      if (bias) {
        v4 b;
        memcpy(&b, bias, sizeof b);
        row += b;
      }
      memcpy(y + r * yStride, &row, sizeof row);
    } else {
      for (size_t n = 0; n < outputs; n++) {
        float sum = sum16(join(sums[r][n]));
        y[r * yStride + n] = bias ? sum + bias[n] : sum;
      }
    }
  }
}

/// One tile with the operands where they lie; rows and outputs are constants after inlining.
/// Asks for the memory at `ahead` on the way, `pace` bytes in a step of sixteen elements.
CK_INLINE void product_tile(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride, const char *ahead, size_t pace) {
  part sums[TILE_ROWS][TILE_OUTPUTS][PARTS];
#pragma unroll
  for (size_t r = 0; r < rows; r++)
#pragma unroll
    for (size_t n = 0; n < outputs; n++)
#pragma unroll
      for (size_t p = 0; p < PARTS; p++) sums[r][n][p] = (part)0.0f;

  // A step uses up this many lines of weights, and asks for as many.
  const size_t lines = (outputs * (bfloat16 ? 32 : 64) + 63) / 64, apart = pace / lines;
  size_t k = 0;
  for (; k + 16 <= depth; k += 16) {
#pragma unroll
    for (size_t line = 0; line < lines; line++)
      __builtin_prefetch(ahead + line * apart, 0, 2);
    ahead += pace;
#pragma unroll
    for (size_t p = 0; p < PARTS; p++) {
      part weights[TILE_OUTPUTS];
#pragma unroll
      for (size_t n = 0; n < outputs; n++)
        weights[n] = load_weight(weight, n * depth + k + p * CK_WIDTH, bfloat16);
#pragma unroll
      for (size_t r = 0; r < rows; r++) {
        part factor = load_part(x + r * xStride + k + p * CK_WIDTH);
#pragma unroll
        for (size_t n = 0; n < outputs; n++)
          sums[r][n][p] = __builtin_elementwise_fma(factor, weights[n], sums[r][n][p]);
      }
    }
  }
  if (k < depth) {
    float lanes[TILE_OUTPUTS][16] = {{0}};
    for (size_t n = 0; n < outputs; n++)
      for (size_t i = 0; i < depth - k; i++)
        lanes[n][i] = weight_at(weight, n * depth + k + i, bfloat16);
    for (size_t r = 0; r < rows; r++) {
      float factors[16] = {0};
      for (size_t i = 0; i < depth - k; i++) factors[i] = x[r * xStride + k + i];
#pragma unroll
      for (size_t n = 0; n < outputs; n++)
#pragma unroll
        for (size_t p = 0; p < PARTS; p++)
          sums[r][n][p] = __builtin_elementwise_fma(
              load_part(factors + p * CK_WIDTH), load_part(lanes[n] + p * CK_WIDTH),
              sums[r][n][p]);
    }
  }
  store_tile(sums, rows, outputs, bias, y, yStride);
}

/// All rows against one group of outputs, while the weights of the group behind it, if there
/// is one, come from memory: each pass over a tile of rows asks for its share of them. Many
/// passes leave the processor's own prefetching time enough.
CK_INLINE void product_group(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride, bool more) {
  const size_t passes = (rows + TILE_ROWS - 1) / TILE_ROWS, bytes = bfloat16 ? 2 : 4;
  if (passes > 4) more = false;
  const size_t pace = more ? outputs * 16 * bytes / passes : 0;
  const char *ahead = (const char *)weight + (more ? outputs * depth * bytes : 0);
  while (rows > 0) {
    size_t taken = rows < TILE_ROWS ? rows : TILE_ROWS;
    // 7 rows are better taken as 4 + 3 than as 6 + 1.
    if (rows > TILE_ROWS && rows < 2 * TILE_ROWS) taken = (rows + 1) / 2;
    switch (taken) {
#define CK_ROWS(count)                                                                         \
  case count:                                                                                  \
    product_tile(                                                                              \
        x, xStride, count, weight, bfloat16, depth, outputs, bias, y, yStride, ahead, pace);   \
    break;
      CK_ROWS(1)
      CK_ROWS(2)
      CK_ROWS(3)
#if CK_TILE_ROWS == 6
      CK_ROWS(4)
      CK_ROWS(5)
      CK_ROWS(6)
#endif
#undef CK_ROWS
    }
    x += taken * xStride;
    y += taken * yStride;
    ahead += pace * (depth / 16);
    rows -= taken;
  }
}

CK_INLINE void dot_products(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride) {
  const char *weights = weight;
  const size_t rowBytes = depth * (bfloat16 ? 2 : 4);
  size_t n = 0;
  for (; n + TILE_OUTPUTS <= outputs; n += TILE_OUTPUTS)
    product_group(
        x, xStride, rows, weights + n * rowBytes, bfloat16, depth, TILE_OUTPUTS,
        bias ? bias + n : NULL, y + n, yStride, n + 2 * TILE_OUTPUTS <= outputs);
  for (; n < outputs; n++)
    product_group(
        x, xStride, rows, weights + n * rowBytes, bfloat16, depth, 1, bias ? bias + n : NULL,
        y + n, yStride, false);
}

static __attribute__((noinline)) void product_of_floats(
    const float *x, size_t xStride, size_t rows, const void *weight, size_t depth, size_t outputs,
    const float *bias, float *y, size_t yStride) {
  dot_products(x, xStride, rows, weight, false, depth, outputs, bias, y, yStride);
}

static __attribute__((noinline)) void product_of_halves(
    const float *x, size_t xStride, size_t rows, const void *weight, size_t depth, size_t outputs,
    const float *bias, float *y, size_t yStride) {
  dot_products(x, xStride, rows, weight, true, depth, outputs, bias, y, yStride);
}

static void linear(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride) {
  if (bfloat16)
    product_of_halves(x, xStride, rows, weight, depth, outputs, bias, y, yStride);
  else
    product_of_floats(x, xStride, rows, weight, depth, outputs, bias, y, yStride);
}
