// The only list of CUDA kernels: plain functions, each of which puts its work on a stream and returns. Names and meanings are
// those of csrc/cpu/kernels.h; pointers are of the device.
#pragma once

#include <cstdint>

#include "common/families.h"
#include "common/loss.h"
#include "common/matrix.h"

namespace randla::cuda {

using Stream = uintptr_t;

// out = S[i0 : i0 + out.rows, j0 : j0 + out.cols].
template <class T>
void dense_sketch(const DenseSketch& s, Matrix<T> out, int64_t i0, int64_t j0, Stream stream);

// out += S[:, j0 : j0 + A.rows] A. `tables` is of block_srht_table_bytes, sums for block_srht_sums numbers.
int64_t block_srht_table_bytes(const BlockSrht& s, int64_t j0, int64_t rows);
template <class T>
int64_t block_srht_sums(const BlockSrht& s, Matrix<const T> A, int64_t j0);
template <class T>
void block_srht(const BlockSrht& s, Matrix<const T> A, int64_t j0, void* tables, T* sums, Matrix<T> out, Stream stream);
// out = S[:, j0 : j0 + out.rows]' Y.
template <class T>
void block_srht_adjoint(const BlockSrht& s, Matrix<const T> Y, int64_t j0, void* tables, Matrix<T> out, Stream stream);

// Columns to be turned at a time, 0 for any but a column-major matrix.
template <class T>
int64_t strip_columns(Matrix<const T> A);

// Entries of a sparse sketch by rows of S: those of row i are start[i] .. start[i + 1] - 1, in ascending order of columns, each
// 2 (column - j0) + sign bit.
struct SortedEntries {
  int64_t* start;
  uint32_t* entries;
};

// The entries of columns j0 .. j0 + count - 1, fewer than 2^31 of them. `memory` is of sort_entries_bytes.
int64_t sort_entries_bytes(const SparseSketch& s, int64_t count);
void sort_entries(const SparseSketch& s, int64_t j0, int64_t count, SortedEntries to, void* memory, Stream stream);
// out += S A for the columns of S whose entries have been sorted. strip is for the columns of a column-major A to be turned in.
template <class T>
void sorted_sketch(const SparseSketch& s, SortedEntries entries, Matrix<const T> A, T* strip, Matrix<T> out, Stream stream);
// The columns of a row of A must be distinct.
template <class T>
void sorted_sketch_csr(const SparseSketch& s, SortedEntries entries, Csr<T> A, Matrix<T> out, Stream stream);

// The same by windows of columns, for a dense matrix that is then read once for all its entries: those of row i of window w are
// start[w window_stride + i] .. start[w window_stride + i + 1] - 1 behind entry w window count, in ascending order of columns, each
// 2 (column within the window) + sign bit. Memory for the entries of whole windows.
struct WindowEntries {
  uint16_t *start, *entries;
};

// An offset among the entries of a window takes 16 bits.
constexpr int64_t kWindowEntries = 8192, kLongestWindow = 1024;
inline bool can_be_window(const SparseSketch& s, int64_t columns) {
  return columns > 0 && columns % 8 == 0 && columns <= kLongestWindow && columns * s.count() <= kWindowEntries;
}
int64_t window_stride(const SparseSketch& s);
// Columns of a window that is right for A, 0 where its rows are better taken by rows of S. The device decides, not the numbers.
template <class T>
int64_t window_rows(const SparseSketch& s, Matrix<const T> A);
template <class T>
bool takes_window(const SparseSketch& s, Matrix<const T> A, int64_t window);
int64_t sort_windows_bytes(const SparseSketch& s, int64_t count, int64_t window);
void sort_windows(const SparseSketch& s, int64_t j0, int64_t count, int64_t window, WindowEntries to, void* memory, Stream stream);
template <class T>
void window_sketch(const SparseSketch& s, int64_t window, WindowEntries entries, Matrix<const T> A, T* strip, Matrix<T> out,
                   Stream stream);

template <class T>
void sparse_sketch_adjoint(const SparseSketch& s, Matrix<const T> Y, int64_t j0, Matrix<T> out, Stream stream);

// out += S A for a sketch given by its entries; for the second the columns of a row of A must be distinct.
template <class T>
void gather(const EntryList& s, Matrix<const T> A, Matrix<T> out, Stream stream);
template <class T>
void gather_csr(const EntryList& s, Csr<T> A, Matrix<T> out, Stream stream);

// out = A X; rows of out are contiguous.
template <class T>
void csr_product(Csr<T> A, Matrix<const T> X, Matrix<T> out, Stream stream);

// to = scale * H along the middle axis of `from`, both (outer, n, inner) and contiguous; n is a power of two, to may be from.
template <class T>
void fwht(const T* from, T* to, int64_t outer, int64_t n, int64_t inner, double scale, Stream stream);

// out += S[:, j0 : j0 + A.rows] A and out = S[:, j0 : j0 + out.rows]' Y; kept lists the s.d rows of the transform that S keeps.
// `work` holds srtt_work numbers of T for as many columns, signs srtt_sign_words.
template <class T>
int64_t srtt_work(const Srtt& s, int64_t cols);
int64_t srtt_sign_words(const Srtt& s);
template <class T>
void srtt(const Srtt& s, const int64_t* kept, Matrix<const T> A, int64_t j0, T* work, uint64_t* signs, Matrix<T> out,
          Stream stream);
template <class T>
void srtt_adjoint(const Srtt& s, const int64_t* kept, Matrix<const T> Y, int64_t j0, T* work, uint64_t* signs, Matrix<T> out,
                  Stream stream);

// The passes over rows, as in csrc/cpu/kernels.h; sums go to memory of the device, squares (k), total (1) or sums (2), null where
// they are not wanted. `memory` has pass_memory(rows taken, columns, k) numbers, without columns for loss_terms and
// loss_difference. Every sum has an order of its own, the same on every device; sums of products are fused.
int64_t pass_memory(int64_t count, int64_t n, int64_t k);
// V is float64, or float32 for all vectors of a float32 matrix.
template <class T, class V>
void residual(Matrix<const T> A, int64_t k, const V* x, const V* b, const V* w, V* r, V* g, double* squares, double* memory,
              Stream stream);
template <class T>
void weighted_product(Matrix<const T> A, const RowChoice& rows, int64_t k, const double* x, const double* c, const double* d,
                      double* u, double* g, double* memory, Stream stream);
template <class T>
void softmax_product(Matrix<const T> A, const RowChoice& rows, int64_t k, const double* x, const double* p, const double* w,
                     double* g, double* memory, Stream stream);
template <class T>
void glm(Matrix<const T> A, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c, double* d,
         double* g, double* total, double* memory, Stream stream);
void loss_terms(const Loss& loss, int64_t k, int64_t count, const double* z, double* c, double* d, double* total, double* memory,
                Stream stream);
void loss_difference(const Loss& loss, int64_t k, int64_t count, const double* z, const double* u, double* sums, double* memory,
                     Stream stream);

// A and its transpose, each by rows.
template <class T>
struct CsrPair {
  Csr<T> rows, columns;
  int64_t entries;
};

// The same for sparse matrices. Listed rows ascend where A' t is wanted.
int64_t csr_pass_memory(int64_t m, int64_t entries, int64_t count, bool listed, int64_t k);
template <class T>
void residual_csr(const CsrPair<T>& A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
                  double* squares, double* memory, Stream stream);
template <class T>
void weighted_product_csr(const CsrPair<T>& A, const RowChoice& rows, int64_t k, const double* x, const double* c, const double* d,
                          double* u, double* g, double* memory, Stream stream);
template <class T>
void softmax_product_csr(const CsrPair<T>& A, const RowChoice& rows, int64_t k, const double* x, const double* p, const double* w,
                         double* g, double* memory, Stream stream);
template <class T>
void glm_csr(const CsrPair<T>& A, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c,
             double* d, double* g, double* total, double* memory, Stream stream);

// out[i] = || root_i y_i diag(scale) ||^2; scale (n) and roots (m) may be null.
template <class T>
void row_squares(Matrix<const T> Y, const double* scale, const double* roots, double* out, Stream stream);

// out[i] is the uniform number of the word U0 of philox(lo(first + i), hi(first + i), sub, numbers), a multiple of 2^-53 in [0, 1).
void uniform(int64_t first, uint32_t sub, uint32_t numbers, uint64_t seed, int64_t count, double* out, Stream stream);

// Y = K X for a chain of Kronecker-sparse matrices of real numbers or of pairs; X and Y are apart, `work` holds butterfly_work numbers.
template <class T>
struct ButterflyChain;  // butterfly.h
template <class T, bool Pairs>
int64_t butterfly_work(const ButterflyChain<T>& chain, int64_t batch);
template <class T, bool Pairs>
void butterfly(const ButterflyChain<T>& chain, Matrix<const T> X, Matrix<T> Y, T* work, Stream stream);
// dX = K^H G and dw, the gradients of the numbers of all stages, (a, d, b, c) and one stage behind the other.
template <class T, bool Pairs>
int64_t butterfly_gradient_work(const ButterflyChain<T>& chain, int64_t batch);
template <class T, bool Pairs>
void butterfly_gradient(const ButterflyChain<T>& chain, const ButterflyChain<T>& adjoint, Matrix<const T> X, Matrix<const T> G,
                        Matrix<T> dX, T* dw, T* work, Stream stream);

}  // namespace randla::cuda
