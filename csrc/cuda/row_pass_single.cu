#include "cuda/row_pass.inl"

namespace randla::cuda {

template void row_pass<float, float>(Matrix<const float>, const RowChoice&, const Margins<float>&, const float*, float*,
                                     double*, double*, Stream);

}  // namespace randla::cuda
