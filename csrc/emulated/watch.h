// Which memory the threads of an emulated kernel read and write, and whether a barrier lies between two of them that meet: what
// -fsanitize=thread makes the compiler report, judged by the barriers of a device instead of the locks of the processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace randla::cuda::emulated {

struct Range {
  const void* start;
  std::size_t bytes;
};

// The order that the emulated device gives to the blocks of a grid and to the threads between barriers: 0 ascending, 1
// descending, others pseudo-random by this seed.
uint64_t order();
void set_order(uint64_t order);

bool watching();
void watch(bool wanted);
// Names of the kernels that have run since.
std::vector<std::string> launched();

// `own` is what the emulation itself keeps of the threads: their registers.
void begin_launch(const char* kernel, Range own);
void begin_block(int64_t x, int64_t y, Range shared, Range dealt);
// From here on accesses are those of a thread, or of all threads of a warp together.
void begin_thread(int thread, int64_t step, int phase);
void begin_warp(int warp);
void end_access();
void warp_has_waited(int warp);
void block_has_waited();
// Throws for the first race of the launch.
void end_launch();

}  // namespace randla::cuda::emulated
