// What a softmax of one row is made of.

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
