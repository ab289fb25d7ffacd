// Gaussian and Rademacher entries. Bytes to move: the result once. A thread makes what a word of Philox gives, down one column,
// so that neighbouring threads write neighbouring columns of each row.
//
// Gaussian: two rows from one call. Some 100 instructions in float64 for the two, more than half of a polynomial's separate
// products and sums, which the bits of the processor ask for: 64 lanes of float64 on a multiprocessor make 1.3 entries a clock,
// 3.3e11 a second on 132 of them at 1.9 GHz, beside which Philox (25 clocks of issue in the 50 for a warp) is hidden. float64
// is written at 2.6 TB/s that way, float32 at half of it; a product with more than 600 columns takes longer than that for its
// additions. Rademacher: 32 rows from one of the four words, whose bits become signs: six instructions for an entry, 85 bytes a
// clock in float32, five times what the memory takes. Each word costs a whole call, three instructions for an entry, and gives
// four times the threads.

#include "cuda/block.h"
#include "cuda/kernels.h"

namespace randla::cuda {
namespace {

template <class T, Dense family>
struct Fill {
  static constexpr int kThreads = 256, kPhases = 1;
  static constexpr int64_t kRows = family == Dense::kGaussian ? 2 : 32;
  struct State {};

  DenseSketch s;
  Matrix<T> out;
  int64_t i0, j0;
  double scale;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t j = lane.x * kThreads + lane.thread;
    if (j >= out.cols) return;
    const int64_t word = i0 / kRows + lane.y, first = word * kRows - i0;  // place in `out` of the first of these entries
    T* to = out.data + first * out.row_stride + j * out.col_stride;
    if constexpr (family == Dense::kGaussian) {
      const Words u = philox(static_cast<uint64_t>(j0 + j), static_cast<uint32_t>(word), kGaussian, s.seed);
      const double radius = sqrt(gaussian_square<double, uint64_t>(u.u0));
      const GaussianPair<double> pair = gaussian_pair<double, uint64_t>(radius, u.u1);
      if (first >= 0) to[0] = static_cast<T>(pair.first * scale);
      if (first + 1 < out.rows) to[out.row_stride] = static_cast<T>(pair.second * scale);
    } else {
      const Words u = philox(static_cast<uint64_t>(j0 + j), static_cast<uint32_t>(word / 4), kRademacher, s.seed);
      const uint64_t two = word % 4 < 2 ? u.u0 : u.u1;
      const uint32_t signs = static_cast<uint32_t>(word % 2 == 0 ? two : two >> 32);
      const T plus = static_cast<T>(scale);
      if (first >= 0 && first + kRows <= out.rows) {
#pragma unroll
        for (int b = 0; b < kRows; ++b, to += out.row_stride) *to = (signs >> b) & 1 ? -plus : plus;
      } else {
        for (int b = 0; b < kRows; ++b)
          if (first + b >= 0 && first + b < out.rows) to[b * out.row_stride] = (signs >> b) & 1 ? -plus : plus;
      }
    }
  }
};

template <class T, Dense family>
void fill(const DenseSketch& s, Matrix<T> out, int64_t i0, int64_t j0, Stream stream) {
  using K = Fill<T, family>;
  constexpr int64_t most = 65535;  // blocks along y
  const int64_t first = i0 / K::kRows, last = divided_up(i0 + out.rows, K::kRows);
  for (int64_t word = first; word < last; word += most) {
    const int64_t words = last - word < most ? last - word : most;
    const int64_t row0 = word * K::kRows > i0 ? word * K::kRows - i0 : 0;
    const int64_t end = (word + words) * K::kRows - i0;
    const Matrix<T> part{out.data + row0 * out.row_stride, (end < out.rows ? end : out.rows) - row0, out.cols, out.row_stride,
                         out.col_stride};
    launch(K{s, part, i0 + row0, j0, 1.0 / sqrt(static_cast<double>(s.d))}, {divided_up(out.cols, K::kThreads), words}, stream);
  }
}

}  // namespace

template <class T>
void dense_sketch(const DenseSketch& s, Matrix<T> out, int64_t i0, int64_t j0, Stream stream) {
  if (out.rows == 0 || out.cols == 0) return;
  if (s.family == Dense::kGaussian)
    fill<T, Dense::kGaussian>(s, out, i0, j0, stream);
  else
    fill<T, Dense::kRademacher>(s, out, i0, j0, stream);
}

template void dense_sketch<float>(const DenseSketch&, Matrix<float>, int64_t, int64_t, Stream);
template void dense_sketch<double>(const DenseSketch&, Matrix<double>, int64_t, int64_t, Stream);

}  // namespace randla::cuda
