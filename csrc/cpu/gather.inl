// Products with a sketch whose entries have been listed row by row: few entries per row of S, rows of A fetched where they are.

namespace randla::cpu {
namespace {

// out += S A. out has unit column stride.
template <class T>
void gather(const EntryList& s, Matrix<const T> A, Matrix<T> out) {
  if (A.cols == 0) return;
  if (A.col_stride == 1) {
    const int64_t grain = 16;
    parallel_for((out.rows + grain - 1) / grain, [&](int64_t piece) {
      for (int64_t i = piece * grain; i < out.rows && i < (piece + 1) * grain; ++i)
        for (int64_t p = s.start[i]; p < s.start[i + 1]; ++p)
          add_scaled(out.row(i), A.row(s.column[p]), static_cast<T>(s.value[p]), A.cols);
    });
    return;
  }
  parallel_for(A.cols, [&](int64_t c) {
    for (int64_t i = 0; i < out.rows; ++i) {
      T sum = *out.at(i, c);
      for (int64_t p = s.start[i]; p < s.start[i + 1]; ++p) sum += *A.at(s.column[p], c) * static_cast<T>(s.value[p]);
      *out.at(i, c) = sum;
    }
  });
}

template <class T, class Index>
void gather_csr_rows(const EntryList& s, Csr<T> A, Matrix<T> out, int64_t i0, int64_t i1) {
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const Index* indices = static_cast<const Index*>(A.indices);
  for (int64_t i = i0; i < i1; ++i) {
    T* to = out.row(i);
    for (int64_t p = s.start[i]; p < s.start[i + 1]; ++p) {
      const int64_t j = s.column[p];
      const T factor = static_cast<T>(s.value[p]);
      for (Index k = indptr[j]; k < indptr[j + 1]; ++k) to[indices[k]] += A.values[k] * factor;
    }
  }
}

template <class T>
void gather_csr(const EntryList& s, Csr<T> A, Matrix<T> out) {
  const int64_t grain = 16;
  parallel_for((out.rows + grain - 1) / grain, [&](int64_t piece) {
    const int64_t i0 = piece * grain, i1 = i0 + grain < out.rows ? i0 + grain : out.rows;
    if (A.wide)
      gather_csr_rows<T, int64_t>(s, A, out, i0, i1);
    else
      gather_csr_rows<T, int32_t>(s, A, out, i0, i1);
  });
}

}  // namespace
}  // namespace randla::cpu
