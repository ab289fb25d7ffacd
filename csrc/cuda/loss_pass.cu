// Passes with a loss between A x and A' t: value, gradient and Hessian weights in one read.

#include "cuda/row_pass.inl"

namespace randla::cuda {

template <class T>
void loss_pass(Matrix<const T> A, const RowChoice& rows, const Margins<double>& m, const double* x, double* g, double* sums,
               double* partial, Stream stream) {
  const int64_t blocks = pass_of_one<true>(PassArguments<T, double>{A, rows, m, x, g != nullptr, partial, stream});
  sum_partial<double>(partial, blocks, A.cols + 1, A.cols, A.cols + 1, g, sums, stream);
}

template void loss_pass<float>(Matrix<const float>, const RowChoice&, const Margins<double>&, const double*, double*, double*,
                               double*, Stream);
template void loss_pass<double>(Matrix<const double>, const RowChoice&, const Margins<double>&, const double*, double*, double*,
                                double*, Stream);

}  // namespace randla::cuda
