// Gradients through y = K_1 ... K_S x: for G = dF/dY, dF/dX = K' G (the adjoint), and for every stage dF/dK = G_s X_s' on its
// pattern, X_s what the stage was given and G_s what came back to it. A tile of columns of the batch keeps all X_s.
//
// Sums over the batch are cut into tiles and groups by its size alone: the same bits for any number of threads.

namespace randla::cpu {
namespace {

constexpr int kGradientLanes = 4;    // vectors of 64 bytes in a row of a tile
constexpr int64_t kGradientGroups = 8;

// The sum of the lanes in a fixed order; of pairs, the sums of the even and of the odd ones.
template <class T>
inline __attribute__((always_inline)) void fold(Lanes<T> v, bool pairs, T* sums) {
  T lanes[kLanes<T>];
  __builtin_memcpy(lanes, &v, 64);
  for (int h = kLanes<T> / 2; h >= 2; h /= 2)
    for (int l = 0; l < h; ++l) lanes[l] += lanes[l + h];
  if (pairs)
    sums[0] += lanes[0], sums[1] += lanes[1];
  else
    sums[0] += lanes[0] + lanes[1];
}

// For every block of a stage: dw[j][k] += g_j x_k^* and back_k = sum_j w[j][k]^* g_j, rows of kGradientLanes vectors.
template <class T, bool Pairs>
void gradient_of_stage(const ButterflyStage<T>& s, const T* X, const T* G, T* back, T* dw) {
  constexpr int N = kGradientLanes, L = kLanes<T>, P = Pairs ? 2 : 1;
  constexpr int64_t step = N * L;
  for (int64_t i = 0; i < s.a; ++i)
    for (int64_t l = 0; l < s.d; ++l) {
      const int64_t at = (i * s.d + l) * s.b * s.c * P;
      const T *w = s.values + at, *x = X + (i * s.c * s.d + l) * step, *g = G + (i * s.b * s.d + l) * step;
      T *d = dw + at, *to = back + (i * s.c * s.d + l) * step;
      for (int64_t k = 0; k < s.c; ++k) {
        Lanes<T> sum[N] = {}, xk[N];
        for (int v = 0; v < N; ++v) xk[v] = load(x + k * s.d * step + v * L);
        for (int64_t j = 0; j < s.b; ++j) {
          const T* wjk = w + (j * s.c + k) * P;
          Lanes<T> dot = {}, cross = {};
          for (int v = 0; v < N; ++v) {
            const Lanes<T> gj = load(g + j * s.d * step + v * L);
            sum[v] += gj * wjk[0];
            dot += gj * xk[v];
            if constexpr (Pairs) {
              // w^* g and g x^*: the pair (re, im) turned is i times it.
              const Lanes<T> t = turned<T>(gj);
              sum[v] -= t * wjk[1];
              cross += t * xk[v];
            }
          }
          T* djk = d + (j * s.c + k) * P;
          if constexpr (Pairs) {
            T even[2] = {}, odd[2] = {};
            fold<T>(dot, true, even);
            fold<T>(cross, true, odd);
            djk[0] += even[0] + even[1];
            djk[1] -= odd[0] + odd[1];
          } else {
            fold<T>(dot, false, djk);
          }
        }
        for (int v = 0; v < N; ++v) store(to + k * s.d * step + v * L, sum[v]);
      }
    }
}

// dX = K' G and dw = the gradients of all values, in the layout of the stages and one behind the other.
template <class T, bool Pairs>
void butterfly_gradient(const ButterflyStage<T>* stages, int64_t count, Matrix<const T> X, Matrix<const T> G, Matrix<T> dX, T* dw,
                        int64_t rows, int64_t parameters) {
  constexpr int64_t width = kGradientLanes * kLanes<T>;
  constexpr int P = Pairs ? 2 : 1, N = static_cast<int>(kGradientLanes * 64 / kNativeBytes);
  const int64_t batch = X.cols * P, tiles = (batch + width - 1) / width;
  const int64_t groups = tiles < kGradientGroups ? tiles : kGradientGroups, size = parameters * P;
  for (int64_t q = 0; q < size; ++q) dw[q] = T(0);
  if (batch == 0) return;
  std::vector<int64_t> starts, offsets;
  int64_t kept = 0, offset = 0;
  for (int64_t q = 0; q < count; ++q) {
    starts.push_back(kept);
    offsets.push_back(offset);
    kept += rows_in(stages[q]) * width;
    offset += stages[q].a * stages[q].b * stages[q].c * stages[q].d * P;
  }
  const int64_t own = kept + 2 * rows * width + dX.rows * width;
  const Reused<T> scratch(max_threads() * own), partial(groups * size);
  parallel_for(groups, [&](int64_t group) {
    T *mine = scratch.data + thread_index() * own, *g = mine + kept, *back = g + rows * width;
    T* sums = partial.data + group * size;
    for (int64_t q = 0; q < size; ++q) sums[q] = T(0);
    for (int64_t tile = group * tiles / groups; tile < (group + 1) * tiles / groups; ++tile) {
      const int64_t j0 = tile * width, cols = j0 + width < batch ? width : batch - j0;
      pack_columns<T, P>(X, 0, X.rows, j0 / P, cols / P, mine, width);
      for (int64_t q = 0; q + 1 < count; ++q) {
        const ButterflyStage<T>& s = stages[q];
        const StageRun whole{q, q + 1, 1, s.d};
        const RunRows<const T> in{mine + starts[static_cast<size_t>(q)], s.d * width, width};
        const RunRows<T> out{mine + starts[static_cast<size_t>(q) + 1], s.d * width, width};
        butterfly_stage<T, Pairs, N>(s, whole, 0, 0, s.d, in, out);
      }
      T *from = g, *to = back;
      pack_columns<T, P>(G, 0, G.rows, j0 / P, cols / P, from, width);
      for (int64_t q = count - 1; q >= 0; --q) {
        gradient_of_stage<T, Pairs>(stages[q], mine + starts[static_cast<size_t>(q)], from, to,
                                    sums + offsets[static_cast<size_t>(q)]);
        std::swap(from, to);
      }
      unpack_columns<T, P, false>(from, width, dX, 0, dX.rows, j0 / P, cols / P);
    }
  });
  for (int64_t group = 0; group < groups; ++group)
    for (int64_t q = 0; q < size; ++q) dw[q] += partial.data[group * size + q];
}

}  // namespace
}  // namespace randla::cpu
