// The randomized Hadamard transform with row sampling, S = c P (H D_r) ... (H D_1), strip by strip of columns in memory of the
// call: as many columns as stay in L2 between the passes of fwht.cu, which multiply by the signs on their way. Of the last
// transform only the stages between blocks of n2 rows run; each kept row is then one signed sum over its block, as on the
// processor.

#include "cuda/sketch.h"

namespace randla::cuda {
namespace {

// Sign bits of every round, one thread for 128 places.
struct Signs {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  Srtt s;
  int64_t blocks;  // of 128 places in a round
  uint64_t* words;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t id = lane.x * kThreads + lane.thread;
    if (id >= blocks * s.rounds) return;
    const Words w = transform_signs(static_cast<uint64_t>(id % blocks), static_cast<int>(id / blocks), s.seed);
    words[2 * id] = w.u0;
    words[2 * id + 1] = w.u1;
  }
};

RANDLA_HD bool odd(int64_t bits) {
#ifdef __CUDA_ARCH__
  return (__popcll(static_cast<unsigned long long>(bits)) & 1) != 0;
#else
  return (__builtin_popcountll(static_cast<unsigned long long>(bits)) & 1) != 0;
#endif
}

// out += scale times the kept rows; a thread owns one element and reads n2 rows of the transform, d n2 <= n of them in all.
template <class T>
struct Keep {
  static constexpr int kThreads = 128, kPhases = 1;
  struct State {};

  const int64_t* kept;
  Matrix<const T> work;
  int64_t n2;
  Matrix<T> out;
  T scale;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t id = lane.x * kThreads + lane.thread, i = id / out.cols, c = id % out.cols;
    if (i >= out.rows) return;
    const int64_t mask = kept[i] & (n2 - 1);
    const T* const block = work.data + (kept[i] - mask) * work.row_stride + c;
    T sum = T(0);
#pragma unroll 8
    for (int64_t k = 0; k < n2; ++k) sum = sum + block[k * work.row_stride] * (odd(k & mask) ? T(-1) : T(1));
    T* const to = out.data + i * out.row_stride + c;
    *to = *to + sum * scale;
  }
};

// work = 0, or the rows of `work` that are kept += the rows of Y; a thread owns one element.
template <class T>
struct Put {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  const int64_t* kept;  // null for zeros everywhere
  Matrix<const T> Y;
  Matrix<T> work;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t id = lane.x * kThreads + lane.thread, i = id / work.cols, c = id % work.cols;
    if (i >= (kept == nullptr ? work.rows : Y.rows)) return;
    if (kept == nullptr) {
      work.data[i * work.row_stride + c] = T(0);
    } else {
      T* const to = work.data + kept[i] * work.row_stride + c;
      *to = *to + Y.data[i * Y.row_stride + c * Y.col_stride];
    }
  }
};

// out = scale times the signed rows of `work` from row j0 on; a thread owns one element.
template <class T>
struct Take {
  static constexpr int kThreads = 256, kPhases = 1;
  struct State {};

  Matrix<const T> work;
  int64_t j0;
  const uint64_t* signs;
  T scale;
  Matrix<T> out;

  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State&, Step) const {
    const int64_t id = lane.x * kThreads + lane.thread, i = id / out.cols, c = id % out.cols;
    if (i >= out.rows) return;
    const bool minus = ((signs[(j0 + i) >> 6] >> ((j0 + i) & 63)) & 1) != 0;
    const T v = work.data[(j0 + i) * work.row_stride + c];
    out.data[i * out.row_stride + c] = (minus ? -v : v) * scale;
  }
};

constexpr int64_t kCacheBytes = 24 << 20;

template <class T>
int64_t strip_width(const Srtt& s, int64_t cols) {
  constexpr int64_t size = sizeof(T), tile = 128 / size;
  const int64_t cached = kCacheBytes / (s.n * size) / tile * tile, stored = kStripBytes / (s.n * size) / tile * tile;
  const int64_t width = cached > 0 ? cached : stored > 0 ? stored : tile;
  const int64_t whole = divided_up(cols, kPack<T>) * kPack<T>;
  return width < whole ? width : whole;
}

int64_t block_rows(const Srtt& s) {
  const int64_t largest = s.n < 4096 ? s.n : 4096;
  int64_t n2 = 1;
  while (2 * n2 <= largest && n2 * s.d <= s.n) n2 *= 2;
  return n2;
}

int log2_of(int64_t n) {
  int bits = 0;
  while ((int64_t(1) << bits) < n) ++bits;
  return bits;
}

// All stages of stride `first` and more of the rows of `from`, the first of which is row from_first, in passes by way of
// `work`.
template <class T>
void transform(const Srtt& s, int64_t first, Matrix<const T> from, int64_t from_first, Matrix<T> work, const uint64_t* signs,
               Stream stream) {
  int done = log2_of(first);
  const int bits = log2_of(s.n) - done, passes = transform_passes(bits);
  for (int k = 0; k < passes; ++k) {
    const int mine = bits / passes + (k < bits % passes);
    const bool opening = k == 0;
    transform_pass<T>({from, opening ? from_first : 0, work, s.n, work.cols, mine, done, 1, 1, opening ? signs : nullptr, T(1)},
                      stream);
    from = {work.data, work.rows, work.cols, work.row_stride, 1};
    done += mine;
  }
}

template <class T>
Matrix<T> columns(Matrix<T> a, int64_t c, int64_t cols) {
  return {a.data + c * a.col_stride, a.rows, cols, a.row_stride, a.col_stride};
}

int64_t sign_blocks(const Srtt& s) { return divided_up(s.n, 128); }

void make_signs(const Srtt& s, uint64_t* signs, Stream stream) {
  launch(Signs{s, sign_blocks(s), signs}, {divided_up(sign_blocks(s) * s.rounds, Signs::kThreads)}, stream);
}

}  // namespace

template <class T>
int64_t srtt_work(const Srtt& s, int64_t cols) {
  return s.n * strip_width<T>(s, cols);
}

int64_t srtt_sign_words(const Srtt& s) { return 2 * sign_blocks(s) * s.rounds; }

template <class T>
void srtt(const Srtt& s, const int64_t* kept, Matrix<const T> A, int64_t j0, T* work, uint64_t* signs, Matrix<T> out,
          Stream stream) {
  if (A.rows == 0 || A.cols == 0) return;
  make_signs(s, signs, stream);
  const int64_t width = strip_width<T>(s, A.cols), n2 = block_rows(s);
  for (int64_t c = 0; c < A.cols; c += width) {
    const int64_t cols = A.cols - c < width ? A.cols - c : width;
    const Matrix<T> w{work, s.n, cols, width, 1};
    const Matrix<const T> made{work, s.n, cols, width, 1};
    for (int round = 0; round < s.rounds; ++round)
      transform<T>(s, round + 1 < s.rounds ? 1 : n2, round == 0 ? columns(A, c, cols) : made, round == 0 ? j0 : 0, w,
                   signs + 2 * sign_blocks(s) * round, stream);
    const Keep<T> keep{kept, made, n2, columns(out, c, cols), static_cast<T>(s.scale())};
    launch(keep, {divided_up(s.d * cols, Keep<T>::kThreads)}, stream);
  }
}

template <class T>
void srtt_adjoint(const Srtt& s, const int64_t* kept, Matrix<const T> Y, int64_t j0, T* work, uint64_t* signs, Matrix<T> out,
                  Stream stream) {
  if (out.rows == 0 || out.cols == 0) return;
  make_signs(s, signs, stream);
  const int64_t width = strip_width<T>(s, out.cols);
  for (int64_t c = 0; c < out.cols; c += width) {
    const int64_t cols = out.cols - c < width ? out.cols - c : width;
    const Matrix<T> w{work, s.n, cols, width, 1};
    launch(Put<T>{nullptr, {}, w}, {divided_up(s.n * cols, Put<T>::kThreads)}, stream);
    // Any n of the kept rows that follow each other are distinct.
    for (int64_t i = 0; i < s.d; i += s.n) {
      const int64_t rows = s.d - i < s.n ? s.d - i : s.n;
      const Matrix<const T> y{Y.data + i * Y.row_stride + c * Y.col_stride, rows, cols, Y.row_stride, Y.col_stride};
      launch(Put<T>{kept + i, y, w}, {divided_up(rows * cols, Put<T>::kThreads)}, stream);
    }
    const Matrix<const T> made{work, s.n, cols, width, 1};
    for (int round = s.rounds - 1; round >= 0; --round)
      transform<T>(s, 1, made, 0, w, round + 1 < s.rounds ? signs + 2 * sign_blocks(s) * (round + 1) : nullptr, stream);
    const Take<T> take{made, j0, signs, static_cast<T>(s.scale()), columns(out, c, cols)};
    launch(take, {divided_up(out.rows * cols, Take<T>::kThreads)}, stream);
  }
}

template int64_t srtt_work<float>(const Srtt&, int64_t);
template int64_t srtt_work<double>(const Srtt&, int64_t);
template void srtt<float>(const Srtt&, const int64_t*, Matrix<const float>, int64_t, float*, uint64_t*, Matrix<float>, Stream);
template void srtt<double>(const Srtt&, const int64_t*, Matrix<const double>, int64_t, double*, uint64_t*, Matrix<double>,
                           Stream);
template void srtt_adjoint<float>(const Srtt&, const int64_t*, Matrix<const float>, int64_t, float*, uint64_t*, Matrix<float>,
                                  Stream);
template void srtt_adjoint<double>(const Srtt&, const int64_t*, Matrix<const double>, int64_t, double*, uint64_t*,
                                   Matrix<double>, Stream);

}  // namespace randla::cuda
