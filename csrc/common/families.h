// The sketch families with a fixed number of nonzeros per column: which rows, which values. See docs/definitions.md.
#pragma once

#include "common/random.h"

namespace randla {

enum class Family : int { kSparseStack = 0, kSparseSign = 1 };

struct SparseSketch {
  Family family;
  int64_t d, m;
  int nnz;
  uint64_t seed;

  static constexpr int kMaxNnz = 256;
};

// Rows and sign bits (1 = minus) of the nnz entries of one column.
static RANDLA_HD void sparse_column(const SparseSketch& s, uint64_t column, uint32_t* rows, uint8_t* minus) {
  const bool stack = s.family == Family::kSparseStack;
  const uint32_t stream = stack ? kSparseStack : kSparseSign;
  const uint64_t size = static_cast<uint64_t>(s.d) / s.nnz, longer = static_cast<uint64_t>(s.d) % s.nnz;
  uint64_t start = 0;
  Words w = {0, 0};
  for (int t = 0; t < s.nnz; ++t) {
    if (t % 2 == 0) w = philox(column, static_cast<uint32_t>(t / 2), stream, s.seed);
    const uint64_t u = t % 2 ? w.u1 : w.u0;
    minus[t] = static_cast<uint8_t>(u & 1);
    if (stack) {
      const uint64_t length = size + (static_cast<uint64_t>(t) < longer);
      rows[t] = static_cast<uint32_t>(start + bounded(u, length));
      start += length;
    } else {
      const uint32_t last = static_cast<uint32_t>(s.d - s.nnz + t);
      uint32_t row = static_cast<uint32_t>(bounded(u, static_cast<uint64_t>(last) + 1));
      for (int k = 0; k < t; ++k)
        if (rows[k] == row) {
          row = last;
          break;
        }
      rows[t] = row;
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
  RANDLA_HD int64_t block_start(int64_t k) const {
    const int64_t nb = blocks(), size = d / nb, longer = d % nb;
    return k * size + (k < longer ? k : longer);
  }
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

}  // namespace randla
