// One block of 32 of a tile of rows by a panel, in whole numbers: sums[r][p] are those of row r
// and the outputs of part p. All ways give the same numbers. The number of rows is a constant
// after inlining.
//
// A byte of q8 stands for byte − 128: products are taken with the byte, unsigned as processors
// want one of two factors to be, and the row's word of −128 · Σx is added. A half byte of q4 stands
// for 16 · half − zero: likewise, with −zero · Σx.

#if CK_WIDTH == 16
typedef __m512i lane_bytes;
#define CK_LANES(name) _mm512_##name
#elif CK_WIDTH == 8
typedef __m256i lane_bytes;
#define CK_LANES(name) _mm256_##name
#endif

CK_INLINE lane_ints load_ints(const uint8_t *p) {
  lane_ints v;
  memcpy(&v, p, sizeof v);
  return v;
}

typedef uint16_t lane_words __attribute__((ext_vector_type(CK_WIDTH)));

CK_INLINE lane_words load_words(const uint8_t *p) {
  lane_words v;
  memcpy(&v, p, sizeof v);
  return v;
}

/// float16 to float32, exactly.
CK_INLINE lane_floats widen_float16(lane_words halves) {
#if CK_WIDTH == 16
  return (lane_floats)_mm512_cvtph_ps((__m256i)halves);
#elif CK_WIDTH == 8
  return (lane_floats)_mm256_cvtph_ps((__m128i)halves);
#else
  const lane_ints bits = __builtin_convertvector(halves, lane_ints);
  // With the exponent in its place the number is 2⁻¹¹² times itself, subnormal or not.
  const lane_floats magnitude = (lane_floats)((bits & 0x7fff) << 13) * 0x1p112f;
  const lane_ints highest = (bits & 0x7c00) == 0x7c00;
  return (lane_floats)((lane_ints)magnitude | (highest & 0x7f800000) | (bits & 0x8000) << 16);
#endif
}

/// The factors of one part's whole numbers; of q4's words the upper twelve bits are the scale.
CK_INLINE lane_floats widen_scales(const uint8_t *scales, size_t part, bool four) {
  const lane_words halves = load_words(scales + 2 * CK_WIDTH * part);
  return four ? widen_float16(halves & (uint16_t)0xfff0) * 0.0625f
              : widen_float16(halves);
}

/// The zeros of one part of a panel: their lower four bits stand by the scales.
CK_INLINE lane_ints widen_zeros(const uint8_t *zeros, const uint8_t *scales, size_t part) {
  const lane_ints lower =
      __builtin_convertvector(load_words(scales + 2 * CK_WIDTH * part), lane_ints) & 15;
#if CK_WIDTH == 16
  const __m128i bytes = _mm_loadl_epi64((const __m128i *)zeros);
  const __m128i both = _mm_unpacklo_epi64(_mm_slli_epi64(bytes, 4), bytes);
  return (lane_ints)_mm512_cvtepu8_epi32(_mm_and_si128(both, _mm_set1_epi8((char)0xf0))) | lower;
#else
  typedef uint8_t bytes __attribute__((ext_vector_type(CK_WIDTH)));
  bytes found;
  memcpy(&found, zeros + part % (8 / CK_WIDTH) * CK_WIDTH, sizeof found);
  const lane_ints upper = __builtin_convertvector(found, lane_ints);
  return ((part < 8 / CK_WIDTH ? upper << 4 : upper) & 0xf0) | lower;
#endif
}

#ifdef CK_DOT_PRODUCTS

/// sums + the products of four unsigned bytes by four signed ones in each lane.
CK_INLINE lane_ints add_products(lane_ints sums, lane_ints weights, int32_t word) {
  return (lane_ints)CK_DOT_PRODUCTS(
      (lane_bytes)sums, (lane_bytes)weights, (lane_bytes)(lane_ints)word);
}

CK_INLINE void q8_block(
    const uint8_t *values, const int32_t *tile, size_t rows,
    lane_ints sums[CK_QUANTISED_ROWS][LANE_PARTS]) {
#pragma unroll
  for (size_t r = 0; r < rows; r++)
#pragma unroll
    for (size_t p = 0; p < LANE_PARTS; p++) sums[r][p] = (lane_ints)tile[8 * rows + r];
#pragma unroll
  for (size_t g = 0; g < 8; g++)
#pragma unroll
    for (size_t p = 0; p < LANE_PARTS; p++) {
      const lane_ints weights = load_ints(values + 64 * g + 4 * CK_WIDTH * p);
#pragma unroll
      for (size_t r = 0; r < rows; r++)
        sums[r][p] = add_products(sums[r][p], weights, tile[g * rows + r]);
    }
}

CK_INLINE void q4_block(
    const uint8_t *values, const uint8_t *scales, const uint8_t *zeros, const int32_t *tile,
    size_t rows,
    lane_ints sums[CK_QUANTISED_ROWS][LANE_PARTS]) {
#pragma unroll
  for (size_t p = 0; p < LANE_PARTS; p++) {
    const lane_bytes zero = (lane_bytes)widen_zeros(zeros, scales, p);
    // Both factors fit in the lower sixteen bits, and the zeros' upper ones are 0.
#pragma unroll
    for (size_t r = 0; r < rows; r++)
      sums[r][p] = (lane_ints)CK_LANES(madd_epi16)(zero, (lane_bytes)(lane_ints)tile[9 * rows + r]);
  }
#pragma unroll
  for (size_t g = 0; g < 4; g++)
#pragma unroll
    for (size_t p = 0; p < LANE_PARTS; p++) {
      const lane_ints pairs = load_ints(values + 64 * g + 4 * CK_WIDTH * p);
      const lane_ints mask = (int32_t)0xf0f0f0f0, low = (pairs << 4) & mask, high = pairs & mask;
#pragma unroll
      for (size_t r = 0; r < rows; r++)
        sums[r][p] = add_products(sums[r][p], low, tile[g * rows + r]);
#pragma unroll
      for (size_t r = 0; r < rows; r++)
        sums[r][p] = add_products(sums[r][p], high, tile[(g + 4) * rows + r]);
    }
}

#elif CK_WIDTH >= 8

// A product of bytes by these instructions adds two neighbours in sixteen bits, where two of
// 255 · 127 have no room, but thirty-two of 15 · 127 have: q8 goes in halves of four bits too.
// Loops along the depth stay loops: unrolled, the compiler loads more than there are registers.

CK_INLINE lane_bytes add_halves(lane_bytes sums, lane_ints weights, int32_t word) {
  return CK_LANES(add_epi16)(
      sums, CK_LANES(maddubs_epi16)((lane_bytes)weights, (lane_bytes)(lane_ints)word));
}

CK_INLINE lane_ints add_neighbours(lane_bytes sums, short factor) {
  return (lane_ints)CK_LANES(madd_epi16)(sums, CK_LANES(set1_epi16)(factor));
}

CK_INLINE void q8_block(
    const uint8_t *values, const int32_t *tile, size_t rows,
    lane_ints sums[CK_QUANTISED_ROWS][LANE_PARTS]) {
#pragma unroll
  for (size_t p = 0; p < LANE_PARTS; p++) {
    lane_bytes low[CK_QUANTISED_ROWS], high[CK_QUANTISED_ROWS];
#pragma unroll
    for (size_t r = 0; r < rows; r++) low[r] = high[r] = (lane_bytes)(lane_ints)0;
#pragma clang loop unroll(disable)
    for (size_t g = 0; g < 8; g++) {
      const lane_ints weights = load_ints(values + 64 * g + 4 * CK_WIDTH * p);
      const lane_ints lower = weights & 0x0f0f0f0f, upper = (weights >> 4) & 0x0f0f0f0f;
#pragma unroll
      for (size_t r = 0; r < rows; r++) {
        low[r] = add_halves(low[r], lower, tile[g * rows + r]);
        high[r] = add_halves(high[r], upper, tile[g * rows + r]);
      }
    }
#pragma unroll
    for (size_t r = 0; r < rows; r++)
      sums[r][p] =
          add_neighbours(high[r], 16) + (add_neighbours(low[r], 1) + tile[8 * rows + r]);
  }
}

CK_INLINE void q4_block(
    const uint8_t *values, const uint8_t *scales, const uint8_t *zeros, const int32_t *tile,
    size_t rows,
    lane_ints sums[CK_QUANTISED_ROWS][LANE_PARTS]) {
#pragma unroll
  for (size_t p = 0; p < LANE_PARTS; p++) {
    lane_bytes halves[CK_QUANTISED_ROWS];
#pragma unroll
    for (size_t r = 0; r < rows; r++) halves[r] = (lane_bytes)(lane_ints)0;
#pragma clang loop unroll(disable)
    for (size_t g = 0; g < 4; g++) {
      const lane_ints pairs = load_ints(values + 64 * g + 4 * CK_WIDTH * p);
      const lane_ints low = pairs & 0x0f0f0f0f, high = (pairs >> 4) & 0x0f0f0f0f;
#pragma unroll
      for (size_t r = 0; r < rows; r++) {
        halves[r] = add_halves(halves[r], low, tile[g * rows + r]);
        halves[r] = add_halves(halves[r], high, tile[(g + 4) * rows + r]);
      }
    }
    const lane_bytes zero = (lane_bytes)widen_zeros(zeros, scales, p);
#pragma unroll
    for (size_t r = 0; r < rows; r++)
      sums[r][p] = add_neighbours(halves[r], 16) +
                   (lane_ints)CK_LANES(madd_epi16)(zero, (lane_bytes)(lane_ints)tile[9 * rows + r]);
  }
}

#else

typedef int16_t lane_halves __attribute__((ext_vector_type(4 * CK_WIDTH)));

/// sums + the products of four numbers by four bytes in each lane.
CK_INLINE lane_ints add_products(lane_ints sums, lane_halves weights, int32_t word) {
  typedef int8_t bytes __attribute__((ext_vector_type(4 * CK_WIDTH)));
  const lane_halves products =
      weights * __builtin_convertvector((bytes)(lane_ints)word, lane_halves);
  // Two products of −128…127 by −127…127 have room in sixteen bits.
  typedef int32_t pairs __attribute__((ext_vector_type(2 * CK_WIDTH)));
  const pairs two = __builtin_convertvector(products.even + products.odd, pairs);
  return sums + two.even + two.odd;
}

CK_INLINE lane_halves widen_bytes(lane_ints packed) {
  typedef uint8_t bytes __attribute__((ext_vector_type(4 * CK_WIDTH)));
  return __builtin_convertvector((bytes)packed, lane_halves);
}

CK_INLINE void q8_block(
    const uint8_t *values, const int32_t *tile, size_t rows,
    lane_ints sums[CK_QUANTISED_ROWS][LANE_PARTS]) {
#pragma clang loop unroll(disable)
  for (size_t p = 0; p < LANE_PARTS; p++) {
    for (size_t r = 0; r < rows; r++) sums[r][p] = 0;
#pragma clang loop unroll(disable)
    for (size_t g = 0; g < 8; g++) {
      const lane_halves weights =
          widen_bytes(load_ints(values + 64 * g + 4 * CK_WIDTH * p)) - (int16_t)128;
      for (size_t r = 0; r < rows; r++)
        sums[r][p] = add_products(sums[r][p], weights, tile[g * rows + r]);
    }
  }
}

CK_INLINE void q4_block(
    const uint8_t *values, const uint8_t *scales, const uint8_t *zeros, const int32_t *tile,
    size_t rows,
    lane_ints sums[CK_QUANTISED_ROWS][LANE_PARTS]) {
#pragma clang loop unroll(disable)
  for (size_t p = 0; p < LANE_PARTS; p++) {
    const lane_ints zero = widen_zeros(zeros, scales, p);
    for (size_t r = 0; r < rows; r++) sums[r][p] = 0;
#pragma clang loop unroll(disable)
    for (size_t g = 0; g < 4; g++) {
      const lane_ints pairs = load_ints(values + 64 * g + 4 * CK_WIDTH * p);
      const lane_halves low = widen_bytes(pairs & 0x0f0f0f0f);
      const lane_halves high = widen_bytes((pairs >> 4) & 0x0f0f0f0f);
      for (size_t r = 0; r < rows; r++) {
        sums[r][p] = add_products(sums[r][p], low, tile[g * rows + r]);
        sums[r][p] = add_products(sums[r][p], high, tile[(g + 4) * rows + r]);
      }
    }
    for (size_t r = 0; r < rows; r++)
      sums[r][p] = sums[r][p] * 16 + zero * tile[9 * rows + r];
  }
}

#endif
