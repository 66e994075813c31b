// Sixteen lanes as one value, whatever registers they take.

typedef float v16 __attribute__((ext_vector_type(16)));
typedef float v8 __attribute__((ext_vector_type(8)));
typedef float v4 __attribute__((ext_vector_type(4)));
typedef uint32_t u16x32 __attribute__((ext_vector_type(16)));
typedef int32_t i16x32 __attribute__((ext_vector_type(16)));

#define CK_INLINE static inline __attribute__((always_inline))

CK_INLINE v16 load16(const float *p) {
  v16 v;
  memcpy(&v, p, sizeof v);
  return v;
}

CK_INLINE void store16(float *p, v16 v) { memcpy(p, &v, sizeof v); }

// In a loop over blocks of sixteen, `left` elements are left from the block on: all functions
// that take it do nothing special from sixteen on, and spare memory beyond the row below that.

/// The block's elements, zeros behind the last.
CK_INLINE v16 load(const float *p, size_t left) {
  if (__builtin_expect(left >= 16, 1)) return load16(p);
  float lanes[16] = {0};
  for (size_t i = 0; i < left; i++) lanes[i] = p[i];
  return load16(lanes);
}

CK_INLINE void store(float *p, v16 v, size_t left) {
  if (__builtin_expect(left >= 16, 1)) {
    store16(p, v);
    return;
  }
  float lanes[16];
  store16(lanes, v);
  for (size_t i = 0; i < left; i++) p[i] = lanes[i];
}

/// The lanes with an element, `other` in those behind the last.
CK_INLINE v16 keep(v16 v, size_t left, float other) {
  if (__builtin_expect(left >= 16, 1)) return v;
  float lanes[16];
  store16(lanes, v);
  for (size_t i = left; i < 16; i++) lanes[i] = other;
  return load16(lanes);
}

CK_INLINE v16 splat(float f) { return (v16)f; }

CK_INLINE v16 fma16(v16 a, v16 b, v16 c) { return __builtin_elementwise_fma(a, b, c); }

/// mask ? a : b, for a mask of all ones or zeros.
CK_INLINE v16 select16(i16x32 mask, v16 a, v16 b) {
  return (v16)(((i16x32)a & mask) | ((i16x32)b & ~mask));
}

CK_INLINE v4 fold16(v16 v) {
  v8 half = v.lo + v.hi;
  return half.lo + half.hi;
}

CK_INLINE float sum16(v16 v) {
  v4 fold = fold16(v);
  return (fold.x + fold.z) + (fold.y + fold.w);
}

/// sum16 of four values.
CK_INLINE v4 sums16(v16 a, v16 b, v16 c, v16 d) {
  v4 fa = fold16(a), fb = fold16(b), fc = fold16(c), fd = fold16(d);
  v4 ab = __builtin_shufflevector(fa, fb, 0, 1, 4, 5) + __builtin_shufflevector(fa, fb, 2, 3, 6, 7);
  v4 cd = __builtin_shufflevector(fc, fd, 0, 1, 4, 5) + __builtin_shufflevector(fc, fd, 2, 3, 6, 7);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

/// a where it is greater, else b: a NaN in a is passed over.
CK_INLINE v16 max16(v16 a, v16 b) { return select16(a > b, a, b); }

CK_INLINE float greatest16(v16 v) {
  float lanes[16];
  store16(lanes, v);
  float greatest = lanes[0];
  for (int i = 1; i < 16; i++) greatest = lanes[i] > greatest ? lanes[i] : greatest;
  return greatest;
}
