// Operations on single rows.

static void rms_norm(
    const float *x, size_t count, const float *weight, float epsilon, float *y) {
  v16 squares = splat(0);
  for (size_t i = 0; i < count; i += 16) {
    v16 v = load(x + i, count - i);
    squares = fma16(v, v, squares);
  }
  const float mean = sum16(squares) / (float)count;

  const v16 factor = splat(1.0f / sqrtf(mean + epsilon));
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    store(y + i, load(x + i, left) * factor * load(weight + i, left), left);
  }
}

static void layer_norm(
    const float *x, size_t count, const float *weight, const float *bias, float epsilon,
    float *y) {
  v16 sums = splat(0);
  for (size_t i = 0; i < count; i += 16) sums += load(x + i, count - i);
  const v16 mean = splat(sum16(sums) / (float)count);

  // The mean is taken off before squaring: the mean of x² less its square would cancel.
  v16 squares = splat(0);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 v = keep(load(x + i, left) - mean, left, 0);
    squares = fma16(v, v, squares);
  }
  const float variance = sum16(squares) / (float)count;

  const v16 factor = splat(1.0f / sqrtf(variance + epsilon));
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 v = (load(x + i, left) - mean) * factor;
    store(y + i, v * load(weight + i, left) + load(bias + i, left), left);
  }
}

CK_INLINE v16 gelu16(v16 v) {
  const v16 zero = splat(0);
  const v16 lower = lower_normal16(select16(v < zero, -v, v));
  return v * select16(v < zero, lower, splat(1) - lower);
}

static void gelu(float *x, size_t count) {
  for (size_t i = 0; i < count; i += 16)
    store(x + i, gelu16(load(x + i, count - i)), count - i);
}

static void silu_multiply(const float *gate, const float *up, size_t count, float *y) {
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 v = load(gate + i, left);
    store(y + i, v / (splat(1) + exp16(-v)) * load(up + i, left), left);
  }
}

static void add_scaled(const float *y, const float *scale, size_t count, float *x) {
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 v = load(y + i, left);
    if (scale) v = load(scale + i, left) * v;
    store(x + i, load(x + i, left) + v, left);
  }
}

static void rotate(
    float *x, size_t heads, size_t half, const float *cosines, const float *sines) {
  for (size_t head = 0; head < heads; head++, x += 2 * half) {
    for (size_t i = 0; i < half; i += 16) {
      const size_t left = half - i;
      v16 a = load(x + i, left), b = load(x + half + i, left);
      v16 c = load(cosines + i, left), s = load(sines + i, left);
      store(x + i, a * c - b * s, left);
      store(x + half + i, b * c + a * s, left);
    }
  }
}

static void scale(float *x, size_t count, float factor) {
  for (size_t i = 0; i < count; i += 16)
    store(x + i, load(x + i, count - i) * splat(factor), count - i);
}

static void exponential(const float *x, size_t count, float *y) {
  for (size_t i = 0; i < count; i += 16) store(y + i, exp16(load(x + i, count - i)), count - i);
}
