#include "cuda/butterfly.inl"

namespace randla::cuda {

RANDLA_BUTTERFLY(float, true)

}  // namespace randla::cuda
