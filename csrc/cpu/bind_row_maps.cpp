// The part of randla._cpu that maps the rows of a matrix: their products with a block, norms, Gram matrix.

#include <pybind11/stl.h>

#include <optional>

#include "cpu/bind.h"

namespace randla::cpu {
namespace {

const double* vector_or_null(const py::object& value, int64_t length, const char* message, Doubles* keep) {
  if (value.is_none()) return nullptr;
  RANDLA_REQUIRE(py::isinstance<Doubles>(value), message);
  *keep = py::reinterpret_borrow<Doubles>(value);
  RANDLA_REQUIRE(keep->ndim() == 1 && keep->shape(0) == length, message);
  return keep->data();
}

RowMap row_map(int64_t m, int64_t n, const Doubles& T, bool upper, const py::object& scale, const py::object& roots, Doubles* keep) {
  RANDLA_REQUIRE(T.ndim() == 2 && T.shape(0) == n, "T must be (n, r)");
  RANDLA_REQUIRE(!upper || T.shape(1) == n, "a triangular T must be square");
  return {T.data(),
          n,
          T.shape(1),
          upper,
          vector_or_null(scale, n, "scale must be a contiguous float64 vector, (n,)", keep),
          vector_or_null(roots, m, "roots must be a contiguous float64 vector, (m,)", keep + 1)};
}

template <class Kernel, class View>
void norms_of(Kernel kernel, const View& a, int64_t n, const Doubles& T, bool upper, const py::object& scale,
              const py::object& roots, Doubles& out) {
  Doubles keep[2];
  const RowMap map = row_map(a.rows, n, T, upper, scale, roots, keep);
  RANDLA_REQUIRE(out.ndim() == 1 && out.shape(0) == a.rows, "out must be (m,)");
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  kernel(a, map, to);
}

template <class Kernel, class View>
void gram_of(Kernel kernel, const View& a, int64_t n, const std::optional<Doubles>& T, bool upper, const py::object& scale,
             const py::object& roots, const py::object& weights, Doubles& G) {
  Doubles keep[3];
  RowMap map = row_map(a.rows, n, T ? *T : Doubles(std::vector<py::ssize_t>{n, 0}), upper && T, scale, roots, keep);
  if (!T) map.T = nullptr, map.r = n;
  map.weights = vector_or_null(weights, a.rows, "weights must be a contiguous float64 vector, (m,)", keep + 2);
  RANDLA_REQUIRE(G.ndim() == 2 && G.shape(0) == map.r && G.shape(1) == map.r, "G must be (r, r)");
  double* to = G.mutable_data();
  py::gil_scoped_release release;
  kernel(a, map, to);
}

template <class T>
void csr_product(const Array<T>& values, const py::array& indptr, const py::array& indices, const Array<T>& X, Array<T>& out,
                 bool complex) {
  const int64_t parts = complex ? 2 : 1;
  RANDLA_REQUIRE(values.ndim() == 1 && values.shape(0) == parts * indices.shape(0), "values must be one for every index");
  RANDLA_REQUIRE((values.flags() & py::array::c_style) != 0, "CSR parts must be contiguous");
  // The view compares lengths: that of the values has been looked at.
  Csr<T> a = csr_view(complex ? Array<T>(values[py::slice(0, indices.shape(0), 1)]) : values, indptr, indices, 0);
  const auto x = view(X);
  const auto to = mutable_view(out);
  a.values = values.data(), a.cols = x.rows;
  require_output(to, a.rows, x.cols);
  RANDLA_REQUIRE(x.cols % parts == 0, "complex columns are pairs");
  py::gil_scoped_release release;
  (complex ? kernels<T>().csr_product_complex : kernels<T>().csr_product)(a, x, to);
}

template <class T>
void bind_type(py::module_& m) {
  m.def("csr_product", &csr_product<T>, py::arg("values").noconvert(), py::arg("indptr"), py::arg("indices"),
        py::arg("X").noconvert(), py::arg("out").noconvert(), py::arg("complex") = false);
  const auto T_ = py::arg("T").noconvert();
  m.def(
      "row_norms",
      [](Array<T> A, Doubles t, bool upper, py::object scale, py::object roots, bool single, Doubles out) {
        const Matrix<const T> a = view(A);
        norms_of(single ? kernels<T>().row_norms_single : kernels<T>().row_norms, a, a.cols, t, upper, scale, roots, out);
      },
      py::arg("A").noconvert(), T_, py::arg("upper"), py::arg("scale"), py::arg("roots"), py::arg("single"),
      py::arg("out").noconvert());
  m.def(
      "row_norms_csr",
      [](Array<T> values, py::array indptr, py::array indices, Doubles t, bool upper, py::object scale, py::object roots,
         bool single, Doubles out) {
        const Csr<T> a = csr_view(values, indptr, indices, t.ndim() == 2 ? t.shape(0) : 0);
        norms_of(single ? kernels<T>().row_norms_csr_single : kernels<T>().row_norms_csr, a, a.cols, t, upper, scale, roots, out);
      },
      py::arg("values").noconvert(), py::arg("indptr"), py::arg("indices"), T_, py::arg("upper"), py::arg("scale"),
      py::arg("roots"), py::arg("single"), py::arg("out").noconvert());
  m.def(
      "gram",
      [](Array<T> A, std::optional<Doubles> t, bool upper, py::object scale, py::object roots, Doubles G, py::object weights) {
        const Matrix<const T> a = view(A);
        gram_of(kernels<T>().gram, a, a.cols, t, upper, scale, roots, weights, G);
      },
      py::arg("A").noconvert(), T_, py::arg("upper"), py::arg("scale"), py::arg("roots"), py::arg("G").noconvert(),
      py::arg("weights") = py::none());
  m.def(
      "gram_csr",
      [](Array<T> values, py::array indptr, py::array indices, Doubles t, bool upper, py::object scale, py::object roots,
         Doubles G) {
        const Csr<T> a = csr_view(values, indptr, indices, t.ndim() == 2 ? t.shape(0) : 0);
        gram_of(kernels<T>().gram_csr, a, a.cols, std::optional(t), upper, scale, roots, py::none(), G);
      },
      py::arg("values").noconvert(), py::arg("indptr"), py::arg("indices"), T_, py::arg("upper"), py::arg("scale"),
      py::arg("roots"), py::arg("G").noconvert());
}

}  // namespace

void bind_row_maps(py::module_& m) {
  bind_type<float>(m);
  bind_type<double>(m);
}

}  // namespace randla::cpu
