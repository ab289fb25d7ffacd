// The module randla._cpu: views in, views out, the GIL released around every kernel.

#include <pybind11/complex.h>
#include <pybind11/stl.h>

#include <complex>
#include <string>

#include "cpu/bind.h"

namespace randla::cpu {
namespace {

struct RightHandSides {
  int64_t k;
  const double *x, *b, *w;
  double *r, *g;
};

RightHandSides right_hand_sides(int64_t m, int64_t n, const Doubles& x, const py::object& b, Doubles& r, Doubles& g,
                                const py::object& w, Doubles* keep) {
  const int64_t k = x.ndim() == 2 ? x.shape(0) : -1;
  auto is = [&](const Doubles& a, int64_t cols) { return a.ndim() == 2 && a.shape(0) == k && a.shape(1) == cols; };
  RANDLA_REQUIRE(is(x, n) && is(g, n) && is(r, m), "x and g must be (k, n), r must be (k, m)");
  if (!b.is_none()) {
    RANDLA_REQUIRE(py::isinstance<Doubles>(b), "b must be a contiguous float64 array");
    keep[0] = py::reinterpret_borrow<Doubles>(b);
    RANDLA_REQUIRE(is(keep[0], m), "b must be (k, m)");
  }
  if (!w.is_none()) {
    RANDLA_REQUIRE(py::isinstance<Doubles>(w), "w must be a contiguous float64 array");
    keep[1] = py::reinterpret_borrow<Doubles>(w);
    RANDLA_REQUIRE(keep[1].ndim() == 1 && keep[1].shape(0) == m, "w must be (m,)");
  }
  return {k,
          x.data(),
          b.is_none() ? nullptr : keep[0].data(),
          w.is_none() ? nullptr : keep[1].data(),
          r.mutable_data(),
          g.mutable_data()};
}

// One fused pass; returns the weighted squares of the residuals.
template <class Kernel, class View>
Doubles squares_of(Kernel kernel, const View& a, const RightHandSides& s) {
  Doubles squares(s.k);
  double* sq = squares.mutable_data();
  {
    py::gil_scoped_release release;
    kernel(a, s.k, s.x, s.b, s.w, s.r, s.g, sq);
  }
  return squares;
}

template <class T>
void transform(const py::array_t<T, py::array::c_style>& from, py::array_t<T, py::array::c_style> to, double scale) {
  RANDLA_REQUIRE(from.ndim() == 3 && to.ndim() == 3, "fwht needs (outer, n, inner)");
  const int64_t outer = from.shape(0), n = from.shape(1), inner = from.shape(2);
  RANDLA_REQUIRE(n > 0 && (n & (n - 1)) == 0, "n must be a power of two");
  RANDLA_REQUIRE(to.shape(0) == outer && to.shape(1) == n && to.shape(2) == inner, "shapes do not match");
  const T* a = from.data();
  T* b = to.mutable_data();
  py::gil_scoped_release release;
  kernels<T>().fwht(a, b, outer, n, inner, scale);
}

template <class T>
void bind(py::module_& m) {
  m.def("fwht", &transform<T>, py::arg("from_").noconvert(), py::arg("to").noconvert(), py::arg("scale"));
  m.def(
      "residual",
      [](Array<T> A, Doubles x, py::object b, Doubles r, Doubles g, py::object w) {
        const Matrix<const T> a = view(A);
        Doubles keep[2];
        const RightHandSides s = right_hand_sides(a.rows, a.cols, x, b, r, g, w, keep);
        return squares_of(kernels<T>().residual, a, s);
      },
      py::arg("A").noconvert(), py::arg("x").noconvert(), py::arg("b"), py::arg("r").noconvert(), py::arg("g").noconvert(),
      py::arg("w") = py::none());
  m.def(
      "residual",
      [](Array<std::complex<T>> A, Doubles x, py::object b, Doubles r, Doubles g, py::object w) {
        const Matrix<const std::complex<T>> c = view(A);
        const Matrix<const Complex<T>> a = {reinterpret_cast<const Complex<T>*>(c.data), c.rows, c.cols, c.row_stride, c.col_stride};
        Doubles keep[2];
        const RightHandSides s = right_hand_sides(a.rows, 2 * a.cols, x, b, r, g, w, keep);
        return squares_of(kernels<T>().residual_complex, a, s);
      },
      py::arg("A").noconvert(), py::arg("x").noconvert(), py::arg("b"), py::arg("r").noconvert(), py::arg("g").noconvert(),
      py::arg("w") = py::none());
  m.def(
      "residual_csr",
      [](Array<T> values, py::array indptr, py::array indices, int64_t cols, Doubles x, py::object b, Doubles r, Doubles g,
         py::object w) {
        const Csr<T> a = csr_view(values, indptr, indices, cols);
        Doubles keep[2];
        const RightHandSides s = right_hand_sides(a.rows, a.cols, x, b, r, g, w, keep);
        return squares_of(kernels<T>().residual_csr, a, s);
      },
      py::arg("values").noconvert(), py::arg("indptr"), py::arg("indices"), py::arg("cols"), py::arg("x").noconvert(),
      py::arg("b"), py::arg("r").noconvert(), py::arg("g").noconvert(), py::arg("w") = py::none());
}

void triangular(int op, const Array<double>& R, Doubles Z) {
  const Matrix<const double> r = view(R);
  RANDLA_REQUIRE(op >= 0 && op <= 3, "unknown operation");
  RANDLA_REQUIRE(r.rows == r.cols && (r.row_stride == 1 || r.rows <= 1), "R must be square and column-major");
  RANDLA_REQUIRE(Z.ndim() == 2 && Z.shape(1) == r.cols, "Z must be (k, n)");
  double* z = Z.mutable_data();
  const int64_t k = Z.shape(0);
  py::gil_scoped_release release;
  kernels<double>().triangular(static_cast<TriangularOp>(op), r.data, r.cols, r.col_stride, z, k);
}

bool cholesky(Array<double> A) {
  const Matrix<double> a = mutable_view(A);
  RANDLA_REQUIRE(a.rows == a.cols && (a.row_stride == 1 || a.rows <= 1), "A must be square and column-major");
  py::gil_scoped_release release;
  return kernels<double>().cholesky(a.data, a.cols, a.col_stride);
}

py::array_t<uint32_t> philox_words(const py::array_t<uint32_t, py::array::c_style | py::array::forcecast>& counters,
                                   uint64_t seed) {
  RANDLA_REQUIRE(counters.ndim() == 2 && counters.shape(1) == 4, "counters must be (count, 4)");
  py::array_t<uint32_t> words({counters.shape(0), counters.shape(1)});
  for (py::ssize_t i = 0; i < counters.shape(0); ++i) {
    const uint32_t* c = counters.data(i, 0);
    const Words w = philox(c[0], c[1], c[2], c[3], seed);
    uint32_t* to = words.mutable_data(i, 0);
    to[0] = static_cast<uint32_t>(w.u0);
    to[1] = static_cast<uint32_t>(w.u0 >> 32);
    to[2] = static_cast<uint32_t>(w.u1);
    to[3] = static_cast<uint32_t>(w.u1 >> 32);
  }
  return words;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  const char* name = nullptr;
  for (int i = 0; isa_supported(i, &name); ++i)
    if (name) names.emplace_back(name);
  return names;
}

}  // namespace
}  // namespace randla::cpu

PYBIND11_MODULE(_cpu, m, pybind11::mod_gil_not_used()) {
  using namespace randla::cpu;
  isa();
  m.doc() = "CPU kernels of randla; see _cpu.pyi for the contract.";
  m.def("isa", [] { return std::string(isa().name); });
  m.def("available_isas", &available_isas);
  m.def("max_threads", &max_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("threads"));
  m.def("has_openmp", &has_openmp);
  m.def("philox", &philox_words, py::arg("counters"), py::arg("seed"));
  m.def("triangular", &triangular, py::arg("op"), py::arg("R").noconvert(), py::arg("Z").noconvert());
  m.def("cholesky", &cholesky, py::arg("A").noconvert());
  bind_sketches(m);
  bind_row_maps(m);
  bind_glm(m);
  bind_butterfly(m);
  bind_factorize(m);
  bind_learn(m);
  bind<float>(m);
  bind<double>(m);
}
