// Losses of generalized linear models: numbers shared with randla/optimize/losses.py.
#pragma once

namespace randla {

enum class LossId : int {
  kLogistic = 0,
  kSquaredSigmoid = 1,
  kLeastSquares = 2,
  kSoftplus = 3,
  kPoisson = 4,
  kTukey = 5,
  kHuber = 6,
  kPseudoHuber = 7,
  kCauchy = 8,
  kWelsch = 9,
  kGemanMcClure = 10,
  kSoftmax = 11,
};
constexpr int kLosses = 12;

// Labels and weights belong to the rows taken, in their order; w may be null (ones).
struct Loss {
  LossId id;
  double parameter;
  const double *y, *w;
};

}  // namespace randla
