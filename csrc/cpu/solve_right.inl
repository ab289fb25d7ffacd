// A[:, order] R^-1 for upper triangular R and many rows: the panels of `eliminate`, made of rows of A.

namespace randla::cpu {
namespace {

// Rows [j0, j0 + count) of A, the columns that `order` lists, as columns of a panel: one of its rows for every part of a number.
template <class T, int Parts>
void rows_to_panel(Matrix<const T> A, const int64_t* order, int64_t j0, int64_t count, int64_t k, T* turned, T* panel) {
  constexpr int64_t W = MapTile<T>::width;
  if constexpr (Parts == 1) {
    const Matrix<const T> columns = {A.data, A.cols, A.rows, A.col_stride, A.row_stride};
    pack<T>(columns, 0, A.cols, j0, count, turned, W);
    for (int64_t p = 0; p < k; ++p) __builtin_memcpy(panel + p * W, turned + order[p] * W, W * sizeof(T));
  } else {
    for (int64_t p = 0; p < k; ++p)
      for (int64_t j = 0; j < W; ++j)
        for (int part = 0; part < Parts; ++part)
          panel[(Parts * p + part) * W + j] = j < count ? A.at(j0 + j, order[p])[part] : T(0);
  }
}

template <class T, int Parts>
void panel_to_rows(const T* panel, int64_t j0, int64_t count, Matrix<T> to) {
  constexpr int64_t W = MapTile<T>::width;
  if (Parts == 1 && to.col_stride == 1 && to.row_stride == to.cols) {
    pack<T>({panel, count, to.cols, 1, W}, 0, count, 0, to.cols, to.row(j0), to.cols);
  } else {
    for (int64_t p = 0; p < to.cols; ++p)
      for (int64_t j = 0; j < count; ++j)
        for (int part = 0; part < Parts; ++part) to.at(j0 + j, p)[part] = panel[(Parts * p + part) * W + j];
  }
}

// to (A.rows, k) = A[:, order] R^-1 for C = R' (k, k) with contiguous rows, its numbers as `eliminate` has them; to may be A where
// it is ordered already. Strides count numbers, of `Parts` parts, in elements of T.
template <class T, int Parts>
void solve_right(Matrix<const T> C, const int64_t* order, Matrix<const T> A, Matrix<T> to) {
  constexpr int64_t W = MapTile<T>::width, R = MapTile<T>::rows;
  const int64_t depth = C.rows, fit = kEliminateBytes / (static_cast<int64_t>(sizeof(T)) * W * (depth > 0 ? depth : 1));
  const int64_t panels = fit < 1 ? 1 : fit > 4 ? 4 : fit, height = panels * W;
  parallel_for((A.rows + height - 1) / height, [&](int64_t piece) {
    const int64_t j0 = piece * height, rows = j0 + height < A.rows ? height : A.rows - j0, here = (rows + W - 1) / W;
    Scratch<T> columns(here * W * depth), turned(Parts == 1 ? W * A.cols : 0);
    auto tall = [&](int64_t q) { return q * W + W < rows ? W : rows - q * W; };
    for (int64_t q = 0; q < here; ++q)
      rows_to_panel<T, Parts>(A, order, j0 + q * W, tall(q), to.cols, turned.data, columns.data + q * depth * W);
    int64_t i = 0;
    for (; i + R <= depth; i += R)
      for (int64_t q = 0; q < here; ++q) eliminate_tile<T, R>(C.row(i), C.row_stride, i, columns.data + q * depth * W);
    for (; i < depth; ++i)
      for (int64_t q = 0; q < here; ++q) eliminate_tile<T, 1>(C.row(i), C.row_stride, i, columns.data + q * depth * W);
    for (int64_t q = 0; q < here; ++q)
      panel_to_rows<T, Parts>(columns.data + q * depth * W, j0 + q * W, tall(q), to);
  });
}

}  // namespace
}  // namespace randla::cpu
