#include "cuda/butterfly.inl"

namespace randla::cuda {

RANDLA_BUTTERFLY(float, false)

}  // namespace randla::cuda
