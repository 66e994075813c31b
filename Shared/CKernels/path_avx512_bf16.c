#if defined(__x86_64__)
#include <immintrin.h>

// 14 rows of sums of two panels, their weights and one input, of thirty-two registers.
#define CK_TABLE ck_avx512_bf16
#define CK_NAME "avx512-bf16"
#define CK_WIDTH 16
#define CK_PRODUCT_ROWS 14
#define CK_PRODUCT_PANELS 2
#define CK_QUANTISED_ROWS 8
#define CK_DOT_PRODUCTS _mm512_dpbusd_epi32
#define CK_PAIR_DOTS _mm512_dpbf16_ps
#pragma clang attribute push( \
    __attribute__((target(                                                       \
        "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"))), \
    apply_to = function)
#include "path.h"
#pragma clang attribute pop
#endif
