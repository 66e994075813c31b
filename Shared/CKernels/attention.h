// Softmax, and attention over one block of a sequence's keys and values.

CK_INLINE float greatest(const float *x, size_t count) {
  v16 found = splat(-INFINITY);
  for (size_t i = 0; i < count; i += 16)
    found = max16(keep(load(x + i, count - i), count - i, -INFINITY), found);
  return greatest16(found);
}

/// x ← exp(x − offset); the sum of the results.
CK_INLINE float exponentials(float *x, size_t count, float offset) {
  v16 sums = splat(0);
  for (size_t i = 0; i < count; i += 16) {
    v16 powers = keep(exp16(load(x + i, count - i) - splat(offset)), count - i, 0);
    store(x + i, powers, count - i);
    sums += powers;
  }
  return sum16(sums);
}

static float greatest_of(const float *x, size_t count) { return greatest(x, count); }

static float exponentials_of(float *x, size_t count, float offset) {
  return exponentials(x, count, offset);
}

static void softmax(float *x, size_t count, float factor) {
  scale(x, count, factor);
  scale(x, count, 1.0f / exponentials(x, count, greatest(x, count)));
}

/// output[0 ..< 16 · blocks] += Σ_b weights[b] · values[b], for consecutive b.
CK_INLINE void add_weighted(
    const float *weights, const float *values, size_t visible, size_t size, size_t blocks,
    float *output) {
  v16 sums[4];
#pragma unroll
  for (size_t j = 0; j < blocks; j++) sums[j] = load16(output + 16 * j);
  for (size_t b = 0; b < visible; b++) {
    v16 weight = splat(weights[b]);
#pragma unroll
    for (size_t j = 0; j < blocks; j++)
      sums[j] = fma16(weight, load16(values + b * size + 16 * j), sums[j]);
  }
#pragma unroll
  for (size_t j = 0; j < blocks; j++) store16(output + 16 * j, sums[j]);
}

static void attend_block(
    const float *q, size_t heads, size_t size, const float *keys, const float *values,
    size_t visible, float factor, float *scores, float *maxima, float *sums, float *output) {
  linear(q, size, heads, keys, false, size, visible, NULL, scores, visible);
  for (size_t head = 0; head < heads; head++, scores += visible, output += size) {
    scale(scores, visible, factor);
    const float before = maxima[head], found = greatest(scores, visible);
    const float maximum = found > before ? found : before;
    const float sum = exponentials(scores, visible, maximum);
    if (maximum > before) {
      float kept[16];
      store16(kept, exp16(splat(before - maximum)));
      sums[head] = sums[head] * kept[0];
      scale(output, size, kept[0]);
    }
    sums[head] += sum;
    maxima[head] = maximum;

    size_t i = 0;
    for (; i + 64 <= size; i += 64)
      add_weighted(scores, values + i, visible, size, 4, output + i);
    for (; i + 16 <= size; i += 16)
      add_weighted(scores, values + i, visible, size, 1, output + i);
    if (i < size) {
      v16 lanes = load(output + i, size - i);
      for (size_t b = 0; b < visible; b++)
        lanes = fma16(splat(scores[b]), load(values + b * size + i, size - i), lanes);
      store(output + i, lanes, size - i);
    }
  }
}
