// Columns of a batch as contiguous rows, and back, for the products of butterfly.inl: of real numbers (P = 1) or pairs (2).

namespace randla::cpu {
namespace {

constexpr int64_t kSquare = RANDLA_X86 && kNativeBytes == 64 ? 16 : 8;  // rows and columns that are transposed at a time

// to[j * to_stride + i] = from[i * from_stride + j] for such a square.
template <class T>
inline __attribute__((always_inline)) void transpose_square(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
#if RANDLA_X86 && RANDLA_NATIVE_BYTES == 64
  if constexpr (sizeof(T) == 4) {
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(from + i * from_stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) {
        a[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i + k]), _mm512_castps_pd(b[i + k + 2])));
        a[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i + k]), _mm512_castps_pd(b[i + k + 2])));
      }
    // Part l of a[4 i + c] is now column 4 l + c of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m512 even[2] = {_mm512_shuffle_f32x4(a[c], a[4 + c], 0x88), _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88)};
      const __m512 odd[2] = {_mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd), _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd)};
      _mm512_storeu_ps(to + c * to_stride, _mm512_shuffle_f32x4(even[0], even[1], 0x88));
      _mm512_storeu_ps(to + (4 + c) * to_stride, _mm512_shuffle_f32x4(odd[0], odd[1], 0x88));
      _mm512_storeu_ps(to + (8 + c) * to_stride, _mm512_shuffle_f32x4(even[0], even[1], 0xdd));
      _mm512_storeu_ps(to + (12 + c) * to_stride, _mm512_shuffle_f32x4(odd[0], odd[1], 0xdd));
    }
    return;
  }
#endif
  for (int64_t i = 0; i < kSquare; i += 8)
    for (int64_t j = 0; j < kSquare; j += 8)
      transpose8(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
}

// Rows [i0, i0 + rows) and columns [j0, j0 + cols) of X, of elements of P numbers, as rows of `width` numbers.
template <class T, int P>
void pack_columns(Matrix<const T> X, int64_t i0, int64_t rows, int64_t j0, int64_t cols, T* to, int64_t width) {
  if (P == 1 && sizeof(T) == 4 && X.row_stride == 1 && cols == width && rows % kSquare == 0 && cols % kSquare == 0) {
    for (int64_t j = 0; j < cols; j += kSquare)
      for (int64_t i = 0; i < rows; i += kSquare) transpose_square(X.at(i0 + i, j0 + j), X.col_stride, to + i * width + j, width);
  } else if constexpr (P == 1) {
    pack<T>(X, i0, rows, j0, cols, to, width);
  } else if constexpr (sizeof(T) == 4) {
    const Matrix<const double> pairs{reinterpret_cast<const double*>(X.data), X.rows, X.cols, X.row_stride / 2, X.col_stride / 2};
    pack<double>(pairs, i0, rows, j0, cols, reinterpret_cast<double*>(to), width / 2);
  } else {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < width / P; ++j)
        for (int p = 0; p < P; ++p) to[i * width + j * P + p] = j < cols ? X.at(i0 + i, j0 + j)[p] : T(0);
  }
}

// And rows of `width` numbers back to such a part of Y.
template <class T, bool Stream>
void unpack_rows(const T* from, int64_t width, Matrix<T> Y, int64_t i0, int64_t rows, int64_t j0, int64_t cols) {
  constexpr int64_t L = kLanes<T>;
  int64_t whole_rows = 0, whole_cols = 0;
  if (Y.row_stride == 1) {
    constexpr int64_t square = sizeof(T) == 4 && Stream ? kSquare : 8;
    whole_rows = rows / L * L, whole_cols = cols / square * square;
    for (int64_t j = 0; j < whole_cols; j += square)
      for (int64_t i = 0; i < whole_rows; i += L) {
        T lines[square * L];
        T* to = Stream ? lines : Y.at(i0 + i, j0 + j);
        const int64_t step = Stream ? L : Y.col_stride;
        if constexpr (sizeof(T) == 4 && square == L)
          transpose_square(from + i * width + j, width, to, step);
        else
          for (int64_t h = 0; h < L; h += 8) transpose8(from + (i + h) * width + j, width, to + h, step);
        if constexpr (Stream)
          for (int64_t k = 0; k < square; ++k)
            for (int64_t l = 0; l < L; l += kNativeBytes / static_cast<int64_t>(sizeof(T)))
              put<true>(Y.at(i0 + i + l, j0 + j + k), load_as<typename NativeOf<T>::type>(lines + k * L + l));
      }
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < whole_rows ? whole_cols : 0; j < cols; ++j) *Y.at(i0 + i, j0 + j) = from[i * width + j];
}

template <class T, int P, bool Stream>
void unpack_columns(const T* from, int64_t width, Matrix<T> Y, int64_t i0, int64_t rows, int64_t j0, int64_t cols) {
  if constexpr (P == 1) {
    unpack_rows<T, Stream>(from, width, Y, i0, rows, j0, cols);
  } else if constexpr (sizeof(T) == 4) {
    unpack_rows<double, Stream>(reinterpret_cast<const double*>(from), width / 2,
                                {reinterpret_cast<double*>(Y.data), Y.rows, Y.cols, Y.row_stride / 2, Y.col_stride / 2}, i0, rows,
                                j0, cols);
  } else {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j)
        for (int p = 0; p < P; ++p) Y.at(i0 + i, j0 + j)[p] = from[i * width + j * P + p];
  }
}

}  // namespace
}  // namespace randla::cpu
