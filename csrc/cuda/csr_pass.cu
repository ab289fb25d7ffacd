// Products with a sparse matrix and its transpose. A' t is a product with the transpose in CSR form, which the caller keeps: adding
// the rows of A up where they belong would need atomic additions, whose order changes from run to run. The copy costs as much
// memory as A and is made once; every pass then reads both.
//
// Bytes: of both copies value and index of every entry; besides, x is read once for every entry, from the caches as far as they
// hold it. The order of sums depends on the shape and the number of entries alone.

#include "cuda/margin_pass.h"
#include "cuda/passes.h"

namespace randla::cuda {
namespace {

constexpr int64_t kLongRow = 4096;  // entries; longer rows are cut, or one warp would work on them while all others wait

// out[q count + i] = a_i . x_q, a group of G neighbouring threads for each row.
template <class T, class Index, int G, int K>
struct CsrDots {
  static constexpr int kThreads = 256, kTeam = G, kPhases = 2;
  static constexpr int dealt(int phase) { return phase == 0 ? K : 0; }
  struct State {
    double sum[K];
  };

  Csr<T> A;
  RowChoice rows;
  int64_t k;
  const double* x;
  double* out;
  bool skip_long;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step) const {
    const int64_t i = lane.x * (kThreads / G) + lane.thread / G;
    const int l = lane.thread % G;
    int64_t from = 0, to = 0;
    if (i < rows.count) {
      const int64_t row = rows.rows ? rows.rows[i] : i;
      from = static_cast<const Index*>(A.indptr)[row], to = static_cast<const Index*>(A.indptr)[row + 1];
    }
    const bool skip = i >= rows.count || (skip_long && to - from > kLongRow);
    if constexpr (P == 0) {
#pragma unroll
      for (int q = 0; q < K; ++q) state.sum[q] = 0;
      if (skip) return;
#pragma unroll 4
      for (int64_t p = from + l; p < to; p += G) {
        const double value = static_cast<double>(load_once(A.values + p));
        const int64_t j = load_once(static_cast<const Index*>(A.indices) + p);
#pragma unroll
        for (int q = 0; q < K; ++q)
          if (q < k) state.sum[q] = fused(value, x[q * A.cols + j], state.sum[q]);
      }
    } else if (l < K && l < k && !skip) {
      out[l * rows.count + i] = dealt_sum<CsrDots>(lane, l);
    }
  }
};

// Long rows in pieces of kLongRow entries: a piece can hold parts of two of them, the one it begins in and the one it ends in.
template <class T, class Index, int K>
struct LongPieces {
  static constexpr int kThreads = 256, kPhases = 2;
  static constexpr int dealt(int phase) { return phase == 0 ? 2 * K : 0; }
  struct State {
    double sum[2 * K];
  };

  Csr<T> A;
  int64_t entries, k;
  const double* x;
  double* pieces;  // (pieces, 2, K)

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  // The last row that begins at or before an entry: the one that holds it.
  RANDLA_HD int64_t row_of(int64_t entry) const {
    int64_t low = 0, high = A.rows;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (static_cast<const Index*>(A.indptr)[middle] <= entry ? low : high) = middle;
    }
    return low;
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step) const {
    if constexpr (P == 0) {
      const Index* const start = static_cast<const Index*>(A.indptr);
      const int64_t from = lane.x * kLongRow, to = from + kLongRow < entries ? from + kLongRow : entries;
      const int64_t first = row_of(from), last = row_of(to - 1);
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const int64_t row = s == 0 ? first : last, begin = start[row], end = start[row + 1];
        const bool wanted = end - begin > kLongRow && (s == 0 || last != first);
#pragma unroll
        for (int q = 0; q < K; ++q) state.sum[s * K + q] = 0;
        if (!wanted) continue;
        for (int64_t p = (begin > from ? begin : from) + lane.thread; p < (end < to ? end : to); p += kThreads) {
          const double value = static_cast<double>(A.values[p]);
          const int64_t j = static_cast<const Index*>(A.indices)[p];
#pragma unroll
          for (int q = 0; q < K; ++q)
            if (q < k) state.sum[s * K + q] = fused(value, x[q * A.cols + j], state.sum[s * K + q]);
        }
      }
    } else if (lane.thread < 2 * K) {
      pieces[lane.x * 2 * K + lane.thread] = dealt_sum<LongPieces>(lane, lane.thread);
    }
  }
};

template <class T, class Index, int K>
struct LongRows {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  Csr<T> A;
  int64_t k;
  const double* pieces;
  double* out;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread;
    if (i >= A.rows) return;
    const int64_t begin = static_cast<const Index*>(A.indptr)[i], end = static_cast<const Index*>(A.indptr)[i + 1];
    if (end - begin <= kLongRow) return;
    for (int64_t q = 0; q < k; ++q) {
      double sum = 0;
      for (int64_t p = begin / kLongRow; p <= (end - 1) / kLongRow; ++p)
        sum += pieces[(p * 2 + (begin <= p * kLongRow ? 0 : 1)) * K + q];
      out[q * A.rows + i] = sum;
    }
  }
};

template <class T, class Index, int K>
void dots(const Csr<T>& A, int64_t entries, const RowChoice& rows, int64_t k, const double* x, double* out, double* pieces,
          Stream stream) {
  const bool whole = rows.rows == nullptr, cut = whole && entries > kLongRow;
  // As many threads as a row has entries, roughly; but a row of one vector does not need fewer than four.
  if (A.rows > 0 && entries / A.rows < 24) {
    using Dots = CsrDots<T, Index, 4, K>;
    launch(Dots{A, rows, k, x, out, cut}, {divided_up(rows.count, Dots::kThreads / 4)}, stream);
  } else {
    using Dots = CsrDots<T, Index, 32, K>;
    launch(Dots{A, rows, k, x, out, cut}, {divided_up(rows.count, Dots::kThreads / 32)}, stream);
  }
  if (!cut) return;
  launch(LongPieces<T, Index, K>{A, entries, k, x, pieces}, {divided_up(entries, kLongRow)}, stream);
  launch(LongRows<T, Index, K>{A, k, pieces, out}, {divided_up(A.rows, LongRows<T, Index, K>::kThreads)}, stream);
}

// out (k, rows.count) = x A'.
template <class T>
void csr_dots(const Csr<T>& A, int64_t entries, const RowChoice& rows, int64_t k, const double* x, double* out, double* pieces,
              Stream stream) {
  constexpr int64_t most = 4;
  for (int64_t q = 0; q < k; q += most) {
    const int64_t some = k - q < most ? k - q : most;
    const double* const xq = x + q * A.cols;
    double* const to = out + q * rows.count;
    if (A.wide)
      some == 1 ? dots<T, int64_t, 1>(A, entries, rows, some, xq, to, pieces, stream)
                : dots<T, int64_t, 4>(A, entries, rows, some, xq, to, pieces, stream);
    else
      some == 1 ? dots<T, int32_t, 1>(A, entries, rows, some, xq, to, pieces, stream)
                : dots<T, int32_t, 4>(A, entries, rows, some, xq, to, pieces, stream);
  }
}

// to (k, m) = the sums of t (k, count) over those positions that take a row; rows ascend, so that these are neighbours.
struct Spread {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  RowChoice rows;
  int64_t k, m;
  const double* t;
  double* to;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  // The first position whose row is not below i.
  RANDLA_HD int64_t position(int64_t i) const {
    int64_t low = 0, high = rows.count;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (rows.rows[middle] < i)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  template <int>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread;
    if (i >= m) return;
    const int64_t first = position(i);
    for (int64_t q = 0; q < k; ++q) {
      double sum = 0;
      for (int64_t p = first; p < rows.count && rows.rows[p] == i; ++p) sum += t[q * rows.count + p];
      to[q * m + i] = sum;
    }
  }
};

// What of `memory` belongs to what: multipliers, those of all rows, pieces of long rows, sums of blocks.
struct CsrMemory {
  double *t, *spread, *pieces, *partial;
};

int64_t piece_numbers(int64_t entries) { return divided_up(entries, kLongRow) * 2 * 4; }

template <class T>
CsrMemory parts(const CsrPair<T>& A, const RowChoice& rows, int64_t k, double* memory) {
  double* const spread = memory + k * rows.count;
  double* const pieces = spread + (rows.rows ? k * A.rows.rows : 0);
  return {memory, spread, pieces, pieces + piece_numbers(A.entries)};
}

template <class T, class Multiply>
void csr_pass(const CsrPair<T>& A, const RowChoice& rows, int64_t k, const double* x, double* g, const CsrMemory& memory,
              Stream stream, const Multiply& multiply) {
  if (x) csr_dots(A.rows, A.entries, rows, k, x, memory.t, memory.pieces, stream);
  multiply();
  if (!g) return;
  const double* t = memory.t;
  if (rows.rows) {
    launch(Spread{rows, k, A.rows.rows, t, memory.spread}, {divided_up(A.rows.rows, Spread::kThreads)}, stream);
    t = memory.spread;
  }
  csr_dots(A.columns, A.entries, {nullptr, A.rows.cols}, k, t, g, memory.pieces, stream);
}

template <class T>
void linear_pass(const CsrPair<T>& A, const RowChoice& rows, const Margins<double>& m, const double* x, double* g, double* sums,
                 double* memory, Stream stream) {
  const CsrMemory part = parts(A, rows, m.k, memory);
  csr_pass(A, rows, m.k, x, g, part, stream, [&] {
    constexpr int64_t most = EachMargin<double>::kSums;
    for (int64_t q = 0; q < m.k; q += most) {
      const int64_t k = m.k - q < most ? m.k - q : most;
      sum_over(EachMargin<double>{some_of(m, q, k), part.t + q * m.count}, m.count, static_cast<int>(k), sums ? sums + q : nullptr,
               part.partial, stream);
    }
  });
}

}  // namespace

int64_t csr_pass_memory(int64_t m, int64_t entries, int64_t count, bool listed, int64_t k) {
  return k * count + (listed ? k * m : 0) + piece_numbers(entries) + 8 * margin_blocks(count).count;
}

template <class T>
void residual_csr(const CsrPair<T>& A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
                  double* squares, double* memory, Stream stream) {
  const int64_t m = A.rows.rows;
  linear_pass<T>(A, {nullptr, m}, {Rule::kResidual, k, m, b, w, r, nullptr, nullptr}, x, g, squares, memory, stream);
}

template <class T>
void weighted_product_csr(const CsrPair<T>& A, const RowChoice& rows, int64_t k, const double* x, const double* c, const double* d,
                          double* u, double* g, double* memory, Stream stream) {
  linear_pass<T>(A, rows, {Rule::kProduct, k, rows.count, c, d, u, nullptr, nullptr}, x, g, nullptr, memory, stream);
}

template <class T>
void softmax_product_csr(const CsrPair<T>& A, const RowChoice& rows, int64_t k, const double* x, const double* p, const double* w,
                         double* g, double* memory, Stream stream) {
  const Margins<double> m{Rule::kSoftmaxProduct, k, rows.count, p, w, nullptr, nullptr, nullptr};
  const CsrMemory part = parts(A, rows, k, memory);
  csr_pass(A, rows, k, x, g, part, stream,
           [&] { sum_over(JointMargins{m, part.t, part.t}, m.count, 1, nullptr, part.partial, stream); });
}

template <class T>
void glm_csr(const CsrPair<T>& A, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c,
             double* d, double* g, double* total, double* memory, Stream stream) {
  const Margins<double> m = margins_of(loss, k, rows.count, z, c, d);
  const CsrMemory part = parts(A, rows, k, memory);
  csr_pass(A, rows, k, x, g, part, stream, [&] {
    if (m.joint())
      sum_over(JointMargins{m, part.t, part.t}, m.count, 1, total, part.partial, stream);
    else
      sum_over(LossOfMargins{m, part.t, part.t}, m.count, 1, total, part.partial, stream);
  });
}

#define RANDLA_PASSES(T)                                                                                                        \
  template void residual_csr<T>(const CsrPair<T>&, int64_t, const double*, const double*, const double*, double*, double*,      \
                                double*, double*, Stream);                                                                      \
  template void weighted_product_csr<T>(const CsrPair<T>&, const RowChoice&, int64_t, const double*, const double*,             \
                                        const double*, double*, double*, double*, Stream);                                      \
  template void softmax_product_csr<T>(const CsrPair<T>&, const RowChoice&, int64_t, const double*, const double*,              \
                                       const double*, double*, double*, Stream);                                                \
  template void glm_csr<T>(const CsrPair<T>&, const RowChoice&, const Loss&, int64_t, const double*, double*, double*, double*, \
                           double*, double*, double*, Stream)
RANDLA_PASSES(float);
RANDLA_PASSES(double);
#undef RANDLA_PASSES

}  // namespace randla::cuda
