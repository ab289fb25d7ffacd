// Views of memory that somebody else owns. Strides count elements and may be negative or zero.
#pragma once

#include <cstdint>

namespace randla {

template <class T>
struct Matrix {
  T* data;
  int64_t rows, cols, row_stride, col_stride;

  T* row(int64_t i) const { return data + i * row_stride; }
  T* at(int64_t i, int64_t j) const { return data + i * row_stride + j * col_stride; }
};

// A complex number in memory.
template <class T>
struct Complex {
  T re, im;
};

template <class T>
struct Csr {
  const T* values;
  const void* indptr;
  const void* indices;
  bool wide;  // indices are int64_t, else int32_t
  int64_t rows, cols;
};

// Which rows of a matrix to take, in what order: all of them where `rows` is null, and then count is their number.
struct RowChoice {
  const int64_t* rows;
  int64_t count;
};

// y = root a diag(scale) T for every row a of a matrix with n columns.
struct RowMap {
  const double* T;  // (n, r), row-major; null stands for the identity, in `gram` of a dense matrix
  int64_t n, r;
  bool upper;           // T is zero below its diagonal
  const double* scale;  // (n) or null
  const double* roots;  // one for every row, or null
  const double* weights = nullptr;  // of any sign, one for every row, or null: Gram matrices become sum weight y' y
};

}  // namespace randla
