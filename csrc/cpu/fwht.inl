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

// Stages of stride 1 .. N / 2, halves first: of loops the compiler would keep 16 vectors in memory.
template <class V, int N>
inline __attribute__((always_inline)) void hadamard(V* v) {
  if constexpr (N > 1) {
    hadamard<V, N / 2>(v);
    hadamard<V, N / 2>(v + N / 2);
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; ++i) {
      const V a = v[i], b = v[i + N / 2];
      v[i] = a + b;
      v[i + N / 2] = a - b;
    }
  }
}

template <class V>
inline __attribute__((always_inline)) V load_as(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

constexpr int64_t kStreamBytes = 8192 * 1024;  // of a result that is written past the caches, which it would not stay in

// Stores a vector; Stream: past the caches, for rows of whole cache lines.
template <bool Stream, class T, class V>
inline __attribute__((always_inline)) void put(T* to, V v) {
#if RANDLA_X86 && RANDLA_NATIVE_BYTES == 64
  if constexpr (Stream) return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)v);
#elif RANDLA_X86 && RANDLA_NATIVE_BYTES == 32
  if constexpr (Stream) return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)v);
#elif RANDLA_X86
  if constexpr (Stream) return _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)v);
#endif
  __builtin_memcpy(to, &v, sizeof(V));
}

// After the last `put`, before other threads read.
inline void finish_stream() {
#if RANDLA_X86
  _mm_sfence();
#endif
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
constexpr int kFwhtStepBits = kNativeBytes == 64 ? 4 : 3;  // stages of which the rows fit the registers
constexpr int64_t kFwhtStrip = 256;                        // bytes of a row that two passes take in turn: less is slow to fetch
constexpr int64_t kFwhtFar = 16384 * 1024;                 // bytes of a matrix whose rows are fetched ahead

// Where the rows of a tile come from or go to: `cols` numbers each, the others up to its width are zero or dropped.
template <class T>
struct FwhtEnd {
  T* data;
  int64_t step, cols;
};

template <class T, int R, bool Stream>
void fwht_rows(FwhtEnd<const T> from, FwhtEnd<T> to, int64_t rows, int64_t h, int64_t width, T scale, const T* next) {
  using V = typename NativeOf<T>::type;
  constexpr int64_t L = kNativeBytes / sizeof(T), line = 64 / sizeof(T);
  for (int64_t block = 0, done = 0; block < rows; block += R * h)
    for (int64_t i = block; i < block + h; ++i) {
      if (next)
        for (const int64_t end = done + R; done < end; ++done)
          for (int64_t c = 0; c < width; c += line) __builtin_prefetch(next + done * from.step + c, 0, 2);
      for (int64_t c = 0; c < width; c += L) {
        V v[R];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) v[r] = load_as<V>(from.data + (i + r * h) * from.step + c);
        hadamard<V, R>(v);
        if (scale != T(1)) {
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) v[r] *= scale;
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) put<Stream>(to.data + (i + r * h) * to.step + c, v[r]);
      }
    }
}

template <class T, bool Stream>
void fwht_rows(int bits, FwhtEnd<const T> from, FwhtEnd<T> to, int64_t rows, int64_t h, int64_t width, T scale, const T* next) {
  switch (bits) {
    case 0: return fwht_rows<T, 1, Stream>(from, to, rows, h, width, scale, next);
    case 1: return fwht_rows<T, 2, Stream>(from, to, rows, h, width, scale, next);
    case 2: return fwht_rows<T, 4, Stream>(from, to, rows, h, width, scale, next);
    case 3: return fwht_rows<T, 8, Stream>(from, to, rows, h, width, scale, next);
    default: return fwht_rows<T, 1 << kFwhtStepBits, Stream>(from, to, rows, h, width, scale, next);
  }
}

template <class T>
inline int64_t elements_to_line(const T* p) {
  return static_cast<int64_t>((64 - reinterpret_cast<uintptr_t>(p) % 64) % 64 / sizeof(T));
}

// A row of any length; stream: its whole cache lines past the caches.
template <class T>
inline void fwht_copy_row(const T* from, T* to, int64_t cols, bool stream) {
  using V = typename NativeOf<T>::type;
  constexpr int64_t L = kNativeBytes / sizeof(T), line = 64 / sizeof(T);
  int64_t c = 0;
  if (stream) {
    const int64_t before = elements_to_line(to);
    for (; c < before && c < cols; ++c) to[c] = from[c];
    for (; c + line <= cols; c += line)
      for (int64_t l = 0; l < line; l += L) put<true>(to + c + l, load_as<V>(from + c + l));
  } else {
    for (; c + L <= cols; c += L) put<false>(to + c, load_as<V>(from + c));
  }
  for (; c < cols; ++c) to[c] = from[c];
}

// `next`: the rows that the next tile begins with, to be fetched, or none.
template <class T>
void fwht_tile(FwhtEnd<const T> from, FwhtEnd<T> to, int bits, int64_t width, T scale, bool stream, T* tile, const T* next) {
  const int64_t rows = int64_t(1) << bits;
  const FwhtEnd<T> own{tile, width, width};
  FwhtEnd<const T> in = from;
  if (from.cols < width) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t c = 0; c < width && next; c += 64 / static_cast<int64_t>(sizeof(T)))
        __builtin_prefetch(next + i * from.step + c, 0, 2);
      fwht_copy_row(from.data + i * from.step, tile + i * width, from.cols, false);
      for (int64_t c = from.cols; c < width; ++c) tile[i * width + c] = T(0);
    }
    in = {tile, width, width}, next = nullptr;
  }
  const int steps = bits > 2 * kFwhtStepBits ? 3 : bits > kFwhtStepBits ? 2 : 1;
  int64_t h = 1;
  for (int k = 0; k < steps; ++k) {
    const int mine = bits / steps + (k < bits % steps);
    const bool last = k + 1 == steps, leaves = last && to.cols == width;
    if (leaves && stream)
      fwht_rows<T, true>(mine, in, to, rows, h, width, scale, k == 0 ? next : nullptr);
    else
      fwht_rows<T, false>(mine, in, leaves ? to : own, rows, h, width, last ? scale : T(1), k == 0 ? next : nullptr);
    in = {tile, width, width};
    h <<= mine;
  }
  for (int64_t i = 0; i < rows && to.cols < width; ++i) fwht_copy_row(tile + i * width, to.data + i * to.step, to.cols, stream);
}

// Some columns of one (n, inner) matrix in two passes, the first one from it to `strip` and the second one from there.
template <class T>
void fwht_strip(const T* from, T* to, int bits, int64_t inner, int64_t cols, int64_t width, T scale, bool far, T* strip, T* tile) {
  const int second = bits / 2, first = bits - second;
  const int64_t near = int64_t(1) << first, groups = int64_t(1) << second;
  // Rows of the second pass would share few cache sets, were they not a line more than a power of two apart.
  const int64_t apart = near * width + 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t g = 0; g < groups; ++g) {
    const T* here = from + g * near * inner;
    fwht_tile<T>({here, inner, cols}, {strip + g * apart, width, width}, first, width, T(1), false, tile,
                 far && g + 1 < groups ? here + near * inner : nullptr);
  }
  for (int64_t i = 0; i < near; ++i)
    fwht_tile<T>({strip + i * width, apart, width}, {to + i * inner, near * inner, cols}, second, width, scale, true, tile, nullptr);
  finish_stream();
}

// Takes strips of columns through two passes, one strip after the other, where a result this large would stay in no cache
// between passes over all of it. All rows begin at the same place in a cache line; strips but the first begin with a whole
// line. False for other matrices, of which nothing is written.
template <class T>
bool fwht_by_strips(const T* from, T* to, int64_t outer, int bits, int64_t inner, T scale) {
  constexpr int64_t size = sizeof(T), L = kLanes<T>, whole = kFwhtStrip / size;
  const int64_t n = int64_t(1) << bits, bytes = outer * n * inner * size, strips = (inner + whole - 1) / whole;
  const bool whole_lines = inner % L == 0 && reinterpret_cast<uintptr_t>(to) % size == 0;
  const bool two_passes = bits > kFwhtPassBits && bits <= 2 * kFwhtPassBits;
  if (!two_passes || !whole_lines || bytes < kStreamBytes || strips * outer < max_threads()) return false;
  const int64_t before = elements_to_line(to);
  const int64_t widest = whole + (before > 0 ? L : 0), room = n * widest + (int64_t(1) << bits / 2) * L;
  const int64_t own = room + (int64_t(1) << (bits + 1) / 2) * widest;
  const Reused<T> memory(max_threads() * own);
  parallel_for(outer * strips, [&](int64_t p) {
    const int64_t q = p % strips, c0 = q == 0 ? 0 : before + q * whole, end = before + (q + 1) * whole;
    const int64_t cols = (end < inner ? end : inner) - c0, at = p / strips * n * inner + c0;
    // Wider than its columns where it does not begin with a whole line.
    const int64_t width = (cols + (q == 0 && before > 0 ? L : L - 1)) / L * L;
    T* mine = memory.data + thread_index() * own;
    fwht_strip<T>(from + at, to + at, bits, inner, cols, width, scale, bytes >= kFwhtFar, mine, mine + room);
  });
  return true;
}

template <class T>
void fwht_middle(const T* from, T* to, int64_t outer, int64_t n, int64_t inner, T scale) {
  constexpr int64_t L = kLanes<T>;
  int bits = 0;
  while ((int64_t(1) << bits) < n) ++bits;
  if (fwht_by_strips<T>(from, to, outer, bits, inner, scale)) return;
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
        const int64_t at = (group / h * (h * rows) + group % h) * inner + c0;
        fwht_tile<T>({from + at, h * inner, cols}, {to + at, h * inner, cols}, mine, width, factor, false, tile, nullptr);
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
