// The fast Walsh-Hadamard transform: contiguous vectors, or along the middle axis of (outer, n, inner).
//
// Stages run in ascending order of their stride for every layout, so that an entry is the same tree of sums everywhere.

namespace randla::cpu {
namespace {

// Vectors of the processor's own size, for what never adds up across the lanes of one.
template <class T>
struct NativeOf;
template <>
struct NativeOf<double> {
  typedef double type __attribute__((vector_size(kNativeBytes)));
  typedef int64_t bits __attribute__((vector_size(kNativeBytes)));
};
template <>
struct NativeOf<float> {
  typedef float type __attribute__((vector_size(kNativeBytes)));
  typedef int32_t bits __attribute__((vector_size(kNativeBytes)));
};

template <class V, int N>
inline __attribute__((always_inline)) void hadamard(V* v) {
  for (int h = 1; h < N; h *= 2)
    for (int i = 0; i < N; ++i)
      if (!(i & h)) {
        const V a = v[i], b = v[i + h];
        v[i] = a + b;
        v[i + h] = a - b;
      }
}

template <class V>
inline __attribute__((always_inline)) V load_as(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// One pass over `rows` vectors: R stages of stride h, 2h, ... < R h, counted in vectors.
template <class T, class V, int R>
void fwht_pass(T* x, int64_t rows, int64_t h) {
  constexpr int64_t L = sizeof(V) / sizeof(T);
  for (int64_t block = 0; block < rows; block += R * h)
    for (int64_t i = block; i < block + h; ++i) {
      V v[R];
      for (int r = 0; r < R; ++r) v[r] = load_as<V>(x + (i + r * h) * L);
      hadamard<V, R>(v);
      for (int r = 0; r < R; ++r) __builtin_memcpy(x + (i + r * h) * L, &v[r], sizeof(V));
    }
}

// Stages of stride h .. rows / 2 of `rows` vectors in place.
template <class T, class V>
void fwht_stages(T* x, int64_t rows, int64_t h) {
  while (h < rows) {
    if (rows / h >= 8) {
      fwht_pass<T, V, 8>(x, rows, h);
      h *= 8;
    } else if (rows / h == 4) {
      fwht_pass<T, V, 4>(x, rows, h);
      h *= 4;
    } else {
      fwht_pass<T, V, 2>(x, rows, h);
      h *= 2;
    }
  }
}

template <int H, class V, class Bits, int... I>
inline __attribute__((always_inline)) V lane_stage(V v, std::integer_sequence<int, I...>) {
  // Partner lanes: the upper one becomes a - b, so its own number is negated first.
  const V swapped = __builtin_shufflevector(v, v, (I ^ H)...);
  constexpr auto minus = [](int lane) { return (lane & H) ? -1 : 0; };
  const Bits upper = {minus(I)...};
  const Bits sign = upper << (8 * sizeof(v[0]) - 1);
  return same_bits<V>(same_bits<Bits>(v) ^ sign) + swapped;
}

// Stages of stride first .. lanes / 2 inside one vector.
template <class T, int First>
inline __attribute__((always_inline)) typename NativeOf<T>::type lane_stages(typename NativeOf<T>::type v) {
  using V = typename NativeOf<T>::type;
  using Bits = typename NativeOf<T>::bits;
  constexpr int L = kNativeBytes / sizeof(T);
  constexpr auto lanes = std::make_integer_sequence<int, L>{};
  if constexpr (First <= 1 && L > 1) v = lane_stage<1, V, Bits>(v, lanes);
  if constexpr (First <= 2 && L > 2) v = lane_stage<2, V, Bits>(v, lanes);
  if constexpr (L > 4) v = lane_stage<4, V, Bits>(v, lanes);
  if constexpr (L > 8) v = lane_stage<8, V, Bits>(v, lanes);
  return v;
}

// Vectors of lanes, then a first pass over neighbours while they are in registers.
template <class T, int First, int R>
void fwht_first_pass(const T* from, T* to, int64_t n) {
  using V = typename NativeOf<T>::type;
  constexpr int L = kNativeBytes / sizeof(T);
  for (int64_t i = 0; i < n; i += R * L) {
    V v[R];
    for (int r = 0; r < R; ++r) v[r] = lane_stages<T, First>(load_as<V>(from + i + r * L));
    hadamard<V, R>(v);
    for (int r = 0; r < R; ++r) __builtin_memcpy(to + i + r * L, &v[r], sizeof(V));
  }
}

template <class T>
void scale_all(T* x, int64_t n, T scale) {
  if (scale != T(1))
    for (int64_t i = 0; i < n; ++i) x[i] *= scale;
}

// Rows of the part of a long vector that stays in L1 while its stages run.
constexpr int64_t kFwhtBytes = 32768;

// All stages of stride >= First (1, or 2 for complex numbers) of n contiguous elements; from may equal to.
template <class T, int First>
void fwht_contiguous(const T* from, T* to, int64_t n, T scale) {
  using V = typename NativeOf<T>::type;
  constexpr int64_t L = kNativeBytes / sizeof(T);
  if (n < 2 * L) {
    if (from != to) __builtin_memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
    for (int64_t h = First; h < n; h *= 2)
      for (int64_t i = 0; i < n; ++i)
        if (!(i & h)) {
          const T a = to[i], b = to[i + h];
          to[i] = a + b;
          to[i + h] = a - b;
        }
    scale_all(to, n, scale);
    return;
  }
  const int64_t part = n < kFwhtBytes / static_cast<int64_t>(sizeof(T)) ? n : kFwhtBytes / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < n; i += part) {
    if (part / L >= 8) {
      fwht_first_pass<T, First, 8>(from + i, to + i, part);
    } else if (part / L == 4) {
      fwht_first_pass<T, First, 4>(from + i, to + i, part);
    } else {
      fwht_first_pass<T, First, 2>(from + i, to + i, part);
    }
    fwht_stages<T, V>(to + i, part / L, 8);
  }
  fwht_stages<T, V>(to, n / L, part / L);
  scale_all(to, n, scale);
}

// Along the middle axis of (outer, n, inner) a pass takes 2^bits rows that lie `h` apart and as many of their columns as fit L1,
// and finishes their stages in a tile: in place they would share few cache sets, being a power of two apart. The first stages
// read from the matrix, the last ones write to it.
constexpr int kFwhtPassBits = 7;

template <class T, int R>
inline void fwht_rows(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows, int64_t h, int64_t width, T scale) {
  constexpr int64_t L = kLanes<T>;
  for (int64_t block = 0; block < rows; block += R * h)
    for (int64_t i = block; i < block + h; ++i)
      for (int64_t c = 0; c < width; c += L) {
        Lanes<T> v[R];
        for (int r = 0; r < R; ++r) v[r] = load(from + (i + r * h) * from_stride + c);
        hadamard<Lanes<T>, R>(v);
        if (scale != T(1))
          for (int r = 0; r < R; ++r) v[r] *= scale;
        for (int r = 0; r < R; ++r) store(to + (i + r * h) * to_stride + c, v[r]);
      }
}

template <class T>
void fwht_rows(int bits, const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows, int64_t h, int64_t width,
               T scale) {
  switch (bits) {
    case 0: return fwht_rows<T, 1>(from, from_stride, to, to_stride, rows, h, width, scale);
    case 1: return fwht_rows<T, 2>(from, from_stride, to, to_stride, rows, h, width, scale);
    case 2: return fwht_rows<T, 4>(from, from_stride, to, to_stride, rows, h, width, scale);
    default: return fwht_rows<T, 8>(from, from_stride, to, to_stride, rows, h, width, scale);
  }
}

template <class T>
void fwht_tile(const T* from, T* to, int bits, int64_t stride, int64_t cols, int64_t width, T scale, T* tile) {
  const int64_t rows = int64_t(1) << bits;
  const bool narrow = cols < width;
  if (narrow) pack<T>({from, rows, cols, stride, 1}, 0, rows, 0, cols, tile, width);
  const int first = bits < 3 ? bits : 3, middle = bits > 6 ? bits - 6 : 0, last = bits - first - middle;
  fwht_rows<T>(first, narrow ? tile : from, narrow ? width : stride, tile, width, rows, 1, width, T(1));
  if (middle) fwht_rows<T>(middle, tile, width, tile, width, rows, int64_t(1) << first, width, T(1));
  fwht_rows<T>(last, tile, width, narrow ? tile : to, narrow ? width : stride, rows, int64_t(1) << (first + middle), width, scale);
  if (narrow)
    for (int64_t i = 0; i < rows; ++i)
      __builtin_memcpy(to + i * stride, tile + i * width, static_cast<size_t>(cols) * sizeof(T));
}

template <class T>
void fwht_middle(const T* from, T* to, int64_t outer, int64_t n, int64_t inner, T scale) {
  constexpr int64_t L = kLanes<T>;
  int bits = 0;
  while ((int64_t(1) << bits) < n) ++bits;
  const int passes = bits > 0 ? (bits + kFwhtPassBits - 1) / kFwhtPassBits : 1;
  int64_t h = 1;
  for (int k = 0; k < passes; ++k) {
    const int mine = bits / passes + (k < bits % passes);
    const int64_t rows = int64_t(1) << mine, whole = (inner + L - 1) / L * L;
    int64_t width = kFwhtBytes / (rows * static_cast<int64_t>(sizeof(T)));
    if (width > whole) width = whole;
    const int64_t tiles = (inner + width - 1) / width, groups = outer * n / rows;
    const int64_t grain = 1 + (4096 - 1) / (rows * width), pieces = (groups * tiles + grain - 1) / grain;
    const T factor = k == passes - 1 ? scale : T(1);
    Scratch<T> memory((pieces < max_threads() ? pieces : max_threads()) * rows * width);
    parallel_for(pieces, [&](int64_t p) {
      T* tile = memory.data + thread_index() * rows * width;
      for (int64_t q = p * grain; q < (p + 1) * grain && q < groups * tiles; ++q) {
        const int64_t group = q / tiles, c0 = q % tiles * width, cols = c0 + width < inner ? width : inner - c0;
        const int64_t row = group / h * (h * rows) + group % h;
        fwht_tile<T>(from + row * inner + c0, to + row * inner + c0, mine, h * inner, cols, width, factor, tile);
      }
    });
    from = to;
    h *= rows;
  }
}

// to = scale * (H along the middle axis of `from`), both (outer, n, inner) and contiguous; to may be from. Pairs of an inner axis
// of two are complex numbers as often as not: they stay where they are.
template <class T>
void fwht(const T* from, T* to, int64_t outer, int64_t n, int64_t inner, double scale) {
  if (outer == 0 || inner == 0) return;
  const T factor = static_cast<T>(scale);
  if (inner > 2) return fwht_middle<T>(from, to, outer, n, inner, factor);
  const int64_t length = n * inner, grain = length < 4096 ? 4096 / length : 1;
  parallel_for((outer + grain - 1) / grain, [&](int64_t p) {
    for (int64_t i = p * grain; i < outer && i < (p + 1) * grain; ++i) {
      if (inner == 1)
        fwht_contiguous<T, 1>(from + i * length, to + i * length, length, factor);
      else
        fwht_contiguous<T, 2>(from + i * length, to + i * length, length, factor);
    }
  });
}

}  // namespace
}  // namespace randla::cpu
