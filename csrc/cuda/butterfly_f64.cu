#include "cuda/butterfly.inl"

namespace randla::cuda {

RANDLA_BUTTERFLY(double, false)

}  // namespace randla::cuda
