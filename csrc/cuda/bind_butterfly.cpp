// Kronecker-sparse chains as classes of randla._cuda. Python puts their numbers on the device once, packed for the kernels.

#include <pybind11/complex.h>
#include <pybind11/numpy.h>

#include <complex>
#include <type_traits>

#include "common/chain.h"
#include "cuda/array.h"
#include "cuda/butterfly.h"

namespace randla::cuda {
namespace {

template <class E>
constexpr Type element_type() {
  if constexpr (std::is_same_v<E, std::complex<float>>)
    return Type::kComplex64;
  else if constexpr (std::is_same_v<E, std::complex<double>>)
    return Type::kComplex128;
  else
    return type_of<E>();
}

template <class E>
class Butterfly {
  using T = typename RealOfElement<E>::type;
  static constexpr bool pairs = !std::is_same_v<E, T>;
  static constexpr int P = pairs ? 2 : 1;
  using Values = py::array_t<E, py::array::c_style>;

 public:
  // Patterns in the order of application; numbers and adjoint as `packed` gave them for these, on the device.
  Butterfly(const Patterns& patterns, py::object numbers, py::object adjoint)
      : numbers_(std::move(numbers)), adjoint_numbers_(std::move(adjoint)), has_adjoint_(!adjoint_numbers_.is_none()) {
    sizes_ = checked_chain(patterns);
    chain_ = chain_of(patterns, numbers_);
    if (has_adjoint_) adjoint_ = chain_of(turned(patterns), adjoint_numbers_);
  }

  // Values (a, d, b, c) of the stages, or of their adjoints in reverse order, as the kernels read them: a host array of real
  // numbers.
  static py::array_t<T> packed(const Patterns& patterns, const std::vector<Values>& values, bool adjoint) {
    checked_chain(patterns);
    RANDLA_REQUIRE(patterns.size() == values.size(), "as many values as patterns");
    const Patterns order = adjoint ? turned(patterns) : patterns;
    py::array_t<T> out(total(order));
    T* to = out.mutable_data();
    std::fill(to, to + out.size(), T(0));
    for (size_t q = 0; q < order.size(); ++q) {
      const Values& v = values[adjoint ? order.size() - 1 - q : q];
      const auto [a, b, c, d] = order[q];
      RANDLA_REQUIRE(v.size() == a * b * c * d, "values must be (a, d, b, c)");
      const T* from = reinterpret_cast<const T*>(v.data());
      std::vector<T> other;
      if (adjoint) {
        other.resize(static_cast<size_t>(v.size() * P));
        for (int64_t g = 0; g < a * d; ++g)
          for (int64_t j = 0; j < b; ++j)
            for (int64_t k = 0; k < c; ++k)
              for (int p = 0; p < P; ++p) {
                const T value = from[((g * c + k) * b + j) * P + p];
                other[static_cast<size_t>(((g * b + j) * c + k) * P + p)] = p == 0 ? value : -value;
              }
        from = other.data();
      }
      const ButterflyStage<T> s{a, b, c, d, from};
      pack_stage(s, P, to);
      to += whole(packed_size(s, P));
    }
    return out;
  }

  void apply(const py::object& X, const py::object& Y) const {
    const DeviceArray x_array = device_array(X, "X");
    const Matrix<const T> x = view<const T>(x_array);
    const Matrix<T> y = output(Y);
    RANDLA_REQUIRE(x.rows == sizes_.inputs && y.rows == sizes_.outputs && x.cols == y.cols, "X and Y must fit the stages");
    if (x.cols == 0) return;
    Call call(x_array);
    T* const work = call.memory<T>(butterfly_work<T, pairs>(chain_, x.cols));
    py::gil_scoped_release release;
    butterfly<T, pairs>(chain_, x, y, work, call.stream());
  }

  void gradient(const py::object& X, const py::object& G, const py::object& dX, const py::object& dw) const {
    const DeviceArray x_array = device_array(X, "X"), w = device_array(dw, "dw");
    const Matrix<const T> x = view<const T>(x_array), g = view<const T>(device_array(G, "G"));
    const Matrix<T> dx = output(dX);
    RANDLA_REQUIRE(has_adjoint_, "gradients need the numbers of the adjoint");
    RANDLA_REQUIRE(x.rows == sizes_.inputs && g.rows == sizes_.outputs && x.cols == g.cols, "X and G must fit the stages");
    RANDLA_REQUIRE(dx.rows == sizes_.inputs && dx.cols == x.cols, "dX must have the shape of X");
    RANDLA_REQUIRE(w.type == element_type<E>() && w.dimensions() == 1 && w.shape[0] == sizes_.values && w.contiguous() &&
                       !w.read_only,
                   "dw must be a vector of all values");
    Call call(w);
    T* const work = call.memory<T>(butterfly_gradient_work<T, pairs>(chain_, x.cols));
    py::gil_scoped_release release;
    butterfly_gradient<T, pairs>(chain_, adjoint_, x, g, dx, static_cast<T*>(w.data), work, call.stream());
  }

 private:
  static Patterns turned(const Patterns& patterns) {
    Patterns out(patterns.rbegin(), patterns.rend());
    for (auto& [a, b, c, d] : out) std::swap(b, c);
    return out;
  }

  static int64_t whole(int64_t reals) { return (reals + kPack<T> - 1) / kPack<T> * kPack<T>; }

  static int64_t total(const Patterns& patterns) {
    int64_t size = 0;
    for (const auto& [a, b, c, d] : patterns) size += whole(packed_size(ButterflyStage<T>{a, b, c, d, nullptr}, P));
    return size;
  }

  static ButterflyChain<T> chain_of(const Patterns& patterns, const py::object& numbers) {
    const T* from = elements<const T>(numbers, total(patterns), "numbers");
    RANDLA_REQUIRE(from != nullptr && reinterpret_cast<uintptr_t>(from) % 16 == 0, "numbers must be aligned to 16 bytes");
    ButterflyChain<T> chain;
    std::vector<StageShape> shapes;
    for (const auto& [a, b, c, d] : patterns) {
      chain.stages.push_back({a, b, c, d, from});
      shapes.push_back({a, b, c, d});
      from += whole(packed_size(chain.stages.back(), P));
    }
    chain.runs = cut_chain(shapes, sizeof(T), P);
    return chain;
  }

  template <class R>
  static Matrix<R> view(const DeviceArray& a) {
    RANDLA_REQUIRE(a.dimensions() == 2 && a.type == element_type<E>(), "a matrix of another shape or type");
    constexpr auto size = static_cast<int64_t>(sizeof(E));
    RANDLA_REQUIRE(a.strides[0] % size == 0 && a.strides[1] % size == 0, "strides must be whole elements");
    int64_t row = a.strides[0] / size, col = a.strides[1] / size;
    if (a.shape[1] == 1 && row != 1) col = 1;
    if (a.shape[0] == 1 && col != 1) row = 1;
    return {static_cast<R*>(a.data), a.shape[0], a.shape[1], P * row, P * col};
  }

  static Matrix<T> output(const py::object& a) {
    const DeviceArray array = device_array(a, "output");
    RANDLA_REQUIRE(!array.read_only, "output is read-only");
    return view<T>(array);
  }

  py::object numbers_, adjoint_numbers_;
  bool has_adjoint_;
  ButterflyChain<T> chain_, adjoint_;
  ChainSizes sizes_{};
};

template <class E>
void bind_type(py::module_& m, const char* name) {
  py::class_<Butterfly<E>>(m, name)
      .def(py::init<const Patterns&, py::object, py::object>(), py::arg("patterns"), py::arg("numbers"),
           py::arg("adjoint") = py::none())
      .def_static("packed", &Butterfly<E>::packed, py::arg("patterns"), py::arg("values"), py::arg("adjoint") = false)
      .def("apply", &Butterfly<E>::apply, py::arg("X"), py::arg("Y"))
      .def("gradient", &Butterfly<E>::gradient, py::arg("X"), py::arg("G"), py::arg("dX"), py::arg("dw"));
}

}  // namespace

void bind_butterflies(py::module_& m) {
  bind_type<float>(m, "ButterflyFloat32");
  bind_type<double>(m, "ButterflyFloat64");
  bind_type<std::complex<float>>(m, "ButterflyComplex64");
  bind_type<std::complex<double>>(m, "ButterflyComplex128");
}

}  // namespace randla::cuda
