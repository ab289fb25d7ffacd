// Fixed 64-byte vectors. Every instruction set computes with the same lanes in the same order (narrower ones in pieces), which
// is what makes results equal bit for bit; included inside the target region of each isa_*.cpp.
#pragma once

namespace randla::cpu {
namespace {

// Size of the processor's own vectors, said by each isa_*.cpp (GCC defines no macros inside its target regions). For kernels
// that add nothing across lanes: there the size of vectors cannot change a bit.
constexpr int kNativeBytes = RANDLA_NATIVE_BYTES;

template <class T>
struct LanesOf;
template <>
struct LanesOf<double> {
  typedef double type __attribute__((vector_size(64)));
};
template <>
struct LanesOf<float> {
  typedef float type __attribute__((vector_size(64)));
};

template <class T>
using Lanes = typename LanesOf<T>::type;
template <class T>
constexpr int kLanes = 64 / sizeof(T);

typedef float HalfFloats __attribute__((vector_size(32)));

template <class T>
inline __attribute__((always_inline)) Lanes<T> load(const T* p) {
  Lanes<T> v;
  __builtin_memcpy(&v, p, 64);
  return v;
}

template <class T>
inline __attribute__((always_inline)) void store(T* p, Lanes<T> v) {
  __builtin_memcpy(p, &v, 64);
}

// Eight elements as doubles, whatever they are stored as.
inline __attribute__((always_inline)) Lanes<double> load_doubles(const double* p) { return load(p); }
inline __attribute__((always_inline)) Lanes<double> load_doubles(const float* p) {
#if RANDLA_NATIVE_BYTES == 64
  return (Lanes<double>)_mm512_cvtps_pd(_mm256_loadu_ps(p));  // GCC converts in halves
#else
  HalfFloats v;
  __builtin_memcpy(&v, p, 32);
  return __builtin_convertvector(v, Lanes<double>);
#endif
}

inline __attribute__((always_inline)) double sum(Lanes<double> v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// The sums of eight vectors, each added in the order of `sum`.
inline __attribute__((always_inline)) Lanes<double> sum8(const Lanes<double>* v) {
  Lanes<double> halves[4], quarters[2];
  for (int i = 0; i < 4; ++i)
    halves[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11) +
                __builtin_shufflevector(v[2 * i], v[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15);
  for (int i = 0; i < 2; ++i)
    quarters[i] = __builtin_shufflevector(halves[2 * i], halves[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
                  __builtin_shufflevector(halves[2 * i], halves[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
  // Rows are now in the order 0 2 1 3 and 4 6 5 7.
  const Lanes<double> sums = __builtin_shufflevector(quarters[0], quarters[1], 0, 8, 2, 10, 4, 12, 6, 14) +
                             __builtin_shufflevector(quarters[0], quarters[1], 1, 9, 3, 11, 5, 13, 7, 15);
  return __builtin_shufflevector(sums, sums, 0, 4, 2, 6, 1, 5, 3, 7);
}

template <class T>
struct EightOf {
  typedef T type __attribute__((vector_size(8 * sizeof(T))));
};

// to[j * to_stride + i] = from[i * from_stride + j] for an 8 x 8 tile.
template <class T>
inline __attribute__((always_inline)) void transpose8(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  using Eight = typename EightOf<T>::type;
  Eight a[8], b[8];
  for (int i = 0; i < 8; ++i) __builtin_memcpy(&a[i], from + i * from_stride, sizeof(Eight));
  for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      a[i + j] = __builtin_shufflevector(b[i + j], b[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      a[i + j + 2] = __builtin_shufflevector(b[i + j], b[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int j = 0; j < 4; ++j) {
    const Eight low = __builtin_shufflevector(a[j], a[j + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    const Eight high = __builtin_shufflevector(a[j], a[j + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    __builtin_memcpy(to + j * to_stride, &low, sizeof(Eight));
    __builtin_memcpy(to + (j + 4) * to_stride, &high, sizeof(Eight));
  }
}

// y += factor * x.
template <class T>
inline __attribute__((always_inline)) void add_scaled(T* y, const T* x, T factor, int64_t count) {
  constexpr int L = kLanes<T>;
  int64_t i = 0;
  for (; i + L <= count; i += L) store(y + i, load(y + i) + load(x + i) * factor);
  for (; i < count; ++i) y[i] += x[i] * factor;
}

// Cache-line aligned memory for the time of one call.
template <class T>
struct Scratch {
  T* data;
  explicit Scratch(int64_t count)
      : data(static_cast<T*>(::operator new(static_cast<size_t>(count > 0 ? count : 1) * sizeof(T), std::align_val_t{64}))) {}
  ~Scratch() { ::operator delete(data, std::align_val_t{64}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

// A tile of A, rows [i0, i0 + rows) and columns [j0, j0 + cols), as contiguous rows of `width` elements, zero beyond cols.
template <class T>
void pack(Matrix<const T> A, int64_t i0, int64_t rows, int64_t j0, int64_t cols, T* to, int64_t width) {
  if (cols < width)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = cols; j < width; ++j) to[i * width + j] = T(0);
  if (A.col_stride == 1) {
    for (int64_t i = 0; i < rows; ++i)
      __builtin_memcpy(to + i * width, A.at(i0 + i, j0), static_cast<size_t>(cols) * sizeof(T));
    return;
  }
  if (A.row_stride == 1) {
    const int64_t whole = rows / 8 * 8;
    int64_t j = 0;
    for (; j + 8 <= cols; j += 8)
      for (int64_t i = 0; i < whole; i += 8) transpose8(A.at(i0 + i, j0 + j), A.col_stride, to + i * width + j, width);
    for (int64_t jj = 0; jj < cols; ++jj)
      for (int64_t i = jj < j ? whole : 0; i < rows; ++i) to[i * width + jj] = *A.at(i0 + i, j0 + jj);
    return;
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) to[i * width + j] = *A.at(i0 + i, j0 + j);
}

}  // namespace
}  // namespace randla::cpu
