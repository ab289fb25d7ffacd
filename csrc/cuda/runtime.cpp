#include "cuda/runtime.h"

#include <stdexcept>

#ifdef RANDLA_EMULATED

namespace randla::cuda {

int device_count() { return 1; }
int device_of(const void*) { return 0; }
std::string runtime_version() { return "emulated"; }
OnDevice::OnDevice(int) {}
OnDevice::~OnDevice() {}
int multiprocessors() { return 3; }
std::size_t shared_memory() { return 227 << 10; }
std::size_t shared_limit() { return 227 << 10; }
void allow_shared(const void*, std::size_t) {}
void check_launch() {}

}  // namespace randla::cuda

#else

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <utility>

namespace randla::cuda {
namespace {

constexpr std::size_t kSharedWithoutAsking = 48 << 10;

void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

int current() {
  int device = 0;
  require(cudaGetDevice(&device), "CUDA device");
  return device;
}

}  // namespace

int device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) cudaGetLastError();  // or the next launch would report it
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

OnDevice::OnDevice(int device) {
  const int now = current();
  if (now == device) return;
  require(cudaSetDevice(device), "CUDA device");
  before_ = now;
}

OnDevice::~OnDevice() {
  if (before_ >= 0) cudaSetDevice(before_);
}

int multiprocessors() {
  int count = 0;
  require(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, current()), "CUDA device");
  return count;
}

std::size_t shared_limit() {
  int bytes = 0;
  require(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, current()), "CUDA device");
  return static_cast<std::size_t>(bytes);
}

std::size_t shared_memory() {
  int bytes = 0;
  require(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, current()), "CUDA device");
  return static_cast<std::size_t>(bytes);
}

void allow_shared(const void* kernel, std::size_t bytes) {
  if (bytes <= kSharedWithoutAsking) return;
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, std::size_t> allowed;
  const std::lock_guard<std::mutex> lock(mutex);
  std::size_t& most = allowed[{kernel, current()}];
  if (most >= bytes) return;
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
