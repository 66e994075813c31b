// NEON on AArch64, whatever the compiler may assume elsewhere.
#define CK_TABLE ck_plain
#define CK_NAME "plain"
#define CK_WIDTH 4
#if defined(__aarch64__)
#define CK_PRODUCT_ROWS 6
#else
// Where a fused multiply-add is a call, a tile of registers gains nothing.
#define CK_PRODUCT_ROWS 2
#endif
#define CK_PRODUCT_PANELS 1
#define CK_QUANTISED_ROWS 4
#include "path.h"
