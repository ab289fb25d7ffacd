// Rows of A under a linear map, y = root a diag(scale) T, and the norms of the y: a panel of T stays in the cache, a tile of
// results in registers, and nothing of the size of A is stored.
//
// Every y adds its terms in ascending order, and lanes of 64 bytes mean the same for all vector sizes: the same bits for any number
// of threads and instruction set. Products and sums are not fused, which where adders stand beside the multipliers costs little.

namespace randla::cpu {
namespace {

template <class C>
struct MapTile {
  using V = typename NativeOf<C>::type;
  static constexpr int L = kNativeBytes / sizeof(C);
  static constexpr int vectors = kNativeBytes == 64 ? 3 : kNativeBytes == 32 ? 2 : 4;
  static constexpr int width = vectors * L;  // columns of T; a multiple of kLanes, so that lanes mean the same everywhere
  static constexpr int rows = kNativeBytes == 64 ? 8 : kNativeBytes == 32 ? 6 : 2;
};

// sum[i] = sum over k < depth of a[i row_step + k Step] * panel[k], added to what is there with Add; of a panel only the first N
// vectors. Not inlined: beside other code the sums would not stay in registers.
template <class C, int R, int Step, bool Add = false, int N = MapTile<C>::vectors>
__attribute__((noinline)) void map_tile(const C* a, int64_t row_step, const C* panel, int64_t depth,
                                        typename MapTile<C>::V (*sum)[MapTile<C>::vectors]) {
  using V = typename MapTile<C>::V;
  constexpr int L = MapTile<C>::L, W = MapTile<C>::width;
  V acc[R][N];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < N; ++v) acc[i][v] = Add ? sum[i][v] : V{};
  for (int64_t k = 0; k < depth; ++k) {
    V t[N];
    for (int v = 0; v < N; ++v) t[v] = load_as<V>(panel + k * W + v * L);
    for (int i = 0; i < R; ++i) {
      const C x = a[i * row_step + k * Step];
      for (int v = 0; v < N; ++v) acc[i][v] += t[v] * x;
    }
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < N; ++v) sum[i][v] = acc[i][v];
}

inline int64_t map_panels(int64_t r, int width) { return (r + width - 1) / width; }

// T in panels of `width` columns, zero beyond r; of a triangular T panel p ends where its columns do.
template <class C>
struct MapPanels {
  static constexpr int W = MapTile<C>::width;
  int64_t n, count;
  bool upper;
  Scratch<C> data;

  explicit MapPanels(const RowMap& map)
      : n(map.n), count(map_panels(map.r, W)), upper(map.upper), data(map_panels(map.r, W) * map.n * W) {
    parallel_for(count, [&](int64_t p) {
      C* to = data.data + p * n * W;
      const int64_t cols = (p + 1) * W < map.r ? W : map.r - p * W;
      for (int64_t k = 0; k < depth(p); ++k)
        for (int64_t j = 0; j < W; ++j) to[k * W + j] = j < cols ? static_cast<C>(map.T[k * map.r + p * W + j]) : C(0);
    });
  }
  const C* panel(int64_t p) const { return data.data + p * n * W; }
  int64_t depth(int64_t p) const { return upper && (p + 1) * W < n ? (p + 1) * W : n; }
};

// Rows of A as the map wants them: where they lie, or scaled and converted in memory of the calling thread.
template <class T, class C>
struct MapRows {
  Matrix<const T> A;
  const RowMap& map;
  int64_t rows;  // at a time
  bool in_place, by_rows;
  Scratch<T> packed;
  Scratch<C> scaled;

  MapRows(Matrix<const T> A, const RowMap& map, int64_t rows)
      : A(A),
        map(map),
        rows(rows),
        in_place(sizeof(T) == sizeof(C) && A.col_stride == 1 && !map.scale && !map.roots),
        by_rows(A.col_stride == 1),
        packed(by_rows ? 0 : max_threads() * rows * A.cols),
        scaled(in_place ? 0 : max_threads() * rows * A.cols) {}

  const C* take(int64_t i0, int64_t count, int64_t* step) {
    const int64_t n = A.cols;
    if constexpr (sizeof(T) == sizeof(C)) {
      if (in_place) {
        *step = A.row_stride;
        return A.row(i0);
      }
    }
    T* from = packed.data + thread_index() * rows * n;
    C* to = scaled.data + thread_index() * rows * n;
    if (!by_rows) pack<T>(A, i0, count, 0, n, from, n);
    for (int64_t i = 0; i < count; ++i) {
      const T* row = by_rows ? A.row(i0 + i) : from + i * n;
      const double root = map.roots ? map.roots[i0 + i] : 1.0;
      if (map.scale)
        for (int64_t k = 0; k < n; ++k) to[i * n + k] = static_cast<C>(static_cast<double>(row[k]) * map.scale[k] * root);
      else if (map.roots)
        for (int64_t k = 0; k < n; ++k) to[i * n + k] = static_cast<C>(static_cast<double>(row[k]) * root);
      else
        for (int64_t k = 0; k < n; ++k) to[i * n + k] = static_cast<C>(row[k]);
    }
    *step = n;
    return to;
  }
};

// squares[lane] += the squares of y that fall into this lane of 64 bytes, in ascending order.
template <class C>
inline __attribute__((always_inline)) void add_squares(const typename MapTile<C>::V* y, C* squares) {
  using V = typename MapTile<C>::V;
  constexpr int L = MapTile<C>::L;
  for (int v = 0; v < MapTile<C>::vectors; ++v) {
    C* to = squares + v * L % kLanes<C>;
    const V s = load_as<V>(to) + y[v] * y[v];
    __builtin_memcpy(to, &s, sizeof s);
  }
}

template <class C>
double sum_of_lanes(const C* squares) {
  double total = 0;
  for (int l = 0; l < kLanes<C>; ++l) total += static_cast<double>(squares[l]);
  return total;
}

inline int64_t rows_per_piece(int64_t n) {
  const int64_t rows = (int64_t{1} << 17) / (n > 0 ? n : 1) / 8 * 8;
  return rows < 64 ? 64 : rows > 1024 ? 1024 : rows;
}

// out[i] = ||y_i||^2, computed in C.
template <class T, class C>
void row_norms(Matrix<const T> A, const RowMap& map, double* out) {
  constexpr int R = MapTile<C>::rows;
  const MapPanels<C> T_panels(map);
  const int64_t step = rows_per_piece(A.cols);
  MapRows<T, C> source(A, map, step < A.rows ? step : A.rows);
  parallel_for((A.rows + step - 1) / step, [&](int64_t piece) {
    const int64_t i0 = piece * step, rows = i0 + step < A.rows ? step : A.rows - i0;
    int64_t row_step;
    const C* a = source.take(i0, rows, &row_step);
    Scratch<C> squares(rows * kLanes<C>);
    for (int64_t q = 0; q < rows * kLanes<C>; ++q) squares.data[q] = 0;
    typename MapTile<C>::V y[R][MapTile<C>::vectors];
    for (int64_t p = 0; p < T_panels.count; ++p) {
      const int64_t depth = T_panels.depth(p);
      int64_t i = 0;
      for (; i + R <= rows; i += R) {
        map_tile<C, R, 1>(a + i * row_step, row_step, T_panels.panel(p), depth, y);
        for (int q = 0; q < R; ++q) add_squares<C>(y[q], squares.data + (i + q) * kLanes<C>);
      }
      for (; i < rows; ++i) {
        map_tile<C, 1, 1>(a + i * row_step, row_step, T_panels.panel(p), depth, y);
        add_squares<C>(y[0], squares.data + i * kLanes<C>);
      }
    }
    for (int64_t i = 0; i < rows; ++i) out[i0 + i] = sum_of_lanes(squares.data + i * kLanes<C>);
  });
}

// T row by row, each padded with zeros to whole panels.
template <class C>
struct MapRowsOfT {
  int64_t width;
  Scratch<C> data;
  explicit MapRowsOfT(const RowMap& map)
      : width(map_panels(map.r, MapTile<C>::width) * MapTile<C>::width), data(map.n * width) {
    parallel_for(map.n, [&](int64_t k) {
      for (int64_t j = 0; j < width; ++j) data.data[k * width + j] = j < map.r ? static_cast<C>(map.T[k * map.r + j]) : C(0);
    });
  }
};

// Columns [j0, j0 + width) of the image of row i.
template <class T, class C, class Index>
inline __attribute__((always_inline)) void map_csr_row(const Csr<T>& A, const RowMap& map, const MapRowsOfT<C>& rows_of_t, int64_t i,
                                                       int64_t j0, typename MapTile<C>::V* y) {
  using V = typename MapTile<C>::V;
  constexpr int N = MapTile<C>::vectors, L = MapTile<C>::L;
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const Index* indices = static_cast<const Index*>(A.indices);
  const int64_t end = map.upper ? j0 + N * L : map.n;
  V acc[N];
  for (int v = 0; v < N; ++v) acc[v] = V{};
  for (Index q = indptr[i]; q < indptr[i + 1]; ++q) {
    const int64_t k = indices[q];
    if (k >= end) continue;
    const C x = static_cast<C>(static_cast<double>(A.values[q]) * (map.scale ? map.scale[k] : 1.0));
    const C* t = rows_of_t.data.data + k * rows_of_t.width + j0;
    for (int v = 0; v < N; ++v) acc[v] += load_as<V>(t + v * L) * x;
  }
  const C root = map.roots ? static_cast<C>(map.roots[i]) : C(1);
  for (int v = 0; v < N; ++v) y[v] = acc[v] * root;
}

template <class T, class C, class Index>
void row_norms_csr_of(Csr<T> A, const RowMap& map, double* out) {
  constexpr int W = MapTile<C>::width;
  constexpr int64_t step = 256;
  const MapRowsOfT<C> rows_of_t(map);
  parallel_for((A.rows + step - 1) / step, [&](int64_t piece) {
    for (int64_t i = piece * step; i < A.rows && i < (piece + 1) * step; ++i) {
      C squares[kLanes<C>] = {};
      for (int64_t j0 = 0; j0 < rows_of_t.width; j0 += W) {
        typename MapTile<C>::V y[MapTile<C>::vectors];
        map_csr_row<T, C, Index>(A, map, rows_of_t, i, j0, y);
        add_squares<C>(y, squares);
      }
      out[i] = sum_of_lanes(squares);
    }
  });
}

template <class T, class C>
void row_norms_csr(Csr<T> A, const RowMap& map, double* out) {
  if (A.wide)
    row_norms_csr_of<T, C, int64_t>(A, map, out);
  else
    row_norms_csr_of<T, C, int32_t>(A, map, out);
}

}  // namespace
}  // namespace randla::cpu
