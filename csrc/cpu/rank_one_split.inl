// Left-to-right factorization into factors with blocks of two rows: every block M = [x; y] becomes u v, u = the first left
// singular vector in closed form, v = u^H M, and its rows give way to v. What is lost, ||u_perp^H M||^2, is added up as such: as a
// difference of norms it would be all rounding for matrices that are such products.

namespace randla::cpu {
namespace {

// Rows of one group that stay in L2 while all their levels run.
constexpr int64_t kSplitBytes = 393216;

inline __attribute__((always_inline)) void store_rounded(double* p, Lanes<double> v) { store(p, v); }
inline __attribute__((always_inline)) void store_rounded(float* p, Lanes<double> v) {
#if RANDLA_NATIVE_BYTES == 64
  _mm256_storeu_ps(p, _mm512_cvtpd_ps((__m512d)v));  // GCC converts in halves
#else
  const HalfFloats w = __builtin_convertvector(v, HalfFloats);
  __builtin_memcpy(p, &w, sizeof w);
#endif
}

inline __attribute__((always_inline)) Lanes<double> swap_pairs(Lanes<double> v) {
  return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
}

// Sums over two rows: |x|^2, |y|^2, x conj(y).
struct PairGram {
  double xx, yy, re, im;
};

// Complex numbers are pairs of reals in memory.
template <class T, int Parts>
PairGram pair_gram(const T* x, const T* y, int64_t count) {
  Lanes<double> xx[2] = {}, yy[2] = {}, re[2] = {}, cross[2] = {};
  auto add = [&](int s, Lanes<double> a, Lanes<double> b) {
    xx[s] += a * a;
    yy[s] += b * b;
    re[s] += a * b;
    if (Parts == 2) cross[s] += a * swap_pairs(b);
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    add(0, load_doubles(x + i), load_doubles(y + i));
    add(1, load_doubles(x + i + 8), load_doubles(y + i + 8));
  }
  if (i + 8 <= count) {
    add(0, load_doubles(x + i), load_doubles(y + i));
    i += 8;
  }
  if (i < count) {
    Lanes<double> a = {}, b = {};
    for (int64_t l = 0; i + l < count; ++l) a[l] = static_cast<double>(x[i + l]), b[l] = static_cast<double>(y[i + l]);
    add(1, a, b);
  }
  PairGram g = {sum(xx[0] + xx[1]), sum(yy[0] + yy[1]), sum(re[0] + re[1]), 0.0};
  if (Parts == 2) {
    const Lanes<double> odd_minus_even = {-1, 1, -1, 1, -1, 1, -1, 1};
    g.im = sum((cross[0] + cross[1]) * odd_minus_even);
  }
  return g;
}

// The first eigenvector of [[xx, re + i im], [re - i im, yy]], of norm one: u[0] + i u[1], u[2] + i u[3]. The larger entry is
// real and positive, and no difference of like numbers is formed, so that rows of any two sizes are told apart to rounding.
inline void first_eigenvector(PairGram g, double* u) {
  const double top = g.xx > g.yy ? g.xx : g.yy;
  u[0] = 1.0, u[1] = u[2] = u[3] = 0.0;
  if (!(top > 0.0)) return;
  const double df = (g.xx - g.yy) / top, re = g.re / top, im = g.im / top;
  const double rt = std::sqrt(df * df + 4.0 * (re * re + im * im)), c = 0.5 * (rt + (df < 0.0 ? -df : df));
  const double size = std::sqrt(c * c + re * re + im * im);
  if (!(size > 0.0)) return;
  if (df >= 0.0) {
    u[0] = c / size, u[2] = re / size, u[3] = -im / size;
  } else {
    u[0] = re / size, u[1] = im / size, u[2] = c / size;
  }
}

// v = conj(u0) x + conj(u1) y; returns the energy of u0 y - u1 x. v may be x.
template <class T, int Parts>
double project_pair(const T* x, const T* y, const double* u, T* v, int64_t count) {
  const Lanes<double> even_minus = {-1, 1, -1, 1, -1, 1, -1, 1};
  const Lanes<double> imag0 = u[1] * even_minus, imag1 = u[3] * even_minus;
  Lanes<double> lost[2] = {};
  auto both = [&](int s, Lanes<double> a, Lanes<double> b) {
    Lanes<double> kept = u[0] * a + u[2] * b, rest = u[0] * b - u[2] * a;
    if (Parts == 2) {
      const Lanes<double> ta = swap_pairs(a), tb = swap_pairs(b);
      kept -= imag0 * ta + imag1 * tb;
      rest += imag0 * tb - imag1 * ta;
    }
    lost[s] += rest * rest;
    return kept;
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const Lanes<double> first = both(0, load_doubles(x + i), load_doubles(y + i));
    const Lanes<double> second = both(1, load_doubles(x + i + 8), load_doubles(y + i + 8));
    store_rounded(v + i, first);
    store_rounded(v + i + 8, second);
  }
  if (i + 8 <= count) {
    store_rounded(v + i, both(0, load_doubles(x + i), load_doubles(y + i)));
    i += 8;
  }
  if (i < count) {
    Lanes<double> a = {}, b = {};
    for (int64_t l = 0; i + l < count; ++l) a[l] = static_cast<double>(x[i + l]), b[l] = static_cast<double>(y[i + l]);
    const Lanes<double> kept = both(1, a, b);
    for (int64_t l = 0; i + l < count; ++l) v[i + l] = static_cast<T>(kept[l]);
  }
  return sum(lost[0] + lost[1]);
}

// `levels` splits of `from` (a, b, c), b a multiple of 2^levels: rows whose numbers agree modulo b / 2^levels meet each other only.
// See `rank_one_split` in kernels.h for u, to and lost.
template <class T, int Parts>
void split_groups(const T* from, int64_t a, int64_t b, int64_t c, int levels, const int64_t* c1, T* const* u, T* to,
                  double* lost) {
  const int64_t rows = int64_t(1) << levels, b2 = b / rows, cols = c * Parts, items = a * b2;
  const int64_t grain = 1 + 65535 / (rows * cols), pieces = (items + grain - 1) / grain;
  const int64_t scratch = rows / 2 * cols;
  Scratch<T> memory((pieces < max_threads() ? pieces : max_threads()) * scratch);
  Scratch<double> partial(pieces * levels);
  parallel_for(pieces, [&](int64_t piece) {
    T* tile = memory.data + thread_index() * scratch;
    double* mine = partial.data + piece * levels;
    for (int t = 0; t < levels; ++t) mine[t] = 0.0;
    for (int64_t item = piece * grain; item < items && item < (piece + 1) * grain; ++item) {
      const int64_t i = item / b2, j2 = item % b2;
      int64_t before = 1;
      for (int t = 0; t < levels; ++t) {
        const int64_t half = rows >> (t + 1), chunks = before * c1[t], length = cols / chunks, d = half * b2;
        const bool last = t == levels - 1;
        for (int64_t p = 0; p < half; ++p) {
          const T* x = t ? tile + p * cols : from + (i * b + p * b2 + j2) * cols;
          const T* y = t ? x + half * cols : x + d * cols;
          for (int64_t q = 0; q < chunks; ++q) {
            double direction[4];
            first_eigenvector(pair_gram<T, Parts>(x + q * length, y + q * length, length), direction);
            T* v = last ? to + ((i * chunks + q) * b2 + j2) * length : tile + p * cols + q * length;
            T* first = u[t] + (((i * before + q / c1[t]) * 2 * c1[t] + q % c1[t]) * d + p * b2 + j2) * Parts;
            T* second = first + c1[t] * d * Parts;
            for (int s = 0; s < Parts; ++s) first[s] = static_cast<T>(direction[s]), second[s] = static_cast<T>(direction[2 + s]);
            mine[t] += project_pair<T, Parts>(x + q * length, y + q * length, direction, v, length);
          }
        }
        before = chunks;
      }
    }
  });
  for (int t = 0; t < levels; ++t)
    for (int64_t piece = 0; piece < pieces; ++piece) lost[t] += partial.data[piece * levels + t];
}

template <class T, int Parts>
void rank_one_split(const T* from, int64_t a, int64_t b, int64_t c, int levels, const int64_t* c1, T* const* u, T* to,
                    double* lost) {
  const int64_t size = static_cast<int64_t>(sizeof(T)) * Parts;
  int now = 1;
  while (now < levels && (c << now) * size <= kSplitBytes) ++now;
  for (int t = 0; t < now; ++t) lost[t] = 0.0;
  if (now == levels) return split_groups<T, Parts>(from, a, b, c, levels, c1, u, to, lost);
  int64_t chunks = 1;
  for (int t = 0; t < now; ++t) chunks *= c1[t];
  Scratch<T> rest(a * (b >> now) * c * Parts);
  split_groups<T, Parts>(from, a, b, c, now, c1, u, rest.data, lost);
  rank_one_split<T, Parts>(rest.data, a * chunks, b >> now, c / chunks, levels - now, c1 + now, u + now, to, lost + now);
}

}  // namespace
}  // namespace randla::cpu
