// BlockSRHT of a column-major A without transposing it. Rows of a slab lie side by side in memory, and so do the groups that take
// them: a vector holds one lane of several groups, whose results go to neighbouring blocks. The partial sums of a column are
// kept as (row within block, block), so that these are neighbours too. The arithmetic is that of block_srht.inl.

namespace randla::cpu {
namespace {

template <class T>
struct SignsOf;
template <>
struct SignsOf<double> {
  typedef uint64_t type __attribute__((vector_size(64)));
  typedef uint64_t word;
};
template <>
struct SignsOf<float> {
  typedef uint32_t type __attribute__((vector_size(64)));
  typedef uint32_t word;
};

// Signs of one window, as the lanes want them.
template <class T, int B>
struct SrhtWindow {
  using Word = typename SignsOf<T>::word;
  static constexpr int kBits = 8 * sizeof(T), kWords = (B + kBits - 1) / kBits;

  uint64_t signs_in[B];  // bit g: the row that group g takes from this slab
  int rotation[B];
  Word signs_out[kWords][BlockSrht::kGroups];  // bit r % kBits of word r / kBits: output row r of group g
  int64_t offset;

  SrhtWindow(const SrhtTables& tables, const Words* output_signs, int64_t w) {
    for (int a = 0; a < B; ++a) {
      const SrhtSlab& slab = tables.slabs[(w - tables.first) * B + a];
      rotation[a] = static_cast<int>(slab.rotation);
      signs_in[a] = slab.rotation ? slab.signs << slab.rotation | slab.signs >> (64 - slab.rotation) : slab.signs;
    }
    for (int g = 0; g < BlockSrht::kGroups; ++g) {
      const Words& u = output_signs[(w - tables.first) * BlockSrht::kGroups + g];
      for (int k = 0; k < kWords; ++k) signs_out[k][g] = static_cast<Word>((k * kBits < 64 ? u.u0 : u.u1) >> (k * kBits % 64));
    }
    offset = tables.offsets[w - tables.first];
  }
};

template <class T>
struct ColumnSums {
  int64_t stride, size;  // of (row within block, block), one matrix per column
  const T* scale;  // 1 / sqrt(t) per block, the first ones again at the end
  int64_t blocks;
  int longest;
};

// Adds one whole window of one column; x points at its first row. The window at `next` is fetched meanwhile, line by line: the
// order in which rows are taken is no order that the hardware could foresee.
template <class T, int B>
void add_whole_window(const SrhtWindow<T, B>& w, const T* x, const T* next, const ColumnSums<T>& sums, T* to, Lanes<T>* scratch) {
  using V = Lanes<T>;
  using Signs = typename SignsOf<T>::type;
  using Word = typename SignsOf<T>::word;
  constexpr int L = kLanes<T>, G = BlockSrht::kGroups, I = Split<B>::inner, O = Split<B>::outer, kBits = 8 * sizeof(T);
  constexpr Word top = Word(1) << (kBits - 1);
  Signs lane, place;
  for (int l = 0; l < L; ++l) lane[l] = static_cast<Word>(l), place[l] = static_cast<Word>(kBits - 1 - l);
  for (int o = 0; o < O; ++o)
    for (int q = 0; q < G; q += L) {
      V v[I];
      for (int i = 0; i < I; ++i) {
        const int a = o * I + i, begin = (q - w.rotation[a]) & (G - 1);
        __builtin_prefetch(next + a * G + q, 0, 2);
        const T* slab = x + a * G;
        V rows;
        if (begin + L <= G) {
          rows = load(slab + begin);
        } else if (a > 0 && a < B - 1) {
          // Both loads reach over the slab's ends, but not over the window's.
          const V before = load(slab + begin), after = load(slab + begin - G);
          rows = lane < static_cast<Word>(G - begin) ? before : after;
        } else {
          for (int l = 0; l < L; ++l) rows[l] = slab[(begin + l) & (G - 1)];
        }
        const Signs minus = ((Signs{} + static_cast<Word>(w.signs_in[a] >> q)) << place) & top;
        v[i] = same_bits<V>(same_bits<Signs>(rows) ^ minus);
      }
      hadamard<V, I>(v);
      for (int i = 0; i < I; ++i) scratch[q / L * B + o * I + i] = v[i];
    }
  for (int q = 0; q < G; q += L) {
    const int64_t first = (w.offset + q) % sums.blocks;
    const bool split = first + L > sums.blocks;
    const Signs scale = same_bits<Signs>(load(sums.scale + first));
    for (int i = 0; i < I; ++i) {
      V v[O];
      for (int o = 0; o < O; ++o) v[o] = scratch[q / L * B + o * I + i];
      hadamard<V, O>(v);
      for (int o = 0; o < O; ++o) {
        const int r = o * I + i;
        if (r >= sums.longest) break;
        Signs word;
        __builtin_memcpy(&word, &w.signs_out[r / kBits][q], sizeof word);
        const V part = v[o] * same_bits<V>(scale ^ ((word << static_cast<Word>(kBits - 1 - r % kBits)) & top));
        T* row = to + r * sums.stride;
        if (!split) {
          store(row + first, load(row + first) + part);
        } else {
          for (int l = 0; l < L; ++l) row[first + l < sums.blocks ? first + l : first + l - sums.blocks] += part[l];
        }
      }
    }
  }
}

// Adds the rows [i0, i1) of A that lie in window w, not all of it, for up to a vector of columns at once.
template <class T, int B>
void add_part_of_window(const BlockSrht& s, const SrhtTables& tables, int64_t w, int64_t j0, int64_t i0, int64_t i1,
                        Matrix<const T> A, int64_t c0, int64_t cols, const ColumnSums<T>& sums, T* to) {
  const int64_t slab_rows = s.slab_rows(w), rows = s.rows_in_window(w);
  Group<T, B> group;
  for (int64_t g = 0; g < slab_rows; ++g) {
    const int64_t block = (tables.offsets[w - tables.first] + g) % sums.blocks;
    describe_group<T, B>(s, tables, w, g, block, &group);
    Lanes<T> v[B];
    for (int a = 0; a < B; ++a) {
      const int64_t local = srht_row(s, tables, w, g, a, slab_rows, rows), i = w * s.window_rows() + local - j0;
      v[a] = Lanes<T>{};
      if (local < 0 || i < i0 || i >= i1) continue;
      for (int64_t c = 0; c < cols; ++c) v[a][c] = *A.at(i, c0 + c);
      v[a] *= group.sign_in[a];
    }
    hadamard<Lanes<T>, B>(v);
    for (int r = 0; r < group.t; ++r) {
      const Lanes<T> part = v[r] * group.factor[r];
      for (int64_t c = 0; c < cols; ++c) to[c * sums.size + r * sums.stride + block] += part[c];
    }
  }
}

// All blocks of S[:, j0 : j0 + A.rows] A for A with contiguous columns; needs at least a vector of blocks.
template <class T, int B>
void block_srht_by_columns(const BlockSrht& s, const SrhtTables& tables, Matrix<const T> A, int64_t j0, Matrix<T> out) {
  constexpr int64_t L = kLanes<T>, C = 64 / sizeof(T);
  const int64_t size = s.window_rows(), w0 = j0 / size, w1 = (j0 + A.rows + size - 1) / size, nb = s.blocks();
  Scratch<Words> output_signs((w1 - w0) * BlockSrht::kGroups);
  parallel_for(w1 - w0, [&](int64_t w) {
    for (int g = 0; g < BlockSrht::kGroups; ++g)
      output_signs.data[w * BlockSrht::kGroups + g] = srht_output_signs(s, w0 + w, g);
  });
  Scratch<T> scale(nb + L);
  for (int64_t k = 0; k < nb + L; ++k)
    scale.data[k] = static_cast<T>(1.0 / std::sqrt(static_cast<double>(s.block_start(k % nb + 1) - s.block_start(k % nb))));
  // An odd number of cache lines per row: rows of a power of two would share few cache sets.
  const int64_t stride = ((nb + L - 1) / L | 1) * L, longest = s.block_start(1), strips = (A.cols + C - 1) / C;
  const ColumnSums<T> sums = {stride, longest * stride, scale.data, nb, static_cast<int>(longest)};
  const int64_t workers = strips < max_threads() ? strips : max_threads();
  Scratch<T> memory(workers * C * sums.size), mixed(workers * size);
  parallel_for(strips, [&](int64_t p) {
    const int64_t c0 = p * C, cols = c0 + C < A.cols ? C : A.cols - c0;
    T* mine = memory.data + thread_index() * C * sums.size;
    Lanes<T>* scratch = reinterpret_cast<Lanes<T>*>(mixed.data + thread_index() * size);
    __builtin_memset(mine, 0, static_cast<size_t>(cols * sums.size) * sizeof(T));
    for (int64_t w = w0; w < w1; ++w) {
      const int64_t i0 = w * size > j0 ? w * size - j0 : 0, end = (w + 1) * size - j0, i1 = end < A.rows ? end : A.rows;
      if (i1 - i0 == size) {
        const SrhtWindow<T, B> window(tables, output_signs.data, w);
        for (int64_t c = 0; c < cols; ++c) {
          const T* next = c + 1 < cols ? A.at(i0, c0 + c + 1) : A.at(i1 < A.rows ? i1 : 0, c0);
          add_whole_window<T, B>(window, A.at(i0, c0 + c), next, sums, mine + c * sums.size, scratch);
        }
      } else {
        add_part_of_window<T, B>(s, tables, w, j0, i0, i1, A, c0, cols, sums, mine);
      }
    }
    for (int64_t k = 0; k < nb; ++k)
      for (int64_t r = 0; r < s.block_start(k + 1) - s.block_start(k); ++r)
        for (int64_t c = 0; c < cols; ++c) *out.at(s.block_start(k) + r, c0 + c) += mine[c * sums.size + r * stride + k];
  });
}

}  // namespace
}  // namespace randla::cpu
