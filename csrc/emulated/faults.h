#pragma once

#include <cstdint>

namespace randla::cuda::emulated {

void run_faulty(int fault, uintptr_t out);

}  // namespace randla::cuda::emulated
