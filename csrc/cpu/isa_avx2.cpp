#define RANDLA_NATIVE_BYTES 32
#include "cpu/isa_headers.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#include "cpu/parallel.h"
#include "cpu/isa_body.inl"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace randla::cpu {
extern const Isa kAvx2 = {"avx2", [] { return bool(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")); }, add_pieces, loss_terms, loss_difference, gram_rows, lasso, l1_path, &kTable<float>, &kTable<double>};
}
