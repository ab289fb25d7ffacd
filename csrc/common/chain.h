// Chains of Kronecker-sparse matrices as Python gives them: what both bindings ask of the patterns.
#pragma once

#include <array>
#include <complex>
#include <cstdint>
#include <vector>

#include "common/require.h"

namespace randla {

template <class E>
struct RealOfElement {
  using type = E;
};
template <class R>
struct RealOfElement<std::complex<R>> {
  using type = R;
};

// (a, b, c, d) of every stage, in the order of application.
using Patterns = std::vector<std::array<int64_t, 4>>;

struct ChainSizes {
  int64_t inputs, outputs, rows, values;  // rows: the most that any stage has or leaves
};

inline ChainSizes checked_chain(const Patterns& patterns) {
  RANDLA_REQUIRE(!patterns.empty(), "at least one pattern");
  ChainSizes sizes{patterns.front()[0] * patterns.front()[2] * patterns.front()[3], 0, 0, 0};
  for (const auto& [a, b, c, d] : patterns) {
    RANDLA_REQUIRE(a > 0 && b > 0 && c > 0 && d > 0, "patterns must be positive");
    const int64_t inputs = a * c * d;
    RANDLA_REQUIRE(sizes.values == 0 || inputs == sizes.outputs, "stages must match");
    sizes.outputs = a * b * d;
    const int64_t larger = inputs > sizes.outputs ? inputs : sizes.outputs;
    if (larger > sizes.rows) sizes.rows = larger;
    sizes.values += a * b * c * d;
  }
  return sizes;
}

}  // namespace randla
