// Generalized linear models, f = sum w_i loss(a_i x, y_i): value, gradient and Hessian products as passes over the rows, and the
// parts of them that need only margins. k is the number of vectors, or the classes of the softmax loss.

namespace randla::cpu {
namespace {

constexpr int64_t kMarginChunk = 8192;  // margins that a thread takes at a time

struct GlmMiddle {
  const Loss& loss;
  int64_t k, count;
  double *z, *c, *d;  // (k, count) or null

  static void call(const void* context, int64_t i0, int64_t count, double* t, int64_t stride, double* sums) {
    const GlmMiddle& self = *static_cast<const GlmMiddle*>(context);
    for (int64_t q = 0; self.z && q < self.k; ++q)
      __builtin_memcpy(self.z + q * self.count + i0, t + q * stride, static_cast<size_t>(count) * sizeof(double));
    if (self.loss.id == LossId::kSoftmax)
      softmax_of_margins(self.loss, self.k, i0, count, t, self.d + i0, stride, self.count, sums);
    else
      loss_of_margins(self.loss, i0, count, t, t, self.d ? self.d + i0 : nullptr, sums);
    for (int64_t q = 0; self.c && q < self.k; ++q)
      __builtin_memcpy(self.c + q * self.count + i0, t + q * stride, static_cast<size_t>(count) * sizeof(double));
  }
};

// The multipliers of rows as they come: t = A x goes out to u, and is multiplied by d; or c comes in.
struct ProductMiddle {
  int64_t k, count;
  const double *c, *d;  // (k, count) and (count), or null
  double* u;            // (k, count) or null

  static void call(const void* context, int64_t i0, int64_t count, double* t, int64_t stride, double*) {
    const ProductMiddle& self = *static_cast<const ProductMiddle*>(context);
    const double* d = self.d ? self.d + i0 : nullptr;
    for (int64_t q = 0; q < self.k; ++q) {
      double* tq = t + q * stride;
      if (self.c) __builtin_memcpy(tq, self.c + q * self.count + i0, static_cast<size_t>(count) * sizeof(double));
      if (self.u) __builtin_memcpy(self.u + q * self.count + i0, tq, static_cast<size_t>(count) * sizeof(double));
      if (d)
        for (int64_t i = 0; i < count; ++i) tq[i] *= d[i];
    }
  }
};

// t_c -> w p_c (t_c - sum p t): the second derivative of the softmax loss.
struct SoftmaxMiddle {
  int64_t k, count;
  const double *p, *w;  // (k, count) and (count) or null

  static void call(const void* context, int64_t i0, int64_t count, double* t, int64_t stride, double*) {
    const SoftmaxMiddle& self = *static_cast<const SoftmaxMiddle*>(context);
    const double *p = self.p + i0, *w = self.w ? self.w + i0 : nullptr;
    for (int64_t i = 0; i < count; i += kQuads) {
      const int64_t some = count - i;
      Doubles mean = {};
      for (int64_t q = 0; q < self.k; ++q)
        mean += load_some(p + q * self.count + i, some, 0.0) * load_some(t + q * stride + i, some, 0.0);
      const Doubles wi = w ? load_some(w + i, some, 0.0) : vector_of(1.0);
      for (int64_t q = 0; q < self.k; ++q) {
        const Doubles pq = load_some(p + q * self.count + i, some, 0.0), tq = load_some(t + q * stride + i, some, 0.0);
        store_some(t + q * stride + i, some, wi * pq * (tq - mean));
      }
    }
  }
};

template <class Pass>
double glm_of(const Pass& pass, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c, double* d,
              double* g) {
  const GlmMiddle middle{loss, k, rows.count, z, c, d};
  double total = 0;
  pass(RowPass{k, x, g, rows.rows, rows.count, GlmMiddle::call, &middle, 1, &total});
  return total;
}

template <class T>
double glm(Matrix<const T> A, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c, double* d,
           double* g) {
  return glm_of([&](const RowPass& pass) { row_pass<T, T>(pass, A); }, rows, loss, k, x, z, c, d, g);
}

template <class T>
double glm_csr(Csr<T> A, const RowChoice& rows, const Loss& loss, int64_t k, const double* x, double* z, double* c, double* d,
               double* g) {
  return glm_of([&](const RowPass& pass) { row_pass_csr<T>(pass, A); }, rows, loss, k, x, z, c, d, g);
}

template <class T>
void weighted_product(Matrix<const T> A, const RowChoice& rows, int64_t k, const double* x, const double* c, const double* d,
                      double* u, double* g) {
  const ProductMiddle middle{k, rows.count, c, d, u};
  row_pass<T, T>({k, x, g, rows.rows, rows.count, ProductMiddle::call, &middle, 0, nullptr}, A);
}

template <class T>
void weighted_product_csr(Csr<T> A, const RowChoice& rows, int64_t k, const double* x, const double* c, const double* d, double* u,
                          double* g) {
  const ProductMiddle middle{k, rows.count, c, d, u};
  row_pass_csr<T>({k, x, g, rows.rows, rows.count, ProductMiddle::call, &middle, 0, nullptr}, A);
}

template <class T>
void softmax_product(Matrix<const T> A, const RowChoice& rows, int64_t k, const double* x, const double* p, const double* w,
                     double* g) {
  const SoftmaxMiddle middle{k, rows.count, p, w};
  row_pass<T, T>({k, x, g, rows.rows, rows.count, SoftmaxMiddle::call, &middle, 0, nullptr}, A);
}

template <class T>
void softmax_product_csr(Csr<T> A, const RowChoice& rows, int64_t k, const double* x, const double* p, const double* w, double* g) {
  const SoftmaxMiddle middle{k, rows.count, p, w};
  row_pass_csr<T>({k, x, g, rows.rows, rows.count, SoftmaxMiddle::call, &middle, 0, nullptr}, A);
}

// Sums over chunks of margins, added in their order.
template <class Chunk>
void sum_margins(int64_t count, int sums, double* out, const Chunk& chunk) {
  const int64_t chunks = (count + kMarginChunk - 1) / kMarginChunk;
  Scratch<double> partial(chunks * sums);
  parallel_for(chunks, [&](int64_t q) {
    double* mine = partial.data + q * sums;
    for (int s = 0; s < sums; ++s) mine[s] = 0.0;
    const int64_t i0 = q * kMarginChunk;
    chunk(i0, i0 + kMarginChunk < count ? kMarginChunk : count - i0, mine);
  });
  for (int s = 0; s < sums; ++s) out[s] = 0.0;
  for (int64_t q = 0; q < chunks; ++q)
    for (int s = 0; s < sums; ++s) out[s] += partial.data[q * sums + s];
}

double loss_terms(const Loss& loss, int64_t k, int64_t count, const double* z, double* c, double* d) {
  double total = 0;
  sum_margins(count, 1, &total, [&](int64_t i0, int64_t some, double* sums) {
    if (loss.id != LossId::kSoftmax) return loss_of_margins(loss, i0, some, z + i0, c + i0, d ? d + i0 : nullptr, sums);
    for (int64_t q = 0; q < k; ++q)
      __builtin_memcpy(c + q * count + i0, z + q * count + i0, static_cast<size_t>(some) * sizeof(double));
    softmax_of_margins(loss, k, i0, some, c + i0, d + i0, count, count, sums);
  });
  return total;
}

void loss_difference(const Loss& loss, int64_t k, int64_t count, const double* z, const double* u, double* sums) {
  sum_margins(count, 2, sums, [&](int64_t i0, int64_t some, double* mine) {
    if (loss.id == LossId::kSoftmax)
      softmax_of_changes(loss, k, i0, some, z + i0, u + i0, count, mine);
    else
      loss_of_changes(loss, i0, some, z + i0, u + i0, mine);
  });
}

// G += A' diag(d) A, the upper triangle or the lower one of every pair of entries, then both.
template <class T, class Index>
void weighted_gram_csr_of(Csr<T> A, const RowChoice& rows, const double* d, double* G) {
  const Index *indptr = static_cast<const Index*>(A.indptr), *indices = static_cast<const Index*>(A.indices);
  const int64_t n = A.cols;
  const int64_t chunks = rows.count < 16384 ? 1 : 8, step = (rows.count + chunks - 1) / chunks;
  Scratch<double> partial(chunks * n * n);
  parallel_for(chunks, [&](int64_t q) {
    double* mine = partial.data + q * n * n;
    for (int64_t j = 0; j < n * n; ++j) mine[j] = 0.0;
    for (int64_t i = q * step; i < rows.count && i < (q + 1) * step; ++i) {
      const int64_t row = rows.rows ? rows.rows[i] : i;
      for (Index a = indptr[row]; a < indptr[row + 1]; ++a) {
        const double left = d[i] * static_cast<double>(A.values[a]);
        double* to = mine + static_cast<int64_t>(indices[a]) * n;
        for (Index b = indptr[row]; b < a; ++b) to[indices[b]] += left * static_cast<double>(A.values[b]);
        // Half of the diagonal: the other half comes with the other triangle.
        to[indices[a]] += 0.5 * left * static_cast<double>(A.values[a]);
      }
    }
  });
  for (int64_t q = 1; q < chunks; ++q)
    for (int64_t j = 0; j < n * n; ++j) partial.data[j] += partial.data[q * n * n + j];
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) G[i * n + j] += partial.data[i * n + j] + partial.data[j * n + i];
}

template <class T>
void weighted_gram_csr(Csr<T> A, const RowChoice& rows, const double* d, double* G) {
  if (A.wide)
    weighted_gram_csr_of<T, int64_t>(A, rows, d, G);
  else
    weighted_gram_csr_of<T, int32_t>(A, rows, d, G);
}

}  // namespace
}  // namespace randla::cpu
