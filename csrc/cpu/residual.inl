// The fused residual pass: r = b - A x, g = A'(w r) and sum w r^2 in one read of A, in float64 whatever A is stored in.
// Rows are cut into chunks by the shape alone; partial gradients are added in chunk order.

namespace randla::cpu {
namespace {

constexpr int kResidualRows = 4;
constexpr int64_t kMaxChunks = 64;
constexpr int64_t kPrefetchBytes = 8192;
constexpr int64_t kTileBytes = 256 * 1024;

// For each of C right-hand sides (x, g: n apart; b, r: m apart) the sums run in the order of a single one.
template <class T, int rows, int C>
inline __attribute__((always_inline)) void residual_rows(const T* const* row, int64_t n, int64_t m, int64_t ahead,
                                                         const double* x, const double* b, const double* w, double* r,
                                                         double* g, double* squares) {
  Lanes<double> dot[rows][C] = {};
  const int64_t whole = n / 8 * 8;
  for (int64_t j = 0; j < whole; j += 8) {
    Lanes<double> xj[C];
    for (int c = 0; c < C; ++c) xj[c] = load(x + c * n + j);
    for (int i = 0; i < rows; ++i) {
      __builtin_prefetch(row[i] + j + ahead);
      const Lanes<double> a = load_doubles(row[i] + j);
      for (int c = 0; c < C; ++c) dot[i][c] += a * xj[c];
    }
  }
  double weighted[rows][C];
  for (int i = 0; i < rows; ++i)
    for (int c = 0; c < C; ++c) {
      double s = sum(dot[i][c]);
      for (int64_t j = whole; j < n; ++j) s += static_cast<double>(row[i][j]) * x[c * n + j];
      const double ri = (b ? b[c * m + i] : 0.0) - s;
      r[c * m + i] = ri;
      weighted[i][c] = w ? w[i] * ri : ri;
      squares[c] += weighted[i][c] * ri;
    }
  for (int64_t j = 0; j < whole; j += 8) {
    Lanes<double> gj[C];
    for (int c = 0; c < C; ++c) gj[c] = load(g + c * n + j);
    for (int i = 0; i < rows; ++i) {
      const Lanes<double> a = load_doubles(row[i] + j);
      for (int c = 0; c < C; ++c) gj[c] += a * weighted[i][c];
    }
    for (int c = 0; c < C; ++c) store(g + c * n + j, gj[c]);
  }
  for (int64_t j = whole; j < n; ++j)
    for (int i = 0; i < rows; ++i)
      for (int c = 0; c < C; ++c) g[c * n + j] += static_cast<double>(row[i][j]) * weighted[i][c];
}

template <class T, int rows>
inline void residual_row_group(const T* const* row, int64_t n, int64_t m, int64_t ahead, int64_t k, const double* x,
                               const double* b, const double* w, double* r, double* g, double* squares) {
  int64_t c = 0;
  for (; c + 2 <= k; c += 2)
    residual_rows<T, rows, 2>(row, n, m, ahead, x + c * n, b ? b + c * m : nullptr, w, r + c * m, g + c * n, squares + c);
  if (c < k)
    residual_rows<T, rows, 1>(row, n, m, ahead, x + c * n, b ? b + c * m : nullptr, w, r + c * m, g + c * n, squares + c);
}

// `count` contiguous rows of a matrix of m rows, for k right-hand sides; b, w and r point at the first of them.
template <class T>
void residual_row_major(const T* a, int64_t stride, int64_t count, int64_t n, int64_t m, int64_t k, const double* x,
                        const double* b, const double* w, double* r, double* g, double* squares) {
  // Rows are streams too short for the hardware to run ahead of.
  const int64_t row_bytes = (n + 1) * static_cast<int64_t>(sizeof(T));
  const int64_t ahead = (kPrefetchBytes / (kResidualRows * row_bytes) + 1) * kResidualRows * stride;
  int64_t i = 0;
  for (; i + kResidualRows <= count; i += kResidualRows) {
    const T* row[kResidualRows];
    for (int q = 0; q < kResidualRows; ++q) row[q] = a + (i + q) * stride;
    residual_row_group<T, kResidualRows>(row, n, m, ahead, k, x, b ? b + i : nullptr, w ? w + i : nullptr, r + i, g, squares);
  }
  for (; i < count; ++i) {
    const T* row[1] = {a + i * stride};
    residual_row_group<T, 1>(row, n, m, ahead, k, x, b ? b + i : nullptr, w ? w + i : nullptr, r + i, g, squares);
  }
}

// Rows of a column-major A are taken in blocks whose columns still lie in the cache when A' r needs them.
inline int64_t column_major_rows(int64_t n, int64_t element) {
  const int64_t rows = (768 * 1024) / (element * (n > 0 ? n : 1)) / 8 * 8;
  return rows < 64 ? 64 : rows > 2048 ? 2048 : rows;
}

template <class T>
void residual_column_major(Matrix<const T> A, int64_t i0, int64_t i1, int64_t k, const double* x, const double* b,
                           const double* w, double* r, double* g, double* squares) {
  constexpr int C = 4;
  const int64_t m = A.rows, n = A.cols, ld = A.col_stride, step = column_major_rows(n, sizeof(T));
  Scratch<double> scaled(w ? step : 0);
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
      const double* wr = rc;
      if (w) {
        for (int64_t i = 0; i < rows; ++i) scaled.data[i] = w[s + i] * rc[i];
        wr = scaled.data;
      }
      Lanes<double> square = {};
      for (int64_t i = 0; i < whole; i += 8) square += load(wr + i) * load(rc + i);
      double tail = 0;
      for (int64_t i = whole; i < rows; ++i) tail += wr[i] * rc[i];
      squares[c] += sum(square) + tail;
      for (j = 0; j < n; j += C) {
        const int cols = n - j < C ? static_cast<int>(n - j) : C;
        const T* a = A.at(s, j);
        Lanes<double> dot[C] = {};
        if (cols == C) {
          for (int64_t i = 0; i < whole; i += 8) {
            const Lanes<double> ri = load(wr + i);
            for (int q = 0; q < C; ++q) dot[q] += load_doubles(a + q * ld + i) * ri;
          }
        } else {
          for (int64_t i = 0; i < whole; i += 8)
            for (int q = 0; q < cols; ++q) dot[q] += load_doubles(a + q * ld + i) * load(wr + i);
        }
        for (int q = 0; q < cols; ++q) {
          double t = sum(dot[q]);
          for (int64_t i = whole; i < rows; ++i) t += static_cast<double>(a[q * ld + i]) * wr[i];
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

// Rows of any strides are packed a few at a time, in cache. An element of A is one number or a complex pair of them.
template <class T, class Element>
void residual_packed(Matrix<const Element> A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
                     double* squares) {
  constexpr int64_t parts = sizeof(Element) / sizeof(T), across = 64 / sizeof(Element);
  const int64_t m = A.rows, cols = A.cols, n = cols * parts;
  const bool by_columns = A.row_stride * A.row_stride < A.col_stride * A.col_stride;
  const int64_t fit = kTileBytes / ((cols + 1) * static_cast<int64_t>(sizeof(Element))) / kResidualRows * kResidualRows;
  const int64_t rows = fit < 16 ? 16 : fit > 128 ? 128 : fit;
  sum_over_row_chunks(m, 256, k, n, g, squares, [&](int64_t i0, int64_t i1, double* gc, double* sc) {
    Scratch<T> tile(rows * n);
    for (int64_t i = i0; i < i1; i += rows) {
      const int64_t count = i + rows < i1 ? rows : i1 - i;
      auto copy = [&](int64_t q, int64_t j) {
        __builtin_memcpy(tile.data + q * n + j * parts, A.at(i + q, j), sizeof(Element));
      };
      if (by_columns) {
        // A whole cache line of the tile at a time, and the next columns fetched meanwhile.
        int64_t j = 0;
        for (; j + across <= cols; j += across)
          for (int64_t q = 0; q < count; ++q)
            for (int64_t t = 0; t < across; ++t) {
              copy(q, j + t);
              __builtin_prefetch(A.at(i + q, j + t) + across * A.col_stride);
            }
        for (; j < cols; ++j)
          for (int64_t q = 0; q < count; ++q) copy(q, j);
      } else {
        for (int64_t q = 0; q < count; ++q)
          for (int64_t j = 0; j < cols; ++j) copy(q, j);
      }
      residual_row_major<T>(tile.data, n, count, n, m, k, x, b ? b + i : nullptr, w ? w + i : nullptr, r + i, gc, sc);
    }
  });
}

template <class T>
void residual(Matrix<const T> A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
              double* squares) {
  const int64_t n = A.cols;
  if (A.row_stride == 1 && A.col_stride != 1) {
    sum_over_row_chunks(A.rows, column_major_rows(n, sizeof(T)), k, n, g, squares,
                        [&](int64_t i0, int64_t i1, double* gc, double* sc) {
                          residual_column_major<T>(A, i0, i1, k, x, b, w, r, gc, sc);
                        });
    return;
  }
  if (A.col_stride != 1) {
    residual_packed<T, T>(A, k, x, b, w, r, g, squares);
    return;
  }
  sum_over_row_chunks(A.rows, 256, k, n, g, squares, [&](int64_t i0, int64_t i1, double* gc, double* sc) {
    residual_row_major<T>(A.row(i0), A.row_stride, i1 - i0, n, A.rows, k, x, b ? b + i0 : nullptr, w ? w + i0 : nullptr, r + i0,
                          gc, sc);
  });
}

template <class T>
void residual_complex(Matrix<const Complex<T>> A, int64_t k, const double* x, const double* b, const double* w, double* r,
                      double* g, double* squares) {
  if (A.col_stride == 1)
    residual<T>({&A.data->re, A.rows, 2 * A.cols, 2 * A.row_stride, 1}, k, x, b, w, r, g, squares);
  else
    residual_packed<T, Complex<T>>(A, k, x, b, w, r, g, squares);
}

// C right-hand sides share the reads of the indices.
template <class T, class Index, int C>
inline __attribute__((always_inline)) void residual_csr_row(const T* values, const Index* indices, int64_t count, int64_t n,
                                                            int64_t m, const double* x, const double* b, const double* w,
                                                            double* r, double* g, double* squares) {
  double s[C] = {};
  for (int64_t p = 0; p < count; ++p)
    for (int c = 0; c < C; ++c) s[c] += static_cast<double>(values[p]) * x[c * n + indices[p]];
  for (int c = 0; c < C; ++c) {
    const double ri = (b ? b[c * m] : 0.0) - s[c];
    r[c * m] = ri;
    s[c] = w ? *w * ri : ri;
    squares[c] += s[c] * ri;
  }
  for (int64_t p = 0; p < count; ++p)
    for (int c = 0; c < C; ++c) g[c * n + indices[p]] += static_cast<double>(values[p]) * s[c];
}

template <class T, class Index>
void residual_csr_chunk(Csr<T> A, int64_t i0, int64_t i1, int64_t k, const double* x, const double* b, const double* w, double* r,
                        double* g, double* squares) {
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const int64_t m = A.rows, n = A.cols;
  for (int64_t i = i0; i < i1; ++i) {
    const T* values = A.values + indptr[i];
    const Index* indices = static_cast<const Index*>(A.indices) + indptr[i];
    const int64_t count = indptr[i + 1] - indptr[i];
    const double* wi = w ? w + i : nullptr;
    int64_t c = 0;
    for (; c + 2 <= k; c += 2)
      residual_csr_row<T, Index, 2>(values, indices, count, n, m, x + c * n, b ? b + c * m + i : nullptr, wi, r + c * m + i,
                                    g + c * n, squares + c);
    if (c < k)
      residual_csr_row<T, Index, 1>(values, indices, count, n, m, x + c * n, b ? b + c * m + i : nullptr, wi, r + c * m + i,
                                    g + c * n, squares + c);
  }
}

template <class T>
void residual_csr(Csr<T> A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
                  double* squares) {
  // Partial gradients must stay small beside the matrix: fewer chunks when the columns are many.
  const int64_t grain = 256 + 4 * A.cols;
  sum_over_row_chunks(A.rows, grain, k, A.cols, g, squares, [&](int64_t i0, int64_t i1, double* gc, double* sc) {
    if (A.wide)
      residual_csr_chunk<T, int64_t>(A, i0, i1, k, x, b, w, r, gc, sc);
    else
      residual_csr_chunk<T, int32_t>(A, i0, i1, k, x, b, w, r, gc, sc);
  });
}

}  // namespace
}  // namespace randla::cpu
