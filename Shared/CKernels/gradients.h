// Gradients of the operations on rows and elements, and what a training step needs besides.

/// y[i] = v, or += v.
CK_INLINE void put(float *y, v16 v, size_t left, bool adding) {
  store(y, adding ? load(y, left) + v : v, left);
}

static void rms_norm_gradient(
    const float *dy, const float *x, size_t count, const float *weight, float epsilon,
    bool adding, float *dx, float *dweight) {
  v16 squares = splat(0), products = splat(0);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 v = load(x + i, left);
    squares = fma16(v, v, squares);
    products = fma16(load(dy + i, left) * load(weight + i, left), v, products);
  }
  const float factor = 1.0f / sqrtf(sum16(squares) / (float)count + epsilon);
  // dx = factor · (g − x̂ · mean(g ⊙ x̂)), g = dy ⊙ weight, x̂ = factor · x.
  const v16 f = splat(factor), mean = splat(sum16(products) * factor / (float)count);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 normal = load(x + i, left) * f, g = load(dy + i, left);
    if (dweight) store(dweight + i, fma16(g, normal, load(dweight + i, left)), left);
    if (dx) put(dx + i, f * (g * load(weight + i, left) - normal * mean), left, adding);
  }
}

static void layer_norm_gradient(
    const float *dy, const float *x, size_t count, const float *weight, float epsilon,
    bool adding, float *dx, float *dweight, float *dbias) {
  v16 sums = splat(0);
  for (size_t i = 0; i < count; i += 16) sums += load(x + i, count - i);
  const v16 mean = splat(sum16(sums) / (float)count);
  v16 squares = splat(0), gradients = splat(0), products = splat(0);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 v = keep(load(x + i, left) - mean, left, 0);
    v16 g = load(dy + i, left) * load(weight + i, left);
    squares = fma16(v, v, squares);
    gradients += g;
    products = fma16(g, v, products);
  }
  const float factor = 1.0f / sqrtf(sum16(squares) / (float)count + epsilon);
  // dx = factor · (g − mean(g) − x̂ · mean(g ⊙ x̂)), g = dy ⊙ weight.
  const v16 f = splat(factor), offset = splat(sum16(gradients) / (float)count);
  const v16 slope = splat(sum16(products) * factor / (float)count);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 normal = (load(x + i, left) - mean) * f, g = load(dy + i, left);
    if (dweight) store(dweight + i, fma16(g, normal, load(dweight + i, left)), left);
    if (dbias) store(dbias + i, load(dbias + i, left) + g, left);
    if (dx) put(dx + i, f * (g * load(weight + i, left) - offset - normal * slope), left, adding);
  }
}

static void gelu_gradient(const float *dy, const float *x, size_t count, float *dx) {
  const v16 zero = splat(0);
  for (size_t i = 0; i < count; i += 16) {
    v16 v = load(x + i, count - i);
    v16 t = select16(v < zero, -v, v);
    v16 lower = lower_normal16(t);
    // The density at 20 is 0 in float32, and so is x times it, even at infinity.
    t = select16(t > splat(20), splat(20), t);
    v16 tail = t * exp16(t * t * splat(-0.5f)) * splat(0.398942280f);
    v16 slope = select16(v < zero, lower - tail, splat(1) - lower + tail);
    store(dx + i, load(dy + i, count - i) * slope, count - i);
  }
}

static void silu_multiply_gradient(
    const float *dy, const float *gate, const float *up, size_t count, float *dgate, float *dup) {
  const v16 one = splat(1);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 d = load(dy + i, left), g = load(gate + i, left), u = load(up + i, left);
    v16 sigmoid = one / (one + exp16(-g));
    store(dgate + i, d * u * (sigmoid * fma16(g, one - sigmoid, one)), left);
    store(dup + i, d * (g * sigmoid), left);
  }
}

static void add_scaled_by(
    const float *y, const float *scale, float factor, size_t count, float *x) {
  const v16 f = splat(factor);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 v = load(y + i, left);
    if (scale) v = load(scale + i, left) * v;
    store(x + i, load(x + i, left) + f * v, left);
  }
}

static void add_scaled_gradient(
    const float *dx, const float *y, const float *scale, float factor, size_t count, float *dy,
    float *dscale) {
  const v16 f = splat(factor);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 v = load(dx + i, left) * f;
    if (dscale) store(dscale + i, fma16(v, load(y + i, left), load(dscale + i, left)), left);
    if (scale) v = load(scale + i, left) * v;
    store(dy + i, v, left);
  }
}

static void rotate_back(
    float *x, size_t heads, size_t half, const float *cosines, const float *sines) {
  for (size_t head = 0; head < heads; head++, x += 2 * half) {
    for (size_t i = 0; i < half; i += 16) {
      const size_t left = half - i;
      v16 a = load(x + i, left), b = load(x + half + i, left);
      v16 c = load(cosines + i, left), s = load(sines + i, left);
      store(x + i, a * c + b * s, left);
      store(x + half + i, b * c - a * s, left);
    }
  }
}

/// Sixty-four rows at a time: sums of sums lose less than one long sum.
static void add_rows(const float *x, size_t xStride, size_t rows, size_t count, float *y) {
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 total = splat(0);
    for (size_t first = 0; first < rows; first += 64) {
      v16 sum = splat(0);
      for (size_t r = first; r < rows && r < first + 64; r++) sum += load(x + r * xStride + i, left);
      total += sum;
    }
    store(y + i, load(y + i, left) + total, left);
  }
}

static float dot(const float *a, const float *b, size_t count) {
  v16 sums = splat(0);
  for (size_t i = 0; i < count; i += 16)
    sums = fma16(load(a + i, count - i), load(b + i, count - i), sums);
  return sum16(sums);
}

static void adamw(
    float *value, const float *gradient, float *first, float *second, size_t count,
    const ck_adamw *step) {
  const v16 scale = splat(step->gradient_scale), decay = splat(step->decay);
  const v16 one_less_beta1 = splat(step->one_less_beta1), beta2 = splat(step->beta2);
  const v16 one_less_beta2 = splat(step->one_less_beta2), epsilon = splat(step->epsilon);
  const v16 root = splat(step->root_correction2), rate = splat(step->step_size);
  for (size_t i = 0; i < count; i += 16) {
    const size_t left = count - i;
    v16 g = load(gradient + i, left) * scale;
    v16 m = load(first + i, left), v = load(second + i, left);
    m = m + one_less_beta1 * (g - m);
    v = v * beta2 + one_less_beta2 * g * g;
    store(first + i, m, left);
    store(second + i, v, left);
    v16 divisor = __builtin_elementwise_sqrt(v) / root + epsilon;
    store(value + i, load(value + i, left) * decay - rate * (m / divisor), left);
  }
}

static double sum_of_squares(const float *x, size_t count) {
  typedef double d16 __attribute__((ext_vector_type(16)));
  d16 sums = (d16)0.0;
  for (size_t i = 0; i < count; i += 16) {
    d16 v = __builtin_convertvector(load(x + i, count - i), d16);
    sums += v * v;
  }
  double lanes[16];
  memcpy(lanes, &sums, sizeof lanes);
  for (size_t apart = 8; apart > 0; apart /= 2)
    for (size_t i = 0; i < apart; i++) lanes[i] += lanes[i + apart];
  return lanes[0];
}

static void dropout(
    const float *x, size_t count, uint64_t seed, uint64_t stream, uint64_t first, float probability,
    float factor, float *y) {
  for (size_t i = 0; i < count; i++) {
    uint32_t words[4];
    philox(seed, stream, first + i, words);
    y[i] = uniform(words[0]) >= probability ? x[i] * factor : 0;
  }
}
