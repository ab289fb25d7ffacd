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
  void apply(int round, int64_t j0, T* strip, int64_t rows) const {
    const uint64_t* bits = words.data + round * per_round;
    for (int64_t i = 0; i < rows; ++i)
      if ((bits[(j0 + i) >> 6] >> ((j0 + i) & 63)) & 1) store(strip + i * kLanes<T>, -load(strip + i * kLanes<T>));
  }
};

// Of the last transform only the kept rows are wanted: after the far stages, which mix all blocks of n2 neighbours, each of them is
// one signed sum over its block, cheaper than the near stages while 2 d n2 <= n log2(n2) or so.
inline int64_t srtt_block(const Srtt& s) {
  int64_t n2 = 1;
  while (2 * n2 <= s.n && 2 * n2 * s.d <= 2 * s.n) n2 *= 2;
  return n2;
}

template <class T>
Lanes<T> signed_sum(const T* block, int64_t n2, int64_t mask) {
  Lanes<T> sum = {};
  for (int64_t i = 0; i < n2; ++i) {
    const T sign = __builtin_popcountll(static_cast<unsigned long long>(i & mask)) & 1 ? T(-1) : T(1);
    sum += load(block + i * kLanes<T>) * sign;
  }
  return sum;
}

// out += S[:, j0 : j0 + A.rows] A; kept holds the rows of the transform that P takes.
template <class T>
void srtt(const Srtt& s, const int64_t* kept, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  if (A.rows == 0 || A.cols == 0) return;
  constexpr int64_t L = kLanes<T>;
  const TransformSigns signs(s);
  const int64_t strips = (A.cols + L - 1) / L, n2 = srtt_block(s);
  const T scale = static_cast<T>(s.scale());
  Scratch<T> memory((strips < max_threads() ? strips : max_threads()) * s.n * L);
  parallel_for(strips, [&](int64_t q) {
    T* strip = memory.data + thread_index() * s.n * L;
    const int64_t c0 = q * L, cols = c0 + L < A.cols ? L : A.cols - c0;
    __builtin_memset(strip, 0, static_cast<size_t>(j0 * L) * sizeof(T));
    pack<T>(A, 0, A.rows, c0, cols, strip + j0 * L, L);
    __builtin_memset(strip + (j0 + A.rows) * L, 0, static_cast<size_t>((s.n - j0 - A.rows) * L) * sizeof(T));
    for (int round = 0; round < s.rounds; ++round) {
      if (round == 0)
        signs.apply(round, j0, strip + j0 * L, A.rows);
      else
        signs.apply(round, 0, strip, s.n);
      if (round + 1 < s.rounds)
        fwht_strip<T>(strip, s.n);
      else
        fwht_stages<T, Lanes<T>>(strip, s.n, n2);
    }
    for (int64_t i = 0; i < s.d; ++i) {
      const Lanes<T> sum = signed_sum<T>(strip + kept[i] / n2 * n2 * L, n2, kept[i] % n2) * scale;
      for (int64_t c = 0; c < cols; ++c) *out.at(i, c0 + c) += sum[c];
    }
  });
}

// out = S[:, j0 : j0 + out.rows]' Y.
template <class T>
void srtt_adjoint(const Srtt& s, const int64_t* kept, Matrix<const T> Y, int64_t j0, Matrix<T> out) {
  if (out.rows == 0 || out.cols == 0) return;
  constexpr int64_t L = kLanes<T>;
  const TransformSigns signs(s);
  const int64_t strips = (out.cols + L - 1) / L;
  const T scale = static_cast<T>(s.scale());
  Scratch<T> memory((strips < max_threads() ? strips : max_threads()) * s.n * L);
  parallel_for(strips, [&](int64_t q) {
    T* strip = memory.data + thread_index() * s.n * L;
    const int64_t c0 = q * L, cols = c0 + L < out.cols ? L : out.cols - c0;
    __builtin_memset(strip, 0, static_cast<size_t>(s.n * L) * sizeof(T));
    for (int64_t i = 0; i < s.d; ++i)
      for (int64_t c = 0; c < cols; ++c) strip[kept[i] * L + c] += *Y.at(i, c0 + c);
    for (int round = s.rounds - 1; round >= 0; --round) {
      fwht_strip<T>(strip, s.n);
      signs.apply(round, 0, strip, s.n);
    }
    for (int64_t i = 0; i < out.rows; ++i)
      for (int64_t c = 0; c < cols; ++c) *out.at(i, c0 + c) = strip[(j0 + i) * L + c] * scale;
  });
}

}  // namespace
}  // namespace randla::cpu
