// The sketch families: which rows, which values. See docs/definitions.md.
#pragma once

#include "common/random.h"

namespace randla {

enum class Dense : int { kGaussian = 0, kRademacher = 1 };

struct DenseSketch {
  Dense family;
  int64_t d;
  uint64_t seed;

  static constexpr int kSignsPerCall = 128;

  RANDLA_HD int64_t rows_per_call() const { return family == Dense::kGaussian ? 2 : kSignsPerCall; }
};

enum class Family : int { kSparseStack = 0, kSparseSign = 1 };

// Where piece k of `parts` consecutive pieces of 0..total-1 begins; the longer ones come first.
static RANDLA_HD int64_t piece_start(int64_t total, int64_t parts, int64_t k) {
  const int64_t longer = total % parts;
  return k * (total / parts) + (k < longer ? k : longer);
}

// The t-th of `count` distinct numbers below `population` (Floyd), given those before it.
template <class Index>
static RANDLA_HD Index distinct_draw(uint64_t word, int64_t population, int count, int t, const Index* taken) {
  const int64_t last = population - count + t;
  const Index drawn = static_cast<Index>(bounded(word, static_cast<uint64_t>(last) + 1));
  for (int k = 0; k < t; ++k)
    if (taken[k] == drawn) return static_cast<Index>(last);
  return drawn;
}

struct SparseSketch {
  Family family;
  int64_t d, m;
  int nnz, first;  // entries first..nnz-1 of every column; others than 0 leave out the first blocks of a SparseStack
  uint64_t seed;

  static constexpr int kMaxNnz = 256;

  RANDLA_HD int count() const { return nnz - first; }
  RANDLA_HD int64_t block_start(int64_t t) const { return piece_start(d, nnz, t); }
  RANDLA_HD int64_t rows() const { return first == 0 ? d : d - block_start(first); }
};

// Rows, counted from the first one of interest, and sign bits (1 = minus) of the count() entries of one column.
static RANDLA_HD void sparse_column(const SparseSketch& s, uint64_t column, uint32_t* rows, uint8_t* minus) {
  const bool stack = s.family == Family::kSparseStack;
  const uint32_t stream = stack ? kSparseStack : kSparseSign;
  const uint64_t size = static_cast<uint64_t>(s.d) / s.nnz, longer = static_cast<uint64_t>(s.d) % s.nnz;
  uint64_t start = 0;
  Words w = {0, 0};
  for (int t = s.first; t < s.nnz; ++t) {
    if (t % 2 == 0 || t == s.first) w = philox(column, static_cast<uint32_t>(t / 2), stream, s.seed);
    const uint64_t u = t % 2 ? w.u1 : w.u0;
    const int place = t - s.first;
    minus[place] = static_cast<uint8_t>(u & 1);
    if (stack) {
      const uint64_t length = size + (static_cast<uint64_t>(t) < longer);
      rows[place] = static_cast<uint32_t>(start + bounded(u, length));
      start += length;
    } else {
      rows[t] = distinct_draw(u, s.d, s.nnz, t, rows);
    }
  }
}

struct BlockSrht {
  int64_t d, m;
  int block;  // lanes per group: 16, 32, 64 or 128
  uint64_t seed;

  static constexpr int kGroups = 64, kMaxBlock = 128;

  RANDLA_HD int64_t window_rows() const { return static_cast<int64_t>(kGroups) * block; }
  RANDLA_HD int64_t windows() const { return (m + window_rows() - 1) / window_rows(); }
  RANDLA_HD int64_t blocks() const { return (d + block - 1) / block; }
  RANDLA_HD int64_t block_start(int64_t k) const { return piece_start(d, blocks(), k); }
  RANDLA_HD int64_t rows_in_window(int64_t w) const {
    const int64_t left = m - w * window_rows();
    return left < window_rows() ? left : window_rows();
  }
  RANDLA_HD int64_t slab_rows(int64_t w) const { return (rows_in_window(w) + block - 1) / block; }
};

struct SrhtSlab {
  uint64_t signs;
  uint32_t rotation;
};

static RANDLA_HD SrhtSlab srht_slab(const BlockSrht& s, int64_t w, int a) {
  const Words u = philox(static_cast<uint64_t>(w), static_cast<uint32_t>(a), kSrhtSlab, s.seed);
  return {u.u0, static_cast<uint32_t>(bounded(u.u1, static_cast<uint64_t>(s.slab_rows(w))))};
}

static RANDLA_HD int64_t srht_offset(const BlockSrht& s, int64_t w) {
  return static_cast<int64_t>(bounded(philox(static_cast<uint64_t>(w), 0, kSrhtWindow, s.seed).u0,
                                      static_cast<uint64_t>(s.blocks())));
}

static RANDLA_HD Words srht_output_signs(const BlockSrht& s, int64_t w, int g) {
  return philox(static_cast<uint64_t>(w), static_cast<uint32_t>(g), kSrhtGroup, s.seed);
}

// Rounds of signs and Walsh-Hadamard transforms of length n, a power of two not below m, of which d rows are kept.
struct Srtt {
  int64_t d, m, n;
  int rounds;
  uint64_t seed;

  RANDLA_HD double scale() const {
    // One square root of an exact quotient of powers of two and d.
    double power = static_cast<double>(n);
    for (int k = 0; k < rounds; ++k) power /= static_cast<double>(n);
    return sqrt(power / static_cast<double>(d));
  }
};

// Signs of 128 neighbouring places in round `round` of a randomized trigonometric transform.
static RANDLA_HD Words transform_signs(uint64_t block_of_128, int round, uint64_t seed) {
  return philox(block_of_128, static_cast<uint32_t>(round), kTransformSigns, seed);
}

// Entries of a sketch listed row by row: those of row i are start[i] .. start[i + 1] - 1.
struct EntryList {
  const int64_t *start, *column;
  const double* value;
};

// nnz distinct columns of one row of LessUniform, uniform among m (Floyd), and sign bits (1 = minus).
static RANDLA_HD void less_uniform_row(int64_t m, int nnz, uint64_t seed, uint64_t row, int64_t* columns, uint8_t* minus) {
  Words w = {0, 0};
  for (int t = 0; t < nnz; ++t) {
    if (t % 2 == 0) w = philox(row, static_cast<uint32_t>(t / 2), kLessUniform, seed);
    const uint64_t u = t % 2 ? w.u1 : w.u0;
    minus[t] = static_cast<uint8_t>(u & 1);
    columns[t] = distinct_draw(u, m, nnz, t, columns);
  }
}

}  // namespace randla
