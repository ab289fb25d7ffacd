// New rows of a triangular factor, H[k:] <- L^-1 (H[k:] - B H[:k]): panels of columns go through all rows in the cache, and what is
// subtracted stays in registers. An entry loses its terms in the order of the rows above it: the same bits for any number of
// threads and instruction set, which no BLAS promises.

namespace randla::cpu {
namespace {

constexpr int64_t kEliminateBytes = int64_t{1} << 19;  // of columns at a time
constexpr int64_t kEliminateColumns = 2048;            // of a single new row

// Columns [j0, j0 + cols) of a row of H as rows of a panel, one for every part of a number; and back.
template <class T, int Parts>
inline void to_panel(const T* from, int64_t cols, T* panel) {
  constexpr int W = MapTile<T>::width;
  if constexpr (Parts == 1) {
    __builtin_memcpy(panel, from, static_cast<size_t>(cols) * sizeof(T));
  } else {
    for (int64_t j = 0; j < cols; ++j)
      for (int part = 0; part < Parts; ++part) panel[part * W + j] = from[j * Parts + part];
  }
}
template <class T, int Parts>
inline void from_panel(const T* panel, int64_t cols, T* to) {
  constexpr int W = MapTile<T>::width;
  if constexpr (Parts == 1) {
    __builtin_memcpy(to, panel, static_cast<size_t>(cols) * sizeof(T));
  } else {
    for (int64_t j = 0; j < cols; ++j)
      for (int part = 0; part < Parts; ++part) to[j * Parts + part] = panel[part * W + j];
  }
}

// R rows of a panel from row `first` on, with the coefficients c of the rows before and among them.
template <class T, int R>
void eliminate_tile(const T* c, int64_t step, int64_t first, T* panel) {
  using Tile = MapTile<T>;
  typename Tile::V x[R][Tile::vectors];
  __builtin_memcpy(x, panel + first * Tile::width, sizeof x);
  fold_tile<MinusProduct, T, R>(c, step, panel, first, x);
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < Tile::vectors; ++v) {
      for (int j = 0; j < i; ++j) x[i][v] -= x[j][v] * c[i * step + first + j];
      x[i][v] /= c[i * step + first + i];
    }
  __builtin_memcpy(panel + first * Tile::width, x, sizeof x);
}

// The last row of H alone is new: all others pass by once.
template <class T>
void eliminate_row(Matrix<const T> C, Matrix<T> H, double* squares) {
  const int64_t k = H.rows - 1;
  parallel_for((H.cols + kEliminateColumns - 1) / kEliminateColumns, [&](int64_t piece) {
    const int64_t j0 = piece * kEliminateColumns, cols = j0 + kEliminateColumns < H.cols ? kEliminateColumns : H.cols - j0;
    T* to = H.at(k, j0);
    for (int64_t p = 0; p < k; ++p) add_scaled(to, static_cast<const T*>(H.at(p, j0)), -*C.at(0, p), cols);
    const T pivot = *C.at(0, k);
    for (int64_t j = 0; j < cols; ++j) {
      to[j] /= pivot;
      squares[j0 + j] += static_cast<double>(to[j]) * static_cast<double>(to[j]);
    }
  });
}

// C (m, k + m) = [B L] with contiguous rows, of numbers of `Parts` parts each written as real matrices [re -im; im re], and H
// (k + m, n); the squares of the new rows are added to squares (n).
template <class T, int Parts>
void eliminate(Matrix<const T> C, Matrix<T> H, double* squares) {
  using Tile = MapTile<T>;
  constexpr int64_t W = Tile::width, R = Tile::rows;
  if (Parts == 1 && C.rows == 1) return eliminate_row(C, H, squares);
  const int64_t depth = Parts * H.rows, k = depth - C.rows, n = H.cols;
  const int64_t fit = kEliminateBytes / (static_cast<int64_t>(sizeof(T)) * W * (depth > 0 ? depth : 1));
  const int64_t panels = fit < 1 ? 1 : fit > 4 ? 4 : fit, width = panels * W;
  parallel_for((n + width - 1) / width, [&](int64_t piece) {
    const int64_t j0 = piece * width, cols = j0 + width < n ? width : n - j0, here = (cols + W - 1) / W;
    Scratch<T> columns(here * W * depth);
    auto wide = [&](int64_t q) { return q * W + W < cols ? W : cols - q * W; };
    if (wide(here - 1) < W)
      for (int64_t t = 0; t < W * depth; ++t) columns.data[(here - 1) * W * depth + t] = 0;
    for (int64_t p = 0; p < H.rows; ++p)
      for (int64_t q = 0; q < here; ++q)
        to_panel<T, Parts>(H.row(p) + Parts * (j0 + q * W), wide(q), columns.data + (q * depth + Parts * p) * W);
    int64_t i = 0;
    for (; i + R <= C.rows; i += R)
      for (int64_t q = 0; q < here; ++q) eliminate_tile<T, R>(C.row(i), C.row_stride, k + i, columns.data + q * depth * W);
    for (; i < C.rows; ++i)
      for (int64_t q = 0; q < here; ++q) eliminate_tile<T, 1>(C.row(i), C.row_stride, k + i, columns.data + q * depth * W);
    for (int64_t q = 0; q < here; ++q) {
      double* total = squares + j0 + q * W;
      for (int64_t t = k; t < depth; ++t) {
        const T* x = columns.data + (q * depth + t) * W;
        for (int64_t j = 0; j < wide(q); ++j) total[j] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
      }
      for (int64_t p = k / Parts; p < H.rows; ++p)
        from_panel<T, Parts>(columns.data + (q * depth + Parts * p) * W, wide(q), H.row(p) + Parts * (j0 + q * W));
    }
  });
}

}  // namespace
}  // namespace randla::cpu
