// Passes over rows as functions of randla._cuda. Those of randla._cpu return sums; here they go to an array of the device, because
// nothing waits for it. Listed rows are not looked at either: they must be rows of A.

#include "cuda/array.h"

namespace randla::cuda {
namespace {

struct Vectors {
  int64_t k, length;
};

Vectors vectors_of(const DeviceArray& a, int64_t length, const char* message) {
  RANDLA_REQUIRE(a.dimensions() == 2 && a.shape[1] == length, message);
  return {a.shape[0], length};
}

RowChoice choice(const py::object& rows, int64_t m) {
  if (rows.is_none()) return {nullptr, m};
  const DeviceArray a = device_array(rows, "rows");
  RANDLA_REQUIRE(a.dimensions() == 1, "rows must be a vector");
  return {elements<const int64_t>(rows, a.shape[0], "rows"), a.shape[0]};
}

Loss loss_of(int id, double parameter, const py::object& y, const py::object& w, int64_t count) {
  RANDLA_REQUIRE(id >= 0 && id < kLosses && !y.is_none(), "unknown loss");
  return {static_cast<LossId>(id), parameter, elements<const double>(y, count, "y"), elements<const double>(w, count, "w")};
}

void require_vectors(const Loss& loss, int64_t k, const void* d) {
  RANDLA_REQUIRE(loss.id == LossId::kSoftmax ? k > 0 && d : k == 1, "softmax needs d, other losses one vector");
}

// A matrix, dense or sparse, as the functions of a kernel want it.
template <class T>
struct Dense {
  Matrix<const T> A;

  int64_t rows() const { return A.rows; }
  int64_t cols() const { return A.cols; }
  int64_t memory(int64_t count, bool, int64_t k) const { return pass_memory(count, A.cols, k); }
};

template <class T>
struct Sparse {
  CsrPair<T> A;

  int64_t rows() const { return A.rows.rows; }
  int64_t cols() const { return A.rows.cols; }
  int64_t memory(int64_t count, bool listed, int64_t k) const {
    return csr_pass_memory(A.rows.rows, A.entries, count, listed, k);
  }
};

// Calls f with the matrix of a call whose first arguments are `A`, or (values, indptr, indices, cols, transposed).
struct DenseParts {
  py::object A;

  DeviceArray first() const { return device_array(A, "A"); }
  template <class F>
  void view(F&& f) const {
    const DeviceArray a = first();
    by_type(a.type, [&](auto t) { f(Dense<decltype(t)>{matrix_view<const decltype(t)>(a)}); });
  }
};

struct SparseParts {
  py::object values, indptr, indices;
  int64_t cols;
  py::tuple transposed;

  DeviceArray first() const { return device_array(values, "values"); }
  template <class F>
  void view(F&& f) const {
    by_type(first().type, [&](auto t) {
      using T = decltype(t);
      RANDLA_REQUIRE(transposed.size() == 3, "the transpose must be (values, indptr, indices)");
      int64_t entries = 0, same = 0;
      const Csr<T> rows = csr_view<T>(values, indptr, indices, cols, &entries);
      const Csr<T> columns = csr_view<T>(transposed[0], transposed[1], transposed[2], rows.rows, &same);
      RANDLA_REQUIRE(entries == same && columns.rows == cols, "the transpose must have the entries of the matrix");
      f(Sparse<T>{{rows, columns, entries}});
    });
  }
};

template <class T, class V>
void residual_with(const Dense<T>& a, int64_t k, const V* x, const V* b, const V* w, V* r, V* g, double* s, double* memory,
                   Stream stream) {
  residual<T, V>(a.A, k, x, b, w, r, g, s, memory, stream);
}
template <class T>
void residual_with(const Sparse<T>& a, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
                   double* s, double* memory, Stream stream) {
  residual_csr<T>(a.A, k, x, b, w, r, g, s, memory, stream);
}

template <class V, class View>
void residual_in(Call& call, const View& a, const py::object& x, const py::object& b, const py::object& r, const py::object& g,
                 const py::object& w, const py::object& squares) {
  const int64_t k = vectors_of(device_array(x, "x"), a.cols(), "x must be (k, n)").k, m = a.rows();
  const V *vx = elements<const V>(x, k * a.cols(), "x"), *vb = elements<const V>(b, k * m, "b");
  const V* vw = elements<const V>(w, m, "w");
  V *vr = elements<V>(r, k * m, "r"), *vg = elements<V>(g, k * a.cols(), "g");
  double* s = elements<double>(squares, k, "squares");
  auto* memory = call.memory<double>(a.memory(m, false, k));
  py::gil_scoped_release release;
  residual_with(a, k, vx, vb, vw, vr, vg, s, memory, call.stream());
}

template <class Parts>
void residual_of(const Parts& parts, const py::object& x, const py::object& b, const py::object& r, const py::object& g,
                 const py::object& w, const py::object& squares) {
  Call call(parts.first());
  const bool single = device_array(x, "x").type == Type::kFloat32;
  parts.view([&](const auto& a) {
    if constexpr (std::is_same_v<std::decay_t<decltype(a)>, Dense<float>>) {
      if (single) return residual_in<float>(call, a, x, b, r, g, w, squares);
    }
    residual_in<double>(call, a, x, b, r, g, w, squares);
  });
}

template <class Parts>
void glm_of(const Parts& parts, const py::object& rows, int loss, double parameter, const py::object& y, const py::object& w,
            const py::object& x, const py::object& z, const py::object& c, const py::object& d, const py::object& g,
            const py::object& total) {
  Call call(parts.first());
  parts.view([&](const auto& a) {
    const RowChoice chosen = choice(rows, a.rows());
    const Loss l = loss_of(loss, parameter, y, w, chosen.count);
    const int64_t k = vectors_of(device_array(x, "x"), a.cols(), "x must be (k, n)").k, all = k * chosen.count;
    const auto* vx = elements<const double>(x, k * a.cols(), "x");
    double *vz = elements<double>(z, all, "z"), *vc = elements<double>(c, all, "c"), *vd = elements<double>(d, all, "d");
    double *vg = elements<double>(g, k * a.cols(), "g"), *to = elements<double>(total, 1, "total");
    require_vectors(l, k, vd);
    auto* memory = call.memory<double>(a.memory(chosen.count, chosen.rows, k));
    py::gil_scoped_release release;
    if constexpr (std::is_same_v<Parts, DenseParts>)
      glm(a.A, chosen, l, k, vx, vz, vc, vd, vg, to, memory, call.stream());
    else
      glm_csr(a.A, chosen, l, k, vx, vz, vc, vd, vg, to, memory, call.stream());
  });
}

template <class Parts>
void product_of(const Parts& parts, const py::object& rows, const py::object& x, const py::object& c, const py::object& d,
                const py::object& u, const py::object& g) {
  Call call(parts.first());
  parts.view([&](const auto& a) {
    const RowChoice chosen = choice(rows, a.rows());
    RANDLA_REQUIRE(x.is_none() != c.is_none(), "one of x and c must be given");
    const int64_t k = x.is_none() ? vectors_of(device_array(c, "c"), chosen.count, "c must be (k, count)").k
                                  : vectors_of(device_array(x, "x"), a.cols(), "x must be (k, n)").k;
    const auto *vx = elements<const double>(x, k * a.cols(), "x"), *vc = elements<const double>(c, k * chosen.count, "c");
    const auto* vd = elements<const double>(d, chosen.count, "d");
    double *vu = elements<double>(u, k * chosen.count, "u"), *vg = elements<double>(g, k * a.cols(), "g");
    auto* memory = call.memory<double>(a.memory(chosen.count, chosen.rows, k));
    py::gil_scoped_release release;
    if constexpr (std::is_same_v<Parts, DenseParts>)
      weighted_product(a.A, chosen, k, vx, vc, vd, vu, vg, memory, call.stream());
    else
      weighted_product_csr(a.A, chosen, k, vx, vc, vd, vu, vg, memory, call.stream());
  });
}

template <class Parts>
void softmax_of(const Parts& parts, const py::object& rows, const py::object& x, const py::object& p, const py::object& w,
                const py::object& g) {
  Call call(parts.first());
  parts.view([&](const auto& a) {
    const RowChoice chosen = choice(rows, a.rows());
    const int64_t k = vectors_of(device_array(x, "x"), a.cols(), "x must be (k, n)").k;
    RANDLA_REQUIRE(!p.is_none() && !g.is_none(), "p and g must be given");
    const auto *vx = elements<const double>(x, k * a.cols(), "x"), *vp = elements<const double>(p, k * chosen.count, "p");
    const auto* vw = elements<const double>(w, chosen.count, "w");
    double* vg = elements<double>(g, k * a.cols(), "g");
    auto* memory = call.memory<double>(a.memory(chosen.count, chosen.rows, k));
    py::gil_scoped_release release;
    if constexpr (std::is_same_v<Parts, DenseParts>)
      softmax_product(a.A, chosen, k, vx, vp, vw, vg, memory, call.stream());
    else
      softmax_product_csr(a.A, chosen, k, vx, vp, vw, vg, memory, call.stream());
  });
}

void terms(int loss, double parameter, const py::object& y, const py::object& w, const py::object& z, const py::object& c,
           const py::object& d, const py::object& total) {
  const DeviceArray from = device_array(z, "z");
  RANDLA_REQUIRE(from.dimensions() == 2 && !c.is_none(), "z and c must be (k, count)");
  Call call(from);
  const int64_t k = from.shape[0], count = from.shape[1];
  const Loss l = loss_of(loss, parameter, y, w, count);
  const auto* vz = elements<const double>(z, k * count, "z");
  double *vc = elements<double>(c, k * count, "c"), *vd = elements<double>(d, k * count, "d");
  double* to = elements<double>(total, 1, "total");
  require_vectors(l, k, vd);
  auto* memory = call.memory<double>(pass_memory(count, 0, k));
  py::gil_scoped_release release;
  loss_terms(l, k, count, vz, vc, vd, to, memory, call.stream());
}

void difference(int loss, double parameter, const py::object& y, const py::object& w, const py::object& z, const py::object& u,
                const py::object& sums) {
  const DeviceArray from = device_array(z, "z");
  RANDLA_REQUIRE(from.dimensions() == 2 && !u.is_none(), "z and u must be (k, count)");
  Call call(from);
  const int64_t k = from.shape[0], count = from.shape[1];
  const Loss l = loss_of(loss, parameter, y, w, count);
  RANDLA_REQUIRE(l.id == LossId::kSoftmax ? k > 0 : k == 1, "only softmax has several margins");
  const auto *vz = elements<const double>(z, k * count, "z"), *vu = elements<const double>(u, k * count, "u");
  double* to = elements<double>(sums, 2, "sums");
  auto* memory = call.memory<double>(pass_memory(count, 0, k));
  py::gil_scoped_release release;
  loss_difference(l, k, count, vz, vu, to, memory, call.stream());
}

void squares_of_rows(const py::object& Y, const py::object& scale, const py::object& roots, const py::object& out) {
  const DeviceArray a = device_array(Y, "Y");
  Call call(a);
  by_type(a.type, [&](auto t) {
    using T = decltype(t);
    const Matrix<const T> y = matrix_view<const T>(a);
    RANDLA_REQUIRE(!out.is_none(), "out must be (m,)");
    const auto *s = elements<const double>(scale, y.cols, "scale"), *r = elements<const double>(roots, y.rows, "roots");
    double* to = elements<double>(out, y.rows, "out");
    py::gil_scoped_release release;
    row_squares<T>(y, s, r, to, call.stream());
  });
}

void uniform_numbers(int64_t first, uint32_t sub, uint32_t numbers, uint64_t seed, const py::object& out) {
  const DeviceArray to = device_array(out, "out");
  RANDLA_REQUIRE(to.dimensions() == 1 && first >= 0, "out must be a vector");
  auto* all = elements<double>(out, to.shape[0], "out");
  Call call(to);
  py::gil_scoped_release release;
  uniform(first, sub, numbers, seed, to.shape[0], all, call.stream());
}

// Binds f(parts, rest...) as name(A, rest...) and name_csr(values, indptr, indices, cols, transposed, rest...).
template <class... Rest, class... Names>
void bind_both(py::module_& m, const std::string& name, void (*dense)(const DenseParts&, Rest...),
               void (*sparse)(const SparseParts&, Rest...), const Names&... names) {
  m.def(name.c_str(), [dense](const py::object& A, Rest... rest) { dense({A}, rest...); }, py::arg("A"), names...);
  m.def(
      (name + "_csr").c_str(),
      [sparse](const py::object& values, const py::object& indptr, const py::object& indices, int64_t cols,
               const py::tuple& transposed, Rest... rest) { sparse({values, indptr, indices, cols, transposed}, rest...); },
      py::arg("values"), py::arg("indptr"), py::arg("indices"), py::arg("cols"), py::arg("transposed"), names...);
}

}  // namespace

void bind_rows(py::module_& m) {
  const auto none = py::none();
  bind_both(m, "residual", &residual_of<DenseParts>, &residual_of<SparseParts>, py::arg("x"), py::arg("b"), py::arg("r"),
            py::arg("g"), py::arg("w") = none, py::arg("squares") = none);
  bind_both(m, "glm", &glm_of<DenseParts>, &glm_of<SparseParts>, py::arg("rows"), py::arg("loss"), py::arg("parameter"),
            py::arg("y"), py::arg("w"), py::arg("x"), py::arg("z"), py::arg("c"), py::arg("d"), py::arg("g"), py::arg("total"));
  bind_both(m, "weighted_product", &product_of<DenseParts>, &product_of<SparseParts>, py::arg("rows"), py::arg("x"), py::arg("c"),
            py::arg("d"), py::arg("u"), py::arg("g"));
  bind_both(m, "softmax_product", &softmax_of<DenseParts>, &softmax_of<SparseParts>, py::arg("rows"), py::arg("x"), py::arg("p"),
            py::arg("w"), py::arg("g"));
  m.def("loss_terms", &terms, py::arg("loss"), py::arg("parameter"), py::arg("y"), py::arg("w"), py::arg("z"), py::arg("c"),
        py::arg("d"), py::arg("total"));
  m.def("loss_difference", &difference, py::arg("loss"), py::arg("parameter"), py::arg("y"), py::arg("w"), py::arg("z"),
        py::arg("u"), py::arg("sums"));
  m.def("uniform", &uniform_numbers, py::arg("first"), py::arg("sub"), py::arg("stream"), py::arg("seed"), py::arg("out"));
  m.def("row_squares", &squares_of_rows, py::arg("Y"), py::arg("scale"), py::arg("roots"), py::arg("out"));
}

}  // namespace randla::cuda
