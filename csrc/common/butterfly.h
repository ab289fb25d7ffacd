// A Kronecker-sparse matrix I_a (x) 1_{b x c} (x) I_d, (a b d) x (a c d).
#pragma once

#include <cstdint>

namespace randla {

template <class T>
struct ButterflyStage {
  int64_t a, b, c, d;
  const T* values;  // (a, d, b, c), of pairs (re, im) where they are complex
};

}  // namespace randla
