// Products of Kronecker-sparse matrices with a single vector: lanes run along rows that the same numbers of a stage multiply, or,
// where these are fewer than a vector holds, along blocks of rows, for which the vector is transposed before and after.

namespace randla::cpu {
namespace {

// Rows out[j] = sum_k w[j][k] in[k], elementwise over `length` numbers; a matrix entry has `length` numbers, complex ones those of
// the real parts and then those of the imaginary ones, each twice.
template <class T, bool Pairs, int B, int C>
inline __attribute__((always_inline)) void lanes_of_rows(int64_t b, int64_t c, const T* w, int64_t length, const T* in,
                                                         int64_t step_in, T* out, int64_t step_out) {
  using Col = Columns<T, Pairs>;
  using V = typename Col::V;
  constexpr int L = Col::L, parts = Pairs ? 2 : 1;
  const int64_t entry = parts * length;
  if (B > 0) b = B, c = C;
  int64_t o = 0;
  for (; o + L <= length; o += L) {
    V x[B > 0 ? C : 1], t[B > 0 && Pairs ? C : 1];
    if constexpr (B > 0)
      for (int k = 0; k < C; ++k) {
        x[k] = load_as<V>(in + k * step_in + o);
        if constexpr (Pairs) t[k] = Col::turned(x[k]);
      }
    for (int64_t j = 0; j < b; ++j) {
      V y = {};
      for (int64_t k = 0; k < c; ++k) {
        const T* wk = w + (j * c + k) * entry + o;
        if constexpr (B > 0) {
          y = k == 0 ? x[0] * load_as<V>(wk) : y + x[k] * load_as<V>(wk);
          if constexpr (Pairs) y += t[k] * load_as<V>(wk + length);
        } else {
          const V xk = load_as<V>(in + k * step_in + o);
          y += xk * load_as<V>(wk);
          if constexpr (Pairs) y += Col::turned(xk) * load_as<V>(wk + length);
        }
      }
      __builtin_memcpy(out + j * step_out + o, &y, sizeof y);
    }
  }
  for (; o < length; o += parts) {
    T x[B > 0 ? C : 1][2] = {};
    if constexpr (B > 0)
      for (int k = 0; k < C; ++k)
        for (int p = 0; p < parts; ++p) x[k][p] = in[k * step_in + o + p];
    for (int64_t j = 0; j < b; ++j) {
      T re = 0, im = 0;
      for (int64_t k = 0; k < c; ++k) {
        const T* wk = w + (j * c + k) * entry + o;
        const T* xk = B > 0 ? x[B > 0 ? k : 0] : in + k * step_in + o;
        re = k == 0 && B > 0 ? xk[0] * wk[0] : re + xk[0] * wk[0];
        if constexpr (Pairs) {
          im = k == 0 && B > 0 ? xk[1] * wk[0] : im + xk[1] * wk[0];
          re += -xk[1] * wk[length];
          im += xk[0] * wk[length];
        }
      }
      out[j * step_out + o] = re;
      if constexpr (Pairs) out[j * step_out + o + 1] = im;
    }
  }
}

template <class T, bool Pairs>
void lanes_of_stage(int64_t b, int64_t c, const T* w, int64_t length, const T* in, int64_t step_in, T* out, int64_t step_out) {
  if (b == 2 && c == 2)
    lanes_of_rows<T, Pairs, 2, 2>(b, c, w, length, in, step_in, out, step_out);
  else if (b == 4 && c == 4)
    lanes_of_rows<T, Pairs, 4, 4>(b, c, w, length, in, step_in, out, step_out);
  else
    lanes_of_rows<T, Pairs, 0, 0>(b, c, w, length, in, step_in, out, step_out);
}

// Along how many blocks of rows the lanes of every stage run, 0 for lanes along d. Neighbours share as many as they can.
template <class T>
void lane_blocks(const ButterflyStage<T>* stages, int64_t count, int64_t* blocks) {
  constexpr int64_t least = 64 / sizeof(T);
  for (int64_t first = 0, last; first < count; first = last) {
    int64_t shared = 0;
    for (last = first; last < count && stages[last].d < least; ++last) {
      const int64_t common = common_divisor(stages[last].a, shared);
      if (common < least) break;
      shared = common;
    }
    if (last == first) ++last;
    for (int64_t q = first; q < last; ++q) blocks[q] = shared;
  }
}

// The numbers of a stage, (a, d, b, c), in the order in which `butterfly_vector` reads them; blocks = 0 for lanes along d.
template <class T, bool Pairs>
void order_for_lanes(const ButterflyStage<T>& s, int64_t blocks, T* to) {
  constexpr int P = Pairs ? 2 : 1;
  const int64_t each = blocks > 0 ? s.a / blocks : s.a, size = s.b * s.c;
  for (int64_t i = 0; i < each; ++i)
    for (int64_t l = 0; l < (blocks > 0 ? s.d : 1); ++l)
      for (int64_t e = 0; e < size; ++e)
        for (int part = 0; part < P; ++part)
          for (int64_t lane = 0; lane < (blocks > 0 ? blocks : s.d); ++lane) {
            const int64_t at = blocks > 0 ? (lane * each + i) * s.d + l : i * s.d + lane;
            const T value = s.values[(at * size + e) * P + part];
            for (int p = 0; p < P; ++p) *to++ = value;
          }
}

// to (cols, rows) = from (rows, cols)', of elements of P numbers.
template <class T, int P>
void transpose_elements(const T* from, int64_t rows, int64_t cols, T* to) {
  if constexpr (P == 1)
    pack<T>({from, cols, rows, 1, cols}, 0, cols, 0, rows, to, rows);
  else if constexpr (sizeof(T) == 4)
    pack<double>({reinterpret_cast<const double*>(from), cols, rows, 1, cols}, 0, cols, 0, rows, reinterpret_cast<double*>(to), rows);
  else
    for (int64_t i = 0; i < cols; ++i)
      for (int64_t j = 0; j < rows; ++j)
        for (int p = 0; p < P; ++p) to[(i * rows + j) * P + p] = from[(j * cols + i) * P + p];
}

// y = K x for contiguous vectors; the values of the stages are as `order_for_lanes` left them. scratch holds two vectors of `rows`.
template <class T, bool Pairs>
void butterfly_vector(const ButterflyStage<T>* stages, const int64_t* blocks, int64_t count, const T* x, T* y, T* scratch,
                      int64_t rows) {
  constexpr int P = Pairs ? 2 : 1;
  T *own = nullptr, *const sides[2] = {scratch, scratch + rows * P};  // own: what the next stage reads, unless that is x
  const auto other = [&] { return own == sides[0] ? sides[1] : sides[0]; };
  for (int64_t q = 0; q < count; ++q) {
    const ButterflyStage<T>& s = stages[q];
    const int64_t along = blocks[q];
    if (along > 0 && (q == 0 || blocks[q - 1] != along)) {
      T* to = other();
      transpose_elements<T, P>(own ? own : x, along, rows_in(s) / along, to);
      own = to;
    }
    const bool turns = along > 0 && (q + 1 == count || blocks[q + 1] != along);
    const T* in = own ? own : x;
    // Small blocks leave their rows where they found them.
    T* out = q + 1 == count && !turns ? y : own && in_place(s.b, s.c) ? own : other();
    const int64_t lanes = (along > 0 ? along : s.d) * P, outer = along > 0 ? s.a / along : s.a, inner = along > 0 ? s.d : 1;
    const int64_t size = s.b * s.c * lanes * P;
    for (int64_t i = 0; i < outer; ++i)
      for (int64_t l = 0; l < inner; ++l)
        lanes_of_stage<T, Pairs>(s.b, s.c, s.values + (i * inner + l) * size, lanes, in + (i * s.c * inner + l) * lanes, inner * lanes,
                                 out + (i * s.b * inner + l) * lanes, inner * lanes);
    own = out;
    if (turns) {
      T* to = q + 1 == count ? y : other();
      transpose_elements<T, P>(own, rows_out(s) / along, along, to);
      own = to;
    }
  }
}

}  // namespace
}  // namespace randla::cpu
