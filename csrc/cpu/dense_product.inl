// Products with a dense sketch that exists only in panels of a few hundred columns, made next to where they are used.
//
// An entry of the result gains, for every 256 terms, their plain sum in ascending order: the same bits for any number of threads,
// layout and vector size, which no BLAS promises. A tile of the result stays in registers; sums of products are not fused.

namespace randla::cpu {
namespace {

constexpr int64_t kDepth = 256;         // terms summed in registers
constexpr int64_t kDenseBytes = 1 << 22;  // of panels at a time

template <class T>
struct DenseTile {
  using V = typename NativeOf<T>::type;
  static constexpr int L = kNativeBytes / sizeof(T);
  static constexpr int rows = 2 * L;                      // two vectors
  static constexpr int cols = kNativeBytes == 64 ? 8 : 4;  // broadcast numbers; AVX-512 has twice the registers
};

// sum[c][v] = sum over k of panel[k][v] * strip[k][c]. Not inlined: beside other code the sums would not stay in registers.
template <class T>
__attribute__((noinline)) void dense_tile(const T* panel, const T* strip, int64_t depth,
                                                      typename DenseTile<T>::V (*sum)[2]) {
  using V = typename DenseTile<T>::V;
  constexpr int C = DenseTile<T>::cols, L = DenseTile<T>::L;
  V acc[C][2];
  for (int c = 0; c < C; ++c) acc[c][0] = acc[c][1] = V{};
  for (int64_t k = 0; k < depth; ++k) {
    const V s0 = load_as<V>(panel + k * 2 * L), s1 = load_as<V>(panel + k * 2 * L + L);
    for (int c = 0; c < C; ++c) {
      const T a = strip[k * C + c];
      acc[c][0] += s0 * a;
      acc[c][1] += s1 * a;
    }
  }
  for (int c = 0; c < C; ++c) sum[c][0] = acc[c][0], sum[c][1] = acc[c][1];
}

// Adds a tile whose lane l of vector v belongs to row `rows_of(v, l)` to columns [c0, c0 + cols) of the result.
template <class T, class Row>
void add_tile(typename DenseTile<T>::V (*sum)[2], const Row& row_of, int64_t c0, int64_t cols, Matrix<T> out) {
  constexpr int C = DenseTile<T>::cols, L = DenseTile<T>::L;
  T by_columns[C][2 * L], by_rows[2 * L][C];
  __builtin_memcpy(by_columns, sum, sizeof by_columns);
  if constexpr (C == 8 && L % 8 == 0) {
    for (int r = 0; r < 2 * L; r += 8) transpose8(&by_columns[0][r], 2 * L, &by_rows[r][0], C);
  } else {
    for (int r = 0; r < 2 * L; ++r)
      for (int c = 0; c < C; ++c) by_rows[r][c] = by_columns[c][r];
  }
  for (int r = 0; r < 2 * L; ++r) {
    const int64_t i = row_of(r / L, r % L);
    if (i < 0 || i >= out.rows) continue;
    T* to = out.at(i, c0);
    if (cols == C)
      for (int c = 0; c < C; ++c) to[c] += by_rows[r][c];
    else
      for (int64_t c = 0; c < cols; ++c) to[c] += by_rows[r][c];
  }
}

// Philox words of the pairs (or groups) sub0, sub0 + 1, ... of V neighbouring columns; lanes run along the former.
template <int V>
inline __attribute__((always_inline)) void philox_down(int64_t column, uint64_t sub0, uint32_t stream, uint64_t seed, Quads* u0,
                                                       Quads* u1) {
  Quads step = {};
  for (int l = 0; l < kQuads; ++l) step[l] = static_cast<uint64_t>(l);
  Quads c0[V], c1[V], c2[V], c3[V];
  for (int v = 0; v < V; ++v) {
    c0[v] = Quads{} + static_cast<uint64_t>(column + v);
    c1[v] = c0[v] >> 32;
    c2[v] = step + sub0;
    c3[v] = Quads{} + stream;
  }
  philox_rounds<V>(c0, c1, c2, c3, seed, u0, u1);
}

// Panel of rows [row0, row0 + 2 L) of S for `depth` columns from `column`: vector 0 of each column holds the even rows.
template <class T>
void fill_gaussian(const DenseSketch& s, int64_t row0, int64_t column, int64_t depth, T* panel) {
  constexpr int L = DenseTile<T>::L, V = 2;
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.d));
  for (int64_t k = 0; k < depth; k += V)
    for (int h = 0; h < L; h += kQuads) {
      Quads u0[V], u1[V];
      philox_down<V>(column + k, static_cast<uint64_t>(row0 / 2 + h), kGaussian, s.seed, u0, u1);
      for (int v = 0; v < V && k + v < depth; ++v) {
        const GaussianPair<Doubles> g = gaussian_pair(square_root(gaussian_square<Doubles>(u0[v])), u1[v]);
        store_doubles(panel + (k + v) * 2 * L + h, g.first * scale);
        store_doubles(panel + (k + v) * 2 * L + L + h, g.second * scale);
      }
    }
}

template <class T>
void fill_rademacher(const DenseSketch& s, int64_t row0, int64_t column, int64_t depth, T* panel) {
  constexpr int L = DenseTile<T>::L;
  const Quads magnitude = same_bits<Quads>(Doubles{} + 1.0 / std::sqrt(static_cast<double>(s.d)));
  const int64_t group = row0 / DenseSketch::kSignsPerCall, bit0 = row0 % DenseSketch::kSignsPerCall;
  Quads even = {};
  for (int l = 0; l < kQuads; ++l) even[l] = static_cast<uint64_t>(63 - 2 * l);
  for (int64_t k = 0; k < depth; k += kQuads) {
    Quads u[2];
    philox_lanes<1>(column + k, static_cast<uint32_t>(group), kRademacher, s.seed, &u[0], &u[1]);
    for (int64_t q = 0; q < kQuads && k + q < depth; ++q)
      for (int h = 0; h < L; h += kQuads) {
        const int64_t bit = bit0 + 2 * h;
        const Quads word = Quads{} + (u[bit / 64][q] >> (bit % 64));
        for (int v = 0; v < 2; ++v)
          store_doubles(panel + (k + q) * 2 * L + v * L + h,
                        same_bits<Doubles>(magnitude ^ ((word << (even - static_cast<uint64_t>(v))) & 0x8000000000000000u)));
      }
  }
}

// Columns of A (depth rows from row i0) in strips of C, zero beyond them.
template <class T>
void pack_strips(Matrix<const T> A, int64_t i0, int64_t depth, T* to) {
  constexpr int64_t C = DenseTile<T>::cols;
  for (int64_t c = 0; c < A.cols; c += C) pack<T>(A, i0, depth, c, c + C < A.cols ? C : A.cols - c, to + c * depth, C);
}

// The blocks of depth kDepth are taken a batch at a time: `fill` makes panel p of block b, rows_of maps its lanes to rows of out.
template <class T, class Fill, class Row>
void dense_blocks(Matrix<const T> A, int64_t panels, Matrix<T> out, const Fill& fill, const Row& row_of) {
  constexpr int64_t C = DenseTile<T>::cols, R = DenseTile<T>::rows;
  const int64_t blocks = (A.rows + kDepth - 1) / kDepth, strips = (A.cols + C - 1) / C;
  const int64_t panel = R * kDepth, strip = C * kDepth;
  int64_t batch = kDenseBytes / ((panels * panel + strips * strip) * static_cast<int64_t>(sizeof(T)));
  batch = batch < 1 ? 1 : batch > blocks ? blocks : batch;
  Scratch<T> S(batch * panels * panel), packed(batch * strips * strip);
  constexpr int64_t chunk = 32;
  const int64_t chunks = (strips + chunk - 1) / chunk;
  for (int64_t b0 = 0; b0 < blocks; b0 += batch) {
    const int64_t count = b0 + batch < blocks ? batch : blocks - b0;
    auto depth_of = [&](int64_t b) { return (b0 + b + 1) * kDepth < A.rows ? kDepth : A.rows - (b0 + b) * kDepth; };
    parallel_for(count * (panels + 1), [&](int64_t p) {
      const int64_t b = p / (panels + 1), q = p % (panels + 1);
      if (q == panels)
        pack_strips<T>(A, (b0 + b) * kDepth, depth_of(b), packed.data + b * strips * strip);
      else
        fill(q, (b0 + b) * kDepth, depth_of(b), S.data + (b * panels + q) * panel);
    });
    parallel_for(panels * chunks, [&](int64_t p) {
      const int64_t q = p / chunks, first = p % chunks * chunk, last = first + chunk < strips ? first + chunk : strips;
      for (int64_t b = 0; b < count; ++b)
        for (int64_t t = first; t < last; ++t) {
          typename DenseTile<T>::V sum[C][2];
          const int64_t depth = depth_of(b);
          dense_tile<T>(S.data + (b * panels + q) * panel, packed.data + b * strips * strip + t * C * depth, depth, sum);
          const int64_t c0 = t * C;
          add_tile<T>(sum, [&](int v, int l) { return row_of(q, v, l); }, c0, c0 + C < A.cols ? C : A.cols - c0, out);
        }
    });
  }
}

// out += S[:, j0 : j0 + A.rows] A.
template <class T>
void dense_product(const DenseSketch& s, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  if (A.rows == 0 || A.cols == 0) return;
  constexpr int64_t R = DenseTile<T>::rows;
  dense_blocks<T>(
      A, (s.d + R - 1) / R, out,
      [&](int64_t q, int64_t k0, int64_t depth, T* panel) {
        if (s.family == Dense::kGaussian)
          fill_gaussian<T>(s, q * R, j0 + k0, depth, panel);
        else
          fill_rademacher<T>(s, q * R, j0 + k0, depth, panel);
      },
      [](int64_t q, int v, int l) { return q * R + 2 * l + v; });
}

// out = S[:, j0 : j0 + out.rows]' Y, out zero on entry: lanes are columns of S, and its rows are summed over.
template <class T>
void dense_product_adjoint(const DenseSketch& s, Matrix<const T> Y, int64_t j0, Matrix<T> out) {
  if (out.rows == 0 || out.cols == 0) return;
  constexpr int64_t R = DenseTile<T>::rows, L = DenseTile<T>::L;
  // All of Y may be a few numbers per row of out: parts of out keep the panels of S small.
  const int64_t height = kDenseBytes / (static_cast<int64_t>(sizeof(T)) * kDepth) / R * R;
  for (int64_t j = 0; j < out.rows; j += height) {
    const Matrix<T> part = {out.row(j), j + height < out.rows ? height : out.rows - j, out.cols, out.row_stride, out.col_stride};
    dense_blocks<T>(
        Y, (part.rows + R - 1) / R, part,
        [&](int64_t q, int64_t i0, int64_t depth, T* panel) {
          dense_rows<T>(s, {panel, depth, R, R, 1}, i0, j0 + j + q * R);
        },
        [](int64_t q, int v, int l) { return q * R + v * L + l; });
  }
}

}  // namespace
}  // namespace randla::cpu
