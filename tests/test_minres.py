"""MINRES with detection of non-positive curvature: dense solutions and the optimality of each iterate as oracles."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from randla.optimize._minres import minres_npc


def symmetric(eigenvalues, seed=0):
    Q = scipy.stats.ortho_group.rvs(len(eigenvalues), random_state=seed) if len(eigenvalues) > 1 else np.ones((1, 1))
    H = (Q * np.asarray(eigenvalues, float)) @ Q.T
    return (H + H.T) / 2, Q


class Counting:
    def __init__(self, H):
        self.H, self.products = H, 0

    def __matmul__(self, v):
        assert v.shape == (self.H.shape[0],)
        self.products += 1
        return self.H @ v


def passes(H, g, p, tol):
    r, norm = -g - H @ p, np.linalg.norm
    return norm(H @ r) <= tol * norm(H @ p) * norm(H @ g) / norm(g) * (1 + 1e-6)


def krylov_minimizer(H, g, k):
    """argmin ||g + H p|| over the Krylov space of dimension k, by QR."""
    K = np.empty((len(g), k))
    v = g
    for j in range(k):
        K[:, j] = v / np.linalg.norm(v)
        K[:, : j + 1] = np.linalg.qr(K[:, : j + 1])[0]
        v = H @ K[:, j]
    return K @ np.linalg.lstsq(H @ K, -g)[0]


class TestSolutions:
    @pytest.mark.parametrize("d", [1, 2, 5, 40, 200])
    def test_positive_definite(self, d):
        rng = np.random.default_rng(d)
        H, _ = symmetric(np.geomspace(1, 1e4, d), d)
        g = rng.standard_normal(d)
        found = minres_npc(Counting(H), g, tol=1e-12, keep=d)
        assert (found.kind, found.status) == ("SOL", "converged")
        expected = scipy.linalg.solve(H, -g, assume_a="pos")
        np.testing.assert_allclose(found.direction, expected, rtol=0, atol=1e-8 * np.linalg.norm(expected))
        assert found.products <= d + 1
        assert found.curvature > 0

    @pytest.mark.parametrize("keep", [0, 3, 30])
    @pytest.mark.parametrize("tol", [0.5, 0.1, 1e-3, 1e-8])
    def test_tolerance_and_reported_residual(self, tol, keep):
        H, _ = symmetric(np.geomspace(1, 100, 30))
        g = np.random.default_rng(1).standard_normal(30)
        counted = Counting(H)
        found = minres_npc(counted, g, tol=tol, keep=keep)
        p, r = found.direction, -g - H @ found.direction
        assert found.status == "converged"
        assert found.products == counted.products
        assert passes(H, g, p, tol)
        if found.products > 2:  # not later than needed
            assert not passes(H, g, minres_npc(H, g, tol=0.0, maxiter=found.products - 2, keep=keep).direction, tol)
        assert found.residual == pytest.approx(np.linalg.norm(r) / np.linalg.norm(g), rel=1e-6)

    @pytest.mark.parametrize("k", range(1, 9))
    def test_iterates_are_optimal_descent_directions(self, k):
        """The k-th iterate minimizes the residual over the Krylov space, with p'Hp > 0 and g'p <= -p'Hp."""
        H, _ = symmetric(np.geomspace(0.3, 50, 12), 3)
        g = np.random.default_rng(2).standard_normal(12)
        found = minres_npc(H, g, tol=0.0, maxiter=k)
        assert found.status == "iteration-limit"
        np.testing.assert_allclose(found.direction, krylov_minimizer(H, g, k), rtol=1e-9, atol=1e-12)
        p = found.direction
        assert p @ H @ p > 0
        assert g @ p <= -(p @ H @ p)

    def test_iterates_until_curvature_is_negative_too(self):
        """The same on an indefinite matrix, up to the product that shows the negative curvature."""
        eigenvalues = np.r_[-1.0, np.geomspace(1, 10, 11)]
        H, Q = symmetric(eigenvalues, 3)
        g = Q @ np.r_[1e-3, np.ones(11)]
        whole = minres_npc(H, g, tol=0.0)
        assert whole.kind == "NPC"
        assert whole.products > 4
        for k in range(1, whole.products):
            found = minres_npc(H, g, tol=0.0, maxiter=k)
            p = found.direction
            np.testing.assert_allclose(p, krylov_minimizer(H, g, k), rtol=1e-8, atol=1e-11)
            r = -g - H @ p
            assert p @ H @ p > 0
            if k < whole.products - 1:
                assert r @ H @ r > 0
        np.testing.assert_allclose(whole.direction, r, rtol=1e-9, atol=1e-12)

    def test_singular_consistent(self):
        eigenvalues = np.r_[0, 0, 0, np.geomspace(1, 100, 17)]
        H, Q = symmetric(eigenvalues, 5)
        g = Q[:, 3:] @ np.random.default_rng(3).standard_normal(17)
        found = minres_npc(H, g, tol=1e-10)
        assert (found.kind, found.status) == ("SOL", "converged")
        expected = -np.linalg.pinv(H, rcond=1e-10) @ g
        np.testing.assert_allclose(found.direction, expected, atol=1e-8 * np.linalg.norm(expected))

    def test_singular_inconsistent(self):
        """A least-squares solution: H r = 0, where r is the part of -g outside the range."""
        eigenvalues = np.r_[0, 0, np.geomspace(1, 100, 18)]
        H, Q = symmetric(eigenvalues, 6)
        g = Q @ np.random.default_rng(4).standard_normal(20)
        found = minres_npc(H, g, tol=1e-9)
        outside = Q[:, :2] @ (Q[:, :2].T @ -g)
        r = -g - H @ found.direction if found.kind == "SOL" else found.direction
        np.testing.assert_allclose(r, outside, atol=1e-7 * np.linalg.norm(g))
        assert found.residual == pytest.approx(np.linalg.norm(outside) / np.linalg.norm(g))

    @pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
    def test_scale(self, scale):
        H, _ = symmetric(np.geomspace(1, 30, 15))
        g = np.random.default_rng(5).standard_normal(15)
        plain = minres_npc(H, g, tol=1e-8)
        by_gradient, by_matrix = minres_npc(H, scale * g, tol=1e-8), minres_npc(scale * H, g, tol=1e-8)
        np.testing.assert_allclose(by_gradient.direction / scale, plain.direction, rtol=1e-9)
        np.testing.assert_allclose(by_matrix.direction * scale, plain.direction, rtol=1e-9)

    def test_invariant_space(self):
        """g in the span of two eigenvectors: two products."""
        H, Q = symmetric([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 7)
        g = Q[:, 1] + Q[:, 4]
        found = minres_npc(H, g, tol=0.0)
        assert found.status == "converged"
        assert found.products <= 3
        np.testing.assert_allclose(found.direction, -np.linalg.solve(H, g), atol=1e-12)


class TestNegativeCurvature:
    @pytest.mark.parametrize("d", [1, 2, 5, 20, 60, 150])
    def test_random_indefinite(self, d):
        rng = np.random.default_rng(d)
        kinds = set()
        for trial in range(40 if d < 20 else 8):
            eigenvalues = rng.standard_normal(d) + (trial % 4) / 2
            H, _ = symmetric(eigenvalues, trial)
            g = rng.standard_normal(d)
            found = minres_npc(H, g, tol=1e-3, keep=d)
            p = found.direction
            kinds.add(found.kind)
            assert found.status == "converged"
            assert g @ p < 0
            if found.kind == "NPC":
                assert p @ H @ p <= 1e-12 * np.abs(eigenvalues).max() * (p @ p)
                assert g @ p == pytest.approx(-(p @ p), rel=1e-6)
                assert found.residual == pytest.approx(np.linalg.norm(p) / np.linalg.norm(g), rel=1e-8)
                assert found.curvature == pytest.approx((p @ H @ p) / (p @ p), rel=1e-6, abs=1e-10)
            else:
                assert p @ H @ p > 0
                assert passes(H, g, p, 1e-3)
        assert "NPC" in kinds

    def test_is_found_to_tight_tolerance_whenever_it_is_there(self):
        """lambda_min < 0 and g with a part along its eigenvector: no Krylov space that holds it is positive definite."""
        for seed in range(200):
            rng = np.random.default_rng(seed)
            d = int(rng.integers(2, 15))
            H, _ = symmetric(np.r_[-(10.0 ** rng.uniform(-4, 0)), rng.uniform(0.5, 3, d - 1)], seed)
            assert minres_npc(H, rng.standard_normal(d), tol=0.0).kind == "NPC"

    def test_never_reported_for_a_positive_definite_matrix(self):
        for seed in range(100):
            rng = np.random.default_rng(seed)
            d = int(rng.integers(1, 30))
            H, _ = symmetric(np.geomspace(1, 10.0 ** rng.uniform(0, 10), d), seed)
            found = minres_npc(H, rng.standard_normal(d), tol=1e-12)
            assert found.kind == "SOL"
            assert found.status == "converged"

    def test_first_step(self):
        H = np.diag([-1.0, -2.0])
        g = np.array([3.0, 4.0])
        found = minres_npc(H, g)
        assert found.kind == "NPC"
        assert found.products == 1
        assert found.residual == 1
        np.testing.assert_allclose(found.direction, -g, rtol=1e-15)
        assert found.curvature == pytest.approx(-(9 + 32) / 25)

    def test_no_curvature_at_all(self):
        found = minres_npc(np.zeros((3, 3)), np.ones(3))
        assert found.kind == "NPC"
        np.testing.assert_allclose(found.direction, -np.ones(3))
        assert found.curvature == 0

    def test_gradient_outside_the_range(self):
        found = minres_npc(np.diag([1.0, 2.0, 0.0]), np.array([0.0, 0.0, 5.0]))
        assert found.kind == "NPC"
        np.testing.assert_allclose(found.direction, [0, 0, -5])


class TestTrouble:
    def test_zero_gradient(self):
        for d in (0, 4):
            found = minres_npc(np.eye(d), np.zeros(d))
            assert (found.kind, found.status, found.products, found.residual) == ("SOL", "converged", 0, 0.0)
            assert not found.direction.any()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, bad):
        g = np.array([1.0, 2.0, 2.0])
        assert minres_npc(np.eye(3), g * bad).status == "not-finite"
        found = minres_npc(np.full((3, 3), bad), g)
        assert found.status == "not-finite"
        np.testing.assert_allclose(found.direction, -g)

    def test_products_that_become_bad(self):
        class Breaking(Counting):
            def __matmul__(self, v):
                return super().__matmul__(v) * (np.nan if self.products > 3 else 1.0)

        H, _ = symmetric(np.geomspace(1, 10, 10))
        g = np.random.default_rng(0).standard_normal(10)
        found = minres_npc(Breaking(H), g, tol=1e-12)
        assert found.status == "not-finite"
        np.testing.assert_allclose(found.direction, minres_npc(H, g, tol=0.0, maxiter=3).direction)

    def test_no_products_allowed(self):
        found = minres_npc(np.eye(2), np.array([3.0, 4.0]), maxiter=0)
        assert found.status == "iteration-limit"
        np.testing.assert_allclose(found.direction, [-3, -4])

    def test_arguments_are_left_alone(self):
        H, _ = symmetric(np.geomspace(1, 10, 10))
        g = np.random.default_rng(0).standard_normal(10)
        kept = H.copy(), g.copy()
        minres_npc(H, g, tol=1e-10)
        assert np.array_equal(H, kept[0])
        assert np.array_equal(g, kept[1])
