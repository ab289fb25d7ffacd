// Chains of Kronecker-sparse matrices on a device: how their numbers lie, how a chain is cut into runs of stages, and a run
// into tiles.
#pragma once

#include <vector>

#include "common/butterfly.h"
#include "cuda/kernels.h"
#include "cuda/sketch.h"

namespace randla::cuda {

// Stages with blocks of at most so many rows and columns are applied in registers, several of them by one kernel.
constexpr int kSmallBlock = 8;

RANDLA_HD bool small_block(int64_t b, int64_t c) { return b <= kSmallBlock && c <= kSmallBlock; }

// Rows of a block that small blocks compute at a time; their numbers in one column of the block are neighbours.
RANDLA_HD int rows_at_once(int64_t b) { return b > 2 ? 4 : static_cast<int>(b); }

// Numbers of a stage with P reals each as the kernels read them. Large blocks: (a, d, c, b). Small ones, so that the threads of
// a warp, which work on neighbouring blocks, read neighbouring 16 bytes: (rows of blocks at once, c, part, a d, reals of a
// part).
template <class T>
int64_t packed_size(const ButterflyStage<T>& s, int P) {
  const int64_t each = small_block(s.b, s.c) ? rows_at_once(s.b) : 1;
  return s.a * s.d * s.c * ((s.b + each - 1) / each * each) * P;
}

template <class T>
void pack_stage(const ButterflyStage<T>& s, int P, T* to) {
  const int64_t groups = s.a * s.d;
  if (!small_block(s.b, s.c)) {
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t k = 0; k < s.c; ++k)
        for (int64_t j = 0; j < s.b; ++j)
          for (int p = 0; p < P; ++p) *to++ = s.values[((g * s.b + j) * s.c + k) * P + p];
    return;
  }
  const int each = rows_at_once(s.b), reals = each * P < kPack<T> ? each * P : kPack<T>;
  for (int64_t j0 = 0; j0 < s.b; j0 += each)
    for (int64_t k = 0; k < s.c; ++k)
      for (int part = 0; part < each * P / reals; ++part)
        for (int64_t g = 0; g < groups; ++g)
          for (int e = part * reals; e < (part + 1) * reals; ++e)
            *to++ = j0 + e / P < s.b ? s.values[((g * s.b + j0 + e / P) * s.c + k) * P + e % P] : T(0);
}

// Stages [first, last) by one kernel. They leave rows apart whose numbers differ modulo `stride` or in the block of 1 /
// `blocks` of all rows; a block and a neighbour modulo the stride have at most `rows` rows between two stages.
struct ChainRun {
  int first, last;
  bool large;  // one stage of large blocks
  int64_t blocks, stride, rows;
  int sides;       // 2 where stages cannot leave their rows where they found them
  double numbers;  // reals of the stages for one block and neighbour
};

// How a thread block's tile of a run looks: 16-byte packs of a row, blocks of rows, neighbours.
struct ChainTile {
  int packs, together, neighbours;  // packs: a power of two or three times one
  int64_t bytes;  // of shared memory
  bool alone;     // on its multiprocessor
};

struct StageShape {
  int64_t a, b, c, d;

  int64_t rows_in() const { return a * c * d; }
  int64_t rows_out() const { return a * b * d; }
};

// Stages in the order of application, with values as pack_stage leaves them.
template <class T>
struct ButterflyChain {
  std::vector<ButterflyStage<T>> stages;
  std::vector<ChainRun> runs;
};

constexpr int kMostStages = 16;  // of a run

// `size` bytes are one real number, P of them a number.
std::vector<ChainRun> cut_chain(const std::vector<StageShape>& stages, int size, int P);
// Tiles of at least `neighbours` neighbours where there are as many.
ChainTile tile_run(const ChainRun& run, int size, int P, int64_t batch, int64_t neighbours);

template <class T>
RANDLA_HD T* at(const Matrix<T>& a, int64_t i, int64_t j) {
  return a.data + i * a.row_stride + j * a.col_stride;
}

// A number of a fused sum; the order of all sums is ascending in the columns of a block, in any tile and layout.
static RANDLA_HD double fused(double a, double b, double c) { return fma(a, b, c); }
static RANDLA_HD float fused(float a, float b, float c) { return fmaf(a, b, c); }

// y += w x for every number of a pack, y = w x for the first.
template <bool Pairs, class T, int N>
RANDLA_HD void add_product(bool first, const T* w, const Pack<T, N>& x, Pack<T, N>& y) {
  if constexpr (Pairs) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      const T re = first ? w[0] * x.v[n] : fused(w[0], x.v[n], y.v[n]);
      const T im = first ? w[0] * x.v[n + 1] : fused(w[0], x.v[n + 1], y.v[n + 1]);
      y.v[n] = fused(-w[1], x.v[n + 1], re);
      y.v[n + 1] = fused(w[1], x.v[n], im);
    }
  } else {
#pragma unroll
    for (int n = 0; n < N; ++n) y.v[n] = first ? w[0] * x.v[n] : fused(w[0], x.v[n], y.v[n]);
  }
}

}  // namespace randla::cuda
