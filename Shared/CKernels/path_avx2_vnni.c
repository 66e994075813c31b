#if defined(__x86_64__)
#include <immintrin.h>

// 6 rows of sums of a panel, its weights and one input fill the sixteen registers.
#define CK_TABLE ck_avx2_vnni
#define CK_NAME "avx2-vnni"
#define CK_WIDTH 8
#define CK_PRODUCT_ROWS 6
#define CK_PRODUCT_PANELS 1
#define CK_QUANTISED_ROWS 4
#define CK_DOT_PRODUCTS _mm256_dpbusd_avx_epi32
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#include "path.h"
#pragma clang attribute pop
#endif
