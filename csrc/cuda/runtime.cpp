#ifndef RANDLA_EMULATED

#include "cuda/runtime.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "common/require.h"

namespace randla::cuda {
namespace {

constexpr std::size_t kSharedWithoutAsking = 48 << 10;

void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next launch would report it again
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  require(cudaDeviceGetAttribute(&value, which, current_device()), "CUDA device");
  return value;
}

}  // namespace

int device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) cudaGetLastError();  // not an error of the next launch
  return error == cudaSuccess ? count : 0;
}

int device_of(const void* address) {
  cudaPointerAttributes attributes;
  require(cudaPointerGetAttributes(&attributes, address), "address of an array");
  return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged ? attributes.device : -1;
}

std::string runtime_version() {
  int version = 0;
  require(cudaRuntimeGetVersion(&version), "CUDA runtime");
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int current_device() {
  int device = 0;
  require(cudaGetDevice(&device), "CUDA device");
  return device;
}

int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }

std::size_t shared_limit() { return static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)); }

void allow_shared(const void* kernel, std::size_t bytes, std::size_t own) {
  if (bytes + own <= kSharedWithoutAsking) return;
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, std::size_t> allowed;
  const std::lock_guard<std::mutex> lock(mutex);
  std::size_t& most = allowed[{kernel, current_device()}];
  if (most >= bytes) return;
  RANDLA_REQUIRE(bytes + own <= shared_limit(), "more shared memory than the device has");
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), "shared memory");
  most = bytes;
}

void check_launch() {
  static const bool wait = [] {
    const char* value = std::getenv("RANDLA_SYNC");
    return value && *value && std::string(value) != "0";
  }();
  require(cudaGetLastError(), "CUDA launch");
  if (wait) require(cudaDeviceSynchronize(), "CUDA kernel");
}

}  // namespace randla::cuda

#endif
