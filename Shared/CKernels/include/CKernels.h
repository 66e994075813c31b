#ifndef CHIASM_CKERNELS_H
#define CHIASM_CKERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Constants of one AdamW update, rounded from Double.
typedef struct {
  float gradient_scale;
  /// 1 − learning rate · weight decay.
  float decay;
  float one_less_beta1, beta2, one_less_beta2;
  /// √(1 − beta2ᵗ).
  float root_correction2;
  float epsilon;
  /// Learning rate / (1 − beta1ᵗ).
  float step_size;
} ck_adamw;

/// Positions in a block of a key-value cache, and in a segment: the stretch of a sequence that one
/// running softmax goes over. Both begin at position 0 of the sequence, so that a row's bits
/// depend on its position alone.
enum { CK_ATTENTION_BLOCK = 64, CK_ATTENTION_SEGMENT = 1024 };

/// How a cache holds keys and values: floats, their upper halves (rounded to the nearest), or
/// bytes −127…127 with a float32 scale for each position and head.
typedef enum { CK_CACHE_FLOAT32, CK_CACHE_BFLOAT16, CK_CACHE_INT8 } ck_cache_type;

/// Query rows that share one key-value head of one sequence: `group` heads of each position.
typedef struct {
  ck_cache_type type;
  /// Elements of a head.
  size_t size;
  size_t rows, group;
  /// Positions that the first row sees; those of each further position one more if `causal`.
  size_t visible;
  bool causal;
  /// The first row's first element; a position's heads are `size` apart, positions `stride`.
  const float *_Nonnull q;
  float *_Nonnull y;
  size_t stride;
  /// The sequence's blocks from position 0 on, and where in each the head begins, in bytes.
  const void *_Nullable const *_Nonnull blocks;
  size_t offset;
} ck_attention;

/// One sequence's rows in one key-value head and the `group` query heads that share it.
typedef struct {
  /// Elements of a head.
  size_t size;
  size_t rows, group;
  /// Whether a row sees the rows up to itself, or all.
  bool causal;
  /// The first row's first element; heads are `size` apart.
  const float *_Nonnull q;
  const float *_Nonnull k;
  const float *_Nonnull v;
  const float *_Nonnull y;
  const float *_Nonnull dy;
  float *_Nonnull dq;
  float *_Nonnull dk;
  float *_Nonnull dv;
  /// Elements between rows of q, y, dy and dq, and of k, v, dk and dv.
  size_t query_stride, key_stride;
} ck_attention_gradient;

/// Inputs whose products make one chain of a sum.
enum { CK_DEPTH_BLOCK = 256 };

/// A vector of parameters, or none.
typedef struct {
  const void *_Nullable elements;
  bool bfloat16;
} ck_vector;

/// How a weight lies in memory; element (n, k) weighs input k for output n.
typedef enum {
  /// [outputs][stride], k in a row.
  CK_ROWS,
  /// [depth][stride], n in a row.
  CK_COLUMNS,
  /// [⌈outputs / 16⌉] panels of `stride` bytes, each [depth][16]; [⌈depth / 2⌉][16][2] if
  /// bfloat16.
  CK_PANELS,
} ck_layout;

/// What becomes of a product p.
typedef enum {
  /// y = p
  CK_STORE,
  /// y = p · Φ(p)
  CK_GELU,
  /// y ← y + scale · p, or y + p without a scale.
  CK_ADD,
} ck_finish;

/// A weight, float32 or bfloat16, and where its products go.
typedef struct {
  const void *_Nonnull weight;
  bool bfloat16;
  ck_layout layout;
  size_t stride;
  size_t depth, outputs;
  ck_vector bias, scale;
  ck_finish finish;
  float *_Nonnull y;
  size_t y_stride;
} ck_product;

/// Hot loops over float32 rows, one table of them for each instruction set.
///
/// Every path gives the same bits. A sum of products by a matrix is that of `product`; any other
/// always runs over sixteen lanes, element i falling to
/// lane i mod 16, each lane adding in order of i (products by fused multiply-add), the lanes
/// added at the end by one fixed tree: l + (l + 8), l + (l + 4), l + (l + 2), l + (l + 1).
/// Sixteen lanes are one AVX-512 register, two of AVX2, four of NEON. Nothing here depends on
/// how many rows are computed together.
///
/// Lengths are counts of elements. Strides (`...Stride`) are elements between rows. Pointers
/// need no alignment beyond their element's.
typedef struct {
  const char *_Nonnull name;

  /// Rows of a strip: inputs are worked on in strips of so many rows, the last one less.
  size_t (*_Nonnull strip_rows)(size_t rows);

  /// Packs rows first ..< first + count of an input x [rows, depth]: blocks of CK_DEPTH_BLOCK of
  /// the depth, each [rows][CK_DEPTH_BLOCK], the last one incomplete but as long as the others.
  /// A single row is packed as it is.
  void (*_Nonnull pack_input)(
      const float *_Nonnull x, size_t xStride, size_t rows, size_t depth, size_t first,
      size_t count, float *_Nonnull packed);

  /// The same of the transpose: row r is column r of x [depth, rows].
  void (*_Nonnull pack_transposed_input)(
      const float *_Nonnull x, size_t xStride, size_t rows, size_t depth, size_t first,
      size_t count, float *_Nonnull packed);

  /// As pack_input, rounded to bfloat16 (to nearest, ties to even), an odd depth's last beside a
  /// zero. A single row, too, is packed so.
  void (*_Nonnull pack_pairs)(
      const float *_Nonnull x, size_t xStride, size_t rows, size_t depth, size_t first,
      size_t count, uint16_t *_Nonnull packed);

  /// A panel, as CK_PANELS has it: `outputs` (16 at most) rows of weight [outputs, depth], zeros
  /// behind.
  void (*_Nonnull pack_panel)(
      const void *_Nonnull weight, bool bfloat16, size_t depth, size_t outputs,
      void *_Nonnull panel);

  /// Floats of scratch that `product` needs for so many strips and panels.
  size_t (*_Nonnull product_scratch)(size_t strips, size_t panels);

  /// Rows first_row ..< first_row + rows, whole strips, of a packed input of `input_rows` times
  /// panels first_panel ..< first_panel + panels of a weight. `in_pairs`: by pack_pairs, for
  /// bfloat16 panels; else floats.
  ///
  /// Every sum runs over blocks of CK_DEPTH_BLOCK inputs; in a block it is one chain of fused
  /// multiply-adds in order, from 0, of each pair the second first; the blocks' sums are added in
  /// order; then the bias.
  void (*_Nonnull product)(
      const void *_Nonnull packed, bool in_pairs, size_t input_rows, size_t first_row, size_t rows,
      const ck_product *_Nonnull product, size_t first_panel, size_t panels,
      float *_Nonnull scratch);

  /// y[i] = the bfloat16 x[i], exactly.
  void (*_Nonnull widen)(const uint16_t *_Nonnull x, size_t count, float *_Nonnull y);

  /// y = x / sqrt(mean(x²) + epsilon) · weight; y may be x.
  void (*_Nonnull rms_norm)(
      const float *_Nonnull x, size_t count, const float *_Nonnull weight, float epsilon,
      float *_Nonnull y);

  /// y = (x − mean) / sqrt(variance + epsilon) · weight + bias; y may be x.
  void (*_Nonnull layer_norm)(
      const float *_Nonnull x, size_t count, const float *_Nonnull weight,
      const float *_Nonnull bias, float epsilon, float *_Nonnull y);

  /// x ← x · Φ(x).
  void (*_Nonnull gelu)(float *_Nonnull x, size_t count);

  /// y = gate / (1 + exp(−gate)) · up; y may be gate or up.
  void (*_Nonnull silu_multiply)(
      const float *_Nonnull gate, const float *_Nonnull up, size_t count, float *_Nonnull y);

  /// x ← x + scale · y, or x + y without a scale.
  void (*_Nonnull add_scaled)(
      const float *_Nonnull y, const float *_Nullable scale, size_t count, float *_Nonnull x);

  /// Rotates the halves of `heads` heads of 2 · `half` elements, in place.
  void (*_Nonnull rotate)(
      float *_Nonnull x, size_t heads, size_t half, const float *_Nonnull cosines,
      const float *_Nonnull sines);

  /// x ← factor · x.
  void (*_Nonnull scale)(float *_Nonnull x, size_t count, float factor);

  /// Bytes that one head takes in a block.
  size_t (*_Nonnull cache_head_bytes)(ck_cache_type type, size_t size);

  /// Writes the keys and values of `count` positions, `stride` apart, to places `position`… of
  /// one head of a block.
  void (*_Nonnull append_to_block)(
      ck_cache_type type, size_t size, const float *_Nonnull keys, const float *_Nonnull values,
      size_t stride, size_t position, size_t count, void *_Nonnull head);

  /// y = softmax(q · kᵀ / √size) · v. `scratch` has attention_scratch floats.
  void (*_Nonnull attend)(const ck_attention *_Nonnull call, float *_Nonnull scratch);

  size_t (*_Nonnull attention_scratch)(ck_cache_type type, size_t rows, size_t size);

  /// The part of `attend` that concerns one segment, into attention_state floats.
  void (*_Nonnull attend_segment)(
      const ck_attention *_Nonnull call, size_t segment, float *_Nonnull scratch,
      float *_Nonnull state);

  size_t (*_Nonnull attention_state)(size_t rows, size_t size);

  /// y from the states of a call's segments, one behind the other, which it changes.
  void (*_Nonnull join_segments)(
      const ck_attention *_Nonnull call, size_t segments, float *_Nonnull states);

  /// Of `attend`: dq, dk and dv, written. `scratch` has attention_gradient_scratch floats.
  void (*_Nonnull attention_gradient)(
      const ck_attention_gradient *_Nonnull call, float *_Nonnull scratch);

  size_t (*_Nonnull attention_gradient_scratch)(size_t rows, size_t size);

  /// y[i] = exp(x[i]); y may be x.
  void (*_Nonnull exponential)(const float *_Nonnull x, size_t count, float *_Nonnull y);

  /// The greatest element, NaN passed over; −∞ of none.
  float (*_Nonnull greatest)(const float *_Nonnull x, size_t count);

  /// x ← exp(x − offset); the sum of the results.
  float (*_Nonnull exponentials)(float *_Nonnull x, size_t count, float offset);

  // Gradients: dx is the gradient by x. Those of parameters are added to, those of activations
  // written, or added to if `adding`. A null one is not computed. Gradients of results and of
  // inputs may be the same memory.

  void (*_Nonnull rms_norm_gradient)(
      const float *_Nonnull dy, const float *_Nonnull x, size_t count,
      const float *_Nonnull weight, float epsilon, bool adding, float *_Nullable dx,
      float *_Nullable dweight);

  void (*_Nonnull layer_norm_gradient)(
      const float *_Nonnull dy, const float *_Nonnull x, size_t count,
      const float *_Nonnull weight, float epsilon, bool adding, float *_Nullable dx,
      float *_Nullable dweight, float *_Nullable dbias);

  void (*_Nonnull gelu_gradient)(
      const float *_Nonnull dy, const float *_Nonnull x, size_t count, float *_Nonnull dx);

  void (*_Nonnull silu_multiply_gradient)(
      const float *_Nonnull dy, const float *_Nonnull gate, const float *_Nonnull up,
      size_t count, float *_Nonnull dgate, float *_Nonnull dup);

  /// x ← x + factor · (scale · y), or x + factor · y without a scale.
  void (*_Nonnull add_scaled_by)(
      const float *_Nonnull y, const float *_Nullable scale, float factor, size_t count,
      float *_Nonnull x);

  /// dy = scale · (factor · dx); dscale += factor · dx · y.
  void (*_Nonnull add_scaled_gradient)(
      const float *_Nonnull dx, const float *_Nonnull y, const float *_Nullable scale,
      float factor, size_t count, float *_Nonnull dy, float *_Nullable dscale);

  /// Undoes `rotate`.
  void (*_Nonnull rotate_back)(
      float *_Nonnull x, size_t heads, size_t half, const float *_Nonnull cosines,
      const float *_Nonnull sines);

  /// y += Σ x[r], summed in blocks of 64 rows.
  void (*_Nonnull add_rows)(
      const float *_Nonnull x, size_t xStride, size_t rows, size_t count, float *_Nonnull y);

  void (*_Nonnull adamw)(
      float *_Nonnull value, const float *_Nonnull gradient, float *_Nonnull firstMoment,
      float *_Nonnull secondMoment, size_t count, const ck_adamw *_Nonnull step);

  /// Σ x², in sixteen lanes of double.
  double (*_Nonnull sum_of_squares)(const float *_Nonnull x, size_t count);

  /// y[i] = factor · x[i] where draw `first + i` is at least `probability`, else 0.
  void (*_Nonnull dropout)(
      const float *_Nonnull x, size_t count, uint64_t seed, uint64_t stream, uint64_t first,
      float probability, float factor, float *_Nonnull y);

  // Products with quantised weights, in panels as `PackedMatrix` lays them out: w = factor · w8, w8
  // a whole number. Each product is one chain over blocks of 32 along the depth, in order:
  // acc = fma(Σ w8 · x8, factor · d, acc), the sum of whole numbers exact, acc from 0; then the
  // bias.

  /// Rounds rows `first` ..< first + count of `rows` to blocks of 32 numbers of −127…127 and a
  /// step between them, d = max|x| / 127: x8 = x · (127 / max|x|), rounded to nearest, ties to
  /// even. A block below 2⁻¹⁰⁰ counts as zero; the step of one with an infinity or NaN is NaN.
  /// `depth` is a multiple of 32; all rows take rows · depth / 32 · 11 words.
  void (*_Nonnull quantise_rows)(
      const float *_Nonnull x, size_t xStride, size_t rows, size_t depth, size_t first,
      size_t count, int32_t *_Nonnull quantised);

  /// Products of rows first_row ..< first_row + rows of a call, quantised together, and panels
  /// first_panel ..< first_panel + panels of a weight: of 4 bits if `four`, else of 8 bits. The
  /// weight's layout is CK_PANELS.
  void (*_Nonnull quantised_product)(
      const int32_t *_Nonnull quantised, size_t first_row, size_t rows,
      const ck_product *_Nonnull product, bool four, size_t first_panel, size_t panels);

  /// Quantises up to sixteen outputs into a whole panel but for its padding; outputs behind the
  /// last are zeros. 8 bits: scale = max|w| / 127, rounded to float16. 4 bits: the scale and zero
  /// of least squared error among some dozens tried. Gives SIZE_MAX, or output · depth + k of a
  /// weight that is not finite or too large for any scale.
  size_t (*_Nonnull quantise_panel)(
      const float *_Nonnull weights, size_t stride, size_t outputs, size_t depth, bool four,
      uint8_t *_Nonnull panel);
} ck_kernels;

/// One output's weights of a quantised panel, exactly.
void ck_widen_quantised(
    const uint8_t *_Nonnull panel, size_t depth, bool four, size_t output, float *_Nonnull row);

/// Philox4x32-10: four words of counter (element, stream), low words first, under key `seed`.
void ck_philox(uint64_t seed, uint64_t stream, uint64_t element, uint32_t *_Nonnull words);

/// The first word's upper 24 bits as a number in [0, 1).
float ck_uniform(uint64_t seed, uint64_t stream, uint64_t element);

typedef enum {
  CK_PLAIN,
  CK_AVX2,
  CK_AVX2_VNNI,
  CK_AVX512,
  CK_AVX512_VNNI,
  CK_AVX512_BF16,
} ck_path;

/// The table of a path, or null where this processor cannot run it.
const ck_kernels *_Nullable ck_kernels_for(ck_path path);

/// The table of the widest path this processor can run.
const ck_kernels *_Nonnull ck_kernels_best(void);

#endif
