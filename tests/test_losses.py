"""Losses, their derivatives and their changes against the chain rule in mpmath."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from glm_oracles import EPS, LABELS, LOSSES, Jet, exact, labels_of, parameter_of, stable

import randla
from randla import _cpu
from randla.optimize import Loss, NonConvexRegularizer, Regularizer
from randla.optimize.losses import _NATIVE, NAMES, resolve

nan, inf = math.nan, math.inf
SIZES = [1e-300, 1e-8, 1e-3, 0.2, 0.349, 0.351, 0.9, 1.3, 2.1, 5, 10, 21, 36.5, 40, 100, 300, 700]
MARGINS = [0.0, *SIZES, *(-s for s in SIZES)]
CHANGES = [1e-14, 1e-9, 1e-4, 0.1, 0.349, 0.351, 0.8, 1.0, 1.001, 5, 30, 100]
ROBUST = ("tukey", "huber", "pseudo_huber", "cauchy", "welsch", "geman_mcclure")
SOFTMAX = 11


def number_of(name):
    return SOFTMAX if name == "softmax" else _NATIVE[name].id


def terms(name, z, y, w=None, p=None):
    """Sum of f, and c and d of every margin."""
    z = np.ascontiguousarray(np.atleast_2d(z), dtype=float)
    y = np.broadcast_to(np.asarray(y, float), z.shape[1:]).copy()
    c, d = np.full_like(z, 99.0), np.full_like(z, 99.0)
    p = p or (1.0 if name == "softmax" else parameter_of(name))
    return _cpu.loss_terms(number_of(name), p, y, w, z, c, d), c, d


def difference(name, z, u, y, w=None):
    z, u = (np.ascontiguousarray(np.atleast_2d(v), dtype=float) for v in (z, u))
    y = np.broadcast_to(np.asarray(y, float), z.shape[1:]).copy()
    p = 1.0 if name == "softmax" else parameter_of(name)
    return _cpu.loss_difference(number_of(name), p, y, w, z, u)


@pytest.fixture
def digits():
    """Enough that exp(-700) is not lost beside 1."""
    with mpmath.workdps(340):
        yield


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_derivatives(name):
    p = parameter_of(name)
    unit = p * p if name == "tukey" else 0.0  # a difference from p^2/6
    for y in labels_of(name):
        _, c, d = terms(name, MARGINS, y)
        for i, z in enumerate(MARGINS):
            f, _, _ = terms(name, z, y)
            assert stable(f, lambda z, y: exact(name, z, y, p)[0], z, y, unit), (z, y)
            assert stable(c[0, i], lambda z, y: exact(name, z, y, p)[1], z, y), (z, y)
            assert stable(d[0, i], lambda z, y: exact(name, z, y, p)[2], z, y), (z, y)


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("p", [1e-3, 0.5, 40.0])
def test_scales(name, p):
    for q, sign in itertools.product((1e-6, 0.3, 0.7, 0.999, 1.001, 4.0), (-1, 1)):
        z = sign * q * p
        f, c, d = terms(name, z, 0.0, p=p)
        for got, k in ((f, 0), (c[0, 0], 1), (d[0, 0], 2)):
            assert stable(got, lambda z, y, k=k: exact(name, z, y, p)[k], z, 0.0, p * p if (name, k) == ("tukey", 0) else 0.0)


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("name", LOSSES)
def test_changes_do_not_cancel(name):
    """f(z + u) - f(z) is as accurate as its own Taylor series: some ulp of |c u| + |d u^2|, or of itself where u is large."""
    p = parameter_of(name)
    for y in labels_of(name):
        for z, size, sign in itertools.product((0.0, 1e-8, -1e-3, 0.2, -1.3, 3.3, -6.0, 18.0, -40.0, 200.0), CHANGES, (-1, 1)):
            u = sign * size

            def change(z, y, u=u):
                return exact(name, mpmath.mpf(z) + mpmath.mpf(u), y, p)[0] - exact(name, z, y, p)[0]

            f, c, d = exact(name, z, y, p)
            unit = abs(c * u) + abs(d * u * u)
            if size > 1:
                after, slope, _ = exact(name, mpmath.mpf(z) + mpmath.mpf(u), y, p)
                unit = abs(f) + abs(after) + abs(slope * (z + u)) + (p * p if name == "tukey" else 0)
            got, square = difference(name, z, u, y)
            assert stable(got, change, z, y, unit), (z, u, y)
            assert square == pytest.approx(got * got, rel=1e-15)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "poisson"])
@pytest.mark.parametrize("u", [-5000.0, 5000.0])
def test_large_changes_do_not_overflow(name, u):
    for z, y in itertools.product((-2000.0, 0.3, 2000.0), labels_of(name)):
        with mpmath.workdps(50):
            expected = float(exact(name, z + u, y, parameter_of(name))[0] - exact(name, z, y, parameter_of(name))[0])
        assert difference(name, z, u, y)[0] == pytest.approx(expected, rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("name", [*LOSSES, "softmax"])
def test_nan_stays_nan_and_alone(name):
    classes = 3 if name == "softmax" else 1
    z = np.random.default_rng(0).standard_normal((classes, 13))
    _, c0, d0 = terms(name, z, 1.0)
    for place in (0, 7, 12):
        z1 = z.copy()
        z1[-1, place] = nan
        f, c, d = terms(name, z1, 1.0)
        assert math.isnan(f)
        others = np.arange(13) != place
        # Derivatives that take one of a few values.
        assert np.isnan(c[:, place]).all() or name == "huber"
        assert np.isnan(d[:, place]).all() or name in ("least_squares", "huber")
        assert np.array_equal(c[:, others], c0[:, others])
        assert np.array_equal(d[:, others], d0[:, others])
        u = np.zeros_like(z)
        u[-1, place] = nan
        assert math.isnan(difference(name, d0 if name == "softmax" else z, u, 1.0)[0])


# The limits, or no number where they would be inf - inf.
@pytest.mark.parametrize(
    ("name", "z", "y", "expected"),
    [
        ("logistic", inf, 1.0, (0, 0, 0)),
        ("logistic", -inf, 1.0, (inf, -1, 0)),
        ("logistic", inf, -1.0, (inf, 1, 0)),
        ("squared_sigmoid", inf, 1.0, (0, 0, 0)),
        ("squared_sigmoid", -inf, 1.0, (1, 0, 0)),
        ("squared_sigmoid", inf, 0.0, (1, 0, 0)),
        ("least_squares", -inf, 3.0, (inf, -inf, 1)),
        ("softplus", -inf, 2.0, (2, 0, 0)),
        ("softplus", inf, 2.0, (inf, inf, nan)),
        ("poisson", inf, 0.0, (nan, inf, inf)),
        ("poisson", -inf, 2.0, (inf, -2, 0)),
    ],
)
def test_infinite_margins(name, z, y, expected):
    f, c, d = terms(name, z, y)
    assert (f, c[0, 0], d[0, 0]) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("z", [inf, -inf, 1e200])
def test_margins_too_large_to_square_are_never_a_wrong_value(name, z):
    f, _, _ = terms(name, z, 0.0)
    with mpmath.workdps(500):
        limit = float(exact(name, 1e200, 0.0, parameter_of(name))[0])
    assert not math.isfinite(f) or f == pytest.approx(limit, rel=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_every_count_gives_the_same_bits(name):
    """Vectors of eight and what is left over; sums add term by term."""
    rng = np.random.default_rng(3)
    z, u, w = 3 * rng.standard_normal(41), rng.standard_normal(41), rng.random(41)
    y = rng.choice(labels_of(name), 41)
    for count in (*range(1, 18), 40, 41):
        f, c, d = terms(name, z[:count], y[:count], w[:count].copy())
        change, squares = difference(name, z[:count], u[:count], y[:count], w[:count].copy())
        values = changes = square = 0.0
        for i in range(count):
            fi, ci, di = terms(name, z[i], y[i], w[i : i + 1].copy())
            assert (c[0, i], d[0, i]) == (ci[0, 0], di[0, 0])
            one, its_square = difference(name, z[i], u[i], y[i], w[i : i + 1].copy())
            values, changes, square = values + fi, changes + one, square + its_square
        assert (f, change, squares) == (values, changes, square)


@pytest.mark.parametrize("name", [*LOSSES, "softmax"])
def test_weights_multiply(name):
    rng = np.random.default_rng(4)
    z, u, y = rng.standard_normal((3 if name == "softmax" else 1, 50)), rng.standard_normal((1, 50)), np.ones(50)
    u = np.repeat(u, len(z), axis=0) * np.arange(1, len(z) + 1)[:, None]
    w = rng.integers(0, 3, 50).astype(float)
    f, c, d = terms(name, z, y, w)
    _, c1, d1 = terms(name, z, y)
    assert np.array_equal(c, w * c1)
    assert np.array_equal(d, d1 if name == "softmax" else w * d1)
    at = d1 if name == "softmax" else z
    one = [
        (terms(name, z[:, i : i + 1], 1.0)[0], difference(name, at[:, i : i + 1], u[:, i : i + 1], 1.0)[0]) for i in range(50)
    ]
    values, changes = np.array(one).T
    assert f == pytest.approx(w @ values, rel=1e-14)
    total, squares = difference(name, at, u, y, w)
    assert total == pytest.approx(w @ changes, rel=1e-13)
    assert squares == pytest.approx((w * changes) @ (w * changes), rel=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_second_derivatives_may_be_left_out(name):
    z, y = np.array([[0.3, -2.0, 1.0]]), np.ones(3)
    f, c, _ = terms(name, z, y)
    without = np.empty_like(z)
    assert _cpu.loss_terms(number_of(name), parameter_of(name), y, None, z, without, None) == f
    assert np.array_equal(without, c)


@pytest.mark.parametrize("name", [*LOSSES, "softmax"])
def test_sums_do_not_depend_on_the_number_of_threads(name):
    rng = np.random.default_rng(5)
    z, u = rng.standard_normal((2, 3 if name == "softmax" else 1, 50_000))
    y = rng.integers(0, 2, 50_000).astype(float)
    before = _cpu.max_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            randla.set_num_threads(threads)
            f, c, d = terms(name, z, y)
            found.append((f, c.tobytes(), d.tobytes(), difference(name, d if name == "softmax" else z, u, y)))
    finally:
        randla.set_num_threads(before)
    assert found[0] == found[1] == found[2]


class TestSoftmax:
    """log(sum exp z) - z_y, whose kernel keeps probabilities."""

    @staticmethod
    def exact(z, y):
        e = [mpmath.exp(mpmath.mpf(v)) for v in z]
        p = [v / mpmath.fsum(e) for v in e]
        return -mpmath.log(p[y]), p

    @pytest.mark.usefixtures("digits")
    @pytest.mark.parametrize("k", [1, 2, 3, 8])
    @pytest.mark.parametrize("scale", [1e-8, 1.0, 20.0, 150.0])
    def test_values_and_probabilities(self, k, scale):
        rng = np.random.default_rng(k)
        z, y = scale * rng.standard_normal((k, 9)), rng.integers(0, k, 9)
        _, c, p = terms("softmax", z, y)
        for i in range(9):
            f, exact_p = self.exact(z[:, i], y[i])
            got = terms("softmax", z[:, i : i + 1], y[i])[0]
            spread = float(np.ptp(z[:, i]))
            assert abs(got - f) <= 8 * EPS * (abs(f) + 1 + (spread if y[i] != np.argmax(z[:, i]) else 0))
            for q in range(k):
                assert abs(p[q, i] - exact_p[q]) <= 8 * EPS * (1 + spread) * exact_p[q]
                assert abs(c[q, i] - (exact_p[q] - (q == y[i]))) <= 8 * EPS

    @pytest.mark.usefixtures("digits")
    @pytest.mark.parametrize("size", [1e-14, 1e-6, 0.1, 1.0, 3.0, 50.0])
    def test_changes_do_not_cancel(self, size):
        rng = np.random.default_rng(7)
        z, u, y = rng.standard_normal((4, 9)), size * rng.standard_normal((4, 9)), rng.integers(0, 4, 9)
        _, _, p = terms("softmax", z, y)
        for i in range(9):
            got, square = difference("softmax", p[:, i : i + 1], u[:, i : i + 1], y[i])
            # The same from the rounded probabilities, which need not add up to one.
            total = mpmath.fsum(
                mpmath.mpf(a) * mpmath.expm1(mpmath.mpf(b) - mpmath.mpf(u[y[i], i]))
                for a, b in zip(p[:, i], u[:, i], strict=True)
            )
            assert abs(got - mpmath.log(1 + total)) <= 16 * EPS * np.abs(u[:, i] - u[y[i], i]).max()
            assert square == pytest.approx(got * got, rel=1e-15)
            after, before = (
                self.exact(v, y[i])[0]
                for v in ((mpmath.mpf(a) + mpmath.mpf(b) for a, b in zip(z[:, i], u[:, i], strict=True)), z[:, i])
            )
            assert got == pytest.approx(float(after - before), rel=1e-13, abs=16 * EPS * size)

    def test_margins_of_any_size_neither_overflow_nor_divide_by_zero(self):
        z = np.array([[1e300, -1e300, 800.0], [-1e300, -1e300, 0.0], [0.0, 1e300, -800.0]])
        f, c, p = terms("softmax", z, [0, 2, 0])
        assert f == 0
        assert np.array_equal(p, [[1, 0, 1], [0, 0, 0], [0, 1, 0]])
        assert np.array_equal(c, np.zeros((3, 3)))


class TestNames:
    def test_every_loss_is_found_by_name(self):
        y = np.array([0.0, 1.0, 1.0])
        for name in NAMES:
            assert resolve(name, None, y).name == name
        assert resolve("softmax", None, np.array([0.0, 4.0])).classes == 5
        mine = Loss(np.square, np.square, np.square)
        assert resolve(mine, None, y) is mine

    @pytest.mark.parametrize("name", ROBUST)
    def test_scale(self, name):
        assert resolve(name, 2.5, np.ones(2)).parameter == 2.5
        assert resolve(name, None, np.ones(2)) == _NATIVE[name]
        with pytest.raises(ValueError, match="scale must be finite and greater than 0"):
            resolve(name, 0.0, np.ones(2))

    @pytest.mark.parametrize("name", ROBUST)
    def test_default_scales_are_95_percent_efficient(self, name):
        """At normal errors of variance one: (E psi')^2 / E psi^2 for psi = f'."""
        r = np.linspace(-12, 12, 240_001)
        density = np.exp(-r * r / 2) / np.sqrt(2 * np.pi)
        _, c, d = terms(name, r, 0.0)
        efficiency = np.trapezoid(d[0] * density, r) ** 2 / np.trapezoid(c[0] ** 2 * density, r)
        assert efficiency == pytest.approx(0.95, abs=1e-4)

    @pytest.mark.parametrize("name", [name for name in NAMES if name not in ROBUST])
    def test_scale_of_losses_without_one(self, name):
        with pytest.raises(ValueError, match=rf"scale must be None but for the robust losses tukey, .*got 2.0 for '{name}'"):
            resolve(name, 2.0, np.ones(2))

    @pytest.mark.parametrize("bad", ["hinge", 3, None, np.square])
    def test_unknown_losses(self, bad):
        with pytest.raises(ValueError, match=r"loss must be one of logistic, squared_sigmoid, .* or a Loss; got"):
            resolve(bad, None, np.ones(2))

    @pytest.mark.parametrize(("name", "zero"), [("logistic", -1.0), ("squared_sigmoid", 0.0)])
    def test_two_classes(self, name, zero):
        expected = [zero, 1, 1, zero]
        for y in ([0, 1, 1, 0], [-1, 1, 1, -1]):
            assert np.array_equal(_NATIVE[name].labels(np.array(y, float)), expected)
        assert np.array_equal(_NATIVE[name].labels(np.ones(2)), np.ones(2))
        for y in ([-1, 0, 1], [1, 2], [0.5, 1]):
            with pytest.raises(ValueError, match=f"y must hold labels -1 and 1, or 0 and 1, for loss '{name}'; got"):
                _NATIVE[name].labels(np.array(y, float))

    def test_counts(self):
        with pytest.raises(ValueError, match="y must not be negative for loss 'poisson'; got -1"):
            _NATIVE["poisson"].labels(np.array([3.0, -1.0]))

    @pytest.mark.parametrize("bad", [-1.0, 0.5])
    def test_classes(self, bad):
        y = np.array([0.0, bad, 2.0])
        with pytest.raises(ValueError, match=f"y must hold classes 0, 1, 2, ... for loss 'softmax'; got {bad:g}"):
            resolve("softmax", None, y).labels(y)

    def test_convexity_is_that_of_the_second_derivatives(self):
        for name in LOSSES:
            d = np.concatenate([terms(name, np.linspace(-9, 9, 181), y)[2][0] for y in LABELS[_NATIVE[name].kind]])
            assert _NATIVE[name].convex == bool((d >= 0).all())


class TestLoss:
    mine = Loss(lambda z, y: (z - y) ** 2 / 2, lambda z, y: z - y, lambda z, y: np.ones_like(z), name="mine")

    @pytest.mark.parametrize("weighted", [False, True])
    def test_agrees_with_the_native_one(self, weighted):
        rng = np.random.default_rng(8)
        z, u, y = rng.standard_normal((1, 30)), rng.standard_normal((1, 30)), rng.standard_normal(30)
        w = rng.random(30) if weighted else None
        for got, expected in zip(self.mine.terms(z, y, w), _NATIVE["least_squares"].terms(z, y, w), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-14)
        np.testing.assert_allclose(
            self.mine.difference(z, u, y, w), _NATIVE["least_squares"].difference(z, u, y, w), rtol=1e-13
        )

    @pytest.mark.parametrize("part", ["value", "first", "second"])
    @pytest.mark.parametrize("bad", [lambda z, y: 1.0, lambda z, y: z[:-1]])
    def test_shapes(self, part, bad):
        loss = Loss(**{"value": np.add, "first": np.add, "second": np.add, part: bad}, name="mine")
        with pytest.raises(ValueError, match=rf"{part} of loss 'mine' must return an array of shape \(4,\); got"):
            loss.terms(np.ones((1, 4)), np.ones(4), None)

    def test_any_labels(self):
        assert self.mine.labels(np.array([1, 2])).dtype == np.float64


class TestRegularizers:
    @pytest.mark.parametrize("x", [0.0, 1e-9, -0.3, 0.6, 1.0, -7.0, 1e6])
    def test_nonconvex(self, x):
        r = NonConvexRegularizer(0.7)
        with mpmath.workdps(50):
            t = Jet(x, 1)
            jet = t * t / (1 + t * t) * mpmath.mpf(0.7)
            at = np.array([x])
            assert r.total(at) == pytest.approx(float(jet.f), rel=1e-14)
            assert r.first(at)[0] == pytest.approx(float(jet.c), rel=1e-14)
            assert r.second(at)[0] == pytest.approx(float(jet.d), rel=1e-13)
            for s in (1e-14, -1e-6, 0.5, -30.0):
                u = Jet(mpmath.mpf(x) + mpmath.mpf(s))
                change = float(u.f**2 / (1 + u.f**2) * mpmath.mpf(0.7) - jet.f)
                unit = abs(float(jet.c) * s) + abs(float(jet.d) * s * s)
                assert abs(r.difference(at, np.array([s])) - change) <= 8 * EPS * max(unit, abs(change))

    def test_nonconvex_keeps_its_weight(self):
        r = NonConvexRegularizer(2)
        assert r.weight == 2.0
        assert not r.convex
        with pytest.raises(ValueError, match="weight must be finite and at least 0"):
            NonConvexRegularizer(-1.0)
        with pytest.raises(TypeError, match="weight must be a real number"):
            NonConvexRegularizer("1")

    def test_own(self):
        r = Regularizer(np.cosh, np.sinh, np.cosh, convex=True)
        x, s = np.array([0.3, -1.0]), np.array([1.0, 0.5])
        assert r.total(x) == pytest.approx(np.cosh(0.3) + np.cosh(1.0))
        assert r.difference(x, s) == pytest.approx(np.cosh(1.3) + np.cosh(0.5) - np.cosh(0.3) - np.cosh(1.0))
