// A grid of blocks on the processor: threads that work from barrier to barrier, in the order that watch.h gives them. A thread
// goes on into the next phase where nothing makes it wait, as far before the others as a device might let it.
//
// What a device would refuse is refused here: too many blocks, too much shared memory, packs that are not aligned.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "emulated/watch.h"

namespace randla::cuda {
namespace emulated {

// Numbers 0 .. count - 1 as `order` has them.
class Turns {
 public:
  Turns(uint64_t order, int64_t count) : order_(order), count_(static_cast<uint64_t>(count)) {
    if (order < 2 || count < 2) return;
    // A permutation by steps coprime to the count, for grids too large for a list.
    step_ = (mixed(order) % count_) | 1;
    while (divisor(step_, count_) != 1) step_ += 2;
    start_ = mixed(order + 1) % count_;
  }
  int64_t operator()(int64_t k) const {
    const auto i = static_cast<uint64_t>(k);
    return static_cast<int64_t>(order_ == 0 || count_ < 2 ? i : order_ == 1 ? count_ - 1 - i : (start_ + i * step_) % count_);
  }

  static uint64_t mixed(uint64_t x) {
    x = (x + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    return (x ^ (x >> 29)) >> 8;
  }

 private:
  static uint64_t divisor(uint64_t a, uint64_t b) { return b == 0 ? a : divisor(b, a % b); }

  uint64_t order_, count_, step_ = 1, start_ = 0;
};

// What a span of threads does with its sums: each exchange adds those of the thread `step` places away.
template <class K, int N>
void deal_sums(Lane* lanes, typename K::State* states) {
  using T = typename SumType<K>::type;
  constexpr int span = team_span<K>(), apart = ApartOf<K>::value;
  for (int first = 0; first < kWarp; first += span)
    for (int n = 0; n < N; ++n) {
      T v[span], u[span];
      for (int l = 0; l < span; ++l) v[l] = states[first + l].sum[n];
      for (int step = span / 2; step >= apart; step /= 2) {
        for (int l = 0; l < span; ++l) u[l] = v[l] + v[l ^ step];
        for (int l = 0; l < span; ++l) v[l] = u[l];
      }
      T* const to = reinterpret_cast<T*>(lanes[first].dealt) + lanes[first].thread / span * dealt_slots<K>() + n * apart;
      for (int l = 0; l < apart; ++l) to[l] = v[l];
    }
  for (int l = 0; l < kWarp; ++l)
    for (int n = 0; n < N; ++n) states[l].sum[n] = static_cast<T>(__builtin_nan(""));
}

// Phases by number, as what runs next is known only when it runs.
template <class K>
struct Phases {
  using State = typename K::State;
  enum class Wait { kNone, kWarp, kBlock };
  struct Phase {
    void (*run)(const K&, const Lane&, State&, Step);
    void (*deal)(Lane*, State*);  // of a warp, or null
    Wait wait;
  };
  static constexpr int kOpening = OpeningOf<K>::value, kClosing = ClosingOf<K>::value;
  static constexpr Wait kTeamWaits = TeamOf<K>::value <= kWarp ? Wait::kWarp : Wait::kBlock;

  template <int P>
  static Phase phase() {
    constexpr int N = DealtAfter<K, P>::value;
    Phase out{[](const K& k, const Lane& lane, State& s, Step step) { k.template phase<P>(lane, s, step); }, nullptr,
              N > 0 || (K::kPhases > 1 && !FreeAfter<K, P>::value) ? kTeamWaits : Wait::kNone};
    if constexpr (N > 0) out.deal = &deal_sums<K, N>;
    return out;
  }
  template <int P>
  static Phase opening() {
    return {[](const K& k, const Lane& lane, State& s, Step) { k.template open<P>(lane, s); }, nullptr, Wait::kBlock};
  }
  template <int P>
  static Phase closing() {
    return {[](const K& k, const Lane& lane, State& s, Step) { k.template close<P>(lane, s); }, nullptr,
            P + 1 < kClosing ? Wait::kBlock : Wait::kNone};
  }

  template <int... P>
  static std::vector<Phase> steps(std::integer_sequence<int, P...>) { return {phase<P>()...}; }
  template <int... P>
  static std::vector<Phase> openings(std::integer_sequence<int, P...>) { return {opening<P>()...}; }
  template <int... P>
  static std::vector<Phase> closings(std::integer_sequence<int, P...>) { return {closing<P>()...}; }

  std::vector<Phase> opens = openings(std::make_integer_sequence<int, kOpening>()),
                     repeats = steps(std::make_integer_sequence<int, K::kPhases>()),
                     closes = closings(std::make_integer_sequence<int, kClosing>());
};

template <class K>
class Block {
  using State = typename K::State;
  using Wait = typename Phases<K>::Wait;
  static constexpr int kThreads = K::kThreads, kWarps = kThreads / kWarp;

 public:
  Block(const K& k, std::size_t shared)
      : k_(k), bytes_(shared), dealt_((dealt_bytes<K>() + sizeof(double) - 1) / sizeof(double)), states_(kThreads) {}

  Range own() const { return {states_.data(), states_.size() * sizeof(State)}; }

  void run(int64_t x, int64_t y, uint64_t order) {
    // Fresh memory for every block, so that a sanitizer sees what is beyond it and nothing is left from another block.
    struct alignas(16) Piece {
      double v[2];
    };
    std::vector<Piece> memory((bytes_ + sizeof(Piece) - 1) / sizeof(Piece), Piece{{__builtin_nan(""), __builtin_nan("")}});
    if (!dealt_.empty()) std::memset(dealt_.data(), 0xFF, dealt_.size() * sizeof(double));  // not a number
    // Registers hold anything.
    std::memset(static_cast<void*>(states_.data()), 0xA5, states_.size() * sizeof(State));
    lanes_.clear();
    for (int t = 0; t < kThreads; ++t)
      lanes_.push_back({t, kThreads, x, y, reinterpret_cast<char*>(memory.data()), reinterpret_cast<char*>(dealt_.data())});
    begin_block(x, y, {memory.data(), bytes_}, {dealt_.data(), dealt_bytes<K>()});
    random_ = order;
    for (int t = 0; t < kThreads; ++t) at_[t] = 0;
    ready_.clear();
    for (int k = 0; k < kThreads; ++k) ready_.push_back(order == 1 ? k : kThreads - 1 - k);  // the next one at the end
    waiting_ = 0;
    for (int& count : warp_waiting_) count = 0;
    steps_ = -1;
    while (!ready_.empty()) {
      size_t pick = ready_.size() - 1;
      if (order > 1) pick = Turns::mixed(random_ += 0x632be59bd9b4e019u) % ready_.size();
      const int thread = ready_[pick];
      ready_[pick] = ready_.back();
      ready_.pop_back();
      advance(thread);
    }
  }

 private:
  // One phase of a thread, and what follows it.
  void advance(int thread) {
    const auto t = static_cast<size_t>(thread);
    const int64_t opens = Phases<K>::kOpening, place = at_[t]++;
    if (place == opens) require_steps(lanes_[t]);
    const int64_t middle = steps_ < 0 ? 0 : steps_ * K::kPhases;
    const bool opening = place < opens, closing = !opening && place >= opens + middle;
    if (closing && place == opens + middle + Phases<K>::kClosing) return;
    const int64_t in = opening ? place : closing ? place - opens - middle : (place - opens) % K::kPhases;
    const int64_t step = opening || closing ? 0 : (place - opens) / K::kPhases;
    const auto& phase = (opening ? phases_.opens : closing ? phases_.closes : phases_.repeats)[static_cast<size_t>(in)];
    begin_thread(thread, step, static_cast<int>(in));
    phase.run(k_, lanes_[t], states_[t], {step, steps_});
    end_access();
    const bool last = !opening && !closing && place + 1 == opens + middle && Phases<K>::kClosing > 0;
    const Wait wait = last ? Wait::kBlock : phase.wait;
    if (phase.deal == nullptr && wait == Wait::kNone) return ready_.push_back(thread);
    // Warps come together before blocks do: to deal their sums.
    const int warp = thread / kWarp;
    if (++warp_waiting_[warp] < kWarp) return;
    warp_waiting_[warp] = 0;
    if (phase.deal != nullptr) {
      begin_warp(warp);
      phase.deal(&lanes_[static_cast<size_t>(warp * kWarp)], &states_[static_cast<size_t>(warp * kWarp)]);
      end_access();
    }
    if (wait == Wait::kWarp) {
      warp_has_waited(warp);
      return release(warp, warp + 1);
    }
    if (++waiting_ < kWarps) return;
    waiting_ = 0;
    block_has_waited();
    release(0, kWarps);
  }

  void release(int first, int last) {
    if (order() == 1)
      for (int t = first * kWarp; t < last * kWarp; ++t) ready_.push_back(t);
    else
      for (int t = last * kWarp - 1; t >= first * kWarp; --t) ready_.push_back(t);
  }

  // Barriers are for all threads of a block or for none.
  void require_steps(const Lane& lane) {
    if (steps_ < 0 || watching()) {
      const int64_t steps = k_.steps(lane);
      if (steps_ >= 0 && steps != steps_) throw std::logic_error("threads of a block take different numbers of steps");
      steps_ = steps;
    }
  }

  const K& k_;
  std::size_t bytes_;
  Phases<K> phases_;
  std::vector<double> dealt_;
  std::vector<State> states_;
  std::vector<Lane> lanes_;
  std::vector<int> ready_;
  int64_t at_[kThreads];
  int warp_waiting_[kWarps], waiting_ = 0;
  int64_t steps_ = -1;
  uint64_t random_ = 0;
};

}  // namespace emulated

template <class K>
void launch(const K& k, Grid grid, uintptr_t) {
  require_launch<K>(grid);
  allow_shared(nullptr, grid.shared, dealt_bytes<K>());
  if (grid.x == 0 || grid.y == 0) return;
  const uint64_t order = emulated::order();
  emulated::Block<K> block(k, grid.shared);
  emulated::begin_launch(__PRETTY_FUNCTION__, block.own());
  const emulated::Turns turns(order, grid.x * grid.y);
  for (int64_t i = 0; i < grid.x * grid.y; ++i) block.run(turns(i) % grid.x, turns(i) / grid.x, order);
  emulated::end_launch();
}

}  // namespace randla::cuda
