// Terms of a sum cut into pieces at fixed places, so that adding them up rounds nothing and their order does not matter.

namespace randla::cpu {
namespace {

// bins[k] += the part of x that is a multiple of the k-th cut of its column; x + round - round cuts there, as round is 1.5 * 2^52
// times the cut. x (rows, cols), round (pieces, cols) and bins (pieces, rows, cols) are contiguous.
inline void add_pieces(const double* x, const double* round, double* bins, int64_t pieces, int64_t rows, int64_t cols) {
  const int64_t grain = 1 + 16384 / (cols > 0 ? cols : 1);
  parallel_for((rows + grain - 1) / grain, [&](int64_t piece) {
    for (int64_t i = piece * grain; i < rows && i < (piece + 1) * grain; ++i) {
      int64_t j = 0;
      for (; j + 8 <= cols; j += 8) {
        Lanes<double> rest = load(x + i * cols + j);
        for (int64_t k = 0; k < pieces; ++k) {
          const Lanes<double> magic = load(round + k * cols + j), part = (rest + magic) - magic;
          double* bin = bins + (k * rows + i) * cols + j;
          store(bin, load(bin) + part);
          rest -= part;
        }
      }
      for (; j < cols; ++j) {
        double rest = x[i * cols + j];
        for (int64_t k = 0; k < pieces; ++k) {
          const double magic = round[k * cols + j], part = (rest + magic) - magic;
          bins[(k * rows + i) * cols + j] += part;
          rest -= part;
        }
      }
    }
  });
}

}  // namespace
}  // namespace randla::cpu
