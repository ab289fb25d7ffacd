#include "emulated/watch.h"

#include <pthread.h>

#include <set>
#include <stdexcept>
#include <unordered_map>

namespace randla::cuda::emulated {
namespace {

constexpr int kWarp = 32, kMostWarps = 32, kGranule = 4;
constexpr uintptr_t kPage = 4096;

// One read or write: by whom, and after how many barriers of the block and of the warp. The threads of a warp as a whole are
// number -1.
struct Access {
  uint64_t launch = 0;
  int64_t block = 0;
  int thread = 0, warp = 0;
  uint32_t block_waits = 0, warp_waits = 0;
  unsigned bytes = 0;  // of the granule, a bit for each
};

// A granule of memory: the last write, the last read, and the last one of another warp before it.
struct Cell {
  Access write, read, other;
};

struct Watch {
  uint64_t order = 0, launches = 0;
  bool wanted = false, active = false;
  const char* kernel = "";
  Range own{}, shared{}, dealt{};
  uintptr_t stack_low = 0, stack_high = 0;
  int64_t blocks = 0, x = 0, y = 0, step = 0;
  int phase = 0;
  Access now;
  uint32_t warp_waits[kMostWarps] = {};
  std::unordered_map<uintptr_t, std::vector<Cell>> pages;
  uintptr_t last_page = 0;
  Cell* last_cells = nullptr;
  std::string found;
  std::set<std::string> launched;
};

Watch& state() {
  static auto* const watch = new Watch();
  return *watch;
}

bool within(Range range, uintptr_t at) {
  return at - reinterpret_cast<uintptr_t>(range.start) < range.bytes;
}

Cell& cell(Watch& w, uintptr_t at) {
  const uintptr_t page = at / kPage;
  if (page != w.last_page || w.last_cells == nullptr) {
    std::vector<Cell>& cells = w.pages[page];
    if (cells.empty()) cells.resize(kPage / kGranule);
    w.last_page = page, w.last_cells = cells.data();
  }
  return w.last_cells[at % kPage / kGranule];
}

// Whether a barrier lies between an access and the one that is made now: of the block, or of the warp for threads of one warp.
// Blocks wait for each other only at the end of a launch.
bool before(const Access& a, const Access& now) {
  if (a.launch != now.launch || (a.bytes & now.bytes) == 0) return true;
  if (a.block != now.block) return false;
  if (a.thread == now.thread && a.warp == now.warp) return true;
  return a.block_waits != now.block_waits || (a.warp == now.warp && a.warp_waits != now.warp_waits);
}

std::string who(const Access& a) {
  const std::string thread = a.thread < 0 ? "warp " + std::to_string(a.warp) : "thread " + std::to_string(a.thread);
  return thread + " of block " + std::to_string(a.block);
}

void report(Watch& w, const std::string& what, uintptr_t at) {
  if (!w.found.empty()) return;
  const uintptr_t offset = at - reinterpret_cast<uintptr_t>(w.shared.start);
  const std::string where = within(w.shared, at)  ? "shared memory + " + std::to_string(offset)
                            : within(w.dealt, at) ? "dealt sums"
                                                  : "memory of the device";
  w.found = std::string(w.kernel) + ", " + where + ": " + what + " in phase " + std::to_string(w.phase) + " of step " +
            std::to_string(w.step);
}

void forget(Watch& w, Range range) {
  const auto start = reinterpret_cast<uintptr_t>(range.start);
  for (uintptr_t at = start / kGranule * kGranule; at < start + range.bytes; at += kGranule) cell(w, at) = Cell();
}

void note(Watch& w, uintptr_t at, unsigned bytes, bool writes) {
  Cell& c = cell(w, at);
  w.now.bytes = bytes;
  const Access& now = w.now;
  if (!before(c.write, now)) report(w, who(now) + (writes ? " writes what " : " reads what ") + who(c.write) + " has written", at);
  if (writes) {
    for (const Access* read : {&c.read, &c.other})
      if (!before(*read, now)) report(w, who(now) + " writes what " + who(*read) + " has read", at);
    c.write = now;
    return;
  }
  if ((within(w.shared, at) || within(w.dealt, at)) && c.write.launch == 0)
    report(w, who(now) + " reads what nobody has written", at);
  const bool apart = c.read.launch == now.launch && (c.read.block != now.block || c.read.warp != now.warp);
  const bool stale = c.other.launch != now.launch || (c.other.block == now.block && c.other.block_waits != now.block_waits);
  if (apart || (stale && c.read.thread != now.thread)) c.other = c.read;
  c.read = now;
}

void access(const void* address, std::size_t bytes, bool writes) {
  Watch& w = state();
  if (!w.active) return;
  const auto start = reinterpret_cast<uintptr_t>(address);
  if ((start >= w.stack_low && start < w.stack_high) || within(w.own, start)) return;
  const uintptr_t end = start + bytes;
  for (uintptr_t at = start / kGranule * kGranule; at < end; at += kGranule) {
    const unsigned before = at < start ? static_cast<unsigned>(start - at) : 0;
    const unsigned after = end - at < kGranule ? static_cast<unsigned>(end - at) : kGranule;
    note(w, at, ((1u << after) - 1) & ~((1u << before) - 1), writes);
  }
}

}  // namespace

uint64_t order() { return state().order; }
void set_order(uint64_t order) { state().order = order; }
bool watching() { return state().wanted; }
std::vector<std::string> launched() { return {state().launched.begin(), state().launched.end()}; }

void watch(bool wanted) {
  Watch& w = state();
  w.wanted = wanted;
  w.pages.clear();
  w.launched.clear();
  w.last_cells = nullptr;
}

void begin_launch(const char* kernel, Range own) {
  Watch& w = state();
  if (!w.wanted) return;
  pthread_attr_t attributes;
  void* low = nullptr;
  std::size_t bytes = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_destroy(&attributes);
  w.stack_low = reinterpret_cast<uintptr_t>(low), w.stack_high = w.stack_low + bytes;
  w.launched.insert(kernel);
  w.kernel = kernel, w.own = own, w.blocks = 0;
  w.found.clear();
  w.active = false;
  w.now.launch = ++w.launches;
}

void begin_block(int64_t x, int64_t y, Range shared, Range dealt) {
  Watch& w = state();
  if (!w.wanted) return;
  w.x = x, w.y = y, w.shared = shared, w.dealt = dealt;
  w.now.block = w.blocks++;
  w.now.block_waits = 0;
  for (uint32_t& waits : w.warp_waits) waits = 0;
  forget(w, shared);
  forget(w, dealt);
}

void begin_thread(int thread, int64_t step, int phase) {
  Watch& w = state();
  if (!w.wanted) return;
  w.now.thread = thread, w.now.warp = thread / kWarp, w.now.warp_waits = w.warp_waits[thread / kWarp];
  w.step = step, w.phase = phase;
  w.active = true;
}

void begin_warp(int warp) {
  begin_thread(warp * kWarp, state().step, state().phase);
  state().now.thread = -1;
}

void end_access() { state().active = false; }
void warp_has_waited(int warp) { ++state().warp_waits[warp]; }

void block_has_waited() {
  Watch& w = state();
  ++w.now.block_waits;
  for (uint32_t& waits : w.warp_waits) ++waits;
}

void end_launch() {
  Watch& w = state();
  if (!w.wanted || w.found.empty()) return;
  throw std::logic_error("race in " + w.found);
}

#define RANDLA_ACCESSES(size)                                                            \
  extern "C" void __tsan_read##size(void* at) { access(at, size, false); }               \
  extern "C" void __tsan_write##size(void* at) { access(at, size, true); }               \
  extern "C" void __tsan_unaligned_read##size(void* at) { access(at, size, false); }     \
  extern "C" void __tsan_unaligned_write##size(void* at) { access(at, size, true); }
RANDLA_ACCESSES(1)
RANDLA_ACCESSES(2)
RANDLA_ACCESSES(4)
RANDLA_ACCESSES(8)
RANDLA_ACCESSES(16)
#undef RANDLA_ACCESSES
extern "C" void __tsan_read_range(void* at, std::size_t bytes) { access(at, bytes, false); }
extern "C" void __tsan_write_range(void* at, std::size_t bytes) { access(at, bytes, true); }
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}

}  // namespace randla::cuda::emulated
