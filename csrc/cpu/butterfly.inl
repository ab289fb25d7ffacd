// Products of Kronecker-sparse matrices with a batch of vectors, y = K_1 ... K_S x. All stages are applied to a tile of some columns
// of the batch that stays in the cache; in it, runs of stages that act on few rows are applied to these rows before the next.
//
// Columns do not meet: neither the width of tiles nor the size of vectors can change a bit.

namespace randla::cpu {
namespace {

constexpr int64_t kButterflyTile = 4096 * 1024;  // bytes of a tile: wider rows pay even from the last cache
constexpr int64_t kButterflyRun = 16 * 1024;    // bytes of the rows that a run of stages works on: a third of the first-level cache

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
template <class T, bool Pairs, int N, int B, int C, class In, class Out>
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
    for (int v = 0; v < N; ++v) __builtin_memcpy(out(j) + v * Col::L, &y[v], sizeof(V));
  }
}

// Any b and c, rows out and in apart; four rows out at a time.
template <class T, bool Pairs, int N, int R, class In, class Out>
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
    for (int v = 0; v < N; ++v) __builtin_memcpy(out(j0 + j) + v * Col::L, &y[j][v], sizeof(V));
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

template <class T, bool Pairs, int N>
__attribute__((noinline)) void butterfly_stage(const ButterflyStage<T>& s, const StageRun& run, int64_t I, int64_t l0, int64_t some,
                                               RunRows<const T> in, RunRows<T> out) {
  using Col = Columns<T, Pairs>;
  const int64_t each = s.a / run.blocks, size = s.b * s.c * (Pairs ? 2 : 1), strides = s.d / run.stride;
  const int64_t step_in = strides * in.per_stride, step_out = strides * out.per_stride;
  for (int64_t i = 0; i < each; ++i)
    for (int64_t high = 0; high < strides; ++high)
      for (int64_t q = 0; q < some; ++q) {
        const T* w = s.values + ((I * each + i) * s.d + high * run.stride + l0 + q) * size;
        const T* from = in.base + (i * s.c * strides + high) * in.per_stride + q * in.per_neighbour;
        T* to = out.base + (i * s.b * strides + high) * out.per_stride + q * out.per_neighbour;
        auto row_in = [&](int64_t k) { return from + k * step_in; };
        auto row_out = [&](int64_t j) { return to + j * step_out; };
        if (s.b == 2 && s.c == 2) {
          small_block<T, Pairs, N, 2, 2>(w, row_in, row_out);
        } else if (s.b == 4 && s.c == 4) {
          constexpr int H = Pairs ? 1 : N > 2 ? 2 : N;  // what the registers hold
          for (int h = 0; h < N; h += H)
            small_block<T, Pairs, H, 4, 4>(w, [&](int64_t k) { return row_in(k) + h * Col::L; },
                                           [&](int64_t j) { return row_out(j) + h * Col::L; });
        } else {
          int64_t j = 0;
          for (; j + 4 <= s.b; j += 4) block_rows<T, Pairs, N, 4>(w, j, s.c, row_in, row_out);
          for (; j < s.b; ++j) block_rows<T, Pairs, N, 1>(w, j, s.c, row_in, row_out);
        }
      }
}

// Whether the rows out of a stage may be the rows in.
inline bool in_place(int64_t b, int64_t c) { return b == c && (b == 2 || b == 4); }

// Cuts the stages, in the order of application, into runs whose rows fit the first-level cache.
template <class T>
std::vector<StageRun> stage_runs(const ButterflyStage<T>* stages, int64_t count, int64_t row_bytes) {
  std::vector<StageRun> runs;
  for (int64_t first = 0; first < count; first = runs.back().last) {
    StageRun run{first, first + 1, stages[first].a, stages[first].d};
    for (; run.last < count; ++run.last) {
      const ButterflyStage<T>&s = stages[run.last], &before = stages[run.last - 1];
      if (before.a % s.a || s.d % before.d) break;
      int64_t most = 0;
      for (int64_t q = first; q <= run.last; ++q) {
        const ButterflyStage<T>& t = stages[q];
        const int64_t rows = t.a / s.a * (t.d / run.stride) * (t.b > t.c ? t.b : t.c);
        most = rows > most ? rows : most;
      }
      if (most * row_bytes > kButterflyRun) break;
      run.blocks = s.a;
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

// The first of two tiles in the scratch memory, behind two runs.
template <class T>
T* tile_of(T* scratch) {
  return scratch + 2 * kButterflyRun / sizeof(T);
}

// All stages on N vectors of columns, from X to Y; where these are null, from `tile_of` the scratch memory, and to what is returned.
template <class T, bool Pairs, int N>
const T* butterfly_tile(const ButterflyStage<T>* stages, const std::vector<StageRun>& runs, TileView<const T> X, TileView<T> Y,
                        T* scratch, int64_t rows) {
  constexpr int64_t step = N * Columns<T, Pairs>::L, bytes = step * sizeof(T);
  T* local[2] = {scratch, scratch + kButterflyRun / sizeof(T)};
  TileView<T> here{tile_of(scratch), step}, there{here.base + rows * step, step};
  for (size_t r = 0; r < runs.size(); ++r) {
    const StageRun& run = runs[r];
    const bool comes = r == 0 && X.base, goes = r + 1 == runs.size() && Y.base;
    bool same = !comes;  // whether the run may leave its rows where it found them
    int64_t most = 1;
    for (int64_t q = run.first; q < run.last; ++q) {
      const ButterflyStage<T>& s = stages[q];
      same = same && s.b == s.c && (run.last - run.first > 1 || in_place(s.b, s.c));
      const int64_t span = s.a / run.blocks * (s.d / run.stride) * (s.b > s.c ? s.b : s.c);
      most = span > most ? span : most;
    }
    int64_t some = kButterflyRun / (bytes * most);
    some = some < 1 ? 1 : some > run.stride ? run.stride : some;
    const TileView<const T> source = comes ? X : TileView<const T>{here.base, here.step};
    const TileView<T> target = goes ? Y : comes || same ? here : there;
    for (int64_t I = 0; I < run.blocks; ++I)
      for (int64_t l0 = 0; l0 < run.stride; l0 += some) {
        const int64_t count = l0 + some < run.stride ? some : run.stride - l0;
        int side = 0;
        RunRows<const T> in = source.rows(run, rows_in(stages[run.first]), I, l0);
        for (int64_t q = run.first; q < run.last; ++q) {
          const ButterflyStage<T>& s = stages[q];
          const bool ends = q + 1 == run.last;
          if (q > run.first && !ends && !in_place(s.b, s.c)) side = 1 - side;
          RunRows<T> out = ends ? target.rows(run, rows_out(s), I, l0) : RunRows<T>{local[side], count * step, step};
          butterfly_stage<T, Pairs, N>(s, run, I, l0, count, in, out);
          in = {out.base, out.per_stride, out.per_neighbour};
        }
      }
    if (!goes && !comes && !same) std::swap(here, there);
  }
  return here.base;
}

// Columns [j0, j0 + cols) of X as rows of `width` numbers and back; P numbers make an element.
template <class T, int P>
void pack_columns(Matrix<const T> X, int64_t j0, int64_t cols, T* to, int64_t width) {
  if constexpr (P == 1) {
    pack<T>(X, 0, X.rows, j0, cols, to, width);
  } else if constexpr (sizeof(T) == 4) {
    const Matrix<const double> pairs{reinterpret_cast<const double*>(X.data), X.rows, X.cols, X.row_stride / 2, X.col_stride / 2};
    pack<double>(pairs, 0, X.rows, j0, cols, reinterpret_cast<double*>(to), width / 2);
  } else {
    for (int64_t i = 0; i < X.rows; ++i)
      for (int64_t j = 0; j < width / P; ++j)
        for (int p = 0; p < P; ++p) to[i * width + j * P + p] = j < cols ? X.at(i, j0 + j)[p] : T(0);
  }
}

template <class T>
void unpack_rows(const T* from, int64_t width, Matrix<T> Y, int64_t j0, int64_t cols) {
  int64_t whole_rows = 0, whole_cols = 0;
  if (Y.row_stride == 1) {
    whole_rows = Y.rows / 8 * 8, whole_cols = cols / 8 * 8;
    for (int64_t j = 0; j < whole_cols; j += 8)
      for (int64_t i = 0; i < whole_rows; i += 8) transpose8(from + i * width + j, width, Y.at(i, j0 + j), Y.col_stride);
  }
  for (int64_t i = 0; i < Y.rows; ++i)
    for (int64_t j = i < whole_rows ? whole_cols : 0; j < cols; ++j) *Y.at(i, j0 + j) = from[i * width + j];
}

template <class T, int P>
void unpack_columns(const T* from, int64_t width, Matrix<T> Y, int64_t j0, int64_t cols) {
  if constexpr (P == 1) {
    unpack_rows<T>(from, width, Y, j0, cols);
  } else if constexpr (sizeof(T) == 4) {
    unpack_rows<double>(reinterpret_cast<const double*>(from), width / 2,
                        {reinterpret_cast<double*>(Y.data), Y.rows, Y.cols, Y.row_stride / 2, Y.col_stride / 2}, j0, cols);
  } else {
    for (int64_t i = 0; i < Y.rows; ++i)
      for (int64_t j = 0; j < cols; ++j)
        for (int p = 0; p < P; ++p) Y.at(i, j0 + j)[p] = from[i * width + j * P + p];
  }
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
  Scratch<T> scratch(max_threads() * own);
  parallel_for(tiles, [&](int64_t tile) {
    const int64_t j0 = tile * width, cols = j0 + width < batch ? width : batch - j0;
    T* mine = scratch.data + thread_index() * own;
    const bool direct = side_by_side && cols == width;
    const TileView<const T> from{direct ? X.data + j0 : nullptr, X.row_stride};
    const TileView<T> to{direct ? Y.data + j0 : nullptr, Y.row_stride};
    if (!direct) pack_columns<T, P>(X, j0 / P, cols / P, tile_of(mine), width);
    const T* result = wide == 4   ? butterfly_tile<T, Pairs, 4>(stages, runs, from, to, mine, rows)
                      : wide == 2 ? butterfly_tile<T, Pairs, 2>(stages, runs, from, to, mine, rows)
                                  : butterfly_tile<T, Pairs, 1>(stages, runs, from, to, mine, rows);
    if (!direct) unpack_columns<T, P>(result, width, Y, j0 / P, cols / P);
  });
}

}  // namespace
}  // namespace randla::cpu
