// A tile of the Gaussian sketch, generated where it is needed: entries come in pairs of rows (2p, 2p + 1), lanes run along columns.

namespace randla::cpu {
namespace {

template <class T>
void dense_sketch(Matrix<T> out, int64_t i0, int64_t j0, int64_t d, uint64_t seed) {
  constexpr int L = 16;
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  const int64_t first = i0 / 2, last = (i0 + out.rows + 1) / 2;
  if (out.rows == 0) return;
  parallel_for(last - first, [&](int64_t piece) {
    const int64_t pair = first + piece;
    double z[2][L];
    for (int64_t j = 0; j < out.cols; j += L) {
      uint64_t c0[L], c1[L], c2[L], c3[L];
      for (int l = 0; l < L; ++l) {
        const uint64_t column = static_cast<uint64_t>(j0 + j + l);
        c0[l] = column & 0xffffffffu;
        c1[l] = column >> 32;
        c2[l] = static_cast<uint32_t>(pair);
        c3[l] = kGaussian;
      }
      uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
      for (int round = 0; round < 10; ++round) {
        for (int l = 0; l < L; ++l) {
          const uint64_t p0 = (c0[l] & 0xffffffffu) * kPhiloxM0, p1 = (c2[l] & 0xffffffffu) * kPhiloxM1;
          const uint64_t n0 = (p1 >> 32) ^ c1[l] ^ k0, n2 = (p0 >> 32) ^ c3[l] ^ k1;
          c1[l] = p1 & 0xffffffffu;
          c3[l] = p0 & 0xffffffffu;
          c0[l] = n0;
          c2[l] = n2;
        }
        k0 += kPhiloxW0;
        k1 += kPhiloxW1;
      }
      for (int l = 0; l < L; ++l) {
        const Pair g = gaussian_pair(c0[l] | c1[l] << 32, c2[l] | c3[l] << 32);
        z[0][l] = g.first * scale;
        z[1][l] = g.second * scale;
      }
      const int64_t count = out.cols - j < L ? out.cols - j : L;
      for (int h = 0; h < 2; ++h) {
        const int64_t i = 2 * pair + h - i0;
        if (i < 0 || i >= out.rows) continue;
        for (int64_t l = 0; l < count; ++l) *out.at(i, j + l) = static_cast<T>(z[h][l]);
      }
    }
  });
}

}  // namespace
}  // namespace randla::cpu
