// Work in independent pieces. The pieces are cut by the caller from the shapes alone, so results cannot depend on the number
// of threads; this file only decides who does which piece.
#pragma once

#include <cstdint>

namespace randla::cpu {

// How many threads the calling thread may use: OpenMP's setting where the build has OpenMP (OMP_NUM_THREADS,
// omp_set_num_threads, threadpoolctl), else what set_num_threads said, else the processors.
int max_threads();
void set_num_threads(int threads);
bool has_openmp();

// Index of this thread among those of the current run_pieces, 0 for the caller; below min(pieces, max_threads()), by which
// callers size the scratch memory that they cut by it.
int thread_index();

// Calls piece(context, i) for every i in [0, pieces) on up to max_threads() threads and waits. An exception of a piece is
// thrown to the caller after the others have ended. A call made while another one runs (from a second Python thread, or from
// a piece) is run by its caller alone.
void run_pieces(int64_t pieces, void (*piece)(const void* context, int64_t i), const void* context);

namespace {

template <class Function>
void parallel_for(int64_t pieces, const Function& piece) {
  run_pieces(
      pieces, [](const void* context, int64_t i) { (*static_cast<const Function*>(context))(i); }, &piece);
}

}  // namespace
}  // namespace randla::cpu
