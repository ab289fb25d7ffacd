// The randomized Hadamard transform with row sampling: S = c P (H D_r) ... (H D_1), c once at the end, so that entries of S that
// are sums of signs come out exactly. Columns are taken in strips of one vector, whatever their layout.

namespace randla::cpu {
namespace {

// Sign bits of all n places of every round, 64 to a word.
struct TransformSigns {
  Scratch<uint64_t> words;
  int64_t per_round;

  explicit TransformSigns(const Srtt& s) : words(s.rounds * ((s.n + 127) / 128) * 2), per_round((s.n + 127) / 128 * 2) {
    parallel_for((per_round / 2 + 1023) / 1024, [&](int64_t piece) {
      for (int64_t q = piece * 1024; q < per_round / 2 && q < (piece + 1) * 1024; ++q)
        for (int round = 0; round < s.rounds; ++round) {
          const Words w = transform_signs(static_cast<uint64_t>(q), round, s.seed);
          words.data[round * per_round + 2 * q] = w.u0;
          words.data[round * per_round + 2 * q + 1] = w.u1;
        }
    });
  }

  template <class T>
  void apply(int round, int64_t i0, T* part, int64_t rows) const {
    const uint64_t* bits = words.data + round * per_round;
    // Looked up: a branch on a random sign would be foreseen half of the time.
    const T sign[2] = {T(1), T(-1)};
    for (int64_t i = 0; i < rows; ++i)
      store(part + i * kLanes<T>, load(part + i * kLanes<T>) * sign[(bits[(i0 + i) >> 6] >> ((i0 + i) & 63)) & 1]);
  }
};

// A strip of n rows of one vector each, in parts that fit L2. The parts lie a few vectors further apart than they are long: rows
// a power of two apart would share few cache sets.
template <class T>
struct TransformStrip {
  static constexpr int64_t kPart = 4096, kPad = 4, L = kLanes<T>;
  T* data;
  int64_t n;

  static int64_t size(int64_t n) { return (n + (n + kPart - 1) / kPart * kPad) * L; }
  int64_t parts() const { return (n + kPart - 1) / kPart; }
  int64_t rows() const { return n < kPart ? n : kPart; }
  T* part(int64_t p) const { return data + p * (kPart + kPad) * L; }
  T* row(int64_t i) const { return part(i / kPart) + i % kPart * L; }

  // Stages of stride `first` up to half a part, in one part.
  void near(int64_t p, int64_t first) const { fwht_stages<T, Lanes<T>>(part(p), rows(), first); }

  // The stages between parts, up to six at a time in a tile of a few vectors of up to 64 parts.
  void far() const {
    constexpr int64_t most = 64;
    alignas(64) T tile[most * kPad * L];
    for (int64_t h = 1, R; h < parts(); h *= R) {
      R = parts() / h < most ? parts() / h : most;
      for (int64_t p = 0; p < parts(); ++p) {
        if (p / h % R != 0) continue;
        for (int64_t i = 0; i < kPart; i += kPad) {
          for (int64_t r = 0; r < R; ++r) __builtin_memcpy(tile + r * kPad * L, part(p + r * h) + i * L, kPad * L * sizeof(T));
          fwht_stages<T, Lanes<T>>(tile, R * kPad, kPad);
          for (int64_t r = 0; r < R; ++r) __builtin_memcpy(part(p + r * h) + i * L, tile + r * kPad * L, kPad * L * sizeof(T));
        }
      }
    }
  }
};

// Of the last transform only the kept rows are wanted: after the far stages, which mix all blocks of n2 neighbours, each of them is
// one signed sum over its block, cheaper than the near stages while 2 d n2 <= n log2(n2) or so.
inline int64_t srtt_block(const Srtt& s, int64_t largest) {
  int64_t n2 = 1;
  while (2 * n2 <= largest && n2 * s.d <= s.n) n2 *= 2;
  return n2;
}

template <class T>
Lanes<T> signed_sum(const T* block, int64_t n2, int64_t mask) {
  const T sign[2] = {T(1), T(-1)};
  Lanes<T> sum = {};
  for (int64_t i = 0; i < n2; ++i)
    sum += load(block + i * kLanes<T>) * sign[__builtin_popcountll(static_cast<unsigned long long>(i & mask)) & 1];
  return sum;
}

// out += S[:, j0 : j0 + A.rows] A; kept holds the rows of the transform that P takes.
template <class T>
void srtt(const Srtt& s, const int64_t* kept, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  if (A.rows == 0 || A.cols == 0) return;
  using Strip = TransformStrip<T>;
  constexpr int64_t L = kLanes<T>;
  const TransformSigns signs(s);
  const int64_t strips = (A.cols + L - 1) / L, size = Strip::size(s.n);
  const T scale = static_cast<T>(s.scale());
  Scratch<T> memory((strips < max_threads() ? strips : max_threads()) * size);
  parallel_for(strips, [&](int64_t q) {
    const Strip strip = {memory.data + thread_index() * size, s.n};
    const int64_t c0 = q * L, cols = c0 + L < A.cols ? L : A.cols - c0, rows = strip.rows(), n2 = srtt_block(s, rows);
    for (int round = 0; round < s.rounds; ++round) {
      for (int64_t p = 0; p < strip.parts(); ++p) {
        T* part = strip.part(p);
        if (round == 0) {
          // Rows [low, high) of this part come from A.
          const int64_t first = p * rows, last = first + rows, end = j0 + A.rows;
          const int64_t low = j0 < first ? first : j0 < last ? j0 : last, high = end < low ? low : end < last ? end : last;
          __builtin_memset(part, 0, static_cast<size_t>((low - first) * L) * sizeof(T));
          pack<T>(A, low - j0, high - low, c0, cols, part + (low - first) * L, L);
          __builtin_memset(part + (high - first) * L, 0, static_cast<size_t>((last - high) * L) * sizeof(T));
        }
        signs.apply(round, p * rows, part, rows);
        strip.near(p, round + 1 < s.rounds ? 1 : n2);
      }
      strip.far();
    }
    for (int64_t i = 0; i < s.d; ++i) {
      const Lanes<T> sum = signed_sum<T>(strip.row(kept[i] / n2 * n2), n2, kept[i] % n2) * scale;
      for (int64_t c = 0; c < cols; ++c) *out.at(i, c0 + c) += sum[c];
    }
  });
}

// out = S[:, j0 : j0 + out.rows]' Y.
template <class T>
void srtt_adjoint(const Srtt& s, const int64_t* kept, Matrix<const T> Y, int64_t j0, Matrix<T> out) {
  if (out.rows == 0 || out.cols == 0) return;
  using Strip = TransformStrip<T>;
  constexpr int64_t L = kLanes<T>;
  const TransformSigns signs(s);
  const int64_t strips = (out.cols + L - 1) / L, size = Strip::size(s.n);
  const T scale = static_cast<T>(s.scale());
  Scratch<T> memory((strips < max_threads() ? strips : max_threads()) * size);
  parallel_for(strips, [&](int64_t q) {
    const Strip strip = {memory.data + thread_index() * size, s.n};
    const int64_t c0 = q * L, cols = c0 + L < out.cols ? L : out.cols - c0, rows = strip.rows();
    __builtin_memset(strip.data, 0, static_cast<size_t>(size) * sizeof(T));
    for (int64_t i = 0; i < s.d; ++i)
      for (int64_t c = 0; c < cols; ++c) strip.row(kept[i])[c] += *Y.at(i, c0 + c);
    for (int round = s.rounds - 1; round >= 0; --round) {
      for (int64_t p = 0; p < strip.parts(); ++p) strip.near(p, 1);
      strip.far();
      for (int64_t p = 0; p < strip.parts(); ++p) signs.apply(round, p * rows, strip.part(p), rows);
    }
    for (int64_t i = 0; i < out.rows; ++i)
      for (int64_t c = 0; c < cols; ++c) *out.at(i, c0 + c) = strip.row(j0 + i)[c] * scale;
  });
}

}  // namespace
}  // namespace randla::cpu
