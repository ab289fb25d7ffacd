// The only list of CPU kernels: one table of function pointers per element type and instruction set.
#pragma once

#include <cstdint>

#include "common/butterfly.h"
#include "common/families.h"
#include "common/loss.h"
#include "common/matrix.h"

namespace randla::cpu {

// k(x, y) = exp(-gamma |x - y|^2), or exp(-gamma |x - y|_1), of points multiplied by `scale`. With a centre, which the first kind may
// have, distances come from inner products of the points less it.
struct PointKernel {
  enum Kind : int { kGaussian = 0, kLaplacian = 1 } kind;
  double gamma, scale;
  const double* centre;  // (d) or null
};

enum class TriangularOp : int { kSolve = 0, kSolveTransposed = 1, kMultiply = 2, kMultiplyTransposed = 3 };

template <class T>
struct Kernels {
  // out = S[i0 : i0 + rows, j0 : j0 + cols]. out has unit column stride.
  void (*dense_sketch)(const DenseSketch& s, Matrix<T> out, int64_t i0, int64_t j0);
  // out += S[:, j0 : j0 + A.rows] A and out = S[:, j0 : j0 + out.rows]' Y (out zero on entry). out has unit column stride.
  void (*dense_product)(const DenseSketch& s, Matrix<const T> A, int64_t j0, Matrix<T> out);
  void (*dense_product_adjoint)(const DenseSketch& s, Matrix<const T> Y, int64_t j0, Matrix<T> out);

  // out += S[:, j0 : j0 + A.rows] A. out has unit column stride.
  void (*sparse_sketch)(const SparseSketch& s, Matrix<const T> A, int64_t j0, Matrix<T> out);
  void (*sparse_sketch_csr)(const SparseSketch& s, Csr<T> A, int64_t j0, Matrix<T> out);
  // out = S[:, j0 : j0 + out.rows]' Y.
  void (*sparse_sketch_adjoint)(const SparseSketch& s, Matrix<const T> Y, int64_t j0, Matrix<T> out);

  // out += the rows of output blocks k0..k1-1 of S[:, j0 : j0 + A.rows] A. out has unit column stride.
  void (*block_srht)(const BlockSrht& s, Matrix<const T> A, int64_t j0, int64_t k0, int64_t k1, Matrix<T> out);
  // out = S[:, j0 : j0 + out.rows]' Y, out zero on entry. Both have unit column stride.
  void (*block_srht_adjoint)(const BlockSrht& s, Matrix<const T> Y, int64_t j0, Matrix<T> out);

  // out += S[:, j0 : j0 + A.rows] A and out = S[:, j0 : j0 + out.rows]' Y; kept lists the s.d rows of the transform that S keeps.
  void (*srtt)(const Srtt& s, const int64_t* kept, Matrix<const T> A, int64_t j0, Matrix<T> out);
  void (*srtt_adjoint)(const Srtt& s, const int64_t* kept, Matrix<const T> Y, int64_t j0, Matrix<T> out);

  // out += S A for a sketch given by its entries. out has unit column stride.
  void (*gather)(const EntryList& s, Matrix<const T> A, Matrix<T> out);
  void (*gather_csr)(const EntryList& s, Csr<T> A, Matrix<T> out);

  // out = A X. out has unit column stride. For the second the values of A are pairs (re, im), and X and out have two real columns
  // for every complex one.
  void (*csr_product)(Csr<T> A, Matrix<const T> X, Matrix<T> out);
  void (*csr_product_complex)(Csr<T> A, Matrix<const T> X, Matrix<T> out);

  // to = scale * H along the middle axis of `from`, both (outer, n, inner) and contiguous; n is a power of two, to may be from.
  void (*fwht)(const T* from, T* to, int64_t outer, int64_t n, int64_t inner, double scale);

  // r = b - A x, g = A'(w r), returns in squares[k] the sums of w r^2 over each r; one read of A. x is (k, n), g is (k, n): one
  // contiguous row per right-hand side, as are r and b (k, m). b may be null (zero). w (m) may be null (ones) and may hold
  // negative values.
  void (*residual)(Matrix<const T> A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
                   double* squares);
  // The same for the real matrix of 2 n columns whose row i holds Re a, Im a of every entry a of row i in turn.
  void (*residual_complex)(Matrix<const Complex<T>> A, int64_t k, const double* x, const double* b, const double* w, double* r,
                           double* g, double* squares);
  void (*residual_csr)(Csr<T> A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
                       double* squares);

  // Returns sum w f over the rows taken, of margins z = A x; with c = w f' and d = w f'' (k, count), and g = A' c. Of z, c, d, g
  // those that are null are not made; the softmax loss has k classes and needs d, which becomes the probabilities (k, count).
  double (*glm)(Matrix<const T> A, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c,
                double* d, double* g);
  double (*glm_csr)(Csr<T> A, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c, double* d,
                    double* g);
  // u = A x (k, count) and g = A' (d u) (k, n); where x is null, g = A' (d c). d (count) is of any sign, or null (ones); u and g
  // may be null.
  void (*weighted_product)(Matrix<const T> A, const RowChoice& rows, int64_t k, const double* x, const double* c, const double* d,
                           double* u, double* g);
  void (*weighted_product_csr)(Csr<T> A, const RowChoice& rows, int64_t k, const double* x, const double* c, const double* d,
                               double* u, double* g);
  // g = A' t, t_c = w p_c (u_c - sum p u), u = A x: the Hessian of the softmax loss with probabilities p (k, count).
  void (*softmax_product)(Matrix<const T> A, const RowChoice& rows, int64_t k, const double* x, const double* p, const double* w,
                          double* g);
  void (*softmax_product_csr)(Csr<T> A, const RowChoice& rows, int64_t k, const double* x, const double* p, const double* w,
                              double* g);
  // G += A' diag(d) A over the rows taken, (n, n).
  void (*weighted_gram_csr)(Csr<T> A, const RowChoice& rows, const double* d, double* G);

  // out[i] = ||y_i||^2 for the image y of every row of A, computed in float64 or in float32 (single), added up in lanes.
  void (*row_norms)(Matrix<const T> A, const RowMap& map, double* out);
  void (*row_norms_single)(Matrix<const T> A, const RowMap& map, double* out);
  void (*row_norms_csr)(Csr<T> A, const RowMap& map, double* out);
  void (*row_norms_csr_single)(Csr<T> A, const RowMap& map, double* out);
  // G += sum weight y' y, (r, r), symmetric and contiguous.
  void (*gram)(Matrix<const T> A, const RowMap& map, double* G);
  void (*gram_csr)(Csr<T> A, const RowMap& map, double* G);

  // Y = K X for the stages of K in the order of their application; the columns of X and Y, of real numbers or of pairs (re, im),
  // are the batch. `rows`: the largest number of rows before or after a stage.
  using Stages = const ButterflyStage<T>*;
  void (*butterfly)(Stages stages, int64_t count, Matrix<const T> X, Matrix<T> Y, int64_t rows);
  void (*butterfly_pairs)(Stages stages, int64_t count, Matrix<const T> X, Matrix<T> Y, int64_t rows);
  // y = K x for contiguous vectors, with values reordered: stage q is applied with lanes along blocks[q] blocks, along d where this
  // is 0. scratch holds two vectors of `rows`. Reordered values of pairs take twice the memory.
  void (*butterfly_vector)(Stages stages, const int64_t* blocks, int64_t count, const T* x, T* y, T* scratch, int64_t rows);
  void (*butterfly_vector_pairs)(Stages stages, const int64_t* blocks, int64_t count, const T* x, T* y, T* scratch, int64_t rows);
  void (*lane_blocks)(Stages stages, int64_t count, int64_t* blocks);
  void (*order_for_lanes)(const ButterflyStage<T>& s, int64_t blocks, T* to);
  void (*order_for_lanes_pairs)(const ButterflyStage<T>& s, int64_t blocks, T* to);
  // dX = K^* G, and dw = the gradients G_s X_s^* of the values of all stages, one stage behind the other.
  void (*butterfly_gradient)(Stages stages, int64_t count, Matrix<const T> X, Matrix<const T> G, Matrix<T> dX, T* dw, int64_t rows,
                             int64_t parameters);
  void (*butterfly_gradient_pairs)(Stages stages, int64_t count, Matrix<const T> X, Matrix<const T> G, Matrix<T> dX, T* dw,
                                   int64_t rows, int64_t parameters);

  // out[i, j] = k(x_i, y_j) for the rows of X and Y. out has unit column stride.
  void (*kernel_columns)(const PointKernel& kernel, Matrix<const T> X, Matrix<const T> Y, Matrix<T> out);
  void (*kernel_columns_double)(const PointKernel& kernel, Matrix<const T> X, Matrix<const T> Y, Matrix<double> out);

  // H[k:] <- L^-1 (H[k:] - B H[:k]) for C = [B L] (m, k + m), L lower triangular; H (k + m, n) has unit column stride, and the
  // squares of the new rows are added to squares (n). For complex numbers H counts pairs, and C is (2m, 2k + 2m), with
  // [re -im; im re] for every entry.
  void (*eliminate)(Matrix<const T> C, Matrix<T> H, double* squares);
  void (*eliminate_complex)(Matrix<const T> C, Matrix<T> H, double* squares);
  // to (m, k) = A[:, order] R^-1 for C = R' (k, k), R upper triangular; to may be A where it is ordered already. Of complex numbers C
  // is as above, and strides count elements of T.
  void (*solve_right)(Matrix<const T> C, const int64_t* order, Matrix<const T> A, Matrix<T> to);
  void (*solve_right_complex)(Matrix<const T> C, const int64_t* order, Matrix<const T> A, Matrix<T> to);

  // out = A'R' (A.cols, k) for A with contiguous columns and R (k, A.rows).
  void (*column_dots)(Matrix<const T> A, const double* R, int64_t k, double* out);

  // Z = op(R) Z for k contiguous rows of Z, each n long; R is upper triangular, column-major.
  void (*triangular)(TriangularOp op, const T* R, int64_t n, int64_t ld, T* Z, int64_t k);
  // The upper triangle of A, column-major, becomes R with R'R = A; false where A is not positive definite.
  bool (*cholesky)(T* A, int64_t n, int64_t ld);

  // Left-to-right splits of `from` (a, b, c), contiguous, b a multiple of 2^levels: at level t the pairs of rows that lie
  // b / 2^(t+1) apart, cut into c1[t] chunks, become u v with u[t] (a c1[0] ... c1[t-1], 2, c1[t], b / 2^(t+1)) of norm one; `to` is
  // what is left, (a c1[0] ..., b / 2^levels, c / c1[0] ...), lost[t] the energy ||M - u v||^2 over all blocks of the level.
  void (*rank_one_split)(const T* from, int64_t a, int64_t b, int64_t c, int levels, const int64_t* c1, T* const* u, T* to,
                         double* lost);
  // The same for complex numbers, pairs of T in memory; sizes count complex numbers.
  void (*rank_one_split_complex)(const T* from, int64_t a, int64_t b, int64_t c, int levels, const int64_t* c1, T* const* u, T* to,
                                 double* lost);
};

struct Isa {
  const char* name;
  bool (*supported)();
  // Adds to bins (pieces, rows, cols) the pieces of x (rows, cols), cut where round (pieces, cols) says.
  void (*add_pieces)(const double* x, const double* round, double* bins, int64_t pieces, int64_t rows, int64_t cols);
  // Of margins z (k, count): sum w f, with c and d as `glm` has them (c may be z; d may be null but for the softmax loss); and
  // sums[0] = sum w (f(z + u) - f(z)) without cancellation, sums[1] = sum of its squares. For the softmax loss the latter
  // has the probabilities in the place of z.
  double (*loss_terms)(const Loss& loss, int64_t k, int64_t count, const double* z, double* c, double* d);
  void (*loss_difference)(const Loss& loss, int64_t k, int64_t count, const double* z, const double* u, double* sums);
  // Rows and columns first..n-1 of G = P P' (n, n) for contiguous rows P (n, m).
  void (*gram_rows)(const double* P, int64_t n, int64_t m, int64_t first, double* G, int64_t ld);
  // min x'Gx / 2 - c'x + sum lambda |x| from x and g = c - G x until the optimality conditions hold to tol, relative to lambda:
  // returns the rounds of coordinate descent, at most `limit`.
  int64_t (*lasso)(const double* G, int64_t n, int64_t ld, const double* lambda, bool positive, double tol, int64_t limit,
                   double* x, double* g, double* violation);
  // The path of min x'Gx / 2 - c'x + t sum weight |x| as t falls to `end`, from the beginning or, where start > 0, from the
  // signs at t = start: x at the end, its signs on the support, and u with G_SS u = weight sign. Returns the
  // pieces of the path, -1 where `limit` of them did not reach the end.
  int64_t (*l1_path)(const double* G, int64_t n, int64_t ld, const double* c, const double* weight, double start, double end,
                     bool positive, int64_t limit, double* x, double* sign, double* u);
  const Kernels<float>* f32;
  const Kernels<double>* f64;
};

// Chosen once, at import: the best supported instruction set, or the one named in RANDLA_ISA (throws if it cannot run here).
const Isa& isa();
// False past the end of the list; *name is null where the i-th instruction set cannot run here.
bool isa_supported(int i, const char** name);

extern const Isa kBaseline;
#if RANDLA_X86
extern const Isa kAvx2, kAvx512;
#endif

template <class T>
const Kernels<T>& kernels();

}  // namespace randla::cpu
