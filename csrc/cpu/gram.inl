// The Gram matrix of the rows of A under a map, G += sum weight y' y: blocks of y are made in panels, then multiplied with each
// other. An entry of G gains the sums of rows cut by the shape alone, in their order: the same for any number of threads.

namespace randla::cpu {
namespace {

constexpr int64_t kGramDepth = 128;               // rows of y at a time: a panel of them is 24 KB
constexpr int64_t kGramStep = 128;                // rows that a piece of work makes
constexpr int64_t kGramBytes = int64_t{4} << 20;  // of y at a time: shared by the threads, in the last cache

constexpr int64_t kGramOwnPanels = 8;             // up to here every thread keeps all of G
constexpr int64_t kGramChunks = 16;

struct GramTile {
  using Tile = MapTile<double>;
  static constexpr int W = Tile::width, R = kNativeBytes == 64 ? 8 : kNativeBytes == 32 ? 4 : 2;
  static_assert(W % R == 0, "a group of rows of G must not cross panels");
  typename Tile::V sum[W / R][R][Tile::vectors];

  // Adds left' right for `depth` rows of two panels, of which `rows` and `cols` columns are wanted.
  void add(const double* left, const double* right, int64_t depth, int64_t rows, int64_t cols) {
    constexpr int N = Tile::vectors;
    const int64_t vectors = (cols + Tile::L - 1) / Tile::L;
    for (int64_t g = 0; g < W / R && g * R < rows; ++g) {
      const double* a = left + g * R;
      if (vectors >= N)
        map_tile<double, R, W, true>(a, 1, right, depth, sum[g]);
      else if (vectors == 1)
        map_tile<double, R, W, true, 1>(a, 1, right, depth, sum[g]);
      else if (vectors == 2)
        map_tile<double, R, W, true, (N > 2 ? 2 : N)>(a, 1, right, depth, sum[g]);
      else
        map_tile<double, R, W, true, (N > 3 ? 3 : N)>(a, 1, right, depth, sum[g]);
    }
  }

  // Adds what was summed to the block of G at (i0, j0).
  void add_to(double* G, int64_t r, int64_t i0, int64_t j0) const {
    double block[W][W];
    __builtin_memcpy(block, sum, sizeof block);
    for (int64_t i = 0; i < W && i0 + i < r; ++i)
      for (int64_t j = 0; j < W && j0 + j < r; ++j) G[(i0 + i) * r + j0 + j] += block[i][j];
  }
};

// Some rows of y in panels of `height` rows, and beside them the same times their weights where there are any.
template <class Fill>
struct GramRows {
  static constexpr int W = MapTile<double>::width;
  int64_t panels, height;
  const double* weights;
  Scratch<double> Y, weighted;
  const double* left;

  GramRows(int64_t panels, int64_t height, const double* weights)
      : panels(panels),
        height(height),
        weights(weights),
        Y(panels * height * W),
        weighted(weights ? panels * height * W : 0),
        left(weights ? weighted.data : Y.data) {}

  // Rows [first, first + some) of the panels become those of y from row i0 + first.
  void make(const Fill& fill, int64_t i0, int64_t first, int64_t some) {
    fill(i0 + first, some, height, Y.data + first * W);
    for (int64_t p = 0; weights && p < panels; ++p)
      for (int64_t i = first; i < first + some; ++i)
        for (int64_t j = 0; j < W; ++j)
          weighted.data[(p * height + i) * W + j] = weights[i0 + i] * Y.data[(p * height + i) * W + j];
  }
};

// Few columns: chunks of rows, each with a G of its own, added in order.
template <class Fill>
void gram_of_chunks(int64_t m, int64_t r, const double* weights, const Fill& fill, double* G) {
  constexpr int W = GramTile::W;
  const int64_t panels = map_panels(r, W), pairs = panels * (panels + 1) / 2;
  int64_t step = ((m + kGramChunks - 1) / kGramChunks + kGramDepth - 1) / kGramDepth * kGramDepth;
  if (step < 4 * kGramDepth) step = 4 * kGramDepth;
  const int64_t chunks = (m + step - 1) / step;
  Scratch<double> partial(chunks * r * r);
  parallel_for(chunks, [&](int64_t c) {
    GramRows<Fill> y(panels, kGramDepth, weights);
    Scratch<GramTile> tiles(pairs);
    __builtin_memset(static_cast<void*>(tiles.data), 0, static_cast<size_t>(pairs) * sizeof(GramTile));
    for (int64_t i0 = c * step; i0 < m && i0 < (c + 1) * step; i0 += kGramDepth) {
      const int64_t rows = i0 + kGramDepth < m ? kGramDepth : m - i0;
      y.make(fill, i0, 0, rows);
      for (int64_t p = 0, t = 0; p < panels; ++p)
        for (int64_t q = 0; q <= p; ++q, ++t)
          tiles.data[t].add(y.left + q * kGramDepth * W, y.Y.data + p * kGramDepth * W, rows, r - q * W, r - p * W);
    }
    double* mine = partial.data + c * r * r;
    for (int64_t j = 0; j < r * r; ++j) mine[j] = 0;
    for (int64_t p = 0, t = 0; p < panels; ++p)
      for (int64_t q = 0; q <= p; ++q, ++t) tiles.data[t].add_to(mine, r, q * W, p * W);
  });
  for (int64_t c = 0; c < chunks; ++c)
    for (int64_t j = 0; j < r * r; ++j) G[j] += partial.data[c * r * r + j];
}

// Many columns: the threads share blocks of rows and the pairs of panels.
template <class Fill>
void gram_of_blocks(int64_t m, int64_t r, const double* weights, const Fill& fill, double* G) {
  constexpr int W = GramTile::W;
  const int64_t panels = map_panels(r, W), pairs = panels * (panels + 1) / 2;
  int64_t height = kGramBytes / (8 * panels * W) / 64 * 64;
  height = height < 512 ? 512 : height > 8192 ? 8192 : height;
  const int64_t blocks = (m + height - 1) / height;
  height = ((m + blocks - 1) / blocks + 7) / 8 * 8;  // even ones
  GramRows<Fill> y(panels, height, weights);
  const int64_t step = height < 8 * kGramStep ? (height + 7) / 8 : kGramStep;
  for (int64_t i0 = 0; i0 < m; i0 += height) {
    const int64_t rows = i0 + height < m ? height : m - i0;
    parallel_for((rows + step - 1) / step,
                 [&](int64_t s) { y.make(fill, i0, s * step, (s + 1) * step < rows ? step : rows - s * step); });
    parallel_for(pairs, [&](int64_t t) {
      // The last panel meets all others: its pairs come first.
      int64_t p = panels - 1, q = t;
      while (q > p) q -= p + 1, --p;
      GramTile tile = {};
      // Slices that the first cache holds while all groups of rows of G read them.
      for (int64_t k0 = 0; k0 < rows; k0 += kGramDepth)
        tile.add(y.left + (q * height + k0) * W, y.Y.data + (p * height + k0) * W,
                 k0 + kGramDepth < rows ? kGramDepth : rows - k0, r - q * W, r - p * W);
      tile.add_to(G, r, q * W, p * W);
    });
  }
}

// fill(i0, rows, height, Y) writes the y of rows i0.. into panels of `height` rows each.
template <class Fill>
void add_gram(int64_t m, int64_t r, const double* weights, const Fill& fill, double* G) {
  if (m == 0 || r == 0) return;
  if (map_panels(r, GramTile::W) <= kGramOwnPanels)
    gram_of_chunks(m, r, weights, fill, G);
  else
    gram_of_blocks(m, r, weights, fill, G);
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j < i; ++j) G[i * r + j] = G[j * r + i];
}

// Rows as they are, scaled: no map is needed for the Gram matrix of A itself.
template <class T>
void gram_of_rows(Matrix<const T> A, const RowMap& map, double* G) {
  constexpr int W = MapTile<double>::width;
  MapRows<T, double> source(A, map, kGramStep);
  add_gram(
      A.rows, map.r, map.weights,
      [&](int64_t i0, int64_t rows, int64_t height, double* Y) {
        int64_t row_step;
        const double* a = source.take(i0, rows, &row_step);
        // What lies beyond the vectors of the last panel that hold columns is not read.
        const int64_t whole = map.r / W * W, last = map.r - whole, read = (last + kQuads - 1) / kQuads * kQuads;
        for (int64_t i = 0; i < rows; ++i) {
          const double* from = a + i * row_step;
          // The rows of the next block come while this one is multiplied.
          for (int64_t j = 0; j < map.r; j += 8) __builtin_prefetch(from + kGramDepth * row_step + j, 0, 2);
          for (int64_t j0 = 0; j0 < whole; j0 += W) __builtin_memcpy(Y + j0 * height + i * W, from + j0, W * sizeof(double));
          double* to = Y + whole * height + i * W;
          for (int64_t j = 0; j < last; ++j) to[j] = from[whole + j];
          for (int64_t j = last; j < read; ++j) to[j] = 0;
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
  add_gram(
      A.rows, map.r, map.weights,
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
  add_gram(
      A.rows, map.r, map.weights,
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
