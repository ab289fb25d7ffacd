// Views of NumPy arrays for the binding files. Python has checked values and shapes; what is required here only keeps a wrong call
// from touching memory that is not its own.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <vector>

#include "common/require.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace randla::cpu {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, 0>;
using Doubles = py::array_t<double, py::array::c_style>;

template <class T>
Matrix<const T> view(const Array<T>& a) {
  RANDLA_REQUIRE(a.ndim() == 2, "a matrix needs two dimensions");
  const auto size = static_cast<py::ssize_t>(sizeof(T));
  RANDLA_REQUIRE(a.strides(0) % size == 0 && a.strides(1) % size == 0, "strides must be whole elements");
  // The stride of an axis of length one means nothing; giving it the usual value selects the fast kernels.
  int64_t row = a.strides(0) / size, col = a.strides(1) / size;
  if (a.shape(1) == 1 && row != 1) col = 1;
  if (a.shape(0) == 1 && col != 1) row = 1;
  return {a.data(), a.shape(0), a.shape(1), row, col};
}

template <class T>
Matrix<T> mutable_view(Array<T>& a) {
  const Matrix<const T> v = view(a);
  return {a.mutable_data(), v.rows, v.cols, v.row_stride, v.col_stride};
}

template <class T>
Csr<T> csr_view(const Array<T>& values, const py::array& indptr, const py::array& indices, int64_t cols) {
  const bool wide = py::isinstance<py::array_t<int64_t>>(indptr);
  RANDLA_REQUIRE(wide ? py::isinstance<py::array_t<int64_t>>(indices)
                      : py::isinstance<py::array_t<int32_t>>(indptr) && py::isinstance<py::array_t<int32_t>>(indices),
                 "indptr and indices must both be int32 or both int64");
  RANDLA_REQUIRE(indptr.ndim() == 1 && indptr.shape(0) > 0 && indices.ndim() == 1 && values.ndim() == 1 &&
                     indices.shape(0) == values.shape(0),
                 "CSR parts must be vectors of matching length");
  RANDLA_REQUIRE((indptr.flags() & indices.flags() & values.flags() & py::array::c_style) != 0, "CSR parts must be contiguous");
  return {values.data(), indptr.data(), indices.data(), wide, static_cast<int64_t>(indptr.shape(0)) - 1, cols};
}

template <class T>
void require_output(const Matrix<T>& out, int64_t rows, int64_t cols) {
  RANDLA_REQUIRE(out.rows == rows && out.cols == cols, "output has the wrong shape");
  // NumPy gives empty arrays strides of zero.
  RANDLA_REQUIRE(out.col_stride == 1 || cols <= 1 || rows == 0, "output needs contiguous rows");
}

void bind_sketches(py::module_& m);
void bind_row_maps(py::module_& m);
void bind_glm(py::module_& m);
void bind_butterfly(py::module_& m);
void bind_factorize(py::module_& m);
void bind_learn(py::module_& m);

}  // namespace randla::cpu
