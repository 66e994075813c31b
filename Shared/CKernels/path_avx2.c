#if defined(__x86_64__)
#include <immintrin.h>

// 6 rows of sums of a panel, its weights and one input fill the sixteen registers.
#define CK_TABLE ck_avx2
#define CK_NAME "avx2"
#define CK_WIDTH 8
#define CK_PRODUCT_ROWS 6
#define CK_PRODUCT_PANELS 1
#define CK_QUANTISED_ROWS 4
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#include "path.h"
#pragma clang attribute pop
#endif
