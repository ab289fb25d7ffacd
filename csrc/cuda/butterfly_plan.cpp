// Where chains are cut and how runs are tiled, by the time that the H200 should take. Bits depend on neither.

#include <algorithm>
#include <limits>
#include <numeric>

#include "cuda/butterfly.h"
#include "cuda/runtime.h"

namespace randla::cuda {
namespace {

constexpr int64_t kGoodShared = 64 << 10;  // bytes of a tile, of which several fit a multiprocessor
// Packs of a row of a tile. Threes between the powers of two come closer to what two blocks on a multiprocessor, or one, may
// have: 96 and 192 KB for rows of 1024 and 2048 numbers.
constexpr int kWidths[] = {32, 24, 16, 12, 8, 6, 4, 3, 2, 1}, kWidthCount = 10;
constexpr double kCache = 0.72;  // time of a byte between L2 and a multiprocessor where one of the memory takes 1

constexpr int64_t kTaken = 1024;  // bytes of shared memory that every block costs beside its tile, on any device

// Bytes of a tile on the current device.
int64_t most_shared() { return static_cast<int64_t>(shared_limit()) - kTaken; }

// Blocks that a multiprocessor has shared memory for.
int64_t sharing(int64_t bytes, int64_t most) { return (most + 2 * kTaken) / (bytes + kTaken + 64); }

// Time of a run over that of copying its rows in memory. The numbers of the stages come from L2 for every tile; in a chain of
// several runs rows come from there too.
double cost_of(const ChainRun& run, int size, int64_t packs, int64_t neighbours, bool alone, int64_t most) {
  const double rows = static_cast<double>(run.rows * neighbours * packs * 16);
  const double numbers = run.numbers * static_cast<double>(neighbours * size);
  const int64_t bytes = run.rows * neighbours * packs * 16 * run.sides;
  if (bytes > most) return std::numeric_limits<double>::infinity();
  const double through = kCache * (1 + numbers / (2 * rows));
  const int64_t blocks = sharing(bytes, most);
  const double idle = blocks > 2 ? 1 : blocks > 1 ? 1.05 : 1.2;                       // less loading while others add
  const double pieces = packs > 3 ? 1 : packs > 2 ? 1.2 : packs > 1 ? 1.1 : 1.6;  // parts of what the memory gives at once
  return (alone ? std::max(1.0, through) : through) * idle * pieces;
}

double best_cost(const ChainRun& run, int size, bool alone, int64_t most) {
  double best = std::numeric_limits<double>::infinity();
  for (const int packs : kWidths) best = std::min(best, cost_of(run, size, packs, 1, alone, most));
  return best;
}

ChainRun run_of(const std::vector<StageShape>& stages, int first, int last, int P) {
  ChainRun run{first, last, false, 0, 0, 0, 1, 0};
  for (int q = first; q < last; ++q) {
    const StageShape& s = stages[static_cast<size_t>(q)];
    run.blocks = std::gcd(run.blocks, s.a);
    run.stride = std::gcd(run.stride, s.d);
    run.large = run.large || !small_block(s.b, s.c);
    if (s.b != s.c) run.sides = 2;
  }
  for (int q = first; q < last; ++q) {
    const StageShape& s = stages[static_cast<size_t>(q)];
    const int64_t groups = s.a / run.blocks * (s.d / run.stride);
    run.rows = std::max(run.rows, groups * std::max(s.b, s.c));
    run.numbers += static_cast<double>(groups * s.b * s.c * P);
  }
  return run;
}

}  // namespace

std::vector<ChainRun> cut_chain(const std::vector<StageShape>& stages, int size, int P) {
  const int count = static_cast<int>(stages.size());
  const int64_t most = most_shared();
  constexpr double launch = 0.05;
  std::vector<double> best(static_cast<size_t>(count) + 1, std::numeric_limits<double>::infinity());
  std::vector<int> from(static_cast<size_t>(count) + 1, 0);
  best[0] = 0;
  for (int last = 1; last <= count; ++last)
    for (int first = last - 1; first >= std::max(0, last - kMostStages); --first) {
      const ChainRun run = run_of(stages, first, last, P);
      if (run.large && last - first > 1) break;
      const double cost = run.large ? 1 : best_cost(run, size, first == 0 && last == count, most);
      const double total = best[static_cast<size_t>(first)] + cost + launch;
      if (total < best[static_cast<size_t>(last)]) {
        best[static_cast<size_t>(last)] = total;
        from[static_cast<size_t>(last)] = first;
      }
    }
  std::vector<ChainRun> runs;
  for (int last = count; last > 0; last = from[static_cast<size_t>(last)])
    runs.push_back(run_of(stages, from[static_cast<size_t>(last)], last, P));
  std::reverse(runs.begin(), runs.end());
  return runs;
}

ChainTile tile_run(const ChainRun& run, int size, int P, int64_t batch, int64_t neighbours) {
  const int64_t across = 16 / (size * P), most = most_shared();
  neighbours = std::min(neighbours, run.stride);
  while (neighbours > 1 && run.rows * neighbours * 16 * run.sides > most) neighbours /= 2;
  int64_t packs = 1;
  double best = std::numeric_limits<double>::infinity();
  for (int k = 0; k < kWidthCount; ++k) {
    const int64_t wide = kWidths[k];
    if (wide > 1 && kWidths[k + 1] * across >= batch) continue;
    const double cost = cost_of(run, size, wide, neighbours, true, most);
    if (cost < best) best = cost, packs = wide;
  }
  const int64_t good = std::min(kGoodShared, most / 2 - kTaken);
  const auto fit = [&] { return std::max<int64_t>(1, good / (run.rows * packs * 16 * run.sides)); };
  int64_t near = neighbours, together = 1;
  const auto grow = [&] {
    const int64_t some = std::min(run.stride, fit());
    near = std::max(neighbours, some < run.stride ? some / neighbours * neighbours : some);
    together = near < run.stride ? 1 : std::max<int64_t>(1, std::min(run.blocks, fit() / run.stride));
  };
  const auto tiles = [&] {
    return (run.blocks + together - 1) / together * ((run.stride + near - 1) / near) * divided_up(batch, packs * across);
  };
  grow();
  // Smaller tiles rather than idle multiprocessors.
  while (tiles() < 2 * multiprocessors() && run.rows * near * together * packs > 256) {
    if (together > 1)
      together = (together + 1) / 2;
    else if (near > neighbours)
      near = std::max(neighbours, near / 2 / neighbours * neighbours);
    else if (packs > 2)
      packs = packs % 3 == 0 ? packs / 3 * 2 : packs / 2;
    else
      break;
  }
  // Whole lines of 128 bytes, within which packs change places.
  const int64_t bytes = divided_up(run.rows * near * together * packs, 8) * 128 * run.sides;
  return {static_cast<int>(packs), static_cast<int>(together), static_cast<int>(near), bytes, sharing(bytes, most) < 2};
}

}  // namespace randla::cuda
