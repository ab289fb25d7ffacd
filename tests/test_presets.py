"""Presets: the rules of the papers, followed along runs and against a small program written from the published statements."""

import itertools
import math
import warnings

import numpy as np
import pytest

from randla.bench.optimize import classification, start
from randla.optimize import GLM, CubicRegularization, MinimizeWarning, TrustRegion, minimize
from randla.optimize.presets import FixedFactorCubic, FixedFactorTrustRegion, preset
from randla.optimize.sample_rules import GradientChange

N, DIM = 4_000, 12
VARIANTS = ("full", "subsampled-hessian", "inexact")
CASES = {
    **{f"yao2018 {m} {v}": ("yao2018", m, {"variant": v}) for m in ("trust-region", "cubic") for v in VARIANTS},
    **{f"xu2017 {m} {s}": ("xu2017", m, {"sampling": s}) for m in ("trust-region", "cubic") for s in ("uniform", "row-norm")},
    "scr2017": ("scr2017", "cubic", {}),
    "sarc2020": ("sarc2020", "cubic", {}),
}


@pytest.fixture(scope="module")
def problem():
    X, y = classification(N, DIM, seed=3)
    return GLM(X, y, "squared_sigmoid")


def run(problem, options, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MinimizeWarning)
        return minimize(problem, start(DIM, 1), rng=5, **{"maxiter": 60, "gtol": 1e-7, **options, **more})


@pytest.mark.parametrize("case", CASES)
def test_sizes_follow_the_ratios_by_the_papers_factors(problem, case):
    name, method, words = CASES[case]
    options = preset(name, method, **words)
    history = run(problem, options).history
    control = "radius" if method == "trust-region" else "sigma"
    # Factors after a rejected, an accepted and a very successful step; the ratios that divide them.
    up, middle, down, accept, good = {
        "yao2018": (2, 1 / 1.2, 0.5, 1e-4, 0.8),
        "xu2017": (2, 1 / 1.2, 0.5, 1e-4, 0.8),
        "scr2017": (2, 1, 0.5, 0.1, 0.9),
        "sarc2020": (2, 0.5, 0.5, 0.8, 0.9),
    }[name]
    least = {"yao2018": 1e-6, "xu2017": 1e-16, "scr2017": 1e-16, "sarc2020": 1e-5}[name]
    size = {"yao2018": 10.0, "xu2017": 10.0 if method == "trust-region" else 1e-4, "scr2017": 1.0, "sarc2020": 0.1}[name]
    assert len(history) > 3
    for entry in history:
        factor = up if entry["ratio"] < accept else down if entry["ratio"] >= good else middle
        size = size / factor if method == "trust-region" else max(size * factor, least)
        assert entry[control] == pytest.approx(size, rel=1e-12)
        assert entry["accepted"] == (entry["ratio"] >= accept)


@pytest.mark.parametrize(("name", "first", "share"), [("yao2018", None, 0.01), ("xu2017", None, 0.05)])
def test_hessians_of_fixed_samples(problem, name, first, share):
    words = {"variant": "subsampled-hessian"} if name == "yao2018" else {}
    history = run(problem, preset(name, **words)).history
    assert {entry["hessian_sample"] for entry in history} == {round(share * N)}
    assert {entry["gradient_sample"] for entry in history} == {N}


def test_samples_of_the_inexact_variant_stay_within_limits_and_steps_are_judged_by_all_terms(problem):
    result = run(problem, preset("yao2018", variant="inexact"))
    sizes = [entry["gradient_sample"] for entry in result.history if entry["gradient_sample"] < N]
    assert sizes[0] in (200, 240)
    assert min(sizes) >= 80
    assert max(sizes) <= 2_000
    assert len(set(sizes)) > 2
    values = [entry["fun"] for entry in result.history]
    assert all(b <= a for a, b in itertools.pairwise(values))
    assert values[-1] == pytest.approx(problem.value(result.x), rel=1e-12)


def test_samples_of_cubic_presets_grow(problem):
    scr, sarc = (run(problem, preset(name)).history for name in ("scr2017", "sarc2020"))
    assert scr[0]["hessian_sample"] == scr[0]["gradient_sample"] == 200
    assert sarc[0]["hessian_sample"] >= 400
    assert sarc[0]["gradient_sample"] >= 1_600
    for history in (scr, sarc):
        assert history[-1]["hessian_sample"] > history[0]["hessian_sample"]


def steihaug(H, g, radius):
    """Conjugate gradients to the boundary of the trust region, as in the textbook."""
    s, r, p = np.zeros_like(g), g.copy(), -g
    for _ in range(len(g)):
        curvature = p @ H @ p
        a, b, c = p @ p, s @ p, s @ s - radius**2
        to_boundary = (-b + math.sqrt(b * b - a * c)) / a
        alpha = r @ r / curvature if curvature > 0 else math.inf
        if alpha >= to_boundary:
            return s + to_boundary * p
        s, before = s + alpha * p, r @ r
        r = r + alpha * H @ p
        if math.sqrt(r @ r) <= 1e-15 * math.sqrt(g @ g):
            break
        p = -r + (r @ r / before) * p
    return s


def test_full_trust_region_of_yao2018_is_the_published_algorithm(problem):
    x, radius, values, sizes = 8 * start(DIM, 1), 10.0, [], []
    for _ in range(12):
        g, H = problem.grad(x), problem.hessian(x).to_dense()
        s = steihaug(H, g, radius)
        ratio = (problem.value(x) - problem.value(x + s)) / -(g @ s + 0.5 * s @ H @ s)
        x = x + s if ratio >= 1e-4 else x
        radius *= 2 if ratio >= 0.8 else 1.2 if ratio >= 1e-4 else 0.5
        values.append(problem.value(x))
        sizes.append(radius)
    history = minimize(problem, 8 * start(DIM, 1), rng=5, gtol=1e-7, **preset("yao2018", variant="full")).history
    assert len(history) > 4
    assert not all(entry["accepted"] for entry in history)
    for entry, value, radius in zip(history, values, sizes, strict=False):
        assert entry["fun"] == pytest.approx(value, rel=1e-9)
        assert entry["radius"] == pytest.approx(radius, rel=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if "inexact" not in case])
def test_presets_with_gradients_of_all_terms_end_at_a_minimizer(problem, case):
    name, method, words = CASES[case]
    result = run(problem, preset(name, method, **words), maxiter=1_000, gtol=1e-6)
    assert result.success
    assert np.linalg.eigvalsh(problem.hessian(result.x).to_dense())[0] > -1e-3
    assert np.linalg.norm(problem.grad(result.x)) <= 1e-6


def test_quadratic_ratio_is_over_the_decrease_without_the_cubic_term(problem):
    plain = FixedFactorCubic(sigma=3.0)
    quadratic = FixedFactorCubic(sigma=3.0, quadratic_ratio=True)
    x = start(DIM, 1)
    g, H = problem.grad(x), problem.hessian(x).to_dense()
    (one, two) = (m.step(m.model(problem.hessian(x), g, 1e-12, None, 0), 3.0, True) for m in (plain, quadratic))
    assert np.array_equal(one.s, two.s)
    assert two.decrease == pytest.approx(-(g @ two.s + 0.5 * two.s @ H @ two.s), rel=1e-9)
    assert two.decrease - one.decrease == pytest.approx(np.linalg.norm(one.s) ** 3, rel=1e-9)


def test_defaults_and_limits():
    assert isinstance(preset("yao2018")["method"], TrustRegion)
    assert isinstance(preset("yao2018")["gradient_sample"], GradientChange)
    assert isinstance(preset("scr2017")["method"], CubicRegularization)
    assert preset("xu2017")["sampling"] == "uniform"
    method = FixedFactorTrustRegion(radius=1.0, max_radius=3.0, min_radius=0.4)
    step = None
    assert method.updated(2.0, 0.9, step, -1.0, -1.0) == 3.0
    assert method.updated(0.5, -math.inf, step, -1.0, math.nan) == 0.4
    assert FixedFactorCubic(least=0.4).updated(0.5, 0.9, step, -1.0, -1.0) == 0.4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset("yao"), "name must be one of yao2018, xu2017, scr2017, sarc2020; got 'yao'"),
        (lambda: preset("scr2017", "trust-region"), "method must be 'cubic' for 'scr2017'; got 'trust-region'"),
        (lambda: preset("yao2018", "newton"), "method must be 'cubic' or 'trust-region' for 'yao2018'; got 'newton'"),
        (lambda: preset("yao2018", variant="exact"), "variant must be one of full, subsampled-hessian, inexact; got 'exact'"),
        (lambda: preset("xu2017", variant="full"), "variant must be None for 'xu2017'; got 'full'"),
        (lambda: preset("xu2017", sampling="leverage"), "sampling must be one of uniform, row-norm; got 'leverage'"),
        (lambda: preset("yao2018", sampling="uniform"), "sampling must be None for 'yao2018'; got 'uniform'"),
        (lambda: FixedFactorTrustRegion(shrink=1.0), "shrink must be less than 1; got 1.0"),
        (lambda: FixedFactorTrustRegion(success=0.5), "success must be"),
        (lambda: FixedFactorTrustRegion(min_radius=-1.0), "min_radius must be"),
        (lambda: FixedFactorCubic(success=1.5), "success must be at most 1; got 1.5"),
    ],
)
def test_unsuitable_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
