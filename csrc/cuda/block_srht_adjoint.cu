// The adjoint of BlockSRHT: the rows of a group are their signs times the transform of the signed block of Y.

#include "cuda/block_srht.h"

namespace randla::cuda {
namespace {

// Bytes to move: the result once; Y, which is small, is read from L2 as often. A block of threads owns kGroups groups of a
// window for a strip of columns, a thread one column of a group, or a part of one. Nothing is summed over groups: each row is
// written once.
template <class T, int B>
struct Unmix {
  using Deal = SrhtDeal<T, B>;
  static constexpr int kThreads = Deal::kThreads, kPhases = Deal::kParts > 1 ? 3 : 2, kBlocks = Deal::kBlocks, kGroups = 8;
  struct State {};

  SrhtWindows windows;
  Matrix<const T> Y;
  int64_t j0;
  Matrix<T> out;

  struct Shared {
    int64_t places[B];
    SrhtSigns signs;
  };
  static constexpr size_t exchange_at() { return (sizeof(Shared) + 15) / 16 * 16; }
  static constexpr size_t shared_bytes() { return exchange_at() + Deal::exchange_bytes(); }
  static RANDLA_HD Shared& shared(const Lane& lane) { return *reinterpret_cast<Shared*>(lane.shared); }
  static RANDLA_HD T* exchange(const Lane& lane) { return reinterpret_cast<T*>(lane.shared + exchange_at()); }

  static constexpr int kShares = BlockSrht::kGroups / kGroups;  // of a window
  RANDLA_HD int64_t strips() const { return divided_up(out.cols, Deal::kColumns); }
  RANDLA_HD int64_t column(const Lane& lane) const { return lane.x % strips() * Deal::kColumns + Deal::column(lane); }
  RANDLA_HD int64_t window(const Lane& lane) const { return lane.x / strips() / kShares; }
  RANDLA_HD int group(const Lane& lane, Step step) const {
    return static_cast<int>(lane.x / strips() % kShares) * kGroups + static_cast<int>(step.index);
  }

  RANDLA_HD int64_t steps(const Lane& lane) const {
    const int left = windows.height(window(lane)) - group(lane, {0, 0});
    return left < 0 ? 0 : left < kGroups ? left : kGroups;
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step step) const {
    const int64_t w = window(lane);
    const int g = group(lane, step);
    if constexpr (P == 0) {
      for (int a = lane.thread; a < B; a += kThreads)
        shared(lane).places[a] = srht_place(windows, w, g, a, j0, out.rows, out.row_stride * static_cast<int64_t>(sizeof(T)));
      if (lane.thread == 0) shared(lane).signs = windows.signs[w * BlockSrht::kGroups + g];
    } else {
      if (column(lane) >= out.cols) return;
      T v[Deal::kRows];
      if constexpr (P == 1) {
        load(lane, (windows.offsets[w] + g) % windows.s.blocks(), v);
        hadamard<T, Deal::kRows>(v);
        if constexpr (Deal::kParts > 1) Deal::give(lane, exchange(lane), v);
      } else {
        Deal::take(lane, exchange(lane), v);
      }
      if constexpr (P + 1 == kPhases) store(lane, v);
    }
  }

  RANDLA_HD void load(const Lane& lane, int64_t block, T (&v)[Deal::kRows]) const {
    const int64_t start = windows.s.block_start(block), t = windows.s.block_start(block + 1) - start;
    const T scale = srht_scale<T>(windows.s, block);
    const int first = Deal::part(lane) * Deal::kRows;
    const T* const from = Y.data + (start + first) * Y.row_stride + column(lane) * Y.col_stride;
#pragma unroll
    for (int i = 0; i < Deal::kRows; ++i) v[i] = first + i < t ? from[i * Y.row_stride] : T(0);
    const typename Deal::Signs signs = Deal::signs_before(lane, shared(lane).signs.after);
#pragma unroll
    for (int i = 0; i < Deal::kRows; ++i) v[i] = flipped(v[i], signs.word(i)) * scale;
  }

  RANDLA_HD void store(const Lane& lane, const T (&v)[Deal::kRows]) const {
    char* const to = reinterpret_cast<char*>(out.data + column(lane));
    const typename Deal::Signs signs = Deal::signs_after(lane, shared(lane).signs.before);
#pragma unroll
    for (int i = 0; i < Deal::kRows; ++i) {
      const int64_t place = shared(lane).places[Deal::row(lane, i)];
      if (place != kNoRow) *reinterpret_cast<T*>(to + place) = flipped(v[i], signs.word(i));
    }
  }
};

template <class T, int B>
void unmix(const SrhtWindows& windows, Matrix<const T> Y, int64_t j0, Matrix<T> out, Stream stream) {
  using K = Unmix<T, B>;
  const K k{windows, Y, j0, out};
  launch(k, {k.strips() * K::kShares * windows.count, 1, K::shared_bytes()}, stream);
}

}  // namespace

template <class T>
void block_srht_adjoint(const BlockSrht& s, Matrix<const T> Y, int64_t j0, void* tables, Matrix<T> out, Stream stream) {
  if (out.rows == 0 || out.cols == 0) return;
  const SrhtWindows windows = make_windows(s, j0, out.rows, tables, stream);
  switch (s.block) {
    case 16: return unmix<T, 16>(windows, Y, j0, out, stream);
    case 32: return unmix<T, 32>(windows, Y, j0, out, stream);
    case 64: return unmix<T, 64>(windows, Y, j0, out, stream);
    default: return unmix<T, 128>(windows, Y, j0, out, stream);
  }
}

template void block_srht_adjoint<float>(const BlockSrht&, Matrix<const float>, int64_t, void*, Matrix<float>, Stream);
template void block_srht_adjoint<double>(const BlockSrht&, Matrix<const double>, int64_t, void*, Matrix<double>, Stream);

}  // namespace randla::cuda
