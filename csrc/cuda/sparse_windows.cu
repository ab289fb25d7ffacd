// Sparse sketches with several entries in a column, of a dense matrix of which rows are contiguous and whole packs: every row is
// read from memory once and added to all rows of the result that want it, window by window, as the CPU does. The sums are those
// of the CPU, in ascending order of rows, with its bits.
//
// A block owns a strip of `width` packs (64 or 32 bytes) of some rows of the result, whose sums stay in registers for the whole
// product. It copies its strip of a window of rows to shared memory, with the sorted entries of the window, while it adds those of
// the window before. Blocks of one strip, if its sums are too many for one, follow each other in the grid, so that all but one of
// them find the strip in L2.
//
// Bytes: A once from memory. From L2, for a row of A and a strip: parts (16 width + 2 z), for z entries in a column, plus two
// bytes for every row of the result and window. From shared memory 16 z width, at 2/3 (width 4) or half (2) of its rate, because
// rows that are read together lie in the same banks as often as chance will have it. A device of 132 multiprocessors at 1.98 GHz
// reads 33 TB/s of shared memory and some 6 of L2: for m = 1e6, n = 1024, d = 4096, z = 8, float64 that is 3.5 ms of L2 and 3 of
// shared memory, where the processors issue for some 3 ms, and a CountSketch takes 2.2; reading every row eight times from L2 takes
// 11. Expected: twice the time of a CountSketch, and 0.2 ms once for sorting. Not measured.

#include <cstring>

#include "cuda/sketch.h"
#include "cuda/sort_rows.h"
#include "cuda/sparse_entries.h"

namespace randla::cuda {
namespace {

// Entries: what sorting takes is 16 bytes for each. Few where tests are to see several rounds.
#ifdef RANDLA_EMULATED
constexpr int64_t kSortedTogether = int64_t(1) << 12;
#else
constexpr int64_t kSortedTogether = int64_t(1) << 24;
#endif
constexpr int64_t kFilling = 128;  // blocks

// 16 bytes into shared memory, on their way until wait_for_copies.
static RANDLA_HD void copy_ahead(void* to, const void* from) {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(__cvta_generic_to_global(from))
               : "memory");
#else
  store_pack(static_cast<uint32_t*>(to), load_pack<uint32_t, 4>(static_cast<const uint32_t*>(from)));
#endif
}

static RANDLA_HD void end_group_of_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// For all groups of this thread but the last one.
static RANDLA_HD void wait_for_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}

template <class T>
struct Windowed {
  static constexpr int kThreads = 1024, kPhases = 2, kOpening = 1, kOwned = 8, N = kPack<T>;
  static constexpr int kClosing = 1;
  struct State {
    Pack<T, N> sum[kOwned];
  };

  Matrix<const T> A;
  Matrix<T> out;
  const uint16_t *start, *entries;
  int64_t stride, per_part, parts;  // of `start`; rows of the result, a multiple of 8
  int window, each, width;
  T scale;
  bool packed;  // out

  // Of one of the two buffers.
  static RANDLA_HD int64_t tile_bytes(int64_t window, int width) { return window * width * 16; }
  static RANDLA_HD int64_t entries_bytes(int64_t window, int each) { return window * each * 2; }
  static RANDLA_HD int64_t bytes(int64_t window, int each, int width, int64_t per_part) {
    return tile_bytes(window, width) + entries_bytes(window, each) + (per_part + 8) * 2;
  }

  RANDLA_HD int64_t steps(const Lane&) const { return divided_up(A.rows, window); }
  RANDLA_HD int64_t first_row(const Lane& lane) const { return lane.x % parts * per_part; }
  RANDLA_HD int64_t first_column(const Lane& lane) const { return lane.x / parts * width * N; }
  RANDLA_HD int rows_of_part(const Lane& lane) const {
    const int64_t left = out.rows - first_row(lane);
    return static_cast<int>(left < per_part ? left : per_part);
  }
  RANDLA_HD char* buffer(const Lane& lane, int64_t step) const {
    return lane.shared + (step & 1) * bytes(window, each, width, per_part);
  }

  RANDLA_HD void fetch(const Lane& lane, int64_t step) const {
    const int64_t i0 = step * window, c0 = first_column(lane);
    const int rows = static_cast<int>(A.rows - i0 < window ? A.rows - i0 : window);
    char* to = buffer(lane, step);
    const T* const from = A.data + i0 * A.row_stride + c0;
    for (int id = lane.thread; id < rows * width; id += kThreads) {
      const int row = id / width, c = id % width * N;
      if (c0 + c < A.cols) copy_ahead(to + id * 16, from + row * A.row_stride + c);
    }
    to += tile_bytes(window, width);
    const char* const listed = reinterpret_cast<const char*>(entries + i0 * each);
    for (int id = lane.thread; id * 8 < rows * each; id += kThreads) copy_ahead(to + id * 16, listed + id * 16);
    to += entries_bytes(window, each);
    const char* const offsets = reinterpret_cast<const char*>(start + step * stride + first_row(lane));
    for (int id = lane.thread; id * 8 <= rows_of_part(lane); id += kThreads) copy_ahead(to + id * 16, offsets + id * 16);
  }

  template <int P>
  RANDLA_HD void open(const Lane& lane, State& state) const {
#pragma unroll
    for (int r = 0; r < kOwned; ++r) state.sum[r] = {};
    if (A.rows > 0) fetch(lane, 0);
    end_group_of_copies();
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step step) const {
    if constexpr (P == 0) {
      if (!step.last()) fetch(lane, step.index + 1);
      end_group_of_copies();
      wait_for_copies();
    } else {
      const int c = lane.thread % width * N, group = lane.thread / width, groups = kThreads / width, rows = rows_of_part(lane);
      if (first_column(lane) + c >= A.cols) return;
      const char* const tile = buffer(lane, step.index);
      const auto* const listed = reinterpret_cast<const uint16_t*>(tile + tile_bytes(window, width));
      const auto* const offsets = listed + window * each;
      const T* const mine = reinterpret_cast<const T*>(tile) + c;
#pragma unroll
      for (int r = 0; r < kOwned; ++r) {
        const int o = r * groups + group;
        if (o >= rows) break;
        const int end = offsets[o + 1];
        for (int p = offsets[o]; p < end; ++p) {
          const uint32_t entry = listed[p];
          const T factor = entry & 1 ? T(-1) : T(1);
          const Pack<T, N> row = load_pack<T, N>(mine + (entry >> 1) * static_cast<uint32_t>(width * N));
#pragma unroll
          for (int n = 0; n < N; ++n) state.sum[r].v[n] = fma(row.v[n], factor, state.sum[r].v[n]);  // the product is exact
        }
      }
    }
  }

  template <int P>
  RANDLA_HD void close(const Lane& lane, State& state) const {
    const int64_t c = first_column(lane) + lane.thread % width * N;
    const int group = lane.thread / width, groups = kThreads / width, rows = rows_of_part(lane);
    if (c >= A.cols) return;
#pragma unroll
    for (int r = 0; r < kOwned; ++r) {
      const int o = r * groups + group;
      if (o >= rows) break;
      T* const to = out.data + (first_row(lane) + o) * out.row_stride + c;
      Pack<T, N> had;
      if (packed) {
        had = load_pack<T, N>(to);
      } else {
#pragma unroll
        for (int n = 0; n < N; ++n) had.v[n] = to[n];
      }
#pragma unroll
      for (int n = 0; n < N; ++n) had.v[n] = had.v[n] + state.sum[r].v[n] * scale;
      if (packed) {
        store_pack<T, N>(to, had);
      } else {
#pragma unroll
        for (int n = 0; n < N; ++n) to[n] = had.v[n];
      }
    }
  }
};

// Sorted entries of some windows into their compact form: where those of each row begin within the window, and 16 bits each.
struct PackWindows {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  const uint32_t *keys, *values;
  int64_t count, rows, windows, per_window, stride;  // entries; rows of S; entries of a window
  uint16_t *start, *entries;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  RANDLA_HD void begin(int64_t key, int64_t at) const {
    const int64_t w = key / rows, o = key % rows;
    if (w < windows) start[w * stride + o] = static_cast<uint16_t>(at - w * per_window);
    if (o == 0 && w > 0) start[(w - 1) * stride + rows] = static_cast<uint16_t>(at - (w - 1) * per_window);
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread;
    if (i > count) return;
    if (i < count) entries[i] = static_cast<uint16_t>(values[i]);
    const int64_t after = i == 0 ? 0 : static_cast<int64_t>(keys[i - 1]) + 1, upto = i == count ? windows * rows : keys[i];
    for (int64_t key = after; key <= upto; ++key) begin(key, i);
  }
};

// Windows whose entries are sorted together.
int64_t windows_together(const SparseSketch& s, int64_t window) {
  const int64_t by_keys = ((int64_t(1) << 32) - 1) / s.rows(), by_memory = kSortedTogether / (window * s.count());
  const int64_t most = by_keys < by_memory ? by_keys : by_memory;
  return most > 1 ? most : 1;
}

// How a product is cut, and how many nanoseconds it takes for each row of A by the rates in the head.
struct Cut {
  int width;
  int64_t parts, per_part;
  double time;
};

// How much of a device works if it takes `enough` to fill it.
double busy(int64_t some, int64_t enough) { return some < enough ? static_cast<double>(some) / static_cast<double>(enough) : 1; }

template <class T>
Cut cut_by(int width, const SparseSketch& s, int64_t cols, int64_t window) {
  const int64_t packs = divided_up(cols, kPack<T>), strips = divided_up(packs, width), rows = s.rows();
  const int64_t able = Windowed<T>::kThreads / width * Windowed<T>::kOwned;
  int64_t parts = divided_up(rows, able);
  const int64_t filling = divided_up(kFilling, strips), most = divided_up(rows, 64);
  if (parts < filling) parts = filling < most ? filling : most;
  const int64_t per_part = divided_up(divided_up(rows, parts), 8) * 8;
  parts = divided_up(rows, per_part);
  const double each = s.count(), per_row = 2.0 * static_cast<double>(per_part) / static_cast<double>(window);
  const double l2 = static_cast<double>(strips * parts) * (16.0 * width + 2 * each + per_row) / 6e3;
  const double shared = 16.0 * static_cast<double>(packs) * each / (width == 4 ? 22e3 : 16e3);
  return {width, parts, per_part, (l2 > shared ? l2 : shared) / busy(strips * parts, kFilling)};
}

template <class T>
bool fits(const Cut& cut, const SparseSketch& s, int64_t window) {
  return static_cast<size_t>(2 * Windowed<T>::bytes(window, s.count(), cut.width, cut.per_part)) <= shared_limit();
}

// The better one of those that fit, with width 0 where none does.
template <class T>
Cut best_cut(const SparseSketch& s, int64_t cols, int64_t window) {
  const Cut wide = cut_by<T>(4, s, cols, window), narrow = cut_by<T>(2, s, cols, window);
  const bool wide_fits = fits<T>(wide, s, window);
  if (!fits<T>(narrow, s, window)) return wide_fits ? wide : Cut{0, 0, 0, 0};
  return wide_fits && wide.time <= narrow.time ? wide : narrow;
}

}  // namespace

int64_t window_stride(const SparseSketch& s) { return (s.rows() + 8) / 8 * 8; }

template <class T>
bool takes_window(const SparseSketch& s, Matrix<const T> A, int64_t window) {
  const int64_t strip = strip_columns(A);
  if (!can_be_window(s, window)) return false;
  if (strip ? A.cols % kPack<T> != 0 : !whole_packs(A)) return false;
  return best_cut<T>(s, strip ? strip : A.cols, window).width != 0;
}

template <class T>
int64_t window_rows(const SparseSketch& s, Matrix<const T> A) {
  const int64_t strip = strip_columns(A), cols = strip ? strip : A.cols;
  if (s.count() < 2 || A.rows == 0 || A.cols == 0) return 0;
  int64_t window = kLongestWindow;
  while (window > 8 && !takes_window(s, A, window)) window /= 2;
  const int64_t packs = divided_up(cols, kPack<T>), threads = 1 << 15;
  const double by_rows = 16.0 * static_cast<double>(packs * s.count()) / 6e3 / busy(packs * s.rows(), threads);
  return takes_window(s, A, window) && best_cut<T>(s, cols, window).time < by_rows ? window : 0;
}

int64_t sort_windows_bytes(const SparseSketch& s, int64_t count, int64_t window) {
  const int64_t together = windows_together(s, window), windows = divided_up(count, window);
  const int64_t some = windows < together ? windows : together, entries = some * window * s.count();
  return entries * 16 + static_cast<int64_t>(sort_bytes(entries, bits_of(some * s.rows())));
}

void sort_windows(const SparseSketch& s, int64_t j0, int64_t count, int64_t window, WindowEntries to, void* memory,
                  Stream stream) {
  const int64_t together = windows_together(s, window), windows = divided_up(count, window), each = s.count();
  for (int64_t w = 0; w < windows; w += together) {
    const int64_t some = windows - w < together ? windows - w : together, first = w * window;
    const int64_t columns = count - first < some * window ? count - first : some * window, entries = columns * each;
    uint32_t *const keys = static_cast<uint32_t*>(memory), *const values = keys + entries;
    uint32_t *const sorted_keys = values + entries, *const sorted_values = sorted_keys + entries;
    const ListEntries list{s, j0 + first, columns, keys, values, window};
    launch(list, {divided_up(columns * list.calls(), ListEntries::kThreads)}, stream);
    const int bits = bits_of(some * s.rows());
    sort_pairs({keys, values, sorted_keys, sorted_values}, entries, bits, sorted_values + entries,
               sort_bytes(entries, bits), stream);
    launch(PackWindows{sorted_keys, sorted_values, entries, s.rows(), some, window * each, window_stride(s),
                       to.start + w * window_stride(s), to.entries + first * each},
           {divided_up(entries + 1, PackWindows::kThreads)}, stream);
  }
}

template <class T>
void window_sketch(const SparseSketch& s, int64_t window, WindowEntries entries, Matrix<const T> A, T* strip, Matrix<T> out,
                   Stream stream) {
  if (A.rows == 0 || A.cols == 0) return;
  by_strips(A, strip, stream, [&](Matrix<const T> part, int64_t c) {
    using K = Windowed<T>;
    const Matrix<T> to{out.data + c * out.col_stride, out.rows, part.cols, out.row_stride, out.col_stride};
    const Cut cut = best_cut<T>(s, part.cols, window);
    const int64_t strips = divided_up(divided_up(part.cols, K::N), cut.width);
    const T scale = static_cast<T>(1.0 / sqrt(static_cast<double>(s.nnz)));
    launch(K{part, to, entries.start, entries.entries, window_stride(s), cut.per_part, cut.parts, static_cast<int>(window),
             s.count(), cut.width, scale, whole_packs(to)},
           {strips * cut.parts, 1, static_cast<size_t>(2 * K::bytes(window, s.count(), cut.width, cut.per_part))}, stream);
  });
}

template bool takes_window<float>(const SparseSketch&, Matrix<const float>, int64_t);
template bool takes_window<double>(const SparseSketch&, Matrix<const double>, int64_t);
template int64_t window_rows<float>(const SparseSketch&, Matrix<const float>);
template int64_t window_rows<double>(const SparseSketch&, Matrix<const double>);
template void window_sketch<float>(const SparseSketch&, int64_t, WindowEntries, Matrix<const float>, float*, Matrix<float>, Stream);
template void window_sketch<double>(const SparseSketch&, int64_t, WindowEntries, Matrix<const double>, double*, Matrix<double>,
                                    Stream);

}  // namespace randla::cuda
