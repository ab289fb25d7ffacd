// The fused residual pass: r = b - A x, g = A'(w r) and sum w r^2 in one read of A.

namespace randla::cpu {
namespace {

struct ResidualMiddle {
  int64_t m, k;
  const double *b, *w;  // (k, m) and (m), or null
  double* r;            // (k, m)

  static void call(const void* context, int64_t i0, int64_t count, double* t, int64_t stride, double* sums) {
    const ResidualMiddle& self = *static_cast<const ResidualMiddle*>(context);
    for (int64_t c = 0; c < self.k; ++c) {
      double *tc = t + c * stride, *r = self.r + c * self.m + i0;
      const double *b = self.b ? self.b + c * self.m + i0 : nullptr, *w = self.w ? self.w + i0 : nullptr;
      for (int64_t i = 0; i < count; ++i) r[i] = (b ? b[i] : 0.0) - tc[i];
      for (int64_t i = 0; i < count; ++i) tc[i] = w ? w[i] * r[i] : r[i];
      // One by one: how rows are grouped into tiles must not change a bit.
      for (int64_t i = 0; i < count; ++i) sums[c] += tc[i] * r[i];
    }
  }
};

template <class Rows, class View>
void residual_of(const Rows& rows, const View& A, int64_t k, const double* x, const double* b, const double* w, double* r,
                 double* g, double* squares) {
  const ResidualMiddle middle{A.rows, k, b, w, r};
  rows({k, x, g, nullptr, A.rows, ResidualMiddle::call, &middle, k, squares}, A);
}

template <class T>
void residual(Matrix<const T> A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
              double* squares) {
  residual_of(row_pass<T, T>, A, k, x, b, w, r, g, squares);
}

template <class T>
void residual_complex(Matrix<const Complex<T>> A, int64_t k, const double* x, const double* b, const double* w, double* r,
                      double* g, double* squares) {
  residual_of(row_pass<T, Complex<T>>, A, k, x, b, w, r, g, squares);
}

template <class T>
void residual_csr(Csr<T> A, int64_t k, const double* x, const double* b, const double* w, double* r, double* g,
                  double* squares) {
  residual_of(row_pass_csr<T>, A, k, x, b, w, r, g, squares);
}

}  // namespace
}  // namespace randla::cpu
