// Products of Kronecker-sparse matrices with a batch of vectors, y = K_1 ... K_S x. All stages are applied to a tile of some columns
// of the batch that stays in the cache; in it, runs of stages that act on few rows are applied to these rows before the next.
//
// Columns do not meet: neither the width of tiles nor the size of vectors can change a bit.

namespace randla::cpu {
namespace {

constexpr int64_t kButterflyTile = 4096 * 1024;    // bytes of a tile: wider rows pay even from the last cache
constexpr int64_t kButterflyRun = 16 * 1024;       // bytes of the rows of a run of stages: a third of the first-level cache
constexpr int64_t kNeighbours = 8;                 // rows taken of places far apart, which share few places in the caches
constexpr int64_t kPackRows = 128;                 // that columns are packed into at a time, to stay in the first-level cache
constexpr int64_t kButterflyFar = 512 * 1024;      // bytes of a matrix whose rows are fetched ahead: pieces of rows no processor foresees

// (re, im) -> (-im, re) in every pair of a vector.
template <class T, class V>
inline __attribute__((always_inline)) V turned(V x) {
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Word;
  typedef Word Words __attribute__((vector_size(sizeof(V))));
  Words swap, sign;
  for (int l = 0; l < static_cast<int>(sizeof(V) / sizeof(T)); ++l) {
    swap[l] = l ^ 1;
    sign[l] = l % 2 == 0 ? std::numeric_limits<Word>::min() : 0;
  }
  return (V)((Words)__builtin_shuffle(x, swap) ^ sign);
}

// Vectors of the batch, of real numbers or of pairs (re, im).
template <class T, bool Pairs>
struct Columns {
  using V = typename NativeOf<T>::type;
  static constexpr int L = kNativeBytes / sizeof(T);
  static inline __attribute__((always_inline)) V turned(V x) { return cpu::turned<T>(x); }
};

// Rows out[j] = sum_k w[j c + k] in[k] for B rows out and C in, all of N vectors. The rows may be the same.
template <class T, bool Pairs, int N, int B, int C, bool Stream, class In, class Out>
inline __attribute__((always_inline)) void small_block(const T* w, const In& in, const Out& out) {
  using Col = Columns<T, Pairs>;
  using V = typename Col::V;
  constexpr int P = Pairs ? 2 : 1;
  V x[C][N], t[Pairs ? C : 1][N];
  for (int k = 0; k < C; ++k)
    for (int v = 0; v < N; ++v) {
      x[k][v] = load_as<V>(in(k) + v * Col::L);
      if constexpr (Pairs) t[k][v] = Col::turned(x[k][v]);
    }
  for (int j = 0; j < B; ++j) {
    V y[N];
    for (int v = 0; v < N; ++v) {
      y[v] = x[0][v] * w[j * C * P];
      if constexpr (Pairs) y[v] += t[0][v] * w[j * C * P + 1];
    }
    for (int k = 1; k < C; ++k)
      for (int v = 0; v < N; ++v) {
        y[v] += x[k][v] * w[(j * C + k) * P];
        if constexpr (Pairs) y[v] += t[k][v] * w[(j * C + k) * P + 1];
      }
    for (int v = 0; v < N; ++v) put<Stream>(out(j) + v * Col::L, y[v]);
  }
}

// Any b and c, rows out and in apart; four rows out at a time.
template <class T, bool Pairs, int N, int R, bool Stream, class In, class Out>
inline __attribute__((always_inline)) void block_rows(const T* w, int64_t j0, int64_t c, const In& in, const Out& out) {
  using Col = Columns<T, Pairs>;
  using V = typename Col::V;
  constexpr int P = Pairs ? 2 : 1;
  V y[R][N] = {};
  for (int64_t k = 0; k < c; ++k) {
    V x[N], t[N];
    for (int v = 0; v < N; ++v) {
      x[v] = load_as<V>(in(k) + v * Col::L);
      if constexpr (Pairs) t[v] = Col::turned(x[v]);
    }
    for (int j = 0; j < R; ++j) {
      const T* wj = w + ((j0 + j) * c + k) * P;
      for (int v = 0; v < N; ++v) {
        y[j][v] += x[v] * wj[0];
        if constexpr (Pairs) y[j][v] += t[v] * wj[1];
      }
    }
  }
  for (int j = 0; j < R; ++j)
    for (int v = 0; v < N; ++v) put<Stream>(out(j0 + j) + v * Col::L, y[j][v]);
}

// Stages [first, last) leave rows apart whose numbers differ modulo `stride` or in the block of 1 / `blocks` of all rows.
struct StageRun {
  int64_t first, last, blocks, stride;
};

// Rows of one block, `some` neighbours modulo the stride of the run: where they are told by the number of strides and of neighbours.
template <class T>
struct RunRows {
  T* base;
  int64_t per_stride, per_neighbour;
};

// Calls block(w, from, to) for all blocks of a stage in a run.
template <class T, bool Pairs, class Block>
inline __attribute__((always_inline)) void for_blocks(const ButterflyStage<T>& s, const StageRun& run, int64_t I, int64_t l0,
                                                      int64_t some, RunRows<const T> in, RunRows<T> out, const Block& block) {
  const int64_t each = s.a / run.blocks, size = s.b * s.c * (Pairs ? 2 : 1), strides = s.d / run.stride;
  for (int64_t i = 0; i < each; ++i)
    for (int64_t high = 0; high < strides; ++high) {
      const T* w = s.values + ((I * each + i) * s.d + high * run.stride + l0) * size;
      const T* from = in.base + (i * s.c * strides + high) * in.per_stride;
      T* to = out.base + (i * s.b * strides + high) * out.per_stride;
      for (int64_t q = 0; q < some; ++q, w += size, from += in.per_neighbour, to += out.per_neighbour) block(w, from, to);
    }
}

template <class T, bool Pairs, int N, bool Stream = false>
__attribute__((noinline)) void butterfly_stage(const ButterflyStage<T>& s, const StageRun& run, int64_t I, int64_t l0, int64_t some,
                                               RunRows<const T> in, RunRows<T> out) {
  constexpr int64_t L = Columns<T, Pairs>::L;
  const int64_t strides = s.d / run.stride, step_in = strides * in.per_stride, step_out = strides * out.per_stride;
  if (s.b == 2 && s.c == 2) {
    for_blocks<T, Pairs>(s, run, I, l0, some, in, out, [=](const T* w, const T* from, T* to) {
      small_block<T, Pairs, N, 2, 2, Stream>(w, [=](int k) { return from + k * step_in; }, [=](int j) { return to + j * step_out; });
    });
  } else if (s.b == 4 && s.c == 4) {
    constexpr int most = (kNativeBytes == 64 ? 4 : 2) / (Pairs ? 2 : 1), H = N < most ? N : most;  // what the registers hold
    for_blocks<T, Pairs>(s, run, I, l0, some, in, out, [=](const T* w, const T* from, T* to) {
      for (int h = 0; h < N; h += H)
        small_block<T, Pairs, H, 4, 4, Stream>(w, [=](int k) { return from + k * step_in + h * L; },
                                               [=](int j) { return to + j * step_out + h * L; });
    });
  } else {
    for_blocks<T, Pairs>(s, run, I, l0, some, in, out, [=, &s](const T* w, const T* from, T* to) {
      const auto row_in = [=](int64_t k) { return from + k * step_in; };
      const auto row_out = [=](int64_t j) { return to + j * step_out; };
      int64_t j = 0;
      for (; j + 4 <= s.b; j += 4) block_rows<T, Pairs, N, 4, Stream>(w, j, s.c, row_in, row_out);
      for (; j < s.b; ++j) block_rows<T, Pairs, N, 1, Stream>(w, j, s.c, row_in, row_out);
    });
  }
}

// Whether the rows out of a stage may be the rows in.
inline bool in_place(int64_t b, int64_t c) { return b == c && (b == 2 || b == 4); }

inline int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// The rows before or after a stage that meet in a run of this cut, whichever are more.
template <class T>
int64_t rows_of_stage(const ButterflyStage<T>& s, const StageRun& run) {
  return s.a / run.blocks * (s.d / run.stride) * (s.b > s.c ? s.b : s.c);
}

// Cuts the stages, in the order of application, into runs whose rows fit the first-level cache.
template <class T>
std::vector<StageRun> stage_runs(const ButterflyStage<T>* stages, int64_t count, int64_t row_bytes) {
  std::vector<StageRun> runs;
  for (int64_t first = 0; first < count; first = runs.back().last) {
    StageRun run{first, first + 1, stages[first].a, stages[first].d};
    for (; run.last < count; ++run.last) {
      const ButterflyStage<T>& s = stages[run.last];
      const StageRun longer{first, run.last + 1, common_divisor(run.blocks, s.a), common_divisor(run.stride, s.d)};
      int64_t most = 0;
      for (int64_t q = first; q < longer.last; ++q) {
        const int64_t rows = rows_of_stage(stages[q], longer);
        most = rows > most ? rows : most;
      }
      const int64_t beside = longer.stride < kNeighbours ? longer.stride : kNeighbours;
      if (most * beside * row_bytes > kButterflyRun) break;
      run.blocks = longer.blocks, run.stride = longer.stride;
    }
    runs.push_back(run);
  }
  return runs;
}

template <class T>
int64_t rows_in(const ButterflyStage<T>& s) { return s.a * s.c * s.d; }
template <class T>
int64_t rows_out(const ButterflyStage<T>& s) { return s.a * s.b * s.d; }

// Where the rows of all stages of a tile lie.
template <class T>
struct TileView {
  T* base;
  int64_t step;  // from row to row
  RunRows<T> rows(const StageRun& run, int64_t all, int64_t I, int64_t l0) const {
    return {base + (I * (all / run.blocks) + l0) * step, run.stride * step, step};
  }
};

// Fetches a part of the rows of one block and some neighbours, of `bytes` each.
template <bool ForWriting, class T>
inline void fetch_rows(const TileView<T>& view, const StageRun& run, int64_t all, int64_t I, int64_t l0, int64_t some, int64_t bytes,
                       int64_t part, int64_t parts) {
  if (I >= run.blocks) return;
  const RunRows<T> rows = view.rows(run, all, I, l0);
  const int64_t strides = all / run.blocks / run.stride, count = l0 + some < run.stride ? some : run.stride - l0;
  for (int64_t high = strides * part / parts; high < strides * (part + 1) / parts; ++high)
    for (int64_t q = 0; q < count; ++q) {
      const char* row = reinterpret_cast<const char*>(rows.base + high * rows.per_stride + q * rows.per_neighbour);
      for (int64_t k = 0; k < bytes; k += 64) __builtin_prefetch(row + k, ForWriting, ForWriting ? 3 : 2);
    }
}

// Where a tile of columns comes from and goes to.
template <class T>
struct TileEnds {
  Matrix<const T> X;
  Matrix<T> Y;
  int64_t j0, cols;          // in elements
  bool direct, far, stream;  // without packing; rows are fetched ahead; `put` past the caches
};

// All stages on N vectors of columns, from X to Y. Packing goes along with a first run whose rows are neighbours.
template <class T, bool Pairs, int N>
void butterfly_tile(const ButterflyStage<T>* stages, const std::vector<StageRun>& runs, const TileEnds<T>& at, T* scratch,
                    int64_t rows) {
  constexpr int P = Pairs ? 2 : 1;
  constexpr int64_t step = N * Columns<T, Pairs>::L, bytes = step * sizeof(T);
  T* local[2] = {scratch, scratch + kButterflyRun / sizeof(T)};
  TileView<T> here{scratch + 2 * kButterflyRun / sizeof(T), step}, there{here.base + rows * step, step};
  const TileView<const T> X{at.X.data + at.j0 * P, at.X.row_stride};
  const TileView<T> Y{at.Y.data + at.j0 * P, at.Y.row_stride};
  const int64_t first_rows = at.X.rows / runs.front().blocks;
  const bool packs = !at.direct && runs.front().stride == 1 && first_rows % 64 == 0 && first_rows * bytes <= kButterflyRun;
  for (int64_t i0 = 0; i0 < at.X.rows && !at.direct && !packs; i0 += kPackRows) {
    const int64_t some = i0 + kPackRows < at.X.rows ? kPackRows : at.X.rows - i0;
    pack_columns<T, P>(at.X, i0, some, at.j0, at.cols, here.base + i0 * step, step);
  }
  for (size_t r = 0; r < runs.size(); ++r) {
    const StageRun& run = runs[r];
    const bool comes = r == 0 && (at.direct || packs), goes = r + 1 == runs.size() && at.direct;
    bool same = !comes;  // whether the run may leave its rows where it found them
    int64_t most = 1;
    for (int64_t q = run.first; q < run.last; ++q) {
      const ButterflyStage<T>& s = stages[q];
      same = same && s.b == s.c && (run.last - run.first > 1 || in_place(s.b, s.c));
      const int64_t span = rows_of_stage(s, run);
      most = span > most ? span : most;
    }
    int64_t some = kButterflyRun / (bytes * most);
    some = some < 1 ? 1 : some > run.stride ? run.stride : some;
    const TileView<const T> source = comes ? X : TileView<const T>{here.base, here.step};
    const TileView<T> target = goes ? Y : comes || same ? here : there;
    const int64_t all_in = rows_in(stages[run.first]), all_out = rows_out(stages[run.last - 1]);
    for (int64_t I = 0; I < run.blocks; ++I)
      for (int64_t l0 = 0; l0 < run.stride; l0 += some) {
        const bool last = l0 + some >= run.stride;
        const int64_t count = last ? run.stride - l0 : some, next_I = last ? I + 1 : I, next_l0 = last ? 0 : l0 + some;
        int side = 0;
        RunRows<const T> in = source.rows(run, all_in, I, l0);
        if (comes && packs) {
          const int64_t each = all_in / run.blocks;
          pack_columns<T, P>(at.X, I * each, each, at.j0, at.cols, local[1], step);
          in = {local[1], step, step};
        }
        for (int64_t q = run.first; q < run.last; ++q) {
          const ButterflyStage<T>& s = stages[q];
          const bool ends = q + 1 == run.last;
          if (q > run.first && !ends && !in_place(s.b, s.c)) side = 1 - side;
          RunRows<T> out = ends ? target.rows(run, all_out, I, l0) : RunRows<T>{local[side], count * step, step};
          // Rows far from each other share few places in the caches: they are not fetched.
          const int64_t part = q - run.first, parts = run.last - run.first;
          if (at.far && comes && run.stride == 1) fetch_rows<false>(source, run, all_in, next_I, next_l0, some, bytes, part, parts);
          if (at.far && goes && !at.stream) fetch_rows<true>(target, run, all_out, next_I, next_l0, some, bytes, part, parts);
          if (at.stream && goes && ends)
            butterfly_stage<T, Pairs, N, true>(s, run, I, l0, count, in, out);
          else
            butterfly_stage<T, Pairs, N>(s, run, I, l0, count, in, out);
          in = {out.base, out.per_stride, out.per_neighbour};
        }
      }
    if (!goes && !comes && !same) std::swap(here, there);
  }
  for (int64_t i0 = 0; i0 < at.Y.rows && !at.direct; i0 += kPackRows) {
    const int64_t some = i0 + kPackRows < at.Y.rows ? kPackRows : at.Y.rows - i0;
    if (at.stream)
      unpack_columns<T, P, true>(here.base + i0 * step, step, at.Y, i0, some, at.j0, at.cols);
    else
      unpack_columns<T, P, false>(here.base + i0 * step, step, at.Y, i0, some, at.j0, at.cols);
  }
  if (at.stream) finish_stream();
}

// Y = K X; the columns of X and Y are the batch. `rows` is the largest number of rows between two stages.
template <class T, bool Pairs>
void butterfly(const ButterflyStage<T>* stages, int64_t count, Matrix<const T> X, Matrix<T> Y, int64_t rows) {
  constexpr int L = Columns<T, Pairs>::L, P = Pairs ? 2 : 1;
  const int64_t batch = X.cols * P;  // numbers in a row
  if (batch == 0) return;
  int64_t wide = 4;
  while (wide > 1 && (rows * wide * kNativeBytes > kButterflyTile || wide * L * max_threads() > batch)) wide /= 2;
  const int64_t width = wide * L, tiles = (batch + width - 1) / width;
  const std::vector<StageRun> runs = stage_runs(stages, count, width * static_cast<int64_t>(sizeof(T)));
  const bool side_by_side = X.col_stride == P && Y.col_stride == P;
  const int64_t own = 2 * kButterflyRun / static_cast<int64_t>(sizeof(T)) + 2 * rows * width;
  constexpr int64_t size = sizeof(T);
  const bool far = side_by_side && (X.rows * batch * size > kButterflyFar || Y.rows * batch * size > kButterflyFar);
  const int64_t line_step = Y.col_stride == P ? Y.row_stride : Y.row_stride == P ? Y.col_stride : 1;
  const bool whole_lines = reinterpret_cast<uintptr_t>(Y.data) % 64 == 0 && line_step * size % 64 == 0 && width * size % 64 == 0;
  const bool stream = whole_lines && Y.rows * batch * size >= kStreamBytes;
  const Reused<T> scratch(max_threads() * own);
  parallel_for(tiles, [&](int64_t tile) {
    const int64_t j0 = tile * width, cols = j0 + width < batch ? width : batch - j0;
    T* mine = scratch.data + thread_index() * own;
    const TileEnds<T> at{X, Y, j0 / P, cols / P, side_by_side && cols == width, far, stream};
    if (wide == 4)
      butterfly_tile<T, Pairs, 4>(stages, runs, at, mine, rows);
    else if (wide == 2)
      butterfly_tile<T, Pairs, 2>(stages, runs, at, mine, rows);
    else
      butterfly_tile<T, Pairs, 1>(stages, runs, at, mine, rows);
  });
}

}  // namespace
}  // namespace randla::cpu
