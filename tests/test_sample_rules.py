"""Sample sizes: coverage of the bound on real draws, the sampling rate, and every rule by cases worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from randla.optimize._samples import RowOrder, draw_rows
from randla.optimize.sample_rules import (
    DecreaseTest,
    DynamicAccuracy,
    Fixed,
    FractionOf,
    GradientChange,
    InnerProductTest,
    NormTest,
    RuleState,
    SampleRule,
    StepRule,
    as_rule,
    sample_size,
)

nan, inf = math.nan, math.inf


def state(**fields):
    return RuleState(**{"n": 1000, "dim": 10, "size": 100, "first_size": 50, **fields})


class TestSampleSize:
    def test_formula_by_hand(self):
        # 2 (3 / 0.5)^2 + 4 * 3 / (3 * 0.5) = 72 + 8; D = 2 * 7 and 7 + 1.
        assert sample_size(0.5, 3.0, 7, 0.1) == math.ceil(80 * math.log(140))
        assert sample_size(0.5, 3.0, 7, 0.1, kind="gradient") == math.ceil(80 * math.log(80))
        assert sample_size(0.5, 3.0, 7, 0.1, scheme="row-norm") == math.ceil(80 * math.log(140))

    @pytest.mark.parametrize(
        ("constants", "scheme", "factor"),
        [("sarc2020", "uniform", 4 * 6 * (2 * 6 + 1 / 3)), ("xu2017", "uniform", 16 * 36), ("xu2017", "row-norm", 4 * 36)],
    )
    def test_published_constants(self, constants, scheme, factor):
        """As printed: (4 k / t)(2 k / t + 1/3) log, 16 K^2 / eps^2 log, 4 K^2 / eps^2 log, for k / t = 6."""
        size = sample_size(0.5, 3.0, 7, 0.1, constants=constants, scheme=scheme)
        assert size == math.ceil(factor * math.log(140))
        assert size > sample_size(0.5, 3.0, 7, 0.1, scheme=scheme)

    @pytest.mark.parametrize("delta", [1e-3, 0.01, 0.05, 0.1, 0.3, 1.0])
    @pytest.mark.parametrize("n", [50, 1000, 20000])
    def test_without_replacement_one_of_both_samples_suffices(self, delta, n):
        """The smallest s whose own exponent, or that of its complement with the error scaled, reaches log(D / failure)."""
        bound, dim, failure = 1.3, 5, 0.02

        def exponent(s, t):
            return s * t * t / 2 / (bound**2 + 2 * bound * t / 3)

        need = math.log(2 * dim / failure)
        s = np.arange(1, n)
        enough = np.maximum(exponent(s, delta), exponent(n - s, delta * s / (n - s))) >= need
        smallest = int(s[enough][0]) if enough.any() else n
        assert sample_size(delta, bound, dim, failure, n=n) == smallest

    def test_limits(self):
        assert sample_size(1.0, 0.0, 3) == 1
        assert sample_size(1e9, 1.0, 3) == 1
        assert sample_size(1e-200, 1e200, 3, n=77) == 77
        assert sample_size(1e-3, 1.0, 3, n=77, scheme="row-norm") == 77
        assert isinstance(sample_size(0.1, np.float64(1), np.int64(3)), int)
        sizes = [sample_size(d, 1.0, 4, n=500) for d in np.geomspace(1e-6, 10, 200)]
        assert (np.diff(sizes) <= 0).all()
        assert sizes[0] == 500

    @pytest.mark.parametrize(
        ("arguments", "keywords", "error", "message"),
        [
            ((0.0, 1.0, 3), {}, ValueError, "delta"),
            ((nan, 1.0, 3), {}, ValueError, "delta"),
            ((0.1, -1.0, 3), {}, ValueError, "bound"),
            ((0.1, inf, 3), {}, ValueError, "bound"),
            ((0.1, 1.0, 0), {}, ValueError, "dim"),
            ((0.1, 1.0, 2.5), {}, TypeError, "dim"),
            ((0.1, 1.0, 3, 0.0), {}, ValueError, "failure"),
            ((0.1, 1.0, 3, 1.0), {}, ValueError, "failure must be less than 1"),
            ((0.1, 1.0, 3), {"n": 0}, ValueError, "n must"),
            ((0.1, 1.0, 3), {"kind": "value"}, ValueError, "kind"),
            ((0.1, 1.0, 3), {"scheme": "leverage"}, ValueError, "scheme"),
            ((0.1, 1.0, 3), {"constants": "sarc2020", "scheme": "row-norm"}, ValueError, "constants"),
            ((1e-200, 1.0, 3), {}, ValueError, "overflows"),
        ],
    )
    def test_errors(self, arguments, keywords, error, message):
        with pytest.raises(error, match=message):
            sample_size(*arguments, **keywords)


N, DIM = 4000, 6


@pytest.fixture(scope="module")
def terms():
    """Hessians d_i a_i a_i' and gradients c_i a_i of a GLM at one point, indefinite and with rows of unequal length."""
    rng = np.random.default_rng(5)
    A = rng.standard_normal((N, DIM)) * rng.lognormal(0, 0.5, (N, 1))
    y, p = rng.integers(0, 2, N), 1 / (1 + np.exp(-A @ rng.standard_normal(DIM)))
    slope = p * (1 - p)
    c, d = 2 * (p - y) * slope, 2 * slope * (slope + (p - y) * (1 - 2 * p))
    assert (d < 0).any()
    return A, c, d


def hessian_error(A, d, rows, weights=None):
    H = (A.T * d) @ A / len(A)
    w = np.full(len(rows), 1 / len(rows)) if weights is None else weights
    return np.linalg.norm((A[rows].T * (w * d[rows])) @ A[rows] - H, 2)


class TestCoverage:
    """A correct bound makes the number of failures at most binomial(TRIALS, FAILURE): false alarm below 1e-6."""

    TRIALS, FAILURE = 400, 0.2

    def require(self, failures):
        assert stats.binom.sf(failures - 1, self.TRIALS, self.FAILURE) >= 1e-6

    @pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
    def test_hessian_uniform(self, terms, share):
        A, _, d = terms
        bound = (np.abs(d) * (A**2).sum(1)).max()
        delta = next(t for t in np.geomspace(1e-3, 10, 400) * bound if sample_size(t, bound, DIM, 0.2, n=N) <= share * N)
        size = sample_size(delta, bound, DIM, self.FAILURE, n=N)
        self.require(sum(hessian_error(A, d, RowOrder(N, k).prefix(size)) > delta for k in range(self.TRIALS)))

    def test_hessian_row_norm(self, terms):
        A, _, d = terms
        importance = np.abs(d) * (A**2).sum(1)
        bound = importance.mean()
        size = sample_size(0.5 * bound, bound, DIM, self.FAILURE, scheme="row-norm")
        draws = (draw_rows(importance, size, k, 1) for k in range(self.TRIALS))
        self.require(sum(hessian_error(A, d, *draw) > 0.5 * bound for draw in draws))

    def test_gradient(self, terms):
        A, c, _ = terms
        G = A * c[:, None]
        bound = np.linalg.norm(G, axis=1).max()
        size = sample_size(0.2 * bound, bound, DIM, self.FAILURE, n=N, kind="gradient")
        errors = [np.linalg.norm(G[RowOrder(N, k).prefix(size)].mean(0) - G.mean(0)) for k in range(self.TRIALS)]
        self.require(np.sum(np.array(errors) > 0.2 * bound))

    @pytest.mark.parametrize("failure", [1e-6, 0.01, 0.3])
    @pytest.mark.parametrize("delta", [0.01, 0.05, 0.2, 0.5])
    def test_exact_failure_probability(self, delta, failure):
        """f_i'' = +-1 in equal numbers, dim = 1, where the error has a binomial, without replacement a hypergeometric law."""
        size = sample_size(delta, 1.0, 1, failure)
        assert 2 * stats.binom.cdf(math.ceil(size * (1 - delta) / 2) - 1, size, 0.5) <= failure
        # The normal law needs (z / delta)^2 terms, the lemma about 2 log(2 / failure) / delta^2: not much more.
        assert size <= 3.6 * (stats.norm.isf(failure / 2) / delta) ** 2 + 4 / (3 * delta) * math.log(2 / failure) + 1
        for n in (20, 100, 1000, 10000, 10**6):
            few = sample_size(delta, 1.0, 1, failure, n=n)
            assert few <= min(size, n)
            assert 2 * stats.hypergeom.cdf(math.ceil(few * (1 - delta) / 2) - 1, n, n // 2, few) <= failure


@pytest.mark.parametrize("scheme", ["uniform", "row-norm"])
def test_the_error_falls_as_the_root_of_the_size(terms, scheme):
    """Log-log slope -1/2. With 400 draws per size the standard error of the fitted slope is below 0.01: 5 of them allowed."""
    A, _, d = terms
    A = A / np.linalg.norm(A, axis=1, keepdims=True)  # no heavy tails: they would blur the slope
    importance = np.abs(d)
    sizes = np.array([40, 80, 160, 320])
    errors = []
    for size in sizes.tolist():
        draws = [
            (RowOrder(N, 1000 * size + k).prefix(size), None) if scheme == "uniform" else draw_rows(importance, size, k, size)
            for k in range(400)
        ]
        errors.append(np.sqrt(np.mean([hessian_error(A, d, *draw) ** 2 for draw in draws])))
    correction = np.sqrt((N - sizes) / (N - 1)) if scheme == "uniform" else 1  # sampling without replacement
    slope = np.polyfit(np.log(sizes), np.log(np.array(errors) / correction), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)


class TestRules:
    def test_fixed(self):
        assert Fixed(30).next_size(state()) == 30
        assert Fixed(5000).next_size(state()) == 1000
        assert Fixed(0.07).next_size(state(n=100)) == 7  # 0.07 * 100 > 7 in floating point
        assert Fixed(1.0).next_size(state()) == 1000
        assert Fixed(1).next_size(state()) == 1
        assert Fixed(1e-9).next_size(state()) == 1

    def test_fraction_of(self):
        assert FractionOf(0.25).next_size(state(gradient_size=100)) == 25
        assert FractionOf(0.25, least=40).next_size(state(gradient_size=100)) == 40
        assert FractionOf(0.25).next_size(state()) == 250  # no gradient sample: all terms
        assert FractionOf(0.5, least=400).next_size(state(n=100, gradient_size=20)) == 100

    def test_norm_test(self):
        rule = NormTest(theta=0.5, first=0.02, growth_limit=4)
        assert rule.next_size(state(size=0)) == 20
        assert rule.next_size(state(gradient_variance=4.0, grad_norm=0.4)) == 100  # 4 / 100 = (0.5 * 0.4)^2: kept
        assert rule.next_size(state(gradient_variance=5.0, grad_norm=0.4)) == 125  # 5 / 0.04
        assert rule.next_size(state(gradient_variance=1.0, grad_norm=0.4)) == 100  # 25 would do
        assert rule.next_size(state(gradient_variance=400.0, grad_norm=0.4)) == 400
        assert rule.next_size(state(gradient_variance=400.0, grad_norm=0.4, size=300)) == 1000
        assert rule.next_size(state(gradient_variance=1.0, grad_norm=0.0)) == 400
        assert rule.next_size(state(gradient_variance=1.0, grad_norm=1e-200)) == 400
        assert rule.next_size(state(gradient_variance=0.0, grad_norm=0.0)) == 100

    def test_inner_product_test(self):
        rule = InnerProductTest(theta=0.5, nu=2.0, first=7)
        assert rule.next_size(state(size=0)) == 7
        # ||g|| = 2. Along g: 960 / (0.25 * 16) = 240. Across: (V - 960 / 4) / (4 * 4) = 300 for V = 5040.
        assert rule.next_size(state(grad_norm=2.0, inner_product_variance=960.0, gradient_variance=240.0)) == 240
        assert rule.next_size(state(grad_norm=2.0, inner_product_variance=960.0, gradient_variance=5040.0)) == 300
        assert rule.next_size(state(grad_norm=2.0, inner_product_variance=4.0, gradient_variance=100.0)) == 100
        assert rule.next_size(state(grad_norm=1e-100, inner_product_variance=960e-200, gradient_variance=240.0)) == 400
        assert rule.next_size(state(grad_norm=2e-90, inner_product_variance=960e-360, gradient_variance=0.0)) == 100

    def test_gradient_change(self):
        rule = GradientChange(factor=1.5, low=80, high=0.16, first=100)
        assert rule.next_size(state(size=0)) == 100
        assert rule.next_size(state(grad_norm=1.0)) == 100
        assert rule.next_size(state(grad_norm=1.0, previous_grad_norm=1.4)) == 100
        assert rule.next_size(state(grad_norm=1.0, previous_grad_norm=1.6)) == 150
        assert rule.next_size(state(grad_norm=1.0, previous_grad_norm=1.6, size=150)) == 160
        assert rule.next_size(state(grad_norm=1.6, previous_grad_norm=1.0, size=150)) == 100
        assert rule.next_size(state(grad_norm=1.6, previous_grad_norm=1.0)) == 80
        assert rule.next_size(state(grad_norm=0.0, previous_grad_norm=1.0)) == 150
        free = GradientChange(factor=1.2)
        assert free.next_size(state(size=0)) == 50
        assert free.next_size(state(size=2, first_size=2, grad_norm=1, previous_grad_norm=2)) == 3
        assert free.next_size(state(size=990, grad_norm=1, previous_grad_norm=2)) == 1000
        assert free.next_size(state(size=11, grad_norm=2, previous_grad_norm=1)) == 10  # first size 50 / 5

    def test_step_rule(self):
        rule = StepRule(first=0.05, growth=1.5, power=2)
        assert rule.next_size(state(size=0, first_size=0)) == 50
        assert rule.next_size(state()) == 100  # no step yet
        assert rule.next_size(state(accepted=False, step_norm=0.1, first_step_norm=1.0)) == 150
        assert rule.next_size(state(accepted=True, step_norm=0.5, first_step_norm=1.0)) == 200
        assert rule.next_size(state(accepted=True, step_norm=2.0, first_step_norm=1.0)) == 50
        assert rule.next_size(state(accepted=True, step_norm=1e-200, first_step_norm=1.0)) == 1000
        fourth = StepRule(first=50, power=4)
        assert fourth.next_size(state(accepted=True, step_norm=0.5, first_step_norm=1.0)) == 800
        assert fourth.next_size(state(accepted=True, step_norm=0.4, first_step_norm=1.0)) == 1000

    def test_dynamic_accuracy(self):
        rule = DynamicAccuracy(alpha=0.2, beta=0.25, failure=0.1)
        given = {"n": 10**9, "grad_norm": 2.0, "bound": 3.0, "sigma": 4.0}
        assert rule.next_size(state(size=0, first_size=0)) == 100
        assert rule.next_size(state(**given)) == 50
        assert rule.next_size(state(**given, step_norm=1.0)) == 50
        tight = sample_size(0.2 * 0.75 * 2, 3.0, 10, 0.1, n=10**9, constants="sarc2020")
        assert rule.next_size(state(**given, step_norm=0.9)) == tight
        gradient = DynamicAccuracy("gradient", kappa=2.0, beta=0.25, failure=0.1)
        assert gradient.next_size(state(size=0, first_size=0)) == 400
        # 2 * 0.75^2 * (2 / 4)^2 = 9 / 32
        wanted = sample_size(9 / 32, 3.0, 10, 0.1, n=10**9, kind="gradient", constants="sarc2020")
        assert gradient.next_size(state(**given)) == wanted
        assert gradient.next_size(state(**{**given, "sigma": 0.0})) == 50
        assert gradient.next_size(state(**{**given, "sigma": 1e-9})) == 50
        assert DynamicAccuracy(first=3).next_size(state(size=0, first_size=0)) == 3

    @pytest.mark.parametrize(
        "rule", [NormTest(), InnerProductTest(), GradientChange(), StepRule(), DynamicAccuracy(), DynamicAccuracy("gradient")]
    )
    @pytest.mark.parametrize("bad", [nan, inf])
    def test_no_evidence_asks_for_everything(self, rule, bad):
        good = {
            "grad_norm": 1.0,
            "previous_grad_norm": 1.0,
            "step_norm": 0.5,
            "first_step_norm": 0.5,
            "gradient_variance": 1.0,
            "inner_product_variance": 1.0,
            "sigma": 1.0,
            "bound": 1.0,
        }
        assert rule.needs
        for name in rule.needs:
            if name == "step_norm" and bad == inf and isinstance(rule, DynamicAccuracy):
                continue
            assert rule.next_size(state(**{**good, name: bad})) == 1000, name

    def test_sizes_stay_between_one_and_n(self):
        rng = np.random.default_rng(2)
        rules = [Fixed(3), FractionOf(), NormTest(), InnerProductTest(), GradientChange(), StepRule(), StepRule(power=4)]
        rules += [DynamicAccuracy(), DynamicAccuracy("gradient")]
        extremes = np.array([0.0, 1e-320, 1e-200, 1e-8, 1.0, 1e8, 1e200, 1e308, inf, nan])
        for _ in range(3000):
            draw = rng.choice(extremes, 8)
            n = int(rng.choice([1, 2, 50, 10**12]))
            given = RuleState(
                n=n,
                dim=4,
                size=int(rng.integers(0, n, endpoint=True)),
                first_size=int(rng.integers(1, n, endpoint=True)),
                grad_norm=draw[0],
                previous_grad_norm=draw[1],
                step_norm=draw[2],
                first_step_norm=draw[3],
                accepted=bool(rng.integers(2)),
                gradient_variance=draw[4],
                inner_product_variance=draw[5],
                sigma=draw[6],
                bound=draw[7],
            )
            for rule in rules:
                size = rule.next_size(given)
                assert type(size) is int
                assert 1 <= size <= n, (rule, given)

    def test_rules_are_values(self):
        assert NormTest() == NormTest(0.5)
        assert len({NormTest(), NormTest(), NormTest(0.4)}) == 2
        with pytest.raises(NotImplementedError):
            SampleRule().next_size(state())

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: Fixed(0), ValueError, "size must be at least 1"),
            (lambda: Fixed(1.5), ValueError, "size must be a fraction"),
            (lambda: Fixed(True), TypeError, "size"),
            (lambda: Fixed("all"), TypeError, "size"),
            (lambda: FractionOf(0.0), ValueError, "fraction"),
            (lambda: FractionOf(0.5, 0), ValueError, "least"),
            (lambda: NormTest(0.0), ValueError, "theta"),
            (lambda: NormTest(first=nan), ValueError, "first"),
            (lambda: NormTest(growth_limit=1.0), ValueError, "growth_limit"),
            (lambda: InnerProductTest(theta=-1.0), ValueError, "theta"),
            (lambda: InnerProductTest(nu=0.0), ValueError, "nu"),
            (lambda: InnerProductTest(first=0), ValueError, "first"),
            (lambda: InnerProductTest(growth_limit=0.5), ValueError, "growth_limit"),
            (lambda: GradientChange(1.0), ValueError, "factor"),
            (lambda: GradientChange(low=0), ValueError, "low"),
            (lambda: GradientChange(high=2.0), ValueError, "high"),
            (lambda: GradientChange(first=-1), ValueError, "first"),
            (lambda: StepRule(0), ValueError, "first"),
            (lambda: StepRule(growth=1), ValueError, "growth"),
            (lambda: StepRule(power=3), ValueError, "power must be 2 or 4"),
            (lambda: DynamicAccuracy("value"), ValueError, "kind"),
            (lambda: DynamicAccuracy(alpha=0.0), ValueError, "alpha"),
            (lambda: DynamicAccuracy(kappa=0.0), ValueError, "kappa"),
            (lambda: DynamicAccuracy(beta=1.0), ValueError, "beta must be less than 1"),
            (lambda: DynamicAccuracy(failure=1.0), ValueError, "failure must be less than 1"),
            (lambda: DynamicAccuracy(first=0), ValueError, "first"),
        ],
    )
    def test_bad_rules(self, make, error, message):
        with pytest.raises(error, match=message):
            make()


class TestDecreaseTest:
    def test_first_size_has_ten_terms_for_every_unknown(self):
        assert DecreaseTest().next_size(state(size=0)) == 100  # 10 * 10, more than 1 % of 1000
        assert DecreaseTest(first=0.3).next_size(state(size=0)) == 300
        assert DecreaseTest().next_size(state(size=0, n=50)) == 50

    def test_formula_by_hand(self):
        # D^2 / (10 V) = 1/500: 1 / (1/500 + 1/1000) = 333.3 terms, below 4 * 100; 1.5 * 100 where D is certain.
        rule = DecreaseTest()
        assert rule.next_size(state(decrease=1.0, decrease_variance=50.0)) == 334
        assert rule.next_size(state(decrease=10.0, decrease_variance=1e-3)) == 150
        assert rule.next_size(state(decrease=1.0, decrease_variance=0.0)) == 150
        assert rule.next_size(state(decrease=1e-9, decrease_variance=50.0)) == 400
        assert rule.next_size(state(decrease=-1.0, decrease_variance=50.0)) == 400
        assert rule.next_size(state(decrease=1e-9, decrease_variance=50.0, size=200)) == 1000  # 800 is most of them

    def test_what_is_not_known_asks_for_all_terms(self):
        assert DecreaseTest().next_size(state()) == 1000
        assert DecreaseTest().next_size(state(decrease=1.0, decrease_variance=inf)) == 1000

    @pytest.mark.parametrize("make", [lambda: DecreaseTest(growth=1.0), lambda: DecreaseTest(first=0.0)])
    def test_bad_rules(self, make):
        with pytest.raises(ValueError, match=r"growth|first"):
            make()


class TestAsRule:
    def test_values(self):
        assert as_rule(None, 100, "gradient_sample").next_size(state(n=100)) == 100
        assert as_rule(30, 100, "gradient_sample") == Fixed(30)
        assert as_rule(np.int32(30), 100, "gradient_sample").next_size(state()) == 30
        assert as_rule(0.5, 100, "hessian_sample").next_size(state(n=100)) == 50
        assert as_rule(1.0, 100, "hessian_sample").next_size(state(n=100)) == 100
        assert as_rule("adaptive", 100, "gradient_sample") == DecreaseTest()
        assert as_rule("adaptive", 100, "hessian_sample") == FractionOf(0.1)
        rule = StepRule()
        assert as_rule(rule, 100, "hessian_sample") is rule

    @pytest.mark.parametrize("name", ["gradient_sample", "hessian_sample"])
    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            (0, ValueError, "between 1 and 100"),
            (101, ValueError, "between 1 and 100"),
            (0.0, ValueError, "greater than 0"),
            (1.5, ValueError, "at most 1"),
            (nan, ValueError, "finite"),
            ("all", ValueError, "'adaptive'"),
            (True, TypeError, "SampleRule"),
            ([10], TypeError, "SampleRule"),
            (NormTest, TypeError, "SampleRule"),
        ],
    )
    def test_errors_name_the_argument(self, name, value, error, message):
        with pytest.raises(error, match=f"{name} must .*{message}"):
            as_rule(value, 100, name)
