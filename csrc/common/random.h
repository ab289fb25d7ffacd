// Counter-based random numbers, the same on every device: Philox4x32-10 and the maps from its words to signs, indices and
// Gaussians. docs/definitions.md says which counter belongs to which entry of which sketch.
//
// Everything is static: the CPU kernels include this file once per instruction set, inside the target region.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define RANDLA_HD __host__ __device__ __forceinline__
#else
#define RANDLA_HD inline __attribute__((always_inline))
#endif

namespace randla {

enum Stream : uint32_t {
  kGaussian = 1,
  kRademacher = 2,
  kSparseStack = 3,
  kSparseSign = 4,
  kSrhtSlab = 5,
  kSrhtGroup = 6,
  kSrhtWindow = 7,
  kTransformSigns = 8,
  kTransformRows = 9,
  kLessUniform = 10,
  kRowSample = 11,
  kSampleRows = 12,
  kDeterminantal = 13,
  kSampleOrder = 14,
  kRowOrder = 15,
  kHessianRows = 16,
  kCoordinated = 17,
  kLengthSquared = 18,
  kLandmarks = 19,
  kStreamingLandmarks = 20,
  kStartVectors = 21,
};

struct Words {
  uint64_t u0, u1;
};

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

static RANDLA_HD Words philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t seed) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxM0) * c0, p1 = static_cast<uint64_t>(kPhiloxM1) * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  return {c0 | static_cast<uint64_t>(c1) << 32, c2 | static_cast<uint64_t>(c3) << 32};
}

static RANDLA_HD Words philox(uint64_t index, uint32_t sub, uint32_t stream, uint64_t seed) {
  return philox(static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), sub, stream, seed);
}

// High half of the product: an integer in [0, range) whose bias, range / 2^64, cannot be observed.
static RANDLA_HD uint64_t bounded(uint64_t word, uint64_t range) {
#ifdef __CUDA_ARCH__
  return __umul64hi(word, range);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(word) * range) >> 64);
#endif
}

// The maps below are written once for numbers and for vectors of them: Real is double or a vector of doubles, Bits the integers
// of the same size.
template <class To, class From>
static RANDLA_HD To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same_bits changes the type, not the size");
  return __builtin_bit_cast(To, from);
}

// Nearest double to a 64-bit integer from two exact halves; unlike a cast it vectorises on every instruction set.
template <class Real, class Bits>
static RANDLA_HD Real nearest_double(Bits k) {
  const Real high = same_bits<Real>((k >> 32) | 0x4530000000000000u) - 0x1p84;       // 2^84 + high 2^32, minus 2^84: exact
  const Real low = same_bits<Real>((k & 0xffffffffu) | 0x4330000000000000u) - 0x1p52;  // 2^52 + low, minus 2^52: exact
  return high + low;
}

// log x for normal x in (0, 1]: x = 2^e m with m in [sqrt(1/2), sqrt 2), log m = 2 atanh((m - 1) / (m + 1)).
template <class Real, class Bits>
static RANDLA_HD Real log_unit(Real x) {
  const Bits shifted = same_bits<Bits>(x) + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  const Real e = same_bits<Real>((shifted >> 52) | 0x4330000000000000u) - (0x1p52 + 1023.0);
  const Real m = same_bits<Real>((shifted & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
  const Real s = (m - 1.0) / (m + 1.0), z = s * s;
  Real p = z * (1.0 / 23.0) + 1.0 / 21.0;
  p = p * z + 1.0 / 19.0;
  p = p * z + 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  const Real tail = 2.0 * s * z * p;
  return e * 0x1.62e42fee00000p-1 + (2.0 * s + (tail + e * 0x1.a39ef35793c76p-33));
}

template <class Real>
struct GaussianPair {
  Real first, second;
};

// Box-Muller on two 64-bit words, in two parts so that vectors can put their own square root between them: the square of the
// radius from the first word, then the two numbers from the radius and the second word.
template <class Real, class Bits>
static RANDLA_HD Real gaussian_square(Bits u0) {
  return -2.0 * log_unit<Real, Bits>((nearest_double<Real>(u0) + 1.0) * 0x1p-64);
}

// Taylor polynomials of sin and cos on [-pi/4, pi/4]: the remainder is below 2^-54.
template <class Real, class Bits>
static RANDLA_HD GaussianPair<Real> gaussian_pair(Real radius, Bits u1) {
  const Real f = nearest_double<Real>(u1 & 0x3fffffffffffffffu) * 0x1p-62 - 0.5;
  const Real t = f * 1.5707963267948966, z = t * t;
  Real s = z * (-1.0 / 1307674368000.0) + 1.0 / 6227020800.0;
  s = s * z - 1.0 / 39916800.0;
  s = s * z + 1.0 / 362880.0;
  s = s * z - 1.0 / 5040.0;
  s = s * z + 1.0 / 120.0;
  s = s * z - 1.0 / 6.0;
  s = t + t * z * s;
  Real c = z * (1.0 / 20922789888000.0) - 1.0 / 87178291200.0;
  c = c * z + 1.0 / 479001600.0;
  c = c * z - 1.0 / 3628800.0;
  c = c * z + 1.0 / 40320.0;
  c = c * z - 1.0 / 720.0;
  c = c * z + 1.0 / 24.0;
  c = c * z - 0.5;
  c = 1.0 + z * c;
  // Quadrants 0..3 turn (c, s) into (c, s), (-s, c), (-c, -s), (s, -c); written with masks so that it vectorises.
  const Bits odd = 0 - ((u1 >> 62) & 1u), half = u1 & 0x8000000000000000u;
  const Bits bc = same_bits<Bits>(c), bs = same_bits<Bits>(s);
  const Bits x = (bc & ~odd) | ((bs ^ 0x8000000000000000u) & odd), y = (bs & ~odd) | (bc & odd);
  return {radius * same_bits<Real>(x ^ half), radius * same_bits<Real>(y ^ half)};
}

}  // namespace randla
