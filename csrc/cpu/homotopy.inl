// The path of the lasso from the largest penalty to none (Osborne, Presnell, Turlach 2000; Efron et al. 2004), on columns given by
// their Gram matrix. On each piece x = x0 - t u and c = e + t a in terms of the penalty t; all four are computed anew from the
// factor, so that rounding does not add up along the path.

namespace randla::cpu {
namespace {

constexpr double kDependent = 1e-11;  // share of a column's square outside the others, below which it brings nothing new
constexpr double kPathNoise = 1e-11;  // share of the largest entry, below which the sign of another is rounding
constexpr double kPathEnd = 1e-13;    // share of the first penalty at which the path ends

struct Homotopy {
  const double *G, *c, *weight;
  int64_t n, ld, size = 0;
  std::vector<int64_t> support;
  std::vector<double> sign, x0, u;
  std::vector<char> state;  // 0 free, 1 in the support, 2 dependent on it
  Scratch<double> L, e, a;  // L L' = G_SS, column-major

  Homotopy(const double* G, int64_t n, int64_t ld, const double* c, const double* weight)
      : G(G), c(c), weight(weight), n(n), ld(ld), state(static_cast<size_t>(n)), L(n * n), e(n), a(n) {}

  void solve(double* z) const {
    for (int64_t k = 0; k < size; ++k) {
      const double* column = L.data + k * n + k;
      z[k] /= column[0];
      add_scaled(z + k + 1, column + 1, -z[k], size - k - 1);
    }
  }
  void solve_transposed(double* z) const {
    for (int64_t k = size - 1; k >= 0; --k) {
      const double* column = L.data + k * n + k;
      z[k] = (z[k] - column_dot(column + 1, z + k + 1, size - k - 1)) / column[0];
    }
  }

  bool add(int64_t j, double s) {
    std::vector<double> row(support.size());
    for (size_t i = 0; i < support.size(); ++i) row[i] = G[j * ld + support[i]];
    solve(row.data());
    const double all = G[j * ld + j], left = all - column_dot(row.data(), row.data(), size);
    if (!(left > kDependent * all)) {
      state[static_cast<size_t>(j)] = 2;
      return false;
    }
    for (int64_t k = 0; k < size; ++k) L.data[k * n + size] = row[static_cast<size_t>(k)];
    L.data[size * n + size] = std::sqrt(left);
    ++size;
    support.push_back(j);
    sign.push_back(s);
    state[static_cast<size_t>(j)] = 1;
    return true;
  }

  void remove(int64_t at) {
    for (int64_t k = 0; k < at; ++k) {
      double* row = L.data + k * n + at;
      __builtin_memmove(row, row + 1, static_cast<size_t>(size - at - 1) * sizeof(double));
    }
    // Without its row the factor has one entry above the diagonal in every later column: pairs of columns turn it away.
    std::vector<double> left(L.data + at * n + at + 1, L.data + at * n + size);
    --size;
    for (int64_t k = at; k < size; ++k) {
      double *v = left.data() + (k - at), *w = L.data + (k + 1) * n + k + 1, *to = L.data + k * n + k;
      const double h = std::sqrt(v[0] * v[0] + w[0] * w[0]), cosine = v[0] / h, sine = w[0] / h;
      const int64_t count = size - k;
      int64_t i = 0;
      for (; i + 8 <= count; i += 8) {
        const Lanes<double> p = load(v + i), q = load(w + i);
        store(to + i, p * cosine + q * sine);
        store(v + i, q * cosine - p * sine);
      }
      for (; i < count; ++i) {
        const double p = v[i], q = w[i];
        to[i] = p * cosine + q * sine;
        v[i] = q * cosine - p * sine;
      }
    }
    for (char& s : state) s = s == 2 ? 0 : s;
    state[static_cast<size_t>(support[static_cast<size_t>(at)])] = 0;
    support.erase(support.begin() + at);
    sign.erase(sign.begin() + at);
  }

  // The lines of the current piece.
  void lines() {
    const auto s = static_cast<size_t>(size);
    x0.resize(s);
    u.resize(s);
    for (size_t i = 0; i < s; ++i) {
      x0[i] = c[support[i]];
      u[i] = weight[support[i]] * sign[i];
    }
    for (double* z : {x0.data(), u.data()}) {
      solve(z);
      solve_transposed(z);
    }
    for (int64_t j = 0; j < n; ++j) e.data[j] = c[j], a.data[j] = 0;
    size_t i = 0;
    for (; i + 4 <= s; i += 4) add_rows<4>(i);
    for (; i < s; ++i) add_rows<1>(i);
  }

  // e -= x0 G and a += u G for some rows of G.
  template <int R>
  void add_rows(size_t i) {
    const double* rows[R];
    for (int r = 0; r < R; ++r) rows[r] = G + support[i + static_cast<size_t>(r)] * ld;
    const double *x = x0.data() + i, *d = u.data() + i;
    int64_t j = 0;
    for (; j + 8 <= n; j += 8) {
      Lanes<double> p = load(e.data + j), q = load(a.data + j);
      for (int r = 0; r < R; ++r) {
        const Lanes<double> g = load(rows[r] + j);
        p -= g * x[r];
        q += g * d[r];
      }
      store(e.data + j, p);
      store(a.data + j, q);
    }
    for (; j < n; ++j)
      for (int r = 0; r < R; ++r) {
        e.data[j] -= rows[r][j] * x[r];
        a.data[j] += rows[r][j] * d[r];
      }
  }
};

// Follows the path of min |b - A x|^2 / 2 + t sum weight |x| (over x >= 0 where `positive`), c = A'b, down to t = end: from the
// largest t of interest, or from t = start > 0 where the signs of the solution are those on entry. Writes x, its signs (zero
// outside the support) and u, for which the solution of that piece is x0 - t u; x0 is x for end = 0. Returns the number of pieces,
// -1 where `limit` was not enough.
inline int64_t l1_path(const double* G, int64_t n, int64_t ld, const double* c, const double* weight, double start, double end,
                       bool positive, int64_t limit, double* x, double* sign, double* u) {
  Homotopy path(G, n, ld, c, weight);
  for (int64_t j = 0; j < n; ++j) x[j] = u[j] = 0;
  double t = 0, left_sign = 0, largest = 0;
  int64_t first = -1, entered = -1, left = -1, steps = 0;
  for (int64_t j = 0; j < n; ++j) {
    const double size = std::fabs(c[j]);
    largest = size > largest ? size : largest;
    if (weight[j] > 0 && (positive ? c[j] : size) > t * weight[j]) t = size / weight[j], first = j;
    if (start > 0 && sign[j] != 0 && !path.add(j, sign[j])) return -1;
    sign[j] = 0;
  }
  const double last = end > kPathEnd * t ? end : kPathEnd * t;
  if (start > 0 && path.size > 0) {
    t = start;
  } else {
    if (first < 0 || !(t > end) || !path.add(first, c[first] > 0 ? 1 : -1)) return 0;
    entered = first;
  }
  for (;;) {
    path.lines();
    if (++steps > limit) return -1;
    double next = last, size = 0, entering_sign = 0;
    int64_t entering = -1, leaving = -1;
    // Of the support e is zero but for rounding, which elsewhere is larger by up to the condition of the columns.
    double noise = kPathEnd * largest;
    for (const int64_t j : path.support) noise = std::fabs(path.e.data[j]) > 1e-3 * noise ? 1e3 * std::fabs(path.e.data[j]) : noise;
    for (int64_t j = 0; j < n; ++j) {
      if (path.state[static_cast<size_t>(j)] != 0) continue;
      for (const double s : {1.0, -1.0}) {
        if (positive && s < 0) continue;
        const double over = s * path.e.data[j], slope = weight[j] - s * path.a.data[j];
        if (!(over > noise) || !(slope > 0) || (j == left && s == left_sign)) continue;
        const double at = over / slope < t ? over / slope : t;
        if (at > next) next = at, entering = j, entering_sign = s;
      }
    }
    for (const double v : path.x0) size = std::fabs(v) > size ? std::fabs(v) : size;
    for (int64_t i = 0; i < path.size; ++i) {
      const auto k = static_cast<size_t>(i);
      if (!(path.sign[k] * path.x0[k] < -kPathNoise * size) || path.support[k] == entered) continue;
      const double at = path.x0[k] / path.u[k] < t ? path.x0[k] / path.u[k] : t;
      if (at > next) next = at, leaving = i;
    }
    if (leaving < 0 && entering < 0) break;
    t = next;
    entered = left = -1;
    if (leaving >= 0) {
      left = path.support[static_cast<size_t>(leaving)];
      left_sign = path.sign[static_cast<size_t>(leaving)];
      path.remove(leaving);
    } else if (path.add(entering, entering_sign)) {
      entered = entering;
    }
    if (path.size == 0) return -1;
  }
  for (int64_t i = 0; i < path.size; ++i) {
    const auto k = static_cast<size_t>(i);
    const int64_t j = path.support[k];
    x[j] = path.x0[k] - end * path.u[k];
    sign[j] = path.sign[k];
    u[j] = path.u[k];
  }
  return steps;
}

}  // namespace
}  // namespace randla::cpu
