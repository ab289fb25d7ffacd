// A pass over the rows of a matrix in Fortran order that reads it once, for one vector.
//
// A block owns a tile of rows, so few that all their numbers fit into its registers: kApart neighbouring threads read kApart packs
// of 16 bytes of a column, 256 bytes where columns are few and 64, two sectors, where they are many. A thread keeps its columns for
// the whole pass, and with them their sums of A' t, which are added over the kApart threads at the end; margins are added over all
// threads that have the same rows, once for every tile.
//
// Bytes: A once, in runs of 16 kApart; vectors once. For each pack of 16 bytes one number of x comes from shared memory. Tiles of
// 24 KB and more, three blocks of them on a multiprocessor or one of three times the size.
#pragma once

#include "cuda/margins.h"
#include "cuda/rows.h"

namespace randla::cuda {

template <class T, class V, int Apart, int Threads, int C, bool Nonlinear>
struct ColumnPass {
  static constexpr int kThreads = Threads, kApart = Apart, kPhases = 3, kOpening = 1, kClosing = 2;
  static constexpr int kBlocks = Threads > 128 ? 1 : Nonlinear ? 2 : 3;
  static constexpr int L = kPack<T>, G = Threads / Apart;  // numbers of a pack, threads of a row, each with C columns
  static constexpr int kRows = Apart * L, kColumns = C * G;
  static constexpr int dealt(int phase) { return phase == 0 ? L : 0; }
  static constexpr bool free(int phase) { return phase == 2; }  // the next step writes what it reads after it has waited to deal
  static_assert(kRows <= Threads, "a thread has at most one margin");

  struct State {
    T a[C][L];
    V g[C], sum[L];
    typename Margins<V>::Given given;
  };

  Matrix<const T> A;
  Margins<V> m;
  const V* x;
  bool want_g, packed;
  int64_t per_block;  // rows
  double* partial;    // (blocks, n + 1)

  struct Shared {
    union {
      V x[kColumns];
      V g[Apart * kColumns];  // once all rows are done
    };
    V t[kRows];
    double total[kRows];  // not in registers, of which there are few
  };
  static constexpr std::size_t shared_bytes() { return sizeof(Shared); }
  static RANDLA_HD Shared& shared(const Lane& lane) { return *reinterpret_cast<Shared*>(lane.shared); }

  RANDLA_HD int64_t steps(const Lane& lane) const {
    const int64_t left = A.rows - lane.x * per_block;
    return divided_up(left < per_block ? left : per_block, kRows);
  }
  RANDLA_HD int64_t first_row(const Lane& lane, Step step) const { return lane.x * per_block + step.index * kRows; }
  static RANDLA_HD int column(const Lane& lane, int c) { return lane.thread / Apart + c * G; }

  template <int>
  RANDLA_HD void open(const Lane& lane, State& state) const {
    if (x)
      for (int j = lane.thread; j < kColumns; j += kThreads) shared(lane).x[j] = j < A.cols ? x[j] : V(0);
#pragma unroll
    for (int c = 0; c < C; ++c) state.g[c] = 0;
    if (lane.thread < kRows) shared(lane).total[lane.thread] = 0;
  }

  template <int Phase>
  RANDLA_HD void phase(const Lane& lane, State& state, Step step) const {
    const int64_t i = first_row(lane, step) + lane.thread;
    const bool owns = lane.thread < kRows && i < A.rows;
    if constexpr (Phase == 0) {
      load(lane, state, step);
      state.given = {V(0), V(0)};
      if (owns) state.given = m.about(0, i);
#pragma unroll
      for (int e = 0; e < L; ++e) state.sum[e] = 0;
      if (!x) return;
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const V xj = shared(lane).x[column(lane, c)];
#pragma unroll
        for (int e = 0; e < L; ++e) state.sum[e] = fused(V(state.a[c][e]), xj, state.sum[e]);
      }
    } else if constexpr (Phase == 1) {
      if (lane.thread >= kRows) return;
      // Thread and row have the same number: memory of vectors is read and written by neighbours.
      const V t = dealt_sum<ColumnPass>(lane, lane.thread % L * Apart + lane.thread / L);
      double* const total = &shared(lane).total[lane.thread];
      shared(lane).t[lane.thread] = owns ? m.template multiplier<Nonlinear>(0, i, t, state.given, total) : V(0);
    } else if (want_g) {
      const V* const t = shared(lane).t + lane.thread % Apart * L;
#pragma unroll
      for (int e = 0; e < L; ++e) {
        const V factor = t[e];
#pragma unroll
        for (int c = 0; c < C; ++c) state.g[c] = fused(V(state.a[c][e]), factor, state.g[c]);
      }
    }
  }

  RANDLA_HD void load(const Lane& lane, State& state, Step step) const {
    const int64_t i0 = first_row(lane, step) + lane.thread % Apart * L;
    const int64_t next = G * A.col_stride;  // added up, because the addresses would not fit into the registers
    const int n = static_cast<int>(A.cols);
    const T* from = A.data + i0 + column(lane, 0) * A.col_stride;
    if (packed && i0 + L <= A.rows) {
#pragma unroll
      for (int c = 0; c < C; ++c, from += next)
        if (column(lane, c) < n)
          load_pack(from, state.a[c]);
        else
          zero_pack(state.a[c]);
      return;
    }
#pragma unroll
    for (int c = 0; c < C; ++c, from += next)
#pragma unroll
      for (int e = 0; e < L; ++e) state.a[c][e] = i0 + e < A.rows && column(lane, c) < n ? from[e] : T(0);
  }

  template <int Part>
  RANDLA_HD void close(const Lane& lane, State& state) const {
    double* const to = partial + lane.x * (A.cols + 1);
    if constexpr (Part == 0) {
#pragma unroll
      for (int c = 0; c < C; ++c) shared(lane).g[lane.thread % Apart * kColumns + column(lane, c)] = state.g[c];
    } else {
      for (int j = lane.thread; want_g && j < A.cols; j += kThreads) {
        double sum = 0;
        for (int s = 0; s < Apart; ++s) sum += static_cast<double>(shared(lane).g[s * kColumns + j]);
        to[j] = sum;
      }
      if (lane.thread == 0) {
        double sum = 0;
        for (int r = 0; r < kRows; ++r) sum += shared(lane).total[r];
        to[A.cols] = sum;
      }
    }
  }
};

}  // namespace randla::cuda
