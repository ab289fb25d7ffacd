// Views of device arrays (__cuda_array_interface__, version 3), and what a call needs of the array library: its current stream and
// memory for a while. Python has checked values and shapes; what is required here only keeps a wrong call from touching memory
// that is not its own.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/matrix.h"
#include "common/require.h"
#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace randla::cuda {

namespace py = pybind11;

enum class Type { kFloat32, kFloat64, kInt32, kInt64, kUint16, kUint32, kComplex64, kComplex128, kOther };

struct DeviceArray {
  void* data;
  Type type;
  bool read_only;
  std::vector<int64_t> shape, strides;  // strides in bytes

  int64_t dimensions() const { return static_cast<int64_t>(shape.size()); }
  bool contiguous() const;
};

DeviceArray device_array(const py::object& a, const char* name);

template <class T>
constexpr Type type_of();
template <>
constexpr Type type_of<float>() { return Type::kFloat32; }
template <>
constexpr Type type_of<double>() { return Type::kFloat64; }
template <>
constexpr Type type_of<int64_t>() { return Type::kInt64; }
template <>
constexpr Type type_of<int32_t>() { return Type::kInt32; }
template <>
constexpr Type type_of<uint16_t>() { return Type::kUint16; }
template <>
constexpr Type type_of<uint32_t>() { return Type::kUint32; }

template <class T>
Matrix<T> matrix_view(const DeviceArray& a) {
  RANDLA_REQUIRE(a.dimensions() == 2 && a.type == type_of<std::remove_const_t<T>>(), "a matrix of another shape or type");
  constexpr auto size = static_cast<int64_t>(sizeof(T));
  RANDLA_REQUIRE(a.strides[0] % size == 0 && a.strides[1] % size == 0, "strides must be whole elements");
  int64_t row = a.strides[0] / size, col = a.strides[1] / size;
  if (a.shape[1] == 1 && row != 1) col = 1;
  if (a.shape[0] == 1 && col != 1) row = 1;
  return {static_cast<T*>(a.data), a.shape[0], a.shape[1], row, col};
}

template <class T>
Matrix<T> output_view(const DeviceArray& a, int64_t rows, int64_t cols) {
  RANDLA_REQUIRE(!a.read_only, "output is read-only");
  const Matrix<T> out = matrix_view<T>(a);
  RANDLA_REQUIRE(out.rows == rows && out.cols == cols, "output has the wrong shape");
  RANDLA_REQUIRE(out.col_stride == 1 || cols <= 1 || rows == 0, "output needs contiguous rows");
  return out;
}

// A contiguous vector or array of `count` elements; null for None.
template <class T>
T* elements(const py::object& a, int64_t count, const char* name) {
  if (a.is_none()) return nullptr;
  const DeviceArray v = device_array(a, name);
  int64_t size = 1;
  for (int64_t extent : v.shape) size *= extent;
  RANDLA_REQUIRE(v.type == type_of<std::remove_const_t<T>>() && v.contiguous() && size == count,
                 std::string(name) + " has the wrong size, type or strides");
  RANDLA_REQUIRE(std::is_const_v<T> || !v.read_only, std::string(name) + " is read-only");
  return static_cast<T*>(v.data);
}

// The parts of a sparse matrix, and how many entries they hold.
template <class T>
Csr<T> csr_view(const py::object& values, const py::object& indptr, const py::object& indices, int64_t cols,
                int64_t* entries = nullptr) {
  const DeviceArray v = device_array(values, "values"), p = device_array(indptr, "indptr"), i = device_array(indices, "indices");
  const bool wide = p.type == Type::kInt64;
  RANDLA_REQUIRE(i.type == p.type && (wide || p.type == Type::kInt32), "indptr and indices must both be int32 or both int64");
  RANDLA_REQUIRE(v.type == type_of<T>() && p.dimensions() == 1 && p.shape[0] > 0 && i.dimensions() == 1 && v.dimensions() == 1 &&
                     i.shape[0] == v.shape[0] && v.contiguous() && p.contiguous() && i.contiguous(),
                 "CSR parts must be contiguous vectors of matching length");
  if (entries) *entries = i.shape[0];
  return {static_cast<const T*>(v.data), p.data, i.data, wide, p.shape[0] - 1, cols};
}

// Calls f with a number of the type of an array.
template <class F>
void by_type(Type type, F&& f) {
  if (type == Type::kFloat32)
    f(float());
  else if (type == Type::kFloat64)
    f(double());
  else
    throw std::invalid_argument("randla kernel: arrays must be float32 or float64");
}

// The stream of a call, and memory that lives as long as the call: the library's pool gives it again only to work on the same
// stream. It runs on the current device, where `device_array` has found all arrays.
class Call {
 public:
  explicit Call(const DeviceArray&) : stream_(current_stream()) {}

  uintptr_t stream() const { return stream_; }
  template <class T>
  T* memory(int64_t count) {
    return static_cast<T*>(allocate(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  static uintptr_t current_stream();
  void* allocate(int64_t bytes);

  uintptr_t stream_;
  std::vector<py::object> memory_;
};

void bind_sketches(py::module_& m);
void bind_rows(py::module_& m);
void bind_butterflies(py::module_& m);
void bind_csr_product(py::module_& m);

}  // namespace randla::cuda
