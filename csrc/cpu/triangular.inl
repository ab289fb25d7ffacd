// Products and solves with one upper triangular factor and a few vectors, between two passes over A. BLAS would do, but its
// threads, woken for each of these small calls, wait busily for more and take the processors from the pass that follows.

namespace randla::cpu {
namespace {

template <class T>
inline __attribute__((always_inline)) T column_dot(const T* a, const T* x, int64_t count) {
  constexpr int L = kLanes<T>;
  Lanes<T> even = {}, odd = {};
  int64_t i = 0;
  for (; i + 2 * L <= count; i += 2 * L) {
    even += load(a + i) * load(x + i);
    odd += load(a + i + L) * load(x + i + L);
  }
  even += odd;
  T total = 0;
  for (int l = 0; l < L; ++l) total += even[l];
  for (; i < count; ++i) total += a[i] * x[i];
  return total;
}

// z <- R^-T z for the leading n x n part of R.
template <class T>
inline void solve_transposed(const T* R, int64_t n, int64_t ld, T* z) {
  for (int64_t j = 0; j < n; ++j) z[j] = (z[j] - column_dot(R + j * ld, z, j)) / R[j * ld + j];
}

// Replaces the upper triangle of A, column-major, by R with R'R = A; false where A is not positive definite.
template <class T>
bool cholesky(T* A, int64_t n, int64_t ld) {
  for (int64_t j = 0; j < n; ++j) {
    T* column = A + j * ld;
    solve_transposed(A, j, ld, column);
    const T left = column[j] - column_dot(column, column, j);
    if (!(left > 0)) return false;
    column[j] = std::sqrt(left);
  }
  return true;
}

// Replaces each of the k rows z of Z (n long) by R^-1 z, R^-T z, R z or R'z. R is column-major with leading dimension ld.
template <class T>
void triangular(TriangularOp op, const T* R, int64_t n, int64_t ld, T* Z, int64_t k) {
  parallel_for(k, [&](int64_t c) {
    T* z = Z + c * n;
    switch (op) {
      case TriangularOp::kSolve:
        for (int64_t j = n - 1; j >= 0; --j) {
          z[j] /= R[j * ld + j];
          add_scaled(z, R + j * ld, -z[j], j);
        }
        break;
      case TriangularOp::kSolveTransposed:
        solve_transposed(R, n, ld, z);
        break;
      case TriangularOp::kMultiply:
        for (int64_t j = 0; j < n; ++j) {
          const T factor = z[j];
          z[j] *= R[j * ld + j];
          add_scaled(z, R + j * ld, factor, j);
        }
        break;
      case TriangularOp::kMultiplyTransposed:
        for (int64_t j = n - 1; j >= 0; --j) z[j] = column_dot(R + j * ld, z, j + 1);
        break;
    }
  });
}

}  // namespace
}  // namespace randla::cpu
