// Sparse sketches of dense and CSR matrices; rows and signs of S are generated here and never stored beyond a window of rows.
//
// Dense A: rows are taken in windows. The entries of a window are sorted by output row (stably), so that an output row is
// loaded once, gains all its rows of A in ascending order, and is stored once; A is copied strip by strip of columns into
// the cache. An entry of the result is therefore the plain sum in ascending row order, whatever the windows and strips.

namespace randla::cpu {
namespace {

// Rows whose strip stays in the cache. Short pieces of rows cost the memory more than long ones: row-major matrices are read in
// wider strips of fewer rows.
constexpr int64_t kWindow = 3072, kWindowByRows = 1536;
constexpr int64_t kWindowsPerBatch = 8;  // sorted at a time; their strips reuse the output strip

struct SortedWindow {
  uint32_t* start;    // d + 1 offsets into entries
  uint16_t* entries;  // 2 * local row + sign bit
};

inline void sort_window(const SparseSketch& s, int64_t column0, int64_t rows, SortedWindow out, uint32_t* row_of,
                        uint8_t* minus_of) {
  for (int64_t o = 0; o <= s.rows(); ++o) out.start[o] = 0;
  for (int64_t i = 0; i < rows; ++i) {
    sparse_column(s, static_cast<uint64_t>(column0 + i), row_of + i * s.count(), minus_of + i * s.count());
    for (int t = 0; t < s.count(); ++t) ++out.start[row_of[i * s.count() + t] + 1];
  }
  for (int64_t o = 0; o < s.rows(); ++o) out.start[o + 1] += out.start[o];
  // Filling moves each start to its end, which is the next start: shift back afterwards.
  for (int64_t i = 0; i < rows; ++i)
    for (int t = 0; t < s.count(); ++t)
      out.entries[out.start[row_of[i * s.count() + t]]++] = static_cast<uint16_t>(2 * i + minus_of[i * s.count() + t]);
  for (int64_t o = s.rows(); o > 0; --o) out.start[o] = out.start[o - 1];
  out.start[0] = 0;
}

// The sorted windows of a batch, and what sorting them takes.
struct SortedBatch {
  const SparseSketch& s;
  int64_t window, sorters, per_window;
  Scratch<uint32_t> starts, rows_of;
  Scratch<uint16_t> entries;
  Scratch<uint8_t> minus_of;

  SortedBatch(const SparseSketch& sketch, int64_t window_rows, int64_t batch)
      : s(sketch),
        window(window_rows),
        sorters(batch < max_threads() ? batch : max_threads()),
        per_window(window_rows * sketch.count()),
        starts(batch * (sketch.rows() + 1)),
        rows_of(sorters * per_window),
        entries(batch * per_window),
        minus_of(sorters * per_window) {}

  SortedWindow operator[](int64_t w) const { return {starts.data + w * (s.rows() + 1), entries.data + w * per_window}; }

  // Windows first .. first + count - 1 of m rows, of which the first is column j0 of S.
  void sort(int64_t first, int64_t count, int64_t m, int64_t j0) {
    parallel_for(count, [&](int64_t w) {
      const int64_t i0 = (first + w) * window, rows = i0 + window < m ? window : m - i0;
      sort_window(s, j0 + i0, rows, (*this)[w], rows_of.data + thread_index() * per_window,
                  minus_of.data + thread_index() * per_window);
    });
  }
};

// A piece of the matrix that will be wanted next, fetched a few lines at a time between other work.
struct Ahead {
  const char* row;
  int64_t stride;  // bytes between rows
  int64_t rows, lines, line;

  inline __attribute__((always_inline)) void fetch() {
    if (rows <= 0) return;
    __builtin_prefetch(row + 64 * line, 0, 2);
    if (++line == lines) {
      line = 0;
      row += stride;
      --rows;
    }
  }
};

template <class T, int V>
void add_window(const SortedWindow& w, int64_t d, const T* strip, const T* signs, T* out, Ahead ahead) {
  constexpr int64_t width = V * kLanes<T>;
  const int64_t fetches = d > 0 ? (ahead.rows * ahead.lines + d - 1) / d : 0;
  for (int64_t o = 0; o < d; ++o) {
    const uint32_t begin = w.start[o], end = w.start[o + 1];
    for (int64_t f = 0; f < fetches; ++f) ahead.fetch();
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
  constexpr int64_t width = V * kLanes<T>, window = V > 4 ? kWindowByRows : kWindow;
  const int64_t d = s.rows(), windows = (A.rows + window - 1) / window, strips = (A.cols + width - 1) / width;
  // Sorted windows are kept for all strips where that is little beside A; else the sums of all strips are kept instead.
  const int64_t table = 4 * (d + 1) + 2 * window * s.count(), allowed = A.rows * A.cols * static_cast<int64_t>(sizeof(T)) / 20;
  const bool once = windows * table <= (allowed > (1 << 23) ? allowed : (1 << 23));
  const int64_t batch = once || windows < kWindowsPerBatch ? windows : kWindowsPerBatch;
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(s.nnz)));
  const T signs[2] = {T(1), T(-1)};
  const int threads = max_threads();
  const int64_t workers = strips < threads ? strips : threads;
  SortedBatch sorted(s, window, batch);
  Scratch<T> strip_of(workers * window * width), sums((once ? workers : strips) * d * width);
  for (int64_t w0 = 0; w0 < windows; w0 += batch) {
    const int64_t count = w0 + batch < windows ? batch : windows - w0;
    auto rows_in = [&](int64_t w) { return (w0 + w + 1) * window < A.rows ? window : A.rows - (w0 + w) * window; };
    sorted.sort(w0, count, A.rows, j0);
    parallel_for(strips, [&](int64_t q) {
      T* strip = strip_of.data + thread_index() * window * width;
      T* sum = sums.data + (once ? thread_index() : q) * d * width;
      const int64_t c0 = q * width, cols = c0 + width < A.cols ? width : A.cols - c0;
      if (w0 == 0) __builtin_memset(sum, 0, static_cast<size_t>(d * width) * sizeof(T));
      for (int64_t w = 0; w < count; ++w) {
        pack<T>(A, (w0 + w) * window, rows_in(w), c0, cols, strip, width);
        Ahead ahead = {};
        if (w + 1 < count && A.col_stride == 1)
          ahead = {reinterpret_cast<const char*>(A.at((w0 + w + 1) * window, c0)), A.row_stride * static_cast<int64_t>(sizeof(T)),
                   rows_in(w + 1), (cols * static_cast<int64_t>(sizeof(T)) + 63) / 64, 0};
        else if (w + 1 < count && A.row_stride == 1)
          ahead = {reinterpret_cast<const char*>(A.at((w0 + w + 1) * window, c0)), A.col_stride * static_cast<int64_t>(sizeof(T)),
                   cols, (rows_in(w + 1) * static_cast<int64_t>(sizeof(T)) + 63) / 64, 0};
        add_window<T, V>(sorted[w], d, strip, signs, sum, ahead);
      }
      if (w0 + count < windows) return;
      for (int64_t o = 0; o < d; ++o)
        for (int64_t c = 0; c < cols; ++c) *out.at(o, c0 + c) += sum[o * width + c] * scale;
    });
  }
}

template <class T>
void sparse_sketch(const SparseSketch& s, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  if (A.rows == 0 || A.cols == 0 || s.rows() == 0) return;
  if (s.nnz == 1 && A.rows <= INT32_MAX) {
    if (A.col_stride == 1 && A.cols >= 8 * kLanes<T>) return count_sketch_by_rows<T>(s, A, j0, out);
    if (A.row_stride == 1 && A.col_stride != 1) return count_sketch_by_columns<T>(s, A, j0, out);
  }
  if (A.cols <= kLanes<T>)
    sparse_sketch_strips<T, 1>(s, A, j0, out);
  else if (A.cols <= 2 * kLanes<T>)
    sparse_sketch_strips<T, 2>(s, A, j0, out);
  else if (A.cols <= 4 * kLanes<T> || A.col_stride != 1)
    sparse_sketch_strips<T, 4>(s, A, j0, out);
  else
    sparse_sketch_strips<T, 8>(s, A, j0, out);
}

// Rows [o0, o1) of the result gain the rows of A that a sorted window lists for them; each stays in the cache meanwhile.
template <class T, class Index>
void add_window_csr(const SortedWindow& w, Csr<T> A, int64_t i0, int64_t o0, int64_t o1, const T* signs, Matrix<T> out) {
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const Index* indices = static_cast<const Index*>(A.indices);
  for (int64_t o = o0; o < o1; ++o) {
    T* to = out.row(o);
    for (uint32_t e = w.start[o]; e < w.start[o + 1]; ++e) {
      const int64_t i = i0 + (w.entries[e] >> 1);
      const T value = signs[w.entries[e] & 1];
      for (Index p = indptr[i]; p < indptr[i + 1]; ++p) to[indices[p]] += A.values[p] * value;
    }
  }
}

template <class T>
void sparse_sketch_csr(const SparseSketch& s, Csr<T> A, int64_t j0, Matrix<T> out) {
  constexpr int64_t grain = 32, least = 1024, most = 16384;
  // As many rows as stay in L2 while every row of the result looks for its own among them.
  const int64_t nnz = A.rows == 0 ? 0 : A.wide ? static_cast<const int64_t*>(A.indptr)[A.rows] : static_cast<const int32_t*>(A.indptr)[A.rows];
  const int64_t fit = nnz > 0 ? 524288 / static_cast<int64_t>(sizeof(T) + 4) * A.rows / nnz : most;
  const int64_t window = fit < least ? least : fit > most ? most : fit;
  const int64_t d = s.rows(), windows = (A.rows + window - 1) / window;
  const int64_t batch = windows < kWindowsPerBatch ? windows : kWindowsPerBatch;
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(s.nnz))), signs[2] = {scale, -scale};
  SortedBatch sorted(s, window, batch);
  for (int64_t w0 = 0; w0 < windows; w0 += batch) {
    const int64_t count = w0 + batch < windows ? batch : windows - w0;
    sorted.sort(w0, count, A.rows, j0);
    parallel_for((d + grain - 1) / grain, [&](int64_t piece) {
      const int64_t o0 = piece * grain, o1 = o0 + grain < d ? o0 + grain : d;
      for (int64_t w = 0; w < count; ++w) {
        if (A.wide)
          add_window_csr<T, int64_t>(sorted[w], A, (w0 + w) * window, o0, o1, signs, out);
        else
          add_window_csr<T, int32_t>(sorted[w], A, (w0 + w) * window, o0, o1, signs, out);
      }
    });
  }
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
        for (int t = 0; t < s.count(); ++t) {
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
