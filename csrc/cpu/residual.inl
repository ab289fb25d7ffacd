// The fused residual pass: r = b - A x, g = A' r and |r|^2 in one read of A, in float64 whatever A is stored in.
// Rows are cut into chunks by the shape alone; partial gradients are added in chunk order.

namespace randla::cpu {
namespace {

constexpr int kResidualRows = 4;
constexpr int64_t kMaxChunks = 64;
constexpr int64_t kPrefetchBytes = 8192;

template <class T, int rows>
inline __attribute__((always_inline)) void residual_rows(const T* const* row, int64_t n, int64_t ahead, const double* x,
                                                         const double* b, double* r, double* g, double* square) {
  Lanes<double> dot[rows] = {};
  const int64_t whole = n / 8 * 8;
  for (int64_t j = 0; j < whole; j += 8) {
    const Lanes<double> xj = load(x + j);
    for (int i = 0; i < rows; ++i) {
      __builtin_prefetch(row[i] + j + ahead);
      dot[i] += load_doubles(row[i] + j) * xj;
    }
  }
  double ri[rows];
  for (int i = 0; i < rows; ++i) {
    double s = sum(dot[i]);
    for (int64_t j = whole; j < n; ++j) s += static_cast<double>(row[i][j]) * x[j];
    ri[i] = (b ? b[i] : 0.0) - s;
    r[i] = ri[i];
    *square += ri[i] * ri[i];
  }
  for (int64_t j = 0; j < whole; j += 8) {
    Lanes<double> gj = load(g + j);
    for (int i = 0; i < rows; ++i) gj += load_doubles(row[i] + j) * ri[i];
    store(g + j, gj);
  }
  for (int64_t j = whole; j < n; ++j)
    for (int i = 0; i < rows; ++i) g[j] += static_cast<double>(row[i][j]) * ri[i];
}

// One chunk of rows of a row-major A, for k right-hand sides.
template <class T>
void residual_row_major(Matrix<const T> A, int64_t i0, int64_t i1, int64_t k, const double* x, const double* b, double* r,
                        double* g, double* squares) {
  const int64_t m = A.rows, n = A.cols;
  // Rows are streams too short for the hardware to run ahead of.
  const int64_t row_bytes = (n + 1) * static_cast<int64_t>(sizeof(T));
  const int64_t ahead = (kPrefetchBytes / (kResidualRows * row_bytes) + 1) * kResidualRows * A.row_stride;
  int64_t i = i0;
  for (; i + kResidualRows <= i1; i += kResidualRows) {
    const T* row[kResidualRows];
    for (int q = 0; q < kResidualRows; ++q) row[q] = A.row(i + q);
    for (int64_t c = 0; c < k; ++c)
      residual_rows<T, kResidualRows>(row, n, ahead, x + c * n, b ? b + c * m + i : nullptr, r + c * m + i, g + c * n, squares + c);
  }
  for (; i < i1; ++i) {
    const T* row[1] = {A.row(i)};
    for (int64_t c = 0; c < k; ++c)
      residual_rows<T, 1>(row, n, ahead, x + c * n, b ? b + c * m + i : nullptr, r + c * m + i, g + c * n, squares + c);
  }
}

// Rows of a column-major A are taken in blocks whose columns still lie in the cache when A' r needs them.
inline int64_t column_major_rows(int64_t n, int64_t element) {
  const int64_t rows = (768 * 1024) / (element * (n > 0 ? n : 1)) / 8 * 8;
  return rows < 64 ? 64 : rows > 2048 ? 2048 : rows;
}

template <class T>
void residual_column_major(Matrix<const T> A, int64_t i0, int64_t i1, int64_t k, const double* x, const double* b, double* r,
                           double* g, double* squares) {
  constexpr int C = 4;
  const int64_t m = A.rows, n = A.cols, ld = A.col_stride, step = column_major_rows(n, sizeof(T));
  for (int64_t s = i0; s < i1; s += step) {
    const int64_t rows = s + step < i1 ? step : i1 - s, whole = rows / 8 * 8;
    for (int64_t c = 0; c < k; ++c) {
      double* rc = r + c * m + s;
      for (int64_t i = 0; i < rows; ++i) rc[i] = b ? b[c * m + s + i] : 0.0;
      int64_t j = 0;
      for (; j + C <= n; j += C) {
        const T* a = A.at(s, j);
        const double* xj = x + c * n + j;
        const int64_t ahead = j + 3 * C <= n ? 2 * C * ld : 0;
        for (int64_t i = 0; i < whole; i += 8) {
          Lanes<double> v = load(rc + i);
          for (int q = 0; q < C; ++q) {
            __builtin_prefetch(a + q * ld + i + ahead);
            v -= load_doubles(a + q * ld + i) * xj[q];
          }
          store(rc + i, v);
        }
        for (int64_t i = whole; i < rows; ++i)
          for (int q = 0; q < C; ++q) rc[i] -= static_cast<double>(a[q * ld + i]) * xj[q];
      }
      for (; j < n; ++j) {
        const T* a = A.at(s, j);
        const double xj = x[c * n + j];
        for (int64_t i = 0; i < rows; ++i) rc[i] -= static_cast<double>(a[i]) * xj;
      }
      Lanes<double> square = {};
      for (int64_t i = 0; i < whole; i += 8) square += load(rc + i) * load(rc + i);
      double tail = 0;
      for (int64_t i = whole; i < rows; ++i) tail += rc[i] * rc[i];
      squares[c] += sum(square) + tail;
      for (j = 0; j < n; j += C) {
        const int cols = n - j < C ? static_cast<int>(n - j) : C;
        const T* a = A.at(s, j);
        Lanes<double> dot[C] = {};
        if (cols == C) {
          for (int64_t i = 0; i < whole; i += 8) {
            const Lanes<double> ri = load(rc + i);
            for (int q = 0; q < C; ++q) dot[q] += load_doubles(a + q * ld + i) * ri;
          }
        } else {
          for (int64_t i = 0; i < whole; i += 8)
            for (int q = 0; q < cols; ++q) dot[q] += load_doubles(a + q * ld + i) * load(rc + i);
        }
        for (int q = 0; q < cols; ++q) {
          double t = sum(dot[q]);
          for (int64_t i = whole; i < rows; ++i) t += static_cast<double>(a[q * ld + i]) * rc[i];
          g[c * n + j + q] += t;
        }
      }
    }
  }
}

// Calls chunk(i0, i1, g, squares) for fixed row ranges, then adds the partial results in order.
template <class Chunk>
void sum_over_row_chunks(int64_t m, int64_t grain, int64_t k, int64_t n, double* g, double* squares, const Chunk& chunk) {
  int64_t chunks = (m + grain - 1) / grain;
  if (chunks > kMaxChunks) chunks = kMaxChunks;
  const int64_t step = chunks > 0 ? ((m + chunks - 1) / chunks + grain - 1) / grain * grain : 0;
  if (step > 0) chunks = (m + step - 1) / step;
  const int64_t size = k * n + k;
  Scratch<double> partial(chunks * size);
  parallel_for(chunks, [&](int64_t c) {
    double* mine = partial.data + c * size;
    for (int64_t j = 0; j < size; ++j) mine[j] = 0.0;
    chunk(c * step, (c + 1) * step < m ? (c + 1) * step : m, mine, mine + k * n);
  });
  for (int64_t j = 0; j < k * n; ++j) g[j] = 0.0;
  for (int64_t c = 0; c < k; ++c) squares[c] = 0.0;
  for (int64_t c = 0; c < chunks; ++c) {
    const double* mine = partial.data + c * size;
    for (int64_t j = 0; j < k * n; ++j) g[j] += mine[j];
    for (int64_t j = 0; j < k; ++j) squares[j] += mine[k * n + j];
  }
}

template <class T>
void residual(Matrix<const T> A, int64_t k, const double* x, const double* b, double* r, double* g, double* squares) {
  const int64_t n = A.cols;
  if (A.row_stride == 1 && A.col_stride != 1) {
    sum_over_row_chunks(A.rows, column_major_rows(n, sizeof(T)), k, n, g, squares,
                        [&](int64_t i0, int64_t i1, double* gc, double* sc) {
                          residual_column_major<T>(A, i0, i1, k, x, b, r, gc, sc);
                        });
    return;
  }
  sum_over_row_chunks(A.rows, 256, k, n, g, squares, [&](int64_t i0, int64_t i1, double* gc, double* sc) {
    if (A.col_stride == 1) {
      residual_row_major<T>(A, i0, i1, k, x, b, r, gc, sc);
      return;
    }
    // General strides: pack a few rows at a time, in cache.
    const int64_t rows = 32;
    Scratch<T> tile(rows * n);
    for (int64_t i = i0; i < i1; i += rows) {
      const int64_t count = i + rows < i1 ? rows : i1 - i;
      pack<T>(A, i, count, 0, n, tile.data, n);
      for (int64_t q = 0; q < count; ++q) {
        const T* row[1] = {tile.data + q * n};
        for (int64_t c = 0; c < k; ++c)
          residual_rows<T, 1>(row, n, 0, x + c * n, b ? b + c * A.rows + i + q : nullptr, r + c * A.rows + i + q, gc + c * n,
                           sc + c);
      }
    }
  });
}

template <class T, class Index>
void residual_csr_chunk(Csr<T> A, int64_t i0, int64_t i1, int64_t k, const double* x, const double* b, double* r, double* g,
                        double* squares) {
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const Index* indices = static_cast<const Index*>(A.indices);
  for (int64_t i = i0; i < i1; ++i)
    for (int64_t c = 0; c < k; ++c) {
      const double* xc = x + c * A.cols;
      double* gc = g + c * A.cols;
      double s = 0.0;
      for (Index p = indptr[i]; p < indptr[i + 1]; ++p) s += static_cast<double>(A.values[p]) * xc[indices[p]];
      const double ri = (b ? b[c * A.rows + i] : 0.0) - s;
      r[c * A.rows + i] = ri;
      squares[c] += ri * ri;
      for (Index p = indptr[i]; p < indptr[i + 1]; ++p) gc[indices[p]] += static_cast<double>(A.values[p]) * ri;
    }
}

template <class T>
void residual_csr(Csr<T> A, int64_t k, const double* x, const double* b, double* r, double* g, double* squares) {
  // Partial gradients must stay small beside the matrix: fewer chunks when the columns are many.
  const int64_t grain = 256 + 4 * A.cols;
  sum_over_row_chunks(A.rows, grain, k, A.cols, g, squares, [&](int64_t i0, int64_t i1, double* gc, double* sc) {
    if (A.wide)
      residual_csr_chunk<T, int64_t>(A, i0, i1, k, x, b, r, gc, sc);
    else
      residual_csr_chunk<T, int32_t>(A, i0, i1, k, x, b, r, gc, sc);
  });
}

}  // namespace
}  // namespace randla::cpu
