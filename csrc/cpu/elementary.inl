// Whole vectors for the losses of common/losses.h.

namespace randla {
namespace {

template <>
struct RealOf<cpu::Doubles> {
  using Bits = cpu::Quads;
  static inline __attribute__((always_inline)) cpu::Doubles root(cpu::Doubles x) { return cpu::square_root(x); }
};

}  // namespace
}  // namespace randla

namespace randla::cpu {
namespace {

inline __attribute__((always_inline)) Doubles vector_of(double x) { return Doubles{} + x; }

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
