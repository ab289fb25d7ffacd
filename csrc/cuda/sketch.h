// What the kernels of sketches share: 16 bytes of a row at a time, column-major matrices turned strip by strip, transforms of
// rows.
#pragma once

#include "cuda/block.h"
#include "cuda/kernels.h"

namespace randla::cuda {

// N neighbouring elements, loaded and stored at once.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T v[N];
};

template <class T>
constexpr int kPack = 16 / sizeof(T);

inline bool whole_packs(const void* data, int64_t cols, int64_t row_stride, int64_t col_stride, int64_t size) {
  return col_stride == 1 && cols * size % 16 == 0 && row_stride * size % 16 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// Whether rows are contiguous and consist of aligned packs.
template <class T>
bool whole_packs(Matrix<T> a) {
  return whole_packs(a.data, a.cols, a.row_stride, a.col_stride, sizeof(T));
}

// N elements of a row of which consecutive ones lie `stride` apart; one load where N > 1.
template <class T, int N>
RANDLA_HD Pack<T, N> load_pack(const T* from) {
  require_aligned(from, sizeof(Pack<T, N>));
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <class T, int N>
RANDLA_HD void store_pack(T* to, const Pack<T, N>& v) {
  require_aligned(to, sizeof(Pack<T, N>));
  *reinterpret_cast<Pack<T, N>*>(to) = v;
}

// The same for memory of the device, said so that the compiler cannot take it apart.
template <class T, int N>
RANDLA_HD void store_global(T* to, const Pack<T, N>& v) {
#ifdef __CUDA_ARCH__
  const std::size_t at = __cvta_generic_to_global(to);
  if constexpr (sizeof(T) == 4 && N == 4)
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(at), "f"(v.v[0]), "f"(v.v[1]), "f"(v.v[2]), "f"(v.v[3])
                 : "memory");
  else if constexpr (sizeof(T) == 4 && N == 2)
    asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(at), "f"(v.v[0]), "f"(v.v[1]) : "memory");
  else if constexpr (sizeof(T) == 8 && N == 2)
    asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(at), "d"(v.v[0]), "d"(v.v[1]) : "memory");
  else
#endif
    store_pack<T, N>(to, v);
}

// Sketches of row-major matrices read whole rows. A column-major one is turned by strips of columns first: its bytes move three
// times, where reading a few neighbouring bytes of every column at a time would move them eight times.
constexpr int64_t kStripBytes = int64_t(1) << 28;

// to (A.rows, A.cols), contiguous, = A, whose columns are contiguous.
template <class T>
void turn(Matrix<const T> A, T* to, Stream stream);

// f(strip of A, first column of it) for A as it is, or strip by strip turned into `memory` (A.rows, strip_columns(A)).
template <class T, class F>
void by_strips(Matrix<const T> A, T* memory, Stream stream, F&& f) {
  const int64_t width = strip_columns(A);
  if (width == 0) return f(A, int64_t(0));
  for (int64_t c = 0; c < A.cols; c += width) {
    const int64_t cols = A.cols - c < width ? A.cols - c : width;
    turn<T>({A.data + c * A.col_stride, A.rows, cols, 1, A.col_stride}, memory, stream);
    f(Matrix<const T>{memory, A.rows, cols, cols, 1}, c);
  }
}

// Stages of a Walsh-Hadamard transform between the rows of a matrix (rows, cols), of which `from` has those from from_first on;
// the others are zero. Rows are multiplied by their signs first (bit i of the words for row i, 1 = minus; null for none).
template <class T>
struct TransformPass {
  Matrix<const T> from;
  int64_t from_first;
  Matrix<T> to;  // contiguous rows
  int64_t rows, cols;
  int bits, stride_bits;   // stages of stride 2^stride_bits .. 2^(stride_bits + bits - 1) rows
  int inside, inside_end;  // before them those of stride inside .. inside_end / 2 elements, of rows of at most 128 bytes
  const uint64_t* signs;
  T scale;
};

// Passes for 2^bits rows: one where a tile of that many fits shared memory, else tiles of which several fit a multiprocessor.
int transform_passes(int bits);

template <class T>
void transform_pass(const TransformPass<T>& pass, Stream stream);

}  // namespace randla::cuda
