// Kernels with one fault each, which only some order of threads or the watch over memory shows: what tests the emulation itself.

#include "emulated/faults.h"

#include "cuda/block.h"

namespace randla::cuda::emulated {
namespace {

enum Fault { kNone, kNoBarrier, kSlowReader, kOtherWarp, kBlocks, kUnwritten, kSteps, kUnaligned, kDealtEarly };

// Each thread writes its number and reads that of another one.
template <int F>
struct Faulty {
  static constexpr int kThreads = 64, kTeam = F == kOtherWarp ? kWarp : kThreads;
  static constexpr int kPhases = F == kNoBarrier ? 1 : 2;
  static constexpr int dealt(int phase) { return F == kDealtEarly && phase == 0 ? 1 : 0; }
  static constexpr bool free(int phase) { return (F == kSlowReader || F == kDealtEarly) && phase == 1; }
  struct State {
    int32_t sum[1];
  };

  int32_t* out;

  RANDLA_HD int64_t steps(const Lane& lane) const { return F == kSteps && lane.thread == 5 ? 1 : 2; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step step) const {
    auto* const numbers = reinterpret_cast<int32_t*>(lane.shared);
    const int t = lane.thread, other = F == kOtherWarp ? (t + kWarp) % kThreads : (t + 1) % kThreads;
    if constexpr (P == 0) {
      if (F != kUnwritten || t != 7) numbers[t] = t + static_cast<int>(step.index);
      state.sum[0] = t;
      if constexpr (F == kUnaligned) require_aligned(numbers + 1, 8);
    }
    if constexpr (P + 1 == kPhases) {
      int32_t read = numbers[other];
      if constexpr (F == kDealtEarly) read = dealt_sum<Faulty>(lane, 0);
      out[F == kBlocks ? t : lane.x * kThreads + t] = read;
    }
  }
};

template <int F>
void run(int32_t* out) {
  launch(Faulty<F>{out}, {2, 1, Faulty<F>::kThreads * sizeof(int32_t)}, 0);
}

}  // namespace

void run_faulty(int fault, uintptr_t out) {
  auto* const to = reinterpret_cast<int32_t*>(out);
  switch (fault) {
    case kNone: return run<kNone>(to);
    case kNoBarrier: return run<kNoBarrier>(to);
    case kSlowReader: return run<kSlowReader>(to);
    case kOtherWarp: return run<kOtherWarp>(to);
    case kBlocks: return run<kBlocks>(to);
    case kUnwritten: return run<kUnwritten>(to);
    case kSteps: return run<kSteps>(to);
    case kUnaligned: return run<kUnaligned>(to);
    default: return run<kDealtEarly>(to);
  }
}

}  // namespace randla::cuda::emulated
