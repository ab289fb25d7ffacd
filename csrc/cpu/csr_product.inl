// out = A X for a CSR matrix and a dense block: every row of the result is gathered in registers, in the order of the entries of
// the row of A, so that neither threads nor the size of vectors can change a bit.

namespace randla::cpu {
namespace {

constexpr int64_t kProductPieces = 256;

// Vectors of the processor that hold the sums of one row at a time.
template <class T>
struct ProductVector {
  typedef T type __attribute__((vector_size(kNativeBytes)));
};
constexpr int kProductVectors = 8;
// A block that the last cache cannot hold is cut into narrower panels.
constexpr int64_t kProductBytes = int64_t(1) << 24;
// Rows of X are fetched this many entries ahead: they lie anywhere.
constexpr int64_t kProductAhead = 10;

// Columns [j0, j0 + cols) of X as contiguous aligned rows of `width` elements.
template <class T>
void pack_panel(Matrix<const T> X, int64_t j0, int64_t cols, int64_t width, T* to) {
  const int64_t grain = 4096;
  parallel_for((X.rows + grain - 1) / grain, [&](int64_t piece) {
    const int64_t i0 = piece * grain, rows = i0 + grain < X.rows ? grain : X.rows - i0;
    pack(X, i0, rows, j0, cols, to + i0 * width, width);
  });
}

// Parts is 1, or 2 for complex A: X and out then hold pairs, and sums of Re a x and Im a x are kept apart until the end.
template <class T, class Index, int Parts, int V>
void product_rows(Csr<T> A, const T* X, int64_t i0, int64_t i1, Matrix<T> out, int64_t j0, int64_t cols) {
  using Vec = typename ProductVector<T>::type;
  constexpr int L = kNativeBytes / sizeof(T);
  constexpr int64_t width = V * L;
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const Index* indices = static_cast<const Index*>(A.indices);
  const int64_t last = static_cast<int64_t>(indptr[A.rows]) - 1;
  alignas(64) T row[width];
  for (int64_t i = i0; i < i1; ++i) {
    Vec sums[Parts][V] = {};
    for (int64_t p = indptr[i]; p < indptr[i + 1]; ++p) {
      const T* ahead = X + indices[p + kProductAhead < last ? p + kProductAhead : last] * width;
      for (int64_t j = 0; j < width; j += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(ahead + j);
      const T* x = X + indices[p] * width;
      for (int q = 0; q < Parts; ++q) {
        const T a = A.values[p * Parts + q];
        for (int v = 0; v < V; ++v) {
          Vec from;
          __builtin_memcpy(&from, x + v * L, sizeof from);
          sums[q][v] += from * a;
        }
      }
    }
    T* to = out.row(i) + j0;
    if constexpr (Parts == 1) {
      if (cols == width) {
        __builtin_memcpy(to, sums[0], sizeof sums[0]);
      } else {
        __builtin_memcpy(row, sums[0], sizeof row);
        for (int64_t j = 0; j < cols; ++j) to[j] = row[j];
      }
    } else {
      alignas(64) T imaginary[width];
      __builtin_memcpy(row, sums[0], sizeof row);
      __builtin_memcpy(imaginary, sums[1], sizeof imaginary);
      for (int64_t j = 0; j < cols; j += 2) {
        to[j] = row[j] - imaginary[j + 1];
        to[j + 1] = row[j + 1] + imaginary[j];
      }
    }
  }
}

// One column: sums stay scalar, and X is read where it lies.
template <class T, class Index>
void product_column(Csr<T> A, Matrix<const T> X, int64_t i0, int64_t i1, Matrix<T> out) {
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const Index* indices = static_cast<const Index*>(A.indices);
  for (int64_t i = i0; i < i1; ++i) {
    T sum = 0;
    for (int64_t p = indptr[i]; p < indptr[i + 1]; ++p) sum += X.row(indices[p])[0] * A.values[p];
    out.row(i)[0] = sum;
  }
}

// rows(i0, i1) for pieces of about equal work: entries, and rows to be written.
template <class T, class Index, class Rows>
void product_pieces(Csr<T> A, Rows rows) {
  const Index* indptr = static_cast<const Index*>(A.indptr);
  const int64_t total = static_cast<int64_t>(indptr[A.rows]) + A.rows;
  auto begin = [&](int64_t piece) {
    const int64_t work = total / kProductPieces * piece + total % kProductPieces * piece / kProductPieces;
    int64_t low = 0, high = A.rows;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (static_cast<int64_t>(indptr[middle]) + middle < work)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  };
  parallel_for(kProductPieces, [&](int64_t piece) { rows(begin(piece), piece + 1 < kProductPieces ? begin(piece + 1) : A.rows); });
}

template <class T, class Index, int Parts, int V>
void product_panel(Csr<T> A, Matrix<const T> X, int64_t j0, int64_t cols, T* packed, Matrix<T> out) {
  pack_panel(X, j0, cols, V * int64_t(kNativeBytes / sizeof(T)), packed);
  product_pieces<T, Index>(
      A, [&](int64_t i0, int64_t i1) { product_rows<T, Index, Parts, V>(A, packed, i0, i1, out, j0, cols); });
}

template <class T, class Index, int Parts, int V>
void product_of_width(int vectors, Csr<T> A, Matrix<const T> X, int64_t j0, int64_t cols, T* packed, Matrix<T> out) {
  if constexpr (V > 1) {
    if (vectors < V) {
      product_of_width<T, Index, Parts, V - 1>(vectors, A, X, j0, cols, packed, out);
      return;
    }
  }
  product_panel<T, Index, Parts, V>(A, X, j0, cols, packed, out);
}

template <class T, class Index, int Parts>
void csr_product_of(Csr<T> A, Matrix<const T> X, Matrix<T> out) {
  constexpr int64_t L = kNativeBytes / sizeof(T), widest = kProductVectors / Parts * L;
  if (A.rows == 0 || X.cols == 0) return;
  if constexpr (Parts == 1) {
    if (X.cols == 1) {
      product_pieces<T, Index>(A, [&](int64_t i0, int64_t i1) { product_column<T, Index>(A, X, i0, i1, out); });
      return;
    }
  }
  const bool large = X.rows * X.cols * int64_t(sizeof(T)) > kProductBytes;
  const int64_t most = large ? widest / 2 : widest;
  // Panels of equal width, in whole vectors.
  const int64_t panels = (X.cols + most - 1) / most, vectors = ((X.cols + panels - 1) / panels + L - 1) / L;
  Scratch<T> packed(X.rows * vectors * L);
  for (int64_t j0 = 0; j0 < X.cols; j0 += vectors * L) {
    const int64_t cols = X.cols - j0 < vectors * L ? X.cols - j0 : vectors * L;
    product_of_width<T, Index, Parts, kProductVectors / Parts>(static_cast<int>((cols + L - 1) / L), A, X, j0, cols, packed.data,
                                                               out);
  }
}

// Parts = 2: the values of A are pairs (re, im), X and out have two real columns for every complex one.
template <class T, int Parts>
void csr_product(Csr<T> A, Matrix<const T> X, Matrix<T> out) {
  if (A.wide)
    csr_product_of<T, int64_t, Parts>(A, X, out);
  else
    csr_product_of<T, int32_t, Parts>(A, X, out);
}

}  // namespace
}  // namespace randla::cpu
