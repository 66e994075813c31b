#if defined(__x86_64__)
#include <immintrin.h>

// 3 × 2 sums of two registers, two weights and one x fill the sixteen registers.
#define CK_TABLE ck_avx2
#define CK_NAME "avx2"
#define CK_WIDTH 8
#define CK_PRODUCT_ROWS 6
#define CK_PRODUCT_PANELS 1
#define CK_TILE_ROWS 3
#define CK_TILE_OUTPUTS 2
#define CK_QUANTISED_ROWS 4
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#include "path.h"
#pragma clang attribute pop
#endif
