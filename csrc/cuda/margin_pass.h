// Sums over the numbers 0 .. count - 1 of what a body makes of them: passes over margins alone.
#pragma once

#include "cuda/margins.h"
#include "cuda/rows.h"

namespace randla::cuda {

// Body has `static constexpr int kSums` and void operator()(int64_t i, double (&sum)[kSums]) const, which adds to the sums.
// Bytes: those of the body, once; threads read neighbours.
template <class Body>
struct SumOver {
  static constexpr int kThreads = 256, kPhases = 1, kOpening = 1, kClosing = 3, S = Body::kSums;
  static_assert(S <= kThreads / kWarp, "a warp for each sum");
  struct State {
    double mine[S];
  };

  Body body;
  int64_t count, per_block;
  double* partial;  // (blocks, S)

  RANDLA_HD int64_t steps(const Lane& lane) const {
    const int64_t left = count - lane.x * per_block;
    return divided_up(left < per_block ? left : per_block, kThreads);
  }

  template <int>
  RANDLA_HD void open(const Lane&, State& state) const {
#pragma unroll
    for (int s = 0; s < S; ++s) state.mine[s] = 0;
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step step) const {
    const int64_t i = lane.x * per_block + step.index * kThreads + lane.thread;
    if (i < count) body(i, state.mine);
  }

  template <int P>
  RANDLA_HD void close(const Lane& lane, State& state) const {
    double* const all = reinterpret_cast<double*>(lane.shared);
    double* const warps = all + S * kThreads;
    const int s = lane.thread / kWarp, l = lane.thread % kWarp;
    if constexpr (P == 0) {
#pragma unroll
      for (int t = 0; t < S; ++t) all[t * kThreads + lane.thread] = state.mine[t];
    } else if constexpr (P == 1) {
      if (s >= S) return;
      double sum = 0;
      for (int t = 0; t < kThreads; t += kWarp) sum += all[s * kThreads + t + l];
      warps[s * kWarp + l] = sum;
    } else if (l == 0 && s < S) {
      double sum = 0;
      for (int t = 0; t < kWarp; ++t) sum += warps[s * kWarp + t];
      partial[lane.x * S + s] = sum;
    }
  }
};

// sums may be null. partial has room for kSums numbers of margin_blocks(count) blocks.
inline Blocks margin_blocks(int64_t count) { return blocks_of_rows(count, 256, 1056); }

template <class Body>
void sum_over(const Body& body, int64_t count, int sums_count, double* sums, double* partial, uintptr_t stream) {
  const Blocks blocks = margin_blocks(count);
  using K = SumOver<Body>;
  launch(K{body, count, blocks.rows, partial}, {blocks.count, 1, K::S * (K::kThreads + kWarp) * sizeof(double)}, stream);
  // Of Body::kSums columns the first ones are wanted.
  if (sums) sum_columns(partial, blocks.count, K::S, sums_count, sums, stream);
}

// Multipliers from margins, in place: vectors t (k, count).
template <class V>
struct EachMargin {
  static constexpr int kSums = 8;
  Margins<V> m;  // k <= 8
  V* t;

  RANDLA_HD void operator()(int64_t i, double (&sum)[kSums]) const {
#pragma unroll
    for (int q = 0; q < kSums; ++q)
      if (q < m.k) {
        V& mine = t[q * m.count + i];
        mine = m.template multiplier<false>(q, i, mine, m.about(q, i), &sum[q]);
      }
  }
};

// The same for a loss: z are margins, of which nothing is left where t is z.
struct LossOfMargins {
  static constexpr int kSums = 1;
  Margins<double> m;
  const double* z;
  double* t;

  RANDLA_HD void operator()(int64_t i, double (&sum)[kSums]) const {
    t[i] = m.template multiplier<true>(0, i, z[i], m.about(0, i), sum);
  }
};

// And for the rules that need all margins of a row.
struct JointMargins {
  static constexpr int kSums = 1;
  Margins<double> m;
  const double* z;
  double* t;

  RANDLA_HD void operator()(int64_t i, double (&sum)[kSums]) const {
    for (int64_t q = 0; q < m.k; ++q) {
      const double mine = z[q * m.count + i];
      if (m.out) m.out[q * m.count + i] = mine;
      t[q * m.count + i] = mine;
    }
    m.all_multipliers(i, t + i, m.count, m.labels() ? m.given[i] : 0.0, m.weights ? m.weights[i] : 1.0, sum);
  }
};

struct ChangeOfLoss {
  static constexpr int kSums = 2;
  Margins<double> m;
  const double *z, *u;

  RANDLA_HD void operator()(int64_t i, double (&sum)[kSums]) const {
    const double change = (m.weights ? m.weights[i] : 1.0) * change_of_loss(m, i, z, u);
    sum[0] += change;
    sum[1] += change * change;
  }
};

}  // namespace randla::cuda
