// CSR times a block of vectors: rows of X gathered in the order of the entries, as on the processor and with the same bits. What
// cuSPARSE does by default may differ in bits from run to run.
//
// Bytes: value and index of every entry for each tile of columns, the result once, and for every entry a row of X, from L2 as far
// as that holds X. Long rows are for the caller to cut: one team of threads adds a row.

#include "cuda/gather.h"

namespace randla::cuda {
namespace {

constexpr int64_t kCached = int64_t(1) << 25;  // bytes of X that stay in L2 beside all else

template <class T, class Index>
struct EntriesOfRows {
  struct Entry {
    Index row;
    T factor;
  };

  const T* values;
  const Index *indptr, *indices;
  bool large;

  RANDLA_HD int64_t begin(int64_t o) const { return indptr[o]; }
  RANDLA_HD int64_t end(int64_t o) const { return indptr[o + 1]; }
  RANDLA_HD Entry entry(int64_t p) const { return {indices[p], values[p]}; }
  RANDLA_HD int64_t row(const Entry& e) const { return e.row; }
  RANDLA_HD T factor(const Entry& e) const { return e.factor; }
  RANDLA_HD T add(T sum, T a, T factor) const { return sum + a * factor; }
  bool often() const { return large; }
  template <int N>
  RANDLA_HD Pack<T, N> start(const Pack<T, N>&) const {
    return {};
  }
  template <int N>
  RANDLA_HD Pack<T, N> finish(const Pack<T, N>& sum, const Pack<T, N>&) const {
    return sum;
  }
};

}  // namespace

template <class T>
void csr_product(Csr<T> A, Matrix<const T> X, Matrix<T> out, Stream stream) {
  const bool large = X.rows * X.cols * static_cast<int64_t>(sizeof(T)) > kCached;
  const auto with = [&](auto index) {
    using Index = decltype(index);
    const auto* const indptr = static_cast<const Index*>(A.indptr);
    gather_rows<T>(EntriesOfRows<T, Index>{A.values, indptr, static_cast<const Index*>(A.indices), large}, X, out, stream);
  };
  A.wide ? with(int64_t()) : with(int32_t());
}

template void csr_product<float>(Csr<float>, Matrix<const float>, Matrix<float>, Stream);
template void csr_product<double>(Csr<double>, Matrix<const double>, Matrix<double>, Stream);

}  // namespace randla::cuda
