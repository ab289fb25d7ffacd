// What passes over rows make of the margins t = a x of a row: outputs, multipliers of the row in A' t, and sums.
#pragma once

#include "common/losses.h"
#include "common/matrix.h"
#include "cuda/block.h"

namespace randla::cuda {

enum class Rule : int { kResidual, kProduct, kAdd, kLoss, kSoftmax, kSoftmaxProduct };

// Null pointers: nothing given (zero or, for weights, one), or not wanted.
template <class V>
struct Margins {
  Rule rule;
  int64_t k, count;
  const V* given;    // (k, count): b, c or probabilities; (count): labels
  const V* weights;  // (count)
  V* out;            // (k, count): r, u or z
  V *first, *second;  // (k, count): w f' and w f''; for the softmax loss the second are the probabilities
  LossId loss = LossId::kLeastSquares;
  double parameter = 0;

  // What memory has for a margin; asked for early, because the answer takes long.
  struct Given {
    V value, weight;
  };

  RANDLA_HD bool labels() const { return rule == Rule::kLoss || rule == Rule::kSoftmax; }
  // Whether multipliers need all margins of a row.
  RANDLA_HD bool joint() const { return rule == Rule::kSoftmax || rule == Rule::kSoftmaxProduct; }

  RANDLA_HD Given about(int64_t q, int64_t i) const {
    return {given ? given[labels() ? i : q * count + i] : V(0), weights ? weights[i] : V(1)};
  }

  // The multiplier from margin q of row i alone; where it is not joint, or in the rule of a product.
  template <bool Nonlinear>
  RANDLA_HD V multiplier(int64_t q, int64_t i, V t, const Given& about, double* sum) const {
    if constexpr (Nonlinear) {
      if (out) out[i] = t;
      V multiplier = 0;
      with_loss(loss, [&](auto kind) {
        const LossTerms<double> terms = decltype(kind)::terms(double(t), double(about.value), parameter);
        *sum += about.weight * terms.f;
        multiplier = about.weight * terms.c;
        if (second) second[i] = about.weight * terms.d;
      });
      if (first) first[i] = multiplier;
      return multiplier;
    } else {
      const bool residual = rule == Rule::kResidual;
      const V value = residual ? about.value - t
                      : rule == Rule::kAdd ? about.value + t
                      : rule == Rule::kProduct && given ? about.value
                                                        : t;
      if (out) out[q * count + i] = value;
      if (joint()) return value;
      const V multiplier = weights ? about.weight * value : value;
      if (residual) *sum += double(multiplier) * double(value);
      return multiplier;
    }
  }

  // Margins t[q step] of row i become multipliers.
  RANDLA_HD void all_multipliers(int64_t i, V* t, int64_t step, V y, V w, double* sum) const {
    if (rule == Rule::kSoftmaxProduct) {
      V mean = 0;
      for (int64_t q = 0; q < k; ++q) mean += given[q * count + i] * t[q * step];
      for (int64_t q = 0; q < k; ++q) t[q * step] = w * given[q * count + i] * (t[q * step] - mean);
      return;
    }
    double top = t[0], mine = 0, total = 0;
    for (int64_t q = 1; q < k; ++q) top = t[q * step] > top ? t[q * step] : top;
    for (int64_t q = 0; q < k; ++q) {
      const double z = t[q * step] - top, e = exp_of(z);
      total += e;
      if (y == static_cast<double>(q)) mine = z;
      t[q * step] = static_cast<V>(e);
    }
    *sum += w * (log1p_of(total - 1.0) - mine);
    for (int64_t q = 0; q < k; ++q) {
      const double p = t[q * step] / total;
      if (second) second[q * count + i] = static_cast<V>(p);
      const V multiplier = static_cast<V>(w * (y == static_cast<double>(q) ? p - 1.0 : p));
      if (first) first[q * count + i] = multiplier;
      t[q * step] = multiplier;
    }
  }
};

// f(z + u) - f(z) of row i, without cancellation: of margins, or for the softmax loss from the probabilities at z.
template <class V>
static RANDLA_HD double change_of_loss(const Margins<V>& m, int64_t i, const V* z, const V* u) {
  const double y = m.given[i];
  double change = 0;
  if (m.rule == Rule::kLoss) {
    with_loss(m.loss, [&](auto kind) {
      using Kind = decltype(kind);
      const double zi = z[i], ui = u[i];
      // Exponentials of large changes overflow, and there nothing cancels.
      change = absolute(ui) > 1.0 ? Kind::terms(zi + ui, y, m.parameter).f - Kind::terms(zi, y, m.parameter).f
                                  : Kind::difference(zi, ui, y, m.parameter);
    });
    return change;
  }
  // Relative to the label's own change: then nothing of size u is added and taken away.
  double mine = 0, top = 0, total = 0;
  for (int64_t q = 0; q < m.k; ++q)
    if (y == static_cast<double>(q)) mine = u[q * m.count + i];
  for (int64_t q = 0; q < m.k; ++q) {
    const double v = u[q * m.count + i] - mine;
    top = v > top ? v : top;
  }
  // log sum p exp(u) = top + log(1 + sum p (exp(u - top) - 1)); top only where exp could overflow.
  const double shift = top > 1.0 ? top : 0.0;
  for (int64_t q = 0; q < m.k; ++q) total += z[q * m.count + i] * expm1_of(u[q * m.count + i] - mine - shift);
  return shift + log1p_of(total);
}

}  // namespace randla::cuda
