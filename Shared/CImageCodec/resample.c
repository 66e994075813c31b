#include "CImageCodec.h"

// Sums are exact in 32 bits: weights add up to 2^22 and their absolute values to less than
// 2^22 · 1.5, times 255.

static inline uint8_t rounded(int32_t sum) {
  int32_t value = sum >> CHIASM_RESAMPLE_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

#define HALF (1 << (CHIASM_RESAMPLE_BITS - 1))

void chiasm_resample_row(
    const uint8_t *row, const int32_t *start, const int32_t *length, const int32_t *weights,
    size_t stride, uint8_t *restrict output, size_t width) {
  for (size_t x = 0; x < width; x++) {
    const uint8_t *pixel = row + 3 * (size_t)start[x];
    const int32_t *weight = weights + x * stride;
    int32_t red = HALF, green = HALF, blue = HALF;
    for (int32_t tap = 0; tap < length[x]; tap++, pixel += 3) {
      red += pixel[0] * weight[tap];
      green += pixel[1] * weight[tap];
      blue += pixel[2] * weight[tap];
    }
    output[3 * x] = rounded(red);
    output[3 * x + 1] = rounded(green);
    output[3 * x + 2] = rounded(blue);
  }
}

void chiasm_resample_column(
    const uint8_t *first_row, size_t row_bytes, const int32_t *weights, size_t length,
    uint8_t *restrict output) {
  enum { block = 64 };
  size_t x = 0;
  for (; x + block <= row_bytes; x += block) {
    int32_t sums[block];
    for (int i = 0; i < block; i++) sums[i] = HALF;
    const uint8_t *bytes = first_row + x;
    for (size_t tap = 0; tap < length; tap++, bytes += row_bytes) {
      int32_t weight = weights[tap];
      for (int i = 0; i < block; i++) sums[i] += bytes[i] * weight;
    }
    for (int i = 0; i < block; i++) output[x + i] = rounded(sums[i]);
  }
  for (; x < row_bytes; x++) {
    int32_t sum = HALF;
    for (size_t tap = 0; tap < length; tap++) sum += first_row[tap * row_bytes + x] * weights[tap];
    output[x] = rounded(sum);
  }
}
