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

/// How widen_lines moves halves.
typedef struct {
#if CK_WIDTH == 16
  __m512i first, second;
#else
  char none;
#endif
} widening;

CK_INLINE widening make_widening(void) {
#if CK_WIDTH == 16
  widening way;
  way.first = _mm512_set_epi16(
      15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1,
      0, 0, 0);
  way.second = _mm512_add_epi16(way.first, _mm512_set1_epi16(16));
  // Known numbers would be taken for a shuffle of two vectors, which costs more.
  __asm__("" : "+v"(way.first), "+v"(way.second));
  return way;
#else
  return (widening){0};
#endif
}

/// Sixteen bfloat16 from each of two lines of 32 bytes. AVX2 has them out of order, which costs
/// less; in_order puts that right for sums of them.
CK_INLINE void widen_lines(
    const char *p, const widening *way, part first[PARTS], part second[PARTS]) {
#if CK_WIDTH == 16
  // One permutation each: a half to the upper end of every lane, zeros below.
  const __m512i lines = _mm512_loadu_si512(p);
  first[0] = (part)_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, way->first, lines);
  second[0] = (part)_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, way->second, lines);
#elif CK_WIDTH == 8
  // Halves 0 to 3 and 8 to 11, then the others.
  (void)way;
  const __m256i zero = _mm256_setzero_si256();
  const __m256i a = _mm256_loadu_si256((const __m256i *)p);
  const __m256i b = _mm256_loadu_si256((const __m256i *)(p + 32));
  first[0] = (part)_mm256_unpacklo_epi16(zero, a);
  first[1] = (part)_mm256_unpackhi_epi16(zero, a);
  second[0] = (part)_mm256_unpacklo_epi16(zero, b);
  second[1] = (part)_mm256_unpackhi_epi16(zero, b);
#else
  (void)way;
#pragma unroll
  for (size_t i = 0; i < PARTS; i++) {
    first[i] = widen_part((const uint16_t *)p + i * CK_WIDTH);
    second[i] = widen_part((const uint16_t *)(p + 32) + i * CK_WIDTH);
  }
#endif
}

CK_INLINE void in_order(part v[PARTS]) {
#if CK_WIDTH == 8
  const part first = v[0];
  v[0] = __builtin_shufflevector(first, v[1], 0, 1, 2, 3, 8, 9, 10, 11);
  v[1] = __builtin_shufflevector(first, v[1], 4, 5, 6, 7, 12, 13, 14, 15);
#else
  (void)v;
#endif
}

CK_INLINE float widen_half(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void widen(const uint16_t *x, size_t count, float *y) {
  size_t i = 0;
  for (; i + CK_WIDTH <= count; i += CK_WIDTH) store_part(y + i, widen_part(x + i));
  for (; i < count; i++) y[i] = widen_half(x[i]);
}
