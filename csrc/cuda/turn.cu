// A column-major matrix into a row-major one. Moves each byte once each way; a block owns a tile of 32 x 32, a thread four of
// its elements, and shared memory lets both sides touch 32 neighbours at a time. One column more than the tile has keeps the
// threads of a warp in different banks.

#include "cuda/sketch.h"

namespace randla::cuda {
namespace {

template <class T>
struct Turn {
  static constexpr int kThreads = 256, kPhases = 2, kTile = 32, kRows = kThreads / kTile;
  struct State {};

  Matrix<const T> A;
  T* to;
  int64_t tiles;  // down a column

  static constexpr size_t shared_bytes() { return kTile * (kTile + 1) * sizeof(T); }
  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    T* const tile = reinterpret_cast<T*>(lane.shared);
    const int64_t i0 = lane.x % tiles * kTile, c0 = lane.x / tiles * kTile;
    const int near = lane.thread % kTile;
#pragma unroll
    for (int far = lane.thread / kTile; far < kTile; far += kRows) {
      if constexpr (P == 0) {
        if (i0 + near < A.rows && c0 + far < A.cols)
          tile[near * (kTile + 1) + far] = A.data[i0 + near + (c0 + far) * A.col_stride];
      } else {
        if (i0 + far < A.rows && c0 + near < A.cols) to[(i0 + far) * A.cols + c0 + near] = tile[far * (kTile + 1) + near];
      }
    }
  }
};

}  // namespace

template <class T>
int64_t strip_columns(Matrix<const T> A) {
  if (A.row_stride != 1 || A.col_stride == 1) return 0;
  const int64_t fit = kStripBytes / (A.rows * static_cast<int64_t>(sizeof(T)) + 1) / Turn<T>::kTile * Turn<T>::kTile;
  const int64_t width = fit > 0 ? fit : Turn<T>::kTile;
  return width < A.cols ? width : A.cols;
}

template <class T>
void turn(Matrix<const T> A, T* to, Stream stream) {
  const int64_t tiles = divided_up(A.rows, Turn<T>::kTile);
  launch(Turn<T>{A, to, tiles}, {tiles * divided_up(A.cols, Turn<T>::kTile), 1, Turn<T>::shared_bytes()}, stream);
}

template int64_t strip_columns<float>(Matrix<const float>);
template int64_t strip_columns<double>(Matrix<const double>);
template void turn<float>(Matrix<const float>, float*, Stream);
template void turn<double>(Matrix<const double>, double*, Stream);

}  // namespace randla::cuda
