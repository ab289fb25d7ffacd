// Sparse sketches. The entries of S are listed by rows of S (SortedEntries), each row's in ascending order of columns, and
// every row of the result sums its own: the sums of the CPU kernels, without atomics. The list can be kept for as long as S is
// applied. Where columns have several entries, sparse_windows.cu reads A fewer times.

#include "cuda/gather.h"
#include "cuda/sort_rows.h"
#include "cuda/sparse_entries.h"

namespace randla::cuda {
namespace {

// Where each row's entries begin among the sorted ones.
struct Starts {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  const uint32_t* keys;
  int64_t count, rows;
  int64_t* start;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread;
    if (i > count) return;
    const int64_t after = i == 0 ? 0 : static_cast<int64_t>(keys[i - 1]) + 1, upto = i == count ? rows : keys[i];
    for (int64_t o = after; o <= upto; ++o) start[o] = i;
  }
};

template <class T>
struct Sorted {
  using Entry = uint32_t;

  const int64_t* starts;
  const uint32_t* entries;
  T scale;
  int each;  // entries of a column

  RANDLA_HD int64_t begin(int64_t o) const { return starts[o]; }
  RANDLA_HD int64_t end(int64_t o) const { return starts[o + 1]; }
  RANDLA_HD Entry entry(int64_t p) const { return entries[p]; }
  RANDLA_HD int64_t row(Entry e) const { return e >> 1; }
  RANDLA_HD T factor(Entry e) const { return e & 1 ? T(-1) : T(1); }
  RANDLA_HD T add(T sum, T a, T factor) const { return fma(a, factor, sum); }  // the product is exact
  bool often() const { return each > 1; }
  RANDLA_HD T scaled_factor(Entry e) const { return e & 1 ? -scale : scale; }
  template <int N>
  RANDLA_HD Pack<T, N> start(const Pack<T, N>&) const {
    return {};
  }
  template <int N>
  RANDLA_HD Pack<T, N> finish(const Pack<T, N>& sum, const Pack<T, N>& to) const {
    Pack<T, N> out;
#pragma unroll
    for (int n = 0; n < N; ++n) out.v[n] = to.v[n] + sum.v[n] * scale;
    return out;
  }
};

// A thread owns N columns of one row of S'Y and reads the rows of Y that it sums, which are few and stay in L2: what counts is
// writing the result. The rows and signs of kRows rows of the result are made by the block, as in ListEntries.
template <class T, int N>
struct Spread {
  static constexpr int kThreads = 256, kPhases = 2, kRows = 16;
  struct State {};

  SparseSketch s;
  Matrix<const T> Y;
  int64_t j0;
  Matrix<T> out;
  T scale;

  size_t shared_bytes() const { return static_cast<size_t>(2 * kRows * s.count()) * sizeof(uint32_t); }
  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    uint32_t *const rows = reinterpret_cast<uint32_t*>(lane.shared), *const signs = rows + kRows * s.count();
    const int64_t first = lane.x * kRows, count = out.rows - first < kRows ? out.rows - first : kRows;
    if constexpr (P == 0) {
      const ListEntries entries{s, j0 + first, count, rows, signs};
      for (int64_t id = lane.thread; id < count * entries.calls(); id += kThreads) entries.list(id);
    } else {
      const int64_t packs = divided_up(out.cols, N);
      for (int64_t id = lane.thread; id < count * packs; id += kThreads) {
        const int64_t i = id / packs, c = id % packs * N;
        Pack<T, N> sum = {};
        for (int t = 0; t < s.count(); ++t) {
          const int64_t at = i * s.count() + t;
          const Pack<T, N> y = load_pack<T, N>(Y.data + rows[at] * Y.row_stride + c * Y.col_stride);
          const bool minus = (signs[at] & 1) != 0;
#pragma unroll
          for (int n = 0; n < N; ++n) sum.v[n] = sum.v[n] + (minus ? -y.v[n] : y.v[n]);
        }
#pragma unroll
        for (int n = 0; n < N; ++n) sum.v[n] = sum.v[n] * scale;
        store_pack<T, N>(out.data + (first + i) * out.row_stride + c, sum);
      }
    }
  }
};

template <class T>
T scale_of(const SparseSketch& s) {
  return static_cast<T>(1.0 / sqrt(static_cast<double>(s.nnz)));
}

}  // namespace

int64_t sort_entries_bytes(const SparseSketch& s, int64_t count) {
  const int64_t entries = count * s.count();
  return (entries * 12 + 15) / 16 * 16 + static_cast<int64_t>(sort_bytes(entries, bits_of(s.rows())));
}

void sort_entries(const SparseSketch& s, int64_t j0, int64_t count, SortedEntries to, void* memory, Stream stream) {
  const int64_t entries = count * s.count();
  uint32_t *const keys = static_cast<uint32_t*>(memory), *const values = keys + entries, *const sorted_keys = values + entries;
  if (entries > 0) {
    const ListEntries list{s, j0, count, keys, values};
    launch(list, {divided_up(count * list.calls(), ListEntries::kThreads)}, stream);
    char* const rest = static_cast<char*>(memory) + (entries * 12 + 15) / 16 * 16;
    sort_pairs({keys, values, sorted_keys, to.entries}, entries, bits_of(s.rows()), rest, sort_bytes(entries, bits_of(s.rows())), stream);
  }
  launch(Starts{sorted_keys, entries, s.rows(), to.start}, {divided_up(entries + 1, Starts::kThreads)}, stream);
}

template <class T>
void sorted_sketch(const SparseSketch& s, SortedEntries entries, Matrix<const T> A, T* strip, Matrix<T> out, Stream stream) {
  if (A.rows == 0 || A.cols == 0) return;
  by_strips(A, strip, stream, [&](Matrix<const T> part, int64_t c) {
    const Matrix<T> to{out.data + c * out.col_stride, out.rows, part.cols, out.row_stride, out.col_stride};
    gather_rows<T>(Sorted<T>{entries.start, entries.entries, scale_of<T>(s), s.count()}, part, to, stream);
  });
}

template <class T>
void sorted_sketch_csr(const SparseSketch& s, SortedEntries entries, Csr<T> A, Matrix<T> out, Stream stream) {
  if (A.rows == 0 || A.cols == 0) return;
  gather_csr_rows<T>(Sorted<T>{entries.start, entries.entries, scale_of<T>(s), s.count()}, A, out, stream);
}

template <class T>
void sparse_sketch_adjoint(const SparseSketch& s, Matrix<const T> Y, int64_t j0, Matrix<T> out, Stream stream) {
  if (out.rows == 0 || out.cols == 0) return;
  const auto with = [&](auto packed) {
    using K = Spread<T, decltype(packed)::value>;
    const K k{s, Y, j0, out, scale_of<T>(s)};
    launch(k, {divided_up(out.rows, K::kRows), 1, k.shared_bytes()}, stream);
  };
  if (whole_packs(Y) && whole_packs(out))
    with(std::integral_constant<int, kPack<T>>());
  else
    with(std::integral_constant<int, 1>());
}

template void sorted_sketch<float>(const SparseSketch&, SortedEntries, Matrix<const float>, float*, Matrix<float>, Stream);
template void sorted_sketch<double>(const SparseSketch&, SortedEntries, Matrix<const double>, double*, Matrix<double>, Stream);
template void sorted_sketch_csr<float>(const SparseSketch&, SortedEntries, Csr<float>, Matrix<float>, Stream);
template void sorted_sketch_csr<double>(const SparseSketch&, SortedEntries, Csr<double>, Matrix<double>, Stream);
template void sparse_sketch_adjoint<float>(const SparseSketch&, Matrix<const float>, int64_t, Matrix<float>, Stream);
template void sparse_sketch_adjoint<double>(const SparseSketch&, Matrix<const double>, int64_t, Matrix<double>, Stream);

}  // namespace randla::cuda
