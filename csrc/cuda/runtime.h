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

// Makes a device the current one for as long as this lives.
class OnDevice {
 public:
  explicit OnDevice(int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = -1;
};

int multiprocessors();         // of the current device
std::size_t shared_memory();  // bytes that a block of it may have
// Bytes of shared memory that a block may have on the current device.
std::size_t shared_limit();
// Allows a kernel more than 48 KB of shared memory on the current device.
void allow_shared(const void* kernel, std::size_t bytes);
// Throws for the error of the last launch; with RANDLA_SYNC=1 waits for the device first.
void check_launch();

}  // namespace randla::cuda
