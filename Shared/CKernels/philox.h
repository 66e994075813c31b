// Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011).

#ifndef CHIASM_CKERNELS_PHILOX_H
#define CHIASM_CKERNELS_PHILOX_H

#include <stdint.h>

/// Counter: element in the lower two words, stream in the upper two; key: seed, lower word first.
static inline void philox(uint64_t seed, uint64_t stream, uint64_t element, uint32_t words[4]) {
  uint32_t c0 = (uint32_t)element, c1 = (uint32_t)(element >> 32);
  uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)b;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

/// The upper 24 bits as a number in [0, 1).
static inline float uniform(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; }

#endif
