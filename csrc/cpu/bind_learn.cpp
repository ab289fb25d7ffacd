// The part of randla._cpu for sparse regression on columns given by their Gram matrix.

#include <tuple>

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

}  // namespace

void bind_learn(py::module_& m) {
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
