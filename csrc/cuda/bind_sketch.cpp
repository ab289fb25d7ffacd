// Sketches as functions of randla._cuda.

#include "common/checked.h"
#include "cuda/array.h"
#include "cuda/block.h"

namespace randla::cuda {
namespace {

// With contiguous rows, whatever their number and length.
template <class T>
Matrix<T> output_of_any_shape(const DeviceArray& a) {
  RANDLA_REQUIRE(a.dimensions() == 2, "a matrix needs two dimensions");
  return output_view<T>(a, a.shape[0], a.shape[1]);
}

void dense_sketch_of(int family, int64_t d, uint64_t seed, const py::object& out, int64_t i0, int64_t j0) {
  const DenseSketch s = checked_dense(family, d, seed);
  const DeviceArray o = device_array(out, "out");
  Call call(o);
  by_type(o.type, [&](auto t) {
    using T = decltype(t);
    const Matrix<T> to = matrix_view<T>(o);
    RANDLA_REQUIRE(!o.read_only && i0 >= 0 && j0 >= 0 && i0 + to.rows <= d, "rows out of range");
    py::gil_scoped_release release;
    dense_sketch<T>(s, to, i0, j0, call.stream());
  });
}

// f(A, out, call) for a product with columns j0 .. j0 + rows of A - 1 of S (d, m), where it has entries.
template <class F>
void product_of(int64_t d, int64_t m, const py::object& A, int64_t j0, const py::object& out, F&& f) {
  const DeviceArray a = device_array(A, "A"), o = device_array(out, "out");
  Call call(a);
  by_type(a.type, [&](auto t) {
    using T = decltype(t);
    const Matrix<const T> from = matrix_view<const T>(a);
    const Matrix<T> to = output_view<T>(o, d, from.cols);
    require_rows(j0, from.rows, m);
    if (from.rows > 0 && from.cols > 0) f(from, to, call);
  });
}

void require_count(int64_t count) {
  RANDLA_REQUIRE(count <= INT32_MAX, "at most 2^31 - 1 columns of a sparse sketch can be sorted");
}

void sort_in(Call& call, const SparseSketch& s, int64_t j0, int64_t count, SortedEntries to) {
  require_count(count);
  void* const memory = call.memory<char>(sort_entries_bytes(s, count));
  py::gil_scoped_release release;
  sort_entries(s, j0, count, to, memory, call.stream());
}

void sort_in(Call& call, const SparseSketch& s, int64_t j0, int64_t count, int64_t window, WindowEntries to) {
  require_count(count);
  void* const memory = call.memory<char>(sort_windows_bytes(s, count, window));
  py::gil_scoped_release release;
  sort_windows(s, j0, count, window, to, memory, call.stream());
}

// Where the entries of a sparse sketch come from: they are sorted for one product,
struct Sorting {
  int64_t j0;

  template <class T>
  int64_t window(const SparseSketch& s, const Matrix<const T>& A) const {
    return window_rows(s, A);
  }
  SortedEntries by_rows(Call& call, const SparseSketch& s, int64_t count) const {
    const SortedEntries to{call.memory<int64_t>(s.rows() + 1), call.memory<uint32_t>(count * s.count())};
    sort_in(call, s, j0, count, to);
    return to;
  }
  WindowEntries by_windows(Call& call, const SparseSketch& s, int64_t count, int64_t window) const {
    const int64_t windows = divided_up(count, window);
    const WindowEntries to{call.memory<uint16_t>(windows * window_stride(s)), call.memory<uint16_t>(windows * window * s.count())};
    sort_in(call, s, j0, count, window, to);
    return to;
  }
};

// or have been sorted and are kept.
struct Kept {
  int64_t columns;  // of a window, 0 for lists by rows
  py::object start, entries;

  template <class T>
  int64_t window(const SparseSketch& s, const Matrix<const T>& A) const {
    RANDLA_REQUIRE(columns == 0 || takes_window(s, A, columns), "windows do not suit the matrix");
    return columns;
  }
  SortedEntries by_rows(Call&, const SparseSketch& s, int64_t count) const {
    return {elements<int64_t>(start, s.rows() + 1, "start"), elements<uint32_t>(entries, count * s.count(), "entries")};
  }
  WindowEntries by_windows(Call&, const SparseSketch& s, int64_t count, int64_t window) const {
    const int64_t windows = divided_up(count, window);
    return {elements<uint16_t>(start, windows * window_stride(s), "start"),
            elements<uint16_t>(entries, windows * window * s.count(), "entries")};
  }
};

void sort_entries_of(int family, int64_t d, int64_t m, int nnz, int first, uint64_t seed, int64_t j0, int64_t count,
                     int64_t window, const py::object& start, const py::object& entries) {
  const SparseSketch s = checked_sparse(family, d, m, nnz, first, seed);
  require_rows(j0, count, m);
  RANDLA_REQUIRE(window == 0 || can_be_window(s, window), "windows must be of whole packs and few entries");
  const Kept to{window, start, entries};
  Call call(device_array(start, "start"));
  if (window > 0)
    sort_in(call, s, j0, count, window, to.by_windows(call, s, count, window));
  else
    sort_in(call, s, j0, count, to.by_rows(call, s, count));
}

int64_t window_rows_of(int family, int64_t d, int64_t m, int nnz, int first, const py::object& A) {
  const SparseSketch s = checked_sparse(family, d, m, nnz, first, 0);
  const DeviceArray a = device_array(A, "A");
  Call call(a);
  int64_t window = 0;
  by_type(a.type, [&](auto t) { window = window_rows(s, matrix_view<const decltype(t)>(a)); });
  return window;
}

// j0 is that of the entries, too.
template <class Source>
void sparse_sketch_with(const SparseSketch& s, const py::object& A, int64_t j0, const py::object& out, const Source& source) {
  product_of(s.rows(), s.m, A, j0, out, [&](auto from, auto to, Call& call) {
    using T = std::remove_pointer_t<decltype(to.data)>;
    T* const strip = call.memory<T>(from.rows * strip_columns(from));
    if (const int64_t window = source.window(s, from)) {
      const WindowEntries entries = source.by_windows(call, s, from.rows, window);
      py::gil_scoped_release release;
      window_sketch<T>(s, window, entries, from, strip, to, call.stream());
    } else {
      const SortedEntries entries = source.by_rows(call, s, from.rows);
      py::gil_scoped_release release;
      sorted_sketch<T>(s, entries, from, strip, to, call.stream());
    }
  });
}

template <class Source>
void sparse_sketch_csr_with(const SparseSketch& s, const py::object& values, const py::object& indptr,
                            const py::object& indices, int64_t cols, int64_t j0, const py::object& out, const Source& source) {
  const DeviceArray o = device_array(out, "out");
  Call call(o);
  by_type(o.type, [&](auto t) {
    using T = decltype(t);
    const Csr<T> from = csr_view<T>(values, indptr, indices, cols);
    const Matrix<T> to = output_view<T>(o, s.rows(), cols);
    require_rows(j0, from.rows, s.m);
    if (from.rows == 0 || cols == 0) return;
    const SortedEntries entries = source.by_rows(call, s, from.rows);
    py::gil_scoped_release release;
    sorted_sketch_csr<T>(s, entries, from, to, call.stream());
  });
}

void sparse_sketch_of(int family, int64_t d, int64_t m, int nnz, int first, uint64_t seed, const py::object& A, int64_t j0,
                      const py::object& out) {
  sparse_sketch_with(checked_sparse(family, d, m, nnz, first, seed), A, j0, out, Sorting{j0});
}

void sorted_sketch_of(int family, int64_t d, int64_t m, int nnz, int first, int64_t window, const py::object& start,
                      const py::object& entries, const py::object& A, const py::object& out) {
  sparse_sketch_with(checked_sparse(family, d, m, nnz, first, 0), A, 0, out, Kept{window, start, entries});
}

void sparse_sketch_csr_of(int family, int64_t d, int64_t m, int nnz, int first, uint64_t seed, const py::object& values,
                          const py::object& indptr, const py::object& indices, int64_t cols, int64_t j0,
                          const py::object& out) {
  const SparseSketch s = checked_sparse(family, d, m, nnz, first, seed);
  sparse_sketch_csr_with(s, values, indptr, indices, cols, j0, out, Sorting{j0});
}

void sorted_sketch_csr_of(int family, int64_t d, int64_t m, int nnz, int first, const py::object& start,
                          const py::object& entries, const py::object& values, const py::object& indptr,
                          const py::object& indices, int64_t cols, const py::object& out) {
  const SparseSketch s = checked_sparse(family, d, m, nnz, first, 0);
  sparse_sketch_csr_with(s, values, indptr, indices, cols, 0, out, Kept{0, start, entries});
}

// f(Y, out, call) for a product with S', S (d, m).
template <class F>
void adjoint_of(int64_t d, int64_t m, const py::object& Y, int64_t j0, const py::object& out, F&& f) {
  const DeviceArray y = device_array(Y, "Y"), o = device_array(out, "out");
  Call call(y);
  by_type(y.type, [&](auto t) {
    using T = decltype(t);
    const Matrix<const T> from = matrix_view<const T>(y);
    const Matrix<T> to = output_of_any_shape<T>(o);
    require_adjoint(from, d, to, j0, m);
    if (to.rows > 0 && to.cols > 0) f(from, to, call);
  });
}

void sparse_sketch_adjoint_of(int family, int64_t d, int64_t m, int nnz, int first, uint64_t seed, const py::object& Y,
                              int64_t j0, const py::object& out) {
  const SparseSketch s = checked_sparse(family, d, m, nnz, first, seed);
  adjoint_of(s.rows(), m, Y, j0, out, [&](auto from, auto to, Call& call) {
    py::gil_scoped_release release;
    sparse_sketch_adjoint(s, from, j0, to, call.stream());
  });
}

void block_srht_of(int64_t d, int64_t m, int block, uint64_t seed, const py::object& A, int64_t j0, int64_t k0, int64_t k1,
                   const py::object& out) {
  const BlockSrht s = checked_srht(d, m, block, seed);
  RANDLA_REQUIRE(k0 == 0 && k1 == s.blocks(), "the device makes all output blocks");
  product_of(d, m, A, j0, out, [&](auto from, auto to, Call& call) {
    using T = std::remove_pointer_t<decltype(to.data)>;
    void* const tables = call.memory<char>(block_srht_table_bytes(s, j0, from.rows));
    T* const sums = call.memory<T>(block_srht_sums<T>(s, from, j0));
    py::gil_scoped_release release;
    block_srht<T>(s, from, j0, tables, sums, to, call.stream());
  });
}

void block_srht_adjoint_of(int64_t d, int64_t m, int block, uint64_t seed, const py::object& Y, int64_t j0,
                           const py::object& out) {
  const BlockSrht s = checked_srht(d, m, block, seed);
  adjoint_of(d, m, Y, j0, out, [&](auto from, auto to, Call& call) {
    void* const tables = call.memory<char>(block_srht_table_bytes(s, j0, to.rows));
    py::gil_scoped_release release;
    block_srht_adjoint(s, from, j0, tables, to, call.stream());
  });
}

void srtt_of(int64_t d, int64_t m, int rounds, uint64_t seed, const py::object& kept, const py::object& A, int64_t j0,
             const py::object& out) {
  const Srtt s = checked_srtt(d, m, rounds, seed);
  const int64_t* const rows = elements<const int64_t>(kept, d, "kept");
  product_of(d, m, A, j0, out, [&](auto from, auto to, Call& call) {
    using T = std::remove_pointer_t<decltype(to.data)>;
    T* const work = call.memory<T>(srtt_work<T>(s, from.cols));
    auto* const signs = call.memory<uint64_t>(srtt_sign_words(s));
    py::gil_scoped_release release;
    srtt<T>(s, rows, from, j0, work, signs, to, call.stream());
  });
}

void srtt_adjoint_of(int64_t d, int64_t m, int rounds, uint64_t seed, const py::object& kept, const py::object& Y, int64_t j0,
                     const py::object& out) {
  const Srtt s = checked_srtt(d, m, rounds, seed);
  const int64_t* const rows = elements<const int64_t>(kept, d, "kept");
  adjoint_of(d, m, Y, j0, out, [&](auto from, auto to, Call& call) {
    using T = std::remove_pointer_t<decltype(to.data)>;
    T* const work = call.memory<T>(srtt_work<T>(s, to.cols));
    auto* const signs = call.memory<uint64_t>(srtt_sign_words(s));
    py::gil_scoped_release release;
    srtt_adjoint<T>(s, rows, from, j0, work, signs, to, call.stream());
  });
}

// Arrays of the device: what they hold has been checked where they were made.
struct Entries {
  py::object start, column, value;

  EntryList list(int64_t rows) const {
    const DeviceArray c = device_array(column, "column");
    RANDLA_REQUIRE(c.dimensions() == 1, "entries do not match the output");
    return {elements<const int64_t>(start, rows + 1, "start"), elements<const int64_t>(column, c.shape[0], "column"),
            elements<const double>(value, c.shape[0], "value")};
  }
};

void gather_of(const Entries& entries, const py::object& A, const py::object& out) {
  const DeviceArray a = device_array(A, "A"), o = device_array(out, "out");
  Call call(a);
  by_type(a.type, [&](auto t) {
    using T = decltype(t);
    const Matrix<const T> from = matrix_view<const T>(a);
    const Matrix<T> to = output_of_any_shape<T>(o);
    RANDLA_REQUIRE(to.cols == from.cols, "shapes do not match");
    const EntryList list = entries.list(to.rows);
    py::gil_scoped_release release;
    gather<T>(list, from, to, call.stream());
  });
}

void gather_csr_of(const Entries& entries, const py::object& values, const py::object& indptr, const py::object& indices,
                   int64_t cols, const py::object& out) {
  const DeviceArray o = device_array(out, "out");
  Call call(o);
  by_type(o.type, [&](auto t) {
    using T = decltype(t);
    const Csr<T> from = csr_view<T>(values, indptr, indices, cols);
    const Matrix<T> to = output_of_any_shape<T>(o);
    RANDLA_REQUIRE(to.cols == cols, "shapes do not match");
    const EntryList list = entries.list(to.rows);
    py::gil_scoped_release release;
    gather_csr<T>(list, from, to, call.stream());
  });
}

void fwht_of(const py::object& from, const py::object& to, double scale) {
  const DeviceArray a = device_array(from, "from"), o = device_array(to, "to");
  RANDLA_REQUIRE(a.dimensions() == 3 && a.shape == o.shape && a.type == o.type && a.contiguous() && o.contiguous() &&
                     !o.read_only,
                 "fwht takes contiguous arrays (outer, n, inner) of one shape");
  const int64_t n = a.shape[1];
  RANDLA_REQUIRE(n > 0 && (n & (n - 1)) == 0, "n must be a power of two");
  Call call(a);
  by_type(a.type, [&](auto t) {
    using T = decltype(t);
    py::gil_scoped_release release;
    fwht<T>(static_cast<const T*>(a.data), static_cast<T*>(o.data), a.shape[0], n, a.shape[2], scale, call.stream());
  });
}

}  // namespace

void bind_sketches(py::module_& m) {
  m.def("dense_sketch", &dense_sketch_of, py::arg("family"), py::arg("d"), py::arg("seed"), py::arg("out"), py::arg("i0"),
        py::arg("j0"));
  m.def("sparse_sketch", &sparse_sketch_of, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("first"),
        py::arg("seed"), py::arg("A"), py::arg("j0"), py::arg("out"));
  m.def("sparse_sketch_csr", &sparse_sketch_csr_of, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"),
        py::arg("first"), py::arg("seed"), py::arg("values"), py::arg("indptr"), py::arg("indices"), py::arg("cols"),
        py::arg("j0"), py::arg("out"));
  m.def("sparse_sketch_adjoint", &sparse_sketch_adjoint_of, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"),
        py::arg("first"), py::arg("seed"), py::arg("Y"), py::arg("j0"), py::arg("out"));
  m.def("sort_entries", &sort_entries_of, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("first"),
        py::arg("seed"), py::arg("j0"), py::arg("count"), py::arg("window"), py::arg("start"), py::arg("entries"),
        "Fills start (rows + 1), int64, and entries (count (nnz - first)), uint32, for columns j0 .. j0 + count - 1; by windows of "
        "as many columns start (windows, (rows + 8) // 8 * 8) and entries (windows, window (nnz - first)), both uint16.");
  m.def("window_rows", &window_rows_of, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("first"),
        py::arg("A"), "The windows by which entries should be sorted for a dense A, 0 for none.");
  m.def("sorted_sketch", &sorted_sketch_of, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"), py::arg("first"),
        py::arg("window"), py::arg("start"), py::arg("entries"), py::arg("A"), py::arg("out"),
        "sparse_sketch for entries that have been sorted.");
  m.def("sorted_sketch_csr", &sorted_sketch_csr_of, py::arg("family"), py::arg("d"), py::arg("m"), py::arg("nnz"),
        py::arg("first"), py::arg("start"), py::arg("entries"), py::arg("values"), py::arg("indptr"), py::arg("indices"),
        py::arg("cols"), py::arg("out"));
  m.def("block_srht", &block_srht_of, py::arg("d"), py::arg("m"), py::arg("block"), py::arg("seed"), py::arg("A"),
        py::arg("j0"), py::arg("k0"), py::arg("k1"), py::arg("out"));
  m.def("block_srht_adjoint", &block_srht_adjoint_of, py::arg("d"), py::arg("m"), py::arg("block"), py::arg("seed"),
        py::arg("Y"), py::arg("j0"), py::arg("out"));
  m.def("srtt", &srtt_of, py::arg("d"), py::arg("m"), py::arg("rounds"), py::arg("seed"), py::arg("kept"), py::arg("A"),
        py::arg("j0"), py::arg("out"));
  m.def("srtt_adjoint", &srtt_adjoint_of, py::arg("d"), py::arg("m"), py::arg("rounds"), py::arg("seed"), py::arg("kept"),
        py::arg("Y"), py::arg("j0"), py::arg("out"));
  py::class_<Entries>(m, "Entries")
      .def(py::init([](py::object start, py::object column, py::object value) {
             return Entries{std::move(start), std::move(column), std::move(value)};
           }),
           py::arg("start"), py::arg("column"), py::arg("value"));
  m.def("gather", &gather_of, py::arg("entries"), py::arg("A"), py::arg("out"));
  m.def("gather_csr", &gather_csr_of, py::arg("entries"), py::arg("values"), py::arg("indptr"), py::arg("indices"),
        py::arg("cols"), py::arg("out"));
  m.def("fwht", &fwht_of, py::arg("from_"), py::arg("to"), py::arg("scale"));
}

}  // namespace randla::cuda
