"""Step models: what they keep after a rejected step, what they see of the spectrum, and trouble in the products."""

import numpy as np
import pytest

from randla.optimize import _krylov
from randla.optimize._descent import GradientModel
from randla.optimize._krylov import BlockLanczosModel, EigenModel, LanczosModel
from randla.optimize._shifted import ShiftedModel
from randla.optimize._steihaug import SteihaugModel

RADII = 10.0 ** np.arange(2, -4, -0.5)
SIGMAS = 10.0 ** np.arange(-3, 3, 0.5)


class Counted:
    """Products counted by column; NaN from column `broken` on."""

    def __init__(self, H, broken=np.inf):
        self.H, self.broken, self.count = H, broken, 0

    def __matmul__(self, V):
        self.count += 1 if V.ndim == 1 else V.shape[1]
        return self.H @ V * (np.nan if self.count > self.broken else 1.0)


def problem(d, kind, seed):
    rng = np.random.default_rng(seed)
    w = np.sort(rng.uniform(-1, 1, d))
    if kind == "definite":
        w = (w + 1.2) / 2
    V = np.linalg.qr(rng.standard_normal((d, d)))[0]
    g = rng.standard_normal(d)
    if kind == "hard":
        g -= V[:, 0] * (V[:, 0] @ g)
    H = (V * w) @ V.T
    return (H + H.T) / 2, g, w, V


MODELS = {
    "eigen": lambda H, g: EigenModel(H.H, g),
    "lanczos": LanczosModel,
    "loose lanczos": lambda H, g: LanczosModel(H, g, tol=0.3),
    "certain": lambda H, g: LanczosModel(H, g, certain=True, seed=1),
    "block": lambda H, g: BlockLanczosModel(H, g, np.ones(len(g))),
    "steihaug": SteihaugModel,
    "shifted": ShiftedModel,
    "gradient": lambda H, g: GradientModel(H, g, seed=1),
}
KINDS = ("indefinite", "definite", "hard")


def require_model(step, H, g, sigma=None):
    """The numbers of a step, recomputed."""
    n = np.linalg.norm(step.s)
    quadratic = -(g @ step.s + step.s @ H @ step.s / 2)
    assert step.norm == pytest.approx(n, rel=1e-10)
    assert step.quadratic_decrease == pytest.approx(quadratic, rel=1e-9, abs=1e-13)
    assert step.decrease == pytest.approx(quadratic - (sigma / 3 * n**3 if sigma else 0), rel=1e-9, abs=1e-13)
    rest = np.linalg.norm(H @ step.s + step.multiplier * step.s + g)
    assert step.residual == pytest.approx(rest / max(np.linalg.norm(g), step.multiplier * n), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "gradient"])
def test_a_smaller_radius_takes_no_products(name, kind):
    H, g, w, _ = problem(24, kind, 1)
    counted = Counted(H)
    model = MODELS[name](counted, g)
    decreases = []
    for i, radius in enumerate(RADII):
        before = counted.count
        step = model.trust_region(radius, grow=i == 0)
        assert counted.count == before or i == 0
        assert step.norm <= radius * (1 + 1e-14)
        require_model(step, H, g)
        assert step.curvature >= w[0] - 1e-12
        decreases.append(step.decrease)
    assert np.all(np.diff(decreases) <= 1e-12 * decreases[0])
    assert decreases[-1] > 0
    assert model.products == (24 if name == "eigen" else counted.count)
    again = model.trust_region(RADII[0], grow=False)
    assert again.decrease == pytest.approx(decreases[0], rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "steihaug"])
def test_a_larger_sigma_takes_no_products(name, kind):
    H, g, w, _ = problem(24, kind, 2)
    counted = Counted(H)
    model = MODELS[name](counted, g)
    decreases = []
    for i, sigma in enumerate(SIGMAS):
        before = counted.count
        step = model.cubic(sigma, grow=i == 0)
        assert counted.count == before or i == 0
        require_model(step, H, g, sigma)
        # Of a Galerkin step, whatever the space: lambda = sigma ||s||.
        assert step.multiplier == pytest.approx(sigma * step.norm, rel=1e-12)
        assert step.curvature >= w[0] - 1e-12
        decreases.append(step.decrease)
    assert np.all(np.diff(decreases) <= 1e-12 * decreases[0])
    assert decreases[-1] > 0


@pytest.mark.parametrize("d", [1, 2, 7, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_models_agree_at_full_dimension(kind, d):
    """All but those that a single Krylov space blinds in the hard case, which the last test below is about."""
    H, g, _, _ = problem(d, kind, 3)
    if d == 1:
        g = np.ones(1)
    exact = EigenModel(H, g)
    for radius in (0.1, 3.0, 50.0):
        best = exact.trust_region(radius)
        for model in (
            LanczosModel(H, g, tol=1e-13, certain=True),
            BlockLanczosModel(H, g, np.ones(d), tol=1e-13, certain=True),
        ):
            step = model.trust_region(radius)
            assert step.decrease == pytest.approx(best.decrease, rel=1e-10)
            assert step.converged
            assert model.trust_region(radius, grow=False).decrease == step.decrease
        if kind == "definite":
            inside = SteihaugModel(H, g, tol=1e-12, maxiter=3 * d).trust_region(1e3)
            np.testing.assert_allclose(inside.s, np.linalg.solve(H, -g), rtol=1e-8)
            cut = SteihaugModel(H, g).trust_region(radius)
            assert cut.decrease >= best.decrease / 2
            shifted = ShiftedModel(H, g).trust_region(radius)
            assert shifted.decrease == pytest.approx(best.decrease, rel=1e-4)
    for sigma in (0.05, 1.0, 20.0):
        best = exact.cubic(sigma)
        for model in (
            LanczosModel(H, g, tol=1e-13, certain=True),
            BlockLanczosModel(H, g, np.ones(d), tol=1e-13, certain=True),
        ):
            assert model.cubic(sigma).decrease == pytest.approx(best.decrease, rel=1e-10)
        if kind == "definite":
            assert ShiftedModel(H, g).cubic(sigma).decrease == pytest.approx(best.decrease, rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_lowest_is_a_ritz_pair(name):
    H, g, w, V = problem(16, "indefinite", 4)
    counted = Counted(H)
    model = MODELS[name](counted, g)
    if name != "eigen":
        value, vector = model.lowest()
        assert np.isnan(value)
        assert not vector.any()
        step = model.cubic(1.0, grow=False) if name == "gradient" else model.trust_region(1.0, grow=False)
        assert not step.s.any()
        assert step.decrease == counted.count == 0
        assert not step.converged
    _ = model.cubic(1.0) if name == "gradient" else model.trust_region(1.0)
    value, vector = model.lowest()
    assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-12)
    assert vector @ H @ vector == pytest.approx(value, rel=1e-10)
    assert value >= w[0] - 1e-14
    if name in ("eigen", "certain"):
        assert value == pytest.approx(w[0], abs=1e-10)
        assert abs(vector @ V[:, 0]) == pytest.approx(1, abs=1e-8)


def test_block_gives_the_leftmost_pair_that_the_gradient_does_not_see():
    """The hard case: half of the products that a second run would take, and the Ritz vector serves the next model."""
    H, g, w, _ = problem(200, "hard", 5)
    alone = LanczosModel(H, g, tol=1e-6)
    alone.trust_region(100.0)
    block = BlockLanczosModel(H, g, np.random.default_rng(0).standard_normal(200), tol=1e-6)
    step = block.trust_region(100.0)
    best = EigenModel(H, g).trust_region(100.0)
    assert step.decrease == pytest.approx(best.decrease, rel=1e-4)
    assert block.lowest()[0] == pytest.approx(w[0], abs=1e-3)
    warm = BlockLanczosModel(H, g, block.lowest()[1], tol=1e-6)
    assert warm.trust_region(100.0).decrease == pytest.approx(best.decrease, rel=1e-4)
    assert warm.products <= block.products


def test_dependent_directions_are_dropped():
    H, g, _, _ = problem(12, "indefinite", 6)
    alone, block = LanczosModel(H, g, tol=1e-13), BlockLanczosModel(H, g, -3 * g, tol=1e-13)
    np.testing.assert_allclose(block.trust_region(1.0).s, alone.trust_region(1.0).s, rtol=1e-12)
    assert block.products == alone.products
    projector = np.diag(np.r_[np.ones(3), np.zeros(9)])
    model = BlockLanczosModel(projector, g, np.ones(12), tol=1e-13)
    model.trust_region(1.0)
    assert model.dim <= 4
    same = EigenModel(projector, g).trust_region(1.0)
    np.testing.assert_allclose(model.trust_region(1.0).s, same.s, rtol=1e-12, atol=1e-14)


def test_an_invariant_space_is_left_only_if_asked():
    H, g, w, _ = problem(9, "hard", 7)
    g = np.linalg.eigh(H)[1][:, 5]
    local = LanczosModel(H, g).trust_region(2.0)
    assert local.converged
    assert local.curvature == pytest.approx(w[5], abs=1e-12)
    found = LanczosModel(H, g, certain=True, seed=3).trust_region(2.0)
    assert found.hard_case
    assert found.decrease == pytest.approx(EigenModel(H, g).trust_region(2.0).decrease, rel=1e-10)
    zero = LanczosModel(H, np.zeros(9)).trust_region(2.0)
    assert not zero.s.any()
    assert zero.converged
    down = LanczosModel(H, np.zeros(9), certain=True, seed=3).trust_region(2.0)
    assert down.decrease == pytest.approx(-2 * w[0], rel=1e-9)


@pytest.mark.parametrize("broken", [0, 1, 2, 3, 6])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "eigen"])
def test_products_that_are_not_finite(name, broken):
    """The step is that of what was known before, and the model says that it failed."""
    H, g, _, _ = problem(20, "definite", 8)
    if name == "loose lanczos":
        broken = min(broken, 1)
    model = MODELS[name](Counted(H, broken), g)
    step = model.cubic(1e-3) if name == "gradient" else model.trust_region(50.0)
    assert model.failed
    assert not step.converged
    assert np.isfinite(step.s).all()
    require_model(step, H, g, 1e-3 if name == "gradient" else None)
    assert step.decrease > 0 or broken < (2 if name == "block" else 1)


def test_the_dimension_is_limited():
    H, g, _, _ = problem(40, "indefinite", 9)
    model = LanczosModel(H, g, tol=1e-12, maxdim=5)
    step = model.trust_region(10.0)
    assert model.dim == model.products == 5
    assert not step.converged
    require_model(step, H, g)


def test_a_basis_grows_past_its_first_allocation_and_stays_orthonormal():
    H, g, w, _ = problem(300, "indefinite", 10)
    H = H @ H @ H * 1e3
    model = BlockLanczosModel(H, g, np.ones(300), tol=1e-14)
    model.trust_region(1e3)
    Q = model._basis.Q[:, : model.dim]
    assert model.dim > 64
    np.testing.assert_allclose(Q.T @ Q, np.eye(model.dim), atol=1e-13)
    assert model.lowest()[0] == pytest.approx(1e3 * w[0] ** 3, rel=1e-10)


def test_steihaug_follows_negative_curvature_to_the_boundary():
    H, g = np.diag([1.0, -1.0]), np.array([0.0, 1.0])
    model = SteihaugModel(H, g)
    for radius in (2.0, 1.0, 5.0):
        step = model.trust_region(radius)
        np.testing.assert_allclose(step.s, [0, -radius])
        assert step.boundary
        assert step.multiplier == pytest.approx(1 + 1 / radius)
    assert model.products == 1


@pytest.mark.parametrize("size", [1e-160, 1e160])
def test_steihaug_at_extreme_ratios(size):
    """A radius far above or below the gradient, whose squares leave the range of numbers."""
    H, g = np.diag([1.0, -1.0]), np.array([0.6, 0.8])
    step = SteihaugModel(H, g * size).trust_region(1.0)
    # g'Hg < 0: the whole way along -g.
    np.testing.assert_allclose(step.s, -g, rtol=1e-14)
    assert step.decrease == pytest.approx(size + 0.14, rel=1e-12)
    assert step.multiplier == pytest.approx(0.28 + size, rel=1e-12)


def test_shifts_can_be_chosen():
    """One shift at the multiplier of the exact minimizer gives that minimizer."""
    H, g, _, _ = problem(30, "indefinite", 11)
    best = EigenModel(H, g).trust_region(1.0)
    step = ShiftedModel(H, g, shifts=[best.multiplier], tol=1e-12).trust_region(1.0)
    np.testing.assert_allclose(step.s, best.s, rtol=1e-9)


def test_failure_of_lapack_is_not_hidden(monkeypatch):
    monkeypatch.setattr(_krylov, "dsyevd", lambda A, lower: (np.zeros(2), np.eye(2), 1))
    with pytest.raises(np.linalg.LinAlgError, match=r"dsyevd did not converge \(info = 1\)"):
        EigenModel(np.eye(2), np.ones(2))
