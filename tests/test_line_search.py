"""Line searches by their conditions, and damped Newton steps by the decrease that they are proved to give."""

import math

import numpy as np
import pytest
import scipy.optimize

from randla.optimize._line_search import aicn_step, backtracking, damped_newton, forward_backward, root_newton_step

nan, inf = math.nan, math.inf


class Recorded:
    def __init__(self, function):
        self.function, self.steps = function, []

    def __call__(self, t):
        self.steps.append(t)
        return self.function(t)


class TestBacktracking:
    def test_takes_the_first_step_that_does(self):
        evaluate = Recorded(lambda t: -t + 0.5 * t**2)
        found = backtracking(evaluate, -1.0)
        assert (found.step, found.change, found.evaluations) == (1.0, -0.5, 1)
        assert math.isnan(found.constant)

    def test_armijo_and_interpolation(self):
        """-t + c t^2 is its own parabola: the second trial is its minimizer, where within the limits."""
        for c, expected in ((1.5, 1 / 3), (100.0, 0.1), (1.0, 0.5)):
            evaluate = Recorded(lambda t, c=c: -t + c * t**2)
            found = backtracking(evaluate, -1.0, rho=0.25)
            assert evaluate.steps[1] == pytest.approx(expected)
            assert found.change <= -0.25 * found.step
            assert found.evaluations == len(evaluate.steps)

    @pytest.mark.parametrize("bad", [nan, inf, -inf])
    def test_bad_values_are_rejected(self, bad):
        found = backtracking(lambda t: bad if t > 0.1 else -t / 2, -1.0, start=1.0)
        assert found.step == 2.0**-4
        found = backtracking(lambda t: bad, -1.0)
        assert (found.step, found.evaluations) == (0.0, 60)

    def test_slack(self):
        assert backtracking(lambda t: 1e-16, -1e-16, maxiter=10).step == 0
        assert backtracking(lambda t: 1e-16, -1e-16, slack=1e-15).step == 1

    @pytest.mark.parametrize(("slope", "start"), [(0.0, 1.0), (1.0, 1.0), (nan, 1.0), (-1.0, 0.0), (-1.0, nan), (-1.0, inf)])
    def test_no_descent(self, slope, start):
        evaluate = Recorded(lambda t: -t)
        assert backtracking(evaluate, slope, start=start).step == 0
        assert forward_backward(evaluate, slope, start=start).step == 0
        assert not evaluate.steps

    def test_ends_when_the_step_is_zero(self):
        found = backtracking(lambda t: 1.0, -1.0, start=5e-324, maxiter=10**6)
        assert found.step == 0
        assert found.evaluations < 3


class TestForwardBackward:
    def test_grows(self):
        evaluate = Recorded(lambda t: -t + t**2 / 100)  # lower at 64 than at 32; Armijo with 1/4 up to 75
        found = forward_backward(evaluate, -1.0)
        assert found.step == 64
        assert evaluate.steps == [1, 2, 4, 8, 16, 32, 64, 128]
        assert found.evaluations == 8
        assert found.change == evaluate.function(64)

    def test_shrinks(self):
        evaluate = Recorded(lambda t: -t + 100 * t**2)
        found = forward_backward(evaluate, -1.0)
        assert found.change <= -0.25 * found.step < 0
        assert found.evaluations == len(evaluate.steps)

    def test_unbounded_below(self):
        """Growth ends at the limit, or where the function overflows."""
        found = forward_backward(lambda t: -t, -1.0, maxiter=20)
        assert (found.step, found.evaluations) == (2.0**19, 20)
        with np.errstate(over="ignore"):
            found = forward_backward(lambda t: float(-np.exp(t)), -1.0)
        assert found.step == 512
        found = forward_backward(lambda t: -t, -1.0, start=1e300, maxiter=10**6)
        assert math.isfinite(found.step)
        assert found.step > 1e307

    def test_none(self):
        found = forward_backward(lambda t: nan, -1.0, maxiter=9)
        assert (found.step, found.evaluations) == (0.0, 9)
        assert forward_backward(lambda t: nan, -1.0, maxiter=1).evaluations == 1

    def test_start(self):
        found = forward_backward(lambda t: -t + t**2 / 100, -1.0, start=10.0, factor=3.0)
        assert found.step == 30


class Cubed:
    """x'Ax/2 + w sum |x_i|^3, A >= I: |p'(H(y) - H(x)) p| <= 6 w ||y - x|| ||p||^2, and these norms are below those of H(x)."""

    def __init__(self, d, seed):
        rng = np.random.default_rng(seed)
        B = rng.standard_normal((d, d))
        self.A = np.eye(d) + 0.3 * B @ B.T
        self.weight = 10.0 ** rng.uniform(-3, 1)
        self.L = 6 * self.weight

    def value(self, x):
        return x @ self.A @ x / 2 + self.weight * (np.abs(x) ** 3).sum()

    def newton(self, x):
        g = self.A @ x + 3 * self.weight * x * np.abs(x)
        p = -np.linalg.solve(self.A + np.diag(6 * self.weight * np.abs(x)), g)
        return p, float(-g @ p)


class TestDampedNewton:
    def test_aicn_by_hand(self):
        assert aicn_step(4.0, 2.0) == pytest.approx((-1 + 3) / 4, rel=1e-15)  # G = 4
        assert aicn_step(0.0, 2.0) == aicn_step(2.0, 0.0) == 1
        assert aicn_step(1e-40, 1.0) == pytest.approx(1 - 0.5e-20, rel=1e-15)
        assert 0 <= aicn_step(1e300, 1e300) < 1e-200

    def test_aicn_minimizes_its_bound(self):
        for m2, L in ((1.0, 1.0), (9.0, 0.1), (1e-4, 50.0)):
            m = math.sqrt(m2)
            found = scipy.optimize.minimize_scalar(
                lambda a, m=m, L=L: -a * m**2 + (a * m) ** 2 / 2 + L * (a * m) ** 3 / 6,
                bounds=(0, 1.5),
                method="bounded",
                options={"xatol": 1e-10},
            )
            assert aicn_step(m2, L) == pytest.approx(found.x, abs=1e-6)

    def test_root_newton_by_hand(self):
        assert root_newton_step(7.0, 2.0, 2.0) == pytest.approx(1 / 19)  # theta = 9 M
        assert root_newton_step(16.0, 3.0, 1.0) == pytest.approx(1 / 7)  # theta = sqrt(9 * 4)
        assert root_newton_step(4.0, 4.0, 6.0) == pytest.approx(1 / 7)  # theta = (9 * 6 * 4)^(1/3)
        for q in (2.5, 3.0, 4.0):
            assert root_newton_step(0.0, q, 1.0) == root_newton_step(1.0, q, 0.0) == 1
        assert root_newton_step(0.0, 2.0, 1.0) == pytest.approx(0.1)
        assert 0 <= root_newton_step(1e300, 4.0, 1e300) < 1e-100

    @pytest.mark.parametrize("method", ["aicn", "root3", "root2.5"])
    def test_proved_decrease(self, method):
        """At least step m^2 / 2, for the true constant: M = L / 2 at q = 3.

        At q = 2.5: steps h are at most m long, so that an error of L/2 ||h||^2 in the gradient is below L/2 m^0.5 ||h||^1.5.
        """
        tight = []
        for seed in range(300):
            f = Cubed(4, seed)
            x = np.random.default_rng(seed).standard_normal(4) * 10.0 ** (seed % 7 - 3)
            p, m2 = f.newton(x)
            if method == "aicn":
                a = aicn_step(m2, f.L)
            elif method == "root3":
                a = root_newton_step(m2, 3.0, f.L / 2)
            else:
                a = root_newton_step(m2, 2.5, f.L / 2 * m2**0.25)
            ratio = (f.value(x) - f.value(x + a * p)) / (a * m2)
            assert ratio >= 0.5 - 1e-9
            tight.append(ratio)
        assert min(tight) < 0.51

    @pytest.mark.parametrize("q", [None, 2.0, 2.5, 3.0, 4.0])
    @pytest.mark.parametrize("constant", [1e-300, 1e-3, 1.0, 1e6])
    def test_adaptive_constant(self, q, constant):
        """Decrease at every step, convergence to the minimizer, and few evaluations however wrong the first constant is."""
        for seed in range(5):
            f = Cubed(5, seed)
            x = np.random.default_rng(seed).standard_normal(5) * 100
            M, evaluations, steps = constant, 0, 0
            while (pair := f.newton(x))[1] > 1e-20 and steps < 500:
                p, m2 = pair
                found = damped_newton(lambda t, f=f, x=x, p=p: f.value(x + t * p) - f.value(x), m2, M, q=q, slack=1e-15)
                assert found.step > 0
                assert found.change <= -0.25 * found.step * m2 + 1e-15
                x, M = x + found.step * p, found.constant
                evaluations, steps = evaluations + found.evaluations, steps + 1
            assert np.linalg.norm(x) < 1e-9
            assert steps < 200
            assert evaluations <= 2 * steps + 30

    def test_constant_is_halved_and_raised(self):
        assert damped_newton(lambda t: -t + t * t / 2, 1.0, 0.5).constant == 0.25
        evaluate = Recorded(lambda t: -t + 0.5 * t**2 + 100 * t**3)
        found = damped_newton(evaluate, 1.0, 1e-9)
        assert found.evaluations == len(evaluate.steps)
        ratios = np.array(evaluate.steps[1:]) / evaluate.steps[:-1]
        assert (ratios <= 0.5 + 1e-12).all()
        assert aicn_step(1.0, found.constant) == pytest.approx(found.step)

    @pytest.mark.parametrize("q", [None, 3.0])
    def test_nothing_found(self, q):
        for bad in (nan, inf, 1.0):
            found = damped_newton(lambda t, bad=bad: bad, 1.0, 1.0, q=q, maxiter=2000)
            assert found.step == 0
            assert found.evaluations <= 2000
            assert math.isfinite(found.constant)
        evaluate = Recorded(lambda t: -t)
        for decrement in (0.0, -1.0, nan, inf):
            assert damped_newton(evaluate, decrement, 3.0, q=q).step == 0
            assert damped_newton(evaluate, decrement, 3.0, q=q).constant == 3
        assert not evaluate.steps


def test_slack_of_a_direction_that_is_far_too_long_hides_no_increase():
    """|x - 1| from 0 along 1e30: the rounding error of the whole step is far above every change near the minimizer."""
    found = backtracking(lambda t: abs(1e30 * t - 1) - 1, -1e30, rho=0.2, slack=1e15, maxiter=200)
    assert found.change < 0
    assert found.step <= 2e-30
