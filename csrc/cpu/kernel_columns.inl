// Columns of kernel matrices: a block of values k(x, y) for points x and y, from distances that are summed in registers and
// exponentials taken there.
//
// A squared distance is a sum of squares of differences, right to (d + 2) 2^-53 of itself for d coordinates however near the points
// are. For many coordinates products are cheaper, |x|^2 + |y|^2 - 2 x'y of points less a centre: right to 2 (d + 2) 2^-53 of
// |x|^2 + |y|^2, so that where this is more than sixteen times the distance the differences are summed after all. Everything adds
// up in float64 in the order of the coordinates, for every lane alone: the same bits for any number of threads and instruction set.

namespace randla::cpu {
namespace {

// What a tile adds to `sum` for one coordinate t of the points in its lanes, and the same of one other point, x.
struct SquareOfDifference {
  template <class V, class C>
  static inline __attribute__((always_inline)) V add(V sum, V t, C x) {
    const V difference = t - x;
    return sum + difference * difference;
  }
};
struct SizeOfDifference {
  template <class V, class C>
  static inline __attribute__((always_inline)) V add(V sum, V t, C x) {
    return sum + absolute(t - x);
  }
};
struct Product {
  template <class V, class C>
  static inline __attribute__((always_inline)) V add(V sum, V t, C x) {
    return sum + t * x;
  }
};
struct MinusProduct {
  template <class V, class C>
  static inline __attribute__((always_inline)) V add(V sum, V t, C x) {
    return sum - t * x;
  }
};

// Goes on with sum[i] over k < depth: of a[i row_step + k] and panel[k]. Not inlined: beside other code the sums would not stay in
// registers.
template <class Step, class C, int R>
__attribute__((noinline)) void fold_tile(const C* a, int64_t row_step, const C* panel, int64_t depth,
                                         typename MapTile<C>::V (*sum)[MapTile<C>::vectors]) {
  using V = typename MapTile<C>::V;
  constexpr int L = MapTile<C>::L, W = MapTile<C>::width, N = MapTile<C>::vectors;
  V acc[R][N];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < N; ++v) acc[i][v] = sum[i][v];
  for (int64_t k = 0; k < depth; ++k) {
    V t[N];
    for (int v = 0; v < N; ++v) t[v] = load_as<V>(panel + k * W + v * L);
    for (int i = 0; i < R; ++i) {
      const C x = a[i * row_step + k];
      for (int v = 0; v < N; ++v) acc[i][v] = Step::add(acc[i][v], t[v], x);
    }
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < N; ++v) sum[i][v] = acc[i][v];
}

constexpr int64_t kPointsBytes = int64_t{1} << 18;  // of points in panels at a time: a part of the second-level cache
constexpr int64_t kRowsBytes = int64_t{1} << 20;    // of those that meet them: shared by the threads
constexpr double kNear = 1.0 / 16;

// (A - centre) scale as rows of `width` numbers, zero beyond the columns of A. Coordinates are the rows of A, else its columns.
template <class T>
void pack_points(Matrix<const T> A, int64_t i0, int64_t rows, int64_t j0, int64_t cols, bool turned, const PointKernel& kernel,
                 T* packed, double* to, int64_t width) {
  pack<T>(A, i0, rows, j0, cols, packed, width);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) {
      const double x = static_cast<double>(packed[i * width + j]);
      to[i * width + j] = (kernel.centre ? x - kernel.centre[turned ? i : j] : x) * kernel.scale;
    }
  for (int64_t i = 0; i < rows && cols < width; ++i)
    for (int64_t j = cols; j < width; ++j) to[i * width + j] = 0;
}

// Points of both sides, and their squared norms where distances come from products.
struct PointsOfPiece {
  static constexpr int W = MapTile<double>::width;
  int64_t d, rows, cols;
  const double *x, *y, *x_squares, *y_squares;
};

template <class Out>
inline __attribute__((always_inline)) void store_values(Out* to, int64_t count, Doubles v) {
  if constexpr (std::is_same_v<Out, double>) {
    store_some(to, count, v);
  } else {
    for (int64_t l = 0; l < kQuads && l < count; ++l) to[l] = static_cast<float>(v[l]);
  }
}

// |x - y|^2 from inner products, where they are precise enough.
inline __attribute__((always_inline)) Doubles square_from_product(const PointsOfPiece& p, int64_t i, int64_t j, Doubles product) {
  const Doubles sizes = load_as<Doubles>(p.y_squares + j) + p.x_squares[i];
  const Doubles square = sizes - product * 2.0;
  const auto precise = square >= sizes * kNear;  // false for NaN
  bool all_precise = true;
  for (int l = 0; l < kQuads; ++l) all_precise &= precise[l] != 0;
  if (all_precise) return square;
  const double* panel = p.y + j / PointsOfPiece::W * PointsOfPiece::W * p.d + j % PointsOfPiece::W;
  Doubles sum = {};
  for (int64_t k = 0; k < p.d; ++k)
    sum = SquareOfDifference::add(sum, load_as<Doubles>(panel + k * PointsOfPiece::W), p.x[i * p.d + k]);
  return precise ? square : sum;
}

template <class Step, int R, class Out>
void kernel_tile(const PointsOfPiece& p, int64_t i, int64_t j, double gamma, Matrix<Out> out) {
  using Tile = MapTile<double>;
  static_assert(Tile::L == kQuads, "sums are the numbers that exponentials are taken of");
  typename Tile::V sum[R][Tile::vectors] = {};
  fold_tile<Step, double, R>(p.x + i * p.d, p.d, p.y + j * p.d, p.d, sum);
  const bool whole = j + Tile::width <= p.cols;
  for (int r = 0; r < R; ++r) {
    Doubles value[Tile::vectors];
    for (int v = 0; v < Tile::vectors; ++v) {
      Doubles distance = sum[r][v];
      if constexpr (std::is_same_v<Step, Product>) distance = square_from_product(p, i + r, j + v * Tile::L, distance);
      value[v] = exp_of(distance * -gamma);
    }
    Out* to = out.at(i + r, j);
    if (whole)
      for (int v = 0; v < Tile::vectors; ++v) store_values(to + v * Tile::L, kQuads, value[v]);
    else
      for (int v = 0; v < Tile::vectors && j + v * Tile::L < p.cols; ++v)
        store_values(to + v * Tile::L, p.cols - j - v * Tile::L, value[v]);
  }
}

template <class Step, class Out>
void kernel_tiles(const PointsOfPiece& p, double gamma, Matrix<Out> out) {
  constexpr int R = MapTile<double>::rows;
  int64_t i = 0;
  for (; i + R <= p.rows; i += R)
    for (int64_t j = 0; j < p.cols; j += PointsOfPiece::W) kernel_tile<Step, R>(p, i, j, gamma, out);
  for (; i < p.rows; ++i)
    for (int64_t j = 0; j < p.cols; j += PointsOfPiece::W) kernel_tile<Step, 1>(p, i, j, gamma, out);
}

// sums[j] = the squares in column j, added in the order of the rows.
inline void add_column_squares(const double* a, int64_t rows, int64_t cols, double* sums) {
  for (int64_t j = 0; j < cols; ++j) sums[j] = 0;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) sums[j] += a[i * cols + j] * a[i * cols + j];
}

// The values of a block of points, rows of `x` (rows, d), with all of Y.
template <class T, class Out>
void kernel_rows(const PointKernel& kernel, const double* x, const double* x_squares, int64_t rows, Matrix<const T> Y,
                 Matrix<Out> out) {
  constexpr int64_t W = PointsOfPiece::W;
  const int64_t d = Y.cols, fit = kPointsBytes / (8 * W * (d > 0 ? d : 1)), panels = fit < 1 ? 1 : fit > 4 ? 4 : fit;
  const Matrix<const T> turned = {Y.data, Y.cols, Y.rows, Y.col_stride, Y.row_stride};
  parallel_for((Y.rows + panels * W - 1) / (panels * W), [&](int64_t piece) {
    const int64_t j0 = piece * panels * W, cols = j0 + panels * W < Y.rows ? panels * W : Y.rows - j0;
    const int64_t here = (cols + W - 1) / W;
    Scratch<T> packed(W * d);
    Scratch<double> y(here * W * d), squares(kernel.centre ? here * W : 0);
    for (int64_t q = 0; q < here; ++q) {
      double* panel = y.data + q * W * d;
      pack_points<T>(turned, 0, d, j0 + q * W, (q + 1) * W < cols ? W : cols - q * W, true, kernel, packed.data, panel, W);
      if (kernel.centre) add_column_squares(panel, d, W, squares.data + q * W);
    }
    const PointsOfPiece points = {d, rows, cols, x, y.data, x_squares, squares.data};
    const Matrix<Out> to = {out.at(0, j0), rows, cols, out.row_stride, out.col_stride};
    if (kernel.kind == PointKernel::kLaplacian)
      kernel_tiles<SizeOfDifference>(points, kernel.gamma, to);
    else if (kernel.centre)
      kernel_tiles<Product>(points, kernel.gamma, to);
    else
      kernel_tiles<SquareOfDifference>(points, kernel.gamma, to);
  });
}

// out[i, j] = k(x_i, y_j) for the rows of X and Y. out has unit column stride.
template <class T, class Out>
void kernel_columns(const PointKernel& kernel, Matrix<const T> X, Matrix<const T> Y, Matrix<Out> out) {
  constexpr int64_t step = 8;
  const int64_t d = X.cols, fit = kRowsBytes / (8 * (d > 0 ? d : 1)) / step * step;
  const int64_t height = fit < 64 ? 64 : fit > 1024 ? 1024 : fit, most = height < X.rows ? height : X.rows;
  Scratch<double> x(most * d), squares(kernel.centre ? most : 0);
  for (int64_t i0 = 0; i0 < X.rows; i0 += height) {
    const int64_t rows = i0 + height < X.rows ? height : X.rows - i0;
    parallel_for((rows + step - 1) / step, [&](int64_t piece) {
      const int64_t first = piece * step, some = first + step < rows ? step : rows - first;
      Scratch<T> packed(some * d);
      pack_points<T>(X, i0 + first, some, 0, d, false, kernel, packed.data, x.data + first * d, d);
      for (int64_t i = first; kernel.centre && i < first + some; ++i) {
        double total = 0;
        for (int64_t k = 0; k < d; ++k) total += x.data[i * d + k] * x.data[i * d + k];
        squares.data[i] = total;
      }
    });
    const Matrix<Out> to = {out.row(i0), rows, out.cols, out.row_stride, out.col_stride};
    kernel_rows(kernel, x.data, squares.data, rows, Y, to);
  }
}

}  // namespace
}  // namespace randla::cpu
