// What the kernels over rows share: loads of 16 bytes, sums that are fused, how rows are cut into blocks, sums of partial results.
#pragma once

#include "cuda/block.h"

namespace randla::cuda {

template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

// Of memory that is read once: it need not stay in the caches.
template <class T>
static RANDLA_HD T load_once(const T* from) {
#ifdef __CUDA_ARCH__
  return __ldcs(from);
#else
  return *from;
#endif
}

template <class T>
static RANDLA_HD void load_pack(const T* from, T (&to)[kPack<T>]) {
#ifdef __CUDA_ARCH__
  const int4 bits = __ldcs(reinterpret_cast<const int4*>(from));
  memcpy(to, &bits, 16);
#else
  require_aligned(from, 16);
  for (int e = 0; e < kPack<T>; ++e) to[e] = from[e];
#endif
}

template <class T>
static RANDLA_HD void zero_pack(T (&to)[kPack<T>]) {
#pragma unroll
  for (int e = 0; e < kPack<T>; ++e) to[e] = 0;
}

template <class V>
static RANDLA_HD void load_shared(const V* from, V (&to)[kPack<V>]) {
#ifdef __CUDA_ARCH__
  const int4 bits = *reinterpret_cast<const int4*>(from);
  memcpy(to, &bits, 16);
#else
  require_aligned(from, 16);
  for (int e = 0; e < kPack<V>; ++e) to[e] = from[e];
#endif
}

static RANDLA_HD double fused(double a, double b, double c) { return fma(a, b, c); }
static RANDLA_HD float fused(float a, float b, float c) { return fmaf(a, b, c); }

// Whether rows can be read in packs from their first to their last number.
template <class T>
bool in_packs(const Matrix<const T>& A) {
  return reinterpret_cast<uintptr_t>(A.data) % 16 == 0 && A.row_stride % kPack<T> == 0 && A.cols % kPack<T> == 0;
}

// Rows of a block, by the shape alone: so many blocks that any device has its multiprocessors filled several times, so few that
// their partial sums are small beside the rows.
struct Blocks {
  int64_t rows, count;
};

constexpr int64_t kFewBlocks = 264;  // 2 for each of 132 multiprocessors
constexpr int64_t most_blocks(int64_t k) { return k == 1 ? 2112 : k <= 4 ? 1056 : 528; }

inline Blocks blocks_of_rows(int64_t rows, int64_t rows_per_step, int64_t most) {
  constexpr int64_t few = kFewBlocks;
  const int64_t steps = divided_up(rows, rows_per_step), filling = divided_up(steps, few);
  int64_t each = divided_up(steps, most);
  if (each < 8) each = filling < 8 ? filling : 8;
  if (each < 1) each = 1;
  return {each * rows_per_step, divided_up(steps, each)};
}

// Sums the rows of partial (count, width), in the end `first` columns to g and the next ones to sums. A warp adds a run of rows,
// the first one the runs, always in the same order.
template <class V>
struct SumPartial {
  static constexpr int kThreads = 1024, kPhases = 2, kRuns = kThreads / kWarp;
  struct State {};

  const double* partial;
  int64_t count, width, first, all;
  V* g;
  double* sums;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int run = lane.thread / kWarp, l = lane.thread % kWarp;
    const int64_t j = lane.x * kWarp + l;
    double* const between = reinterpret_cast<double*>(lane.shared) + l;
    if (j >= all || (j < first ? g == nullptr : sums == nullptr)) return;
    if constexpr (P == 0) {
      const int64_t each = divided_up(count, kRuns), end = (run + 1) * each < count ? (run + 1) * each : count;
      double sum = 0;
#pragma unroll 8
      for (int64_t i = run * each; i < end; ++i) sum += partial[i * width + j];
      between[run * kWarp] = sum;
    } else if (run == 0) {
      double sum = 0;
      for (int r = 0; r < kRuns; ++r) sum += between[r * kWarp];
      if (j < first)
        g[j] = static_cast<V>(sum);
      else
        sums[j - first] = sum;
    }
  }
};

template <class V>
void sum_partial(const double* partial, int64_t count, int64_t width, int64_t first, int64_t all, V* g, double* sums,
                 uintptr_t stream) {
  if (!g && !sums) return;
  using K = SumPartial<V>;
  launch(K{partial, count, width, first, all, g, sums}, {divided_up(all, kWarp), 1, K::kThreads * sizeof(double)}, stream);
}

inline void sum_columns(const double* partial, int64_t count, int64_t width, int64_t columns, double* sums, uintptr_t stream) {
  sum_partial<double>(partial, count, width, 0, columns, nullptr, sums, stream);
}

}  // namespace randla::cuda
