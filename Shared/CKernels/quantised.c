#include <string.h>

#include "CKernels.h"

/// float16 to float32, exactly.
static float widen_half(uint16_t half) {
  // With the exponent in its place the number is 2⁻¹¹² times itself, subnormal or not.
  uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
  float magnitude;
  memcpy(&magnitude, &bits, sizeof magnitude);
  magnitude *= 0x1p112f;
  memcpy(&bits, &magnitude, sizeof bits);
  if ((half & 0x7c00) == 0x7c00) bits |= 0x7f800000;
  bits |= (uint32_t)(half & 0x8000) << 16;
  memcpy(&magnitude, &bits, sizeof magnitude);
  return magnitude;
}

void ck_widen_quantised(
    const uint8_t *panel, size_t depth, bool four, size_t output, float *row) {
  const size_t blocks = depth / 32, bytes = four ? 256 : 512;
  const uint8_t *scales = panel + blocks * bytes + 2 * output;
  const uint8_t *zeros = panel + blocks * (bytes + 32) + output % 8;
  const uint8_t *values = panel + 4 * output;
  for (size_t b = 0; b < blocks; b++, values += bytes, scales += 32, zeros += 8, row += 32) {
    uint16_t word;
    memcpy(&word, scales, sizeof word);
    if (!four) {
      const float scale = widen_half(word);
      for (size_t k = 0; k < 32; k++)
        row[k] = scale * (float)(values[k / 4 * 64 + k % 4] - 128);
      continue;
    }
    const float scale = widen_half(word & 0xfff0) * 0.0625f;
    const int zero = (output < 8 ? *zeros << 4 & 0xf0 : *zeros & 0xf0) | (word & 15);
    for (size_t k = 0; k < 16; k++) {
      const uint8_t pair = values[k / 4 * 64 + k % 4];
      row[k] = scale * (float)((pair << 4 & 0xf0) - zero);
      row[k + 16] = scale * (float)((pair & 0xf0) - zero);
    }
  }
}
