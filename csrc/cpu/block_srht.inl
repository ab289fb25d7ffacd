// BlockSRHT: groups of rows are mixed by a Hadamard matrix and added to one block of output rows each; A is read once.
//
// An entry of the result is the sum over windows, and within a window over groups, in ascending order, for every layout and
// for every cut into pieces of work. A piece owns a range of output blocks and a strip of columns.

namespace randla::cpu {
namespace {

constexpr int log2_of(int n) { return n <= 1 ? 0 : 1 + log2_of(n / 2); }

// Two rounds of register-sized transforms: B = kOuter * kInner, inner lanes are neighbours.
template <int B>
struct Split {
  static constexpr int inner = 1 << (log2_of(B) / 2), outer = B / inner;
};

// What a group needs: one row per lane (a zero row where the matrix has none), signs, and where the result goes.
template <class T, int B>
struct Group {
  const T* row[B];
  T sign_in[B];
  T factor[B];  // +-1 / sqrt(t)
  T* out;       // first row of the block, t rows
  int t;
};

// Adds the transform of `width` columns (a multiple of the lane count). Rows of `next` are fetched ahead meanwhile.
template <class T, int B>
void add_group(const Group<T, B>& g, int64_t column, int64_t width, int64_t out_stride, T* scratch, const Group<T, B>* next,
               int64_t next_column) {
  constexpr int I = Split<B>::inner, O = Split<B>::outer, L = kLanes<T>;
  for (int o = 0; o < O; ++o)
    for (int64_t c = 0; c < width; c += L) {
      Lanes<T> v[I];
      for (int i = 0; i < I; ++i) v[i] = load(g.row[o * I + i] + column + c) * g.sign_in[o * I + i];
      hadamard<Lanes<T>, I>(v);
      for (int i = 0; i < I; ++i) store(scratch + (o * I + i) * width + c, v[i]);
    }
  for (int i = 0; i < I; ++i)
    for (int64_t c = 0; c < width; c += L) {
      Lanes<T> v[O];
      for (int o = 0; o < O; ++o) {
        v[o] = load(scratch + (o * I + i) * width + c);
        if (next) __builtin_prefetch(next->row[o * I + i] + next_column + c);
      }
      hadamard<Lanes<T>, O>(v);
      for (int o = 0; o < O; ++o) {
        const int r = o * I + i;
        if (r >= g.t) break;
        T* to = g.out + r * out_stride + column + c;
        store(to, load(to) + v[o] * g.factor[r]);
      }
    }
}

// Last columns of a row-major A, fewer than a vector: padded with zeros, the same arithmetic.
template <class T, int B>
void add_group_tail(const Group<T, B>& g, int64_t column, int64_t width, int64_t out_stride, T* scratch) {
  constexpr int L = kLanes<T>;
  T in[B * L] = {}, out[B * L] = {};
  Group<T, B> padded = g;
  for (int a = 0; a < B; ++a) {
    padded.row[a] = in + a * L;
    for (int64_t c = 0; c < width; ++c) in[a * L + c] = g.row[a][column + c];
  }
  for (int i = 0; i < g.t; ++i)
    for (int64_t c = 0; c < width; ++c) out[i * L + c] = g.out[i * out_stride + column + c];
  padded.out = out;
  add_group<T, B>(padded, 0, L, L, scratch, nullptr, 0);
  for (int i = 0; i < g.t; ++i)
    for (int64_t c = 0; c < width; ++c) g.out[i * out_stride + column + c] = out[i * L + c];
}

struct SrhtTables {
  const SrhtSlab* slabs;   // block per window
  const int64_t* offsets;  // per window
  int64_t first;           // window of the first entry
};

// Row of the window (local) that lane a of group g takes, or -1.
inline int64_t srht_row(const BlockSrht& s, const SrhtTables& tables, int64_t w, int64_t g, int a, int64_t slab_rows,
                        int64_t rows) {
  const int64_t k = tables.slabs[(w - tables.first) * s.block + a].rotation;
  const int64_t b = g >= k ? g - k : g - k + slab_rows;
  const int64_t row = a * slab_rows + b;
  return row < rows ? row : -1;
}

template <class T, int B>
void describe_group(const BlockSrht& s, const SrhtTables& tables, int64_t w, int64_t g, int64_t block, Group<T, B>* group) {
  const int64_t slab_rows = s.slab_rows(w);
  for (int a = 0; a < B; ++a) {
    const SrhtSlab& slab = tables.slabs[(w - tables.first) * B + a];
    const int64_t b = g >= slab.rotation ? g - slab.rotation : g - slab.rotation + slab_rows;
    group->sign_in[a] = (slab.signs >> b) & 1 ? T(-1) : T(1);
  }
  const Words signs = srht_output_signs(s, w, static_cast<int>(g));
  group->t = static_cast<int>(s.block_start(block + 1) - s.block_start(block));
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(group->t)));
  for (int i = 0; i < B; ++i) group->factor[i] = ((i < 64 ? signs.u0 >> i : signs.u1 >> (i - 64)) & 1) ? -scale : scale;
}

// Groups of windows [w0, w1) that go to blocks [k0, k1), in order; next() is false at the end.
struct GroupOrder {
  const BlockSrht& s;
  const SrhtTables& tables;
  int64_t k0, k1, w, w1, g;

  bool next(int64_t* window, int64_t* group, int64_t* block) {
    const int64_t nb = s.blocks();
    for (; w < w1; ++w, g = -1) {
      const int64_t groups = s.slab_rows(w), o = tables.offsets[w - tables.first];
      if (g < 0) {
        const int64_t lead = (k0 - o + 2 * nb) % nb;
        g = o >= k0 && o < k1 ? 0 : lead;  // the first group whose block lies in the range
      } else {
        ++g;
        if ((o + g) % nb == k1 % nb && k1 - k0 < nb) g += nb - (k1 - k0);
      }
      if (g < groups) {
        *window = w;
        *group = g;
        *block = (o + g) % nb;
        return true;
      }
    }
    return false;
  }
};

template <class T, int B>
void block_srht_piece(const BlockSrht& s, const SrhtTables& tables, Matrix<const T> A, int64_t j0, int64_t k0, int64_t k1,
                      int64_t c0, int64_t cols, Matrix<T> out, int64_t out_row0, T* scratch, const T* zeros) {
  const int64_t w0 = j0 / s.window_rows(), w1 = (j0 + A.rows + s.window_rows() - 1) / s.window_rows();
  const int64_t whole = cols / kLanes<T> * kLanes<T>;
  GroupOrder order{s, tables, k0, k1, w0, w1, -1};
  Group<T, B> groups[2];
  auto fetch = [&](Group<T, B>* group) {
    int64_t w, g, block;
    if (!order.next(&w, &g, &block)) return false;
    describe_group<T, B>(s, tables, w, g, block, group);
    const int64_t rows = s.rows_in_window(w), slab_rows = s.slab_rows(w);
    for (int a = 0; a < B; ++a) {
      const int64_t local = srht_row(s, tables, w, g, a, slab_rows, rows);
      const int64_t i = local < 0 ? -1 : w * s.window_rows() + local - j0;
      group->row[a] = i >= 0 && i < A.rows ? A.at(i, c0) : zeros;
    }
    group->out = out.at(s.block_start(block) - out_row0, c0);
    return true;
  };
  constexpr int64_t tile = 512 / sizeof(T);
  int now = 0;
  bool more = fetch(&groups[0]);
  while (more) {
    more = fetch(&groups[1 - now]);
    for (int64_t c = 0; c < whole; c += tile) {
      const int64_t width = c + tile < whole ? tile : whole - c;
      const bool last = c + width == whole;
      const Group<T, B>* next = !last ? &groups[now] : more ? &groups[1 - now] : nullptr;
      add_group<T, B>(groups[now], c, width, out.row_stride, scratch, next, last ? 0 : c + width);
    }
    if (whole < cols) add_group_tail<T, B>(groups[now], whole, cols - whole, out.row_stride, scratch);
    now = 1 - now;
  }
}

// General strides: strips of a few columns are packed window by window, and their output strip is kept apart, contiguous.
template <class T, int B>
void block_srht_packed(const BlockSrht& s, const SrhtTables& tables, Matrix<const T> A, int64_t j0, int64_t k0, int64_t k1,
                       int64_t c0, int64_t cols, Matrix<T> out, int64_t out_row0, T* scratch, T* packed, T* sums) {
  constexpr int64_t width = kLanes<T>;
  const int64_t d0 = s.block_start(k0), d1 = s.block_start(k1), size = s.window_rows();
  Matrix<T> strip{sums, d1 - d0, width, width, 1};
  __builtin_memset(sums, 0, (d1 - d0) * width * sizeof(T));
  const int64_t w0 = j0 / size, w1 = (j0 + A.rows + size - 1) / size;
  T zeros[width] = {};
  for (int64_t w = w0; w < w1; ++w) {
    const int64_t i0 = w * size > j0 ? w * size - j0 : 0, end = (w + 1) * size - j0;
    const int64_t rows = (end < A.rows ? end : A.rows) - i0;
    pack<T>(A, i0, rows, c0, cols, packed, width);
    const Matrix<const T> window{packed, rows, width, width, 1};
    block_srht_piece<T, B>(s, tables, window, j0 + i0, k0, k1, 0, width, strip, d0, scratch, zeros);
  }
  for (int64_t i = 0; i < d1 - d0; ++i)
    for (int64_t c = 0; c < cols; ++c) *out.at(d0 - out_row0 + i, c0 + c) += sums[i * width + c];
}

struct SrhtTableMemory {
  Scratch<SrhtSlab> slabs;
  Scratch<int64_t> offsets;
  SrhtTables tables;

  SrhtTableMemory(const BlockSrht& s, int64_t w0, int64_t w1) : slabs((w1 - w0) * s.block), offsets(w1 - w0) {
    parallel_for(w1 - w0, [&](int64_t w) {
      for (int a = 0; a < s.block; ++a) slabs.data[w * s.block + a] = srht_slab(s, w0 + w, a);
      offsets.data[w] = srht_offset(s, w0 + w);
    });
    tables = {slabs.data, offsets.data, w0};
  }
};

template <class T, int B>
void block_srht_by_columns(const BlockSrht& s, const SrhtTables& tables, Matrix<const T> A, int64_t j0, Matrix<T> out);

template <class T, int B>
void block_srht_of(const BlockSrht& s, Matrix<const T> A, int64_t j0, int64_t k0, int64_t k1, Matrix<T> out) {
  const int64_t w0 = j0 / s.window_rows(), w1 = (j0 + A.rows + s.window_rows() - 1) / s.window_rows();
  const SrhtTableMemory memory(s, w0, w1);
  const int threads = max_threads();
  const int64_t out_row0 = s.block_start(k0);
  if (A.row_stride == 1 && A.col_stride != 1 && k0 == 0 && k1 == s.blocks() && k1 >= kLanes<T>)
    return block_srht_by_columns<T, B>(s, memory.tables, A, j0, out);
  if (A.col_stride != 1) {
    const int64_t width = kLanes<T>, strips = (A.cols + width - 1) / width;
    const int64_t workers = strips < threads ? strips : threads, d = s.block_start(k1) - out_row0;
    Scratch<T> scratch(workers * B * width), packed(workers * s.window_rows() * width), sums(workers * d * width);
    parallel_for(strips, [&](int64_t q) {
      const int64_t c0 = q * width, cols = c0 + width < A.cols ? width : A.cols - c0, t = thread_index();
      block_srht_packed<T, B>(s, memory.tables, A, j0, k0, k1, c0, cols, out, out_row0, scratch.data + t * B * width,
                              packed.data + t * s.window_rows() * width, sums.data + t * d * width);
    });
    return;
  }
  // A strip of at most 4 KB per row; as many blocks per piece as keep their output rows in L2.
  const int64_t strip = 4096 / sizeof(T), strips = (A.cols + strip - 1) / strip;
  const int64_t width = A.cols < strip ? A.cols : strip;
  int64_t blocks = 262144 / (static_cast<int64_t>(B) * width * static_cast<int64_t>(sizeof(T)));
  if (blocks > (k1 - k0 + 7) / 8) blocks = (k1 - k0 + 7) / 8;
  if (blocks < 1) blocks = 1;
  const int64_t ranges = (k1 - k0 + blocks - 1) / blocks, pieces = ranges * strips;
  const int64_t workers = pieces < threads ? pieces : threads, tile = 512 / sizeof(T);
  Scratch<T> scratch(workers * B * tile), zeros(strip);
  for (int64_t c = 0; c < strip; ++c) zeros.data[c] = T(0);
  parallel_for(pieces, [&](int64_t p) {
    const int64_t first = k0 + p / strips * blocks, last = first + blocks < k1 ? first + blocks : k1;
    const int64_t c0 = p % strips * strip, cols = c0 + strip < A.cols ? strip : A.cols - c0;
    block_srht_piece<T, B>(s, memory.tables, A, j0, first, last, c0, cols, out, out_row0,
                           scratch.data + thread_index() * B * tile, zeros.data);
  });
}

template <class T>
void block_srht(const BlockSrht& s, Matrix<const T> A, int64_t j0, int64_t k0, int64_t k1, Matrix<T> out) {
  if (A.rows == 0 || A.cols == 0 || k0 == k1) return;
  switch (s.block) {
    case 16: return block_srht_of<T, 16>(s, A, j0, k0, k1, out);
    case 32: return block_srht_of<T, 32>(s, A, j0, k0, k1, out);
    case 64: return block_srht_of<T, 64>(s, A, j0, k0, k1, out);
    default: return block_srht_of<T, 128>(s, A, j0, k0, k1, out);
  }
}

// S' Y: each group's rows are signs * Hadamard * signs * (its block of Y). Rows are written once, so groups are independent.
template <class T, int B>
void block_srht_adjoint_of(const BlockSrht& s, Matrix<const T> Y, int64_t j0, Matrix<T> out) {
  const int64_t w0 = j0 / s.window_rows(), w1 = (j0 + out.rows + s.window_rows() - 1) / s.window_rows();
  const SrhtTableMemory memory(s, w0, w1);
  parallel_for(w1 - w0, [&](int64_t q) {
    const int64_t w = w0 + q, slab_rows = s.slab_rows(w), rows = s.rows_in_window(w), nb = s.blocks();
    Group<T, B> group;
    for (int64_t g = 0; g < slab_rows; ++g) {
      const int64_t block = (memory.tables.offsets[q] + g) % nb;
      describe_group<T, B>(s, memory.tables, w, g, block, &group);
      for (int64_t c = 0; c < out.cols; ++c) {
        T v[B] = {};
        for (int i = 0; i < group.t; ++i) v[i] = *Y.at(s.block_start(block) + i, c) * group.factor[i];
        hadamard<T, B>(v);
        for (int a = 0; a < B; ++a) {
          const int64_t local = srht_row(s, memory.tables, w, g, a, slab_rows, rows);
          const int64_t i = local < 0 ? -1 : w * s.window_rows() + local - j0;
          if (i >= 0 && i < out.rows) *out.at(i, c) = v[a] * group.sign_in[a];
        }
      }
    }
  });
}

template <class T>
void block_srht_adjoint(const BlockSrht& s, Matrix<const T> Y, int64_t j0, Matrix<T> out) {
  if (out.rows == 0 || out.cols == 0) return;
  switch (s.block) {
    case 16: return block_srht_adjoint_of<T, 16>(s, Y, j0, out);
    case 32: return block_srht_adjoint_of<T, 32>(s, Y, j0, out);
    case 64: return block_srht_adjoint_of<T, 64>(s, Y, j0, out);
    default: return block_srht_adjoint_of<T, 128>(s, Y, j0, out);
  }
}

}  // namespace
}  // namespace randla::cpu
