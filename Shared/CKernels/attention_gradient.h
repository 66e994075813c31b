// The gradient of one key-value head's attention over one sequence.
//
// With E = exp(scores − row maximum), l its row sums, P = E / l and dP = dY · vᵀ:
// dV = Pᵀ · dY, dS = P ⊙ (dP − Σ dY ⊙ y), dQ = dS · k / √H, dK = dSᵀ · q / √H. E is computed again
// for a strip of query rows at a time; 1 / l goes into the strip's dY.

CK_TILES(gather_near, COLUMNS, CK_CACHE_FLOAT32, true, false)

enum { STRIP_ROWS = 48 };

/// Rows of a head in panels of sixteen elements, [⌈size / 16⌉][room][16], each times its factor.
CK_INLINE void pack_rows(
    const float *x, size_t stride, size_t rows, size_t size, const float *factors, size_t room,
    float *packed) {
  for (size_t r = 0; r < rows; r++, x += stride)
    for (size_t h = 0; h < size; h += 16)
      store16(
          packed + h * room + 16 * r,
          load(x + h, size - h) * splat(factors ? factors[r] : 1));
}

/// Tiles of a strip's rows as score() wants them, each row times its factor.
CK_INLINE void pack_tiles(
    const float *x, size_t stride, size_t rows, size_t size, const float *factors, float factor,
    float *packed) {
  const tile_plan plan = plan_tiles(rows);
  for (size_t t = 0; t < plan.count; t++) {
    const size_t first = tile_start(plan, t), count = tile_start(plan, t + 1) - first;
    float *to = packed + first * size;
    for (size_t h = 0; h < size; h++)
#pragma clang loop vectorize(disable)
      for (size_t m = 0; m < count; m++)
        *to++ = x[(first + m) * stride + h] * (factors ? factors[first + m] : factor);
  }
}

/// Keys or values in panels of sixteen positions, [room / 16][size][16].
CK_INLINE void pack_positions(
    const float *x, size_t stride, size_t rows, size_t size, size_t room, float *packed) {
  memset(packed, 0, room * size * sizeof(float));
  for (size_t r = 0; r < rows; r++, x += stride)
    for (size_t h = 0; h < size; h++) packed[r / 16 * 16 * size + 16 * h + r % 16] = x[h];
}

/// Memory of one call.
typedef struct {
  /// Panels of positions.
  float *keys, *values;
  /// Panels of elements, block by block.
  float *key_rows;
  /// Sums [room][panels · 16].
  float *dk, *dv, *dq;
  /// A strip's: E [blocks][STRIP_ROWS][ATTENTION_BLOCK], one block of dS, packed rows.
  float *weights, *slopes, *q_tiles, *dy_tiles, *q_rows, *dy_rows;
} gradient_memory;

CK_INLINE gradient_memory gradient_memory_at(float *p, size_t rows, size_t size) {
  const size_t room = (rows + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK * ATTENTION_BLOCK;
  const size_t wide = 16 * panels_of(size);
  gradient_memory m;
  m.keys = p;
  m.values = m.keys + room * size;
  m.key_rows = m.values + room * size;
  m.dk = m.key_rows + room * wide;
  m.dv = m.dk + room * wide;
  m.dq = m.dv + room * wide;
  m.weights = m.dq + STRIP_ROWS * wide;
  m.slopes = m.weights + room * STRIP_ROWS;
  m.q_tiles = m.slopes + STRIP_ROWS * ATTENTION_BLOCK;
  m.dy_tiles = m.q_tiles + STRIP_ROWS * size;
  m.q_rows = m.dy_tiles + STRIP_ROWS * size;
  m.dy_rows = m.q_rows + STRIP_ROWS * wide;
  return m;
}

static size_t attention_gradient_scratch(size_t rows, size_t size) {
  const size_t room = (rows + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK * ATTENTION_BLOCK;
  const size_t wide = 16 * panels_of(size);
  return room * (2 * size + 3 * wide + STRIP_ROWS) +
         STRIP_ROWS * (2 * size + 3 * wide + ATTENTION_BLOCK);
}

/// A strip's scores → E in m->weights, and 1 / l of each row.
CK_INLINE void strip_weights(
    const ck_attention *strip, const gradient_memory *m, float *inverses) {
  const size_t rows = strip->rows, size = strip->size;
  const tile_plan plan = plan_tiles(rows);
  for (size_t t = 0; t < plan.count; t++) {
    const size_t first = tile_start(plan, t), count = tile_start(plan, t + 1) - first;
    const size_t seen = visible_to(strip, first + count - 1);
    v16 peaks[8], sums[ATTENTION_ROWS];
    for (size_t i = 0; i < 8; i++) peaks[i] = splat(-INFINITY);
    for (size_t start = 0; start < seen; start += ATTENTION_BLOCK) {
      float *scores = m->weights + start * STRIP_ROWS + first * ATTENTION_BLOCK;
      score(
          CK_CACHE_FLOAT32, count, panels_of(min_size(seen - start, ATTENTION_BLOCK)), size,
          m->q_tiles + first * size, m->keys + start * size, scores, NULL);
      if (visible_to(strip, first) < start + ATTENTION_BLOCK)
        complete_scores(strip, first, count, start, NULL, scores);
      for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < ATTENTION_BLOCK; j += 16)
          peaks[i] = greater16(load16(scores + i * ATTENTION_BLOCK + j), peaks[i]);
    }
    float maxima[8];
    v4 low = peaks16(peaks), high = peaks16(peaks + 4);
    memcpy(maxima, &low, sizeof low);
    memcpy(maxima + 4, &high, sizeof high);
    for (size_t i = 0; i < count; i++) {
      const v16 offset = splat(maxima[i] == -INFINITY ? 0 : maxima[i]);
      sums[i] = splat(0);
      for (size_t start = 0; start < seen; start += ATTENTION_BLOCK) {
        float *s = m->weights + start * STRIP_ROWS + (first + i) * ATTENTION_BLOCK;
#pragma unroll
        for (size_t j = 0; j < ATTENTION_BLOCK; j += 16) {
          v16 weight = power16(load16(s + j) - offset);
          store16(s + j, weight);
          sums[i] += weight;
        }
      }
      inverses[first + i] = 1.0f / sum16(sums[i]);
    }
  }
}

/// sums [rows][wide] += weightsᵀ · rows, for the keys of one block.
CK_INLINE void gather_keys(
    size_t keys, size_t depth, size_t panels, const float *weights, const float *rows,
    float *sums) {
  const tile_plan plan = plan_tiles(keys);
  for (size_t t = 0; t < plan.count; t++) {
    const size_t first = tile_start(plan, t), count = tile_start(plan, t + 1) - first;
    gather_near(
        count, panels, depth, weights + first, rows, 16 * STRIP_ROWS, sums + first * 16 * panels,
        16 * panels, 16, NULL);
  }
}

static void attention_gradient(const ck_attention_gradient *call, float *scratch) {
  const size_t size = call->size, rows = call->rows, panels = panels_of(size), wide = 16 * panels;
  const size_t room = (rows + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK * ATTENTION_BLOCK;
  const gradient_memory m = gradient_memory_at(scratch, rows, size);
  const float scale = (float)(1 / sqrt((double)size));
  pack_positions(call->k, call->key_stride, rows, size, room, m.keys);
  pack_positions(call->v, call->key_stride, rows, size, room, m.values);
  memset(m.key_rows, 0, 3 * room * wide * sizeof(float));
  for (size_t start = 0; start < rows; start += ATTENTION_BLOCK)
    pack_rows(
        call->k + start * call->key_stride, call->key_stride,
        min_size(rows - start, ATTENTION_BLOCK), size, NULL, ATTENTION_BLOCK,
        m.key_rows + start * wide);

  for (size_t head = 0; head < call->group; head++) {
    for (size_t begin = 0; begin < rows; begin += STRIP_ROWS) {
      const size_t count = min_size(rows - begin, STRIP_ROWS);
      const size_t corner = begin * call->query_stride + head * size;
      const float *q = call->q + corner, *dy = call->dy + corner, *y = call->y + corner;
      const ck_attention strip = {
          .type = CK_CACHE_FLOAT32,
          .size = size,
          .rows = count,
          .group = 1,
          .visible = call->causal ? begin + 1 : rows,
          .causal = call->causal,
      };
      float inverses[STRIP_ROWS], offsets[STRIP_ROWS];
      pack_tiles(
          q, call->query_stride, count, size, NULL,
          (float)(1.4426950408889634 / sqrt((double)size)), m.q_tiles);
      strip_weights(&strip, &m, inverses);
      for (size_t r = 0; r < count; r++)
        offsets[r] =
            dot(dy + r * call->query_stride, y + r * call->query_stride, size) * inverses[r];
      pack_tiles(dy, call->query_stride, count, size, inverses, 1, m.dy_tiles);
      pack_rows(dy, call->query_stride, count, size, inverses, STRIP_ROWS, m.dy_rows);
      pack_rows(q, call->query_stride, count, size, NULL, STRIP_ROWS, m.q_rows);
      memset(m.dq, 0, count * wide * sizeof(float));

      const tile_plan plan = plan_tiles(count);
      const size_t most = visible_to(&strip, count - 1);
      for (size_t start = 0; start < most; start += ATTENTION_BLOCK) {
        const size_t keys = min_size(most - start, ATTENTION_BLOCK);
        float *weights = m.weights + start * STRIP_ROWS;
        size_t t = 0;
        while (visible_to(&strip, tile_start(plan, t + 1) - 1) <= start) t++;
        const size_t top = tile_start(plan, t);
        for (; t < plan.count; t++) {
          const size_t first = tile_start(plan, t);
          const size_t tall = tile_start(plan, t + 1) - first;
          float *slopes = m.slopes + first * ATTENTION_BLOCK;
          score(
              CK_CACHE_FLOAT32, tall, ATTENTION_BLOCK / 16, size, m.dy_tiles + first * size,
              m.values + start * size, slopes, NULL);
          for (size_t i = 0; i < tall; i++) {
            const v16 offset = splat(offsets[first + i]);
            const float *w = weights + (first + i) * ATTENTION_BLOCK;
            float *s = slopes + i * ATTENTION_BLOCK;
#pragma unroll
            for (size_t j = 0; j < ATTENTION_BLOCK; j += 16)
              store16(s + j, load16(w + j) * (load16(s + j) - offset));
          }
          weigh(
              CK_CACHE_FLOAT32, tall, panels, keys, slopes, m.key_rows + start * wide,
              m.dq + first * wide, wide, NULL);
        }
        gather_keys(
            keys, count - top, panels, weights + top * ATTENTION_BLOCK, m.dy_rows + 16 * top,
            m.dv + start * wide);
        gather_keys(
            keys, count - top, panels, m.slopes + top * ATTENTION_BLOCK, m.q_rows + 16 * top,
            m.dk + start * wide);
      }
      for (size_t r = 0; r < count; r++)
        for (size_t h = 0; h < size; h += 16)
          store(
              call->dq + corner + r * call->query_stride + h,
              load16(m.dq + r * wide + h) * splat(scale), size - h);
    }
  }
  for (size_t r = 0; r < rows; r++)
    for (size_t h = 0; h < size; h += 16) {
      const size_t to = r * call->key_stride + h;
      store(call->dk + to, load16(m.dk + r * wide + h) * splat(scale), size - h);
      store(call->dv + to, load16(m.dv + r * wide + h), size - h);
    }
}
