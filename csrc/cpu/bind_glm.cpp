// The part of randla._cpu for generalized linear models: losses, their gradients and Hessian products.

#include <pybind11/stl.h>

#include <optional>

#include "cpu/bind.h"

namespace randla::cpu {
namespace {

using Rows = py::array_t<int64_t, py::array::c_style>;
template <class A>
using Maybe = std::optional<A>;

const double* vectors(const Doubles& a, int64_t k, int64_t length, const char* message) {
  RANDLA_REQUIRE(a.ndim() == 2 && a.shape(0) == k && a.shape(1) == length, message);
  return a.data();
}

double* vectors(Maybe<Doubles>& a, int64_t k, int64_t length, const char* message) {
  if (!a) return nullptr;
  vectors(static_cast<const Doubles&>(*a), k, length, message);
  return a->mutable_data();
}

const double* vector(const Maybe<Doubles>& a, int64_t length, const char* message) {
  if (!a) return nullptr;
  RANDLA_REQUIRE(a->ndim() == 1 && a->shape(0) == length, message);
  return a->data();
}

RowChoice choice(const Maybe<Rows>& rows, int64_t m) {
  if (!rows) return {nullptr, m};
  const int64_t count = rows->size();
  const int64_t* at = rows->data();
  for (int64_t i = 0; i < count; ++i) RANDLA_REQUIRE(at[i] >= 0 && at[i] < m, "rows must be rows of A");
  return {at, count};
}

Loss loss_of(int id, double parameter, const Doubles& y, const Maybe<Doubles>& w, int64_t count) {
  RANDLA_REQUIRE(id >= 0 && id < kLosses, "unknown loss");
  RANDLA_REQUIRE(y.ndim() == 1 && y.shape(0) == count, "y must be (count,)");
  return {static_cast<LossId>(id), parameter, y.data(), vector(w, count, "w must be (count,)")};
}

template <class Kernel, class View>
double glm_of(Kernel kernel, const View& A, const Maybe<Rows>& rows, int loss, double parameter, const Doubles& y,
              const Maybe<Doubles>& w, const Doubles& x, Maybe<Doubles>& z, Maybe<Doubles>& c, Maybe<Doubles>& d,
              Maybe<Doubles>& g) {
  const RowChoice chosen = choice(rows, A.rows);
  const Loss l = loss_of(loss, parameter, y, w, chosen.count);
  const int64_t k = x.ndim() == 2 ? x.shape(0) : -1;
  const double* vx = vectors(x, k, A.cols, "x must be (k, n)");
  RANDLA_REQUIRE(l.id == LossId::kSoftmax ? k > 0 && d : k == 1, "softmax needs d, other losses one vector");
  double *vz = vectors(z, k, chosen.count, "z must be (k, count)"), *vc = vectors(c, k, chosen.count, "c must be (k, count)");
  double *vd = vectors(d, k, chosen.count, "d must be (k, count)"), *vg = vectors(g, k, A.cols, "g must be (k, n)");
  py::gil_scoped_release release;
  return kernel(A, chosen, l, k, vx, vz, vc, vd, vg);
}

template <class Kernel, class View>
void product_of(Kernel kernel, const View& A, const Maybe<Rows>& rows, const Maybe<Doubles>& x, const Maybe<Doubles>& c,
                const Maybe<Doubles>& d, Maybe<Doubles>& u, Maybe<Doubles>& g) {
  const RowChoice chosen = choice(rows, A.rows);
  RANDLA_REQUIRE(x.has_value() != c.has_value(), "one of x and c must be given");
  const int64_t k = (x ? *x : *c).ndim() == 2 ? (x ? *x : *c).shape(0) : -1;
  const double* vx = x ? vectors(*x, k, A.cols, "x must be (k, n)") : nullptr;
  const double* vc = c ? vectors(*c, k, chosen.count, "c must be (k, count)") : nullptr;
  const double* vd = vector(d, chosen.count, "d must be (count,)");
  double *vu = vectors(u, k, chosen.count, "u must be (k, count)"), *vg = vectors(g, k, A.cols, "g must be (k, n)");
  py::gil_scoped_release release;
  kernel(A, chosen, k, vx, vc, vd, vu, vg);
}

template <class Kernel, class View>
void softmax_of(Kernel kernel, const View& A, const Maybe<Rows>& rows, const Doubles& x, const Doubles& p, const Maybe<Doubles>& w,
                Doubles& g) {
  const RowChoice chosen = choice(rows, A.rows);
  const int64_t k = x.ndim() == 2 ? x.shape(0) : -1;
  const double *vx = vectors(x, k, A.cols, "x must be (k, n)"), *vp = vectors(p, k, chosen.count, "p must be (k, count)");
  const double* vw = vector(w, chosen.count, "w must be (count,)");
  vectors(static_cast<const Doubles&>(g), k, A.cols, "g must be (k, n)");
  double* vg = g.mutable_data();
  py::gil_scoped_release release;
  kernel(A, chosen, k, vx, vp, vw, vg);
}

template <class T>
void bind_type(py::module_& m) {
  const auto A_ = py::arg("A").noconvert(), values_ = py::arg("values").noconvert(), rows_ = py::arg("rows").noconvert();
  const auto y_ = py::arg("y").noconvert(), w_ = py::arg("w").noconvert(), x_ = py::arg("x").noconvert();
  const auto z_ = py::arg("z").noconvert(), c_ = py::arg("c").noconvert(), d_ = py::arg("d").noconvert();
  const auto g_ = py::arg("g").noconvert(), u_ = py::arg("u").noconvert(), p_ = py::arg("p").noconvert();
  const auto ptr = py::arg("indptr"), ind = py::arg("indices"), cols_ = py::arg("cols");
  using Md = Maybe<Doubles>;
  using Mr = Maybe<Rows>;
  m.def(
      "glm",
      [](Array<T> A, Mr rows, int loss, double parameter, Doubles y, Md w, Doubles x, Md z, Md c, Md d, Md g) {
        return glm_of(kernels<T>().glm, view(A), rows, loss, parameter, y, w, x, z, c, d, g);
      },
      A_, rows_, py::arg("loss"), py::arg("parameter"), y_, w_, x_, z_, c_, d_, g_);
  m.def(
      "glm_csr",
      [](Array<T> values, py::array indptr, py::array indices, int64_t cols, Mr rows, int loss, double parameter, Doubles y, Md w,
         Doubles x, Md z, Md c, Md d, Md g) {
        return glm_of(kernels<T>().glm_csr, csr_view(values, indptr, indices, cols), rows, loss, parameter, y, w, x, z, c, d, g);
      },
      values_, ptr, ind, cols_, rows_, py::arg("loss"), py::arg("parameter"), y_, w_, x_, z_, c_, d_, g_);
  m.def(
      "weighted_product",
      [](Array<T> A, Mr rows, Md x, Md c, Md d, Md u, Md g) {
        product_of(kernels<T>().weighted_product, view(A), rows, x, c, d, u, g);
      },
      A_, rows_, x_, c_, d_, u_, g_);
  m.def(
      "weighted_product_csr",
      [](Array<T> values, py::array indptr, py::array indices, int64_t cols, Mr rows, Md x, Md c, Md d, Md u, Md g) {
        product_of(kernels<T>().weighted_product_csr, csr_view(values, indptr, indices, cols), rows, x, c, d, u, g);
      },
      values_, ptr, ind, cols_, rows_, x_, c_, d_, u_, g_);
  m.def(
      "softmax_product",
      [](Array<T> A, Mr rows, Doubles x, Doubles p, Md w, Doubles g) {
        softmax_of(kernels<T>().softmax_product, view(A), rows, x, p, w, g);
      },
      A_, rows_, x_, p_, w_, g_);
  m.def(
      "softmax_product_csr",
      [](Array<T> values, py::array indptr, py::array indices, int64_t cols, Mr rows, Doubles x, Doubles p, Md w, Doubles g) {
        softmax_of(kernels<T>().softmax_product_csr, csr_view(values, indptr, indices, cols), rows, x, p, w, g);
      },
      values_, ptr, ind, cols_, rows_, x_, p_, w_, g_);
  m.def(
      "weighted_gram_csr",
      [](Array<T> values, py::array indptr, py::array indices, Mr rows, Doubles d, Doubles G) {
        RANDLA_REQUIRE(G.ndim() == 2 && G.shape(0) == G.shape(1), "G must be (n, n)");
        const Csr<T> A = csr_view(values, indptr, indices, G.shape(0));
        const RowChoice chosen = choice(rows, A.rows);
        RANDLA_REQUIRE(d.ndim() == 1 && d.shape(0) == chosen.count, "d must be (count,)");
        const double* vd = d.data();
        double* to = G.mutable_data();
        py::gil_scoped_release release;
        kernels<T>().weighted_gram_csr(A, chosen, vd, to);
      },
      values_, ptr, ind, rows_, d_, py::arg("G").noconvert());
}

double terms(int loss, double parameter, Doubles y, Maybe<Doubles> w, Doubles z, Doubles c, Maybe<Doubles> d) {
  RANDLA_REQUIRE(z.ndim() == 2, "z must be (k, count)");
  const int64_t k = z.shape(0), count = z.shape(1);
  const Loss l = loss_of(loss, parameter, y, w, count);
  RANDLA_REQUIRE(l.id == LossId::kSoftmax ? k > 0 && d : k == 1, "softmax needs d, other losses one vector");
  vectors(static_cast<const Doubles&>(c), k, count, "c must be (k, count)");
  double* vd = vectors(d, k, count, "d must be (k, count)");
  const double* vz = z.data();
  double* vc = c.mutable_data();
  py::gil_scoped_release release;
  return isa().loss_terms(l, k, count, vz, vc, vd);
}

std::pair<double, double> difference(int loss, double parameter, Doubles y, Maybe<Doubles> w, Doubles z, Doubles u) {
  RANDLA_REQUIRE(z.ndim() == 2, "z must be (k, count)");
  const int64_t k = z.shape(0), count = z.shape(1);
  const Loss l = loss_of(loss, parameter, y, w, count);
  RANDLA_REQUIRE(l.id == LossId::kSoftmax ? k > 0 : k == 1, "only softmax has several margins");
  const double *vu = vectors(static_cast<const Doubles&>(u), k, count, "u must be (k, count)"), *vz = z.data();
  double sums[2];
  {
    py::gil_scoped_release release;
    isa().loss_difference(l, k, count, vz, vu, sums);
  }
  return {sums[0], sums[1]};
}

}  // namespace

void bind_glm(py::module_& m) {
  bind_type<float>(m);
  bind_type<double>(m);
  m.def("loss_terms", &terms, py::arg("loss"), py::arg("parameter"), py::arg("y").noconvert(), py::arg("w").noconvert(),
        py::arg("z").noconvert(), py::arg("c").noconvert(), py::arg("d").noconvert());
  m.def("loss_difference", &difference, py::arg("loss"), py::arg("parameter"), py::arg("y").noconvert(),
        py::arg("w").noconvert(), py::arg("z").noconvert(), py::arg("u").noconvert());
}

}  // namespace randla::cpu
