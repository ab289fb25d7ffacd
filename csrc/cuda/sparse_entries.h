// The entries of sparse sketches, column by column.
#pragma once

#include "cuda/block.h"
#include "cuda/kernels.h"

namespace randla::cuda {

// Entries of columns j0 .. j0 + count - 1 as pairs (row, 2 (column - j0) + sign bit); where columns are taken in windows, as pairs
// (rows of S times the number of the window + row, 2 (column - first one of the window) + sign bit). One thread for each call of
// Philox of a SparseStack, for each column of a SparseSign, whose draws depend on those before. 8 bytes to write for each entry.
struct ListEntries {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  SparseSketch s;
  int64_t j0, count;
  uint32_t *keys, *values;
  int64_t window = 0;  // columns, 0 for all of them

  RANDLA_HD int first_call() const { return s.first / 2; }
  RANDLA_HD int calls() const { return s.family == Family::kSparseStack ? (s.nnz + 1) / 2 - first_call() : 1; }
  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t id = lane.x * kThreads + lane.thread;
    if (id < count * calls()) list(id);
  }

  RANDLA_HD void list(int64_t id) const {
    const int64_t local = id / calls();
    const uint64_t column = static_cast<uint64_t>(j0 + local);
    const uint32_t offset = window ? static_cast<uint32_t>(local / window * s.rows()) : 0;
    const uint32_t twice = static_cast<uint32_t>(2 * (window ? local % window : local));
    uint32_t *const key = keys + local * s.count(), *const value = values + local * s.count();
    if (s.family == Family::kSparseStack) {
      const int call = first_call() + static_cast<int>(id % calls());
      const Words w = philox(column, static_cast<uint32_t>(call), kSparseStack, s.seed);
      put_piece(2 * call, w.u0, offset, twice, key, value);
      put_piece(2 * call + 1, w.u1, offset, twice, key, value);
    } else {
      Words w = {0, 0};
      for (int t = 0; t < s.nnz; ++t) {
        if (t % 2 == 0) w = philox(column, static_cast<uint32_t>(t / 2), kSparseSign, s.seed);
        const uint64_t u = t % 2 ? w.u1 : w.u0;
        key[t] = distinct_draw(u, s.d, s.nnz, t, key);
        value[t] = twice + static_cast<uint32_t>(u & 1);
      }
      if (offset)
        for (int t = 0; t < s.nnz; ++t) key[t] += offset;
    }
  }

  RANDLA_HD void put_piece(int t, uint64_t u, uint32_t offset, uint32_t twice, uint32_t* key, uint32_t* value) const {
    if (t < s.first || t >= s.nnz) return;
    const int64_t start = s.block_start(t), length = s.block_start(t + 1) - start;
    const int64_t row = start - s.block_start(s.first) + static_cast<int64_t>(bounded(u, static_cast<uint64_t>(length)));
    key[t - s.first] = offset + static_cast<uint32_t>(row);
    value[t - s.first] = twice + static_cast<uint32_t>(u & 1);
  }
};

inline int bits_of(int64_t numbers) {
  int bits = 1;
  while ((int64_t(1) << bits) < numbers) ++bits;
  return bits;
}

}  // namespace randla::cuda
