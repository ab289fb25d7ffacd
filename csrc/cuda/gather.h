// Sums of rows of A, one list of rows for every row of the result, in the order of the list: no atomics, the same bits always.
#pragma once

#include "cuda/sketch.h"

namespace randla::cuda {

// Source: int64_t begin(o) and end(o) of the list of row o; Entry entry(p); int64_t row(Entry) of A; T factor(Entry); add(sum,
// a, factor); start(to) and finish(sum, to), what a sum begins with and what it becomes; often(), whether rows of A are listed
// several times.
//
// Bytes to move: the rows listed, once, the result and 4 bytes for each entry (16 for the entries of EntryList). A thread owns
// N columns of one row of the result, W neighbouring threads a tile of up to 512 bytes of it: rows of A lie anywhere, so that
// each visit has to take all that a warp can. It has kAhead rows in flight (128 bytes a thread, 64 KB and more on a
// multiprocessor, when 26 KB would hide the latency of memory) and knows the rows after them. Some 12 instructions for each 16
// bytes a thread: 3 clocks of issue for the 31 clocks that memory takes for the 512 bytes of a warp. Tiles come one after the
// other, so that blocks that run together read the same columns; where rows are listed often, tiles are as narrow (128 bytes at
// least) as lets all rows of the result be summed at once, in step: then they are read from memory once and from L2 as often as
// they are listed.
template <class T, int N, class Source>
struct Gather {
  static constexpr int kThreads = 128, kPhases = 1, kAhead = 8;
  struct State {};

  Source source;
  Matrix<const T> A;
  Matrix<T> out;
  int width;       // W
  int64_t groups;  // of kThreads / W rows of the result

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t o = lane.x % groups * (kThreads / width) + lane.thread / width;
    const int64_t c = (lane.x / groups * width + lane.thread % width) * N;
    if (o >= out.rows || c >= out.cols) return;
    using Entry = typename Source::Entry;
    const T* const from = A.data + c * A.col_stride;
    T* const to = out.data + o * out.row_stride + c;
    Pack<T, N> sum = source.start(load_pack<T, N>(to));
    const int64_t end = source.end(o);
    int64_t p = source.begin(o);
    Entry next[kAhead];
    const auto look = [&](int64_t at) {
#pragma unroll
      for (int u = 0; u < kAhead; ++u)
        if (at + u < end) next[u] = source.entry(at + u);
    };
    look(p);
    for (; p < end; p += kAhead) {
      Pack<T, N> rows[kAhead];
      T factors[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u)
        if (p + u < end) {
          rows[u] = load_pack<T, N>(from + source.row(next[u]) * A.row_stride);
          factors[u] = source.factor(next[u]);
        }
      look(p + kAhead);
#pragma unroll
      for (int u = 0; u < kAhead; ++u)
        if (p + u < end)
#pragma unroll
          for (int n = 0; n < N; ++n) sum.v[n] = source.add(sum.v[n], rows[u].v[n], factors[u]);
    }
    store_pack<T, N>(to, source.finish(sum, load_pack<T, N>(to)));
  }
};

template <class T, class Source>
void gather_rows(const Source& source, Matrix<const T> A, Matrix<T> out, Stream stream) {
  if (out.rows == 0 || out.cols == 0) return;
  const auto with = [&](auto packed) {
    constexpr int N = decltype(packed)::value;
    using K = Gather<T, N, Source>;
    const int64_t packs = divided_up(out.cols, N);
    constexpr int64_t together = 1 << 16;  // threads that run at once
    constexpr int least = 8 * kPack<T> / N < kWarp ? 8 * kPack<T> / N : kWarp;
    const int64_t most = source.often() ? together / out.rows : kWarp;
    int width = 1;
    while (width < packs && width < kWarp && (width < least || 2 * width <= most)) width *= 2;
    const int64_t groups = divided_up(out.rows, K::kThreads / width);
    launch(K{source, A, out, width, groups}, {groups * divided_up(packs, width)}, stream);
  };
  if (whole_packs(A) && whole_packs(out))
    with(std::integral_constant<int, kPack<T>>());
  else
    with(std::integral_constant<int, 1>());
}

// The same for CSR rows, whose entries are distinct columns. out.col_stride must be 1.
//
// Bytes to move: each listed row of A. One warp owns a row of the result, in shared memory where it fits, so that the order of
// sums is that of the list whatever columns the rows have. What counts is latency: kTogether rows are fetched at a time, with
// the places of the following ones, and added one after another.
template <class T, class Index, class Source>
struct GatherCsr {
  // Barriers of a block of one warp are __syncwarp, which orders memory of the device for its threads too.
  static constexpr int kThreads = kWarp, kTogether = 8, kPhases = 2 + kTogether, kOpening = 1, kClosing = 1;
  static constexpr int64_t kShared = 16384;
  struct Place {
    Index begin, end;
    T factor;
  };
  struct State {
    Place next;
    Index column[kTogether];
    T value[kTogether];
  };

  Source source;
  const T* values;
  const Index *indptr, *indices;
  Matrix<T> out;
  bool shared;

  static constexpr size_t places_bytes() { return (kTogether * sizeof(Place) + 15) / 16 * 16; }
  RANDLA_HD int64_t steps(const Lane& lane) const { return divided_up(source.end(lane.x) - source.begin(lane.x), kTogether); }

  RANDLA_HD T* row_of(const Lane& lane) const {
    return shared ? reinterpret_cast<T*>(lane.shared + places_bytes()) : out.data + lane.x * out.row_stride;
  }

  RANDLA_HD Place place(const Lane& lane, int64_t step) const {
    const int64_t p = source.begin(lane.x) + step * kTogether + lane.thread;
    if (lane.thread >= kTogether || p >= source.end(lane.x)) return {0, 0, T(0)};
    const auto entry = source.entry(p);
    const int64_t row = source.row(entry);
    return {indptr[row], indptr[row + 1], source.scaled_factor(entry)};
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step step) const {
    Place* const places = reinterpret_cast<Place*>(lane.shared);
    if constexpr (P == 0) {
      if (lane.thread < kTogether) places[lane.thread] = state.next;
    } else if constexpr (P == 1) {
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        const Index p = places[u].begin + lane.thread;
        if (p < places[u].end) {
          state.column[u] = indices[p];
          state.value[u] = values[p];
        }
      }
      state.next = place(lane, step.index + 1);
    } else {
      constexpr int u = P - 2;
      T* const row = row_of(lane);
      const Index end = places[u].end;
      const T factor = places[u].factor;
      Index p = places[u].begin + lane.thread;
      if (p < end) row[state.column[u]] = row[state.column[u]] + state.value[u] * factor;
      for (p += kThreads; p < end; p += kThreads) row[indices[p]] = row[indices[p]] + values[p] * factor;
    }
  }

  template <int P>
  RANDLA_HD void open(const Lane& lane, State& state) const {
    state.next = place(lane, 0);
    if (shared)
      for (int64_t c = lane.thread; c < out.cols; c += kThreads) row_of(lane)[c] = out.data[lane.x * out.row_stride + c];
  }

  template <int P>
  RANDLA_HD void close(const Lane& lane, State&) const {
    if (shared)
      for (int64_t c = lane.thread; c < out.cols; c += kThreads) out.data[lane.x * out.row_stride + c] = row_of(lane)[c];
  }
};

template <class T, class Source>
void gather_csr_rows(const Source& source, Csr<T> A, Matrix<T> out, Stream stream) {
  if (out.rows == 0 || out.cols == 0) return;
  const auto with = [&](auto index) {
    using Index = decltype(index);
    using K = GatherCsr<T, Index, Source>;
    const int64_t row = out.cols * static_cast<int64_t>(sizeof(T));
    const bool shared = row <= K::kShared;
    launch(K{source, A.values, static_cast<const Index*>(A.indptr), static_cast<const Index*>(A.indices), out, shared},
           {out.rows, 1, K::places_bytes() + (shared ? static_cast<size_t>(row) : 0)}, stream);
  };
  if (A.wide)
    with(int64_t());
  else
    with(int32_t());
}

}  // namespace randla::cuda
