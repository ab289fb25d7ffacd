// Passes over the rows of a dense matrix with any number of vectors: the kernels of row_pass.h and column_pass.h, chosen by shape.
#pragma once

#include "cuda/kernels.h"
#include "cuda/margins.h"

namespace randla::cuda {

constexpr int64_t kVectors = 8;         // of one pass, at most
constexpr int64_t kLongestRow = 2048;  // that stays in registers

// Columns lie contiguous and rows do not: such a matrix is taken in tiles, for one vector at a time. Not so for listed rows, whose
// numbers lie apart in any case.
template <class T, class V>
constexpr int64_t kLongestTile = sizeof(T) < sizeof(V) ? 1152 : 1536;  // sums of float64 take more registers than the numbers
template <class T>
bool in_columns(const Matrix<const T>& A, const RowChoice& rows) {
  return !rows.rows && A.cols > 1 && A.row_stride == 1 && A.col_stride != 1;
}
template <class T, class V>
bool by_columns(const Matrix<const T>& A, const RowChoice& rows) {
  return in_columns(A, rows) && A.cols <= kLongestTile<T, V>;
}

// Vectors q0 .. q0 + k - 1 of them.
template <class V>
Margins<V> some_of(const Margins<V>& m, int64_t q0, int64_t k) {
  Margins<V> part = m;
  part.k = k;
  if (m.given && !m.labels()) part.given += q0 * m.count;
  if (m.out) part.out += q0 * m.count;
  return part;
}

// The sums of A' t for eight rows of 2048 numbers would fill the registers of a multiprocessor.
template <class T, class V>
int64_t vectors_at_once(const Matrix<const T>& A, const RowChoice& rows) {
  return by_columns<T, V>(A, rows) ? 1 : A.col_stride == 1 && A.cols > 1024 && A.cols <= kLongestRow ? 4 : kVectors;
}

template <class T>
bool takes_jointly(const Matrix<const T>& A, const RowChoice& rows, int64_t k) {
  return !in_columns(A, rows) && (k <= 4 || (k <= kVectors && A.cols <= 1024 && A.col_stride == 1));
}

inline Margins<double> margins_of(const Loss& loss, int64_t k, int64_t count, double* z, double* c, double* d) {
  return {loss.id == LossId::kSoftmax ? Rule::kSoftmax : Rule::kLoss, k, count, loss.y, loss.w, z, c, d, loss.id, loss.parameter};
}

// m.k vectors x (k, n) or null, g (k, n) or null, sums (k) or null. partial has room for pass_memory(...) numbers. Vectors beyond
// vectors_at_once need another read of A; a joint rule must have as many as `takes_jointly` allows.
template <class T, class V>
void row_pass(Matrix<const T> A, const RowChoice& rows, const Margins<V>& m, const V* x, V* g, double* sums, double* partial,
              Stream stream);

// The same for a rule of losses: k = 1, and of a matrix by columns at most kLongestLossRow, for the loss needs registers too.
constexpr int64_t kLongestLossRow = 384;
template <class T>
void loss_pass(Matrix<const T> A, const RowChoice& rows, const Margins<double>& m, const double* x, double* g, double* sums,
               double* partial, Stream stream);

}  // namespace randla::cuda
