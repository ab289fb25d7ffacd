// What the binding and the kernels ask of the CUDA runtime. Nothing here waits for the device, but for RANDLA_SYNC=1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace randla::cuda {

// 0 where there is no driver.
int device_count();
// The device whose memory the address is in; -1 where it is memory of the host.
int device_of(const void* address);
std::string runtime_version();

int current_device();
int multiprocessors();  // of the current device, as the following
// Bytes of shared memory that a block may have.
std::size_t shared_limit();
// Allows a kernel so much shared memory beside what it always has. 48 KB for both need no permission; this throws for more than
// the device has.
void allow_shared(const void* kernel, std::size_t bytes, std::size_t own);
// Throws for the error of the last launch; with RANDLA_SYNC=1 waits for the device first.
void check_launch();

}  // namespace randla::cuda
