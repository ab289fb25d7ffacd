#include "cuda/row_pass.inl"

namespace randla::cuda {

template void row_pass<float, double>(Matrix<const float>, const RowChoice&, const Margins<double>&, const double*, double*,
                                      double*, double*, Stream);

}  // namespace randla::cuda
