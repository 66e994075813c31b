// NEON on AArch64, whatever the compiler may assume elsewhere.
#define CK_TABLE ck_plain
#define CK_NAME "plain"
#define CK_WIDTH 4
#define CK_TILE_ROWS 3
#define CK_TILE_OUTPUTS 2
#define CK_QUANTISED_ROWS 4
#include "path.h"
