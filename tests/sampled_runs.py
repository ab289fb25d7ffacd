"""What tests of `minimize` on samples share: a classification problem, kinds of samples, and runs on them."""

import functools

import numpy as np
import pytest
from minimize_problems import quietly

from randla.optimize import GLM, DecreaseTest, DynamicAccuracy, FractionOf, GradientChange, InnerProductTest, NormTest, StepRule

# Samples of the gradient and of the Hessian.
SAMPLES = {
    "all": (None, None),
    "hessian": (None, 0.1),
    "hessian, few": (None, 7),
    "fixed": (0.3, 0.1),
    "more hessian than gradient": (100, 0.5),
    "adaptive": ("adaptive", "adaptive"),
    "adaptive gradient": ("adaptive", None),
    "adaptive, fraction": ("adaptive", FractionOf(0.3, 20)),
    "adaptive hessian": (None, "adaptive"),
    "norm": (NormTest(), FractionOf(0.2)),
    "inner product": (InnerProductTest(theta=0.3), 0.1),
    "change": (GradientChange(), StepRule()),
    "step": (StepRule(power=4), StepRule()),
    "dynamic": (DynamicAccuracy("gradient"), DynamicAccuracy("hessian")),
    "decrease": (DecreaseTest(growth=2.0), NormTest(first=0.2)),
}

modes = pytest.mark.parametrize("mode", SAMPLES)


@functools.cache
def data(n, d, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) * np.logspace(0, -1, d)
    z = X @ (2 * rng.standard_normal(d))
    return X.astype(dtype), (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)


@functools.cache
def glm(loss="squared_sigmoid", n=5000, d=12, l2=0.0):
    return GLM(*data(n, d), loss, l2)


def run_mode(problem, method, mode, **more):
    gradient, hessian = SAMPLES[mode]
    x0 = np.zeros(problem.dim)
    arguments = {"gradient_sample": gradient, "hessian_sample": hessian, "maxiter": 300, "gtol": 1e-7, "rng": 1} | more
    return quietly(problem, x0, method, **arguments)
