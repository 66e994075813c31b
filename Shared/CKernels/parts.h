// The part of sixteen lanes that one register holds.

typedef float part __attribute__((ext_vector_type(CK_WIDTH)));
typedef uint32_t part_bits __attribute__((ext_vector_type(CK_WIDTH)));
typedef uint16_t part_halves __attribute__((ext_vector_type(CK_WIDTH)));

enum { PARTS = 16 / CK_WIDTH };

CK_INLINE part load_part(const float *p) {
  part v;
  memcpy(&v, p, sizeof v);
  return v;
}

CK_INLINE void store_part(float *p, part v) { memcpy(p, &v, sizeof v); }

/// bfloat16 is the upper half of a float32.
CK_INLINE part widen_part(const uint16_t *p) {
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

/// To the nearest half, ties to even; a NaN keeps a bit that makes it one.
CK_INLINE uint16_t narrow_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return (uint16_t)(value != value ? (bits >> 16 | 0x40) : rounded);
}

static void widen(const uint16_t *x, size_t count, float *y) {
  size_t i = 0;
  for (; i + CK_WIDTH <= count; i += CK_WIDTH) store_part(y + i, widen_part(x + i));
  for (; i < count; i++) y[i] = widen_half(x[i]);
}
