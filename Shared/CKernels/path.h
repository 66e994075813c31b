// The body of one path; the file that includes it names the table and the tile sizes.

#include <math.h>
#include <string.h>

#include "CKernels.h"
#include "paths.h"

// A product and a sum are fused where the code says so and nowhere else: the paths must agree.
#pragma STDC FP_CONTRACT OFF

// Sixteen lanes as an argument would change the calling convention from path to path; every
// function that takes them is inlined.
#pragma clang diagnostic ignored "-Wpsabi"

#include "lanes.h"
#include "exponential.h"
#include "parts.h"
#include "rows.h"
#include "product.h"
#include "softmax.h"
#include "attention_tile.h"
#include "attention.h"
#include "philox.h"
#include "gradients.h"
#include "attention_gradient.h"
#include "quantised.h"
#include "quantiser.h"

const ck_kernels CK_TABLE = {
    .name = CK_NAME,
    .strip_rows = strip_rows,
    .pack_input = pack_input,
    .pack_transposed_input = pack_transposed_input,
    .pack_pairs = pack_pairs,
    .pack_panel = pack_panel,
    .product_scratch = product_scratch,
    .product = product,
    .widen = widen,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .gelu = gelu,
    .silu_multiply = silu_multiply,
    .add_scaled = add_scaled,
    .rotate = rotate,
    .scale = scale,
    .cache_head_bytes = cache_head_bytes,
    .append_to_block = append_to_block,
    .attend = attend,
    .attention_scratch = attention_scratch,
    .attend_segment = attend_segment,
    .attention_state = attention_state_floats,
    .join_segments = join_segments,
    .attention_gradient = attention_gradient,
    .attention_gradient_scratch = attention_gradient_scratch,
    .exponential = exponential,
    .greatest = greatest_of,
    .exponentials = exponentials_of,
    .rms_norm_gradient = rms_norm_gradient,
    .layer_norm_gradient = layer_norm_gradient,
    .gelu_gradient = gelu_gradient,
    .silu_multiply_gradient = silu_multiply_gradient,
    .add_scaled_by = add_scaled_by,
    .add_scaled_gradient = add_scaled_gradient,
    .rotate_back = rotate_back,
    .add_rows = add_rows,
    .adamw = adamw,
    .sum_of_squares = sum_of_squares,
    .dropout = dropout,
    .quantise_rows = quantise_rows,
    .quantised_product = quantised_product,
    .quantise_panel = quantise_panel,
};
