// The part of randla._cpu that factorizes matrices into Kronecker-sparse factors.

#include <pybind11/complex.h>
#include <pybind11/stl.h>

#include <complex>

#include "cpu/bind.h"

namespace randla::cpu {
namespace {

// Element is T or std::complex<T>.
template <class T, class Element>
std::vector<double> splits(const py::array_t<Element, py::array::c_style>& from, const std::vector<int64_t>& widths,
                           const py::list& values, py::array_t<Element, py::array::c_style> to) {
  using Values = py::array_t<Element, py::array::c_style>;
  RANDLA_REQUIRE(from.ndim() == 3 && to.ndim() == 3, "rank_one_split needs (a, b, c)");
  const int levels = static_cast<int>(widths.size());
  RANDLA_REQUIRE(levels > 0 && levels < 62 && values.size() == widths.size(), "widths and values must be one for each level");
  const int64_t a = from.shape(0), b = from.shape(1), c = from.shape(2);
  RANDLA_REQUIRE(b % (int64_t(1) << levels) == 0, "b must be a multiple of 2^levels");
  int64_t chunks = 1;
  std::vector<T*> u;
  for (int t = 0; t < levels; ++t) {
    const auto k = static_cast<size_t>(t);
    RANDLA_REQUIRE(py::isinstance<Values>(values[k]), "values must be contiguous arrays of the dtype");
    auto v = py::reinterpret_borrow<Values>(values[k]);
    RANDLA_REQUIRE(widths[k] > 0 && v.ndim() == 4 && v.shape(0) == a * chunks && v.shape(1) == 2 && v.shape(2) == widths[k] &&
                       v.shape(3) == b >> (t + 1),
                   "values must be (a, 2, c, d)");
    chunks *= widths[k];
    RANDLA_REQUIRE(c % chunks == 0, "c must be a multiple of the product of the widths");
    u.push_back(reinterpret_cast<T*>(v.mutable_data()));
  }
  RANDLA_REQUIRE(to.shape(0) == a * chunks && to.shape(1) == b >> levels && to.shape(2) == c / chunks, "shapes do not match");
  const T* source = reinterpret_cast<const T*>(from.data());
  T* target = reinterpret_cast<T*>(to.mutable_data());
  std::vector<double> lost(widths.size());
  py::gil_scoped_release release;
  const auto kernel = sizeof(Element) == sizeof(T) ? kernels<T>().rank_one_split : kernels<T>().rank_one_split_complex;
  kernel(source, a, b, c, levels, widths.data(), u.data(), target, lost.data());
  return lost;
}

template <class T, class Element>
void bind_type(py::module_& m) {
  m.def("rank_one_split", &splits<T, Element>, py::arg("from_").noconvert(), py::arg("widths"), py::arg("values"),
        py::arg("to").noconvert());
}

}  // namespace

void bind_factorize(py::module_& m) {
  bind_type<float, float>(m);
  bind_type<double, double>(m);
  bind_type<float, std::complex<float>>(m);
  bind_type<double, std::complex<double>>(m);
}

}  // namespace randla::cpu
