#include "CKernels.h"
#include "paths.h"
#include "philox.h"

#if defined(__x86_64__)
static bool has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

static bool has_avx512(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const ck_kernels *ck_kernels_for(ck_path path) {
  switch (path) {
    case CK_PLAIN:
      return &ck_plain;
#if defined(__x86_64__)
    case CK_AVX2:
      return has_avx2() ? &ck_avx2 : NULL;
    case CK_AVX2_VNNI:
      return has_avx2() && __builtin_cpu_supports("avxvnni") ? &ck_avx2_vnni : NULL;
    case CK_AVX512:
      return has_avx512() ? &ck_avx512 : NULL;
    case CK_AVX512_VNNI:
      return has_avx512() && __builtin_cpu_supports("avx512vnni") ? &ck_avx512_vnni : NULL;
    case CK_AVX512_BF16:
      return has_avx512() && __builtin_cpu_supports("avx512vnni") &&
                     __builtin_cpu_supports("avx512bf16")
                 ? &ck_avx512_bf16
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
  static const ck_path paths[] = {
      CK_AVX512_BF16, CK_AVX512_VNNI, CK_AVX512, CK_AVX2_VNNI, CK_AVX2};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    const ck_kernels *found = ck_kernels_for(paths[i]);
    if (found) return found;
  }
  return &ck_plain;
}
