// Sketches as functions of randla._cpu.

#include <cmath>
#include <unordered_map>

#include "common/checked.h"
#include "cpu/bind.h"

namespace randla::cpu {
namespace {

// The first d numbers of a random permutation of 0..n-1 (Fisher, Yates), and of further ones where d exceeds n. Only numbers that
// have moved are remembered.
std::vector<int64_t> kept_rows(int64_t d, int64_t n, uint64_t seed) {
  std::vector<int64_t> kept(static_cast<size_t>(d));
  std::unordered_map<int64_t, int64_t> moved;
  auto at = [&](int64_t i) {
    const auto found = moved.find(i);
    return found == moved.end() ? i : found->second;
  };
  for (int64_t i = 0; i < d; ++i) {
    const int64_t place = i % n;
    if (place == 0) moved.clear();
    const uint64_t u = philox(static_cast<uint64_t>(i), 0, kTransformRows, seed).u0;
    const int64_t other = place + static_cast<int64_t>(bounded(u, static_cast<uint64_t>(n - place)));
    kept[static_cast<size_t>(i)] = at(other);
    moved[other] = at(place);
  }
  return kept;
}

struct Listed {
  py::array_t<int64_t, py::array::c_style> start, column;
  py::array_t<double, py::array::c_style> value;

  EntryList list(int64_t rows, int64_t cols) const {
    RANDLA_REQUIRE(start.ndim() == 1 && start.shape(0) == rows + 1 && column.ndim() == 1 && value.ndim() == 1 &&
                       column.shape(0) == value.shape(0) && start.at(0) == 0 && start.at(rows) == column.shape(0),
                   "entries do not match the output");
    for (int64_t i = 0; i < rows; ++i) RANDLA_REQUIRE(start.data()[i] <= start.data()[i + 1], "entries out of order");
    for (int64_t p = 0; p < column.shape(0); ++p)
      RANDLA_REQUIRE(column.data()[p] >= 0 && column.data()[p] < cols, "columns out of range");
    return {start.data(), column.data(), value.data()};
  }
};

template <class T>
void bind(py::module_& m) {
  m.def(
      "dense_sketch",
      [](int family, int64_t d, uint64_t seed, Array<T> out, int64_t i0, int64_t j0) {
        const DenseSketch s = checked_dense(family, d, seed);
        const Matrix<T> o = mutable_view(out);
        RANDLA_REQUIRE(i0 >= 0 && j0 >= 0 && i0 + o.rows <= d, "rows out of range");
        require_output(o, o.rows, o.cols);
        py::gil_scoped_release release;
        kernels<T>().dense_sketch(s, o, i0, j0);
      },
      py::arg("family"), py::arg("d"), py::arg("seed"), py::arg("out").noconvert(), py::arg("i0"), py::arg("j0"));
  m.def(
      "dense_product",
      [](int family, int64_t d, uint64_t seed, Array<T> A, int64_t j0, Array<T> out) {
        const DenseSketch s = checked_dense(family, d, seed);
        const Matrix<const T> a = view(A);
        const Matrix<T> o = mutable_view(out);
        RANDLA_REQUIRE(j0 >= 0, "rows of A out of range");
        require_output(o, d, a.cols);
        py::gil_scoped_release release;
        kernels<T>().dense_product(s, a, j0, o);
      },
      py::arg("family"), py::arg("d"), py::arg("seed"), py::arg("A").noconvert(), py::arg("j0"), py::arg("out").noconvert());
  m.def(
      "dense_product_adjoint",
      [](int family, int64_t d, uint64_t seed, Array<T> Y, int64_t j0, Array<T> out) {
        const DenseSketch s = checked_dense(family, d, seed);
        const Matrix<const T> y = view(Y);
        const Matrix<T> o = mutable_view(out);
        RANDLA_REQUIRE(y.rows == d && j0 >= 0, "shapes do not match");
        require_output(o, o.rows, y.cols);
        py::gil_scoped_release release;
        kernels<T>().dense_product_adjoint(s, y, j0, o);
      },
      py::arg("family"), py::arg("d"), py::arg("seed"), py::arg("Y").noconvert(), py::arg("j0"), py::arg("out").noconvert());
  m.def(
      "sparse_sketch",
      [](int family, int64_t d, int64_t rows, int nnz, int first, uint64_t seed, Array<T> A, int64_t j0, Array<T> out) {
        const SparseSketch s = checked_sparse(family, d, rows, nnz, first, seed);
        const Matrix<const T> a = view(A);
        const Matrix<T> o = mutable_view(out);
        require_output(o, s.rows(), a.cols);
        require_rows(j0, a.rows, rows);
        py::gil_scoped_release release;
        kernels<T>().sparse_sketch(s, a, j0, o);
      },
      py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("first"), py::arg("seed"), py::arg("A").noconvert(),
      py::arg("j0"), py::arg("out").noconvert());
  m.def(
      "sparse_sketch_csr",
      [](int family, int64_t d, int64_t rows, int nnz, int first, uint64_t seed, Array<T> values, py::array indptr, py::array indices,
         int64_t cols, int64_t j0, Array<T> out) {
        const SparseSketch s = checked_sparse(family, d, rows, nnz, first, seed);
        const Csr<T> a = csr_view(values, indptr, indices, cols);
        const Matrix<T> o = mutable_view(out);
        require_output(o, s.rows(), cols);
        require_rows(j0, a.rows, rows);
        py::gil_scoped_release release;
        kernels<T>().sparse_sketch_csr(s, a, j0, o);
      },
      py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("first"), py::arg("seed"), py::arg("values").noconvert(),
      py::arg("indptr"), py::arg("indices"), py::arg("cols"), py::arg("j0"), py::arg("out").noconvert());
  m.def(
      "sparse_sketch_adjoint",
      [](int family, int64_t d, int64_t rows, int nnz, int first, uint64_t seed, Array<T> Y, int64_t j0, Array<T> out) {
        const SparseSketch s = checked_sparse(family, d, rows, nnz, first, seed);
        const Matrix<const T> y = view(Y);
        const Matrix<T> o = mutable_view(out);
        require_adjoint(y, s.rows(), o, j0, rows);
        py::gil_scoped_release release;
        kernels<T>().sparse_sketch_adjoint(s, y, j0, o);
      },
      py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("first"), py::arg("seed"), py::arg("Y").noconvert(),
      py::arg("j0"), py::arg("out").noconvert());
  m.def(
      "block_srht",
      [](int64_t d, int64_t rows, int block, uint64_t seed, Array<T> A, int64_t j0, int64_t k0, int64_t k1, Array<T> out) {
        const BlockSrht s = checked_srht(d, rows, block, seed);
        const Matrix<const T> a = view(A);
        const Matrix<T> o = mutable_view(out);
        RANDLA_REQUIRE(k0 >= 0 && k0 <= k1 && k1 <= s.blocks(), "blocks out of range");
        require_output(o, s.block_start(k1) - s.block_start(k0), a.cols);
        require_rows(j0, a.rows, rows);
        py::gil_scoped_release release;
        kernels<T>().block_srht(s, a, j0, k0, k1, o);
      },
      py::arg("d"), py::arg("m"), py::arg("block"), py::arg("seed"), py::arg("A").noconvert(), py::arg("j0"), py::arg("k0"),
      py::arg("k1"), py::arg("out").noconvert());
  m.def(
      "block_srht_adjoint",
      [](int64_t d, int64_t rows, int block, uint64_t seed, Array<T> Y, int64_t j0, Array<T> out) {
        const BlockSrht s = checked_srht(d, rows, block, seed);
        const Matrix<const T> y = view(Y);
        const Matrix<T> o = mutable_view(out);
        require_adjoint(y, d, o, j0, rows);
        py::gil_scoped_release release;
        kernels<T>().block_srht_adjoint(s, y, j0, o);
      },
      py::arg("d"), py::arg("m"), py::arg("block"), py::arg("seed"), py::arg("Y").noconvert(), py::arg("j0"),
      py::arg("out").noconvert());
  m.def(
      "srtt",
      [](int64_t d, int64_t rows, int rounds, uint64_t seed, Array<T> A, int64_t j0, Array<T> out) {
        const Srtt s = checked_srtt(d, rows, rounds, seed);
        const Matrix<const T> a = view(A);
        const Matrix<T> o = mutable_view(out);
        require_output(o, d, a.cols);
        require_rows(j0, a.rows, rows);
        py::gil_scoped_release release;
        const std::vector<int64_t> kept = kept_rows(d, s.n, seed);
        kernels<T>().srtt(s, kept.data(), a, j0, o);
      },
      py::arg("d"), py::arg("m"), py::arg("rounds"), py::arg("seed"), py::arg("A").noconvert(), py::arg("j0"),
      py::arg("out").noconvert());
  m.def(
      "srtt_adjoint",
      [](int64_t d, int64_t rows, int rounds, uint64_t seed, Array<T> Y, int64_t j0, Array<T> out) {
        const Srtt s = checked_srtt(d, rows, rounds, seed);
        const Matrix<const T> y = view(Y);
        const Matrix<T> o = mutable_view(out);
        require_adjoint(y, d, o, j0, rows);
        py::gil_scoped_release release;
        const std::vector<int64_t> kept = kept_rows(d, s.n, seed);
        kernels<T>().srtt_adjoint(s, kept.data(), y, j0, o);
      },
      py::arg("d"), py::arg("m"), py::arg("rounds"), py::arg("seed"), py::arg("Y").noconvert(), py::arg("j0"),
      py::arg("out").noconvert());
  m.def(
      "gather",
      [](const Listed& entries, Array<T> A, Array<T> out) {
        const Matrix<const T> a = view(A);
        const Matrix<T> o = mutable_view(out);
        require_output(o, o.rows, a.cols);
        const EntryList s = entries.list(o.rows, a.rows);
        py::gil_scoped_release release;
        kernels<T>().gather(s, a, o);
      },
      py::arg("entries"), py::arg("A").noconvert(), py::arg("out").noconvert());
  m.def(
      "gather_csr",
      [](const Listed& entries, Array<T> values, py::array indptr, py::array indices, int64_t cols, Array<T> out) {
        const Csr<T> a = csr_view(values, indptr, indices, cols);
        const Matrix<T> o = mutable_view(out);
        require_output(o, o.rows, cols);
        const EntryList s = entries.list(o.rows, a.rows);
        py::gil_scoped_release release;
        kernels<T>().gather_csr(s, a, o);
      },
      py::arg("entries"), py::arg("values").noconvert(), py::arg("indptr"), py::arg("indices"), py::arg("cols"),
      py::arg("out").noconvert());
}

py::tuple sparse_columns(int family, int64_t d, int64_t m, int nnz, uint64_t seed, int64_t j0, int64_t j1) {
  const SparseSketch s = checked_sparse(family, d, m, nnz, 0, seed);
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
  const BlockSrht s = checked_srht(d, m, block, seed);
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

// Columns (d, nnz) and values of the rows of LessUniform.
py::tuple less_uniform_entries(int64_t d, int64_t m, int nnz, uint64_t seed) {
  RANDLA_REQUIRE(d > 0 && nnz >= 0 && nnz <= m && nnz <= SparseSketch::kMaxNnz, "LessUniform out of range");
  py::array_t<int64_t> columns({d, static_cast<int64_t>(nnz)});
  py::array_t<double> values({d, static_cast<int64_t>(nnz)});
  const double scale = std::sqrt(static_cast<double>(m) / (static_cast<double>(d) * nnz));
  uint8_t minus[SparseSketch::kMaxNnz];
  for (int64_t i = 0; i < d; ++i) {
    int64_t* column = columns.mutable_data() + i * nnz;
    double* value = values.mutable_data() + i * nnz;
    less_uniform_row(m, nnz, seed, static_cast<uint64_t>(i), column, minus);
    for (int t = 0; t < nnz; ++t) value[t] = minus[t] ? -scale : scale;
  }
  return py::make_tuple(columns, values);
}

py::array_t<int64_t> transform_rows(int64_t d, int64_t n, uint64_t seed) {
  RANDLA_REQUIRE(d > 0 && n > 0, "rows of a transform out of range");
  const std::vector<int64_t> kept = kept_rows(d, n, seed);
  return py::array_t<int64_t>(d, kept.data());
}

void add_pieces(const py::array_t<double, py::array::c_style>& x, const py::array_t<double, py::array::c_style>& round,
                py::array_t<double, py::array::c_style> bins) {
  RANDLA_REQUIRE(x.ndim() == 2 && round.ndim() == 2 && bins.ndim() == 3 && round.shape(1) == x.shape(1) &&
                     bins.shape(0) == round.shape(0) && bins.shape(1) == x.shape(0) && bins.shape(2) == x.shape(1),
                 "shapes do not match");
  double* b = bins.mutable_data();
  const double *terms = x.data(), *cuts = round.data();
  const int64_t pieces = round.shape(0), rows = x.shape(0), cols = x.shape(1);
  py::gil_scoped_release release;
  isa().add_pieces(terms, cuts, b, pieces, rows, cols);
}

}  // namespace

void bind_sketches(py::module_& m) {
  m.def("sparse_columns", &sparse_columns, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("seed"),
        py::arg("j0"), py::arg("j1"));
  m.def("block_srht_columns", &block_srht_columns, py::arg("d"), py::arg("m"), py::arg("block"), py::arg("seed"),
        py::arg("j0"), py::arg("j1"));
  m.def("less_uniform_entries", &less_uniform_entries, py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("seed"));
  m.def("transform_rows", &transform_rows, py::arg("d"), py::arg("n"), py::arg("seed"));
  py::class_<Listed>(m, "Entries")
      .def(py::init([](py::array_t<int64_t, py::array::c_style> start, py::array_t<int64_t, py::array::c_style> column,
                       py::array_t<double, py::array::c_style> value) { return Listed{start, column, value}; }),
           py::arg("start"), py::arg("column"), py::arg("value"));
  m.def("add_pieces", &add_pieces, py::arg("x").noconvert(), py::arg("round").noconvert(), py::arg("bins").noconvert());
  bind<float>(m);
  bind<double>(m);
}

}  // namespace randla::cpu
