// exp, and the normal distribution's Φ, of sixteen lanes.

/// exp(x) = 2^n · exp(r), n the nearest integer to x / ln 2, |r| ≤ ln 2 / 2; exp(r) by its
/// Taylor polynomial of degree 7, whose remainder is below 6·10⁻⁹. Within 1.1 units in the
/// last place; 0 from −104 down, ∞ above 88.73, a NaN stays one.
CK_INLINE v16 exp16(v16 x) {
  const v16 lowest = splat(-105.0f), highest = splat(89.0f);
  x = select16(x < lowest, lowest, x);
  x = select16(x > highest, highest, x);
  // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits of the significand.
  const v16 rounder = splat(12582912.0f);
  v16 shifted = fma16(x, splat(1.44269504f), rounder);
  v16 n = shifted - rounder;
  v16 r = fma16(n, splat(-0.693359375f), x);
  r = fma16(n, splat(2.12194440e-4f), r);
  v16 y = splat(1.0f / 5040);
  y = fma16(y, r, splat(1.0f / 720));
  y = fma16(y, r, splat(1.0f / 120));
  y = fma16(y, r, splat(1.0f / 24));
  y = fma16(y, r, splat(1.0f / 6));
  y = fma16(y, r, splat(0.5f));
  y = fma16(y, r, splat(1));
  y = fma16(y, r, splat(1));
  // 2^n in two factors, since n may lie outside the exponents of one float.
  u16x32 exponent = (u16x32)shifted - (u16x32)rounder;
  u16x32 half = (u16x32)((i16x32)exponent >> 1);
  v16 low = (v16)((half + 127) << 23);
  v16 high = (v16)((exponent - half + 127) << 23);
  return y * low * high;
}

/// Φ(−t) for t ≥ 0, as exp(−t² / 2) times a polynomial of degree 9 in 1 / (1 + t / 4), fitted
/// for least relative error on 0…14, where that error is below 10⁻⁷.
CK_INLINE v16 lower_normal16(v16 t) {
  // Φ(−20) is 0 in float32, and 20² is far from overflow.
  t = select16(t > splat(20), splat(20), t);
  v16 s = fma16(splat(2), splat(1) / fma16(t, splat(0.25f), splat(1)), splat(-1));
  v16 y = splat(0.0000663020546f);
  y = fma16(y, s, splat(-0.000169597755f));
  y = fma16(y, s, splat(-0.000657713623f));
  y = fma16(y, s, splat(0.000503673218f));
  y = fma16(y, s, splat(0.00849768240f));
  y = fma16(y, s, splat(0.0308652595f));
  y = fma16(y, s, splat(0.0717067868f));
  y = fma16(y, s, splat(0.124379218f));
  y = fma16(y, s, splat(0.170397744f));
  y = fma16(y, s, splat(0.094410643f));
  // What rounding takes from t² would be multiplied by exp: it goes in as a factor 1 + error.
  v16 square = t * t;
  v16 error = splat(-0.5f) * fma16(t, t, -square);
  y = fma16(y, error, y);
  return y * exp16(square * splat(-0.5f));
}
