// BlockSRHT: groups of rows of A, mixed in registers and added to one block of rows of the result each.

#include "cuda/block_srht.h"

namespace randla::cuda {
namespace {

// Slabs and offsets of the windows, one thread for each slab.
struct Slabs {
  static constexpr int kThreads = 128, kPhases = 1;
  struct State {};

  BlockSrht s;
  int64_t first, windows;
  SrhtSlab* slabs;
  int64_t* offsets;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread, w = i / s.block;
    if (w >= windows) return;
    slabs[i] = srht_slab(s, first + w, static_cast<int>(i % s.block));
    if (i % s.block == 0) offsets[w] = srht_offset(s, first + w);
  }
};

// Signs of the groups, one thread for each group: as words of bits they cost a thread that mixes few registers.
struct Signs {
  static constexpr int kThreads = 128, kPhases = 1;
  struct State {};

  SrhtWindows windows;
  SrhtSigns* signs;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread, w = i / BlockSrht::kGroups;
    if (w >= windows.count) return;
    const int g = static_cast<int>(i % BlockSrht::kGroups), height = windows.height(w);
    if (g >= height) return;
    Words before = {0, 0};
    for (int a = 0; a < windows.s.block; ++a) {
      const SrhtSlab slab = windows.slabs[w * windows.s.block + a];
      const uint64_t minus = (slab.signs >> (srht_local(windows, w, g, a, slab) - static_cast<int64_t>(a) * height)) & 1;
      (a < 64 ? before.u0 : before.u1) |= minus << (a % 64);
    }
    signs[i] = {before, srht_output_signs(windows.s, windows.first + w, g)};
  }
};

// Bytes to move: A and the result once; the tables are 2 bytes for every row of A. A block of threads owns one block of rows of
// the result for a strip of columns, a thread one column of it (or a part of one, SrhtDeal), whose sums stay in registers from
// the first group to the last: no atomics, and the order of the CPU kernel. For each row a thread takes a place from shared
// memory (one load for two of them), loads, flips, adds log2(B) times and adds on: 16 to 20 instructions, 4 to 5 clocks of
// issue for 32 of them, when the memory takes 7.8 for 32 float32 and twice that for float64. Three blocks of 128 threads with
// 64 rows each have up to 98 KB in flight on a multiprocessor, four with 16 float64 each 64 KB. Blocks that run together read
// neighbouring strips of the same rows. Where too few blocks would share the device, the windows are dealt to several of each
// (lane.y), whose sums are added in order afterwards.
template <class T, int B>
struct Mix {
  using Deal = SrhtDeal<T, B>;
  static constexpr int kThreads = Deal::kThreads, kPhases = Deal::kParts > 1 ? 3 : 2, kBlocks = Deal::kBlocks;
  static constexpr int kOpening = 1, kClosing = 1;
  // Groups described at a time: one where registers are few.
  static constexpr int kTogether = B < 64 && Deal::kParts == 1 ? 256 / B : 1;
  struct State {
    T sum[Deal::kRows];
  };

  SrhtWindows windows;
  Matrix<const T> A;
  int64_t j0;
  SrhtResult<T> result;

  struct Shared {
    int64_t places[kTogether][B];
    SrhtSigns signs[kTogether];
    T scale;
    int found, whole[kTogether];
    int w[2], g[2];  // where to go on, in turns: what is read in a step is not written in it
  };
  static constexpr size_t exchange_at() { return (sizeof(Shared) + 15) / 16 * 16; }
  static constexpr size_t shared_bytes() { return exchange_at() + Deal::exchange_bytes(); }
  static RANDLA_HD Shared& shared(const Lane& lane) { return *reinterpret_cast<Shared*>(lane.shared); }
  static RANDLA_HD T* exchange(const Lane& lane) { return reinterpret_cast<T*>(lane.shared + exchange_at()); }

  RANDLA_HD int64_t strips() const { return divided_up(A.cols, Deal::kColumns); }
  RANDLA_HD int64_t block(const Lane& lane) const { return lane.x / strips(); }
  RANDLA_HD int64_t column(const Lane& lane) const { return lane.x % strips() * Deal::kColumns + Deal::column(lane); }
  RANDLA_HD int64_t window_end(const Lane& lane) const { return piece_start(windows.count, result.pieces, lane.y + 1); }

  RANDLA_HD int64_t steps(const Lane& lane) const {
    const int64_t blocks = windows.s.blocks(), k = block(lane);
    int64_t count = 0;
    for (int64_t w = piece_start(windows.count, result.pieces, lane.y); w < window_end(lane); ++w)
      for (int64_t g = windows.first_group(w, k); g < windows.height(w); g += blocks) ++count;
    return count > kTogether ? divided_up(count, kTogether) : 1;
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step step) const {
    if constexpr (P == 0) {
      describe(lane, static_cast<int>(step.index & 1));
    } else if constexpr (Deal::kParts == 1) {
      if (column(lane) < A.cols)
        for (int u = 0; u < shared(lane).found; ++u) {
          T v[Deal::kRows];
          load(lane, u, v);
          hadamard<T, Deal::kRows>(v);
          Deal::add(lane, shared(lane).signs[u].after, shared(lane).scale, v, state.sum);
        }
    } else if constexpr (P == 1) {
      if (column(lane) >= A.cols || shared(lane).found == 0) return;
      T v[Deal::kRows];
      load(lane, 0, v);
      hadamard<T, Deal::kRows>(v);
      Deal::give(lane, exchange(lane), v);
    } else {
      if (column(lane) < A.cols && shared(lane).found > 0) {
        T v[Deal::kRows];
        Deal::take(lane, exchange(lane), v);
        Deal::add(lane, shared(lane).signs[0].after, shared(lane).scale, v, state.sum);
      }
    }
  }

  // The rows of the result that the block owns, as far as the thread has a column of them.
  RANDLA_HD T* place(const Lane& lane) const {
    return result.row(windows.s.block_start(block(lane)), lane.y) + column(lane);
  }
  RANDLA_HD int64_t rows(const Lane& lane) const {
    return column(lane) < A.cols ? windows.s.block_start(block(lane) + 1) - windows.s.block_start(block(lane)) : 0;
  }

  template <int P>
  RANDLA_HD void open(const Lane& lane, State& state) const {
    Deal::load_sums(lane, result, place(lane), rows(lane), state.sum);
    if (lane.thread != 0) return;
    const int64_t w = piece_start(windows.count, result.pieces, lane.y);
    shared(lane).scale = srht_scale<T>(windows.s, block(lane));
    shared(lane).w[0] = static_cast<int>(w);
    shared(lane).g[0] = w < window_end(lane) ? static_cast<int>(windows.first_group(w, block(lane))) : 0;
  }

  template <int P>
  RANDLA_HD void close(const Lane& lane, const State& state) const {
    Deal::store_sums(lane, result, place(lane), rows(lane), state.sum);
  }

  RANDLA_HD void describe(const Lane& lane, int turn) const {
    const int64_t last = window_end(lane);
    Shared& to = shared(lane);
    int found = 0, w = to.w[turn], g = to.g[turn];
    while (found < kTogether && w < last) {
      if (g >= windows.height(w)) {
        if (++w < last) g = static_cast<int>(windows.first_group(w, block(lane)));
        continue;
      }
      for (int a = lane.thread; a < B; a += kThreads)
        to.places[found][a] = srht_place(windows, w, g, a, j0, A.rows, A.row_stride * static_cast<int64_t>(sizeof(T)));
      if (lane.thread == found % kThreads) {
        to.signs[found] = windows.signs[static_cast<int64_t>(w) * BlockSrht::kGroups + g];
        to.whole[found] = windows.whole(w, j0, A.rows);
      }
      ++found;
      g += static_cast<int>(windows.s.blocks());
    }
    if (lane.thread == 0) {
      to.found = found;
      to.w[1 - turn] = w;
      to.g[1 - turn] = g;
    }
  }

  RANDLA_HD void load(const Lane& lane, int u, T (&v)[Deal::kRows]) const {
    const char* const from = reinterpret_cast<const char*>(A.data + column(lane) * A.col_stride);
    const int64_t* const places = shared(lane).places[u] + Deal::part(lane) * Deal::kRows;
    if (shared(lane).whole[u] != 0) {
#pragma unroll
      for (int i = 0; i < Deal::kRows; ++i) v[i] = *reinterpret_cast<const T*>(from + places[i]);
    } else {
#pragma unroll
      for (int i = 0; i < Deal::kRows; ++i) v[i] = places[i] == kNoRow ? T(0) : *reinterpret_cast<const T*>(from + places[i]);
    }
    Deal::flip(lane, shared(lane).signs[u].before, v);
  }
};

// out += the sums of every piece, in order; a thread owns one element.
template <class T>
struct Join {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  const T* parts;
  int64_t pieces;
  Matrix<T> out;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t id = lane.x * kThreads + lane.thread, size = out.rows * out.cols;
    if (id >= size) return;
    T* const to = out.data + id / out.cols * out.row_stride + id % out.cols;
    T sum = *to;
#pragma unroll 8
    for (int64_t k = 0; k < pieces; ++k) sum = sum + parts[k * size + id];
    *to = sum;
  }
};

// Of the windows, so that there are some blocks of threads for every multiprocessor; from the shapes alone, so that all devices
// give the same bits. At least kWindows of them for each: the sums of a piece cost as much as a few rows of A.
template <class T>
int64_t pieces_of(const BlockSrht& s, int64_t windows, int64_t cols) {
  constexpr int64_t wanted = 1024, least = 8;
  const int columns = s.block == 16 ? SrhtDeal<T, 16>::kColumns : s.block == 32 ? SrhtDeal<T, 32>::kColumns
                      : s.block == 64 ? SrhtDeal<T, 64>::kColumns : SrhtDeal<T, 128>::kColumns;
  const int64_t blocks = s.blocks() * divided_up(cols, columns), pieces = divided_up(wanted, blocks), most = windows / least;
  return pieces < most ? pieces : most > 1 ? most : 1;
}

template <class T, int B>
void mix(const SrhtWindows& windows, Matrix<const T> A, int64_t j0, const SrhtResult<T>& result, Stream stream) {
  using K = Mix<T, B>;
  const K k{windows, A, j0, result};
  launch(k, {k.strips() * windows.s.blocks(), result.pieces, K::shared_bytes()}, stream);
}

int64_t windows_of(const BlockSrht& s, int64_t j0, int64_t rows) {
  return (j0 + rows - 1) / s.window_rows() - j0 / s.window_rows() + 1;
}

}  // namespace

int64_t block_srht_table_bytes(const BlockSrht& s, int64_t j0, int64_t rows) {
  const int64_t each = BlockSrht::kGroups * sizeof(SrhtSigns) + s.block * sizeof(SrhtSlab) + sizeof(int64_t);
  return windows_of(s, j0, rows) * each;
}

SrhtWindows make_windows(const BlockSrht& s, int64_t j0, int64_t rows, void* memory, Stream stream) {
  const int64_t first = j0 / s.window_rows(), count = windows_of(s, j0, rows);
  SrhtSigns* const signs = static_cast<SrhtSigns*>(memory);
  SrhtSlab* const slabs = reinterpret_cast<SrhtSlab*>(signs + count * BlockSrht::kGroups);
  int64_t* const offsets = reinterpret_cast<int64_t*>(slabs + count * s.block);
  launch(Slabs{s, first, count, slabs, offsets}, {divided_up(count * s.block, Slabs::kThreads)}, stream);
  const SrhtWindows windows{s, first, count, slabs, signs, offsets};
  launch(Signs{windows, signs}, {divided_up(count * BlockSrht::kGroups, Signs::kThreads)}, stream);
  return windows;
}

template <class T>
int64_t block_srht_sums(const BlockSrht& s, Matrix<const T> A, int64_t j0) {
  const int64_t pieces = pieces_of<T>(s, windows_of(s, j0, A.rows), A.cols);
  return pieces > 1 ? pieces * s.d * A.cols : 0;
}

template <class T>
void block_srht(const BlockSrht& s, Matrix<const T> A, int64_t j0, void* tables, T* sums, Matrix<T> out, Stream stream) {
  if (A.rows == 0 || A.cols == 0) return;
  const SrhtWindows windows = make_windows(s, j0, A.rows, tables, stream);
  const int64_t pieces = pieces_of<T>(s, windows.count, A.cols);
  const SrhtResult<T> result{out, pieces > 1 ? sums : nullptr, pieces};
  if (A.row_stride == 1 && A.col_stride != 1) {
    mix_columns<T>(windows, A, j0, result, stream);
  } else {
    switch (s.block) {
      case 16: mix<T, 16>(windows, A, j0, result, stream); break;
      case 32: mix<T, 32>(windows, A, j0, result, stream); break;
      case 64: mix<T, 64>(windows, A, j0, result, stream); break;
      default: mix<T, 128>(windows, A, j0, result, stream);
    }
  }
  if (pieces > 1) launch(Join<T>{sums, pieces, out}, {divided_up(out.rows * out.cols, Join<T>::kThreads)}, stream);
}

template int64_t block_srht_sums<float>(const BlockSrht&, Matrix<const float>, int64_t);
template int64_t block_srht_sums<double>(const BlockSrht&, Matrix<const double>, int64_t);
template void block_srht<float>(const BlockSrht&, Matrix<const float>, int64_t, void*, float*, Matrix<float>, Stream);
template void block_srht<double>(const BlockSrht&, Matrix<const double>, int64_t, void*, double*, Matrix<double>, Stream);

}  // namespace randla::cuda
