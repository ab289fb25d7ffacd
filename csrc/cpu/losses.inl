// Losses of one margin z and one label y: value f, first and second derivative c and d with respect to z, and f(z + u) - f(z)
// without cancellation. Formulas: docs/optimization.md.

namespace randla::cpu {
namespace {

struct LossTerms {
  Doubles f, c, d;
};

// 1 / (1 + e^-z) and what goes with it; e = exp(-|z|) cannot overflow.
struct Sigmoid {
  Doubles e, inverse, value, slope;
  explicit inline __attribute__((always_inline)) Sigmoid(Doubles z)
      : e(exp_of(-absolute(z))), inverse(1.0 / (e + 1.0)), value(z >= 0.0 ? inverse : e * inverse), slope(e * inverse * inverse) {
    value = z == z ? value : z;
  }
  // 1 - 2 value
  inline __attribute__((always_inline)) Doubles bend(Doubles z) const {
    const Doubles t = (1.0 - e) * inverse;
    return z >= 0.0 ? -t : t;
  }
  // value - y for a label 0 or 1, without cancellation
  inline __attribute__((always_inline)) Doubles minus(Doubles z, Doubles y) const {
    return y > 0.5 ? -(z >= 0.0 ? e * inverse : inverse) : value;
  }
  // log(1 + e^z)
  inline __attribute__((always_inline)) Doubles softplus(Doubles z) const {
    return (z > 0.0 ? z : vector_of(0.0)) + log1p_of(e);
  }
};

struct Logistic {  // labels -1 and 1
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double) {
    const Doubles m = -y * z;
    const Sigmoid s(m);
    return {s.softplus(m), -y * s.value, s.slope};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double) {
    return log1p_of(Sigmoid(-y * z).value * expm1_of(-y * u));
  }
};

struct SquaredSigmoid {  // labels 0 and 1
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double) {
    const Sigmoid s(z);
    const Doubles r = s.minus(z, y);
    return {r * r, 2.0 * r * s.slope, 2.0 * (s.slope * s.slope + r * s.slope * s.bend(z))};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double) {
    const Sigmoid s(z);
    const Doubles e = expm1_of(u), change = s.slope * e / (s.value * e + 1.0);
    return change * (2.0 * s.minus(z, y) + change);
  }
};

struct LeastSquares {
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double) {
    const Doubles r = z - y;
    return {0.5 * r * r, r, vector_of(1.0)};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double) {
    return u * ((z - y) + 0.5 * u);
  }
};

struct Softplus {  // half the square of log(1 + e^z) - y
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double) {
    const Sigmoid s(z);
    const Doubles r = s.softplus(z) - y;
    return {0.5 * r * r, r * s.value, s.value * s.value + r * s.slope};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double) {
    const Sigmoid s(z);
    const Doubles change = log1p_of(s.value * expm1_of(u));
    return change * ((s.softplus(z) - y) + 0.5 * change);
  }
};

struct Poisson {
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double) {
    const Doubles e = exp_of(z);
    return {e - y * z, e - y, e};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double) {
    return exp_of(z) * expm1_of(u) - y * u;
  }
};

// Robust losses of the residual r = z - y with scale p, all r^2 / 2 near zero.
struct Tukey {
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double p) {
    const Doubles r = z - y, q = r / p, b = 1.0 - q * q;
    const auto inside = b > 0.0;
    const Doubles zero = {}, full = vector_of(p * p / 6.0), square = q * q;
    return {inside ? 0.5 * r * r * (1.0 - square + square * square / 3.0) : full + zero * r, inside ? r * b * b : zero * r,
            inside ? b * (1.0 - 5.0 * q * q) : zero * r};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double p) {
    const Doubles r = z - y, q = r / p, q1 = (r + u) / p;
    const Doubles b = 1.0 - q * q, b1 = 1.0 - q1 * q1, zero = {};
    const Doubles a = b > 0.0 ? b : zero * r, a1 = b1 > 0.0 ? b1 : zero * (r + u);
    const Doubles both = u * (2.0 * r + u) / (p * p);
    return (p * p / 6.0) * ((b > 0.0) & (b1 > 0.0) ? both : a - a1) * (a * a + a * a1 + a1 * a1);
  }
};

struct Huber {
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double p) {
    const Doubles r = z - y, size = absolute(r), zero = {};
    const auto inside = size <= p;
    return {inside ? 0.5 * r * r : p * (size - 0.5 * p), inside ? r : (r > 0.0 ? zero + p : zero * r - p),
            inside ? zero + 1.0 : zero * r};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double p) {
    const Doubles r = z - y, r1 = r + u;
    const auto inside = (absolute(r) <= p) & (absolute(r1) <= p), above = (r > p) & (r1 > p), below = (r < -p) & (r1 < -p);
    const Doubles other = terms(z + u, y, p).f - terms(z, y, p).f;
    return inside ? u * (r + 0.5 * u) : above ? p * u : below ? -p * u : other;
  }
};

struct PseudoHuber {  // p^2 (sqrt(1 + (r / p)^2) - 1)
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double p) {
    const Doubles r = z - y, q = r / p, root = square_root(1.0 + q * q);
    return {r * r / (root + 1.0), r / root, 1.0 / (root * root * root)};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double p) {
    const Doubles r = z - y, q = r / p, q1 = (r + u) / p;
    return u * (2.0 * r + u) / (square_root(1.0 + q * q) + square_root(1.0 + q1 * q1));
  }
};

struct Cauchy {  // p^2 / 2 log(1 + (r / p)^2)
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double p) {
    const Doubles r = z - y, q = r / p, w = 1.0 / (1.0 + q * q);
    return {0.5 * p * p * log1p_of(q * q), r * w, (1.0 - q * q) * w * w};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double p) {
    const Doubles r = z - y, q = r / p;
    return 0.5 * p * p * log1p_of(u * (2.0 * r + u) / (p * p) / (1.0 + q * q));
  }
};

struct Welsch {  // p^2 / 2 (1 - exp(-(r / p)^2))
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double p) {
    const Doubles r = z - y, q = r / p, e = exp_of(-q * q);
    return {-0.5 * p * p * expm1_of(-q * q), r * e, (1.0 - 2.0 * q * q) * e};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double p) {
    const Doubles r = z - y, q = r / p;
    return -0.5 * p * p * exp_of(-q * q) * expm1_of(-u * (2.0 * r + u) / (p * p));
  }
};

struct GemanMcClure {  // r^2 / 2 / (1 + (r / p)^2)
  static inline __attribute__((always_inline)) LossTerms terms(Doubles z, Doubles y, double p) {
    const Doubles r = z - y, q = r / p, w = 1.0 / (1.0 + q * q);
    return {0.5 * r * r * w, r * w * w, (1.0 - 3.0 * q * q) * w * w * w};
  }
  static inline __attribute__((always_inline)) Doubles difference(Doubles z, Doubles u, Doubles y, double p) {
    const Doubles r = z - y, q = r / p, q1 = (r + u) / p;
    return 0.5 * u * (2.0 * r + u) / ((1.0 + q * q) * (1.0 + q1 * q1));
  }
};

// `function` gets the loss that `id` names.
template <class Function>
void with_loss(LossId id, const Function& function) {
  switch (id) {
    case LossId::kLogistic: return function(Logistic{});
    case LossId::kSquaredSigmoid: return function(SquaredSigmoid{});
    case LossId::kLeastSquares: return function(LeastSquares{});
    case LossId::kSoftplus: return function(Softplus{});
    case LossId::kPoisson: return function(Poisson{});
    case LossId::kTukey: return function(Tukey{});
    case LossId::kHuber: return function(Huber{});
    case LossId::kPseudoHuber: return function(PseudoHuber{});
    case LossId::kCauchy: return function(Cauchy{});
    case LossId::kWelsch: return function(Welsch{});
    case LossId::kGemanMcClure: return function(GemanMcClure{});
    case LossId::kSoftmax: return;
  }
}

// c = w f', d = w f'' for `count` margins; adds the w f one by one to *total. d may be null; c may be z.
inline void loss_of_margins(const Loss& loss, int64_t i0, int64_t count, const double* z, double* c, double* d, double* total) {
  with_loss(loss.id, [&](auto kind) {
    for (int64_t i = 0; i < count; i += kQuads) {
      const int64_t some = count - i;
      const Doubles y = load_some(loss.y + i0 + i, some, 1.0);
      const Doubles w = loss.w ? load_some(loss.w + i0 + i, some, 1.0) : vector_of(1.0);
      const LossTerms t = decltype(kind)::terms(load_some(z + i, some, 0.0), y, loss.parameter);
      const Doubles f = w * t.f;
      for (int64_t l = 0; l < kQuads && l < some; ++l) *total += f[l];
      store_some(c + i, some, w * t.c);
      if (d) store_some(d + i, some, w * t.d);
    }
  });
}

// Adds the w (f(z + u) - f(z)) to sums[0] and their squares to sums[1].
inline void loss_of_changes(const Loss& loss, int64_t i0, int64_t count, const double* z, const double* u, double* sums) {
  with_loss(loss.id, [&](auto kind) {
    using Kind = decltype(kind);
    for (int64_t i = 0; i < count; i += kQuads) {
      const int64_t some = count - i;
      const Doubles y = load_some(loss.y + i0 + i, some, 1.0), zi = load_some(z + i, some, 0.0), ui = load_some(u + i, some, 0.0);
      const Doubles w = loss.w ? load_some(loss.w + i0 + i, some, 1.0) : vector_of(1.0);
      Doubles change = Kind::difference(zi, ui, y, loss.parameter);
      // Exponentials of large changes overflow, and there nothing cancels.
      const auto large = absolute(ui) > 1.0;
      bool any = false;
      for (int l = 0; l < kQuads; ++l) any |= large[l] != 0;
      if (any) {
        const Doubles direct = Kind::terms(zi + ui, y, loss.parameter).f - Kind::terms(zi, y, loss.parameter).f;
        change = large ? direct : change;
      }
      const Doubles first = w * change, second = first * first;
      for (int64_t l = 0; l < kQuads && l < some; ++l) {
        sums[0] += first[l];
        sums[1] += second[l];
      }
    }
  });
}

// Multinomial logistic loss: labels are classes 0 .. k - 1, margins (k, stride). p becomes the probabilities and z the weighted
// derivatives; the two may not be the same memory.
inline void softmax_of_margins(const Loss& loss, int64_t k, int64_t i0, int64_t count, double* z, double* p, int64_t stride,
                               int64_t p_stride, double* total) {
  for (int64_t i = 0; i < count; i += kQuads) {
    const int64_t some = count - i;
    const Doubles y = load_some(loss.y + i0 + i, some, 0.0);
    const Doubles w = loss.w ? load_some(loss.w + i0 + i, some, 1.0) : vector_of(1.0);
    Doubles top = load_some(z + i, some, 0.0), mine = {}, total_e = {};
    for (int64_t c = 1; c < k; ++c) {
      const Doubles zc = load_some(z + c * stride + i, some, 0.0);
      top = zc > top ? zc : top;
    }
    for (int64_t c = 0; c < k; ++c) {
      const Doubles zc = load_some(z + c * stride + i, some, 0.0) - top, e = exp_of(zc);
      total_e += e;
      mine = y == static_cast<double>(c) ? zc : mine;
      store_some(p + c * p_stride + i, some, e);
    }
    const Doubles f = w * (log1p_of(total_e - 1.0) - mine);
    for (int64_t l = 0; l < kQuads && l < some; ++l) *total += f[l];
    for (int64_t c = 0; c < k; ++c) {
      const Doubles pc = load_some(p + c * p_stride + i, some, 0.0) / total_e;
      store_some(p + c * p_stride + i, some, pc);
      store_some(z + c * stride + i, some, w * (y == static_cast<double>(c) ? pc - 1.0 : pc));
    }
  }
}

// f(z + u) - f(z) from the probabilities at z.
inline void softmax_of_changes(const Loss& loss, int64_t k, int64_t i0, int64_t count, const double* p, const double* u,
                               int64_t stride, double* sums) {
  for (int64_t i = 0; i < count; i += kQuads) {
    const int64_t some = count - i;
    const Doubles y = load_some(loss.y + i0 + i, some, 0.0);
    const Doubles w = loss.w ? load_some(loss.w + i0 + i, some, 1.0) : vector_of(1.0);
    // Relative to the label's own change: then nothing of size u is added and taken away.
    Doubles mine = {}, top = {};
    for (int64_t c = 0; c < k; ++c) mine = y == static_cast<double>(c) ? load_some(u + c * stride + i, some, 0.0) : mine;
    for (int64_t c = 0; c < k; ++c) {
      const Doubles uc = load_some(u + c * stride + i, some, 0.0) - mine;
      top = uc > top ? uc : top;
    }
    const auto large = top > 1.0;
    // log sum p exp(u) = top + log(1 + sum p (exp(u - top) - 1)); top only where exp could overflow.
    const Doubles shift = large ? top : vector_of(0.0);
    Doubles total = {};
    for (int64_t c = 0; c < k; ++c) {
      const Doubles uc = load_some(u + c * stride + i, some, 0.0) - mine - shift;
      total += load_some(p + c * stride + i, some, 0.0) * expm1_of(uc);
    }
    const Doubles change = shift + log1p_of(total), first = w * change, second = first * first;
    for (int64_t l = 0; l < kQuads && l < some; ++l) {
      sums[0] += first[l];
      sums[1] += second[l];
    }
  }
}

}  // namespace
}  // namespace randla::cpu
