// Operations on single rows.

static void add_bias(float *y, size_t yStride, size_t rows, size_t count, const float *bias) {
  for (size_t r = 0; r < rows; r++, y += yStride) {
    CK_FOR_BLOCKS(
        count, store16(y + i, load16(y + i) + load16(bias + i));
        , store_part(y + i, load_part(y + i, rest) + load_part(bias + i, rest), rest););
  }
}

CK_INLINE float sum_of_squares(const float *x, size_t count) {
  v16 sums = splat(0);
  CK_FOR_BLOCKS(
      count, v16 v = load16(x + i); sums = fma16(v, v, sums);
      , v16 v = load_part(x + i, rest); sums = fma16(v, v, sums););
  return sum16(sums);
}

static void rms_norm(
    const float *x, size_t count, const float *weight, float epsilon, float *y) {
  const float mean = sum_of_squares(x, count) / (float)count;
  const v16 factor = splat(1.0f / sqrtf(mean + epsilon));
  CK_FOR_BLOCKS(
      count, store16(y + i, load16(x + i) * factor * load16(weight + i));
      , store_part(y + i, load_part(x + i, rest) * factor * load_part(weight + i, rest), rest););
}

static void layer_norm(
    const float *x, size_t count, const float *weight, const float *bias, float epsilon,
    float *y) {
  v16 sums = splat(0);
  CK_FOR_BLOCKS(count, sums += load16(x + i);, sums += load_part(x + i, rest););
  const float mean = sum16(sums) / (float)count;

  // The mean is taken off before squaring: x² − mean² would cancel.
  v16 squares = splat(0);
  CK_FOR_BLOCKS(
      count, v16 v = load16(x + i) - splat(mean); squares = fma16(v, v, squares);
      , float lanes[16] = {0}; for (size_t j = 0; j < rest; j++) lanes[j] = x[i + j] - mean;
      v16 v = load16(lanes); squares = fma16(v, v, squares););
  const float variance = sum16(squares) / (float)count;

  const v16 factor = splat(1.0f / sqrtf(variance + epsilon));
  CK_FOR_BLOCKS(
      count,
      store16(y + i, (load16(x + i) - splat(mean)) * factor * load16(weight + i) + load16(bias + i));
      ,
      store_part(
          y + i,
          (load_part(x + i, rest) - splat(mean)) * factor * load_part(weight + i, rest) +
              load_part(bias + i, rest),
          rest););
}

CK_INLINE v16 gelu16(v16 x) {
  const v16 zero = splat(0);
  v16 lower = lower_normal16(select16(x < zero, -x, x));
  return x * select16(x < zero, lower, splat(1) - lower);
}

static void gelu(float *x, size_t count) {
  CK_FOR_BLOCKS(
      count, store16(x + i, gelu16(load16(x + i)));
      , store_part(x + i, gelu16(load_part(x + i, rest)), rest););
}

CK_INLINE v16 silu16(v16 x) { return x / (splat(1) + exp16(-x)); }

static void silu_multiply(const float *gate, const float *up, size_t count, float *y) {
  CK_FOR_BLOCKS(
      count, store16(y + i, silu16(load16(gate + i)) * load16(up + i));
      , store_part(y + i, silu16(load_part(gate + i, rest)) * load_part(up + i, rest), rest););
}

static void add_scaled(const float *y, const float *scale, size_t count, float *x) {
  if (scale) {
    CK_FOR_BLOCKS(
        count, store16(x + i, load16(x + i) + load16(scale + i) * load16(y + i));
        , store_part(
              x + i, load_part(x + i, rest) + load_part(scale + i, rest) * load_part(y + i, rest),
              rest););
  } else {
    CK_FOR_BLOCKS(
        count, store16(x + i, load16(x + i) + load16(y + i));
        , store_part(x + i, load_part(x + i, rest) + load_part(y + i, rest), rest););
  }
}

static void rotate(
    float *x, size_t heads, size_t half, const float *cosines, const float *sines) {
  for (size_t head = 0; head < heads; head++, x += 2 * half) {
    float *first = x, *second = x + half;
    CK_FOR_BLOCKS(
        half, v16 a = load16(first + i); v16 b = load16(second + i);
        v16 c = load16(cosines + i); v16 s = load16(sines + i);
        store16(first + i, a * c - b * s); store16(second + i, b * c + a * s);
        , v16 a = load_part(first + i, rest); v16 b = load_part(second + i, rest);
        v16 c = load_part(cosines + i, rest); v16 s = load_part(sines + i, rest);
        store_part(first + i, a * c - b * s, rest);
        store_part(second + i, b * c + a * s, rest););
  }
}

static void exponential(const float *x, size_t count, float *y) {
  CK_FOR_BLOCKS(
      count, store16(y + i, exp16(load16(x + i)));
      , store_part(y + i, exp16(load_part(x + i, rest)), rest););
}
