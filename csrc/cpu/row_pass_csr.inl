// Passes over the rows of a sparse matrix.

namespace randla::cpu {
namespace {

// C vectors share the reads of the indices.
template <class T, class Index, int C, bool Forward>
inline __attribute__((always_inline)) void csr_row(const T* values, const Index* indices, int64_t count, int64_t n, const double* x,
                                                   double* t, int64_t stride, double* g) {
  double s[C];
  for (int c = 0; c < C; ++c) s[c] = Forward ? 0.0 : t[c * stride];
  for (int64_t p = 0; p < count; ++p)
    for (int c = 0; c < C; ++c)
      if constexpr (Forward)
        s[c] += static_cast<double>(values[p]) * x[c * n + indices[p]];
      else
        g[c * n + indices[p]] += static_cast<double>(values[p]) * s[c];
  for (int c = 0; Forward && c < C; ++c) t[c * stride] = s[c];
}

template <class T, class Index>
void pass_over_csr(const RowPass& pass, Csr<T> A, int64_t i0, int64_t i1, double* g, double* sums) {
  constexpr int64_t tile = 64;
  const Index *indptr = static_cast<const Index*>(A.indptr), *indices = static_cast<const Index*>(A.indices);
  const int64_t n = A.cols;
  Scratch<double> t(pass.k * tile);
  for (int64_t i = i0; i < i1; i += tile) {
    const int64_t count = i + tile < i1 ? tile : i1 - i;
    auto each = [&](auto forward) {
      constexpr bool Forward = decltype(forward)::value;
      for (int64_t q = 0; q < count; ++q) {
        const int64_t row = pass.row(i + q), at = indptr[row], length = indptr[row + 1] - at;
        const double* x = Forward ? pass.x : nullptr;
        double* to = Forward ? nullptr : g;
        int64_t c = 0;
        auto vectors = [&](auto many) {
          constexpr int C = decltype(many)::value;
          csr_row<T, Index, C, Forward>(A.values + at, indices + at, length, n, x, t.data + c * tile + q, tile, to);
          c += C;
          if (Forward)
            x += C * n;
          else
            to += C * n;
        };
        while (c + 2 <= pass.k) vectors(std::integral_constant<int, 2>{});
        if (c < pass.k) vectors(std::integral_constant<int, 1>{});
      }
    };
    if (pass.x) each(std::true_type{});
    pass.middle(pass.context, i, count, t.data, tile, sums);
    if (g) each(std::false_type{});
  }
}

template <class T>
void row_pass_csr(const RowPass& pass, Csr<T> A) {
  zero_gradient(pass, A.cols);
  const int64_t size = pass.g ? pass.k * A.cols : 0;
  // Partial gradients must stay small beside the matrix: fewer chunks when the columns are many.
  const int64_t grain = 256 + 4 * A.cols;
  sum_over_chunks(
      pass, grain, size,
      [&](int64_t i0, int64_t i1, double* g, double* sums) {
        if (A.wide)
          pass_over_csr<T, int64_t>(pass, A, i0, i1, g, sums);
        else
          pass_over_csr<T, int32_t>(pass, A, i0, i1, g, sums);
      },
      [&](const double* g) {
        for (int64_t j = 0; j < size; ++j) pass.g[j] += g[j];
      });
}

}  // namespace
}  // namespace randla::cpu
