// The lasso on a set of columns given by their Gram matrix G: coordinate descent, whose cost is that of the coordinates that
// change, and Newton steps on the face that it has found, whose signs then change no more: the limit itself, where
// extrapolation would only come near.

namespace randla::cpu {
namespace {

constexpr int kEpochs = 12;  // of coordinate descent between two Newton steps, fewer where the signs stay

// min x'Gx / 2 - c'x + sum lambda |x|, with g = c - G x.
struct LassoState {
  const double *G, *lambda;
  int64_t n, ld;
  bool positive;
  double *x, *g;
  std::vector<int64_t> support;
  Scratch<double> H, d, q;
  int64_t held = 0;  // order that H has room for

  LassoState(const double* G, int64_t n, int64_t ld, const double* lambda, bool positive, double* x, double* g)
      : G(G), lambda(lambda), n(n), ld(ld), positive(positive), x(x), g(g), H(0), d(n), q(n) {}

  // How far the optimality conditions are from holding, relative to lambda.
  double violation() const {
    double worst = 0;
    for (int64_t j = 0; j < n; ++j) {
      const double c = g[j] / lambda[j];
      const double v = x[j] > 0 ? std::fabs(c - 1) : x[j] < 0 ? std::fabs(c + 1) : (positive ? c : std::fabs(c)) - 1;
      worst = v > worst ? v : worst;
    }
    return worst;
  }

  // One round of coordinate descent. True where a sign changed.
  bool epoch() {
    bool changed = false;
    for (int64_t j = 0; j < n; ++j) {
      const double l = lambda[j], old = x[j];
      if (old == 0 && (positive ? g[j] : std::fabs(g[j])) <= l) continue;
      const double curvature = G[j * ld + j], z = g[j] + curvature * old;
      const double next = z > l ? (z - l) / curvature : !positive && z < -l ? (z + l) / curvature : 0;
      if (next == old || !(curvature > 0)) continue;
      changed |= (next > 0) != (old > 0) || (next < 0) != (old < 0);
      x[j] = next;
      add_scaled(g, G + j * ld, old - next, n);
    }
    return changed;
  }

  // q = G d over the support.
  void product() {
    for (int64_t i = 0; i < n; ++i) q.data[i] = 0;
    for (size_t i = 0; i < support.size(); ++i) add_scaled(q.data, G + support[i] * ld, d.data[i], n);
  }

  void move(double t) {
    for (size_t i = 0; i < support.size(); ++i) x[support[i]] += t * d.data[i];
    add_scaled(g, q.data, -t, n);
  }

  // Towards the minimum over the face of the signs of x, as far as the function falls. False where that moves nothing.
  bool newton() {
    support.clear();
    for (int64_t j = 0; j < n; ++j)
      if (x[j] != 0) support.push_back(j);
    const int64_t s = static_cast<int64_t>(support.size());
    if (s == 0) return false;
    if (s > held) {
      held = s + s / 4;
      held = held < n ? held : n;
      ::operator delete(std::exchange(H.data, nullptr), std::align_val_t{64});
      H.data = static_cast<double*>(::operator new(static_cast<size_t>(held * held) * sizeof(double), std::align_val_t{64}));
    }
    std::vector<double> slope(support.size());
    for (int64_t i = 0; i < s; ++i) {
      const int64_t j = support[static_cast<size_t>(i)];
      double* row = H.data + i * s;
      for (int64_t t = 0; t <= i; ++t) row[t] = G[j * ld + support[static_cast<size_t>(t)]];
      row[i] += 1e-12 * row[i];  // dependent columns: far along what G does not see, until a coordinate is zero
      d.data[i] = slope[static_cast<size_t>(i)] = g[j] - (x[j] > 0 ? lambda[j] : -lambda[j]);
    }
    if (!cholesky_rows(H.data, s, s)) return false;
    solve_lower(H.data, s, s, d.data);
    solve_lower_transposed(H.data, s, s, d.data);
    // Everything that would change its sign to zero at once, if that is downhill.
    bool clipped = false;
    std::vector<double> whole(d.data, d.data + s);
    for (int64_t i = 0; i < s; ++i) {
      const double from = x[support[static_cast<size_t>(i)]];
      if ((from > 0) == (from + d.data[i] > 0) && from + d.data[i] != 0) continue;
      clipped = true;
      d.data[i] = -from;
    }
    product();
    double linear = 0, curvature = 0;
    const auto measure = [&] {
      linear = curvature = 0;
      for (int64_t i = 0; i < s; ++i) {
        linear += slope[static_cast<size_t>(i)] * d.data[i];
        curvature += q.data[support[static_cast<size_t>(i)]] * d.data[i];
      }
    };
    measure();
    if (linear > 0.5 * curvature) {
      move(1);
      return true;
    }
    if (!clipped) return false;
    for (int64_t i = 0; i < s; ++i) d.data[i] = whole[static_cast<size_t>(i)];
    product();
    measure();
    if (!(linear > 0)) return false;
    // Up to the first zero, which is before the minimum.
    double t = curvature > 0 ? linear / curvature : std::numeric_limits<double>::infinity();
    int64_t hit = -1;
    for (int64_t i = 0; i < s; ++i) {
      const double from = x[support[static_cast<size_t>(i)]], at = -from / d.data[i];
      if (at > 0 && at < t) t = at, hit = i;
    }
    if (!(t < std::numeric_limits<double>::infinity())) return false;
    move(t);
    if (hit >= 0) x[support[static_cast<size_t>(hit)]] = 0;
    return true;
  }
};

// Solves until the optimality conditions hold to tol, relatively; returns the rounds of coordinate descent and, in *violation, what
// was reached. x and g are those of the start on entry. Stops after `limit` rounds, or where nothing moves any more.
inline int64_t lasso(const double* G, int64_t n, int64_t ld, const double* lambda, bool positive, double tol, int64_t limit,
                     double* x, double* g, double* violation) {
  LassoState state(G, n, ld, lambda, positive, x, g);
  int64_t rounds = 0, idle = 0;
  double best = std::numeric_limits<double>::infinity();
  while ((*violation = state.violation()) > tol && rounds < limit && idle < 20) {
    idle = *violation < best ? 0 : idle + 1;
    best = *violation < best ? *violation : best;
    for (int e = 0; e < kEpochs && rounds < limit; ++e) {
      ++rounds;
      if (!state.epoch() && e > 0) break;
    }
    state.newton();
  }
  return rounds;
}

}  // namespace
}  // namespace randla::cpu
