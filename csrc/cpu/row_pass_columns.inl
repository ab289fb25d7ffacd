// Passes over the rows of a column-major matrix.

namespace randla::cpu {
namespace {

// Rows of a column-major A are taken in blocks whose columns still lie in the cache when A' t needs them.
inline int64_t column_major_rows(int64_t n, int64_t element) {
  const int64_t rows = (768 * 1024) / (element * (n > 0 ? n : 1)) / 8 * 8;
  return rows < 64 ? 64 : rows > 2048 ? 2048 : rows;
}

// t += A x for C columns of some rows, and g_j += a_j . t.
template <class T, int C>
inline __attribute__((always_inline)) void add_columns(const T* a, int64_t ld, int64_t rows, int64_t ahead, const double* x, double* t) {
  const int64_t whole = rows / 8 * 8;
  for (int64_t i = 0; i < whole; i += 8) {
    Lanes<double> v = load(t + i);
    for (int q = 0; q < C; ++q) {
      __builtin_prefetch(a + q * ld + i + ahead);
      v += load_doubles(a + q * ld + i) * x[q];
    }
    store(t + i, v);
  }
  for (int64_t i = whole; i < rows; ++i)
    for (int q = 0; q < C; ++q) t[i] += static_cast<double>(a[q * ld + i]) * x[q];
}

template <class T, int C>
inline __attribute__((always_inline)) void dot_columns(const T* a, int64_t ld, int64_t rows, const double* t, double* g) {
  const int64_t whole = rows / 8 * 8;
  Lanes<double> dot[C] = {};
  for (int64_t i = 0; i < whole; i += 8) {
    const Lanes<double> ti = load(t + i);
    for (int q = 0; q < C; ++q) dot[q] += load_doubles(a + q * ld + i) * ti;
  }
  for (int q = 0; q < C; ++q) {
    double total = sum(dot[q]);
    for (int64_t i = whole; i < rows; ++i) total += static_cast<double>(a[q * ld + i]) * t[i];
    g[q] += total;
  }
}

// Calls work(C, j) for the columns j .. j + C - 1, eight at a time as long as there are.
template <class Work>
inline __attribute__((always_inline)) void groups_of_columns(int64_t n, const Work& work) {
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) work(std::integral_constant<int, 8>{}, j);
  for (; j + 4 <= n; j += 4) work(std::integral_constant<int, 4>{}, j);
  for (; j + 2 <= n; j += 2) work(std::integral_constant<int, 2>{}, j);
  for (; j < n; ++j) work(std::integral_constant<int, 1>{}, j);
}

template <class T>
void pass_over_columns(const RowPass& pass, Matrix<const T> A, int64_t i0, int64_t i1, double* g, double* sums) {
  const int64_t n = A.cols, ld = A.col_stride, step = column_major_rows(n, sizeof(T));
  Scratch<double> t(pass.k * step);
  for (int64_t s = i0; s < i1; s += step) {
    const int64_t rows = s + step < i1 ? step : i1 - s;
    for (int64_t c = 0; pass.x && c < pass.k; ++c) {
      double* tc = t.data + c * step;
      for (int64_t i = 0; i < rows; ++i) tc[i] = 0.0;
      groups_of_columns(n, [&](auto columns, int64_t j) {
        constexpr int C = decltype(columns)::value;
        add_columns<T, C>(A.at(s, j), ld, rows, j + 2 * C <= n ? C * ld : 0, pass.x + c * n + j, tc);
      });
    }
    pass.middle(pass.context, s, rows, t.data, step, sums);
    for (int64_t c = 0; g && c < pass.k; ++c)
      groups_of_columns(n, [&](auto columns, int64_t j) {
        dot_columns<T, decltype(columns)::value>(A.at(s, j), ld, rows, t.data + c * step, g + c * n + j);
      });
  }
}

}  // namespace
}  // namespace randla::cpu
