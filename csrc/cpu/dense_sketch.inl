// Tiles of the dense sketches, made where they are needed; lanes run along columns.

namespace randla::cpu {
namespace {

typedef uint64_t Quads __attribute__((vector_size(kNativeBytes)));
typedef double Doubles __attribute__((vector_size(kNativeBytes)));
typedef float Singles __attribute__((vector_size(kNativeBytes / 2)));
constexpr int kQuads = kNativeBytes / 8;

// Products of the low halves: said to the compiler, which would else multiply all 64 bits.
inline __attribute__((always_inline)) Quads times_low(Quads a, uint64_t b) {
#if RANDLA_NATIVE_BYTES == 64
  return (Quads)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(static_cast<long long>(b)));
#elif RANDLA_NATIVE_BYTES == 32
  return (Quads)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(static_cast<long long>(b)));
#elif RANDLA_X86
  return (Quads)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(static_cast<long long>(b)));
#else
  return (a & 0xffffffffu) * b;
#endif
}

inline __attribute__((always_inline)) Doubles square_root(Doubles x) {
#if RANDLA_NATIVE_BYTES == 64
  return (Doubles)_mm512_sqrt_pd((__m512d)x);
#elif RANDLA_NATIVE_BYTES == 32
  return (Doubles)_mm256_sqrt_pd((__m256d)x);
#elif RANDLA_X86
  return (Doubles)_mm_sqrt_pd((__m128d)x);
#else
  for (int l = 0; l < kQuads; ++l) x[l] = std::sqrt(x[l]);
  return x;
#endif
}

// The ten rounds on V vectors of counters; several vectors together hide the latency of a multiplication.
template <int V>
inline __attribute__((always_inline)) void philox_rounds(Quads* c0, Quads* c1, Quads* c2, Quads* c3, uint64_t seed, Quads* u0,
                                                         Quads* u1) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int v = 0; v < V; ++v) {
      // High halves carry rubbish from round to round: neither products nor the final masks look at them.
      const Quads p0 = times_low(c0[v], kPhiloxM0), p1 = times_low(c2[v], kPhiloxM1);
      c0[v] = (p1 >> 32) ^ c1[v] ^ k0;
      c2[v] = (p0 >> 32) ^ c3[v] ^ k1;
      c1[v] = p1;
      c3[v] = p0;
    }
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  for (int v = 0; v < V; ++v) {
    u0[v] = (c0[v] & 0xffffffffu) | c1[v] << 32;
    u1[v] = (c2[v] & 0xffffffffu) | c3[v] << 32;
  }
}

// Philox words U0, U1 of V vectors of columns.
template <int V>
inline __attribute__((always_inline)) void philox_lanes(int64_t column, uint32_t sub, uint32_t stream, uint64_t seed, Quads* u0,
                                                        Quads* u1) {
  Quads step = {};
  for (int l = 0; l < kQuads; ++l) step[l] = static_cast<uint64_t>(l);
  Quads c0[V], c1[V], c2[V], c3[V];
  for (int v = 0; v < V; ++v) {
    c0[v] = step + static_cast<uint64_t>(column + kQuads * v);
    c1[v] = c0[v] >> 32;
    c2[v] = Quads{} + sub;
    c3[v] = Quads{} + stream;
  }
  philox_rounds<V>(c0, c1, c2, c3, seed, u0, u1);
}

inline __attribute__((always_inline)) void store_doubles(double* to, Doubles v) { __builtin_memcpy(to, &v, sizeof v); }
inline __attribute__((always_inline)) void store_doubles(float* to, Doubles v) {
  const Singles narrow = __builtin_convertvector(v, Singles);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}

// The first `count` of the columns in V vectors.
template <class T, int V>
inline __attribute__((always_inline)) void store_columns(T* to, const Doubles* v, int64_t count) {
  if (count >= kQuads * V) {
    for (int k = 0; k < V; ++k) store_doubles(to + kQuads * k, v[k]);
    return;
  }
  T all[kQuads * V];
  for (int k = 0; k < V; ++k) store_doubles(all + kQuads * k, v[k]);
  __builtin_memcpy(to, all, static_cast<size_t>(count) * sizeof(T));
}

constexpr int kDenseVectors = 2;

// Rows come in pairs (2p, 2p + 1).
template <class T>
void gaussian_columns(Matrix<T> out, int64_t pair, int64_t i0, int64_t j0, int64_t c0, int64_t c1, double scale, uint64_t seed) {
  constexpr int V = kDenseVectors;
  for (int64_t j = c0; j < c1; j += kQuads * V) {
    Quads u0[V], u1[V];
    philox_lanes<V>(j0 + j, static_cast<uint32_t>(pair), kGaussian, seed, u0, u1);
    Doubles z[2][V];
    for (int v = 0; v < V; ++v) {
      const GaussianPair<Doubles> g = gaussian_pair(square_root(gaussian_square<Doubles>(u0[v])), u1[v]);
      z[0][v] = g.first * scale;
      z[1][v] = g.second * scale;
    }
    for (int h = 0; h < 2; ++h) {
      const int64_t i = 2 * pair + h - i0;
      if (i >= 0 && i < out.rows) store_columns<T, V>(out.at(i, j), z[h], c1 - j);
    }
  }
}

// One call of Philox gives the signs of 128 rows of a column.
template <class T>
void rademacher_columns(Matrix<T> out, int64_t group, int64_t i0, int64_t j0, int64_t c0, int64_t c1, double scale,
                        uint64_t seed) {
  constexpr int V = kDenseVectors;
  const Quads magnitude = same_bits<Quads>(Doubles{} + scale);
  for (int64_t j = c0; j < c1; j += kQuads * V) {
    Quads u[2][V];
    philox_lanes<V>(j0 + j, static_cast<uint32_t>(group), kRademacher, seed, u[0], u[1]);
    for (int h = 0; h < 2; ++h)
      for (int bit = 0; bit < 64; ++bit) {
        const int64_t i = group * DenseSketch::kSignsPerCall + 64 * h + bit - i0;
        if (i < 0 || i >= out.rows) continue;
        Doubles z[V];
        for (int v = 0; v < V; ++v)
          z[v] = same_bits<Doubles>(magnitude ^ ((u[h][v] << (63 - bit)) & 0x8000000000000000u));
        store_columns<T, V>(out.at(i, j), z, c1 - j);
      }
  }
}

// out = S[i0 : i0 + rows, j0 : j0 + cols] by this thread alone.
template <class T>
void dense_rows(const DenseSketch& s, Matrix<T> out, int64_t i0, int64_t j0) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.d));
  const bool gaussian = s.family == Dense::kGaussian;
  const int64_t height = s.rows_per_call();
  for (int64_t group = i0 / height; group * height < i0 + out.rows; ++group) {
    if (gaussian)
      gaussian_columns<T>(out, group, i0, j0, 0, out.cols, scale, s.seed);
    else
      rademacher_columns<T>(out, group, i0, j0, 0, out.cols, scale, s.seed);
  }
}

template <class T>
void dense_sketch(const DenseSketch& s, Matrix<T> out, int64_t i0, int64_t j0) {
  if (out.rows == 0 || out.cols == 0) return;
  constexpr int64_t strip = 4096;
  // Whole calls of Philox per piece.
  const int64_t height = s.rows_per_call(), strips = (out.cols + strip - 1) / strip;
  const int64_t first = i0 / height, groups = (i0 + out.rows + height - 1) / height - first;
  parallel_for(groups * strips, [&](int64_t piece) {
    const int64_t group = first + piece / strips, c0 = piece % strips * strip, c1 = c0 + strip < out.cols ? c0 + strip : out.cols;
    const int64_t r0 = group * height > i0 ? group * height - i0 : 0, end = (group + 1) * height - i0;
    const int64_t r1 = end < out.rows ? end : out.rows;
    dense_rows<T>(s, {out.at(r0, c0), r1 - r0, c1 - c0, out.row_stride, out.col_stride}, i0 + r0, j0 + c0);
  });
}

}  // namespace
}  // namespace randla::cpu
