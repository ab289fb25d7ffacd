// A run of stages with small blocks on tiles of rows and columns, Y = K_last ... K_first X; the columns are the batch.
//
// Bytes to move: X and Y once, and for every tile the numbers of the stages, which come from L2. A block of threads owns a tile
// (butterfly_plan.cpp says which) in shared memory; a thread takes the rows that two stages mix and 16 bytes of each, at most
// 16 rows, into its registers, applies both stages, and puts them back: one exchange through shared memory for two stages of
// blocks 4 x 4, which are up to four stages of 2 x 2. Where rows are contiguous the first stages load from memory and the last
// ones store to it. The numbers of a block are then used for 16 bytes of columns: 16 fused products of float32 for a load of 16
// bytes, which neighbouring threads share. For 32 float32 and n = 1024: 20 instructions for products, 5 loads of numbers, some
// 12 for places and 4 accesses of shared memory, 10 clocks of issue and at most 12 of the pipe to memory, where the memory
// takes 15.5; L2 gives two fifths of a byte for the numbers for every byte of X and Y.
//
// By this arithmetic, over the time to copy the batch on an H200 (not measured): float32 n = 512 1.0, 1024 1.07 (tiles of 96 KB,
// two on a multiprocessor), 2048 1.26 (192 KB, one), 4096 1.5 in two runs through L2, up to 1.8 with their launches on chunks of
// 16 MB; float64 n = 512 1.05, 1024 1.22, 2048 and 4096 1.6 to 1.9. In one run of 4096 the 393 KB of numbers for each tile would
// cost L2 more than the rows do (1.46 with tiles of 192 KB, of which each row then has 48 bytes); only multiprocessors that share
// a tile, a cluster of four by 1.1, would make it less.
//
// 64 registers of rows and 36 for what becomes of them leave room for 12 warps on a multiprocessor: what an item needs to know
// is read where it is needed rather than kept. Vectors that are contiguous themselves (batch first) are turned on their way to
// shared memory and back.
#pragma once

#include "cuda/butterfly.h"

namespace randla::cuda {

// Complex numbers of 16 bytes leave no registers for the blocks of two stages.
template <class T, bool Pairs>
constexpr bool kTwoStages = sizeof(T) * (Pairs ? 2 : 1) < 16;

// One or two stages that a thread applies to rows in its registers.
enum class UnitKind : int { kFourFour, kFourTwo, kTwoFour, kFour, kTwo, kAny };

template <class T>
struct ChainUnit {
  const T *first, *second;  // numbers of the stages as pack_stage left them
  uint32_t groups_first, groups_second;  // blocks in each of them
  uint32_t each_first, each_second;      // blocks in each of the blocks that the run leaves apart, of one neighbour
  UnitKind kind;
  int b, c, side;  // side: of shared memory, before the unit
  int items;       // of a whole tile: the rows and 16 bytes of columns that a thread takes at a time
  int64_t rows_in, rows_out;      // of one block and neighbour
  int64_t apart_first, apart_second;  // rows from one to the next of those that a stage mixes, without neighbours
  T* keep;                        // what all rows are after the unit, with contiguous rows, or null
};

// How rows come and go: packs along columns, straight to registers; packs along rows; number by number.
enum class Way : int { kPacks, kTurned, kNumbers };

// The same number, but the compiler does not know: it then makes what follows from it again rather than keep it in registers.
static RANDLA_HD int made_again(int i) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(i));
#endif
  return i;
}

// To global memory, at once: the compiler makes several stores of numbers that it has just computed.
static RANDLA_HD void store_whole(float* to, const Pack<float, 4>& x) {
#ifdef __CUDA_ARCH__
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x.v[0]), "f"(x.v[1]), "f"(x.v[2]), "f"(x.v[3])
               : "memory");
#else
  store_pack(to, x);
#endif
}
static RANDLA_HD void store_whole(double* to, const Pack<double, 2>& x) {
#ifdef __CUDA_ARCH__
  asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(to), "d"(x.v[0]), "d"(x.v[1]) : "memory");
#else
  store_pack(to, x);
#endif
}

template <class T, bool Pairs, int Threads, int Blocks>
struct RunTile {
  static constexpr int kThreads = Threads, kPhases = 2, kOpening = 1, kBlocks = Blocks;
  static constexpr bool free(int phase) { return phase == 1; }  // it is empty: one barrier between units
  static constexpr int P = Pairs ? 2 : 1, N = kPack<T>, V = N / P;  // reals of a number, of a pack, numbers of a pack
  using Row = Pack<T, N>;

  struct State {};
  // In shared memory, for want of registers.
  struct alignas(16) Tile {
    int pack, block, neighbour;  // the first of the tile
    int together, near;          // how many

    RANDLA_HD int64_t column() const { return static_cast<int64_t>(pack) * V; }
  };

  ChainUnit<T> units[kMostStages];
  int count, all;  // units; steps, with those that only load or store
  int packs, packs_bits;  // of a row of the tile: 2^packs_bits of them, or three times as many
  bool three;
  int out_side;  // where rows are after the last unit; the second side lies behind the first
  Way in, out;
  bool columns_first;  // neighbouring blocks of threads take neighbouring columns
  int together, neighbours;
  int blocks, stride, side_packs;
  int64_t column_tiles, neighbour_tiles, row_tiles;
  int64_t keep_stride;
  Matrix<const T> X;
  Matrix<T> Y;

  static constexpr std::size_t shared_bytes(int64_t rows) { return static_cast<std::size_t>(rows) + sizeof(Tile); }
  RANDLA_HD int64_t steps(const Lane&) const { return all; }

  static RANDLA_HD Tile& tile(const Lane& lane) { return *reinterpret_cast<Tile*>(lane.shared); }

  template <int>
  RANDLA_HD void open(const Lane& lane, State&) const {
    if (lane.thread != 0) return;
    Tile& s = tile(lane);
    const auto id = static_cast<uint32_t>(lane.x);
    const uint32_t tiles = static_cast<uint32_t>(columns_first ? column_tiles : row_tiles), low = id % tiles, high = id / tiles;
    const uint32_t column = columns_first ? low : high, row = columns_first ? high : low;
    const auto near_tiles = static_cast<uint32_t>(neighbour_tiles);
    s.pack = static_cast<int>(column) * packs;
    s.block = static_cast<int>(row / near_tiles) * together;
    s.neighbour = static_cast<int>(row % near_tiles) * neighbours;
    s.together = blocks - s.block < together ? blocks - s.block : together;
    s.near = stride - s.neighbour < neighbours ? stride - s.neighbour : neighbours;
  }

  template <int Phase>
  RANDLA_HD void phase(const Lane& lane, State&, Step step) const {
    if constexpr (Phase == 0) {
      const Tile& s = tile(lane);
      const int q = static_cast<int>(step.index) - (in == Way::kPacks ? 0 : 1);
      if (q < 0)
        in == Way::kTurned ? load_turned(lane, s) : load_numbers(lane, s);
      else if (q == count)
        out == Way::kTurned ? store_turned(lane, s) : store_numbers(lane, s);
      else
        apply(lane, s, q, in == Way::kPacks && q == 0, out == Way::kPacks && q + 1 == count);
    }
  }

  RANDLA_HD void apply(const Lane& lane, const Tile& s, int q, bool comes, bool goes) const {
    const ChainUnit<T>& u = units[q];
    if constexpr (kTwoStages<T, Pairs>) switch (u.kind) {
        case UnitKind::kFourFour: return mix<4, 4>(lane, s, q, comes, goes);
        case UnitKind::kFourTwo: return mix<4, 2>(lane, s, q, comes, goes);
        case UnitKind::kTwoFour: return mix<2, 4>(lane, s, q, comes, goes);
        default: break;
      }
    if (u.kind == UnitKind::kFour) return mix<4, 1>(lane, s, q, comes, goes);
    if (u.kind == UnitKind::kTwo) return mix<2, 1>(lane, s, q, comes, goes);
    switch (rows_at_once(u.b)) {
      case 1: return any<1>(lane, s, q, comes, goes);
      case 2: return any<2>(lane, s, q, comes, goes);
      default: return any<4>(lane, s, q, comes, goes);
    }
  }

  // Neighbouring items are the packs of one row.
  struct Item {
    uint32_t number;
    int pack;
  };
  RANDLA_HD Item item_of(int id) const {
    const uint32_t high = static_cast<uint32_t>(id) >> packs_bits, low = static_cast<uint32_t>(id) & ((1u << packs_bits) - 1);
    const uint32_t number = three ? high / 3 : high, third = three ? high - number * 3 : 0;
    return {number, static_cast<int>(third << packs_bits | low)};
  }

  // Packs of rows that are `packs` long lie in such places that neighbouring items, of rows far apart, are in different banks.
  RANDLA_HD Row* place(const Lane& lane, int side, int row, int u) const { return place(lane, side, row * packs + u); }
  RANDLA_HD Row* place(const Lane& lane, int side, int at) const {
    if (packs_bits < 3) {
      const int lines = 3 - packs_bits;  // log2 of the rows in 128 bytes
      int f = at >> 3;
      f ^= f >> lines;
      f ^= f >> 2 * lines;
      at ^= (f & ((1 << lines) - 1)) << packs_bits;
    }
    if (side != 0) at += side_packs;
    return reinterpret_cast<Row*>(lane.shared + sizeof(Tile)) + at;
  }

  // The row of the matrix that is row r of the tile, `each` of them for every block.
  RANDLA_HD int64_t matrix_row(const Tile& s, int64_t each, int r) const {
    if (s.near == stride) return s.block * each * stride + r;
    return s.block * each * stride + static_cast<int64_t>(r / s.near) * stride + s.neighbour + r % s.near;
  }
  // The block of a stage that is number g in the tile.
  RANDLA_HD uint32_t group(const Tile& s, uint32_t each, uint32_t g) const {
    const auto wide = static_cast<uint32_t>(stride), first = static_cast<uint32_t>(s.block) * each * wide;
    const auto near = static_cast<uint32_t>(s.near);
    return s.near == stride ? first + g : first + g / near * wide + static_cast<uint32_t>(s.neighbour) + g % near;
  }

  template <int B>
  static RANDLA_HD void numbers(const T* values, uint32_t groups, uint32_t k, uint32_t g, T (&w)[B * P]) {
    constexpr int reals = B * P < N ? B * P : N, parts = B * P / reals;
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      const uint32_t at = (k * parts + static_cast<uint32_t>(part)) * groups + g;
      const Pack<T, reals> v = load_pack<T, reals>(values + static_cast<uint64_t>(at) * reals);
#pragma unroll
      for (int e = 0; e < reals; ++e) w[part * reals + e] = v.v[e];
    }
  }

  // x <- w x for a block with B rows and columns.
  template <int B>
  static RANDLA_HD void square(const T* values, uint32_t groups, uint32_t g, Row* const (&x)[B]) {
    Row y[B];
#pragma unroll
    for (int k = 0; k < B; ++k) {
      T w[B * P];
      numbers<B>(values, groups, static_cast<uint32_t>(k), g, w);
#pragma unroll
      for (int j = 0; j < B; ++j) add_product<Pairs>(k == 0, w + j * P, *x[k], y[j]);
    }
#pragma unroll
    for (int j = 0; j < B; ++j) *x[j] = y[j];
  }

  // A stage with blocks of A rows and one with blocks of B, whose rows are different digits of the number of a row.
  template <int A, int B>
  RANDLA_HD void mix(const Lane& lane, const Tile& s, int q, bool comes, bool goes) const {
#pragma unroll 1
    for (int round = 0; round < units[made_again(q)].items; round += kThreads) {
      const int id = round + lane.thread;
      // An item is most of what a thread does: what it is told of the unit is read where it is needed, for want of registers.
      const ChainUnit<T>& u = units[made_again(q)];
      const uint32_t item = item_of(id).number;
      if (item >= static_cast<uint32_t>(static_cast<int>(u.rows_in) * s.near * s.together / (A * B))) continue;
      const int da = static_cast<int>(u.apart_first) * s.near, db = B > 1 ? static_cast<int>(u.apart_second) * s.near : 0;
      const bool up = B == 1 || db > da;  // the first stage has the lower digit
      const auto low = static_cast<uint32_t>(up ? da : db), low_span = low * (up ? A : B);
      const uint32_t high = up ? db : da, between = B > 1 ? high / low_span : 1;
      const int high_span = static_cast<int>(high) * (up ? B : A);
      const uint32_t lo = item % low, rest = item / low;
      uint32_t mid = 0, hi = rest;
      if constexpr (B > 1) mid = rest % between, hi = rest / between;
      const int base = static_cast<int>((B > 1 ? hi * static_cast<uint32_t>(high_span) + mid * low_span : hi * low_span) + lo);
      const uint32_t g_low = (B > 1 ? hi * between * (up ? B : A) + mid : hi) * low + lo;
      const uint32_t g_high = hi * high + mid * low_span + lo;
      Row x[B][A];
      const int column_pack = item_of(made_again(id)).pack;
      const int64_t column = s.column() + column_pack * V;
      if (column >= X.cols) continue;  // nor does any other unit take what is beyond the batch
      if (comes) {
        const int64_t step_a = u.apart_first * stride * X.row_stride, step_b = u.apart_second * stride * X.row_stride;
        const T* const from = X.data + matrix_row(s, u.rows_in, base) * X.row_stride + column * P;
#pragma unroll
        for (int kb = 0; kb < B; ++kb)
#pragma unroll
          for (int ka = 0; ka < A; ++ka) x[kb][ka] = load_pack<T, N>(from + ka * step_a + kb * step_b);
      } else {
#pragma unroll
        for (int kb = 0; kb < B; ++kb)
#pragma unroll
          for (int ka = 0; ka < A; ++ka) x[kb][ka] = *place(lane, u.side, base * packs + column_pack + (ka * da + kb * db) * packs);
      }
      // Digits move a block's number by as many blocks as there are below them.
      {
        const ChainUnit<T>& w = units[made_again(q)];
        const uint32_t g = group(s, w.each_first, up ? g_low : g_high);
        const auto step = static_cast<uint32_t>(B == 1 ? 0 : (up ? w.apart_second / A : w.apart_second) * stride);
#pragma unroll
        for (int kb = 0; kb < B; ++kb) {
          Row* rows_of[A];
#pragma unroll
          for (int ka = 0; ka < A; ++ka) rows_of[ka] = &x[kb][ka];
          square<A>(w.first, w.groups_first, g + static_cast<uint32_t>(kb) * step, rows_of);
        }
      }
      const ChainUnit<T>& v = units[made_again(q)];
      const int again = made_again(base), pack = item_of(made_again(round + lane.thread)).pack;
      const int next_a = static_cast<int>(v.apart_first) * s.near * packs, place_of_first = again * packs + pack;
      const int next_b = B > 1 ? static_cast<int>(v.apart_second) * s.near * packs : 0;
      const int64_t row = goes || v.keep ? matrix_row(s, v.rows_out, again) : 0, stride_of_rows = stride;
      const int64_t to_column = s.column() + pack * V;
      T* const to = goes ? Y.data + row * Y.row_stride + to_column * P : nullptr;
      T* const kept = B == 1 && v.keep ? v.keep + row * keep_stride + to_column * P : nullptr;
      const auto leave = [&](int ka, int kb) {
        if (goes)
          store_whole(to + (ka * v.apart_first + kb * v.apart_second) * stride_of_rows * Y.row_stride, x[kb][ka]);
        else
          *place(lane, v.side, place_of_first + ka * next_a + kb * next_b) = x[kb][ka];
        if (B == 1 && kept != nullptr) store_whole(kept + ka * v.apart_first * stride_of_rows * keep_stride, x[kb][ka]);
      };
      const uint32_t g = B > 1 ? group(s, v.each_second, up ? g_high : g_low) : 0;
      const auto step = static_cast<uint32_t>((up ? v.apart_first : v.apart_first / B) * stride);
#pragma unroll
      for (int ka = 0; ka < A; ++ka) {
        if constexpr (B > 1) {
          Row* rows_of[B];
#pragma unroll
          for (int kb = 0; kb < B; ++kb) rows_of[kb] = &x[kb][ka];
          square<B>(v.second, v.groups_second, g + static_cast<uint32_t>(ka) * step, rows_of);
        }
#pragma unroll
        for (int kb = 0; kb < B; ++kb) leave(ka, kb);
      }
    }
  }

  // Any small blocks, B rows at a time.
  template <int B>
  RANDLA_HD void any(const Lane& lane, const Tile& s, int unit, bool comes, bool goes) const {
    const ChainUnit<T>& u = units[unit];
    const int to = u.b == u.c ? u.side : u.side ^ 1;
    const int d = static_cast<int>(u.apart_first) * s.near;
    const int items = static_cast<int>(u.rows_in) * s.near * s.together / u.c * packs;
    for (int id = lane.thread; id < items; id += kThreads) {
      const auto [number, column_pack] = item_of(id);
      const int lo = static_cast<int>(number % static_cast<uint32_t>(d)), i = static_cast<int>(number / static_cast<uint32_t>(d));
      const int64_t column = s.column() + column_pack * V, apart = u.apart_first * stride;
      if (column >= X.cols) continue;
      Row x[kSmallBlock];
      const int base_in = i * u.c * d + lo, base_out = i * u.b * d + lo;
      const int64_t first_in = matrix_row(s, u.rows_in, base_in), first_out = matrix_row(s, u.rows_out, base_out);
#pragma unroll
      for (int k = 0; k < kSmallBlock; ++k) {
        x[k] = {};
        if (k >= u.c) continue;
        if (!comes)
          x[k] = *place(lane, u.side, base_in + k * d, column_pack);
        else
          x[k] = load_pack<T, N>(X.data + (first_in + k * apart) * X.row_stride + column * P);
      }
      const uint32_t g = group(s, u.each_first, number);
      for (int j0 = 0; j0 < u.b; j0 += B) {
        Row y[B];
        const T* values = u.first + static_cast<int64_t>(j0) * u.c * u.groups_first * P;
#pragma unroll
        for (int k = 0; k < kSmallBlock; ++k) {
          if (k >= u.c) continue;
          T w[B * P];
          numbers<B>(values, u.groups_first, static_cast<uint32_t>(k), g, w);
#pragma unroll
          for (int j = 0; j < B; ++j) add_product<Pairs>(k == 0, w + j * P, x[k], y[j]);
        }
#pragma unroll
        for (int j = 0; j < B; ++j) {
          if (j0 + j >= u.b) continue;
          const int64_t row = first_out + (j0 + j) * apart;
          if (goes) store_whole(Y.data + row * Y.row_stride + column * P, y[j]);
          if (u.keep) store_whole(u.keep + row * keep_stride + column * P, y[j]);
          if (!goes) *place(lane, to, base_out + (j0 + j) * d, column_pack) = y[j];
        }
      }
    }
  }

  // A warp takes 16 vectors or as many as there are, so that both global memory and the banks see it spread.
  RANDLA_HD int turned_columns() const { return (V << packs_bits) < 16 ? V << packs_bits : 16; }

  template <class F>
  RANDLA_HD void each_turned(const Lane& lane, const Tile& s, int64_t each, F&& f) const {
    const int beside = turned_columns(), parts = static_cast<int>(each) * s.near * s.together / V;
    const int items = parts * V * packs;
    constexpr int kAtOnce = 4;
    for (int first = lane.thread; first < items; first += kThreads * kAtOnce) f(first, items, beside, parts);
  }

  // Row, column and address of one pack along rows.
  struct Turned {
    int row, column;
    int64_t at;
    bool here;
  };
  template <class M>
  RANDLA_HD Turned turned(const Tile& s, const M& matrix, int64_t each, int id, int items, int beside, int parts) const {
    const int rest = id / beside, q = rest % parts, column = rest / parts * beside + id % beside;
    const int64_t at = (s.column() + column) * matrix.col_stride + matrix_row(s, each, q * V) * P;
    return {q * V, column, at, id < items && s.column() + column < matrix.cols};
  }

  RANDLA_HD void load_turned(const Lane& lane, const Tile& s) const {
    each_turned(lane, s, units[0].rows_in, [&](int first, int items, int beside, int parts) {
      Row v[4];
      Turned t[4];
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        t[m] = turned(s, X, units[0].rows_in, first + m * kThreads, items, beside, parts);
        v[m] = {};
        if (t[m].here) v[m] = load_pack<T, N>(X.data + t[m].at);
      }
#pragma unroll
      for (int m = 0; m < 4; ++m)
        if (first + m * kThreads < items)
#pragma unroll
          for (int e = 0; e < N; ++e)
            place(lane, 0, t[m].row + e / P, t[m].column / V)->v[t[m].column % V * P + e % P] = v[m].v[e];
    });
  }

  RANDLA_HD void store_turned(const Lane& lane, const Tile& s) const {
    const int side = out_side;
    const int64_t each = units[count - 1].rows_out;
    each_turned(lane, s, each, [&](int first, int items, int beside, int parts) {
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const Turned t = turned(s, Y, each, first + m * kThreads, items, beside, parts);
        if (!t.here) continue;
        Row v;
#pragma unroll
        for (int e = 0; e < N; ++e) v.v[e] = place(lane, side, t.row + e / P, t.column / V)->v[t.column % V * P + e % P];
        store_whole(Y.data + t.at, v);
      }
    });
  }

  // Neighbouring threads take what are neighbours in memory.
  template <class M>
  static RANDLA_HD bool by_rows(const M& matrix) {
    const int64_t row = matrix.row_stride < 0 ? -matrix.row_stride : matrix.row_stride;
    const int64_t col = matrix.col_stride < 0 ? -matrix.col_stride : matrix.col_stride;
    return row < col;
  }

  RANDLA_HD void load_numbers(const Lane& lane, const Tile& s) const {
    const int64_t each = units[0].rows_in;
    const int some = static_cast<int>(each) * s.near * s.together, width = V * packs, items = some * width;
    const bool down = by_rows(X);
    for (int first = lane.thread; first < items; first += kThreads * 4) {
      T v[4][P];
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const int id = first + m * kThreads, row = down ? id % some : id / width;
        const int64_t column = s.column() + (down ? id / some : id % width);
        const bool here = id < items && column < X.cols;
        const T* from = here ? at(X, matrix_row(s, each, row), column) : X.data;
#pragma unroll
        for (int p = 0; p < P; ++p) v[m][p] = here ? from[p] : T(0);
      }
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const int id = first + m * kThreads, row = down ? id % some : id / width, column = down ? id / some : id % width;
        if (id < items)
#pragma unroll
          for (int p = 0; p < P; ++p) place(lane, 0, row, column / V)->v[column % V * P + p] = v[m][p];
      }
    }
  }

  RANDLA_HD void store_numbers(const Lane& lane, const Tile& s) const {
    const int side = out_side;
    const int64_t each = units[count - 1].rows_out;
    const int some = static_cast<int>(each) * s.near * s.together, width = V * packs;
    const bool down = by_rows(Y);
    for (int id = lane.thread; id < some * width; id += kThreads) {
      const int row = down ? id % some : id / width, column = down ? id / some : id % width;
      if (s.column() + column >= Y.cols) continue;
      T* const to = at(Y, matrix_row(s, each, row), s.column() + column);
#pragma unroll
      for (int p = 0; p < P; ++p) to[p] = place(lane, side, row, column / V)->v[column % V * P + p];
    }
  }
};

}  // namespace randla::cuda
