// Inner products of contiguous vectors, and the Cholesky factor made from them. A product is the sum of those of pieces of fixed
// length, each added up in lanes: the same bits for any tile, number of threads and instruction set.

namespace randla::cpu {
namespace {

constexpr int64_t kDotDepth = 1024;  // of a piece: a block of vectors that long stays in the second cache
constexpr int64_t kDotBlock = 64;    // vectors of a block

// out[r][c] += p_r . q_c over n elements.
template <int R, int C, class T>
inline __attribute__((always_inline)) void dot_tile(const T* p, int64_t ldp, const double* q, int64_t ldq, int64_t n, double* out,
                                                    int64_t ldo) {
  Lanes<double> s[R][C] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    Lanes<double> a[R];
    for (int r = 0; r < R; ++r) a[r] = load_doubles(p + r * ldp + i);
    for (int c = 0; c < C; ++c) {
      const Lanes<double> b = load(q + c * ldq + i);
      for (int r = 0; r < R; ++r) s[r][c] += a[r] * b;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) {
      double total = sum(s[r][c]);
      for (int64_t t = i; t < n; ++t) total += double(p[r * ldp + t]) * q[c * ldq + t];
      out[r * ldo + c] += total;
    }
}

// The same for any number of vectors p and q.
template <class T>
void add_dots(const T* p, int64_t rows, int64_t ldp, const double* q, int64_t cols, int64_t ldq, int64_t n, double* out,
              int64_t ldo) {
  constexpr int S = kNativeBytes == 64 ? 4 : kNativeBytes == 32 ? 2 : 1;  // as many as the registers hold
  int64_t r = 0;
  for (; r + S <= rows; r += S) {
    int64_t c = 0;
    for (; c + S <= cols; c += S) dot_tile<S, S>(p + r * ldp, ldp, q + c * ldq, ldq, n, out + r * ldo + c, ldo);
    for (; c < cols; ++c) dot_tile<S, 1>(p + r * ldp, ldp, q + c * ldq, ldq, n, out + r * ldo + c, ldo);
  }
  for (; r < rows; ++r) {
    int64_t c = 0;
    for (; c + S <= cols; c += S) dot_tile<1, S>(p + r * ldp, ldp, q + c * ldq, ldq, n, out + r * ldo + c, ldo);
    for (; c < cols; ++c) dot_tile<1, 1>(p + r * ldp, ldp, q + c * ldq, ldq, n, out + r * ldo + c, ldo);
  }
}

// out = A'R' for A whose columns are contiguous: out (A.cols, k), R (k, A.rows).
template <class T>
void column_dots(Matrix<const T> A, const double* R, int64_t k, double* out) {
  parallel_for((A.cols + kDotBlock - 1) / kDotBlock, [&](int64_t piece) {
    const int64_t j = piece * kDotBlock, cols = j + kDotBlock < A.cols ? kDotBlock : A.cols - j;
    double* to = out + j * k;
    for (int64_t t = 0; t < cols * k; ++t) to[t] = 0;
    // Memory is read column by column where there is little to be used twice.
    const int64_t step = k < 4 ? 1 : cols;
    for (int64_t c = 0; c < cols; c += step)
      for (int64_t i = 0; i < A.rows; i += kDotDepth)
        add_dots(A.at(i, j + c), step, A.col_stride, R + i, k, A.rows, i + kDotDepth < A.rows ? kDotDepth : A.rows - i,
                 to + c * k, k);
  });
}

// Rows and columns first..n-1 of the symmetric G = P P' (n, n), rows of P (n, m) contiguous.
inline void gram_rows(const double* P, int64_t n, int64_t m, int64_t first, double* G, int64_t ld) {
  const int64_t blocks = (n - first + kDotBlock - 1) / kDotBlock;
  parallel_for(blocks, [&](int64_t piece) {
    const int64_t r = first + piece * kDotBlock, rows = r + kDotBlock < n ? kDotBlock : n - r;
    for (int64_t i = r; i < r + rows; ++i)
      for (int64_t j = 0; j < r + rows; ++j) G[i * ld + j] = 0;
    for (int64_t j = 0; j < r + rows; j += kDotBlock) {
      const int64_t cols = j + kDotBlock < r + rows ? kDotBlock : r + rows - j;
      for (int64_t i = 0; i < m; i += kDotDepth)
        add_dots(P + r * m + i, rows, m, P + j * m + i, cols, m, i + kDotDepth < m ? kDotDepth : m - i, G + r * ld + j, ld);
    }
    // The other triangle, of which no other piece writes these columns.
    for (int64_t j = 0; j < r + rows; ++j)
      for (int64_t i = j < r ? r : j + 1; i < r + rows; ++i) G[j * ld + i] = G[i * ld + j];
  });
}

// z <- L^-1 z and z <- L^-T z for lower triangular L with contiguous rows.
inline void solve_lower(const double* L, int64_t n, int64_t ld, double* z) {
  for (int64_t i = 0; i < n; ++i) z[i] = (z[i] - column_dot(L + i * ld, z, i)) / L[i * ld + i];
}
inline void solve_lower_transposed(const double* L, int64_t n, int64_t ld, double* z) {
  for (int64_t i = n - 1; i >= 0; --i) {
    z[i] /= L[i * ld + i];
    add_scaled(z, L + i * ld, -z[i], i);
  }
}

// The lower triangle of A with contiguous rows becomes L, LL' = A; false where A is not positive definite.
inline bool cholesky_rows(double* A, int64_t n, int64_t ld) {
  constexpr int64_t B = 32;
  double used[B * B];
  for (int64_t j = 0; j < n; j += B) {
    const int64_t cols = j + B < n ? B : n - j;
    for (int64_t i = j; i < n; i += B) {
      const int64_t rows = i + B < n ? B : n - i;
      for (int64_t t = 0; t < B * B; ++t) used[t] = 0;
      add_dots(A + i * ld, rows, ld, A + j * ld, cols, ld, j, used, B);
      for (int64_t r = 0; r < rows; ++r) {
        double* a = A + (i + r) * ld + j;
        for (int64_t c = 0; c < cols && j + c <= i + r; ++c) {
          const double* pivot = A + (j + c) * ld + j;
          double left = a[c] - used[r * B + c];
          for (int64_t t = 0; t < c; ++t) left -= a[t] * pivot[t];
          if (i == j && r == c) {
            if (!(left > 0)) return false;
            a[c] = std::sqrt(left);
          } else {
            a[c] = left / pivot[c];
          }
        }
      }
    }
  }
  return true;
}

}  // namespace
}  // namespace randla::cpu
