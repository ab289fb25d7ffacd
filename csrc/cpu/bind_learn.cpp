// The part of randla._cpu for sparse regression on columns given by their Gram matrix, and for kernel matrices.

#include <pybind11/complex.h>
#include <pybind11/stl.h>

#include <complex>
#include <optional>
#include <tuple>
#include <type_traits>

#include "cpu/bind.h"

namespace randla::cpu {
namespace {

template <class T>
void column_dots(const Array<T>& A, const Doubles& R, Doubles out) {
  const Matrix<const T> a = view(A);
  RANDLA_REQUIRE(a.row_stride == 1 || a.rows <= 1, "A must have contiguous columns");
  RANDLA_REQUIRE(R.ndim() == 2 && R.shape(1) == a.rows, "R must be (k, m)");
  RANDLA_REQUIRE(out.ndim() == 2 && out.shape(0) == a.cols && out.shape(1) == R.shape(0), "out must be (n, k)");
  const int64_t k = R.shape(0);
  const double* r = R.data();
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  kernels<T>().column_dots(a, r, k, to);
}

// G is the leading part of an array with room for more.
int64_t order_of(const Array<double>& G) {
  const Matrix<const double> g = view(G);
  RANDLA_REQUIRE(g.rows == g.cols && (g.col_stride == 1 || g.rows <= 1), "G must be (n, n) with contiguous rows");
  return g.rows;
}

void gram_rows(const Doubles& P, int64_t first, Array<double> G) {
  const int64_t n = order_of(G);
  RANDLA_REQUIRE(P.ndim() == 2 && P.shape(0) == n, "P must be (n, m)");
  RANDLA_REQUIRE(first >= 0 && first <= n, "first must be at most n");
  const double* p = P.data();
  const Matrix<double> to = mutable_view(G);
  const int64_t m = P.shape(1);
  py::gil_scoped_release release;
  isa().gram_rows(p, n, m, first, to.data, to.row_stride);
}

void require_vectors(int64_t n, std::initializer_list<const Doubles*> vectors) {
  for (const Doubles* v : vectors) RANDLA_REQUIRE(v->ndim() == 1 && v->shape(0) == n, "vectors must be (n,)");
}

std::tuple<int64_t, double> lasso(const Array<double>& G, const Doubles& penalty, bool positive, double tol, int64_t limit,
                                  Doubles x, Doubles g) {
  const int64_t n = order_of(G);
  require_vectors(n, {&penalty, &x, &g});
  const Matrix<const double> gram = view(G);
  const double* lambda = penalty.data();
  double *vx = x.mutable_data(), *vg = g.mutable_data(), violation = 0;
  py::gil_scoped_release release;
  const int64_t rounds = isa().lasso(gram.data, n, gram.row_stride, lambda, positive, tol, limit, vx, vg, &violation);
  return {rounds, violation};
}

int64_t l1_path(const Array<double>& G, const Doubles& c, const Doubles& weight, double start, double end, bool positive,
                int64_t limit, Doubles x, Doubles sign, Doubles u) {
  const int64_t n = order_of(G);
  require_vectors(n, {&c, &weight, &x, &sign, &u});
  const Matrix<const double> gram = view(G);
  const double *vc = c.data(), *vw = weight.data();
  double *vx = x.mutable_data(), *vs = sign.mutable_data(), *vu = u.mutable_data();
  py::gil_scoped_release release;
  return isa().l1_path(gram.data, n, gram.row_stride, vc, vw, start, end, positive, limit, vx, vs, vu);
}

template <class T, class Out>
void kernel_columns(int kind, double gamma, double scale, const std::optional<Doubles>& centre, const Array<T>& X,
                    const Array<T>& Y, Array<Out> out) {
  const Matrix<const T> x = view(X), y = view(Y);
  const Matrix<Out> to = mutable_view(out);
  RANDLA_REQUIRE(kind == PointKernel::kGaussian || (kind == PointKernel::kLaplacian && !centre), "unknown kernel");
  RANDLA_REQUIRE(x.cols == y.cols, "X and Y must have the same columns");
  RANDLA_REQUIRE(!centre || (centre->ndim() == 1 && centre->shape(0) == x.cols), "centre must be (d,)");
  require_output(to, x.rows, y.rows);
  const PointKernel kernel = {static_cast<PointKernel::Kind>(kind), gamma, scale, centre ? centre->data() : nullptr};
  py::gil_scoped_release release;
  if constexpr (std::is_same_v<T, Out>)
    kernels<T>().kernel_columns(kernel, x, y, to);
  else
    kernels<T>().kernel_columns_double(kernel, x, y, to);
}

template <class T, class Element>
void eliminate(const py::array_t<T, py::array::c_style>& C, Array<Element> H, Array<double> squares) {
  constexpr int64_t parts = sizeof(Element) / sizeof(T);
  const Matrix<const T> c = view(Array<T>(C));
  const Matrix<Element> h = mutable_view(H);
  RANDLA_REQUIRE(c.cols == parts * h.rows && c.rows <= c.cols && c.rows % parts == 0, "C must be (m, k + m) for H (k + m, n)");
  require_output(h, h.rows, h.cols);
  RANDLA_REQUIRE(squares.ndim() == 1 && squares.shape(0) == h.cols && (h.cols <= 1 || squares.strides(0) == 8),
                 "squares must be (n,)");
  const Matrix<T> parts_of_h = {reinterpret_cast<T*>(h.data), h.rows, h.cols, parts * h.row_stride, 1};
  double* to = squares.mutable_data();
  py::gil_scoped_release release;
  if (parts == 1)
    kernels<T>().eliminate(c, parts_of_h, to);
  else
    kernels<T>().eliminate_complex(c, parts_of_h, to);
}

template <class T, class Element>
void solve_right(const py::array_t<T, py::array::c_style>& C, const py::array_t<int64_t, py::array::c_style>& order,
                 const Array<Element>& A, Array<Element> out) {
  constexpr int64_t parts = sizeof(Element) / sizeof(T);
  const Matrix<const T> c = view(Array<T>(C));
  const Matrix<const Element> a = view(A);
  const Matrix<Element> to = mutable_view(out);
  RANDLA_REQUIRE(to.rows == a.rows && order.ndim() == 1 && order.shape(0) == to.cols, "out must be (m, k) for order (k,)");
  RANDLA_REQUIRE(c.rows == parts * to.cols && c.cols == c.rows, "C must be (k, k)");
  const int64_t* columns = order.data();
  RANDLA_REQUIRE(std::all_of(columns, columns + to.cols, [&](int64_t j) { return j >= 0 && j < a.cols; }),
                 "order must list columns of A");
  const Matrix<const T> from = {reinterpret_cast<const T*>(a.data), a.rows, a.cols, parts * a.row_stride, parts * a.col_stride};
  const Matrix<T> into = {reinterpret_cast<T*>(to.data), to.rows, to.cols, parts * to.row_stride, parts * to.col_stride};
  py::gil_scoped_release release;
  (parts == 1 ? kernels<T>().solve_right : kernels<T>().solve_right_complex)(c, columns, from, into);
}

template <class T, class Out>
void bind_kernel_columns(py::module_& m) {
  m.def("kernel_columns", &kernel_columns<T, Out>, py::arg("kind"), py::arg("gamma"), py::arg("scale"),
        py::arg("centre").noconvert(), py::arg("X").noconvert(), py::arg("Y").noconvert(), py::arg("out").noconvert());
}

template <class T, class Element>
void bind_triangles(py::module_& m) {
  m.def("eliminate", &eliminate<T, Element>, py::arg("C").noconvert(), py::arg("H").noconvert(), py::arg("squares").noconvert());
  m.def("solve_right", &solve_right<T, Element>, py::arg("C").noconvert(), py::arg("order").noconvert(), py::arg("A").noconvert(),
        py::arg("out").noconvert());
}

}  // namespace

void bind_learn(py::module_& m) {
  bind_kernel_columns<float, float>(m);
  bind_kernel_columns<float, double>(m);
  bind_kernel_columns<double, double>(m);
  bind_triangles<float, float>(m);
  bind_triangles<double, double>(m);
  bind_triangles<float, std::complex<float>>(m);
  bind_triangles<double, std::complex<double>>(m);
  m.def("column_dots", &column_dots<float>, py::arg("A").noconvert(), py::arg("R").noconvert(), py::arg("out").noconvert());
  m.def("column_dots", &column_dots<double>, py::arg("A").noconvert(), py::arg("R").noconvert(), py::arg("out").noconvert());
  m.def("gram_rows", &gram_rows, py::arg("P").noconvert(), py::arg("first"), py::arg("G").noconvert());
  m.def("lasso", &lasso, py::arg("G").noconvert(), py::arg("penalty").noconvert(), py::arg("positive"), py::arg("tol"),
        py::arg("limit"), py::arg("x").noconvert(), py::arg("g").noconvert());
  m.def("l1_path", &l1_path, py::arg("G").noconvert(), py::arg("c").noconvert(), py::arg("weight").noconvert(),
        py::arg("start"), py::arg("end"), py::arg("positive"), py::arg("limit"), py::arg("x").noconvert(),
        py::arg("sign").noconvert(), py::arg("u").noconvert());
}

}  // namespace randla::cpu
