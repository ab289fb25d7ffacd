#pragma once

#include <cstddef>
#include <cstdint>

namespace randla::cuda {

struct SortedPairs {
  const uint32_t *keys, *values;
  uint32_t *sorted_keys, *sorted_values;
};

// Sorts by the lowest `bits` of the keys; pairs of one key stay in their order. `memory` holds sort_bytes(count, bits).
std::size_t sort_bytes(int64_t count, int bits);
void sort_pairs(const SortedPairs& pairs, int64_t count, int bits, void* memory, std::size_t bytes, uintptr_t stream);

}  // namespace randla::cuda
