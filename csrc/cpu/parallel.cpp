#include "cpu/parallel.h"

#include <atomic>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(_OPENMP) && !defined(_WIN32)
#include <pthread.h>
#endif

namespace randla::cpu {

#ifdef _OPENMP
namespace {

std::atomic<bool> forked{false};

[[maybe_unused]] const int registered = [] {
#ifndef _WIN32
  return pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
#else
  return 0;
#endif
}();

}  // namespace

int max_threads() { return forked.load(std::memory_order_relaxed) ? 1 : omp_get_max_threads(); }
void set_num_threads(int threads) { omp_set_num_threads(threads); }
int thread_index() { return omp_get_thread_num(); }
bool has_openmp() { return true; }
#else
int max_threads() { return 1; }
void set_num_threads(int) {}
int thread_index() { return 0; }
bool has_openmp() { return false; }
#endif

}  // namespace randla::cpu
