"""Trust-region and cubic subproblems: optimality conditions, values in extended precision, and every argument."""

import numpy as np
import pytest
import scipy.sparse as sp
from mpmath import mp, mpf
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from randla.optimize.subproblem import CUBIC_METHODS, TRUST_REGION_METHODS, cubic_subproblem, trust_region_subproblem

SOLVE = {"trust-region": trust_region_subproblem, "cubic": cubic_subproblem}
GLOBAL = {"trust-region": ("exact", "gltr", "block"), "cubic": ("exact", "lanczos", "block")}
KINDS = ("indefinite", "definite", "hard", "near hard", "multiple", "flat", "no gradient", "graded")


def batch(kind, d, count, rng):
    """Matrices (count, d, d) with their eigenvalues and vectors, gradients and radii or weights, over scales 1e-6..1e6."""
    w = np.sort(rng.standard_normal((count, d)), axis=1)
    V = np.linalg.qr(rng.standard_normal((count, d, d)))[0]
    c = rng.standard_normal((count, d))
    if kind == "definite":
        w = np.abs(w) + 1e-3
    if kind == "multiple":
        w = np.sort(np.round(w * 1.5), axis=1)
        c[:, 0] = 0
    if kind == "flat":
        w = np.abs(w)
        w[:, : d // 2] = 0
        c[:, : d // 2] = 0
    if kind == "hard":
        c[:, 0] = 0
    if kind == "near hard":
        c[:, 0] *= 10.0 ** -rng.uniform(3, 18, count)
    if kind == "no gradient":
        c[:] = 0
    if kind == "graded":
        c *= 10.0 ** -rng.uniform(0, 16, (count, d))
    w *= 10.0 ** rng.uniform(-6, 6, (count, 1))
    c *= 10.0 ** rng.uniform(-6, 6, (count, 1))
    H = np.einsum("nij,nj,nkj->nik", V, w, V)
    H = (H + H.transpose(0, 2, 1)) / 2
    return H, w, V, np.einsum("nij,nj->ni", V, c), 10.0 ** rng.uniform(-6, 6, count)


def require_minimizer(H, g, parameter, problem, s, info, tol=1e-10):
    """The conditions that are necessary and sufficient for a global minimizer (More, Sorensen; Cartis, Gould, Toint)."""
    w = np.linalg.eigvalsh(H)
    top = max(abs(w[0]), abs(w[-1]))
    n, lam = np.linalg.norm(s), info.multiplier
    scale = top * n + lam * n + np.linalg.norm(g)
    assert np.linalg.norm(H @ s + lam * s + g) <= tol * scale
    assert lam >= 0
    assert w[0] + lam >= -tol * max(top, lam)
    if problem == "cubic":
        assert abs(lam - parameter * n) <= tol * max(top, lam)
    else:
        assert n <= parameter * (1 + 1e-14)
        assert lam * (parameter - n) <= tol * max(top, lam) * parameter
        assert info.boundary == (n > parameter * (1 - 1e-12))
    require_decrease(H, g, parameter, problem, s, info)


def model(H, g, parameter, problem, s):
    H, g, s = (np.asarray(a, np.longdouble) for a in (H, g, s))
    cubic = parameter / 3 * (s @ s) ** 1.5 if problem == "cubic" else 0
    return float(g @ s + s @ H @ s / 2 + cubic)


def require_decrease(H, g, parameter, problem, s, info):
    terms = abs(g @ s) + np.linalg.norm(H, 2) * (s @ s)
    assert info.decrease >= 0
    assert abs(info.decrease + model(H, g, parameter, problem, s)) <= 1e-13 * terms


def cauchy_decrease(H, g, parameter, problem):
    """Of the minimizer along -g, in closed form."""
    size = np.linalg.norm(g)
    if size == 0:
        return 0.0
    bend = g @ H @ g / size**2
    if problem == "trust-region":
        t = parameter if bend * parameter <= size else size / bend
        return size * t - bend * t * t / 2
    root = np.hypot(bend, 2 * np.sqrt(parameter * size))
    t = 2 * size / (bend + root) if bend > 0 else (root - bend) / (2 * parameter)
    return size * t - bend * t * t / 2 - parameter / 3 * t**3


def require_sufficient(H, g, parameter, problem, info):
    """Cauchy decrease, and the decrease along the leftmost eigenvector."""
    assert info.decrease >= cauchy_decrease(H, g, parameter, problem) * (1 - 1e-10)
    w = np.linalg.eigvalsh(H)
    # Flat directions are left alone, and rounding decides the sign of their curvature.
    lowest = w[0] if w[0] < -1e-13 * abs(w[-1]) else 0.0
    t = parameter if problem == "trust-region" else -lowest / parameter
    best = -lowest * t * t / 2 - (parameter / 3 * t**3 if problem == "cubic" else 0)
    assert info.decrease >= best * (1 - 1e-10)


def smallest(H, g, parameter, problem):
    """The smallest value of the model: bisection of the secular equation in 60 digits."""
    with mp.workdps(60):
        w, V = mp.eigsy(mp.matrix(H.tolist()))
        c = [mp.fdot(V[:, j], g.tolist()) for j in range(len(g))]
        parameter, d = mpf(parameter), len(g)
        low = max(mpf(0), -w[0])
        # A part of c below the rounding of the data is none.
        small = mpf(10) ** -40 * mp.norm(mp.matrix(c))
        c = [mpf(0) if abs(x) <= small else x for x in c]

        def length(lam):
            return mp.sqrt(mp.fsum((c[j] / (w[j] + lam)) ** 2 for j in range(d) if c[j] != 0))

        def target(lam):
            return parameter if problem == "trust-region" else lam / parameter

        start = low + mpf(10) ** -45 * (1 + abs(w[0]) + abs(w[d - 1]))
        if length(start) <= target(start):
            s = [-c[j] / (w[j] + start) if c[j] != 0 else mpf(0) for j in range(d)]
            if w[0] < 0:
                s[0] = mp.sqrt(max(mpf(0), target(low) ** 2 - mp.fsum(x * x for x in s)))
        else:
            high = start + 1
            while length(high) > target(high):
                high *= 2
            for _ in range(300):
                middle = (start + high) / 2
                start, high = (middle, high) if length(middle) > target(middle) else (start, middle)
            s = [-c[j] / (w[j] + high) for j in range(d)]
        size = mp.sqrt(mp.fsum(x * x for x in s))
        cubic = parameter / 3 * size**3 if problem == "cubic" else 0
        return float(mp.fdot(c, s) + mp.fsum(w[j] * s[j] ** 2 for j in range(d)) / 2 + cubic)


def require_all(count, seed):
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        for d in range(1, 21):
            H, _, _, g, parameters = batch(kind, d, count, rng)
            for A, b, parameter in zip(H, g, parameters, strict=True):
                for problem, solve in SOLVE.items():
                    s, info = solve(A, b, parameter, rng=0)
                    require_minimizer(A, b, parameter, problem, s, info)
                    require_sufficient(A, b, parameter, problem, info)
                    assert info.converged
                    assert info.products == 0


def test_conditions_of_the_minimizer():
    require_all(13, 1)


@pytest.mark.slow
def test_conditions_of_the_minimizer_in_40000_cases():
    require_all(125, 2)


@pytest.mark.parametrize("problem", SOLVE)
@pytest.mark.parametrize("kind", KINDS)
def test_smallest_value_in_extended_precision(kind, problem):
    rng = np.random.default_rng(3)
    for d in (1, 2, 5, 9):
        H, _, _, g, parameters = batch(kind, d, 2, rng)
        for A, b, parameter in zip(H, g, parameters, strict=True):
            s, info = SOLVE[problem](A, b, parameter)
            best = smallest(A, b, parameter, problem)
            length = parameter if problem == "trust-region" else np.linalg.norm(s)
            terms = abs(b @ s) + np.linalg.norm(A, 2) * length**2
            assert abs(info.decrease + best) <= 1e-13 * terms


@pytest.mark.parametrize("problem", SOLVE)
@pytest.mark.parametrize("kind", KINDS)
def test_krylov_methods_find_the_global_minimizer(kind, problem):
    rng = np.random.default_rng(4)
    for d in (1, 2, 3, 8, 20):
        H, _, _, g, parameters = batch(kind, d, 20, rng)
        for A, b, parameter in zip(H, g, parameters, strict=True):
            t, reference = SOLVE[problem](A, b, parameter)
            rounding = 1e-12 * np.linalg.norm(A, 2) * (t @ t)
            for method in GLOBAL[problem][1:]:
                s, info = SOLVE[problem](A, b, parameter, method=method, tol=1e-12, rng=5)
                require_decrease(A, b, parameter, problem, s, info)
                assert info.decrease >= reference.decrease * (1 - 1e-9) - rounding
                assert info.residual <= 1e-9
                assert info.products <= d
                assert info.converged


def test_a_single_krylov_space_is_left_in_the_hard_case():
    """The matrix of scipy's test_for_the_hard_case, which asserts the point (0, -1, 0) of value -1 for trust-krylov."""
    H, g = np.array([[1.0, 0, 4], [0, 2, 0], [4, 0, 3]]), np.array([0.0, 2, 0])
    for method in GLOBAL["trust-region"]:
        s, info = trust_region_subproblem(H, g, 1.0, method=method, rng=0)
        require_minimizer(H, g, 1.0, "trust-region", s, info, tol=1e-9)
        assert info.hard_case
        assert info.decrease == pytest.approx(1.5466, abs=5e-5)
        assert info.decrease == pytest.approx(-smallest(H, g, 1.0, "trust-region"), rel=1e-12)
    assert trust_region_subproblem(H, g, 1.0, method="steihaug")[1].decrease == pytest.approx(1.0)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 10.0])
def test_tridiagonal_of_dimension_100(sigma):
    """GALAHAD's H = tridiag(1, 2, 1), g = 1: eigenvalues 2 + 2 cos(pi j / 101), every second one without a part in g."""
    H = sp.diags_array([np.ones(99), np.full(100, 2.0), np.ones(99)], offsets=[-1, 0, 1])
    j = np.arange(1, 101)
    w, V = 2 + 2 * np.cos(np.pi * j / 101), np.sqrt(2 / 101) * np.sin(np.pi * np.outer(j, j) / 101)
    c = V.sum(axis=0)
    low, high = 0.0, 100.0 * (1 + sigma)
    for _ in range(200):
        lam = (low + high) / 2
        low, high = (lam, high) if sigma * np.linalg.norm(c / (w + lam)) > lam else (low, lam)
    s = -c / (w + lam)
    value = c @ s + s @ (w * s) / 2 + sigma / 3 * np.linalg.norm(s) ** 3
    for method in CUBIC_METHODS:
        _, info = cubic_subproblem(H, np.ones(100), sigma, method=method, rng=0)
        assert -info.decrease == pytest.approx(value, rel={"exact": 1e-12, "gradient": 1e-3}.get(method, 1e-9))


@pytest.mark.parametrize("case", ["easy", "hard", "jac_equal_zero"])
@pytest.mark.parametrize(("low", "high"), [(-2.0, -1.0), (-1.0, 5.0), (1e-3, 4.0)])
def test_random_entries(case, low, high):
    """The families of scipy's test_for_random_entries, held to global optimality instead of to a stopping rule."""
    rng = np.random.default_rng(6)
    for n in (5, 10, 20):
        w = np.sort(rng.uniform(low, high, n))
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        H = (Q * w) @ Q.T
        H = (H + H.T) / 2
        g = rng.standard_normal(n)
        if case == "hard":
            g -= Q[:, 0] * (Q[:, 0] @ g)
        if case == "jac_equal_zero":
            g[:] = 0
        for radius in (0.1, 1.0, 10.0):
            for method in GLOBAL["trust-region"]:
                s, info = trust_region_subproblem(H, g, radius, method=method, tol=1e-11, rng=1)
                require_minimizer(H, g, radius, "trust-region", s, info, tol=1e-9)
                require_sufficient(H, g, radius, "trust-region", info)


@pytest.mark.parametrize("problem", SOLVE)
@pytest.mark.parametrize(("size_H", "size_g", "parameter"), [(1e150, 1e150, 1.0), (1e-150, 1e-150, 1.0), (1.0, 1e-150, 1e-150)])
def test_extreme_scales(problem, size_H, size_g, parameter):
    """The solution scales with the data: compared with that of data near one, where the scaling is known."""
    rng = np.random.default_rng(7)
    for kind in ("indefinite", "definite", "hard"):
        _, w, V, _, _ = batch(kind, 6, 1, rng)
        w, V = w[0] / abs(w[0]).max(), V[0]
        c = rng.standard_normal(6) * (np.arange(6) > 0 if kind == "hard" else 1)
        H, g = (V * w) @ V.T, V @ c
        H = (H + H.T) / 2
        length = size_g / size_H
        unit = 1.0 if problem == "trust-region" else size_H / length
        s, info = SOLVE[problem](H * size_H, g * size_g, 0.7 * (length if problem == "trust-region" else unit))
        t, plain = SOLVE[problem](H, g, 0.7)
        assert abs(s @ V[:, 0]) == pytest.approx(abs(t @ V[:, 0]) * length, rel=1e-9)
        np.testing.assert_allclose(V[:, 1:].T @ s / length, V[:, 1:].T @ t, atol=1e-9 * np.linalg.norm(t))
        assert info.multiplier == pytest.approx(plain.multiplier * size_H, rel=1e-9)
        assert info.decrease == pytest.approx(plain.decrease * size_g * length, rel=1e-9)
        _, other = SOLVE[problem](H * size_H, g * size_g, parameter)
        assert np.isfinite(other.multiplier)


@pytest.mark.parametrize("problem", SOLVE)
def test_zero_data(problem):
    for d in (1, 3):
        s, info = SOLVE[problem](np.zeros((d, d)), np.zeros(d), 2.0)
        assert not s.any()
        assert info.decrease == info.multiplier == info.residual == 0
        s, info = SOLVE[problem](np.zeros((d, d)), np.ones(d), 2.0)
        assert np.linalg.norm(s) == pytest.approx(2.0 if problem == "trust-region" else np.sqrt(np.sqrt(d) / 2))
        assert np.allclose(s, s[0])
        s, info = SOLVE[problem](-np.eye(d), np.zeros(d), 2.0)
        assert info.hard_case
        assert np.linalg.norm(s) == pytest.approx(2.0 if problem == "trust-region" else 0.5)
        s, info = SOLVE[problem](np.eye(d), np.zeros(d), 2.0)
        assert not s.any()


def test_flat_directions_are_left_alone():
    """H = diag(0, 2), g = (0, 1): every (t, -1/2) is a minimizer; the shortest is returned, not one at the boundary."""
    s, info = trust_region_subproblem(np.diag([0.0, 2.0]), np.array([0.0, 1.0]), 100.0)
    np.testing.assert_allclose(s, [0, -0.5], atol=1e-15)
    assert not info.boundary
    assert not info.hard_case


@pytest.mark.parametrize("problem", SOLVE)
def test_layouts_of_the_hessian(problem):
    rng = np.random.default_rng(8)
    H, _, _, g, _ = batch("indefinite", 70, 1, rng)
    H, g = H[0] / np.linalg.norm(H[0], 2), g[0] / np.linalg.norm(g[0])
    s, _ = SOLVE[problem](H, g, 1.0)
    for layout in (np.asfortranarray(H), sp.csr_array(H), sp.csc_matrix(H), H.tolist()):
        t, info = SOLVE[problem](layout, g, 1.0)
        np.testing.assert_allclose(t, s, rtol=1e-9, atol=1e-11)
        assert info.products == 0
    t, info = SOLVE[problem](aslinearoperator(H), g, 1.0)
    np.testing.assert_allclose(t, s, rtol=1e-9, atol=1e-11)
    assert info.products == 70
    t, info = SOLVE[problem](H.astype(np.float32), g.astype(np.float32), 1.0)
    np.testing.assert_allclose(t, s, rtol=1e-3, atol=1e-4)


class Counted:
    """Products counted by column."""

    def __init__(self, H):
        self.H, self.count = H, 0

    def __matmul__(self, V):
        self.count += 1 if V.ndim == 1 else V.shape[1]
        return self.H @ V


@pytest.mark.parametrize(
    ("problem", "method"),
    [(p, m) for p, all in (("trust-region", TRUST_REGION_METHODS), ("cubic", CUBIC_METHODS)) for m in all],
)
def test_products_are_counted_and_runs_replay(problem, method):
    rng = np.random.default_rng(9)
    H, _, _, g, _ = batch("indefinite", 30, 1, rng)
    H, g = H[0] / np.linalg.norm(H[0], 2), g[0] / np.linalg.norm(g[0])
    counted = Counted(H)
    s, info = SOLVE[problem](counted, g, 1.0, method=method)
    assert info.products == counted.count > 0
    t, again = SOLVE[problem](counted, g, 1.0, method=method, rng=info.seed)
    assert np.array_equal(s, t)
    assert again == info
    require_decrease(H, g, 1.0, problem, s, info)
    assert info.decrease >= cauchy_decrease(H, g, 1.0, problem) * (1 - 1e-10)
    residual = np.linalg.norm(H @ s + info.multiplier * s + g) / max(1, info.multiplier * np.linalg.norm(s))
    assert residual == pytest.approx(info.residual, rel=1e-3, abs=1e-13)
    assert info.curvature >= np.linalg.eigvalsh(H)[0] - 1e-12


@pytest.mark.parametrize("problem", SOLVE)
def test_shifted_and_gradient_reach_their_tolerance(problem):
    rng = np.random.default_rng(10)
    for kind in ("indefinite", "definite"):
        H, w, _, g, _ = batch(kind, 40, 3, rng)
        for A, top, b in zip(H, np.abs(w).max(axis=1), g, strict=True):
            A, b = A / top, b / np.linalg.norm(b)
            for parameter in (0.1, 1.0, 10.0):
                best = SOLVE[problem](A, b, parameter)[1].decrease
                for method in ("shifted", "gradient")[: 1 if problem == "trust-region" else 2]:
                    tol = 1e-6 if method == "shifted" else 1e-4
                    s, info = SOLVE[problem](A, b, parameter, method=method, tol=tol, rng=2)
                    assert info.converged
                    assert np.linalg.norm(A @ s + info.multiplier * s + b) <= 2 * tol * max(
                        1, info.multiplier * np.linalg.norm(s)
                    )
                    assert info.decrease >= best * (1 - 1e-4)


def test_gradient_descent_leaves_the_hard_case():
    rng = np.random.default_rng(11)
    H, _, V, g, _ = batch("hard", 12, 5, rng)
    for A, U, b in zip(H, V, g, strict=True):
        A, b = A / np.linalg.norm(A, 2), 0.1 * b / np.linalg.norm(b)
        b -= U[:, 0] * (U[:, 0] @ b)
        best = cubic_subproblem(A, b, 0.5)[1]
        assert best.hard_case
        info = cubic_subproblem(A, b, 0.5, method="gradient", tol=1e-4, rng=0)[1]
        assert info.decrease >= best.decrease * (1 - 1e-4)
    info = cubic_subproblem(-np.eye(3), np.zeros(3), 1.0, method="gradient", rng=0)[1]
    assert info.decrease == pytest.approx(1 / 6)


def test_limits_are_kept_and_admitted():
    rng = np.random.default_rng(12)
    H, _, _, g, _ = batch("definite", 60, 1, rng)
    H, g = H[0] / np.linalg.norm(H[0], 2), g[0] / np.linalg.norm(g[0])
    for problem, methods in (("trust-region", TRUST_REGION_METHODS[1:]), ("cubic", CUBIC_METHODS[1:])):
        for method in methods:
            info = SOLVE[problem](H, g, 1e-3 if problem == "cubic" else 1e3, method=method, maxiter=4, rng=0)[1]
            assert not info.converged
            assert info.products <= 2 * 4
            assert info.decrease > 0


EYE, ONE = np.eye(2), np.ones(2)


@pytest.mark.parametrize("problem", SOLVE)
@pytest.mark.parametrize(
    ("H", "g", "parameter", "options", "error", "message"),
    [
        (EYE, ONE, 1.0, {"method": "cholesky"}, ValueError, "method must be one of exact"),
        (EYE, ONE, 0.0, {}, ValueError, "must be finite and greater than 0; got 0.0"),
        (EYE, ONE, np.inf, {}, ValueError, "must be finite and greater than 0; got inf"),
        (EYE, ONE, 1.0, {"tol": 0.0}, ValueError, "tol must be finite and greater than 0"),
        (EYE, ONE, 1.0, {"maxiter": 0}, ValueError, "maxiter must be at least 1"),
        (EYE, ONE, 1.0, {"rng": "x"}, TypeError, "rng must be None"),
        (EYE, np.ones((2, 1)), 1.0, {}, ValueError, r"g must have shape \(d,\)"),
        (EYE, np.ones(0), 1.0, {}, ValueError, r"g must have shape \(d,\), d at least 1"),
        (EYE, np.ones(3), 1.0, {}, ValueError, r"H must have shape \(3, 3\) for g of 3 entries; got \(2, 2\)"),
        (EYE, ONE + 0j, 1.0, {}, TypeError, "g must be real; got complex128"),
        (EYE + 0j, ONE, 1.0, {}, TypeError, "H must be real; got complex128"),
        (EYE, ONE * np.nan, 1.0, {}, ValueError, "g must be finite"),
        (EYE + np.inf, ONE, 1.0, {}, ValueError, "H must be finite"),
        (sp.csr_array(EYE * np.nan), ONE, 1.0, {}, ValueError, "H must be finite"),
        (np.array([[1.0, 2], [3, 4]]), ONE, 1.0, {}, ValueError, "H must be symmetric; got max"),
        (3.0, ONE, 1.0, {}, TypeError, "H must be an array, a sparse matrix or have products"),
    ],
)
def test_unsuitable_arguments(problem, H, g, parameter, options, error, message):
    with pytest.raises(error, match=message):
        SOLVE[problem](H, g, parameter, **options)


@pytest.mark.parametrize(
    ("product", "error", "message"),
    [
        (lambda V: V * np.nan, ValueError, "H @ V must be finite"),
        (lambda V: V[:-1], ValueError, "H @ V must have the shape of V"),
        (lambda V: V * 1j, TypeError, "H must be real; got products of dtype complex128"),
    ],
)
@pytest.mark.parametrize("method", ["exact", "block", "steihaug"])
def test_unsuitable_products(product, error, message, method):
    class Operator:
        def __matmul__(self, V):
            return product(V)

    with pytest.raises(error, match=message):
        trust_region_subproblem(Operator(), np.ones(3), 1.0, method=method, rng=0)


def test_the_shape_of_an_operator_is_checked():
    operator = LinearOperator((3, 3), matvec=lambda v: v, dtype=float)
    with pytest.raises(ValueError, match=r"H must have shape \(2, 2\) for g of 2 entries; got \(3, 3\)"):
        cubic_subproblem(operator, np.ones(2), 1.0)
