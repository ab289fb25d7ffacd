// Sketches and matrices as the callers of kernels give them: what Python has made true already, looked at once more.
#pragma once

#include "common/families.h"
#include "common/matrix.h"
#include "common/require.h"

namespace randla {

inline DenseSketch checked_dense(int family, int64_t d, uint64_t seed) {
  RANDLA_REQUIRE((family == 0 || family == 1) && d > 0, "dense sketch out of range");
  return {static_cast<Dense>(family), d, seed};
}

inline SparseSketch checked_sparse(int family, int64_t d, int64_t m, int nnz, int first, uint64_t seed) {
  RANDLA_REQUIRE((family == 0 || family == 1) && d > 0 && nnz > 0 && nnz <= d && nnz <= SparseSketch::kMaxNnz && d <= INT32_MAX,
                 "sparse sketch out of range");
  RANDLA_REQUIRE(first == 0 || (family == 0 && first > 0 && first < nnz), "only blocks of a SparseStack can be left out");
  return {static_cast<Family>(family), d, m, nnz, first, seed};
}

inline BlockSrht checked_srht(int64_t d, int64_t m, int block, uint64_t seed) {
  RANDLA_REQUIRE(d > 0 && m >= 0 && (block == 16 || block == 32 || block == 64 || block == 128), "BlockSRHT out of range");
  return {d, m, block, seed};
}

inline Srtt checked_srtt(int64_t d, int64_t m, int rounds, uint64_t seed) {
  RANDLA_REQUIRE(d > 0 && m >= 0 && m <= (int64_t(1) << 40) && rounds > 0 && rounds <= 8, "SRTT out of range");
  int64_t n = 1;
  while (n < m) n *= 2;
  return {d, m, n, rounds, seed};
}

inline void require_rows(int64_t j0, int64_t count, int64_t m) {
  RANDLA_REQUIRE(j0 >= 0 && j0 + count <= m, "rows of A out of range");
}

template <class T>
void require_adjoint(const Matrix<const T>& Y, int64_t d, const Matrix<T>& out, int64_t j0, int64_t m) {
  RANDLA_REQUIRE(Y.rows == d && Y.cols == out.cols && j0 >= 0 && j0 + out.rows <= m, "shapes do not match");
}

}  // namespace randla
