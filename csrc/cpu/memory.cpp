#include "cpu/memory.h"

#include <mutex>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace randla::cpu {
namespace {

constexpr std::size_t kLeastKept = std::size_t(32) << 10;  // below, the allocator of the system keeps its pages
constexpr std::size_t kHugePage = std::size_t(2) << 20;
constexpr int kMostKept = 16;

struct Block {
  void* data;
  std::size_t bytes;
};

// To whole pages: blocks of nearly the same size serve each other.
std::size_t rounded(std::size_t bytes) {
  constexpr std::size_t page = 4096;
  return bytes < kLeastKept ? bytes : (bytes + page - 1) / page * page;
}

std::align_val_t alignment(std::size_t bytes) { return std::align_val_t(bytes >= kHugePage ? kHugePage : 64); }

void* fresh(std::size_t bytes) {
  void* data = ::operator new(bytes, alignment(bytes));
#ifdef MADV_HUGEPAGE
  // Whole ones only: the rest would be taken in full too. Refused where the system has none: then these are small ones.
  if (bytes >= kHugePage) (void)madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  return data;
}

void discard(Block block) noexcept { ::operator delete(block.data, alignment(block.bytes)); }

// The oldest first. Nobody waits for it: who finds it busy asks the system. In a forked child it may stay busy for good.
class Kept {
 public:
  void* take(std::size_t bytes) noexcept {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    for (int i = lock.owns_lock() ? count_ - 1 : -1; i >= 0; --i)
      if (blocks_[i].bytes == bytes) return remove(i).data;
    return nullptr;
  }

  void give(Block block) noexcept {
    {
      const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
      if (lock.owns_lock() && block.bytes <= kKeptBytes) {
        while (count_ == kMostKept || bytes_ + block.bytes > kKeptBytes) discard(remove(0));
        blocks_[count_++] = block;
        bytes_ += block.bytes;
        return;
      }
    }
    discard(block);
  }

  std::size_t bytes() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bytes_;
  }

  void release() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (count_ > 0) discard(remove(0));
  }

 private:
  Block remove(int i) noexcept {
    const Block block = blocks_[i];
    for (--count_; i < count_; ++i) blocks_[i] = blocks_[i + 1];
    bytes_ -= block.bytes;
    return block;
  }

  std::mutex mutex_;
  Block blocks_[kMostKept];
  int count_ = 0;
  std::size_t bytes_ = 0;
};

// Never destroyed: arrays may die after all else.
Kept& kept() {
  static Kept* const all = new Kept;
  return *all;
}

}  // namespace

void* take_memory(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  void* const data = size >= kLeastKept ? kept().take(size) : nullptr;
  return data ? data : fresh(size);
}

void give_memory(void* data, std::size_t bytes) noexcept {
  const Block block{data, rounded(bytes)};
  block.bytes >= kLeastKept ? kept().give(block) : discard(block);
}

std::size_t kept_memory() noexcept { return kept().bytes(); }
void release_memory() noexcept { kept().release(); }

}  // namespace randla::cpu
