// A kernel is written as the phases between the barriers of a block of threads. nvcc makes it a kernel of a device; any other
// compiler (RANDLA_EMULATED) runs it on the processor, one thread after another, which finds wrong indices, though not races.
//
// A kernel K is a struct of plain values with
//   static constexpr int kThreads, kPhases;      threads of a block, phases of a step
//   struct State { ... };                        what a thread keeps from phase to phase: registers
//   int64_t steps(const Lane&) const;            the same for all threads of a block
//   template <int P> void phase(const Lane&, State&, Step) const;
// and, where phase P ends in sums over the block, with
//   static constexpr int sums(int P);            how many of State::sum become their sums over all threads, in a fixed order
// Phases end in a barrier if there are several of them. And where a kernel wants it:
//   static constexpr int kTeam;                  threads that work and wait together: below a warp a power of two, or whole warps
//   static constexpr int dealt(int P);           how many of State::sum, a power of two, are added over each team, for all threads
//                                                of the team to read with dealt_sum until the phase P of the next step
//   static constexpr int kApart;                 only threads that a multiple of so many lie apart are added: sum n of thread t
//                                                is read as n kApart + t % kApart
//   static constexpr bool free(int P);           no barrier after phase P
//   static constexpr int kOpening, kClosing;     phases before the first step and after the last one, ending in a barrier of the
//   template <int P> void open(const Lane&, State&) const;                                                               block
//   template <int P> void close(const Lane&, State&) const;
//   static constexpr int kBlocks;                blocks that a multiprocessor must have registers for
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common/random.h"

#ifdef RANDLA_EMULATED
#include <vector>
#else
#include "cuda/runtime.h"
#endif

namespace randla::cuda {

struct Lane {
  int thread, threads;
  int64_t x, y;  // of the block
  char* shared;
  char* dealt = nullptr;
};

struct Grid {
  int64_t x, y = 1;
  std::size_t shared = 0;  // bytes of each block
};

struct Step {
  int64_t index, count;

  RANDLA_HD bool last() const { return index + 1 == count; }
};

constexpr int kWarp = 32;

template <class K, int P, class = void>
struct SumsAfter {
  static constexpr int value = 0;
};
template <class K, int P>
struct SumsAfter<K, P, decltype(void(K::sums(P)))> {
  static constexpr int value = K::sums(P);
};

template <class K, int P = 0>
constexpr int most_sums() {
  if constexpr (P == K::kPhases) {
    return 0;
  } else {
    constexpr int rest = most_sums<K, P + 1>();
    return SumsAfter<K, P>::value > rest ? SumsAfter<K, P>::value : rest;
  }
}

template <class K, class = void>
struct SumType {
  using type = double;
};
template <class K>
struct SumType<K, decltype(void(K::State::sum))> {
  using type = std::remove_extent_t<decltype(K::State::sum)>;
};

// A constant or a function of a phase that a kernel may have, and what holds where it has none.
#define RANDLA_OPTIONAL(Name, found, otherwise)             \
  template <class K, class = void>                          \
  struct Name {                                             \
    static constexpr int value = otherwise;                 \
  };                                                        \
  template <class K>                                        \
  struct Name<K, decltype(void(K::found))> {                \
    static constexpr int value = K::found;                  \
  }
#define RANDLA_OPTIONAL_OF_PHASE(Name, function)            \
  template <class K, int P, class = void>                   \
  struct Name {                                             \
    static constexpr int value = 0;                         \
  };                                                        \
  template <class K, int P>                                 \
  struct Name<K, P, decltype(void(K::function(P)))> {       \
    static constexpr int value = K::function(P);            \
  }
RANDLA_OPTIONAL(TeamOf, kTeam, K::kThreads);
RANDLA_OPTIONAL(ApartOf, kApart, 1);
RANDLA_OPTIONAL(OpeningOf, kOpening, 0);
RANDLA_OPTIONAL(ClosingOf, kClosing, 0);
RANDLA_OPTIONAL(BlocksOf, kBlocks, 1);
RANDLA_OPTIONAL_OF_PHASE(DealtAfter, dealt);
RANDLA_OPTIONAL_OF_PHASE(FreeAfter, free);
#undef RANDLA_OPTIONAL
#undef RANDLA_OPTIONAL_OF_PHASE

template <class K, int P = 0>
constexpr int most_dealt() {
  if constexpr (P == K::kPhases) {
    return 0;
  } else {
    constexpr int rest = most_dealt<K, P + 1>();
    return DealtAfter<K, P>::value > rest ? DealtAfter<K, P>::value : rest;
  }
}

// Dealt sums lie in shared memory: of every team those of its warps, which their reader adds. A warp halves the number of sums a
// thread holds with every exchange, where adding each of them over the warp would take as many exchanges for every sum.
template <class K>
constexpr int team_span() { return TeamOf<K>::value < kWarp ? TeamOf<K>::value : kWarp; }

template <class K>
constexpr int dealt_slots() { return most_dealt<K>() * ApartOf<K>::value; }

template <class K, class T = typename SumType<K>::type>
static RANDLA_HD T dealt_sum(const Lane& lane, int n) {
  constexpr int N = dealt_slots<K>(), warps = TeamOf<K>::value / team_span<K>();
  const T* from = reinterpret_cast<const T*>(lane.dealt) + lane.thread / TeamOf<K>::value * warps * N + n;
  T total = from[0];
#pragma unroll
  for (int w = 1; w < warps; ++w) total += from[w * N];
  return total;
}

#ifdef RANDLA_EMULATED

// What a span of threads does with its sums: each exchange adds those of the thread `step` places away.
template <class K, int N>
void deal_sums(std::vector<Lane>& lanes, std::vector<typename K::State>& states) {
  using T = typename SumType<K>::type;
  constexpr int span = team_span<K>(), apart = ApartOf<K>::value;
  for (size_t first = 0; first < lanes.size(); first += span)
    for (int n = 0; n < N; ++n) {
      T v[span], u[span];
      for (size_t l = 0; l < span; ++l) v[l] = states[first + l].sum[n];
      for (size_t step = span / 2; step >= apart; step /= 2) {
        for (size_t l = 0; l < span; ++l) u[l] = v[l] + v[l ^ step];
        for (size_t l = 0; l < span; ++l) v[l] = u[l];
      }
      T* const to = reinterpret_cast<T*>(lanes[first].dealt) + first / span * dealt_slots<K>() + static_cast<size_t>(n * apart);
      for (size_t l = 0; l < apart; ++l) to[l] = v[l];
    }
  for (auto& state : states)
    for (int n = 0; n < N; ++n) state.sum[n] = static_cast<T>(__builtin_nan(""));
}

// Sums in the order of the device: a butterfly within each warp, then the warps one after another.
template <class K, int N>
void sum_over_block(std::vector<typename K::State>& states) {
  const int threads = static_cast<int>(states.size()), warps = threads / kWarp;
  for (int n = 0; n < N; ++n) {
    auto total = states[0].sum[n] * 0;
    for (int w = 0; w < warps; ++w) {
      decltype(total) v[kWarp], u[kWarp];
      for (int l = 0; l < kWarp; ++l) v[l] = states[static_cast<size_t>(w * kWarp + l)].sum[n];
      for (int step = kWarp / 2; step > 0; step /= 2) {
        for (int l = 0; l < kWarp; ++l) u[l] = v[l] + v[l ^ step];
        for (int l = 0; l < kWarp; ++l) v[l] = u[l];
      }
      total = w == 0 ? v[0] : total + v[0];
    }
    for (auto& state : states) state.sum[n] = total;
  }
}

template <int P, class K>
void run_opening(const K& k, std::vector<Lane>& lanes, std::vector<typename K::State>& states) {
  if constexpr (P < OpeningOf<K>::value) {
    for (size_t t = 0; t < lanes.size(); ++t) k.template open<P>(lanes[t], states[t]);
    run_opening<P + 1>(k, lanes, states);
  }
}

template <int P, class K>
void run_closing(const K& k, std::vector<Lane>& lanes, std::vector<typename K::State>& states) {
  if constexpr (P < ClosingOf<K>::value) {
    for (size_t t = 0; t < lanes.size(); ++t) k.template close<P>(lanes[t], states[t]);
    run_closing<P + 1>(k, lanes, states);
  }
}

template <int P, class K>
void run_phases(const K& k, std::vector<Lane>& lanes, std::vector<typename K::State>& states, Step step) {
  for (size_t t = 0; t < lanes.size(); ++t) k.template phase<P>(lanes[t], states[t], step);
  if constexpr (DealtAfter<K, P>::value > 0) deal_sums<K, DealtAfter<K, P>::value>(lanes, states);
  if constexpr (SumsAfter<K, P>::value > 0) sum_over_block<K, SumsAfter<K, P>::value>(states);
  if constexpr (P + 1 < K::kPhases) run_phases<P + 1>(k, lanes, states, step);
}

template <class K>
void launch(const K& k, Grid grid, uintptr_t) {
  static_assert(K::kThreads % kWarp == 0, "blocks are whole warps");
  for (int64_t y = 0; y < grid.y; ++y)
    for (int64_t x = 0; x < grid.x; ++x) {
      // Fresh memory for every block, so that a sanitizer sees what is beyond it and nothing is left from another block.
      std::vector<double> memory((grid.shared + sizeof(double) - 1) / sizeof(double), __builtin_nan(""));
      std::vector<double> dealt(static_cast<size_t>(K::kThreads / team_span<K>() * dealt_slots<K>()), __builtin_nan(""));
      std::vector<Lane> lanes;
      for (int t = 0; t < K::kThreads; ++t)
        lanes.push_back({t, K::kThreads, x, y, reinterpret_cast<char*>(memory.data()), reinterpret_cast<char*>(dealt.data())});
      std::vector<typename K::State> states(static_cast<size_t>(K::kThreads));
      run_opening<0>(k, lanes, states);
      const int64_t steps = k.steps(lanes[0]);
      for (int64_t step = 0; step < steps; ++step) run_phases<0>(k, lanes, states, {step, steps});
      run_closing<0>(k, lanes, states);
    }
}

#elif defined(__CUDACC__)

template <class K, int N, class T>
__device__ __forceinline__ void sum_over_block(T (&sum)[N], T* between, int thread) {
  constexpr int warps = K::kThreads / kWarp;
  for (int n = 0; n < N; ++n)
    for (int step = kWarp / 2; step > 0; step /= 2) sum[n] += __shfl_xor_sync(0xffffffffu, sum[n], step);
  if constexpr (warps > 1) {
    if (thread % kWarp == 0)
      for (int n = 0; n < N; ++n) between[thread / kWarp * N + n] = sum[n];
    __syncthreads();
    for (int n = 0; n < N; ++n) {
      sum[n] = between[n];
      for (int w = 1; w < warps; ++w) sum[n] += between[w * N + n];
    }
  }
}

template <class K>
__device__ __forceinline__ void wait_for_team() {
  if constexpr (TeamOf<K>::value <= kWarp)
    __syncwarp();
  else
    __syncthreads();
}

template <class K, int N, class T>
__device__ __forceinline__ void deal_sums(const Lane& lane, T (&sum)[N]) {
  constexpr int span = team_span<K>(), apart = ApartOf<K>::value, adding = span / apart;
  int count = N;
#pragma unroll
  for (int step = span / 2; step >= apart; step /= 2) {
    if (count > 1) {
      count /= 2;
      const bool second = (lane.thread & step) != 0;
#pragma unroll
      for (int i = 0; i < N / 2; ++i)
        if (i < count) {
          const T keep = second ? sum[i + count] : sum[i], give = second ? sum[i] : sum[i + count];
          sum[i] = keep + __shfl_xor_sync(0xffffffffu, give, step);
        }
    } else {
      sum[0] += __shfl_xor_sync(0xffffffffu, sum[0], step);
    }
  }
  // Thread l of those that are added now has the sums from l N / adding on; threads that have the same one write the same value.
  const int l = lane.thread % span / apart;
  T* const to = reinterpret_cast<T*>(lane.dealt) + lane.thread / span * dealt_slots<K>() + lane.thread % apart;
#pragma unroll
  for (int i = 0; i < (N > adding ? N / adding : 1); ++i) to[(l * N / adding + i) * apart] = sum[i];
}

template <int P, class K>
__device__ __forceinline__ void run_opening(const K& k, const Lane& lane, typename K::State& state) {
  if constexpr (P < OpeningOf<K>::value) {
    k.template open<P>(lane, state);
    __syncthreads();
    run_opening<P + 1>(k, lane, state);
  }
}

template <int P, class K>
__device__ __forceinline__ void run_closing(const K& k, const Lane& lane, typename K::State& state) {
  if constexpr (P < ClosingOf<K>::value) {
    __syncthreads();
    k.template close<P>(lane, state);
    run_closing<P + 1>(k, lane, state);
  }
}

template <int P, class K, class T>
__device__ __forceinline__ void run_phases(const K& k, const Lane& lane, typename K::State& state, Step step, T* between) {
  constexpr int N = SumsAfter<K, P>::value;
  k.template phase<P>(lane, state, step);
  if constexpr (DealtAfter<K, P>::value > 0) {
    deal_sums<K>(lane, state.sum);
    wait_for_team<K>();
  } else if constexpr (N > 0)
    // Two buffers in turns: one barrier for each sum is then enough where no other phase has one.
    sum_over_block<K, N>(state.sum, between + (step.index & 1) * (K::kThreads / kWarp) * most_sums<K>(), lane.thread);
  else if constexpr (K::kPhases > 1 && !FreeAfter<K, P>::value)
    wait_for_team<K>();
  if constexpr (P + 1 < K::kPhases) run_phases<P + 1>(k, lane, state, step, between);
}

template <class K>
__global__ void __launch_bounds__(K::kThreads, BlocksOf<K>::value) run(const __grid_constant__ K k) {
  extern __shared__ __align__(16) char shared[];
  constexpr int sums = most_sums<K>() > 0 ? 2 * (K::kThreads / kWarp) * most_sums<K>() : 1;
  __shared__ typename SumType<K>::type between[sums];
  constexpr int dealt = K::kThreads / team_span<K>() * dealt_slots<K>();
  __shared__ __align__(16) typename SumType<K>::type dealt_sums[dealt > 0 ? dealt : 1];
  const Lane lane{static_cast<int>(threadIdx.x), K::kThreads, blockIdx.x, blockIdx.y, shared,
                  reinterpret_cast<char*>(dealt_sums)};
  typename K::State state;
  run_opening<0>(k, lane, state);
  const int64_t steps = k.steps(lane);
  for (int64_t step = 0; step < steps; ++step) run_phases<0>(k, lane, state, Step{step, steps}, between);
  run_closing<0>(k, lane, state);
}

template <class K>
void launch(const K& k, Grid grid, uintptr_t stream) {
  static_assert(K::kThreads % kWarp == 0, "blocks are whole warps");
  if (grid.x == 0 || grid.y == 0) return;
  allow_shared(reinterpret_cast<const void*>(&run<K>), grid.shared);
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  run<K><<<blocks, K::kThreads, grid.shared, reinterpret_cast<cudaStream_t>(stream)>>>(k);
  check_launch();
}

#endif

static RANDLA_HD constexpr int64_t divided_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

}  // namespace randla::cuda
