// What tests may set of the emulated device.
#pragma once

#include <pybind11/pybind11.h>

namespace randla::cuda::emulated {

void bind(pybind11::module_& m);

}  // namespace randla::cuda::emulated
