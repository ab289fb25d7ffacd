// csr_product as a function of randla._cuda. That of randla._cpu takes complex values too; here these are two products.

#include "cuda/array.h"

namespace randla::cuda {
namespace {

void product_of(const py::object& values, const py::object& indptr, const py::object& indices, const py::object& X,
                const py::object& out) {
  const DeviceArray x = device_array(X, "X"), o = device_array(out, "out"), p = device_array(indptr, "indptr"),
                    i = device_array(indices, "indices");
  const bool wide = p.type == Type::kInt64;
  RANDLA_REQUIRE(i.type == p.type && (wide || p.type == Type::kInt32), "indptr and indices must both be int32 or both int64");
  RANDLA_REQUIRE(p.dimensions() == 1 && p.shape[0] > 0 && i.dimensions() == 1 && p.contiguous() && i.contiguous(),
                 "CSR parts must be contiguous vectors");
  Call call(x);
  const auto with = [&](auto t) {
    using T = decltype(t);
    const auto* const v = elements<const T>(values, i.shape[0], "values");
    RANDLA_REQUIRE(v || i.shape[0] == 0, "values must be given");
    const Matrix<const T> from = matrix_view<const T>(x);
    const Matrix<T> to = output_view<T>(o, p.shape[0] - 1, from.cols);
    py::gil_scoped_release release;
    csr_product<T>({v, p.data, i.data, wide, to.rows, from.rows}, from, to, call.stream());
  };
  if (x.type == Type::kFloat32)
    with(float());
  else if (x.type == Type::kFloat64)
    with(double());
  else
    throw std::invalid_argument("randla kernel: arrays must be float32 or float64");
}

}  // namespace

void bind_csr_product(py::module_& m) {
  m.def("csr_product", &product_of, py::arg("values"), py::arg("indptr"), py::arg("indices"), py::arg("X"), py::arg("out"));
}

}  // namespace randla::cuda
