// Walsh-Hadamard transforms. Stages run in ascending order of their stride, as on the processor: the same tree of sums, the
// same bits.
//
// Bytes to move: each element once each way and pass. A block owns a tile of 256 to 1024 rows of 128 bytes in shared memory, a
// thread 32 of its elements (64 of the largest); up to ten stages between rows take two exchanges through shared memory, the
// stages within a row another one. That makes 8 clocks of shared memory and 6 of issue for 32 float32, which take the memory
// 15.5: shuffles instead would take 12 of the first. Tiles of 256 rows are 32 KB: three blocks and more share a multiprocessor,
// and one loads while another one adds. Packs of 16 bytes are stored with the row's last bits in their place, so that rows,
// columns and packs all touch different banks.
//
// Contiguous vectors are matrices of rows of 128 bytes. Longer ones than a tile take several passes over rows further and
// further apart; of many of them, and of many columns, as much at a time as stays in L2 between the passes.

#include "cuda/runtime.h"
#include "cuda/sketch.h"

namespace randla::cuda {
namespace {

template <class T, int Rows>
struct Transform {
  static constexpr int kPhases = 4, kWidth = 128 / static_cast<int>(sizeof(T)), kHeld = 32;
  // Elements of a tile for each thread: twice what it holds where registers for twice the threads would be too few.
  static constexpr int kEach = Rows > 256 ? 2 * kHeld : kHeld, kThreads = Rows * kWidth / kEach;
  static constexpr int kRows = Rows, V = kPack<T>, kPacks = kWidth / V;
  static constexpr int kOpening = 1, kBlocks = Rows == 256 ? 3 : Rows == 512 ? 2 : 1;
  struct State {
    int64_t group, column;  // the first ones of the tile
  };

  TransformPass<T> p;
  int64_t strips;
  bool from_packs, to_packs;

  static constexpr size_t shared_bytes() { return size_t(128) * Rows; }
  RANDLA_HD int64_t steps(const Lane&) const { return 1; }

  // Stages of the last phase: as many as leave whole packs in a thread's registers, but no more than five in the one before.
  RANDLA_HD int last_bits() const {
    constexpr int packed = V == 4 ? 3 : 4;
    return p.bits - 5 > packed ? p.bits - 5 : p.bits < packed ? p.bits : packed;
  }

  template <int P>
  RANDLA_HD void open(const Lane& lane, State& state) const {
    const int64_t tile = lane.x / strips;
    state = {tile * (kRows >> p.bits), (lane.x - tile * strips) * kWidth};
  }

  // Row of the matrix that is row q of the tile, or one beyond the end.
  RANDLA_HD int64_t matrix_row(const State& state, int q) const {
    const int64_t group = state.group + (q >> p.bits);
    const int64_t block = group >> p.stride_bits, within = group & ((int64_t(1) << p.stride_bits) - 1);
    return (((block << p.bits) + (q & ((1 << p.bits) - 1))) << p.stride_bits) + within;
  }

  static RANDLA_HD T* place(const Lane& lane, int q, int e) {
    return reinterpret_cast<T*>(lane.shared) + (q * kPacks + ((e / V) ^ (q & (kPacks - 1)))) * V + e % V;
  }

  static RANDLA_HD T sign(const uint64_t* words, int64_t row) {
    return words != nullptr && ((words[row >> 6] >> (row & 63)) & 1) != 0 ? T(-1) : T(1);
  }

  template <int P>
  RANDLA_HD void phase(const Lane& lane, State& state, Step) const {
    if constexpr (P == 0) {
      if (from_packs)
        load_packs(lane, state);
      else
        load_elements(lane, state);
    } else if constexpr (P == 1) {
      if (p.inside < p.inside_end)
        for (int q = lane.thread; q < kRows; q += kThreads) within_row(lane, q);
    } else if constexpr (P == 2) {
      switch (p.bits - last_bits()) {
        case 1: return between_rows<2, false>(lane, state, 0);
        case 2: return between_rows<4, false>(lane, state, 0);
        case 3: return between_rows<8, false>(lane, state, 0);
        case 4: return between_rows<16, false>(lane, state, 0);
        case 5: return between_rows<32, false>(lane, state, 0);
        default: return;
      }
    } else {
      const int shift = p.bits - last_bits();
      switch (last_bits()) {
        case 0: return between_rows<1, true>(lane, state, shift);
        case 1: return between_rows<2, true>(lane, state, shift);
        case 2: return between_rows<4, true>(lane, state, shift);
        case 3: return between_rows<8, true>(lane, state, shift);
        case 4: return between_rows<16, true>(lane, state, shift);
        default: return between_rows<32, true>(lane, state, shift);
      }
    }
  }

  RANDLA_HD void load_packs(const Lane& lane, const State& state) const {
    constexpr int count = kHeld / V;
#pragma unroll 1
    for (int k0 = 0; k0 < kEach / V; k0 += count) {
      Pack<T, V> v[count];
#pragma unroll
      for (int k = 0; k < count; ++k) {
        const int id = (k0 + k) * kThreads + lane.thread;
        const int64_t row = matrix_row(state, id / kPacks), c = state.column + id % kPacks * V, i = row - p.from_first;
        v[k] = {};
        if (row < p.rows && c < p.cols && i >= 0 && i < p.from.rows)
          v[k] = load_pack<T, V>(p.from.data + i * p.from.row_stride + c);
      }
#pragma unroll
      for (int k = 0; k < count; ++k) {
        const int id = (k0 + k) * kThreads + lane.thread;
        if (p.signs != nullptr) {
          const int64_t row = matrix_row(state, id / kPacks);
          const T s = row < p.rows ? sign(p.signs, row) : T(1);
#pragma unroll
          for (int n = 0; n < V; ++n) v[k].v[n] = v[k].v[n] * s;
        }
        store_pack<T, V>(place(lane, id / kPacks, id % kPacks * V), v[k]);
      }
    }
  }

  // Neighbouring threads take what are neighbours in memory.
  RANDLA_HD void load_elements(const Lane& lane, const State& state) const {
    const bool down = p.from.row_stride == 1 && p.from.col_stride != 1;
    constexpr int together = 8;
    for (int k0 = 0; k0 < kEach; k0 += together) {
      T v[together];
#pragma unroll
      for (int k = 0; k < together; ++k) {
        const int id = (k0 + k) * kThreads + lane.thread;
        const int q = down ? id % kRows : id / kWidth, e = down ? id / kRows : id % kWidth;
        const int64_t row = matrix_row(state, q), c = state.column + e, i = row - p.from_first;
        v[k] = T(0);
        if (row < p.rows && c < p.cols && i >= 0 && i < p.from.rows)
          v[k] = p.from.data[i * p.from.row_stride + c * p.from.col_stride] * sign(p.signs, row);
      }
#pragma unroll
      for (int k = 0; k < together; ++k) {
        const int id = (k0 + k) * kThreads + lane.thread;
        *place(lane, down ? id % kRows : id / kWidth, down ? id / kRows : id % kWidth) = v[k];
      }
    }
  }

  RANDLA_HD void within_row(const Lane& lane, int q) const {
    T v[kWidth];
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
      const Pack<T, V> part = load_pack<T, V>(place(lane, q, u * V));
#pragma unroll
      for (int n = 0; n < V; ++n) v[u * V + n] = part.v[n];
    }
#pragma unroll
    for (int h = 1; h < kWidth; h *= 2)
      if (h >= p.inside && h < p.inside_end)
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
          if ((i & h) == 0) {
            const T a = v[i], b = v[i + h];
            v[i] = a + b;
            v[i + h] = a - b;
          }
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
      Pack<T, V> part;
#pragma unroll
      for (int n = 0; n < V; ++n) part.v[n] = v[u * V + n];
      store_pack<T, V>(place(lane, q, u * V), part);
    }
  }

  // The stages between R rows that lie 2^shift apart in the tile; the last of them go to memory.
  template <int R, bool last>
  RANDLA_HD void between_rows(const Lane& lane, const State& state, int shift) const {
    constexpr int W = kHeld / R < V ? kHeld / R : V, per_row = kWidth / W;
#pragma unroll 1
    for (int k = 0; k < kEach / (R * W); ++k) {
      const int id = k * kThreads + lane.thread, e = id % per_row * W, low = id / per_row & ((1 << shift) - 1);
      const int q = ((id / per_row >> shift) * R << shift) + low;
      Pack<T, W> v[R];
#pragma unroll
      for (int r = 0; r < R; ++r) v[r] = load_pack<T, W>(place(lane, q + (r << shift), e));
#pragma unroll
      for (int h = 1; h < R; h *= 2)
#pragma unroll
        for (int i = 0; i < R; ++i)
          if ((i & h) == 0)
#pragma unroll
            for (int n = 0; n < W; ++n) {
              const T a = v[i].v[n], b = v[i + h].v[n];
              v[i].v[n] = a + b;
              v[i + h].v[n] = a - b;
            }
      if constexpr (last)
        store_rows<R, W>(state, q, shift, state.column + e, v);
      else
#pragma unroll
        for (int r = 0; r < R; ++r) store_pack<T, W>(place(lane, q + (r << shift), e), v[r]);
    }
  }

  template <int R, int W>
  RANDLA_HD void store_rows(const State& state, int q, int shift, int64_t c, Pack<T, W> (&v)[R]) const {
    const int64_t first = matrix_row(state, q), apart = int64_t(1) << (shift + p.stride_bits);
    if (first >= p.rows || c >= p.cols) return;
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int n = 0; n < W; ++n) v[r].v[n] = v[r].v[n] * p.scale;
    T* to = p.to.data + first * p.to.row_stride + c;
#pragma unroll
    for (int r = 0; r < R; ++r, to += apart * p.to.row_stride) {
      if (to_packs)
        store_global<T, W>(to, v[r]);
      else
#pragma unroll
        for (int n = 0; n < W; ++n)
          if (c + n < p.cols) to[n] = v[r].v[n];
    }
  }
};

template <class T, int Rows>
void run_pass(const TransformPass<T>& p, Stream stream) {
  using K = Transform<T, Rows>;
  Matrix<const T> from = p.from;
  Matrix<T> to = p.to;
  from.cols = to.cols = p.cols;
  const int64_t strips = divided_up(p.cols, K::kWidth), tiles = divided_up(p.rows >> p.bits, K::kRows >> p.bits);
  launch(K{p, strips, whole_packs(from), whole_packs(to)}, {tiles * strips, 1, K::shared_bytes()}, stream);
}

constexpr int64_t kCacheBytes = 24 << 20;

int log2_of(int64_t n) {
  int bits = 0;
  while ((int64_t(1) << bits) < n) ++bits;
  return bits;
}

// All stages between the rows of a matrix of `rows`, in groups of 2^bits neighbours; the first pass does those within rows too.
template <class T>
void transform_rows(Matrix<const T> from, Matrix<T> to, int bits, int inside, int inside_end, T scale, Stream stream) {
  const int passes = transform_passes(bits);
  int done = 0;
  for (int k = 0; k < passes; ++k) {
    const int mine = bits / passes + (k < bits % passes);
    transform_pass<T>({from, 0, to, to.rows, to.cols, mine, done, inside, k == 0 ? inside_end : inside, nullptr,
                       k == passes - 1 ? scale : T(1)},
                      stream);
    from = {to.data, to.rows, to.cols, to.row_stride, to.col_stride};
    done += mine;
  }
}

template <class T>
void contiguous(const T* from, T* to, int64_t outer, int64_t length, int inner, T scale, Stream stream) {
  constexpr int64_t width = 128 / sizeof(T);
  const int64_t total = outer * length;
  const int end = static_cast<int>(length < width ? length : width);
  const int bits = length > width ? log2_of(length / width) : 0;
  int64_t chunk = total;
  if (transform_passes(bits) > 1) {
    const int64_t fit = kCacheBytes / (length * static_cast<int64_t>(sizeof(T)));
    chunk = (fit > 1 ? fit : 1) * length;
  }
  for (int64_t i = 0; i < total; i += chunk) {
    const int64_t count = total - i < chunk ? total - i : chunk, rows = count / width, rest = count % width;
    if (rows > 0)
      transform_rows<T>({from + i, rows, width, width, 1}, {to + i, rows, width, width, 1}, bits, inner, end, scale, stream);
    if (rest > 0) {
      const int64_t at = i + rows * width;
      transform_rows<T>({from + at, 1, rest, rest, 1}, {to + at, 1, rest, rest, 1}, 0, inner, end, scale, stream);
    }
  }
}

template <class T>
void along_middle(const T* from, T* to, int64_t outer, int64_t n, int64_t inner, T scale, Stream stream) {
  constexpr int64_t size = sizeof(T), width = 128 / size;
  const int bits = log2_of(n);
  int64_t together = outer, columns = inner;
  if (transform_passes(bits) > 1) {
    const int64_t fit = kCacheBytes / (n * inner * size), narrow = kCacheBytes / (n * size) / width * width;
    together = fit > 1 ? fit : 1;
    if (fit == 0 && narrow > 0) columns = narrow;
  }
  for (int64_t i = 0; i < outer; i += together)
    for (int64_t c = 0; c < inner; c += columns) {
      const int64_t rows = (outer - i < together ? outer - i : together) * n, cols = inner - c < columns ? inner - c : columns;
      const int64_t at = i * n * inner + c;
      transform_rows<T>({from + at, rows, cols, inner, 1}, {to + at, rows, cols, inner, 1}, bits, 1, 1, scale, stream);
    }
}

}  // namespace

int transform_passes(int bits) {
  constexpr int good = 8, most = 10;
  constexpr std::size_t row = 128;
  return bits <= good || (bits <= most && (row << bits) <= shared_limit()) ? 1 : static_cast<int>(divided_up(bits, good));
}

template <class T>
void transform_pass(const TransformPass<T>& pass, Stream stream) {
  if (pass.rows == 0 || pass.cols == 0) return;
  if (pass.bits <= 8) return run_pass<T, 256>(pass, stream);
  if (pass.bits == 9) return run_pass<T, 512>(pass, stream);
  run_pass<T, 1024>(pass, stream);
}

template <class T>
void fwht(const T* from, T* to, int64_t outer, int64_t n, int64_t inner, double scale, Stream stream) {
  if (outer == 0 || inner == 0) return;
  const bool power = (inner & (inner - 1)) == 0;
  if (power && inner * static_cast<int64_t>(sizeof(T)) < 128)
    contiguous<T>(from, to, outer, n * inner, static_cast<int>(inner), static_cast<T>(scale), stream);
  else
    along_middle<T>(from, to, outer, n, inner, static_cast<T>(scale), stream);
}

template void transform_pass<float>(const TransformPass<float>&, Stream);
template void transform_pass<double>(const TransformPass<double>&, Stream);
template void fwht<float>(const float*, float*, int64_t, int64_t, int64_t, double, Stream);
template void fwht<double>(const double*, double*, int64_t, int64_t, int64_t, double, Stream);

}  // namespace randla::cuda
