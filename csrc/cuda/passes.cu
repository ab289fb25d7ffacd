// Residuals, products and their likes as passes over the rows of a dense matrix: what is asked of csrc/cpu/kernels.h becomes a rule
// for margins, and a matrix that no kernel can take at once is read twice.

#include "cuda/passes.h"

#include "cuda/margin_pass.h"

namespace randla::cuda {
namespace {

// Columns are contiguous and too many for a tile: they are taken in panels, for the margins and again for A' t.
template <class T, class V>
bool wide(const Matrix<const T>& A, const RowChoice& rows) {
  return in_columns(A, rows) && A.cols > kLongestTile<T, V>;
}

// Calls panel(part of A, first column) for parts that a pass can take.
template <class T, class F>
void over_panels(const Matrix<const T>& A, int64_t widest, const F& panel) {
  const int64_t step = widest > 0 ? widest : 1;
  for (int64_t j = 0; j == 0 || j < A.cols; j += step)
    panel(Matrix<const T>{A.data + j * A.col_stride, A.rows, A.cols - j < step ? A.cols - j : step, A.row_stride, A.col_stride}, j);
}

// u = A x, multipliers u -> u, g = A' u.
template <class T, class V, class Multiply>
void read_twice(const Matrix<const T>& A, const RowChoice& rows, const Margins<V>& m, const V* x, V* g, V* u, double* partial,
                Stream stream, const Multiply& multiply) {
  const bool panels = wide<T, V>(A, rows);
  const int64_t widest = panels ? kLongestTile<T, V> : A.cols;
  for (int64_t q = 0; q < m.k; q += panels ? 1 : m.k) {
    const int64_t k = panels ? 1 : m.k;
    V* const mine = u + q * m.count;
    over_panels(A, widest, [&](const Matrix<const T>& part, int64_t j) {
      const Margins<V> sum{j == 0 ? Rule::kProduct : Rule::kAdd, k, m.count, j == 0 ? nullptr : mine, nullptr, mine, nullptr,
                           nullptr};
      row_pass<T, V>(part, rows, sum, x ? x + q * A.cols + j : nullptr, nullptr, nullptr, partial, stream);
    });
  }
  multiply();
  if (!g) return;
  for (int64_t q = 0; q < m.k; q += panels ? 1 : m.k) {
    const int64_t k = panels ? 1 : m.k;
    over_panels(A, widest, [&](const Matrix<const T>& part, int64_t j) {
      const Margins<V> given{Rule::kProduct, k, m.count, u + q * m.count, nullptr, nullptr, nullptr, nullptr};
      row_pass<T, V>(part, rows, given, nullptr, g + q * A.cols + j, nullptr, partial, stream);
    });
  }
}

template <class T, class V>
void linear_pass(const Matrix<const T>& A, const RowChoice& rows, const Margins<V>& m, const V* x, V* g, double* sums,
                 double* memory, Stream stream) {
  if (!wide<T, V>(A, rows)) return row_pass<T, V>(A, rows, m, x, g, sums, memory, stream);
  V* const u = reinterpret_cast<V*>(memory);
  double* const partial = memory + m.k * m.count;
  read_twice(A, rows, m, x, g, u, partial, stream, [&] {
    for (int64_t q = 0; q < m.k; q += EachMargin<V>::kSums) {
      const int64_t k = m.k - q < EachMargin<V>::kSums ? m.k - q : EachMargin<V>::kSums;
      sum_over(EachMargin<V>{some_of(m, q, k), u + q * m.count}, m.count, static_cast<int>(k), sums ? sums + q : nullptr, partial,
               stream);
    }
  });
}

template <class T>
void joint_pass(const Matrix<const T>& A, const RowChoice& rows, const Margins<double>& m, const double* x, double* g, double* sums,
                double* memory, Stream stream) {
  if (takes_jointly(A, rows, m.k)) return row_pass<T, double>(A, rows, m, x, g, sums, memory, stream);
  double* const partial = memory + m.k * m.count;
  read_twice(A, rows, m, x, g, memory, partial, stream,
             [&] { sum_over(JointMargins{m, memory, memory}, m.count, 1, sums, partial, stream); });
}

}  // namespace

int64_t pass_memory(int64_t count, int64_t n, int64_t k) {
  // Blocks times vectors: of rows in registers, of long ones, of few; and those of panels.
  const int64_t together = k < kVectors ? k : kVectors, short_rows = most_blocks(1) * (k > 1 ? 2 : 1);
  const int64_t most = n <= kLongestRow ? short_rows : kFewBlocks * together, few = divided_up(count, 2) * together;
  const int64_t partial = (most < few ? most : few) * (n + 1), panels = n > kLongestRow ? most_blocks(1) * (kLongestRow + 1) : 0;
  return k * count + 8 * margin_blocks(count).count + (partial > panels ? partial : panels);
}

template <class T, class V>
void residual(Matrix<const T> A, int64_t k, const V* x, const V* b, const V* w, V* r, V* g, double* squares, double* memory,
              Stream stream) {
  linear_pass<T, V>(A, {nullptr, A.rows}, {Rule::kResidual, k, A.rows, b, w, r, nullptr, nullptr}, x, g, squares, memory, stream);
}

template <class T>
void weighted_product(Matrix<const T> A, const RowChoice& rows, int64_t k, const double* x, const double* c, const double* d,
                      double* u, double* g, double* memory, Stream stream) {
  linear_pass<T, double>(A, rows, {Rule::kProduct, k, rows.count, c, d, u, nullptr, nullptr}, x, g, nullptr, memory, stream);
}

template <class T>
void softmax_product(Matrix<const T> A, const RowChoice& rows, int64_t k, const double* x, const double* p, const double* w,
                     double* g, double* memory, Stream stream) {
  joint_pass<T>(A, rows, {Rule::kSoftmaxProduct, k, rows.count, p, w, nullptr, nullptr, nullptr}, x, g, nullptr, memory, stream);
}

template <class T>
void glm(Matrix<const T> A, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c, double* d,
         double* g, double* total, double* memory, Stream stream) {
  const Margins<double> m = margins_of(loss, k, rows.count, z, c, d);
  if (m.joint()) return joint_pass<T>(A, rows, m, x, g, total, memory, stream);
  if (!in_columns(A, rows) || A.cols <= kLongestLossRow) return loss_pass<T>(A, rows, m, x, g, total, memory, stream);
  double* const partial = memory + m.count;
  read_twice(A, rows, m, x, g, memory, partial, stream,
             [&] { sum_over(LossOfMargins{m, memory, memory}, m.count, 1, total, partial, stream); });
}

void loss_terms(const Loss& loss, int64_t k, int64_t count, const double* z, double* c, double* d, double* total, double* memory,
                Stream stream) {
  const Margins<double> m = margins_of(loss, k, count, nullptr, nullptr, d);
  if (m.joint())
    sum_over(JointMargins{m, z, c}, count, 1, total, memory, stream);
  else
    sum_over(LossOfMargins{m, z, c}, count, 1, total, memory, stream);
}

void loss_difference(const Loss& loss, int64_t k, int64_t count, const double* z, const double* u, double* sums, double* memory,
                     Stream stream) {
  sum_over(ChangeOfLoss{margins_of(loss, k, count, nullptr, nullptr, nullptr), z, u}, count, 2, sums, memory, stream);
}

#define RANDLA_PASSES(T)                                                                                                           \
  template void residual<T, double>(Matrix<const T>, int64_t, const double*, const double*, const double*, double*, double*,       \
                                    double*, double*, Stream);                                                                     \
  template void weighted_product<T>(Matrix<const T>, const RowChoice&, int64_t, const double*, const double*, const double*,       \
                                    double*, double*, double*, Stream);                                                            \
  template void softmax_product<T>(Matrix<const T>, const RowChoice&, int64_t, const double*, const double*, const double*,        \
                                   double*, double*, Stream);                                                                      \
  template void glm<T>(Matrix<const T>, const RowChoice&, const Loss&, int64_t, const double*, double*, double*, double*, double*, \
                       double*, double*, Stream)
RANDLA_PASSES(float);
RANDLA_PASSES(double);
#undef RANDLA_PASSES
template void residual<float, float>(Matrix<const float>, int64_t, const float*, const float*, const float*, float*, float*,
                                     double*, double*, Stream);

}  // namespace randla::cuda
