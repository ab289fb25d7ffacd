// Sparse sketches of dense and CSR matrices; rows and signs of S are generated here and never stored beyond a window of rows.
//
// Dense A: rows are taken in windows. The entries of a window are sorted by output row (stably), so that an output row is
// loaded once, gains all its rows of A in ascending order, and is stored once; A is copied strip by strip of columns into
// the cache. An entry of the result is therefore the plain sum in ascending row order, whatever the windows and strips.

namespace randla::cpu {
namespace {

constexpr int64_t kWindow = 2048;        // rows whose strip stays in the cache
constexpr int64_t kWindowsPerBatch = 8;  // sorted at a time; their strips reuse the output strip

struct SortedWindow {
  uint32_t* start;    // d + 1 offsets into entries
  uint16_t* entries;  // 2 * local row + sign bit
};

inline void sort_window(const SparseSketch& s, int64_t column0, int64_t rows, SortedWindow out, uint32_t* row_of,
                        uint8_t* minus_of) {
  for (int64_t o = 0; o <= s.d; ++o) out.start[o] = 0;
  for (int64_t i = 0; i < rows; ++i) {
    sparse_column(s, static_cast<uint64_t>(column0 + i), row_of + i * s.nnz, minus_of + i * s.nnz);
    for (int t = 0; t < s.nnz; ++t) ++out.start[row_of[i * s.nnz + t] + 1];
  }
  for (int64_t o = 0; o < s.d; ++o) out.start[o + 1] += out.start[o];
  // Filling moves each start to its end, which is the next start: shift back afterwards.
  for (int64_t i = 0; i < rows; ++i)
    for (int t = 0; t < s.nnz; ++t)
      out.entries[out.start[row_of[i * s.nnz + t]]++] = static_cast<uint16_t>(2 * i + minus_of[i * s.nnz + t]);
  for (int64_t o = s.d; o > 0; --o) out.start[o] = out.start[o - 1];
  out.start[0] = 0;
}

template <class T, int V>
void add_window(const SortedWindow& w, int64_t d, const T* strip, const T* signs, T* out) {
  constexpr int64_t width = V * kLanes<T>;
  for (int64_t o = 0; o < d; ++o) {
    const uint32_t begin = w.start[o], end = w.start[o + 1];
    if (begin == end) continue;
    Lanes<T> sum[V];
    for (int v = 0; v < V; ++v) sum[v] = load(out + o * width + v * kLanes<T>);
    for (uint32_t e = begin; e < end; ++e) {
      const uint32_t entry = w.entries[e];
      const T* row = strip + (entry >> 1) * width;
      const T sign = signs[entry & 1];
      for (int v = 0; v < V; ++v) sum[v] += load(row + v * kLanes<T>) * sign;
    }
    for (int v = 0; v < V; ++v) store(out + o * width + v * kLanes<T>, sum[v]);
  }
}

template <class T, int V>
void sparse_sketch_strips(const SparseSketch& s, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  constexpr int64_t width = V * kLanes<T>;
  const int64_t windows = (A.rows + kWindow - 1) / kWindow, strips = (A.cols + width - 1) / width;
  const int64_t batch = windows < kWindowsPerBatch ? windows : kWindowsPerBatch;
  const int64_t per_window = kWindow * s.nnz;
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(s.nnz)));
  const T signs[2] = {T(1), T(-1)};
  Scratch<uint32_t> starts(batch * (s.d + 1)), rows_of(batch * per_window);
  Scratch<uint16_t> entries(batch * per_window);
  Scratch<uint8_t> minus_of(batch * per_window);
  const int threads = max_threads();
  const int64_t workers = strips < threads ? strips : threads;
  Scratch<T> strip_of(workers * kWindow * width), sums(strips * s.d * width);
  parallel_for(strips, [&](int64_t q) { __builtin_memset(sums.data + q * s.d * width, 0, s.d * width * sizeof(T)); });
  for (int64_t w0 = 0; w0 < windows; w0 += batch) {
    const int64_t count = w0 + batch < windows ? batch : windows - w0;
    auto sorted = [&](int64_t w) { return SortedWindow{starts.data + w * (s.d + 1), entries.data + w * per_window}; };
    parallel_for(count, [&](int64_t w) {
      const int64_t i0 = (w0 + w) * kWindow, rows = i0 + kWindow < A.rows ? kWindow : A.rows - i0;
      sort_window(s, j0 + i0, rows, sorted(w), rows_of.data + w * per_window, minus_of.data + w * per_window);
    });
    parallel_for(strips, [&](int64_t q) {
      T* strip = strip_of.data + thread_index() * kWindow * width;
      const int64_t c0 = q * width, cols = c0 + width < A.cols ? width : A.cols - c0;
      for (int64_t w = 0; w < count; ++w) {
        const int64_t i0 = (w0 + w) * kWindow, rows = i0 + kWindow < A.rows ? kWindow : A.rows - i0;
        pack<T>(A, i0, rows, c0, cols, strip, width);
        add_window<T, V>(sorted(w), s.d, strip, signs, sums.data + q * s.d * width);
      }
    });
  }
  parallel_for(strips, [&](int64_t q) {
    const int64_t c0 = q * width, cols = c0 + width < A.cols ? width : A.cols - c0;
    for (int64_t o = 0; o < s.d; ++o)
      for (int64_t c = 0; c < cols; ++c) *out.at(o, c0 + c) += sums.data[(q * s.d + o) * width + c] * scale;
  });
}

template <class T>
void sparse_sketch(const SparseSketch& s, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  if (A.rows == 0 || A.cols == 0 || s.d == 0) return;
  if (A.cols <= kLanes<T>)
    sparse_sketch_strips<T, 1>(s, A, j0, out);
  else if (A.cols <= 2 * kLanes<T>)
    sparse_sketch_strips<T, 2>(s, A, j0, out);
  else
    sparse_sketch_strips<T, 4>(s, A, j0, out);
}

template <class T, class Index>
void sparse_sketch_csr_piece(const SparseSketch& s, Csr<T> A, int64_t j0, int64_t o0, int64_t o1, Matrix<T> out) {
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const Index* indices = static_cast<const Index*>(A.indices);
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(s.nnz)));
  uint32_t rows[SparseSketch::kMaxNnz];
  uint8_t minus[SparseSketch::kMaxNnz];
  for (int64_t i = 0; i < A.rows; ++i) {
    if (indptr[i] == indptr[i + 1]) continue;
    sparse_column(s, static_cast<uint64_t>(j0 + i), rows, minus);
    for (int t = 0; t < s.nnz; ++t) {
      if (rows[t] < o0 || rows[t] >= o1) continue;
      const T value = minus[t] ? -scale : scale;
      T* to = out.row(rows[t]);
      for (Index p = indptr[i]; p < indptr[i + 1]; ++p) to[indices[p]] += A.values[p] * value;
    }
  }
}

template <class T>
void sparse_sketch_csr(const SparseSketch& s, Csr<T> A, int64_t j0, Matrix<T> out) {
  // Each piece owns a range of output rows and reads all of A, so pieces are few; sums run in ascending row order.
  const int64_t pieces = max_threads();
  parallel_for(pieces, [&](int64_t p) {
    const int64_t o0 = s.d * p / pieces, o1 = s.d * (p + 1) / pieces;
    if (A.wide)
      sparse_sketch_csr_piece<T, int64_t>(s, A, j0, o0, o1, out);
    else
      sparse_sketch_csr_piece<T, int32_t>(s, A, j0, o0, o1, out);
  });
}

template <class T>
void sparse_sketch_adjoint(const SparseSketch& s, Matrix<const T> Y, int64_t j0, Matrix<T> out) {
  constexpr int64_t grain = 256;
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(s.nnz)));
  parallel_for((out.rows + grain - 1) / grain, [&](int64_t piece) {
    uint32_t rows[SparseSketch::kMaxNnz];
    uint8_t minus[SparseSketch::kMaxNnz];
    const int64_t end = (piece + 1) * grain < out.rows ? (piece + 1) * grain : out.rows;
    for (int64_t i = piece * grain; i < end; ++i) {
      sparse_column(s, static_cast<uint64_t>(j0 + i), rows, minus);
      for (int64_t c = 0; c < out.cols; ++c) {
        T v = T(0);
        for (int t = 0; t < s.nnz; ++t) {
          const T y = *Y.at(rows[t], c);
          v += minus[t] ? -y : y;
        }
        *out.at(i, c) = v * scale;
      }
    }
  });
}

}  // namespace
}  // namespace randla::cpu
