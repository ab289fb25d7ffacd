// Random numbers of rows, made where they are wanted: the processor's would have to cross to the device, eight bytes for a row.
//
// Bytes: the numbers once. Ten rounds of two products each are about 100 instructions for eight bytes, which take an H200 about as
// long as writing these does.

#include "cuda/block.h"
#include "cuda/kernels.h"

namespace randla::cuda {
namespace {

struct Uniform {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  uint64_t first, seed;
  uint32_t sub, stream;
  int64_t count;
  double* out;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t i = lane.x * kThreads + lane.thread;
    if (i >= count) return;
    const Words u = philox(first + static_cast<uint64_t>(i), sub, stream, seed);
    out[i] = static_cast<double>(u.u0 >> 11) * (1.0 / (int64_t(1) << 53));
  }
};

}  // namespace

void uniform(int64_t first, uint32_t sub, uint32_t numbers, uint64_t seed, int64_t count, double* out, Stream stream) {
  launch(Uniform{static_cast<uint64_t>(first), seed, sub, numbers, count, out}, {divided_up(count, Uniform::kThreads)}, stream);
}

}  // namespace randla::cuda
