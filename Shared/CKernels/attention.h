// Attention over blocks of a sequence's keys and values, with a running softmax.

/// 2^x for x ≤ 0, exactly 0 below −125; a NaN stays one. 2^r, |r| ≤ ½, by a polynomial of
/// degree 6, fitted for least relative error: 2·10⁻⁹.
CK_INLINE v16 power16(v16 x) {
  const v16 rounder = splat(12582912.0f);
  // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits of the significand.
  v16 shifted = x + rounder;
  v16 r = x - (shifted - rounder);
  v16 y = splat(0.00015353362f);
  y = fma16(y, r, splat(0.00133988739f));
  y = fma16(y, r, splat(0.00961843692f));
  y = fma16(y, r, splat(0.0555033237f));
  y = fma16(y, r, splat(0.240226477f));
  y = fma16(y, r, splat(0.693147182f));
  y = fma16(y, r, splat(1));
  // The rounder's own low bits are zeros.
  y = y * (v16)(((u16x32)shifted + 127) << 23);
  return (v16)((i16x32)y & ~(x < splat(-125)));
}

/// a where it is greater, else b, in the form that is one instruction.
CK_INLINE v16 greater16(v16 a, v16 b) { return a > b ? a : b; }
CK_INLINE v4 max4(v4 a, v4 b) { return a > b ? a : b; }

/// The greatest lanes of four values without a NaN.
CK_INLINE v4 peaks16(const v16 *v) {
  v4 fold[4];
#pragma unroll
  for (size_t i = 0; i < 4; i++) {
    v8 half = v[i].lo > v[i].hi ? v[i].lo : v[i].hi;
    fold[i] = max4(half.lo, half.hi);
  }
  v4 ab = max4(
      __builtin_shufflevector(fold[0], fold[1], 0, 1, 4, 5),
      __builtin_shufflevector(fold[0], fold[1], 2, 3, 6, 7));
  v4 cd = max4(
      __builtin_shufflevector(fold[2], fold[3], 0, 1, 4, 5),
      __builtin_shufflevector(fold[2], fold[3], 2, 3, 6, 7));
  return max4(
      __builtin_shufflevector(ab, cd, 0, 2, 4, 6), __builtin_shufflevector(ab, cd, 1, 3, 5, 7));
}

CK_INLINE size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

/// Panels of sixteen.
CK_INLINE size_t panels_of(size_t count) { return (count + 15) / 16; }

/// Where the parts of one head of a cache block begin, in bytes.
typedef struct {
  size_t key_scales, keys, value_scales, values, end;
} cache_layout;

CK_INLINE cache_layout layout_of(ck_cache_type type, size_t size) {
  const size_t scales = type == CK_CACHE_INT8 ? 4 * ATTENTION_BLOCK : 0;
  const size_t element = element_bytes(type);
  cache_layout layout;
  layout.key_scales = 0;
  layout.keys = scales;
  layout.value_scales = layout.keys + ATTENTION_BLOCK * size * element;
  layout.values = layout.value_scales + scales;
  layout.end = layout.values + ATTENTION_BLOCK * 16 * panels_of(size) * element;
  return layout;
}

static size_t cache_head_bytes(ck_cache_type type, size_t size) {
  return layout_of(type, size).end;
}

/// The running softmax of some rows: maxima [rows], sums [rows][16], output [rows][panels · 16].
typedef struct {
  float *maxima, *sums, *output;
} attention_state;

CK_INLINE attention_state state_at(float *memory, size_t rows) {
  attention_state state;
  state.maxima = memory;
  state.sums = memory + 16 * panels_of(rows);
  state.output = state.sums + 16 * rows;
  return state;
}

static size_t attention_state_floats(size_t rows, size_t size) {
  return 16 * (panels_of(rows) + rows + rows * panels_of(size));
}

CK_INLINE void clear_state(attention_state state, size_t rows, size_t size) {
  for (size_t i = 0; i < rows; i++) state.maxima[i] = -INFINITY;
  memset(state.sums, 0, rows * 16 * (1 + panels_of(size)) * sizeof(float));
}

/// Keys that row i of a call sees, from position 0 on.
CK_INLINE size_t visible_to(const ck_attention *call, size_t i) {
  return call->visible + (call->causal ? i / call->group : 0);
}

/// Row i of a call: query head i mod group of position i / group.
CK_INLINE size_t row_offset(const ck_attention *call, size_t i) {
  return i / call->group * call->stride + i % call->group * call->size;
}

/// A tile's rows as score() wants them, times log2(e) / √H.
CK_INLINE void pack_queries(
    const ck_attention *call, size_t first, size_t rows, float *packed) {
  const float factor = (float)(1.4426950408889634 / sqrt((double)call->size));
  const float *q[ATTENTION_ROWS];
  for (size_t m = 0; m < rows; m++) q[m] = call->q + row_offset(call, first + m);
  for (size_t h = 0; h < call->size; h++)
#pragma clang loop vectorize(disable)
    for (size_t m = 0; m < rows; m++) *packed++ = q[m][h] * factor;
}

/// Rows in tiles, as even as can be: the first `longer` have one row more than the others.
typedef struct {
  size_t count, rows, longer;
} tile_plan;

CK_INLINE tile_plan plan_tiles(size_t rows) {
  tile_plan plan;
  plan.count = (rows + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
  plan.rows = rows / plan.count;
  plan.longer = rows % plan.count;
  return plan;
}

/// The first row of a tile.
CK_INLINE size_t tile_start(tile_plan plan, size_t tile) {
  return tile * plan.rows + (tile < plan.longer ? tile : plan.longer);
}

static void pack_all_queries(const ck_attention *call, float *packed) {
  // Rows of one head lie too far apart for the processor to foresee them.
  for (size_t i = 0; i < call->rows; i++)
    for (size_t h = 0; h < call->size; h += 16)
      __builtin_prefetch(call->q + row_offset(call, i) + h, 0, 3);
  const tile_plan plan = plan_tiles(call->rows);
  for (size_t t = 0; t < plan.count; t++) {
    const size_t first = tile_start(plan, t);
    pack_queries(call, first, tile_start(plan, t + 1) - first, packed + first * call->size);
  }
}

/// Puts scales on a tile's scores, and −∞ where a row sees no key.
CK_INLINE void complete_scores(
    const ck_attention *call, size_t first, size_t rows, size_t start, const float *key_scales,
    float *scores) {
  for (size_t m = 0; key_scales && m < rows; m++)
    for (size_t j = 0; j < ATTENTION_BLOCK; j += 16) {
      float *s = scores + m * ATTENTION_BLOCK + j;
      store16(s, load16(s) * load16(key_scales + j));
    }
  for (size_t m = 0; m < rows; m++) {
    const size_t visible = visible_to(call, first + m);
    for (size_t j = visible > start ? visible - start : 0; j < ATTENTION_BLOCK; j++)
      scores[m * ATTENTION_BLOCK + j] = -INFINITY;
  }
}

/// Takes the scores of a tile's rows with a block of keys into the running softmax and turns them
/// into weights. One step of all rows comes before the next of any, which keeps the units busy.
CK_INLINE void soften(
    size_t first, size_t rows, size_t panels, const float *value_scales, float *scores,
    attention_state state) {
  enum { VECTORS = ATTENTION_BLOCK / 16 };
  v16 peaks[8];
#pragma unroll
  for (size_t m = 0; m < 8; m++) {
    peaks[m] = splat(-INFINITY);
    if (m < rows)
#pragma unroll
      for (size_t j = 0; j < VECTORS; j++)
        peaks[m] = greater16(load16(scores + m * ATTENTION_BLOCK + 16 * j), peaks[m]);
  }
  float before[16], offsets[16], kept[16];
  store16(before, splat(0));
  for (size_t m = 0; m < rows; m++) before[m] = state.maxima[first + m];
  v16 maxima = splat(0);
  maxima.lo.lo = peaks16(peaks);
  maxima.lo.hi = peaks16(peaks + 4);
  maxima = max16(maxima, load16(before));
  store16(kept, power16(load16(before) - maxima));
  // Without a score above −∞ all weights are 0, not NaN.
  store16(offsets, select16(maxima == splat(-INFINITY), splat(0), maxima));
  float after[16];
  store16(after, maxima);

  for (size_t m = 0; m < rows; m++) {
    const v16 offset = splat(offsets[m]);
    float *s = scores + m * ATTENTION_BLOCK;
    v16 sum = load16(state.sums + 16 * (first + m));
    if (after[m] > before[m]) {
      state.maxima[first + m] = after[m];
      sum = sum * splat(kept[m]);
      float *output = state.output + (first + m) * panels * 16;
      for (size_t n = 0; n < panels; n++)
        store16(output + 16 * n, load16(output + 16 * n) * splat(kept[m]));
    }
    for (size_t j = 0; j < VECTORS; j++) {
      v16 weight = power16(load16(s + 16 * j) - offset);
      sum += weight;
      store16(s + 16 * j, value_scales ? weight * load16(value_scales + 16 * j) : weight);
    }
    store16(state.sums + 16 * (first + m), sum);
  }
}

/// Adds a tile's weighted values. A row takes no part of those it does not see: 0 · ∞ would be
/// NaN.
CK_INLINE void gather(
    const ck_attention *call, ck_cache_type type, size_t first, size_t rows, size_t start,
    const float *weights, const void *values, const char *next, attention_state state) {
  const size_t panels = panels_of(call->size);
  const size_t all = visible_to(call, first);
  const size_t common = all > start ? min_size(all - start, ATTENTION_BLOCK) : 0;
  float *output = state.output + first * panels * 16;
  weigh(type, rows, panels, common, weights, values, output, panels * 16, next);
  if (common == ATTENTION_BLOCK || !call->causal) return;
  const void *rest = (const char *)values + common * 16 * element_bytes(type);
  for (size_t m = 1; m < rows; m++) {
    const size_t visible = visible_to(call, first + m);
    if (visible <= start) continue;
    const size_t count = min_size(visible - start, ATTENTION_BLOCK);
    if (count > common)
      weigh(
          type, 1, panels, count - common, weights + m * ATTENTION_BLOCK + common, rest,
          output + m * panels * 16, panels * 16, next);
  }
}

/// From so many rows on a narrow block is widened once for all of them.
enum { WIDENING_ROWS = 13 };

/// Where a segment begins. A call that is not causal is one segment.
CK_INLINE size_t segment_start(const ck_attention *call, size_t segment) {
  return call->causal ? segment * CK_ATTENTION_SEGMENT : segment ? SIZE_MAX : 0;
}

static void widen_block(const void *from, ck_cache_type type, size_t count, float *to) {
  for (size_t i = 0; i < count; i += 16) store16(to + i, load_widened(from, i, type));
}

/// The running softmax of a call's rows over the blocks of one segment.
static void take_segment(
    const ck_attention *call, size_t segment, const float *packed, float *scores,
    attention_state state) {
  const size_t rows = call->rows, size = call->size;
  const tile_plan plan = plan_tiles(rows);
  const size_t most = visible_to(call, rows - 1);
  const cache_layout layout = layout_of(call->type, size);
  const bool widening = call->type != CK_CACHE_FLOAT32 && rows >= WIDENING_ROWS;
  const ck_cache_type type = widening ? CK_CACHE_FLOAT32 : call->type;
  float *wide = scores + rows * ATTENTION_BLOCK;

  clear_state(state, rows, size);
  const size_t end = min_size(segment_start(call, segment + 1), most);
  for (size_t start = segment_start(call, segment); start < end; start += ATTENTION_BLOCK) {
    const char *base = (const char *)call->blocks[start / ATTENTION_BLOCK] + call->offset;
    const float *key_scales = NULL, *value_scales = NULL;
    if (call->type == CK_CACHE_INT8) {
      key_scales = (const float *)(base + layout.key_scales);
      value_scales = (const float *)(base + layout.value_scales);
    }
    const void *keys = base + layout.keys, *values = base + layout.values;
    // Few rows wait for memory, many for the processor.
    const char *after_keys = NULL, *after_values = NULL;
    if (rows < WIDENING_ROWS) {
      const size_t following = start + ATTENTION_BLOCK;
      after_keys = values;
      after_values = following < end
                         ? (const char *)call->blocks[following / ATTENTION_BLOCK] +
                               call->offset + layout.keys
                         : base;
    }
    const size_t seen = min_size(most - start, ATTENTION_BLOCK);
    if (widening) {
      widen_block(keys, call->type, 16 * panels_of(seen) * size, wide);
      keys = wide;
    }
    size_t begin = 0;
    while (visible_to(call, tile_start(plan, begin + 1) - 1) <= start) begin++;
    for (size_t t = begin; t < plan.count; t++) {
      const size_t first = tile_start(plan, t), next = tile_start(plan, t + 1);
      const size_t panels =
          panels_of(min_size(visible_to(call, next - 1) - start, ATTENTION_BLOCK));
      score(
          type, next - first, panels, size, packed + first * size, keys,
          scores + first * ATTENTION_BLOCK, after_keys);
      if (key_scales || visible_to(call, first) < start + ATTENTION_BLOCK)
        complete_scores(
            call, first, next - first, start, key_scales, scores + first * ATTENTION_BLOCK);
      soften(
          first, next - first, panels_of(size), value_scales, scores + first * ATTENTION_BLOCK,
          state);
    }
    if (widening) {
      widen_block(values, call->type, 16 * panels_of(size) * ATTENTION_BLOCK, wide);
      values = wide;
    }
    for (size_t t = begin; t < plan.count; t++) {
      const size_t first = tile_start(plan, t), next = tile_start(plan, t + 1);
      gather(
          call, type, first, next - first, start, scores + first * ATTENTION_BLOCK, values,
          after_values, state);
    }
  }
}

/// Takes the running softmax of a later segment into that of all before.
CK_INLINE void merge_segment(
    const ck_attention *call, size_t segment, attention_state later, attention_state state) {
  const size_t panels = panels_of(call->size);
  for (size_t i = 0; i < call->rows; i++) {
    if (visible_to(call, i) <= segment_start(call, segment)) continue;
    const float before = state.maxima[i], found = later.maxima[i];
    const float maximum = found > before ? found : before;
    const float offset = maximum == -INFINITY ? 0 : maximum;
    const v16 kept = power16(splat(before - offset)), taken = power16(splat(found - offset));
    state.maxima[i] = maximum;
    float *sums = state.sums + 16 * i, *output = state.output + i * panels * 16;
    store16(sums, fma16(load16(later.sums + 16 * i), taken, load16(sums) * kept));
    const float *added = later.output + i * panels * 16;
    for (size_t n = 0; n < 16 * panels; n += 16)
      store16(output + n, fma16(load16(added + n), taken, load16(output + n) * kept));
  }
}

CK_INLINE void finish_attention(const ck_attention *call, attention_state state) {
  const size_t panels = panels_of(call->size);
  for (size_t i = 0; i < call->rows; i++) {
    const v16 factor = splat(1.0f / sum16(load16(state.sums + 16 * i)));
    const float *from = state.output + i * panels * 16;
    float *to = call->y + row_offset(call, i);
    for (size_t h = 0; h < call->size; h += 16)
      store(to + h, load16(from + h) * factor, call->size - h);
  }
}

/// Elements of a block that are widened at a time.
CK_INLINE size_t wide_floats(ck_cache_type type, size_t rows, size_t size) {
  return type == CK_CACHE_FLOAT32 || rows < WIDENING_ROWS
             ? 0
             : ATTENTION_BLOCK * 16 * panels_of(size);
}

static size_t attention_scratch(ck_cache_type type, size_t rows, size_t size) {
  return 2 * attention_state_floats(rows, size) + rows * ATTENTION_BLOCK +
         wide_floats(type, rows, size) + rows * size;
}

static void attend(const ck_attention *call, float *scratch) {
  const size_t rows = call->rows, state_floats = attention_state_floats(rows, call->size);
  const attention_state state = state_at(scratch, rows);
  const attention_state later = state_at(scratch + state_floats, rows);
  float *scores = scratch + 2 * state_floats;
  float *packed = scores + rows * ATTENTION_BLOCK + wide_floats(call->type, rows, call->size);
  pack_all_queries(call, packed);
  take_segment(call, 0, packed, scores, state);
  const size_t most = visible_to(call, rows - 1);
  for (size_t segment = 1; segment_start(call, segment) < most; segment++) {
    take_segment(call, segment, packed, scores, later);
    merge_segment(call, segment, later, state);
  }
  finish_attention(call, state);
}

static void attend_segment(
    const ck_attention *call, size_t segment, float *scratch, float *state) {
  const size_t rows = call->rows;
  float *packed = scratch + rows * ATTENTION_BLOCK + wide_floats(call->type, rows, call->size);
  pack_all_queries(call, packed);
  take_segment(call, segment, packed, scratch, state_at(state, rows));
}

static void join_segments(const ck_attention *call, size_t segments, float *states) {
  const size_t each = attention_state_floats(call->rows, call->size);
  const attention_state state = state_at(states, call->rows);
  for (size_t segment = 1; segment < segments; segment++)
    merge_segment(call, segment, state_at(states + segment * each, call->rows), state);
  finish_attention(call, state);
}

CK_INLINE void store_narrow(void *to, size_t index, ck_cache_type type, float value) {
  if (type == CK_CACHE_FLOAT32)
    ((float *)to)[index] = value;
  else
    ((uint16_t *)to)[index] = narrow_half(value);
}

CK_INLINE float byte_scale(const float *x, size_t size) {
  v16 greatest = splat(0), wrong = splat(0);
  for (size_t h = 0; h < size; h += 16) {
    v16 v = load(x + h, size - h);
    v16 magnitude = (v16)((u16x32)v & 0x7FFFFFFF);
    greatest = max16(magnitude, greatest);
    wrong += v - v;
  }
  // NaN where an element is not finite.
  return greatest16(greatest) / 127 + sum16(wrong);
}

CK_INLINE void append_rows(
    ck_cache_type type, const float *x, size_t stride, size_t size, size_t position, size_t count,
    char *base, bool values) {
  const cache_layout layout = layout_of(type, size);
  char *elements = base + (values ? layout.values : layout.keys);
  for (size_t r = 0; r < count; r++, x += stride) {
    // Rows of one head lie too far apart for the processor to foresee them.
    if (r + 8 < count)
      for (size_t h = 0; h < size; h += 16) __builtin_prefetch(x + 8 * stride + h, 0, 3);
    const size_t slot = position + r;
    // Elements 16i + j of a value lie together; those of a key 16 apart.
    const size_t origin = values ? slot * 16 : slot / 16 * 16 * size + slot % 16;
    if (type == CK_CACHE_INT8) {
      const float scale = byte_scale(x, size);
      ((float *)(base + (values ? layout.value_scales : layout.key_scales)))[slot] = scale;
      const float factor = scale > 0 ? 1 / scale : 0;
      for (size_t h = 0; h < size; h++) {
        const size_t index =
            origin + (values ? h / 16 * 16 * ATTENTION_BLOCK + h % 16 : h * 16);
        float f = x[h] * factor;
        ((int8_t *)elements)[index] =
            f == f ? (int8_t)(int32_t)__builtin_rintf(f > 127 ? 127 : f < -127 ? -127 : f) : 0;
      }
    } else if (values) {
      for (size_t h = 0; h < size; h++)
        store_narrow(elements, origin + h / 16 * 16 * ATTENTION_BLOCK + h % 16, type, x[h]);
    } else {
      for (size_t h = 0; h < size; h++) store_narrow(elements, origin + h * 16, type, x[h]);
    }
  }
}

static void append_to_block(
    ck_cache_type type, size_t size, const float *keys, const float *values, size_t stride,
    size_t position, size_t count, void *block) {
  switch (type) {
    case CK_CACHE_FLOAT32:
      append_rows(CK_CACHE_FLOAT32, keys, stride, size, position, count, block, false);
      append_rows(CK_CACHE_FLOAT32, values, stride, size, position, count, block, true);
      break;
    case CK_CACHE_BFLOAT16:
      append_rows(CK_CACHE_BFLOAT16, keys, stride, size, position, count, block, false);
      append_rows(CK_CACHE_BFLOAT16, values, stride, size, position, count, block, true);
      break;
    default:
      append_rows(CK_CACHE_INT8, keys, stride, size, position, count, block, false);
      append_rows(CK_CACHE_INT8, values, stride, size, position, count, block, true);
  }
}
