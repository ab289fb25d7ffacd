// The module randla._cpu: views in, views out, the GIL released around every kernel. Python has checked values and shapes;
// what is required here only keeps a wrong call from touching memory that is not its own.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "common/require.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace py = pybind11;

namespace randla::cpu {
namespace {

template <class T>
using Array = py::array_t<T, 0>;
using Doubles = py::array_t<double, py::array::c_style>;

template <class T>
Matrix<const T> view(const Array<T>& a) {
  RANDLA_REQUIRE(a.ndim() == 2, "a matrix needs two dimensions");
  const auto size = static_cast<py::ssize_t>(sizeof(T));
  RANDLA_REQUIRE(a.strides(0) % size == 0 && a.strides(1) % size == 0, "strides must be whole elements");
  // The stride of an axis of length one means nothing; giving it the usual value selects the fast kernels.
  int64_t row = a.strides(0) / size, col = a.strides(1) / size;
  if (a.shape(1) == 1 && row != 1) col = 1;
  if (a.shape(0) == 1 && col != 1) row = 1;
  return {a.data(), a.shape(0), a.shape(1), row, col};
}

template <class T>
Matrix<T> mutable_view(Array<T>& a) {
  const Matrix<const T> v = view(a);
  return {a.mutable_data(), v.rows, v.cols, v.row_stride, v.col_stride};
}

template <class T>
Csr<T> csr_view(const Array<T>& values, const py::array& indptr, const py::array& indices, int64_t cols) {
  const bool wide = py::isinstance<py::array_t<int64_t>>(indptr);
  RANDLA_REQUIRE(wide ? py::isinstance<py::array_t<int64_t>>(indices)
                      : py::isinstance<py::array_t<int32_t>>(indptr) && py::isinstance<py::array_t<int32_t>>(indices),
                 "indptr and indices must both be int32 or both int64");
  RANDLA_REQUIRE(indptr.ndim() == 1 && indptr.shape(0) > 0 && indices.ndim() == 1 && values.ndim() == 1 &&
                     indices.shape(0) == values.shape(0),
                 "CSR parts must be vectors of matching length");
  RANDLA_REQUIRE((indptr.flags() & indices.flags() & values.flags() & py::array::c_style) != 0, "CSR parts must be contiguous");
  return {values.data(), indptr.data(), indices.data(), wide, static_cast<int64_t>(indptr.shape(0)) - 1, cols};
}

SparseSketch sparse(int family, int64_t d, int64_t m, int nnz, uint64_t seed) {
  RANDLA_REQUIRE((family == 0 || family == 1) && d > 0 && nnz > 0 && nnz <= d && nnz <= SparseSketch::kMaxNnz &&
                     d <= INT32_MAX,
                 "sparse sketch out of range");
  return {static_cast<Family>(family), d, m, nnz, seed};
}

BlockSrht srht(int64_t d, int64_t m, int block, uint64_t seed) {
  RANDLA_REQUIRE(d > 0 && m >= 0 && (block == 16 || block == 32 || block == 64 || block == 128), "BlockSRHT out of range");
  return {d, m, block, seed};
}

template <class T>
void require_output(const Matrix<T>& out, int64_t rows, int64_t cols) {
  RANDLA_REQUIRE(out.rows == rows && out.cols == cols, "output has the wrong shape");
  RANDLA_REQUIRE(out.col_stride == 1 || cols <= 1, "output needs contiguous rows");
}

struct RightHandSides {
  int64_t k;
  const double *x, *b;
  double *r, *g;
};

RightHandSides right_hand_sides(int64_t m, int64_t n, const Doubles& x, const py::object& b, Doubles& r, Doubles& g,
                                Doubles* keep) {
  const int64_t k = x.ndim() == 2 ? x.shape(0) : -1;
  auto is = [&](const Doubles& a, int64_t cols) { return a.ndim() == 2 && a.shape(0) == k && a.shape(1) == cols; };
  RANDLA_REQUIRE(is(x, n) && is(g, n) && is(r, m), "x and g must be (k, n), r must be (k, m)");
  if (!b.is_none()) {
    RANDLA_REQUIRE(py::isinstance<Doubles>(b), "b must be a contiguous float64 array");
    *keep = py::reinterpret_borrow<Doubles>(b);
    RANDLA_REQUIRE(is(*keep, m), "b must be (k, m)");
  }
  return {k, x.data(), b.is_none() ? nullptr : keep->data(), r.mutable_data(), g.mutable_data()};
}

template <class T>
void bind(py::module_& m) {
  m.def(
      "dense_sketch",
      [](Array<T> out, int64_t i0, int64_t j0, int64_t d, uint64_t seed) {
        const Matrix<T> o = mutable_view(out);
        RANDLA_REQUIRE(i0 >= 0 && j0 >= 0 && i0 + o.rows <= d, "rows out of range");
        py::gil_scoped_release release;
        kernels<T>().dense_sketch(o, i0, j0, d, seed);
      },
      py::arg("out").noconvert(), py::arg("i0"), py::arg("j0"), py::arg("d"), py::arg("seed"));
  m.def(
      "sparse_sketch",
      [](int family, int64_t d, int64_t rows, int nnz, uint64_t seed, Array<T> A, int64_t j0, Array<T> out) {
        const SparseSketch s = sparse(family, d, rows, nnz, seed);
        const Matrix<const T> a = view(A);
        const Matrix<T> o = mutable_view(out);
        require_output(o, d, a.cols);
        RANDLA_REQUIRE(j0 >= 0 && j0 + a.rows <= rows, "rows of A out of range");
        py::gil_scoped_release release;
        kernels<T>().sparse_sketch(s, a, j0, o);
      },
      py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("seed"), py::arg("A").noconvert(),
      py::arg("j0"), py::arg("out").noconvert());
  m.def(
      "sparse_sketch_csr",
      [](int family, int64_t d, int64_t rows, int nnz, uint64_t seed, Array<T> values, py::array indptr, py::array indices,
         int64_t cols, int64_t j0, Array<T> out) {
        const SparseSketch s = sparse(family, d, rows, nnz, seed);
        const Csr<T> a = csr_view(values, indptr, indices, cols);
        const Matrix<T> o = mutable_view(out);
        require_output(o, d, cols);
        RANDLA_REQUIRE(j0 >= 0 && j0 + a.rows <= rows, "rows of A out of range");
        py::gil_scoped_release release;
        kernels<T>().sparse_sketch_csr(s, a, j0, o);
      },
      py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("seed"), py::arg("values").noconvert(),
      py::arg("indptr"), py::arg("indices"), py::arg("cols"), py::arg("j0"), py::arg("out").noconvert());
  m.def(
      "sparse_sketch_adjoint",
      [](int family, int64_t d, int64_t rows, int nnz, uint64_t seed, Array<T> Y, int64_t j0, Array<T> out) {
        const SparseSketch s = sparse(family, d, rows, nnz, seed);
        const Matrix<const T> y = view(Y);
        const Matrix<T> o = mutable_view(out);
        RANDLA_REQUIRE(y.rows == d && y.cols == o.cols && j0 >= 0 && j0 + o.rows <= rows, "shapes do not match");
        py::gil_scoped_release release;
        kernels<T>().sparse_sketch_adjoint(s, y, j0, o);
      },
      py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("seed"), py::arg("Y").noconvert(),
      py::arg("j0"), py::arg("out").noconvert());
  m.def(
      "block_srht",
      [](int64_t d, int64_t rows, int block, uint64_t seed, Array<T> A, int64_t j0, int64_t k0, int64_t k1, Array<T> out) {
        const BlockSrht s = srht(d, rows, block, seed);
        const Matrix<const T> a = view(A);
        const Matrix<T> o = mutable_view(out);
        RANDLA_REQUIRE(k0 >= 0 && k0 <= k1 && k1 <= s.blocks(), "blocks out of range");
        require_output(o, s.block_start(k1) - s.block_start(k0), a.cols);
        RANDLA_REQUIRE(j0 >= 0 && j0 + a.rows <= rows, "rows of A out of range");
        py::gil_scoped_release release;
        kernels<T>().block_srht(s, a, j0, k0, k1, o);
      },
      py::arg("d"), py::arg("m"), py::arg("block"), py::arg("seed"), py::arg("A").noconvert(), py::arg("j0"), py::arg("k0"),
      py::arg("k1"), py::arg("out").noconvert());
  m.def(
      "block_srht_adjoint",
      [](int64_t d, int64_t rows, int block, uint64_t seed, Array<T> Y, int64_t j0, Array<T> out) {
        const BlockSrht s = srht(d, rows, block, seed);
        const Matrix<const T> y = view(Y);
        const Matrix<T> o = mutable_view(out);
        RANDLA_REQUIRE(y.rows == d && y.cols == o.cols && j0 >= 0 && j0 + o.rows <= rows, "shapes do not match");
        py::gil_scoped_release release;
        kernels<T>().block_srht_adjoint(s, y, j0, o);
      },
      py::arg("d"), py::arg("m"), py::arg("block"), py::arg("seed"), py::arg("Y").noconvert(), py::arg("j0"),
      py::arg("out").noconvert());
  m.def(
      "residual",
      [](Array<T> A, Doubles x, py::object b, Doubles r, Doubles g) {
        const Matrix<const T> a = view(A);
        Doubles keep;
        const RightHandSides s = right_hand_sides(a.rows, a.cols, x, b, r, g, &keep);
        Doubles squares(s.k);
        double* sq = squares.mutable_data();
        {
          py::gil_scoped_release release;
          kernels<T>().residual(a, s.k, s.x, s.b, s.r, s.g, sq);
        }
        return squares;
      },
      py::arg("A").noconvert(), py::arg("x").noconvert(), py::arg("b"), py::arg("r").noconvert(), py::arg("g").noconvert());
  m.def(
      "residual_csr",
      [](Array<T> values, py::array indptr, py::array indices, int64_t cols, Doubles x, py::object b, Doubles r, Doubles g) {
        const Csr<T> a = csr_view(values, indptr, indices, cols);
        Doubles keep;
        const RightHandSides s = right_hand_sides(a.rows, a.cols, x, b, r, g, &keep);
        Doubles squares(s.k);
        double* sq = squares.mutable_data();
        {
          py::gil_scoped_release release;
          kernels<T>().residual_csr(a, s.k, s.x, s.b, s.r, s.g, sq);
        }
        return squares;
      },
      py::arg("values").noconvert(), py::arg("indptr"), py::arg("indices"), py::arg("cols"), py::arg("x").noconvert(),
      py::arg("b"), py::arg("r").noconvert(), py::arg("g").noconvert());
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

py::tuple sparse_columns(int family, int64_t d, int64_t m, int nnz, uint64_t seed, int64_t j0, int64_t j1) {
  const SparseSketch s = sparse(family, d, m, nnz, seed);
  RANDLA_REQUIRE(j0 >= 0 && j0 <= j1 && j1 <= m, "columns out of range");
  py::array_t<int64_t> rows({j1 - j0, static_cast<int64_t>(nnz)});
  py::array_t<double> values({j1 - j0, static_cast<int64_t>(nnz)});
  const double scale = 1.0 / std::sqrt(static_cast<double>(nnz));
  uint32_t row[SparseSketch::kMaxNnz];
  uint8_t minus[SparseSketch::kMaxNnz];
  for (int64_t j = j0; j < j1; ++j) {
    sparse_column(s, static_cast<uint64_t>(j), row, minus);
    for (int t = 0; t < nnz; ++t) {
      *rows.mutable_data(j - j0, t) = row[t];
      *values.mutable_data(j - j0, t) = minus[t] ? -scale : scale;
    }
  }
  return py::make_tuple(rows, values);
}

// Entries of columns j0..j1-1: rows of the one output block each falls into, its block's size, and the values.
py::tuple block_srht_columns(int64_t d, int64_t m, int block, uint64_t seed, int64_t j0, int64_t j1) {
  const BlockSrht s = srht(d, m, block, seed);
  RANDLA_REQUIRE(j0 >= 0 && j0 <= j1 && j1 <= m, "columns out of range");
  const int64_t width = (d + s.blocks() - 1) / s.blocks();
  py::array_t<int64_t> rows({j1 - j0, width});
  py::array_t<double> values({j1 - j0, width});
  for (int64_t j = j0; j < j1; ++j) {
    const int64_t w = j / s.window_rows(), local = j % s.window_rows(), slab_rows = s.slab_rows(w);
    const int a = static_cast<int>(local / slab_rows);
    const int64_t b = local % slab_rows;
    const SrhtSlab slab = srht_slab(s, w, a);
    const int64_t g = (b + slab.rotation) % slab_rows, k = (srht_offset(s, w) + g) % s.blocks();
    const Words out = srht_output_signs(s, w, static_cast<int>(g));
    const int64_t start = s.block_start(k), t = s.block_start(k + 1) - start;
    const double scale = 1.0 / std::sqrt(static_cast<double>(t));
    for (int64_t i = 0; i < width; ++i) {
      // A block shorter than the longest one is padded with a zero entry in its own first row.
      *rows.mutable_data(j - j0, i) = i < t ? start + i : start;
      const bool minus = ((i < 64 ? out.u0 >> i : out.u1 >> (i - 64)) & 1) != ((slab.signs >> b) & 1);
      const bool odd = __builtin_popcountll(static_cast<unsigned long long>(i & a)) & 1;
      *values.mutable_data(j - j0, i) = i < t ? (minus != odd ? -scale : scale) : 0.0;
    }
  }
  return py::make_tuple(rows, values);
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

PYBIND11_MODULE(_cpu, m, py::mod_gil_not_used()) {
  using namespace randla::cpu;
  isa();
  m.doc() = "CPU kernels of randla; see _cpu.pyi for the contract.";
  m.def("isa", [] { return std::string(isa().name); });
  m.def("available_isas", &available_isas);
  m.def("max_threads", &max_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("threads"));
  m.def("has_openmp", &has_openmp);
  m.def("philox", &philox_words, py::arg("counters"), py::arg("seed"));
  m.def("sparse_columns", &sparse_columns, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("seed"),
        py::arg("j0"), py::arg("j1"));
  m.def("block_srht_columns", &block_srht_columns, py::arg("d"), py::arg("m"), py::arg("block"), py::arg("seed"),
        py::arg("j0"), py::arg("j1"));
  m.def("triangular", &triangular, py::arg("op"), py::arg("R").noconvert(), py::arg("Z").noconvert());
  bind<float>(m);
  bind<double>(m);
}
