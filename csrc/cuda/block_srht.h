// What both directions of BlockSRHT share: the tables of a call, where the rows of a group are, transforms in registers.
#pragma once

#include "cuda/sketch.h"

namespace randla::cuda {

// Where the sums of a block of rows of the result go: into it, or, of each of several pieces of the windows, into a matrix of
// its own, to be added up in order.
template <class T>
struct SrhtResult {
  Matrix<T> out;
  T* parts;  // null for one piece
  int64_t pieces;

  RANDLA_HD int64_t stride() const { return parts != nullptr ? out.cols : out.row_stride; }
  RANDLA_HD T* row(int64_t i, int64_t piece) const {
    return (parts != nullptr ? parts + piece * out.rows * out.cols : out.data) + i * stride();
  }
};

// Sign bits of the rows that a group takes, and of those that it becomes.
struct SrhtSigns {
  Words before, after;
};

// What the windows first .. first + count - 1 of a sketch need: slabs (block per window), signs (kGroups per window) and
// offsets.
struct SrhtWindows {
  BlockSrht s;
  int64_t first, count;
  const SrhtSlab* slabs;
  const SrhtSigns* signs;
  const int64_t* offsets;

  RANDLA_HD int height(int64_t w) const { return static_cast<int>(s.slab_rows(first + w)); }

  // The first group of window w that goes to block k; after it comes every blocks-th one.
  RANDLA_HD int64_t first_group(int64_t w, int64_t k) const {
    const int64_t g = k - offsets[w];
    return g < 0 ? g + s.blocks() : g;
  }

  // Whether a matrix of the rows j0 .. j0 + rows - 1 has all rows that the groups of window w take.
  RANDLA_HD bool whole(int64_t w, int64_t j0, int64_t rows) const {
    const int64_t start = (first + w) * s.window_rows();
    return start >= j0 && start + s.window_rows() <= j0 + rows;
  }
};

template <class T>
static RANDLA_HD T srht_scale(const BlockSrht& s, int64_t block) {
  return static_cast<T>(1.0 / sqrt(static_cast<double>(s.block_start(block + 1) - s.block_start(block))));
}

// Fills the tables of the rows j0 .. j0 + rows - 1 in `memory`.
SrhtWindows make_windows(const BlockSrht& s, int64_t j0, int64_t rows, void* memory, Stream stream);

template <class T, int N>
static RANDLA_HD void hadamard(T (&v)[N]) {
#pragma unroll
  for (int h = 1; h < N; h *= 2)
#pragma unroll
    for (int i = 0; i < N; ++i)
      if ((i & h) == 0) {
        const T a = v[i], b = v[i + h];
        v[i] = a + b;
        v[i + h] = a - b;
      }
}

// v times -1 where the lowest bit of the word is set.
static RANDLA_HD float flipped(float v, uint32_t word) { return same_bits<float>(same_bits<uint32_t>(v) ^ (word << 31)); }
static RANDLA_HD double flipped(double v, uint32_t word) {
  return same_bits<double>(same_bits<uint64_t>(v) ^ (static_cast<uint64_t>(word) << 63));
}

// How the B rows of a group are dealt to threads: kRows of one column to each, as many as leave registers for as many sums.
// Where that is not all of them, kParts threads mix a column by way of shared memory: part q has rows q kRows .. of the group
// before, and then kPiece rows from q kPiece on of every part.
template <class T, int B>
struct SrhtDeal {
  static constexpr int kRows = sizeof(T) == 4 ? (B < 128 ? B : 32) : 16, kParts = B / kRows;
  static constexpr int kPiece = kRows / kParts, kThreads = 128, kColumns = kThreads / kParts;
  static constexpr int kBlocks = kParts == 1 || B == 128 ? 3 : 4;  // on a multiprocessor

  static RANDLA_HD int part(const Lane& lane) { return lane.thread / kColumns; }
  static RANDLA_HD int column(const Lane& lane) { return lane.thread % kColumns; }
  // The row of the group that number i of a thread is after mixing.
  static RANDLA_HD int row(const Lane& lane, int i) { return i / kPiece * kRows + part(lane) * kPiece + i % kPiece; }

  // Signs of the rows first, first + 1 ... of a group, with that of number i at the bottom of word(i).
  struct Signs {
    static constexpr int kStep = kPiece >= 32 ? 32 : kPiece;
    uint32_t words[kRows / kStep];

    RANDLA_HD uint32_t word(int i) const { return words[i / kStep] >> i % kStep; }
  };
  // Of a thread's rows before mixing, and after it.
  static RANDLA_HD Signs signs_before(const Lane& lane, const Words& group) {
    return signs(group, [&](int i) { return part(lane) * kRows + i; });
  }
  static RANDLA_HD Signs signs_after(const Lane& lane, const Words& group) {
    return signs(group, [&](int i) { return row(lane, i); });
  }
  template <class Row>
  static RANDLA_HD Signs signs(const Words& group, Row row_of) {
    Signs out;
#pragma unroll
    for (int k = 0; k < kRows / Signs::kStep; ++k) {
      const int r = row_of(k * Signs::kStep);
      out.words[k] = static_cast<uint32_t>((r < 64 ? group.u0 : group.u1) >> (r % 64));
    }
    return out;
  }

  // A thread's sums, of a column of `rows` rows from `at` on.
  static RANDLA_HD void load_sums(const Lane& lane, const SrhtResult<T>& result, const T* at, int64_t rows, T (&sum)[kRows]) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) sum[i] = T(0);
    if (result.parts == nullptr)
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        if (const int r = row(lane, i); r < rows) sum[i] = at[r * result.stride()];
  }
  static RANDLA_HD void store_sums(const Lane& lane, const SrhtResult<T>& result, T* at, int64_t rows, const T (&sum)[kRows]) {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      if (const int r = row(lane, i); r < rows) at[r * result.stride()] = sum[i];
  }
  // sum += the signed and scaled rows of a group.
  static RANDLA_HD void add(const Lane& lane, const Words& group, T scale, const T (&v)[kRows], T (&sum)[kRows]) {
    const Signs after = signs_after(lane, group);
#pragma unroll
    for (int i = 0; i < kRows; ++i) sum[i] = sum[i] + flipped(v[i], after.word(i)) * scale;
  }
  static RANDLA_HD void flip(const Lane& lane, const Words& group, T (&v)[kRows]) {
    const Signs before = signs_before(lane, group);
#pragma unroll
    for (int i = 0; i < kRows; ++i) v[i] = flipped(v[i], before.word(i));
  }

  static constexpr size_t exchange_bytes() { return kParts > 1 ? sizeof(T) * kThreads * kRows : 0; }
  static RANDLA_HD void give(const Lane& lane, T* exchange, const T (&v)[kRows]) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) exchange[(part(lane) * kRows + i) * kColumns + column(lane)] = v[i];
  }
  static RANDLA_HD void take(const Lane& lane, const T* exchange, T (&v)[kRows]) {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      T w[kParts];
#pragma unroll
      for (int r = 0; r < kParts; ++r) w[r] = exchange[row(lane, r * kPiece + i) * kColumns + column(lane)];
      hadamard<T, kParts>(w);
#pragma unroll
      for (int r = 0; r < kParts; ++r) v[r * kPiece + i] = w[r];
    }
  }

};

// Row of the window that lane a of group g takes.
static RANDLA_HD int64_t srht_local(const SrhtWindows& windows, int64_t w, int g, int a, const SrhtSlab& slab) {
  const int height = windows.height(w), rotation = static_cast<int>(slab.rotation);
  return static_cast<int64_t>(a) * height + (g >= rotation ? g - rotation : g - rotation + height);
}

// Where it lies, in bytes from the start of a matrix that holds the rows from j0 on; kNoRow where the matrix does not have it.
constexpr int64_t kNoRow = INT64_MIN;
static RANDLA_HD int64_t srht_place(const SrhtWindows& windows, int64_t w, int g, int a, int64_t j0, int64_t rows,
                                    int64_t row_bytes) {
  const int64_t local = srht_local(windows, w, g, a, windows.slabs[w * windows.s.block + a]);
  const int64_t i = (windows.first + w) * windows.s.window_rows() + local - j0;
  return local < windows.s.rows_in_window(windows.first + w) && i >= 0 && i < rows ? i * row_bytes : kNoRow;
}

// block_srht for a matrix with contiguous columns.
template <class T>
void mix_columns(const SrhtWindows& windows, Matrix<const T> A, int64_t j0, const SrhtResult<T>& result, Stream stream);

}  // namespace randla::cuda
