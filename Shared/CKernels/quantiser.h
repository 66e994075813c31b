// Weights to panels of 8-bit and 4-bit numbers: sixteen outputs at once, a lane each.

CK_INLINE v16 min16(v16 a, v16 b) { return select16(a < b, a, b); }

/// A positive number to the nearest of float16's whose lower `spared` bits are 0, ties to even;
/// at most the greatest of them.
CK_INLINE v16 round_to_half(v16 v, int spared) {
  const uint32_t below = ((uint32_t)1 << (13 + spared)) - 1;
  const u16x32 bits = (u16x32)v;
  const v16 rounded = (v16)((bits + (below >> 1) + (bits >> (13 + spared) & 1)) & ~below);
  // Below 2⁻¹⁴ they are multiples of 2⁻²⁴ or more, as floats above ½ · 2^spared are.
  const v16 whole = splat(0.75f * (float)(1 << spared));
  const v16 small = v + whole - whole;
  const v16 greatest = splat(65536.0f - 32.0f * (float)(1 << spared));
  return min16(select16(v < splat(0x1p-14f), small, rounded), greatest);
}

/// The bits of numbers that float16 has, positive ones.
CK_INLINE void store_halves(uint8_t *p, v16 v) {
  typedef uint16_t u16x16 __attribute__((ext_vector_type(16)));
  const i16x32 normal = ((i16x32)v >> 13) - (112 << 10);
  const v16 steps = min16(v, splat(0x1p-14f)) * splat(0x1p24f);
  const i16x32 small = __builtin_convertvector(steps, i16x32);
  const i16x32 bits = (i16x32)select16(v < splat(0x1p-14f), (v16)small, (v16)normal);
  const u16x16 halves = __builtin_convertvector(bits, u16x16);
  memcpy(p, &halves, sizeof halves);
}

/// To the nearest integer, ties to even; magnitudes below 2²².
CK_INLINE v16 round16(v16 v) { return v + splat(12582912.0f) - splat(12582912.0f); }

/// Numbers as bytes, one for each lane.
CK_INLINE void store_bytes(uint8_t *p, v16 v) {
  const i16x32 numbers = __builtin_convertvector(v, i16x32);
  for (size_t j = 0; j < 16; j++) p[j] = (uint8_t)numbers[j];
}

static void quantise_block_to_q8(const float block[BLOCK][16], uint8_t *values, uint8_t *scales) {
  v16 greatest = splat(0);
  for (size_t k = 0; k < BLOCK; k++) {
    const v16 w = load16(block[k]);
    greatest = max16(max16(w, -w), greatest);
  }
  const v16 zero = splat(0);
  v16 scale = round_to_half(greatest / splat(127), 0);
  // Float16's small numbers lie far apart: not to cut the greatest weights, the one above.
  scale = select16(greatest > scale * splat(127.5f), scale + splat(0x1p-24f), scale);
  const v16 divisor = select16(scale > zero, scale, splat(1));
  store_halves(scales, scale);
  uint8_t bytes[BLOCK][16];
  for (size_t k = 0; k < BLOCK; k++) {
    const v16 steps = min16(max16(load16(block[k]) / divisor, splat(-127)), splat(127));
    store_bytes(bytes[k], round16(steps) + splat(128));
  }
  for (size_t k = 0; k < BLOCK; k++)
    for (size_t j = 0; j < 16; j++) values[k / 4 * 64 + 4 * j + k % 4] = bytes[k][j];
}

typedef struct {
  /// The scale, one of those that files hold, and the zero in sixteenths of it.
  v16 scale, zero, error;
} q4_choice;

/// The number of 0…15 that stands nearest to w.
CK_INLINE v16 nearest_number(v16 w, v16 inverse, v16 offset) {
  return round16(min16(max16(fma16(w, inverse, offset), splat(0)), splat(15)));
}

/// Where a choice errs less, it becomes the best. Gives the scale and zero that suit the numbers
/// it leads to by least squares of w − scale · (number − zero / 16).
CK_INLINE q4_choice consider(const float block[BLOCK][16], q4_choice choice, q4_choice *best) {
  choice.scale = round_to_half(max16(choice.scale, splat(0x1p-20f)), 4);
  choice.zero = round16(min16(max16(choice.zero, splat(0)), splat(255)));
  const v16 inverse = splat(1) / choice.scale, sixteenth = splat(0.0625f);
  const v16 offset = choice.zero * sixteenth;

  v16 error = splat(0), weights = splat(0);
  v16 numbers = splat(0), squares = splat(0), products = splat(0);
  for (size_t k = 0; k < BLOCK; k++) {
    const v16 w = load16(block[k]), number = nearest_number(w, inverse, offset);
    const v16 off = fma16(choice.scale, offset - number, w);
    error = fma16(off, off, error);
    weights += w;
    numbers += number;
    squares = fma16(number, number, squares);
    products = fma16(number, w, products);
  }
  const i16x32 better = error < best->error;
  best->scale = select16(better, choice.scale, best->scale);
  best->zero = select16(better, choice.zero, best->zero);
  best->error = select16(better, error, best->error);

  // 32 Σn² − (Σn)², whole numbers: 0 only if all are the same, when nothing is to be had.
  const v16 count = splat(BLOCK), spread = fma16(count, squares, -(numbers * numbers));
  const i16x32 fits = spread > splat(0);
  const v16 scale = fma16(count, products, -(numbers * weights)) / spread;
  const v16 zero = fma16(numbers, scale, -weights) / (scale * splat(BLOCK / 16));
  const i16x32 sound = fits & (scale > splat(0));
  return (q4_choice){
      select16(sound, scale, choice.scale), select16(sound, zero, choice.zero), splat(0)};
}

static void quantise_block_to_q4(
    const float block[BLOCK][16], uint8_t *values, uint8_t *scales, uint8_t *zeros) {
  const v16 none = splat(0);
  v16 low = none, high = none;
  for (size_t k = 0; k < BLOCK; k++) {
    const v16 w = load16(block[k]);
    low = min16(w, low);
    high = max16(w, high);
  }
  // From steps that take in both ends to ones that cut either, since what few lose there many may
  // gain; each then improved by turns, the numbers for the steps and the steps for the numbers.
  q4_choice best = {splat(0x1p-20f), none, splat(INFINITY)};
  for (int a = 0; a < 3; a++)
    for (int b = 0; b < 3; b++) {
      const v16 from = low * splat(1 - 0.06f * (float)a);
      const v16 to = high * splat(1 - 0.06f * (float)b);
      const v16 scale = max16((to - from) * splat(1.0f / 15), splat(0x1p-20f));
      q4_choice choice = {scale, splat(-16) * from / scale, none};
      for (int turn = 0; turn < 4; turn++) choice = consider(block, choice, &best);
    }

  const v16 inverse = splat(1) / best.scale, offset = best.zero * splat(0.0625f);
  uint8_t numbers[BLOCK][16], zero[16];
  i16x32 used = 0;
  for (size_t k = 0; k < BLOCK; k++) {
    const v16 w = load16(block[k]);
    used |= w != none;
    store_bytes(numbers[k], nearest_number(w, inverse, offset));
  }
  // A block of zeros has no scale.
  store_halves(scales, select16(used, best.scale, none));
  store_bytes(zero, best.zero);
  for (size_t j = 0; j < 16; j++) scales[2 * j] |= zero[j] & 15;
  for (size_t k = 0; k < 16; k++)
    for (size_t j = 0; j < 16; j++)
      values[k / 4 * 64 + 4 * j + k % 4] = (uint8_t)(numbers[k][j] | numbers[k + 16][j] << 4);
  for (size_t j = 0; j < 8; j++) zeros[j] = (uint8_t)(zero[j] >> 4 | (zero[j + 8] & 0xf0));
}

static size_t quantise_panel(
    const float *weights, size_t stride, size_t outputs, size_t depth, bool four,
    uint8_t *panel) {
  const size_t blocks = depth / BLOCK, bytes = four ? Q4_BYTES : Q8_BYTES;
  uint8_t *scales = panel + blocks * bytes, *zeros = scales + blocks * BLOCK;
  // What the greatest scale spans.
  const float limit = four ? 65024.0f * 7.5f : 65504.0f * 127.0f;
  for (size_t b = 0; b < blocks; b++) {
    float block[BLOCK][16] = {{0}};
    for (size_t j = 0; j < outputs; j++) {
      const float *row = weights + j * stride + b * BLOCK;
      for (size_t k = 0; k < BLOCK; k++) {
        if (!(fabsf(row[k]) <= limit)) return j * depth + b * BLOCK + k;
        block[k][j] = row[k];
      }
    }
    if (four)
      quantise_block_to_q4(block, panel + b * bytes, scales + b * BLOCK, zeros + 8 * b);
    else
      quantise_block_to_q8(block, panel + b * bytes, scales + b * BLOCK);
  }
  return SIZE_MAX;
}
