#ifndef CHIASM_CKERNELS_PATHS_H
#define CHIASM_CKERNELS_PATHS_H

#include "CKernels.h"

extern const ck_kernels ck_plain;
#if defined(__x86_64__)
extern const ck_kernels ck_avx2;
extern const ck_kernels ck_avx2_vnni;
extern const ck_kernels ck_avx512;
extern const ck_kernels ck_avx512_vnni;
extern const ck_kernels ck_avx512_bf16;
#endif

#endif
