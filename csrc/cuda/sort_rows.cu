// The one use of a sort: pairs by key, stably. In a file of its own, for what it takes to compile.

#include "cuda/sort_rows.h"

#include "cuda/runtime.h"

#ifdef RANDLA_EMULATED
#include <algorithm>
#include <numeric>
#include <vector>
#else
#include <cub/device/device_radix_sort.cuh>
#include <stdexcept>
#include <string>
#endif

namespace randla::cuda {

#ifdef RANDLA_EMULATED

std::size_t sort_bytes(int64_t, int) { return 1; }

void sort_pairs(const SortedPairs& pairs, int64_t count, int bits, void*, std::size_t, uintptr_t) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  const uint32_t mask = bits < 32 ? (uint32_t(1) << bits) - 1 : ~uint32_t(0);
  const auto before = [&](int64_t a, int64_t b) { return (pairs.keys[a] & mask) < (pairs.keys[b] & mask); };
  std::stable_sort(order.begin(), order.end(), before);
  for (int64_t i = 0; i < count; ++i) {
    pairs.sorted_keys[i] = pairs.keys[order[static_cast<size_t>(i)]];
    pairs.sorted_values[i] = pairs.values[order[static_cast<size_t>(i)]];
  }
}

#else

namespace {

void require_sorted(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA sort: ") + cudaGetErrorName(error));
}

}  // namespace

std::size_t sort_bytes(int64_t count, int bits) {
  std::size_t bytes = 0;
  const uint32_t* from = nullptr;
  uint32_t* to = nullptr;
  require_sorted(cub::DeviceRadixSort::SortPairs(nullptr, bytes, from, to, from, to, count, 0, bits));
  return bytes;
}

void sort_pairs(const SortedPairs& pairs, int64_t count, int bits, void* memory, std::size_t bytes, uintptr_t stream) {
  require_sorted(cub::DeviceRadixSort::SortPairs(memory, bytes, pairs.keys, pairs.sorted_keys, pairs.values,
                                                 pairs.sorted_values, count, 0, bits,
                                                 reinterpret_cast<cudaStream_t>(stream)));
  check_launch();
}

#endif

}  // namespace randla::cuda
