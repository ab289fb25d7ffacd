// Which kernel of row_pass.h or column_pass.h takes a pass.
#pragma once

#include "cuda/column_pass.h"
#include "cuda/passes.h"
#include "cuda/row_pass.h"

namespace randla::cuda {
namespace {

template <class T, class V>
struct PassArguments {
  Matrix<const T> A;
  const RowChoice& rows;
  const Margins<V>& m;
  const V* x;
  bool want_g;
  double* partial;
  Stream stream;
};

// Returns how many rows of partial results there are.
template <int Team, int Columns, int R, int K, bool Nonlinear = false, class T, class V>
int64_t launch_rows(const PassArguments<T, V>& p) {
  using Pass = RowPass<T, V, Team, Columns, R, K, Nonlinear>;
  const Blocks blocks = blocks_of_rows(p.rows.count, Pass::kTeams * R, Pass::kKeep ? most_blocks(p.m.k) : kFewBlocks);
  launch(Pass{p.A, p.rows, p.m, p.x, p.want_g, in_packs(p.A), blocks.rows, p.partial}, {blocks.count, 1, Pass::shared_bytes()},
         p.stream);
  return blocks.count;
}

template <int Apart, int Threads, int C, bool Nonlinear, class T, class V>
int64_t launch_columns(const PassArguments<T, V>& p) {
  using Pass = ColumnPass<T, V, Apart, Threads, C, Nonlinear>;
  const Blocks blocks = blocks_of_rows(p.A.rows, Pass::kRows, most_blocks(1));
  const bool packed = reinterpret_cast<uintptr_t>(p.A.data) % 16 == 0 && p.A.col_stride % Pass::L == 0;
  launch(Pass{p.A, p.m, p.x, p.want_g, packed, blocks.rows, p.partial}, {blocks.count, 1, Pass::shared_bytes()}, p.stream);
  return blocks.count;
}

template <class T, class V>
bool rows_fit(const PassArguments<T, V>& p) {
  return p.A.cols <= kLongestRow && (p.A.col_stride == 1 || p.A.cols <= 1);
}

// A thread has 256 bytes of A in flight as long as the registers hold them beside the sums of A' t.
template <bool Nonlinear, class T, class V>
int64_t pass_of_one(const PassArguments<T, V>& p) {
  constexpr int R = 32 / sizeof(T);
  if (by_columns<T, V>(p.A, p.rows)) {
    constexpr int C = static_cast<int>(kLongestTile<T, V> / 96);
    if (p.A.cols <= 8 * C) return launch_columns<16, 128, C, Nonlinear>(p);
    if (p.A.cols <= 16 * C) return launch_columns<8, 128, C, Nonlinear>(p);
    if (Nonlinear || p.A.cols <= 32 * C) return launch_columns<4, 128, C, Nonlinear>(p);
    if constexpr (!Nonlinear) {
      if (p.A.cols <= 48 * C) return launch_columns<8, 384, C, Nonlinear>(p);
      return launch_columns<4, 384, C, Nonlinear>(p);
    }
  }
  if (!rows_fit(p)) return launch_rows<256, 0, 4, 1, Nonlinear>(p);
  if (p.A.cols <= 64) return launch_rows<8, 8, R, 1, Nonlinear>(p);
  if (p.A.cols <= 256) return launch_rows<32, 8, R, 1, Nonlinear>(p);
  if (p.A.cols <= 1024) return launch_rows<128, 8, R, 1, Nonlinear>(p);
  // With two blocks on a multiprocessor there are fewer registers for a thread.
  return launch_rows<256, 8, Nonlinear ? R / 2 : 4, 1, Nonlinear>(p);
}

template <class T, class V>
int64_t pass_of_four(const PassArguments<T, V>& p) {
  if (!rows_fit(p)) return launch_rows<256, 0, 4, 4>(p);
  if (p.A.cols <= 32) return launch_rows<8, 4, 4, 4>(p);
  if (p.A.cols <= 128) return launch_rows<32, 4, 4, 4>(p);
  if (p.A.cols <= 512) return launch_rows<128, 4, 4, 4>(p);
  if (p.A.cols <= 1024) return launch_rows<256, 4, 4, 4>(p);
  return launch_rows<512, 4, 4, 4>(p);
}

template <class T, class V>
int64_t pass_of_eight(const PassArguments<T, V>& p) {
  if (!rows_fit(p)) return launch_rows<256, 0, 4, 8>(p);
  if (p.A.cols <= 32) return launch_rows<8, 4, 4, 8>(p);
  if (p.A.cols <= 128) return launch_rows<32, 4, 4, 8>(p);
  if (p.A.cols <= 512) return launch_rows<128, 4, 4, 8>(p);
  return launch_rows<256, 4, 4, 8>(p);
}

}  // namespace

template <class T, class V>
void row_pass(Matrix<const T> A, const RowChoice& rows, const Margins<V>& m, const V* x, V* g, double* sums, double* partial,
              Stream stream) {
  const int64_t n = A.cols;
  const int64_t most = vectors_at_once<T, V>(A, rows);
  for (int64_t q = 0; q < m.k; q += most) {
    const int64_t k = m.k - q < most ? m.k - q : most;
    const Margins<V> part = some_of(m, q, k);
    const PassArguments<T, V> p{A, rows, part, x ? x + q * n : nullptr, g != nullptr, partial, stream};
    const int64_t blocks = k == 1 && !m.joint() ? pass_of_one<false>(p) : k <= 4 ? pass_of_four(p) : pass_of_eight(p);
    const int64_t last = k * n + (m.joint() ? 1 : k);  // a joint rule has one sum for all vectors
    sum_partial<V>(partial, blocks, k * (n + 1), k * n, last, g ? g + q * n : nullptr, sums ? sums + q : nullptr, stream);
  }
}

}  // namespace randla::cuda
