// Sparse sketches with one entry per column: every row of A goes to one row of the result, so that no window has to be kept.
// The arithmetic is that of sparse_sketch.inl: plain sums in ascending row order, scaled once.

namespace randla::cpu {
namespace {

// For every row of A its row of the result and its sign: 2 * row + sign bit.
inline void count_targets(const SparseSketch& s, int64_t j0, int64_t rows, uint32_t* targets) {
  constexpr int64_t grain = 4096;
  parallel_for((rows + grain - 1) / grain, [&](int64_t piece) {
    for (int64_t i = piece * grain; i < rows && i < (piece + 1) * grain; ++i) {
      uint32_t row;
      uint8_t minus;
      sparse_column(s, static_cast<uint64_t>(j0 + i), &row, &minus);
      targets[i] = 2 * row + minus;
    }
  });
}

// Rows of A long enough to be fetched one by one: each row of the result collects its own, in order.
template <class T>
void count_sketch_by_rows(const SparseSketch& s, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  constexpr int64_t L = kLanes<T>, strip = 64 * L;
  const int64_t d = s.rows();
  Scratch<uint32_t> targets(A.rows), sources(A.rows), start(d + 1);
  count_targets(s, j0, A.rows, targets.data);
  for (int64_t o = 0; o <= d; ++o) start.data[o] = 0;
  for (int64_t i = 0; i < A.rows; ++i) ++start.data[(targets.data[i] >> 1) + 1];
  for (int64_t o = 0; o < d; ++o) start.data[o + 1] += start.data[o];
  // Filling moves each start to its end, which is the next start.
  for (int64_t i = 0; i < A.rows; ++i)
    sources.data[start.data[targets.data[i] >> 1]++] = 2 * static_cast<uint32_t>(i) + (targets.data[i] & 1);
  constexpr int64_t grain = 16;
  parallel_for((d + grain - 1) / grain, [&](int64_t piece) {
    T sum[strip];
    for (int64_t o = piece * grain; o < d && o < (piece + 1) * grain; ++o) {
      const uint32_t begin = o ? start.data[o - 1] : 0, end = start.data[o];
      for (int64_t c0 = 0; c0 < A.cols; c0 += strip) {
        const int64_t cols = c0 + strip < A.cols ? strip : A.cols - c0;
        __builtin_memset(sum, 0, sizeof sum);
        for (uint32_t e = begin; e < end; ++e) {
          const T* row = A.at(sources.data[e] >> 1, c0);
          // The next row lies anywhere: fetch it while this one is added.
          const T* next = A.at(sources.data[e + 1 < A.rows ? e + 1 : e] >> 1, c0);
          const T sign = sources.data[e] & 1 ? T(-1) : T(1);
          int64_t c = 0;
          for (; c + L <= cols; c += L) {
            __builtin_prefetch(next + c);
            store(sum + c, load(sum + c) + load(row + c) * sign);
          }
          for (; c < cols; ++c) sum[c] += row[c] * sign;
        }
        T* to = out.at(o, c0);
        for (int64_t c = 0; c < cols; ++c) to[c] += sum[c];
      }
    }
  });
}

// Contiguous columns: a vector of them is turned into rows, tile by tile, and these are added to a strip that stays in the cache.
template <class T>
void count_sketch_by_columns(const SparseSketch& s, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  constexpr int64_t L = kLanes<T>, tile = 64, ahead = 4;
  const int64_t d = s.rows(), strips = (A.cols + L - 1) / L, workers = strips < max_threads() ? strips : max_threads();
  // Looked up: a branch on a random sign would be foreseen half of the time.
  const T signs[2] = {T(1), T(-1)};
  Scratch<uint32_t> targets(A.rows);
  count_targets(s, j0, A.rows, targets.data);
  Scratch<T> memory(workers * (d + tile) * L);
  parallel_for(strips, [&](int64_t q) {
    T *sum = memory.data + thread_index() * (d + tile) * L, *packed = sum + d * L;
    const int64_t c0 = q * L, cols = c0 + L < A.cols ? L : A.cols - c0;
    __builtin_memset(sum, 0, static_cast<size_t>(d * L) * sizeof(T));
    for (int64_t i0 = 0; i0 < A.rows; i0 += tile) {
      const int64_t rows = i0 + tile < A.rows ? tile : A.rows - i0;
      // As many streams as columns are more than the hardware follows.
      if (i0 + (ahead + 1) * tile <= A.rows)
        for (int64_t c = 0; c < cols; ++c)
          for (int64_t i = 0; i < tile; i += L) __builtin_prefetch(A.at(i0 + ahead * tile + i, c0 + c));
      pack<T>(A, i0, rows, c0, cols, packed, L);
      for (int64_t i = 0; i < rows; ++i) {
        const uint32_t target = targets.data[i0 + i];
        T* to = sum + (target >> 1) * L;
        store(to, load(to) + load(packed + i * L) * signs[target & 1]);
      }
    }
    for (int64_t o = 0; o < d; ++o)
      for (int64_t c = 0; c < cols; ++c) *out.at(o, c0 + c) += sum[o * L + c];
  });
}

}  // namespace
}  // namespace randla::cpu
