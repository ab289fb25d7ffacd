// The part of randla._cpu for Kronecker-sparse chains: plans, which keep the values of all stages in the order of the kernels.

#include <pybind11/complex.h>
#include <pybind11/stl.h>

#include <complex>
#include <memory>
#include <mutex>
#include <type_traits>

#include "common/chain.h"
#include "cpu/bind.h"
#include "cpu/memory.h"

namespace randla::cpu {
namespace {

constexpr int64_t kFewColumns = 4;  // multiplied one by one, with lanes along their rows

constexpr py::ssize_t kOwnBytes = 32 * 1024;  // from where on results lie in memory that is used again

// An array of any contents.
py::array new_array(const py::dtype& dtype, std::vector<py::ssize_t> shape) {
  py::ssize_t bytes = dtype.itemsize();
  for (const py::ssize_t length : shape) {
    RANDLA_REQUIRE(length >= 0 && !__builtin_mul_overflow(bytes, length, &bytes), "shapes must be those of arrays");
  }
  if (bytes < kOwnBytes) return py::array(dtype, std::move(shape));
  struct Owned {
    size_t bytes;
    void* data;
  };
  auto owned = std::make_unique<Owned>(Owned{static_cast<size_t>(bytes), nullptr});
  owned->data = take_memory(owned->bytes);
  void* const data = owned->data;
  const py::capsule owner(owned.release(), [](void* p) {
    const std::unique_ptr<Owned> own(static_cast<Owned*>(p));
    give_memory(own->data, own->bytes);
  });
  return py::array(dtype, std::move(shape), data, owner);
}

template <class E>
class Butterfly {
  using T = typename RealOfElement<E>::type;
  static constexpr bool pairs = !std::is_same_v<E, T>;
  static constexpr int64_t P = pairs ? 2 : 1;
  using Values = py::array_t<E, py::array::c_style>;

 public:
  // Patterns and values (a, d, b, c) of the stages, the one applied first before the others.
  Butterfly(const Patterns& patterns, const std::vector<Values>& values) : sizes_(checked_chain(patterns)) {
    RANDLA_REQUIRE(patterns.size() == values.size(), "as many values as patterns");
    for (size_t q = 0; q < patterns.size(); ++q) {
      const auto [a, b, c, d] = patterns[q];
      const Values& v = values[q];
      RANDLA_REQUIRE(v.ndim() == 4 && v.shape(0) == a && v.shape(1) == d && v.shape(2) == b && v.shape(3) == c,
                     "values must be (a, d, b, c)");
      const T* from = reinterpret_cast<const T*>(v.data());
      values_.emplace_back(from, from + a * b * c * d * P);
      stages_.push_back({a, b, c, d, values_.back().data()});
    }
  }

  void apply(Array<E> X, Array<E> Y) {
    const Matrix<const T> x = real_view(X);
    const Matrix<T> y = mutable_real_view(Y);
    RANDLA_REQUIRE(x.rows == sizes_.inputs && y.rows == sizes_.outputs && x.cols == y.cols, "X and Y must fit the stages");
    run(x, y);
  }

  // A new array for (n,), (n, batch) or, batch first, (batch, n); None for what Python must look at.
  py::object multiply(const Array<E>& X, bool batch_first) {
    const py::ssize_t dims = X.ndim(), rows = batch_first ? 1 : 0;
    constexpr auto size = static_cast<py::ssize_t>(sizeof(E));
    if (dims < 1 || dims > 2 || rows >= dims || X.shape(rows) != sizes_.inputs) return py::none();
    if (X.strides(0) % size || X.strides(dims - 1) % size || reinterpret_cast<uintptr_t>(X.data()) % alignof(E)) return py::none();
    std::vector<py::ssize_t> shape(X.shape(), X.shape() + dims);
    shape[static_cast<size_t>(rows)] = sizes_.outputs;
    Array<E> Y = new_array(py::dtype::of<E>(), std::move(shape));
    if (dims == 1) {
      run({reinterpret_cast<const T*>(X.data()), sizes_.inputs, 1, sizes_.inputs == 1 ? P : P * (X.strides(0) / size), P},
          {reinterpret_cast<T*>(Y.mutable_data()), sizes_.outputs, 1, P, P});
    } else {
      const Matrix<const T> x = real_view(X);
      const Matrix<T> y = mutable_real_view(Y);
      if (batch_first)
        run({x.data, x.cols, x.rows, x.col_stride, x.row_stride}, {y.data, y.cols, y.rows, y.col_stride, y.row_stride});
      else
        run(x, y);
    }
    return std::move(Y);
  }

  void gradient(Array<E> X, Array<E> G, Array<E> dX, Values dw) {
    const Matrix<const T> x = real_view(X), g = real_view(G);
    const Matrix<T> dx = mutable_real_view(dX);
    RANDLA_REQUIRE(x.rows == sizes_.inputs && g.rows == sizes_.outputs && x.cols == g.cols, "X and G must fit the stages");
    RANDLA_REQUIRE(dx.rows == sizes_.inputs && dx.cols == x.cols, "dX must have the shape of X");
    RANDLA_REQUIRE(dw.ndim() == 1 && dw.shape(0) == sizes_.values, "dw must be a vector of all values");
    T* to = reinterpret_cast<T*>(dw.mutable_data());
    py::gil_scoped_release release;
    const auto kernel = pairs ? kernels<T>().butterfly_gradient_pairs : kernels<T>().butterfly_gradient;
    kernel(stages_.data(), count(), x, g, dx, to, sizes_.rows, sizes_.values);
  }

 private:
  static Matrix<const T> real_view(const Array<E>& a) {
    const Matrix<const E> v = view(a);
    return {reinterpret_cast<const T*>(v.data), v.rows, v.cols, P * v.row_stride, P * v.col_stride};
  }
  static Matrix<T> mutable_real_view(Array<E>& a) {
    const Matrix<E> v = mutable_view(a);
    return {reinterpret_cast<T*>(v.data), v.rows, v.cols, P * v.row_stride, P * v.col_stride};
  }
  int64_t count() const { return static_cast<int64_t>(stages_.size()); }

  void run(Matrix<const T> x, Matrix<T> y) {
    const bool few = x.cols <= kFewColumns;
    if (few) std::call_once(ordered_, [this] { order(); });
    py::gil_scoped_release release;
    if (few)
      apply_to_columns(x, y);
    else
      (pairs ? kernels<T>().butterfly_pairs : kernels<T>().butterfly)(stages_.data(), count(), x, y, sizes_.rows);
  }

  // Once: callers of an interpreter without a global lock may come together.
  void order() {
    std::vector<int64_t> blocks(stages_.size());
    kernels<T>().lane_blocks(stages_.data(), count(), blocks.data());
    std::vector<ButterflyStage<T>> lanes = stages_;
    for (size_t q = 0; q < lanes.size(); ++q) {
      ButterflyStage<T>& s = lanes[q];
      lane_values_.emplace_back(static_cast<size_t>(s.a * s.b * s.c * s.d * P * P));
      T* to = lane_values_.back().data();
      (pairs ? kernels<T>().order_for_lanes_pairs : kernels<T>().order_for_lanes)(s, blocks[q], to);
      s.values = to;
    }
    lanes_ = std::move(lanes);
    blocks_ = std::move(blocks);
  }

  void apply_to_columns(Matrix<const T> x, Matrix<T> y) const {
    const auto kernel = pairs ? kernels<T>().butterfly_vector_pairs : kernels<T>().butterfly_vector;
    const bool direct_x = x.row_stride == P, direct_y = y.row_stride == P;
    const Reused<T> memory((2 * sizes_.rows + sizes_.inputs + sizes_.outputs) * P);
    T *scratch = memory.data, *in = scratch + 2 * sizes_.rows * P, *out = in + sizes_.inputs * P;
    for (int64_t j = 0; j < x.cols; ++j) {
      for (int64_t i = 0; !direct_x && i < sizes_.inputs; ++i)
        for (int64_t p = 0; p < P; ++p) in[i * P + p] = x.at(i, j)[p];
      kernel(lanes_.data(), blocks_.data(), count(), direct_x ? x.at(0, j) : in, direct_y ? y.at(0, j) : out, scratch,
             sizes_.rows);
      for (int64_t i = 0; !direct_y && i < sizes_.outputs; ++i)
        for (int64_t p = 0; p < P; ++p) y.at(i, j)[p] = out[i * P + p];
    }
  }

  std::vector<std::vector<T>> values_, lane_values_;
  std::vector<ButterflyStage<T>> stages_, lanes_;
  std::vector<int64_t> blocks_;
  std::once_flag ordered_;
  ChainSizes sizes_;
};

template <class E>
void bind_type(py::module_& m, const char* name) {
  py::class_<Butterfly<E>>(m, name)
      .def(py::init<const Patterns&, const std::vector<py::array_t<E, py::array::c_style>>&>(),
           py::arg("patterns"), py::arg("values"))
      .def("apply", &Butterfly<E>::apply, py::arg("X").noconvert(), py::arg("Y").noconvert())
      .def("multiply", &Butterfly<E>::multiply, py::arg("X").noconvert(), py::arg("batch_first"))
      .def("gradient", &Butterfly<E>::gradient, py::arg("X").noconvert(), py::arg("G").noconvert(), py::arg("dX").noconvert(),
           py::arg("dw").noconvert());
}

}  // namespace

void bind_butterfly(py::module_& m) {
  m.def("empty", &new_array, py::arg("dtype"), py::arg("shape"));
  m.def("kept_memory", &kept_memory);
  m.def("release_memory", &release_memory);
  bind_type<float>(m, "ButterflyFloat32");
  bind_type<double>(m, "ButterflyFloat64");
  bind_type<std::complex<float>>(m, "ButterflyComplex64");
  bind_type<std::complex<double>>(m, "ButterflyComplex128");
}

}  // namespace randla::cpu
