// Products with a sketch whose entries are listed row by row: few entries in a row of S, rows of A fetched where they are.

#include "cuda/gather.h"

namespace randla::cuda {
namespace {

template <class T>
struct Listed {
  struct Entry {
    int64_t row;
    T factor;
  };

  EntryList list;

  RANDLA_HD int64_t begin(int64_t o) const { return list.start[o]; }
  RANDLA_HD int64_t end(int64_t o) const { return list.start[o + 1]; }
  RANDLA_HD Entry entry(int64_t p) const { return {list.column[p], static_cast<T>(list.value[p])}; }
  RANDLA_HD int64_t row(const Entry& e) const { return e.row; }
  RANDLA_HD T factor(const Entry& e) const { return e.factor; }
  RANDLA_HD T add(T sum, T a, T factor) const { return sum + a * factor; }
  bool often() const { return false; }
  RANDLA_HD T scaled_factor(const Entry& e) const { return e.factor; }
  template <int N>
  RANDLA_HD Pack<T, N> start(const Pack<T, N>& to) const { return to; }
  template <int N>
  RANDLA_HD Pack<T, N> finish(const Pack<T, N>& sum, const Pack<T, N>&) const { return sum; }
};

}  // namespace

template <class T>
void gather(const EntryList& s, Matrix<const T> A, Matrix<T> out, Stream stream) {
  gather_rows<T>(Listed<T>{s}, A, out, stream);
}

template <class T>
void gather_csr(const EntryList& s, Csr<T> A, Matrix<T> out, Stream stream) {
  gather_csr_rows<T>(Listed<T>{s}, A, out, stream);
}

template void gather<float>(const EntryList&, Matrix<const float>, Matrix<float>, Stream);
template void gather<double>(const EntryList&, Matrix<const double>, Matrix<double>, Stream);
template void gather_csr<float>(const EntryList&, Csr<float>, Matrix<float>, Stream);
template void gather_csr<double>(const EntryList&, Csr<double>, Matrix<double>, Stream);

}  // namespace randla::cuda
