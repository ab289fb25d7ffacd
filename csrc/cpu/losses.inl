// Losses of many margins; what they are for one margin is in common/losses.h.

namespace randla::cpu {
namespace {

// c = w f', d = w f'' for `count` margins; adds the w f one by one to *total. d may be null; c may be z.
inline void loss_of_margins(const Loss& loss, int64_t i0, int64_t count, const double* z, double* c, double* d, double* total) {
  with_loss(loss.id, [&](auto kind) {
    for (int64_t i = 0; i < count; i += kQuads) {
      const int64_t some = count - i;
      const Doubles y = load_some(loss.y + i0 + i, some, 1.0);
      const Doubles w = loss.w ? load_some(loss.w + i0 + i, some, 1.0) : vector_of(1.0);
      const LossTerms<Doubles> t = decltype(kind)::terms(load_some(z + i, some, 0.0), y, loss.parameter);
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
