#include "CKernels.h"
#include "paths.h"
#include "philox.h"

const ck_kernels *ck_kernels_for(ck_path path) {
  switch (path) {
    case CK_PLAIN:
      return &ck_plain;
#if defined(__x86_64__)
    case CK_AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &ck_avx2 : NULL;
    case CK_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
                 ? &ck_avx512
                 : NULL;
#endif
    default:
      return NULL;
  }
}

void ck_philox(uint64_t seed, uint64_t stream, uint64_t element, uint32_t *words) {
  philox(seed, stream, element, words);
}

float ck_uniform(uint64_t seed, uint64_t stream, uint64_t element) {
  uint32_t words[4];
  philox(seed, stream, element, words);
  return uniform(words[0]);
}

const ck_kernels *ck_kernels_best(void) {
  const ck_kernels *found = ck_kernels_for(CK_AVX512);
  if (!found) found = ck_kernels_for(CK_AVX2);
  return found ? found : &ck_plain;
}
