// Squared norms of rows: the last step of ||a_i T||^2, whose product is a matrix product of the array library. To fuse the two
// would save writing and reading the product, n r / d numbers for each of A, but would give up the tensor cores: already for
// r = 32 columns the products of float32 numbers are all that the other units can do while A is read.
//
// Bytes: the product once. In C order a group of threads adds a row, packs of 16 bytes for each; in Fortran order a thread adds a
// pack of rows, column after column.

#include "cuda/kernels.h"
#include "cuda/rows.h"

namespace randla::cuda {
namespace {

template <class T>
RANDLA_HD double entry(T value, const double* scale, int64_t j, double root) {
  return static_cast<double>(value) * (scale ? scale[j] : 1.0) * root;
}

template <class T, int G>
struct SquaresOfRows {
  static constexpr int kThreads = 256, kTeam = G, kPhases = 2, L = kPack<T>;
  static constexpr int dealt(int phase) { return phase == 0 ? 1 : 0; }
  struct State {
    double sum[1];
  };

  Matrix<const T> Y;
  const double *scale, *roots;
  double* out;
  bool packed;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step) const {
    const int64_t i = lane.x * (kThreads / G) + lane.thread / G;
    const int l = lane.thread % G;
    if constexpr (P == 0) {
      state.sum[0] = 0;
      if (i >= Y.rows) return;
      const double root = roots ? roots[i] : 1.0;
      const T* const from = Y.data + i * Y.row_stride;
      if (packed) {
#pragma unroll 4
        for (int64_t j = l * L; j < Y.cols; j += G * L) {
          T a[L];
          load_pack(from + j, a);
#pragma unroll
          for (int e = 0; e < L; ++e) {
            const double y = entry(a[e], scale, j + e, root);
            state.sum[0] = fused(y, y, state.sum[0]);
          }
        }
      } else {
#pragma unroll 4
        for (int64_t j = l; j < Y.cols; j += G) {
          const double y = entry(from[j * Y.col_stride], scale, j, root);
          state.sum[0] = fused(y, y, state.sum[0]);
        }
      }
    } else if (l == 0 && i < Y.rows) {
      out[i] = dealt_sum<SquaresOfRows>(lane, 0);
    }
  }
};

template <class T>
struct SquaresByColumns {
  static constexpr int kThreads = 256, kPhases = 1, L = kPack<T>;
  struct State {};

  Matrix<const T> Y;
  const double *scale, *roots;
  double* out;
  bool packed;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i0 = (lane.x * kThreads + lane.thread) * L;
    if (i0 >= Y.rows) return;
    double sum[L], root[L];
    const bool whole = packed && i0 + L <= Y.rows;
#pragma unroll
    for (int e = 0; e < L; ++e) {
      sum[e] = 0;
      root[e] = roots && i0 + e < Y.rows ? roots[i0 + e] : 1.0;
    }
#pragma unroll 4
    for (int64_t j = 0; j < Y.cols; ++j) {
      const T* const from = Y.data + i0 + j * Y.col_stride;
      T a[L];
      if (whole) {
        load_pack(from, a);
      } else {
#pragma unroll
        for (int e = 0; e < L; ++e) a[e] = i0 + e < Y.rows ? from[e] : T(0);
      }
#pragma unroll
      for (int e = 0; e < L; ++e) {
        const double y = entry(a[e], scale, j, root[e]);
        sum[e] = fused(y, y, sum[e]);
      }
    }
#pragma unroll
    for (int e = 0; e < L; ++e)
      if (i0 + e < Y.rows) out[i0 + e] = sum[e];
  }
};

}  // namespace

template <class T>
void row_squares(Matrix<const T> Y, const double* scale, const double* roots, double* out, Stream stream) {
  if (Y.row_stride == 1 && Y.col_stride != 1) {
    using K = SquaresByColumns<T>;
    const bool packed = reinterpret_cast<uintptr_t>(Y.data) % 16 == 0 && Y.col_stride % K::L == 0;
    return launch(K{Y, scale, roots, out, packed}, {divided_up(Y.rows, K::kThreads * K::L)}, stream);
  }
  const bool packed = Y.col_stride == 1 && in_packs(Y);
  if (Y.cols <= 64)
    launch(SquaresOfRows<T, 8>{Y, scale, roots, out, packed}, {divided_up(Y.rows, 256 / 8)}, stream);
  else
    launch(SquaresOfRows<T, 32>{Y, scale, roots, out, packed}, {divided_up(Y.rows, 256 / 32)}, stream);
}

template void row_squares<float>(Matrix<const float>, const double*, const double*, double*, Stream);
template void row_squares<double>(Matrix<const double>, const double*, const double*, double*, Stream);

}  // namespace randla::cuda
