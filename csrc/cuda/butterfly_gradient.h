// Gradients of the numbers of all stages, dw = g x^* summed over the batch, from what the stages were given and what came back.
//
// Bytes to move: rows of X and G once for every 4 rows and columns of the blocks that they meet, from L2 where these are
// several. A warp owns 4 x 4 numbers of one block for one slice of the batch, its threads neighbouring columns: 64 products of
// float32 for 8 loads of 16 bytes. Sums of the threads are added in a fixed order, and those of the slices, which the batch
// alone cuts, one after another: the same bits on every device.
#pragma once

#include "cuda/butterfly.h"

namespace randla::cuda {

template <class T>
struct GradientStage {
  int64_t a, b, c, d, x_stride, g_stride;  // of contiguous rows
  const T *X, *G;
  int64_t first, to;  // item of the stage; its first number in dw

  RANDLA_HD int64_t items() const { return a * d * ((b + 3) / 4) * ((c + 3) / 4); }
};

template <class T, bool Pairs>
struct SliceGradient {
  static constexpr int kThreads = 256, kTeam = kWarp, kPhases = 2, kBlocks = 2;
  static constexpr int P = Pairs ? 2 : 1, N = kPack<T>, V = N / P;
  static constexpr int dealt(int phase) { return phase == 0 ? 16 * P : 0; }
  static constexpr bool free(int phase) { return phase == 1; }  // of the only step: nothing follows
  struct State {
    T sum[16 * P];
  };

  GradientStage<T> stages[kMostStages];
  int count;
  int64_t items, columns, per_slice, numbers;  // columns a multiple of V in memory; numbers of dw
  T* partial;                                  // (slices, numbers)

  struct Item {
    int stage;
    int64_t i, l, j0, k0;
  };

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  RANDLA_HD bool item_of(const Lane& lane, Item& at) const {
    const int64_t id = lane.x * (kThreads / kWarp) + lane.thread / kWarp;
    if (id >= items) return false;
    at.stage = 0;
    while (at.stage + 1 < count && stages[at.stage + 1].first <= id) ++at.stage;
    const GradientStage<T>& s = stages[at.stage];
    int64_t rest = id - s.first;
    const int64_t across = (s.c + 3) / 4, down = (s.b + 3) / 4;
    at.k0 = rest % across * 4;
    rest /= across;
    at.j0 = rest % down * 4;
    rest /= down;
    at.l = rest % s.d;
    at.i = rest / s.d;
    return true;
  }

  template <int Phase>
  RANDLA_HD void phase(const Lane& lane, State& state, Step) const {
    Item at;
    const bool works = item_of(lane, at);
    if constexpr (Phase == 0) {
#pragma unroll
      for (int n = 0; n < 16 * P; ++n) state.sum[n] = T(0);
      if (works) add_slice(lane, at, state);
    } else if (works) {
      const int n = lane.thread % kWarp, e = n / P;
      const GradientStage<T>& s = stages[at.stage];
      const int64_t j = at.j0 + e / 4, k = at.k0 + e % 4;
      if (n >= 16 * P || j >= s.b || k >= s.c) return;
      const int64_t number = s.to + ((at.i * s.d + at.l) * s.b + j) * s.c + k;
      partial[(lane.y * numbers + number) * P + n % P] = dealt_sum<SliceGradient>(lane, n);
    }
  }

  RANDLA_HD void add_slice(const Lane& lane, const Item& at, State& state) const {
    const GradientStage<T>& s = stages[at.stage];
    const T* const g0 = s.G + ((at.i * s.b + at.j0) * s.d + at.l) * s.g_stride;
    const T* const x0 = s.X + ((at.i * s.c + at.k0) * s.d + at.l) * s.x_stride;
    const int rows = static_cast<int>(s.b - at.j0 < 4 ? s.b - at.j0 : 4);
    const int cols = static_cast<int>(s.c - at.k0 < 4 ? s.c - at.k0 : 4);
    const int64_t start = lane.y * per_slice, end = start + per_slice < columns ? start + per_slice : columns;
    for (int64_t column = start + lane.thread % kWarp * V; column < end; column += kWarp * V) {
      Pack<T, N> g[4], x[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        g[r] = {};
        x[r] = {};
        if (r < rows) g[r] = load_pack<T, N>(g0 + r * s.d * s.g_stride + column * P);
        if (r < cols) x[r] = load_pack<T, N>(x0 + r * s.d * s.x_stride + column * P);
      }
#pragma unroll
      for (int e = 0; e < N; e += P) {
        if (column + e / P >= end) continue;
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            T* const sum = state.sum + (j * 4 + k) * P;
            if constexpr (Pairs) {
              sum[0] = fused(g[j].v[e + 1], x[k].v[e + 1], fused(g[j].v[e], x[k].v[e], sum[0]));
              sum[1] = fused(-g[j].v[e], x[k].v[e + 1], fused(g[j].v[e + 1], x[k].v[e], sum[1]));
            } else {
              sum[0] = fused(g[j].v[e], x[k].v[e], sum[0]);
            }
          }
      }
    }
  }
};

// dw, or what is added to it, from the slices in their order.
template <class T>
struct SliceSum {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  const T* partial;
  int64_t slices, size;
  bool add;
  T* dw;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread;
    if (i >= size) return;
    T total = add ? dw[i] : T(0);
    for (int64_t slice = 0; slice < slices; ++slice) total += partial[slice * size + i];
    dw[i] = total;
  }
};

// A matrix of any strides with contiguous rows of whole packs, the numbers beyond its columns zero.
template <class T, int P>
struct PackedCopy {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  Matrix<const T> A;
  T* to;
  int64_t stride;  // of rows of `to`

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread, across = stride / P;
    if (i >= A.rows * across) return;
    const int64_t row = i / across, column = i % across;
#pragma unroll
    for (int p = 0; p < P; ++p) to[row * stride + column * P + p] = column < A.cols ? at(A, row, column)[p] : T(0);
  }
};

}  // namespace randla::cuda
