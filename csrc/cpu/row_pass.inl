// A pass over rows: t = A x for a few rows at a time, a middle that makes one multiplier of every row out of t, and g += A' t
// while the rows still lie in the cache. Residuals, gradients and Hessian products are such passes; each differs in its middle.
//
// Everything is float64, whatever A is stored in. Rows are cut into chunks by the shape alone and partial results added in the
// order of the chunks: the same bits for any number of threads.

namespace randla::cpu {
namespace {

struct RowPass {
  int64_t k;            // vectors
  const double* x;      // (k, n), or null: t comes from the middle alone
  double* g;            // (k, n), or null where A' t is not wanted
  const int64_t* rows;  // the rows of A to take, or null for all of them in order
  int64_t count;        // rows taken
  // Has t for the rows at positions [i0, i0 + count), one vector every `stride`, and may add to `sums`.
  void (*middle)(const void* context, int64_t i0, int64_t count, double* t, int64_t stride, double* sums);
  const void* context;
  int64_t sum_count;
  double* sums;

  int64_t row(int64_t i) const { return rows ? rows[i] : i; }
};

constexpr int64_t kMaxChunks = 64;
constexpr int64_t kChunkElements = 1 << 17;  // less is not worth waking a thread
constexpr int64_t kTileBytes = 16 * 1024;
constexpr int64_t kPackedBytes = 256 * 1024;
constexpr int64_t kPrefetchBytes = 16384;
constexpr int64_t kCacheLine = 64;

// Columns are taken eight at a time; where n is no multiple of 8 the last block begins at n - 8, and the columns that it shares
// with the one before count as zero. Vectors are stored block after block; the one block of n < 8 has its zeros at the end.
inline int64_t padded(int64_t n) { return n < 8 ? 8 : (n + 7) / 8 * 8; }
inline int64_t padded_place(int64_t j, int64_t n) { return n < 8 || j < n / 8 * 8 ? j : j - n + padded(n); }

inline void pad_vector(const double* from, int64_t n, double* to) {
  for (int64_t j = 0; j < padded(n); ++j) to[j] = 0.0;
  for (int64_t j = 0; j < n; ++j) to[padded_place(j, n)] = from[j];
}

inline void add_padded(const double* from, int64_t n, double* to) {
  for (int64_t j = 0; j < n; ++j) to[j] += from[padded_place(j, n)];
}

// Calls chunk(i0, i1, g, sums) for fixed ranges of positions with zeroed partial results, and gives these to add(g) in order.
template <class Chunk, class Add>
void sum_over_chunks(const RowPass& pass, int64_t grain, int64_t size, const Chunk& chunk, const Add& add) {
  const int64_t m = pass.count;
  int64_t chunks = (m + grain - 1) / grain;
  if (chunks > kMaxChunks) chunks = kMaxChunks;
  const int64_t step = chunks > 0 ? ((m + chunks - 1) / chunks + grain - 1) / grain * grain : 0;
  if (step > 0) chunks = (m + step - 1) / step;
  const int64_t all = size + pass.sum_count;
  Scratch<double> partial(chunks * all);
  parallel_for(chunks, [&](int64_t c) {
    double* mine = partial.data + c * all;
    for (int64_t j = 0; j < all; ++j) mine[j] = 0.0;
    chunk(c * step, (c + 1) * step < m ? (c + 1) * step : m, size > 0 ? mine : nullptr, mine + size);
  });
  for (int64_t j = 0; j < pass.sum_count; ++j) pass.sums[j] = 0.0;
  for (int64_t c = 0; c < chunks; ++c) {
    const double* mine = partial.data + c * all;
    if (size > 0) add(mine);
    for (int64_t j = 0; j < pass.sum_count; ++j) pass.sums[j] += mine[size + j];
  }
}

inline int64_t chunk_rows(int64_t n) {
  const int64_t rows = (kChunkElements / (n > 0 ? n : 1) + 63) / 64 * 64;
  return rows < 256 ? 256 : rows;
}

inline void zero_gradient(const RowPass& pass, int64_t n) {
  for (int64_t j = 0; pass.g && j < pass.k * n; ++j) pass.g[j] = 0.0;
}

}  // namespace
}  // namespace randla::cpu
