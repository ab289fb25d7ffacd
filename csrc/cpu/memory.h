// Memory of results and of scratch space. What is given back is kept for the next call, up to kKeptBytes in all: fresh pages
// cost as much as a product that fills them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace randla::cpu {

constexpr std::size_t kKeptBytes = std::size_t(64) << 20;

// Aligned to a cache line, from 2 MB on to huge pages. Throws std::bad_alloc.
void* take_memory(std::size_t bytes);
// `bytes` as it was taken.
void give_memory(void* data, std::size_t bytes) noexcept;
std::size_t kept_memory() noexcept;
void release_memory() noexcept;

namespace {

template <class T>
struct Reused {
  const std::size_t bytes;
  T* const data;
  explicit Reused(int64_t count)
      : bytes(static_cast<std::size_t>(count > 0 ? count : 1) * sizeof(T)), data(static_cast<T*>(take_memory(bytes))) {}
  ~Reused() { give_memory(data, bytes); }
  Reused(const Reused&) = delete;
  Reused& operator=(const Reused&) = delete;
};

}  // namespace
}  // namespace randla::cpu
