// Products of rows by a transposed matrix: dot products of sixteen lanes.

typedef float part __attribute__((ext_vector_type(CK_WIDTH)));
typedef uint32_t part_bits __attribute__((ext_vector_type(CK_WIDTH)));
typedef uint16_t part_halves __attribute__((ext_vector_type(CK_WIDTH)));

enum { PARTS = 16 / CK_WIDTH, TILE_ROWS = CK_TILE_ROWS, TILE_OUTPUTS = CK_TILE_OUTPUTS };

/// How far ahead of use weights are asked for, in bytes: about the bytes one core streams in
/// the time memory takes to answer.
enum { PREFETCH = 1024 };

CK_INLINE part load_float(const float *p) {
  part v;
  memcpy(&v, p, sizeof v);
  return v;
}

CK_INLINE void store_float(float *p, part v) { memcpy(p, &v, sizeof v); }

/// bfloat16 is the upper half of a float32.
CK_INLINE part widen_halves(const uint16_t *p) {
  part_halves halves;
  memcpy(&halves, p, sizeof halves);
  return (part)(__builtin_convertvector(halves, part_bits) << 16);
}

CK_INLINE float widen_half(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

CK_INLINE part load_weight(const void *weight, size_t index, bool bfloat16) {
  return bfloat16 ? widen_halves((const uint16_t *)weight + index)
                  : load_float((const float *)weight + index);
}

CK_INLINE float weight_at(const void *weight, size_t index, bool bfloat16) {
  return bfloat16 ? widen_half(((const uint16_t *)weight)[index]) : ((const float *)weight)[index];
}

CK_INLINE void widen(const uint16_t *x, size_t count, float *y) {
  size_t i = 0;
  for (; i + CK_WIDTH <= count; i += CK_WIDTH) store_float(y + i, widen_halves(x + i));
  for (; i < count; i++) y[i] = widen_half(x[i]);
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
CK_INLINE void direct_tile(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride) {
  part sums[TILE_ROWS][TILE_OUTPUTS][PARTS];
#pragma unroll
  for (size_t r = 0; r < rows; r++)
#pragma unroll
    for (size_t n = 0; n < outputs; n++)
#pragma unroll
      for (size_t p = 0; p < PARTS; p++) sums[r][n][p] = (part)0.0f;

  size_t k = 0;
  for (; k + 16 <= depth; k += 16) {
#pragma unroll
    for (size_t n = 0; n < outputs; n++) {
      const char *line = (const char *)weight + (n * depth + k) * (bfloat16 ? 2 : 4);
      __builtin_prefetch(line + PREFETCH, 0, 3);
    }
#pragma unroll
    for (size_t p = 0; p < PARTS; p++) {
      part weights[TILE_OUTPUTS];
#pragma unroll
      for (size_t n = 0; n < outputs; n++)
        weights[n] = load_weight(weight, n * depth + k + p * CK_WIDTH, bfloat16);
#pragma unroll
      for (size_t r = 0; r < rows; r++) {
        part factor = load_float(x + r * xStride + k + p * CK_WIDTH);
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
              load_float(factors + p * CK_WIDTH), load_float(lanes[n] + p * CK_WIDTH),
              sums[r][n][p]);
    }
  }
  store_tile(sums, rows, outputs, bias, y, yStride);
}

/// All rows against one group of outputs, the group's weights staying in cache.
CK_INLINE void direct_group(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride) {
  while (rows > 0) {
    size_t taken = rows < TILE_ROWS ? rows : TILE_ROWS;
    // 7 rows are better taken as 4 + 3 than as 6 + 1.
    if (rows > TILE_ROWS && rows < 2 * TILE_ROWS) taken = (rows + 1) / 2;
    switch (taken) {
#define CK_ROWS(count)                                                                    \
  case count:                                                                             \
    direct_tile(x, xStride, count, weight, bfloat16, depth, outputs, bias, y, yStride);   \
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
    rows -= taken;
  }
}

CK_INLINE void direct_all(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride) {
  const size_t bytes = bfloat16 ? 2 : 4;
  size_t n = 0;
  for (; n + TILE_OUTPUTS <= outputs; n += TILE_OUTPUTS)
    direct_group(
        x, xStride, rows, (const char *)weight + n * depth * bytes, bfloat16, depth, TILE_OUTPUTS,
        bias ? bias + n : NULL, y + n, yStride);
  for (; n < outputs; n++)
    direct_group(
        x, xStride, rows, (const char *)weight + n * depth * bytes, bfloat16, depth, 1,
        bias ? bias + n : NULL, y + n, yStride);
}

static __attribute__((noinline)) void direct_float(
    const float *x, size_t xStride, size_t rows, const void *weight, size_t depth, size_t outputs,
    const float *bias, float *y, size_t yStride) {
  direct_all(x, xStride, rows, weight, false, depth, outputs, bias, y, yStride);
}

static __attribute__((noinline)) void direct_half(
    const float *x, size_t xStride, size_t rows, const void *weight, size_t depth, size_t outputs,
    const float *bias, float *y, size_t yStride) {
  direct_all(x, xStride, rows, weight, true, depth, outputs, bias, y, yStride);
}

static void linear_direct(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride) {
  if (bfloat16)
    direct_half(x, xStride, rows, weight, depth, outputs, bias, y, yStride);
  else
    direct_float(x, xStride, rows, weight, depth, outputs, bias, y, yStride);
}

/// Copies `rows` × `depth` elements into panels of `height` rows, sixteen elements of each row
/// in turn, zeros in place of missing rows and elements.
CK_INLINE void pack_panels(
    const void *source, size_t stride, size_t rows, size_t depth, size_t height, bool bfloat16,
    float *panels) {
  const size_t steps = (depth + 15) / 16;
  for (size_t first = 0; first < rows; first += height) {
    for (size_t r = 0; r < height; r++) {
      float *into = panels + (first * steps + r) * 16;
      if (first + r >= rows) {
        for (size_t s = 0; s < steps; s++) store16(into + s * height * 16, splat(0));
        continue;
      }
      const size_t row = (first + r) * stride;
      size_t k = 0;
      for (; k + 16 <= depth; k += 16, into += height * 16)
#pragma unroll
        for (size_t p = 0; p < PARTS; p++)
          store_float(
              into + p * CK_WIDTH, load_weight(source, row + k + p * CK_WIDTH, bfloat16));
      if (k < depth) {
        float lanes[16] = {0};
        for (size_t i = 0; i < depth - k; i++) lanes[i] = weight_at(source, row + k + i, bfloat16);
        memcpy(into, lanes, sizeof lanes);
      }
    }
  }
}

static void linear_packed(
    const float *x, size_t xStride, size_t rows, const void *weight, bool bfloat16, size_t depth,
    size_t outputs, const float *bias, float *y, size_t yStride, float *scratch) {
  float *xPanels = scratch;
  float *weightPanels = xPanels + CK_PACKED_ROWS * CK_PACKED_DEPTH;
  float *kept = weightPanels + CK_PACKED_OUTPUTS * CK_PACKED_DEPTH;
  const size_t tileFloats = TILE_ROWS * TILE_OUTPUTS * 16;
  const size_t weightBytes = bfloat16 ? 2 : 4;

  size_t from = 0;
  do {
    const size_t length = depth - from < CK_PACKED_DEPTH ? depth - from : CK_PACKED_DEPTH;
    const size_t steps = (length + 15) / 16;
    const bool first = from == 0, last = from + length == depth;
    pack_panels(x + from, xStride, rows, length, TILE_ROWS, false, xPanels);
    const void *weights = (const char *)weight + from * weightBytes;
    if (bfloat16)
      pack_panels(weights, depth, outputs, length, TILE_OUTPUTS, true, weightPanels);
    else
      pack_panels(weights, depth, outputs, length, TILE_OUTPUTS, false, weightPanels);

    float *lanes = kept;
    for (size_t n = 0; n < outputs; n += TILE_OUTPUTS) {
      const float *weightPanel = weightPanels + n * steps * 16;
      for (size_t r = 0; r < rows; r += TILE_ROWS, lanes += tileFloats) {
        const float *xStep = xPanels + r * steps * 16;
        const float *weightStep = weightPanel;
        part sums[TILE_ROWS][TILE_OUTPUTS][PARTS];
        if (first)
          memset(sums, 0, sizeof sums);
        else
          memcpy(sums, lanes, sizeof sums);
        for (size_t s = 0; s < steps; s++) {
#pragma unroll
          for (size_t p = 0; p < PARTS; p++) {
            part weights[TILE_OUTPUTS];
#pragma unroll
            for (size_t c = 0; c < TILE_OUTPUTS; c++)
              weights[c] = load_float(weightStep + c * 16 + p * CK_WIDTH);
#pragma unroll
            for (size_t t = 0; t < TILE_ROWS; t++) {
              part factor = load_float(xStep + t * 16 + p * CK_WIDTH);
#pragma unroll
              for (size_t c = 0; c < TILE_OUTPUTS; c++)
                sums[t][c][p] = __builtin_elementwise_fma(factor, weights[c], sums[t][c][p]);
            }
          }
          xStep += TILE_ROWS * 16;
          weightStep += TILE_OUTPUTS * 16;
        }
        if (!last) {
          memcpy(lanes, sums, sizeof sums);
          continue;
        }
        const size_t tileRows = rows - r < TILE_ROWS ? rows - r : TILE_ROWS;
        const size_t tileOutputs = outputs - n < TILE_OUTPUTS ? outputs - n : TILE_OUTPUTS;
        const float *tileBias = bias ? bias + n : NULL;
        if (tileRows == TILE_ROWS && tileOutputs == TILE_OUTPUTS)
          store_tile(sums, TILE_ROWS, TILE_OUTPUTS, tileBias, y + r * yStride + n, yStride);
        else
          store_tile(sums, tileRows, tileOutputs, tileBias, y + r * yStride + n, yStride);
      }
    }
    from += length;
  } while (from < depth);
}
