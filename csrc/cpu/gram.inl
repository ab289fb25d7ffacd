// The Gram matrix of the rows of A under a map, G += sum y' y: blocks of y are made in panels, then multiplied with each other.
// An entry of G gains the sum of a block of rows at a time, in the order of the rows: the same for any number of threads.

namespace randla::cpu {
namespace {

constexpr int64_t kGramDepth = 128;               // rows of y at a time: a panel of them is 24 KB
constexpr int64_t kGramStep = 128;                // rows that a piece of work makes
constexpr int64_t kGramBytes = int64_t{4} << 20;  // of y at a time: shared by the threads, in the last cache

// fill(i0, rows, height, Y) writes the y of rows i0.. into panels of `height` rows each.
template <class Fill>
void gram_of_blocks(int64_t m, int64_t r, const Fill& fill, double* G) {
  using Tile = MapTile<double>;
  constexpr int W = Tile::width, R = kNativeBytes == 64 ? 8 : kNativeBytes == 32 ? 4 : 2;
  static_assert(W % R == 0, "a group of rows of G must not cross panels");
  if (m == 0 || r == 0) return;
  const int64_t panels = map_panels(r, W), pairs = panels * (panels + 1) / 2;
  int64_t height = kGramBytes / (8 * panels * W) / 64 * 64;
  height = height < 512 ? 512 : height > 8192 ? 8192 : height;
  const int64_t blocks = (m + height - 1) / height;
  height = ((m + blocks - 1) / blocks + 7) / 8 * 8;  // even ones
  Scratch<double> Y(panels * height * W);
  const int64_t step = height < 8 * kGramStep ? (height + 7) / 8 : kGramStep;
  for (int64_t i0 = 0; i0 < m; i0 += height) {
    const int64_t rows = i0 + height < m ? height : m - i0;
    parallel_for((rows + step - 1) / step, [&](int64_t s) {
      fill(i0 + s * step, (s + 1) * step < rows ? step : rows - s * step, height, Y.data + s * step * W);
    });
    parallel_for(pairs, [&](int64_t t) {
      // The last panel meets all others: its pairs come first.
      int64_t p = panels - 1, q = t;
      while (q > p) q -= p + 1, --p;
      const double *left = Y.data + q * height * W, *right = Y.data + p * height * W;
      typename Tile::V sum[W / R][R][Tile::vectors] = {};
      // Slices that the first cache holds while all groups of rows of G read them.
      for (int64_t k0 = 0; k0 < rows; k0 += kGramDepth) {
        const int64_t depth = k0 + kGramDepth < rows ? kGramDepth : rows - k0;
        for (int64_t g = 0; g < W / R && q * W + g * R < r; ++g)
          map_tile<double, R, W, true>(left + k0 * W + g * R, 1, right + k0 * W, depth, sum[g]);
      }
      double block[W][W];
      __builtin_memcpy(block, sum, sizeof block);
      for (int64_t i = 0; i < W && q * W + i < r; ++i)
        for (int64_t j = 0; j < W && p * W + j < r; ++j) G[(q * W + i) * r + p * W + j] += block[i][j];
    });
  }
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j < i; ++j) G[i * r + j] = G[j * r + i];
}

// Rows as they are, scaled: no map is needed for the Gram matrix of A itself.
template <class T>
void gram_of_rows(Matrix<const T> A, const RowMap& map, double* G) {
  constexpr int W = MapTile<double>::width;
  MapRows<T, double> source(A, map, kGramStep);
  gram_of_blocks(
      A.rows, map.r,
      [&](int64_t i0, int64_t rows, int64_t height, double* Y) {
        int64_t row_step;
        const double* a = source.take(i0, rows, &row_step);
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j0 = 0; j0 < map.r; j0 += W) {
            double* to = Y + j0 * height + i * W;
            const int64_t cols = j0 + W < map.r ? W : map.r - j0;
            for (int64_t j = 0; j < cols; ++j) to[j] = a[i * row_step + j0 + j];
            for (int64_t j = cols; j < W; ++j) to[j] = 0;
          }
      },
      G);
}

// G (r, r), symmetric and contiguous on entry and on return.
template <class T>
void gram(Matrix<const T> A, const RowMap& map, double* G) {
  using Tile = MapTile<double>;
  constexpr int W = Tile::width, R = Tile::rows;
  if (!map.T) {
    gram_of_rows(A, map, G);
    return;
  }
  const MapPanels<double> T_panels(map);
  MapRows<T, double> source(A, map, kGramStep);
  gram_of_blocks(
      A.rows, map.r,
      [&](int64_t i0, int64_t rows, int64_t height, double* Y) {
        int64_t row_step;
        const double* a = source.take(i0, rows, &row_step);
        typename Tile::V y[R][Tile::vectors];
        for (int64_t p = 0; p < T_panels.count; ++p) {
          double* to = Y + p * height * W;
          const int64_t depth = T_panels.depth(p);
          int64_t i = 0;
          for (; i + R <= rows; i += R) {
            map_tile<double, R, 1>(a + i * row_step, row_step, T_panels.panel(p), depth, y);
            __builtin_memcpy(to + i * W, y, sizeof y);
          }
          for (; i < rows; ++i) {
            map_tile<double, 1, 1>(a + i * row_step, row_step, T_panels.panel(p), depth, y);
            __builtin_memcpy(to + i * W, y, sizeof y[0]);
          }
        }
      },
      G);
}

template <class T, class Index>
void gram_csr_of(Csr<T> A, const RowMap& map, double* G) {
  using Tile = MapTile<double>;
  constexpr int W = Tile::width;
  const MapRowsOfT<double> rows_of_t(map);
  gram_of_blocks(
      A.rows, map.r,
      [&](int64_t i0, int64_t rows, int64_t height, double* Y) {
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j0 = 0; j0 < rows_of_t.width; j0 += W) {
            typename Tile::V y[Tile::vectors];
            map_csr_row<T, double, Index>(A, map, rows_of_t, i0 + i, j0, y);
            __builtin_memcpy(Y + j0 * height + i * W, y, sizeof y);
          }
      },
      G);
}

template <class T>
void gram_csr(Csr<T> A, const RowMap& map, double* G) {
  if (A.wide)
    gram_csr_of<T, int64_t>(A, map, G);
  else
    gram_csr_of<T, int32_t>(A, map, G);
}

}  // namespace
}  // namespace randla::cpu
