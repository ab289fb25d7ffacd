// Losses of one margin z and one label y: value f, first and second derivative c and d with respect to z, and f(z + u) - f(z)
// without cancellation; and the exp, expm1 and log1p that they need, within 2 ulp. Formulas: docs/optimization.md.
//
// Written once for numbers and for vectors of them, from IEEE operations alone: the same bits on every device. The CPU kernels
// include this file once per instruction set, inside the target region, and say what their vectors are in RealOf.
#pragma once

#include "common/loss.h"
#include "common/random.h"

namespace randla {
namespace {

// Integers of the size of a Real, and its square root.
template <class Real>
struct RealOf;
template <>
struct RealOf<double> {
  using Bits = uint64_t;
  static RANDLA_HD double root(double x) { return sqrt(x); }
};

template <class Real>
static RANDLA_HD Real all(double x) { return Real{} + x; }
template <class Real>
static RANDLA_HD typename RealOf<Real>::Bits bits_of(Real x) { return __builtin_bit_cast(typename RealOf<Real>::Bits, x); }
template <class Real>
static RANDLA_HD Real from_bits(typename RealOf<Real>::Bits x) { return __builtin_bit_cast(Real, x); }

// Round to nearest integer: adding it leaves the integer in the low bits of the sum.
constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
constexpr double kInverseLn2 = 1.44269504088896338700;

// 2^k for integers k of at most 1023 in size.
template <class Real>
static RANDLA_HD Real power_of_two(Real k) {
  return from_bits<Real>((bits_of(k + kRound) << 52) + (uint64_t{1023} << 52));
}

// exp(r) - 1 for |r| <= 0.35: fourteen terms of its series.
template <class Real>
static RANDLA_HD Real expm1_near_zero(Real r) {
  constexpr double c[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                          1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2};
  Real p = all<Real>(c[0]);
  for (int i = 1; i < 12; ++i) p = p * r + c[i];
  return r + r * r * p;
}

template <class Real>
static RANDLA_HD Real exp_of(Real x) {
  // Past these the result is 0 or inf anyway; NaN passes both comparisons.
  x = x > 710.0 ? all<Real>(710.0) : x;
  x = x < -750.0 ? all<Real>(-750.0) : x;
  const Real k = (x * kInverseLn2 + kRound) - kRound;
  const Real e = expm1_near_zero((x - k * kLn2High) - k * kLn2Low) + 1.0;
  const Real half = (k * 0.5 + kRound) - kRound;  // 2^k itself may be past the range of its factors
  return e * power_of_two(half) * power_of_two(k - half);
}

template <class Real>
static RANDLA_HD Real expm1_of(Real x) {
  const Real near = expm1_near_zero(x), far = exp_of(x) - 1.0;
  return (x < 0.35) & (x > -0.35) ? near : far;
}

// log(1 + t) for t > -1.
template <class Real>
static RANDLA_HD Real log1p_of(Real t) {
  const Real u = t + 1.0;
  const auto bits = bits_of(u);
  // u = 2^e m with m in [1 / sqrt 2, sqrt 2).
  const auto shifted = bits + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  const Real e = from_bits<Real>((shifted >> 52) | 0x4330000000000000u) - (4503599627370496.0 + 1023.0);
  const Real m = from_bits<Real>((shifted & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
  const Real s = (m - 1.0) / (m + 1.0), z = s * s;
  constexpr double c[] = {2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15, 2.0 / 13, 2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3};
  Real p = all<Real>(c[0]);
  for (int i = 1; i < 10; ++i) p = p * z + c[i];
  const Real rounding = (t - (u - 1.0)) / u;  // what was lost in 1 + t
  const Real log = e * kLn2High + (s * 2.0 + (s * z * p + (e * kLn2Low + rounding)));
  return u < __builtin_inf() ? log : u;  // inf and NaN
}

template <class Real>
static RANDLA_HD Real absolute(Real x) { return from_bits<Real>(bits_of(x) & 0x7fffffffffffffffu); }

template <class Real>
struct LossTerms {
  Real f, c, d;
};

// 1 / (1 + e^-z) and what goes with it; e = exp(-|z|) cannot overflow.
template <class Real>
struct Sigmoid {
  Real e, inverse, value, slope;
  explicit RANDLA_HD Sigmoid(Real z)
      : e(exp_of(-absolute(z))), inverse(1.0 / (e + 1.0)), value(z >= 0.0 ? inverse : e * inverse), slope(e * inverse * inverse) {
    value = z == z ? value : z;
  }
  // 1 - 2 value
  RANDLA_HD Real bend(Real z) const {
    const Real t = (1.0 - e) * inverse;
    return z >= 0.0 ? -t : t;
  }
  // value - y for a label 0 or 1, without cancellation
  RANDLA_HD Real minus(Real z, Real y) const {
    return y > 0.5 ? -(z >= 0.0 ? e * inverse : inverse) : value;
  }
  // log(1 + e^z)
  RANDLA_HD Real softplus(Real z) const {
    return (z > 0.0 ? z : all<Real>(0.0)) + log1p_of(e);
  }
};

struct Logistic {  // labels -1 and 1
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double) {
    const Real m = -y * z;
    const Sigmoid<Real> s(m);
    return {s.softplus(m), -y * s.value, s.slope};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double) {
    return log1p_of(Sigmoid<Real>(-y * z).value * expm1_of(-y * u));
  }
};

struct SquaredSigmoid {  // labels 0 and 1
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double) {
    const Sigmoid<Real> s(z);
    const Real r = s.minus(z, y);
    return {r * r, 2.0 * r * s.slope, 2.0 * (s.slope * s.slope + r * s.slope * s.bend(z))};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double) {
    const Sigmoid<Real> s(z);
    const Real e = expm1_of(u), change = s.slope * e / (s.value * e + 1.0);
    return change * (2.0 * s.minus(z, y) + change);
  }
};

struct LeastSquares {
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double) {
    const Real r = z - y;
    return {0.5 * r * r, r, all<Real>(1.0)};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double) {
    return u * ((z - y) + 0.5 * u);
  }
};

struct Softplus {  // half the square of log(1 + e^z) - y
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double) {
    const Sigmoid<Real> s(z);
    const Real r = s.softplus(z) - y;
    return {0.5 * r * r, r * s.value, s.value * s.value + r * s.slope};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double) {
    const Sigmoid<Real> s(z);
    const Real change = log1p_of(s.value * expm1_of(u));
    return change * ((s.softplus(z) - y) + 0.5 * change);
  }
};

struct Poisson {
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double) {
    const Real e = exp_of(z);
    return {e - y * z, e - y, e};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double) {
    return exp_of(z) * expm1_of(u) - y * u;
  }
};

// Robust losses of the residual r = z - y with scale p, all r^2 / 2 near zero.
struct Tukey {
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double p) {
    const Real r = z - y, q = r / p, b = 1.0 - q * q;
    const auto inside = b > 0.0;
    const Real zero = {}, full = all<Real>(p * p / 6.0), square = q * q;
    return {inside ? 0.5 * r * r * (1.0 - square + square * square / 3.0) : full + zero * r, inside ? r * b * b : zero * r,
            inside ? b * (1.0 - 5.0 * q * q) : zero * r};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double p) {
    const Real r = z - y, q = r / p, q1 = (r + u) / p;
    const Real b = 1.0 - q * q, b1 = 1.0 - q1 * q1, zero = {};
    const Real a = b > 0.0 ? b : zero * r, a1 = b1 > 0.0 ? b1 : zero * (r + u);
    const Real both = u * (2.0 * r + u) / (p * p);
    return (p * p / 6.0) * ((b > 0.0) & (b1 > 0.0) ? both : a - a1) * (a * a + a * a1 + a1 * a1);
  }
};

struct Huber {
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double p) {
    const Real r = z - y, size = absolute(r), zero = {};
    const auto inside = size <= p;
    return {inside ? 0.5 * r * r : p * (size - 0.5 * p), inside ? r : (r > 0.0 ? zero + p : zero * r - p),
            inside ? zero + 1.0 : zero * r};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double p) {
    const Real r = z - y, r1 = r + u;
    const auto inside = (absolute(r) <= p) & (absolute(r1) <= p), above = (r > p) & (r1 > p), below = (r < -p) & (r1 < -p);
    const Real other = terms(z + u, y, p).f - terms(z, y, p).f;
    return inside ? u * (r + 0.5 * u) : above ? p * u : below ? -p * u : other;
  }
};

struct PseudoHuber {  // p^2 (sqrt(1 + (r / p)^2) - 1)
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double p) {
    const Real r = z - y, q = r / p, root = RealOf<Real>::root(1.0 + q * q);
    return {r * r / (root + 1.0), r / root, 1.0 / (root * root * root)};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double p) {
    const Real r = z - y, q = r / p, q1 = (r + u) / p;
    return u * (2.0 * r + u) / (RealOf<Real>::root(1.0 + q * q) + RealOf<Real>::root(1.0 + q1 * q1));
  }
};

struct Cauchy {  // p^2 / 2 log(1 + (r / p)^2)
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double p) {
    const Real r = z - y, q = r / p, w = 1.0 / (1.0 + q * q);
    return {0.5 * p * p * log1p_of(q * q), r * w, (1.0 - q * q) * w * w};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double p) {
    const Real r = z - y, q = r / p;
    return 0.5 * p * p * log1p_of(u * (2.0 * r + u) / (p * p) / (1.0 + q * q));
  }
};

struct Welsch {  // p^2 / 2 (1 - exp(-(r / p)^2))
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double p) {
    const Real r = z - y, q = r / p, e = exp_of(-q * q);
    return {-0.5 * p * p * expm1_of(-q * q), r * e, (1.0 - 2.0 * q * q) * e};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double p) {
    const Real r = z - y, q = r / p;
    return -0.5 * p * p * exp_of(-q * q) * expm1_of(-u * (2.0 * r + u) / (p * p));
  }
};

struct GemanMcClure {  // r^2 / 2 / (1 + (r / p)^2)
  template <class Real>
  static RANDLA_HD LossTerms<Real> terms(Real z, Real y, double p) {
    const Real r = z - y, q = r / p, w = 1.0 / (1.0 + q * q);
    return {0.5 * r * r * w, r * w * w, (1.0 - 3.0 * q * q) * w * w * w};
  }
  template <class Real>
  static RANDLA_HD Real difference(Real z, Real u, Real y, double p) {
    const Real r = z - y, q = r / p, q1 = (r + u) / p;
    return 0.5 * u * (2.0 * r + u) / ((1.0 + q * q) * (1.0 + q1 * q1));
  }
};

// `function` gets the loss that `id` names.
template <class Function>
static RANDLA_HD void with_loss(LossId id, const Function& function) {
  switch (id) {
    case LossId::kLogistic: return function(Logistic{});
    case LossId::kSquaredSigmoid: return function(SquaredSigmoid{});
    case LossId::kLeastSquares: return function(LeastSquares{});
    case LossId::kSoftplus: return function(Softplus{});
    case LossId::kPoisson: return function(Poisson{});
    case LossId::kTukey: return function(Tukey{});
    case LossId::kHuber: return function(Huber{});
    case LossId::kPseudoHuber: return function(PseudoHuber{});
    case LossId::kCauchy: return function(Cauchy{});
    case LossId::kWelsch: return function(Welsch{});
    case LossId::kGemanMcClure: return function(GemanMcClure{});
    case LossId::kSoftmax: return;
  }
}

}  // namespace
}  // namespace randla
