// A kernel is written as the phases between the barriers of a block of threads. nvcc makes it a kernel of a device; any other
// compiler (RANDLA_EMULATED) runs it on the processor, in any order of threads that the barriers allow, and looks for races
// (csrc/emulated).
//
// A kernel K is a struct of plain values with
//   static constexpr int kThreads, kPhases;      threads of a block, phases of a step
//   struct State { ... };                        what a thread keeps from phase to phase: registers
//   int64_t steps(const Lane&) const;            the same for all threads of a block
//   template <int P> void phase(const Lane&, State&, Step) const;
// Phases end in a barrier if there are several of them. And where a kernel wants it:
//   static constexpr int kTeam;                  threads that work and wait together: below a warp a power of two, or whole warps
//   static constexpr int dealt(int P);           how many of State::sum, a power of two, are added over each team, for all threads
//                                                of the team to read with dealt_sum until the phase P of the next step
//   static constexpr int kApart;                 only threads that a multiple of so many lie apart are added: sum n of thread t
//                                                is read as n kApart + t % kApart
//   static constexpr bool free(int P);           no barrier after phase P: what follows, up to the next barrier, must not write
//                                                what P reads or read what P writes; sums are dealt without waiting for it
//   static constexpr int kOpening, kClosing;     phases before the first step and after the last one, ending in a barrier of the
//   template <int P> void open(const Lane&, State&) const;                                                               block
//   template <int P> void close(const Lane&, State&) const;
//   static constexpr int kBlocks;                blocks that a multiprocessor must have registers for
//
// Threads of a warp need not run in step. Exchanges and waits of teams below a warp therefore name all of its 32 threads, and all
// of them come there: steps are the same for a block, and a phase from which some threads return early ends before the exchange.
// What is dealt is written before a wait (__syncwarp, which orders memory of the warp's threads, or __syncthreads) and read after
// it. Threads that deal the same sum write the same number to the same place. Where the emulation looks for races it holds each
// kernel to the barriers that are written here, and to no others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common/random.h"
#include "common/require.h"
#include "cuda/runtime.h"

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

// Bytes of shared memory that a block has beside Grid::shared.
template <class K>
constexpr std::size_t dealt_bytes() {
  return static_cast<std::size_t>(K::kThreads / team_span<K>() * dealt_slots<K>()) * sizeof(typename SumType<K>::type);
}

// What a device would refuse, or take modulo 2^32, with a message instead.
template <class K>
void require_launch(Grid grid) {
  static_assert(K::kThreads % kWarp == 0 && K::kThreads <= 1024, "blocks are whole warps");
  static_assert(sizeof(K) <= 4096, "arguments of a kernel");
  RANDLA_REQUIRE(grid.x >= 0 && grid.x <= INT32_MAX && grid.y >= 0 && grid.y <= 65535, "too large for one launch");
}

#ifdef __CUDACC__

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

template <int P, class K>
__device__ __forceinline__ void run_phases(const K& k, const Lane& lane, typename K::State& state, Step step) {
  k.template phase<P>(lane, state, step);
  if constexpr (DealtAfter<K, P>::value > 0) {
    deal_sums<K>(lane, state.sum);
    wait_for_team<K>();
  } else if constexpr (K::kPhases > 1 && !FreeAfter<K, P>::value) {
    wait_for_team<K>();
  }
  if constexpr (P + 1 < K::kPhases) run_phases<P + 1>(k, lane, state, step);
}

template <class K>
__device__ __forceinline__ char* dealt_memory() {
  if constexpr (dealt_bytes<K>() > 0) {
    __shared__ __align__(16) char dealt[dealt_bytes<K>()];
    return dealt;
  }
  return nullptr;
}

template <class K>
__global__ void __launch_bounds__(K::kThreads, BlocksOf<K>::value) run(const __grid_constant__ K k) {
  extern __shared__ __align__(16) char shared[];
  const Lane lane{static_cast<int>(threadIdx.x), K::kThreads, blockIdx.x, blockIdx.y, shared, dealt_memory<K>()};
  typename K::State state;
  run_opening<0>(k, lane, state);
  const int64_t steps = k.steps(lane);
  for (int64_t step = 0; step < steps; ++step) run_phases<0>(k, lane, state, Step{step, steps});
  run_closing<0>(k, lane, state);
}

template <class K>
void launch(const K& k, Grid grid, uintptr_t stream) {
  require_launch<K>(grid);
  if (grid.x == 0 || grid.y == 0) return;
  allow_shared(reinterpret_cast<const void*>(&run<K>), grid.shared, dealt_bytes<K>());
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  run<K><<<blocks, K::kThreads, grid.shared, reinterpret_cast<cudaStream_t>(stream)>>>(k);
  check_launch();
}

#endif

// Addresses of packs: elsewhere a device stops the program.
static RANDLA_HD void require_aligned([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes) {
#ifdef RANDLA_EMULATED
  RANDLA_REQUIRE(reinterpret_cast<uintptr_t>(address) % bytes == 0, "a pack that is not aligned");
#endif
}

static RANDLA_HD constexpr int64_t divided_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

}  // namespace randla::cuda

#ifdef RANDLA_EMULATED
#include "emulated/launch.h"
#endif
