// The runtime of the emulated device: all memory is its own, but for what a test has put elsewhere.

#include "cuda/runtime.h"

#include <pybind11/stl.h>

#include <map>

#include "common/require.h"
#include "emulated/bind.h"
#include "emulated/faults.h"
#include "emulated/watch.h"

namespace randla::cuda {
namespace {

std::size_t shared_bytes = 227 << 10;
int multiprocessor_count = 3;

std::map<uintptr_t, int>& elsewhere() {
  static auto* const devices = new std::map<uintptr_t, int>();
  return *devices;
}

}  // namespace

int device_count() { return 1; }
int device_of(const void* address) {
  const auto found = elsewhere().find(reinterpret_cast<uintptr_t>(address));
  return found == elsewhere().end() ? 0 : found->second;
}
std::string runtime_version() { return "emulated"; }
int current_device() { return 0; }
int multiprocessors() { return multiprocessor_count; }
std::size_t shared_limit() { return shared_bytes; }
void allow_shared(const void*, std::size_t bytes, std::size_t own) {
  RANDLA_REQUIRE(bytes + own <= shared_bytes, "more shared memory than the device has");
}
void check_launch() {}

namespace emulated {

void bind(pybind11::module_& m) {
  namespace py = pybind11;
  m.def("_set_order", &set_order, py::arg("order"), "0 ascending, 1 descending, others pseudo-random.");
  m.def("_watch", &watch, py::arg("wanted"), "Whether launches throw for races.");
  m.def("_launched", &launched, "Kernels since then.");
  m.def(
      "_set_device",
      [](std::size_t shared, int count) { shared_bytes = shared, multiprocessor_count = count; },
      py::arg("shared_bytes"), py::arg("multiprocessors"));
  m.def(
      "_place", [](uintptr_t address, int device) { elsewhere()[address] = device; }, py::arg("address"), py::arg("device"),
      "Makes an address one of another device, of the host where that is -1.");
  m.def("_faulty", &run_faulty, py::arg("fault"), py::arg("out"), "Runs a kernel with a fault that the emulation must find.");
}

}  // namespace emulated
}  // namespace randla::cuda
