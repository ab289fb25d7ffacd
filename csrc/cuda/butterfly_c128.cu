#include "cuda/butterfly.inl"

namespace randla::cuda {

RANDLA_BUTTERFLY(double, true)

}  // namespace randla::cuda
