// Passes over the rows of a dense matrix of any strides.

namespace randla::cpu {
namespace {

// Where the rows of a tile lie: one after the other, or wherever a list says.
template <class T>
struct RowRun {
  const T* first;
  int64_t step, ahead;  // elements
  const T* operator[](int64_t i) const { return first + i * step; }
  RowRun from(int64_t i) const { return {first + i * step, step, ahead}; }
};
template <class T>
struct RowList {
  const T* const* row;
  static constexpr int64_t ahead = 0;
  const T* operator[](int64_t i) const { return row[i]; }
  RowList from(int64_t i) const { return {row + i}; }
};

// t[c stride + i] = row_i . x_c for R rows and C vectors, R C = 8 or R = 1. Rows have at least 8 elements; of at most 64 where
// Blocks, their number of blocks, is said.
template <class T, int R, int C, int Blocks = 0, class Rows>
inline __attribute__((always_inline)) void dot_rows(const Rows& row, int64_t n, const double* x, double* t, int64_t stride) {
  const int64_t width = Blocks ? 8 * Blocks : padded(n), whole = Blocks ? 8 * (Blocks - 1) : (n - 1) / 8 * 8;
  Lanes<double> dot[C * R] = {};
  auto block = [&](int64_t from, int64_t j) __attribute__((always_inline)) {
    Lanes<double> xj[C];
    for (int c = 0; c < C; ++c) xj[c] = load(x + c * width + j);
    for (int i = 0; i < R; ++i) {
      __builtin_prefetch(row[i] + from + row.ahead);
      const Lanes<double> a = load_doubles(row[i] + from);
      for (int c = 0; c < C; ++c) dot[c * R + i] += a * xj[c];
    }
  };
  if constexpr (Blocks) {
#pragma GCC unroll 8
    for (int b = 0; b < Blocks - 1; ++b) block(8 * b, 8 * b);
  } else {
    for (int64_t j = 0; j < whole; j += 8) block(j, j);
  }
  block(n - 8, whole);
  if constexpr (R == 1) {
    for (int c = 0; c < C; ++c) t[c * stride] = sum(dot[c]);
  } else {
    const Lanes<double> sums = sum8(dot);
    for (int c = 0; c < C; ++c) __builtin_memcpy(t + c * stride, reinterpret_cast<const double*>(&sums) + c * R, R * sizeof(double));
  }
}

// g_c += sum over the R rows of t[c stride + i] row_i.
template <class T, int R, int C, class Rows>
inline __attribute__((always_inline)) void add_rows(const Rows& row, int64_t n, const double* t, int64_t stride, double* g) {
  const int64_t width = padded(n), whole = (n - 1) / 8 * 8;
  auto block = [&](int64_t from, int64_t j) __attribute__((always_inline)) {
    Lanes<double> gj[C];
    for (int c = 0; c < C; ++c) gj[c] = load(g + c * width + j);
    for (int i = 0; i < R; ++i) {
      const Lanes<double> a = load_doubles(row[i] + from);
      for (int c = 0; c < C; ++c) gj[c] += a * t[c * stride + i];
    }
    for (int c = 0; c < C; ++c) store(g + c * width + j, gj[c]);
  };
  for (int64_t j = 0; j < whole; j += 8) block(j, j);
  block(n - 8, whole);
}

// The same for all rows of a tile, g in registers.
template <class T, int C, int Blocks, class Rows>
inline __attribute__((always_inline)) void add_short_rows(const Rows& row, int64_t count, int64_t n, const double* t,
                                                          int64_t stride, double* g) {
  Lanes<double> sums[C * Blocks];
#pragma GCC unroll 16
  for (int b = 0; b < C * Blocks; ++b) sums[b] = load(g + 8 * b);
  for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 8
    for (int b = 0; b < Blocks; ++b) {
      const Lanes<double> a = load_doubles(row[i] + (b + 1 < Blocks ? 8 * b : n - 8));
      for (int c = 0; c < C; ++c) sums[c * Blocks + b] += a * t[c * stride + i];
    }
  }
#pragma GCC unroll 16
  for (int b = 0; b < C * Blocks; ++b) store(g + 8 * b, sums[b]);
}

inline int64_t rows_per_tile(int64_t n, int64_t element) {
  const int64_t rows = kTileBytes / (element * (n > 0 ? n : 1)) / 8 * 8;
  return rows < 8 ? 8 : rows > 32 ? 32 : rows;
}

// C vectors and all rows of a tile.
template <class T, int C, int Blocks, bool Forward, class Rows>
__attribute__((noinline)) void short_rows(const Rows& row, int64_t count, int64_t n, const double* x, double* t, int64_t stride,
                                          double* g) {
  constexpr int R = 8 / C;
  if constexpr (Forward) {
    int64_t i = 0;
    for (; i + R <= count; i += R) dot_rows<T, R, C, Blocks>(row.from(i), n, x, t + i, stride);
    for (; i < count; ++i) dot_rows<T, 1, C, Blocks>(row.from(i), n, x, t + i, stride);
  } else {
    add_short_rows<T, C, Blocks>(row, count, n, t, stride, g);
  }
}

template <class T, int C, bool Forward, class Rows>
__attribute__((noinline)) void long_rows(const Rows& row, int64_t count, int64_t n, const double* x, double* t, int64_t stride,
                                         double* g) {
  constexpr int R = 8 / C;
  int64_t i = 0;
  for (; i + R <= count; i += R)
    if constexpr (Forward)
      dot_rows<T, R, C>(row.from(i), n, x, t + i, stride);
    else
      add_rows<T, R, C>(row.from(i), n, t + i, stride, g);
  for (; i < count; ++i)
    if constexpr (Forward)
      dot_rows<T, 1, C>(row.from(i), n, x, t + i, stride);
    else
      add_rows<T, 1, C>(row.from(i), n, t + i, stride, g);
}

template <class T, int C, bool Forward, class Rows>
void vectors_of_tile(const Rows& row, int64_t count, int64_t n, const double* x, double* t, int64_t stride, double* g) {
  switch (padded(n) / 8) {
    case 1: return short_rows<T, C, 1, Forward>(row, count, n, x, t, stride, g);
    case 2: return short_rows<T, C, 2, Forward>(row, count, n, x, t, stride, g);
    case 3: return short_rows<T, C, 3, Forward>(row, count, n, x, t, stride, g);
    case 4: return short_rows<T, C, 4, Forward>(row, count, n, x, t, stride, g);
    case 5: return short_rows<T, C, 5, Forward>(row, count, n, x, t, stride, g);
    case 6: return short_rows<T, C, 6, Forward>(row, count, n, x, t, stride, g);
    case 7: return short_rows<T, C, 7, Forward>(row, count, n, x, t, stride, g);
    case 8: return short_rows<T, C, 8, Forward>(row, count, n, x, t, stride, g);
    default: return long_rows<T, C, Forward>(row, count, n, x, t, stride, g);
  }
}

// t of a tile of rows, or g += the multiplied sum of them; several vectors share the reads of a row.
template <class T, bool Forward, class Rows>
void tile_of_rows(const Rows& row, int64_t count, int64_t n, int64_t k, const double* x, double* t, int64_t stride, double* g) {
  const int64_t width = padded(n);
  int64_t c = 0;
  auto vectors = [&](auto many) {
    constexpr int C = decltype(many)::value;
    vectors_of_tile<T, C, Forward>(row, count, n, Forward ? x + c * width : nullptr, t + c * stride, stride,
                                   Forward ? nullptr : g + c * width);
    c += C;
  };
  while (c + 4 <= k) vectors(std::integral_constant<int, 4>{});
  while (c + 2 <= k) vectors(std::integral_constant<int, 2>{});
  if (c < k) vectors(std::integral_constant<int, 1>{});
}

// Rows of n >= 8 elements that lie `step` apart, or where a list of A's rows says.
template <class T>
void pass_over_rows(const RowPass& pass, int64_t n, const T* first, int64_t step, bool listed, int64_t i0, int64_t i1,
                    const double* x, double* g, double* sums) {
  const int64_t tile = rows_per_tile(n, sizeof(T)), bytes = n * static_cast<int64_t>(sizeof(T));
  const int64_t ahead = kPrefetchBytes / bytes / 8 * 8 + 8;
  Scratch<double> t(pass.k * tile);
  const T* row[32];
  for (int64_t i = i0; i < i1; i += tile) {
    const int64_t count = i + tile < i1 ? tile : i1 - i;
    auto work = [&](const auto& rows) {
      if (x) tile_of_rows<T, true>(rows, count, n, pass.k, x, t.data, tile, nullptr);
      pass.middle(pass.context, i, count, t.data, tile, sums);
      if (g) tile_of_rows<T, false>(rows, count, n, pass.k, nullptr, t.data, tile, g);
    };
    if (!listed) {
      // Rows are streams too short for the hardware to run ahead of.
      work(RowRun<T>{first + (i - i0) * step, step, ahead * step});
      continue;
    }
    for (int64_t q = 0; q < count; ++q) row[q] = first + pass.rows[i + q] * step;
    for (int64_t p = i + count; p < i + count + tile && p < i1; ++p) {
      const char* next = reinterpret_cast<const char*>(first + pass.rows[p] * step);
      for (int64_t b = 0; b < bytes; b += kCacheLine) __builtin_prefetch(next + b);
    }
    work(RowList<T>{row});
  }
}

// Rows of any strides are packed a few at a time, in cache. An element of A is one number or a complex pair of them.
template <class T, class Element>
void pass_over_packed(const RowPass& pass, Matrix<const Element> A, int64_t i0, int64_t i1, const double* x, double* g,
                      double* sums) {
  constexpr int64_t parts = sizeof(Element) / sizeof(T), across = 64 / sizeof(Element);
  const int64_t cols = A.cols, n = cols * parts, ld = n < 8 ? 8 : n;
  const bool by_columns = A.row_stride * A.row_stride < A.col_stride * A.col_stride;
  const int64_t fit = kPackedBytes / ((cols + 1) * static_cast<int64_t>(sizeof(Element))) / 8 * 8;
  const int64_t rows = fit < 16 ? 16 : fit > 128 ? 128 : fit;
  Scratch<T> tile(rows * ld);
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t j = n; j < ld; ++j) tile.data[q * ld + j] = T(0);
  for (int64_t i = i0; i < i1; i += rows) {
    const int64_t count = i + rows < i1 ? rows : i1 - i;
    auto copy = [&](int64_t q, int64_t j) {
      __builtin_memcpy(tile.data + q * ld + j * parts, A.at(pass.row(i + q), j), sizeof(Element));
    };
    if (by_columns) {
      // A whole cache line of the tile at a time, and the next columns fetched meanwhile.
      int64_t j = 0;
      for (; j + across <= cols; j += across)
        for (int64_t q = 0; q < count; ++q)
          for (int64_t s = 0; s < across; ++s) {
            copy(q, j + s);
            __builtin_prefetch(A.at(pass.row(i + q), j + s) + across * A.col_stride);
          }
      for (; j < cols; ++j)
        for (int64_t q = 0; q < count; ++q) copy(q, j);
    } else {
      for (int64_t q = 0; q < count; ++q)
        for (int64_t j = 0; j < cols; ++j) copy(q, j);
    }
    pass_over_rows<T>(pass, ld, tile.data, ld, false, i, i + count, x, g, sums);
  }
}

// A complex A of n columns counts as the real one of 2 n columns that holds Re a, Im a of every entry in turn.
template <class T, class Element>
void row_pass(const RowPass& pass, Matrix<const Element> A) {
  constexpr int64_t parts = sizeof(Element) / sizeof(T);
  const int64_t n = A.cols * parts;
  zero_gradient(pass, n);
  if constexpr (parts == 1) {
    if (A.row_stride == 1 && A.col_stride != 1 && !pass.rows) {
      int64_t grain = column_major_rows(n, sizeof(T));
      grain = (chunk_rows(n) + grain - 1) / grain * grain;
      const int64_t size = pass.g ? pass.k * n : 0;
      sum_over_chunks(
          pass, grain, size,
          [&](int64_t i0, int64_t i1, double* g, double* sums) { pass_over_columns<T>(pass, A, i0, i1, g, sums); },
          [&](const double* g) {
            for (int64_t j = 0; j < size; ++j) pass.g[j] += g[j];
          });
      return;
    }
  }
  // Rows of fewer than eight elements are packed with zeros behind them, which is also how `pad_vector` leaves vectors.
  const bool in_place = A.col_stride == 1 && n >= 8;
  const int64_t width = padded(n), size = pass.k * width;
  Scratch<double> padded_x(pass.x ? size : 0);
  for (int64_t c = 0; pass.x && c < pass.k; ++c) pad_vector(pass.x + c * n, n, padded_x.data + c * width);
  const double* x = pass.x ? padded_x.data : nullptr;
  sum_over_chunks(
      pass, chunk_rows(n), pass.g ? size : 0,
      [&](int64_t i0, int64_t i1, double* g, double* sums) {
        if (in_place)
          pass_over_rows<T>(pass, n, reinterpret_cast<const T*>(A.row(pass.rows ? 0 : i0)), A.row_stride * parts,
                            pass.rows != nullptr, i0, i1, x, g, sums);
        else
          pass_over_packed<T, Element>(pass, A, i0, i1, x, g, sums);
      },
      [&](const double* g) {
        for (int64_t c = 0; c < pass.k; ++c) add_padded(g + c * width, n, pass.g + c * n);
      });
}

}  // namespace
}  // namespace randla::cpu
