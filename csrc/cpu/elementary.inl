// exp, expm1 and log1p of whole vectors, from IEEE operations alone: the same bits for every size of vector. Within 2 ulp.

namespace randla::cpu {
namespace {

// Round to nearest integer: adding it leaves the integer in the low bits of the sum.
constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
constexpr double kInverseLn2 = 1.44269504088896338700;

inline __attribute__((always_inline)) Doubles vector_of(double x) { return Doubles{} + x; }

// 2^k for integers k of at most 1023 in size.
inline __attribute__((always_inline)) Doubles power_of_two(Doubles k) {
  return (Doubles)(((Quads)(k + kRound) << 52) + (uint64_t{1023} << 52));
}

// exp(r) - 1 for |r| <= 0.35: fourteen terms of its series.
inline __attribute__((always_inline)) Doubles expm1_near_zero(Doubles r) {
  constexpr double c[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                          1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2};
  Doubles p = vector_of(c[0]);
  for (int i = 1; i < 12; ++i) p = p * r + c[i];
  return r + r * r * p;
}

inline __attribute__((always_inline)) Doubles exp_of(Doubles x) {
  // Past these the result is 0 or inf anyway; NaN passes both comparisons.
  x = x > 710.0 ? vector_of(710.0) : x;
  x = x < -750.0 ? vector_of(-750.0) : x;
  const Doubles k = (x * kInverseLn2 + kRound) - kRound;
  const Doubles e = expm1_near_zero((x - k * kLn2High) - k * kLn2Low) + 1.0;
  const Doubles half = (k * 0.5 + kRound) - kRound;  // 2^k itself may be past the range of its factors
  return e * power_of_two(half) * power_of_two(k - half);
}

inline __attribute__((always_inline)) Doubles expm1_of(Doubles x) {
  const Doubles near = expm1_near_zero(x), far = exp_of(x) - 1.0;
  return (x < 0.35) & (x > -0.35) ? near : far;
}

// log(1 + t) for t > -1.
inline __attribute__((always_inline)) Doubles log1p_of(Doubles t) {
  const Doubles u = t + 1.0;
  Quads bits = (Quads)u;
  // u = 2^e m with m in [1 / sqrt 2, sqrt 2).
  const Quads shifted = bits + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  const Doubles e = (Doubles)((shifted >> 52) | 0x4330000000000000u) - (4503599627370496.0 + 1023.0);
  const Doubles m = (Doubles)((shifted & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
  const Doubles s = (m - 1.0) / (m + 1.0), z = s * s;
  constexpr double c[] = {2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15, 2.0 / 13, 2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3};
  Doubles p = vector_of(c[0]);
  for (int i = 1; i < 10; ++i) p = p * z + c[i];
  const Doubles rounding = (t - (u - 1.0)) / u;  // what was lost in 1 + t
  const Doubles log = e * kLn2High + (s * 2.0 + (s * z * p + (e * kLn2Low + rounding)));
  return u < __builtin_inf() ? log : u;  // inf and NaN
}

inline __attribute__((always_inline)) Doubles absolute(Doubles x) { return (Doubles)((Quads)x & 0x7fffffffffffffffu); }

// Copies to and from vectors of which only `count` lanes exist; the others are `other`.
inline __attribute__((always_inline)) Doubles load_some(const double* p, int64_t count, double other) {
  if (count >= kQuads) {
    Doubles v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  double lanes[kQuads];
  for (int l = 0; l < kQuads; ++l) lanes[l] = l < count ? p[l] : other;
  Doubles v;
  __builtin_memcpy(&v, lanes, sizeof v);
  return v;
}

inline __attribute__((always_inline)) void store_some(double* p, int64_t count, Doubles v) {
  if (count >= kQuads) {
    __builtin_memcpy(p, &v, sizeof v);
    return;
  }
  for (int64_t l = 0; l < count; ++l) p[l] = v[l];
}

}  // namespace
}  // namespace randla::cpu
