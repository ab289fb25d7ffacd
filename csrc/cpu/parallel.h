// Work in independent pieces. The pieces are cut by the caller from the shapes alone, so results cannot depend on the number
// of threads; this file only decides who does which piece.
#pragma once

#include <cstdint>

namespace randla::cpu {

// Threads a parallel region may use now: OpenMP's setting of the calling thread (omp_set_num_threads, OMP_NUM_THREADS,
// threadpoolctl), 1 without OpenMP, and 1 in a forked child, where the runtime's threads no longer exist and a parallel
// region would wait for them forever.
int max_threads();
void set_num_threads(int threads);
int thread_index();  // of the calling thread in the current parallel region
bool has_openmp();

namespace {

template <class Function>
void parallel_for(int64_t pieces, const Function& piece) {
  const int threads = pieces > 1 ? max_threads() : 1;
  if (threads == 1) {
    for (int64_t i = 0; i < pieces; ++i) piece(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < pieces; ++i) piece(i);
}

}  // namespace
}  // namespace randla::cpu
