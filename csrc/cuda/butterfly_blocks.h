// One stage of large blocks, a d products of matrices b x c and c x batch whose rows lie d apart.
//
// Bytes to move: X once for every 64 rows of a block, Y once, the blocks once for every tile of columns, most of it from L2. A
// block of threads owns up to 64 rows of a block and a tile of columns, a thread 64 registers of sums: float32 8 x 8 numbers,
// 64 products for 4 loads of 16 bytes from shared memory. What the next step needs is loaded to registers before the products
// of this one and stored to the other half of shared memory after them: one barrier a step. Rows of the result are fixed to
// threads and X is read where it lies, so nothing is permuted before or after. Where the batch comes first and d > 1, a row's
// neighbours in memory are of other blocks: a tile then has `Near` neighbouring blocks, 32 bytes at a time.
//
// By arithmetic FFMA-bound from b = 64 on, with 12 of the 20 bytes per clock that L2 gives; bound by the memory below.
#pragma once

#include "cuda/butterfly.h"

namespace randla::cuda {

template <class T, bool Pairs, int Rows, int Near>
struct BlockTile {
  static constexpr int P = Pairs ? 2 : 1, N = kPack<T>, V = N / P, size = sizeof(T) * P;
  static constexpr int kRowsEach = size == 16 ? 4 : 8, kColumnsEach = size == 4 ? 8 : 4;  // of a thread
  static constexpr int kDown = Rows / kRowsEach;
  static constexpr int kThreads = Near > 1 ? 256 : Rows == 16 ? 64 : 128, kPhases = 2, kOpening = 1, kClosing = 1;
  // Registers for 64 sums and what is under way.
  static constexpr int kBlocks = kThreads == 256 ? 1 : kThreads == 64 ? 4 : sizeof(T) == 8 ? 2 : 3;
  static constexpr int kAcross = kThreads / Near / kDown, kColumns = kAcross * kColumnsEach;
  static constexpr int kDepth = size == 16 || (Rows == 64 && Near == 1) ? 8 : 4;  // columns of a block in a step
  // Numbers that a thread loads.
  static constexpr int kTop = kDepth * Rows * Near / kThreads, kSide = kDepth * kColumns * Near / kThreads;
  static constexpr int kTopStep = Rows + V, kSideStep = kColumns + V;  // numbers, whole packs
  // Who is still in phase 1 reads a half of shared memory that nobody writes before the barrier of the next step.
  static constexpr bool free(int phase) { return phase == 1; }
  using Row = Pack<T, N>;
  static_assert(kDepth * Rows * Near % kThreads == 0 && kDepth * kColumns * Near % kThreads == 0, "threads load as much each");

  struct State {
    Row sum[kRowsEach][kColumnsEach / V];
    T top[kTop][P], side[kSide][P];
    int64_t i, l0, row, column;
  };

  ButterflyStage<T> stage;  // values (a, d, c, b)
  Matrix<const T> X;
  Matrix<T> Y;
  int64_t row_tiles, column_tiles, near_tiles;
  bool columns_first, down_columns;  // of X: neighbouring threads load neighbours along its columns
  bool packs_across, packs_down;     // of Y

  static constexpr size_t shared_bytes() { return 2 * kDepth * Near * (kTopStep + kSideStep) * size; }
  RANDLA_HD int64_t steps(const Lane&) const { return (stage.c + kDepth - 1) / kDepth; }

  static RANDLA_HD T* top_at(const Lane& lane, int64_t half, int k, int l, int j) {
    return reinterpret_cast<T*>(lane.shared) + (((half * kDepth + k) * Near + l) * kTopStep + j) * P;
  }
  static RANDLA_HD T* side_at(const Lane& lane, int64_t half, int k, int l, int column) {
    return top_at(lane, 2, 0, 0, 0) + (((half * kDepth + k) * Near + l) * kSideStep + column) * P;
  }

  struct Place {
    int near, down, across;
  };
  // Where a thread's sums are. Warps are as square as can be; where there are neighbours, these come first, to be stored
  // together.
  static RANDLA_HD Place place(const Lane& lane) {
    if constexpr (Near > 1) {
      const int rest = lane.thread / Near;
      return {lane.thread % Near, rest / kAcross, rest % kAcross};
    }
    constexpr int down = kDown < 8 ? kDown : 8, across = kWarp / down;
    const int warp = lane.thread / kWarp, t = lane.thread % kWarp;
    return {0, t / across + warp % (kDown / down) * down, t % across + warp / (kDown / down) * across};
  }

  template <int>
  RANDLA_HD void open(const Lane& lane, State& s) const {
    int64_t id = lane.x;
    s.row = id % row_tiles * Rows;
    id /= row_tiles;
    const int64_t near_blocks = near_tiles * stage.a;
    const int64_t column = columns_first ? id % column_tiles : id / near_blocks;
    const int64_t block = columns_first ? id / column_tiles : id % near_blocks;
    s.column = column * kColumns;
    s.i = block / near_tiles;
    s.l0 = block % near_tiles * Near;
#pragma unroll
    for (int j = 0; j < kRowsEach; ++j)
#pragma unroll
      for (int v = 0; v < kColumnsEach / V; ++v) s.sum[j][v] = {};
    fetch(lane, s, 0);
  }

  // Thread t and load m make place m kThreads + t of a tile, whose sizes are powers of two: what m adds to a row, a column, a
  // block is known to the compiler.
  struct Cell {
    int k, l, j;
  };
  static RANDLA_HD Cell top_cell(int e) { return {e / Rows % kDepth, e / (Rows * kDepth), e % Rows}; }
  template <bool down>
  static RANDLA_HD Cell side_cell(int e) {
    if constexpr (Near > 1)
      return {e / (Near * kColumns), e % Near, e / Near % kColumns};
    else if constexpr (down)
      return {e % kDepth, 0, e / kDepth};
    else
      return {e / kColumns, 0, e % kColumns};
  }

  RANDLA_HD void fetch(const Lane& lane, State& s, int64_t k0) const {
    const Cell t = top_cell(lane.thread);
    const T* const from = stage.values + (((s.i * stage.d + s.l0 + t.l) * stage.c + k0 + t.k) * stage.b + s.row + t.j) * P;
#pragma unroll
    for (int m = 0; m < kTop; ++m) {
      const Cell add = top_cell(m * kThreads);
      const bool here = k0 + t.k + add.k < stage.c && s.row + t.j + add.j < stage.b && s.l0 + t.l + add.l < stage.d;
      const T* const at = from + ((add.l * stage.c + add.k) * stage.b + add.j) * P;
#pragma unroll
      for (int p = 0; p < P; ++p) s.top[m][p] = here ? at[p] : T(0);
    }
    if (Near == 1 && down_columns)
      fetch_side<true>(lane, s, k0);
    else
      fetch_side<false>(lane, s, k0);
  }

  template <bool down>
  RANDLA_HD void fetch_side(const Lane& lane, State& s, int64_t k0) const {
    const Cell t = side_cell<down>(lane.thread);
    const T* const from = at(X, (s.i * stage.c + k0 + t.k) * stage.d + s.l0 + t.l, s.column + t.j);
#pragma unroll
    for (int m = 0; m < kSide; ++m) {
      const Cell add = side_cell<down>(m * kThreads);
      const bool here = k0 + t.k + add.k < stage.c && s.column + t.j + add.j < X.cols && s.l0 + t.l + add.l < stage.d;
      const T* const at = from + (add.k * stage.d + add.l) * X.row_stride + add.j * X.col_stride;
#pragma unroll
      for (int p = 0; p < P; ++p) s.side[m][p] = here ? at[p] : T(0);
    }
  }

  template <bool down>
  RANDLA_HD void give_side(const Lane& lane, const State& s, int64_t half) const {
    const Cell t = side_cell<down>(lane.thread);
#pragma unroll
    for (int m = 0; m < kSide; ++m) {
      const Cell add = side_cell<down>(m * kThreads);
#pragma unroll
      for (int p = 0; p < P; ++p) side_at(lane, half, t.k + add.k, t.l + add.l, t.j + add.j)[p] = s.side[m][p];
    }
  }

  template <int Phase>
  RANDLA_HD void phase(const Lane& lane, State& s, Step step) const {
    const int64_t half = step.index & 1;
    if constexpr (Phase == 0) {
      const Cell t = top_cell(lane.thread);
#pragma unroll
      for (int m = 0; m < kTop; ++m) {
        const Cell add = top_cell(m * kThreads);
#pragma unroll
        for (int p = 0; p < P; ++p) top_at(lane, half, t.k + add.k, t.l + add.l, t.j + add.j)[p] = s.top[m][p];
      }
      if (Near == 1 && down_columns)
        give_side<true>(lane, s, half);
      else
        give_side<false>(lane, s, half);
    } else {
      if (!step.last()) fetch(lane, s, (step.index + 1) * kDepth);
      const Place own = place(lane);
#pragma unroll 2
      for (int k = 0; k < kDepth; ++k) {
        Row w[kRowsEach / V], x[kColumnsEach / V];
#pragma unroll
        for (int v = 0; v < kRowsEach / V; ++v)
          w[v] = load_pack<T, N>(top_at(lane, half, k, own.near, (v * kDown + own.down) * V));
#pragma unroll
        for (int v = 0; v < kColumnsEach / V; ++v)
          x[v] = load_pack<T, N>(side_at(lane, half, k, own.near, (v * kAcross + own.across) * V));
#pragma unroll
        for (int j = 0; j < kRowsEach; ++j)
#pragma unroll
          for (int v = 0; v < kColumnsEach / V; ++v) add_product<Pairs>(false, w[j / V].v + j % V * P, x[v], s.sum[j][v]);
      }
    }
  }

  template <int>
  RANDLA_HD void close(const Lane& lane, State& s) const {
    const Place own = place(lane);
    const int64_t l = s.l0 + own.near;
    if (l >= stage.d) return;
    if (packs_down) {
#pragma unroll
      for (int v = 0; v < kColumnsEach; ++v)
#pragma unroll
        for (int j = 0; j < kRowsEach; j += V) {
          const int64_t row = s.row + (j / V * kDown + own.down) * V, column = column_of(s, own, v);
          if (row >= stage.b || column >= Y.cols) continue;
          Row out;
#pragma unroll
          for (int e = 0; e < N; ++e) out.v[e] = s.sum[j + e / P][v / V].v[v % V * P + e % P];
          store_pack<T, N>(at(Y, s.i * stage.b + row, column), out);
        }
      return;
    }
#pragma unroll
    for (int j = 0; j < kRowsEach; ++j) {
      const int64_t in_block = s.row + (j / V * kDown + own.down) * V + j % V;
      if (in_block >= stage.b) continue;
      const int64_t row = (s.i * stage.b + in_block) * stage.d + l;
#pragma unroll
      for (int v = 0; v < kColumnsEach; v += V) {
        const int64_t column = column_of(s, own, v);
        if (column >= Y.cols) continue;
        if (packs_across) {
          store_pack<T, N>(at(Y, row, column), s.sum[j][v / V]);
          continue;
        }
#pragma unroll
        for (int e = 0; e < N; ++e)
          if (column + e / P < Y.cols) at(Y, row, column + e / P)[e % P] = s.sum[j][v / V].v[e];
      }
    }
  }

  static RANDLA_HD int64_t column_of(const State& s, const Place& own, int v) {
    return s.column + (v / V * kAcross + own.across) * V + v % V;
  }
};

}  // namespace randla::cuda
