// BlockSRHT of a matrix with contiguous columns. Groups that follow each other take rows that lie side by side, and go to
// blocks of rows of the result that follow each other: neighbouring threads have one column and neighbouring blocks, so that a
// warp reads 128 bytes (float64: 256) of a column at a time. The arithmetic and the deal of rows are those of block_srht.cu.
//
// Bytes to move: A and the result once, and where a slab's turn cuts the 128 bytes in two a sector of 32 more. Each thread has
// a group of its own, so that rows are found by two loads from the window's table and six instructions more than there: 6
// clocks of issue for 32 float32, when the memory takes 7.8.

#include "cuda/block_srht.h"

namespace randla::cuda {
namespace {

template <class T, int B>
struct MixColumns {
  using Deal = SrhtDeal<T, B>;
  static constexpr int kThreads = Deal::kThreads, kPhases = Deal::kParts > 1 ? 3 : 2, kBlocks = Deal::kBlocks;
  static constexpr int kOpening = 1, kClosing = 1;
  struct State {
    int64_t w, round, g;
    T scale;
    T sum[Deal::kRows];
  };

  SrhtWindows windows;
  Matrix<const T> A;
  int64_t j0;
  SrhtResult<T> result;
  int abreast;  // blocks of the result beside each other, at most a warp of them

  struct Shared {
    int rotation[B];
  };
  static constexpr size_t shared_bytes() { return sizeof(Shared) + Deal::exchange_bytes(); }
  static RANDLA_HD Shared& shared(const Lane& lane) { return *reinterpret_cast<Shared*>(lane.shared); }
  static RANDLA_HD T* exchange(const Lane& lane) { return reinterpret_cast<T*>(lane.shared + sizeof(Shared)); }

  RANDLA_HD int64_t ranges() const { return divided_up(windows.s.blocks(), abreast); }
  RANDLA_HD int64_t first_block(const Lane& lane) const { return lane.x % ranges() * abreast; }
  RANDLA_HD int64_t block(const Lane& lane) const { return first_block(lane) + Deal::column(lane) % abreast; }
  RANDLA_HD int64_t column(const Lane& lane) const {
    return lane.x / ranges() * (Deal::kColumns / abreast) + Deal::column(lane) / abreast;
  }
  RANDLA_HD bool works(const Lane& lane) const { return block(lane) < windows.s.blocks() && column(lane) < A.cols; }
  RANDLA_HD int64_t window_end(const Lane& lane) const { return piece_start(windows.count, result.pieces, lane.y + 1); }

  // How many groups of a window a block of the result takes at most; none where the window has none for all of them.
  RANDLA_HD int64_t rounds(const Lane& lane, int64_t w) const {
    const int64_t g = windows.first_group(w, first_block(lane)), blocks = windows.s.blocks();
    return g < windows.height(w) || g + abreast > blocks ? divided_up(windows.height(w), blocks) : 0;
  }

  RANDLA_HD int64_t steps(const Lane& lane) const {
    int64_t count = 0;
    for (int64_t w = piece_start(windows.count, result.pieces, lane.y); w < window_end(lane); ++w) count += rounds(lane, w);
    return count;
  }

  template <int P>
  RANDLA_HD void open(const Lane& lane, State& state) const {
    state.w = piece_start(windows.count, result.pieces, lane.y) - 1;
    state.round = 0;
    if (!works(lane)) return;
    Deal::load_sums(lane, result, place(lane), rows(lane), state.sum);
    state.scale = srht_scale<T>(windows.s, block(lane));
  }

  template <int P>
  RANDLA_HD void close(const Lane& lane, const State& state) const {
    if (works(lane)) Deal::store_sums(lane, result, place(lane), rows(lane), state.sum);
  }

  RANDLA_HD T* place(const Lane& lane) const { return result.row(windows.s.block_start(block(lane)), lane.y) + column(lane); }
  RANDLA_HD int64_t rows(const Lane& lane) const {
    return windows.s.block_start(block(lane) + 1) - windows.s.block_start(block(lane));
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step) const {
    if constexpr (P == 0) {
      if (--state.round <= 0) {
        do ++state.w;
        while ((state.round = rounds(lane, state.w)) == 0);
      }
      for (int a = lane.thread; a < B; a += kThreads)
        shared(lane).rotation[a] = static_cast<int>(windows.slabs[state.w * B + a].rotation);
      const int64_t blocks = windows.s.blocks(), round = divided_up(windows.height(state.w), blocks) - state.round;
      state.g = works(lane) ? windows.first_group(state.w, block(lane)) + round * blocks : INT64_MAX;
    } else {
      if (state.g >= windows.height(state.w)) return;
      T v[Deal::kRows];
      const SrhtSigns& signs = windows.signs[state.w * BlockSrht::kGroups + state.g];
      if constexpr (P == 1) {
        load(lane, state, v);
        Deal::flip(lane, signs.before, v);
        hadamard<T, Deal::kRows>(v);
        if constexpr (Deal::kParts > 1) Deal::give(lane, exchange(lane), v);
      } else {
        Deal::take(lane, exchange(lane), v);
      }
      if constexpr (P + 1 == kPhases) Deal::add(lane, signs.after, state.scale, v, state.sum);
    }
  }

  RANDLA_HD void load(const Lane& lane, const State& state, T (&v)[Deal::kRows]) const {
    const int64_t base = (windows.first + state.w) * windows.s.window_rows() - j0;
    const int64_t low = base < 0 ? -base : 0, left = A.rows - base;
    const int64_t in_window = windows.s.rows_in_window(windows.first + state.w);
    const int first = static_cast<int>(low < windows.s.window_rows() ? low : windows.s.window_rows());
    const int end = static_cast<int>(left < in_window ? left : in_window);
    const int height = windows.height(state.w), g = static_cast<int>(state.g);
    const T* const from = A.data + column(lane) * A.col_stride + base;
    const int part = Deal::part(lane) * Deal::kRows;
#pragma unroll
    for (int i = 0; i < Deal::kRows; ++i) {
      const int b = g - shared(lane).rotation[part + i], local = (part + i) * height + (b < 0 ? b + height : b);
      v[i] = local >= first && local < end ? from[local] : T(0);
    }
  }
};

template <class T, int B>
void mix_columns_of(const SrhtWindows& windows, Matrix<const T> A, int64_t j0, const SrhtResult<T>& result, Stream stream) {
  using K = MixColumns<T, B>;
  int abreast = 1;
  while (abreast < kWarp && abreast < K::Deal::kColumns && abreast < windows.s.blocks()) abreast *= 2;
  const K k{windows, A, j0, result, abreast};
  launch(k, {k.ranges() * divided_up(A.cols, K::Deal::kColumns / abreast), result.pieces, K::shared_bytes()}, stream);
}

}  // namespace

template <class T>
void mix_columns(const SrhtWindows& windows, Matrix<const T> A, int64_t j0, const SrhtResult<T>& result, Stream stream) {
  switch (windows.s.block) {
    case 16: return mix_columns_of<T, 16>(windows, A, j0, result, stream);
    case 32: return mix_columns_of<T, 32>(windows, A, j0, result, stream);
    case 64: return mix_columns_of<T, 64>(windows, A, j0, result, stream);
    default: return mix_columns_of<T, 128>(windows, A, j0, result, stream);
  }
}

template void mix_columns<float>(const SrhtWindows&, Matrix<const float>, int64_t, const SrhtResult<float>&, Stream);
template void mix_columns<double>(const SrhtWindows&, Matrix<const double>, int64_t, const SrhtResult<double>&, Stream);

}  // namespace randla::cuda
