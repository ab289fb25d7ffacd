// Chains of Kronecker-sparse matrices run by run: units of a run, and which kernel takes it.
#pragma once

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/require.h"
#include "cuda/butterfly_blocks.h"
#include "cuda/butterfly_gradient.h"
#include "cuda/butterfly_run.h"

namespace randla::cuda {
namespace {

constexpr int64_t kBetweenRuns = 16 << 20;     // bytes between two runs: what stays in L2 while both are at work
constexpr int64_t kKept = 64 << 20;            // bytes that gradients keep of all stages
constexpr int64_t kColumnsTogether = 128;      // chunks of the batch are multiples, whatever the type
constexpr int64_t kSliceColumns = 512, kMostSlices = 32;

inline int64_t whole_numbers(int64_t n, int64_t by) { return divided_up(n, by) * by; }

inline int64_t columns_within(int64_t bytes, int64_t bytes_of_column, int64_t batch) {
  const int64_t fit = bytes / bytes_of_column / kColumnsTogether * kColumnsTogether;
  return fit >= batch ? batch : fit > kColumnsTogether ? fit : kColumnsTogether < batch ? kColumnsTogether : batch;
}

template <class T, bool Pairs>
struct ChainCall {
  static constexpr int P = Pairs ? 2 : 1, N = kPack<T>, V = N / P;
  static constexpr int64_t kBytes = sizeof(T) * P;

  const std::vector<ButterflyStage<T>>& stages;
  Stream stream;

  template <class E>
  static bool across(const Matrix<E>& a) {
    return a.col_stride == P && whole_packs(a.data, a.cols * P, a.row_stride, 1, sizeof(T));
  }
  template <class E>
  static bool down(const Matrix<E>& a) {
    return a.row_stride == P && a.col_stride % N == 0 && reinterpret_cast<uintptr_t>(a.data) % 16 == 0;
  }

  // Rows from 0 on with `cols` columns and whole packs.
  static Matrix<T> packed(T* data, int64_t rows, int64_t cols) {
    return {data, rows, whole_numbers(cols, V), whole_numbers(cols, V) * P, P};
  }
  static int64_t packed_reals(int64_t rows, int64_t cols) { return rows * whole_numbers(cols, V) * P; }

  // Matrices between stages have whole packs, of zeros beyond the batch: X and Y may differ in them. keep[q]: where the rows
  // after stage q go too; all of keep_stride. Pointers may be null, as the vector may be empty.
  void run(const ChainRun& run, Matrix<const T> X, Matrix<T> Y, const std::vector<T*>& keep, int64_t keep_stride) const {
    if (run.large) return large(stages[static_cast<size_t>(run.first)], X, Y);
    const Way in = across(X) ? Way::kPacks : Way::kNumbers, out = across(Y) ? Way::kPacks : Way::kNumbers;
    const bool strided = run.stride > 1 && (by_rows(X) || by_rows(Y));
    const ChainTile tile = tile_run(run, sizeof(T), P, X.cols, strided ? 32 / kBytes : 1);
    constexpr int few = (Pairs || sizeof(T) == 8) && kTwoStages<T, Pairs> ? 128 : 192;  // what the registers hold twice
    if (tile.alone)
      tiles<2 * few, 1>(run, tile, in, out, X, Y, keep, keep_stride);
    else
      tiles<few, 2>(run, tile, in, out, X, Y, keep, keep_stride);
  }

 private:
  static bool by_rows(const Matrix<const T>& a) { return a.row_stride == P && a.col_stride != P; }
  static bool by_rows(const Matrix<T>& a) { return a.row_stride == P && a.col_stride != P; }

  const ButterflyStage<T>& stage(int q) const { return stages[static_cast<size_t>(q)]; }

  static bool square(const ButterflyStage<T>& s) { return s.b == s.c && (s.b == 2 || s.b == 4); }

  // Whether two stages mix rows that differ in different digits of their numbers.
  static bool apart(const ButterflyStage<T>& s, const ButterflyStage<T>& next) {
    if (!kTwoStages<T, Pairs> || !square(s) || !square(next) || (s.b == 2 && next.b == 2)) return false;
    return next.d % (s.b * s.d) == 0 || s.d % (next.b * next.d) == 0;
  }

  template <int Threads, int Blocks>
  void tiles(const ChainRun& run, const ChainTile& tile, Way in, Way out, Matrix<const T> X, Matrix<T> Y,
             const std::vector<T*>& keep, int64_t keep_stride) const {
    using K = RunTile<T, Pairs, Threads, Blocks>;
    K k{};
    for (int q = run.first; q < run.last; ++q) {
      const ButterflyStage<T>& s = stage(q);
      const bool two = keep.empty() && q + 1 < run.last && apart(s, stage(q + 1));
      const ButterflyStage<T>& last = stage(two ? q + 1 : q);
      ChainUnit<T>& u = k.units[k.count++];
      u.first = s.values;
      u.groups_first = static_cast<uint32_t>(s.a * s.d);
      u.each_first = static_cast<uint32_t>(s.a / run.blocks * (s.d / run.stride));
      u.apart_first = s.d / run.stride;
      u.b = static_cast<int>(s.b), u.c = static_cast<int>(s.c), u.side = k.out_side;
      if (s.b != s.c) k.out_side ^= 1;
      u.rows_in = u.each_first * s.c;
      u.rows_out = last.a / run.blocks * (last.d / run.stride) * last.b;
      u.kind = !square(s) ? UnitKind::kAny : s.b == 4 ? UnitKind::kFour : UnitKind::kTwo;
      if (two) {
        u.kind = s.b == 2 ? UnitKind::kTwoFour : last.b == 2 ? UnitKind::kFourTwo : UnitKind::kFourFour;
        u.second = last.values;
        u.groups_second = static_cast<uint32_t>(last.a * last.d);
        u.each_second = static_cast<uint32_t>(last.a / run.blocks * (last.d / run.stride));
        u.apart_second = last.d / run.stride;
        ++q;
      }
      const int64_t mixed = two ? s.b * last.b : s.c;
      u.items = static_cast<int>(u.rows_in / mixed * tile.neighbours * tile.together * tile.packs);
      u.keep = keep.empty() ? nullptr : keep[static_cast<size_t>(q)];
    }
    const bool full = tile.neighbours == run.stride;
    const auto turns = [&](auto& a, int64_t each, Way way) {
      const int64_t beside = full ? each * run.stride : std::gcd(run.stride, static_cast<int64_t>(tile.neighbours));
      return way == Way::kNumbers && down(a) && beside % V == 0 ? Way::kTurned : way;
    };
    k.in = turns(X, k.units[0].rows_in, in);
    k.out = turns(Y, k.units[k.count - 1].rows_out, out);
    k.all = k.count + (k.in == Way::kPacks ? 0 : 1) + (k.out == Way::kPacks ? 0 : 1);
    k.packs = tile.packs, k.three = tile.packs % 3 == 0;
    while ((k.three ? 3 : 1) << k.packs_bits < tile.packs) ++k.packs_bits;
    k.columns_first = k.in != Way::kTurned;
    k.together = tile.together, k.neighbours = tile.neighbours;
    k.blocks = static_cast<int>(run.blocks), k.stride = static_cast<int>(run.stride);
    k.side_packs = static_cast<int>(tile.bytes / (16 * run.sides));
    k.column_tiles = divided_up(Y.cols, tile.packs * V);
    k.neighbour_tiles = divided_up(run.stride, tile.neighbours);
    k.row_tiles = k.neighbour_tiles * divided_up(run.blocks, tile.together);
    k.keep_stride = keep_stride;
    k.X = X, k.Y = Y;
    launch(k, {k.column_tiles * k.row_tiles, 1, K::shared_bytes(tile.bytes)}, stream);
  }

  void large(const ButterflyStage<T>& s, Matrix<const T> X, Matrix<T> Y) const {
    constexpr int near = 32 / static_cast<int>(kBytes);
    if (s.d > 1 && by_rows(X) && by_rows(Y)) return s.b <= 16 ? blocks<16, near>(s, X, Y) : blocks<64, near>(s, X, Y);
    if (s.b <= 16) return blocks<16, 1>(s, X, Y);
    if (s.b <= 32) return blocks<32, 1>(s, X, Y);
    blocks<64, 1>(s, X, Y);
  }

  template <int Rows, int Near>
  void blocks(const ButterflyStage<T>& s, Matrix<const T> X, Matrix<T> Y) const {
    using K = BlockTile<T, Pairs, Rows, Near>;
    K k{};
    k.stage = s;
    k.X = X, k.Y = Y;
    k.row_tiles = divided_up(s.b, Rows);
    k.column_tiles = divided_up(Y.cols, K::kColumns);
    k.near_tiles = divided_up(s.d, Near);
    k.columns_first = !by_rows(X);
    k.down_columns = by_rows(X) && s.d == 1;
    k.packs_across = across(Y);
    k.packs_down = Near == 1 && s.d == 1 && by_rows(Y) && down(Y) && s.b % V == 0;
    const int64_t count = k.row_tiles * k.column_tiles * k.near_tiles * s.a;
    launch(k, {count, 1, K::shared_bytes()}, stream);
  }
};

template <class T>
Matrix<T> columns_of(Matrix<T> a, int64_t first, int64_t count) {
  return {a.data + first * a.col_stride, a.rows, count, a.row_stride, a.col_stride};
}

template <class T>
int64_t largest_rows(const ButterflyChain<T>& chain) {
  int64_t rows = 0;
  for (const auto& s : chain.stages) rows = std::max({rows, s.a * s.c * s.d, s.a * s.b * s.d});
  return rows;
}

template <class T, bool Pairs>
int64_t columns_at_once(const ButterflyChain<T>& chain, int64_t batch) {
  if (chain.runs.size() < 2) return batch;
  return columns_within(kBetweenRuns, largest_rows(chain) * static_cast<int64_t>(sizeof(T)) * (Pairs ? 2 : 1), batch);
}

// What a chunk of the batch keeps for gradients: what every stage was given, and what comes back to it.
template <class T, bool Pairs>
struct Kept {
  using Call = ChainCall<T, Pairs>;
  int64_t columns, slices, per_slice, reals = 0;
  std::vector<int64_t> given, back;  // places
  int64_t partial;

  Kept(const ButterflyChain<T>& chain, int64_t batch) {
    int64_t rows = 0, numbers = 0;
    for (const auto& s : chain.stages) {
      rows += s.a * (s.b + s.c) * s.d;
      numbers += s.a * s.b * s.c * s.d;
    }
    columns = columns_within(kKept, rows * Call::kBytes, batch);
    for (const auto& s : chain.stages) {
      given.push_back(reals);
      reals += Call::packed_reals(s.a * s.c * s.d, columns);
      back.push_back(reals);
      reals += Call::packed_reals(s.a * s.b * s.d, columns);
    }
    const int64_t most = std::min(kMostSlices, std::max<int64_t>(1, kKept / (numbers * Call::kBytes)));
    per_slice = whole_numbers(divided_up(columns, std::min(most, divided_up(columns, kSliceColumns))), kWarp * Call::V);
    slices = divided_up(columns, per_slice);
    partial = reals;
    reals += slices * numbers * Call::P;
  }
};

}  // namespace

template <class T, bool Pairs>
int64_t butterfly_work(const ButterflyChain<T>& chain, int64_t batch) {
  const int64_t buffers = static_cast<int64_t>(std::min<size_t>(chain.runs.size(), 3)) - 1;
  return buffers * ChainCall<T, Pairs>::packed_reals(largest_rows(chain), columns_at_once<T, Pairs>(chain, batch));
}

template <class T, bool Pairs>
void butterfly(const ButterflyChain<T>& chain, Matrix<const T> X, Matrix<T> Y, T* work, Stream stream) {
  using Call = ChainCall<T, Pairs>;
  const Call call{chain.stages, stream};
  const int64_t chunk = columns_at_once<T, Pairs>(chain, X.cols);
  T* const sides[2] = {work, work + Call::packed_reals(largest_rows(chain), chunk)};
  for (int64_t c = 0; c < X.cols; c += chunk) {
    const int64_t cols = std::min(chunk, X.cols - c);
    Matrix<const T> from = columns_of(X, c, cols);
    for (size_t r = 0; r < chain.runs.size(); ++r) {
      const ChainRun& run = chain.runs[r];
      const ButterflyStage<T>& last = chain.stages[static_cast<size_t>(run.last) - 1];
      Matrix<T> to = columns_of(Y, c, cols);
      if (r + 1 < chain.runs.size()) to = Call::packed(sides[r % 2], last.a * last.b * last.d, cols);
      call.run(run, from, to, {}, 0);
      from = {to.data, to.rows, to.cols, to.row_stride, to.col_stride};
    }
  }
}

template <class T, bool Pairs>
int64_t butterfly_gradient_work(const ButterflyChain<T>& chain, int64_t batch) {
  return batch == 0 ? 0 : Kept<T, Pairs>(chain, batch).reals;
}

template <class T, bool Pairs>
void butterfly_gradient(const ButterflyChain<T>& chain, const ButterflyChain<T>& adjoint, Matrix<const T> X, Matrix<const T> G,
                        Matrix<T> dX, T* dw, T* work, Stream stream) {
  using Call = ChainCall<T, Pairs>;
  constexpr int P = Call::P;
  const size_t count = chain.stages.size();
  int64_t numbers = 0;
  for (const auto& s : chain.stages) numbers += s.a * s.b * s.c * s.d;
  const auto add_up = [&](const T* partial, int64_t slices, bool add) {
    launch(SliceSum<T>{partial, slices, numbers * P, add, dw}, {divided_up(numbers * P, SliceSum<T>::kThreads)}, stream);
  };
  if (X.cols == 0) return add_up(nullptr, 0, false);
  const Kept<T, Pairs> kept(chain, X.cols);
  const Call forward{chain.stages, stream}, backward{adjoint.stages, stream};
  for (int64_t c = 0; c < X.cols; c += kept.columns) {
    const int64_t cols = std::min(kept.columns, X.cols - c), width = whole_numbers(cols, Call::V);
    const auto packed = [&](Matrix<const T> a, int64_t place) -> Matrix<const T> {
      const Matrix<const T> part = columns_of(a, c, cols);
      if (Call::across(part)) return part;
      T* const to = work + place;
      using Copy = PackedCopy<T, P>;
      launch(Copy{part, to, width * P}, {divided_up(a.rows * width, Copy::kThreads)}, stream);
      return {to, a.rows, width, width * P, P};
    };
    const Matrix<const T> x0 = packed(X, kept.given[0]), g0 = packed(G, kept.back[count - 1]);
    // Stage q was given x[q], and g[q] came back to it.
    std::vector<T*> given(count, nullptr), back(count, nullptr);
    for (size_t q = 0; q + 1 < count; ++q) given[q] = work + kept.given[q + 1];          // after stage q
    for (size_t q = 0; q + 1 < count; ++q) back[q] = work + kept.back[count - 2 - q];    // after stage q of the adjoint chain
    Matrix<const T> from = x0;
    for (ChainRun run : chain.runs) {
      if (run.last == static_cast<int>(count)) --run.last;  // what comes out at the end is not needed
      if (run.first == run.last) break;
      const ButterflyStage<T>& last = chain.stages[static_cast<size_t>(run.last) - 1];
      std::vector<T*> keep = given;
      T* const end = std::exchange(keep[static_cast<size_t>(run.last) - 1], nullptr);
      const Matrix<T> to{end, last.a * last.b * last.d, width, width * P, P};
      forward.run(run, from, to, keep, width * P);
      from = {to.data, to.rows, to.cols, to.row_stride, to.col_stride};
    }
    from = g0;
    for (const ChainRun& run : adjoint.runs) {
      const ButterflyStage<T>& last = adjoint.stages[static_cast<size_t>(run.last) - 1];
      std::vector<T*> keep = back;
      T* const end = std::exchange(keep[static_cast<size_t>(run.last) - 1], nullptr);
      const bool ends = run.last == static_cast<int>(count);
      const Matrix<T> to = ends ? columns_of(dX, c, cols) : Matrix<T>{end, last.a * last.b * last.d, width, width * P, P};
      backward.run(run, from, to, keep, width * P);
      from = {to.data, to.rows, to.cols, to.row_stride, to.col_stride};
    }
    using Slices = SliceGradient<T, Pairs>;
    int64_t first_number = 0;
    for (size_t q0 = 0; q0 < count; q0 += kMostStages) {
      Slices k{};
      for (size_t q = q0; q < count && q < q0 + kMostStages; ++q) {
        const ButterflyStage<T>& s = chain.stages[q];
        GradientStage<T>& to = k.stages[k.count++];
        to = {s.a, s.b, s.c, s.d, width * P, width * P, work + kept.given[q], work + kept.back[q], k.items, first_number};
        if (q == 0) to.X = x0.data, to.x_stride = x0.row_stride;
        if (q + 1 == count) to.G = g0.data, to.g_stride = g0.row_stride;
        k.items += to.items();
        first_number += s.a * s.b * s.c * s.d;
      }
      k.columns = cols, k.per_slice = kept.per_slice, k.numbers = numbers;
      k.partial = work + kept.partial;
      const int64_t slices = divided_up(cols, kept.per_slice);
      launch(k, {divided_up(k.items, Slices::kThreads / kWarp), slices}, stream);
    }
    add_up(work + kept.partial, divided_up(cols, kept.per_slice), c > 0);
  }
}

#define RANDLA_BUTTERFLY(T, Pairs)                                                                                    \
  template int64_t butterfly_work<T, Pairs>(const ButterflyChain<T>&, int64_t);                                       \
  template void butterfly<T, Pairs>(const ButterflyChain<T>&, Matrix<const T>, Matrix<T>, T*, Stream);                \
  template int64_t butterfly_gradient_work<T, Pairs>(const ButterflyChain<T>&, int64_t);                              \
  template void butterfly_gradient<T, Pairs>(const ButterflyChain<T>&, const ButterflyChain<T>&, Matrix<const T>,     \
                                             Matrix<const T>, Matrix<T>, T*, T*, Stream);

}  // namespace randla::cuda
