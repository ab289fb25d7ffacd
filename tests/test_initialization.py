"""Low-rank initialization: closed forms by quadrature and Monte Carlo, brute force over subspaces, and the guarantees."""

from itertools import pairwise

import numpy as np
import pytest
from problems import LAYOUTS
from scipy.integrate import quad
from scipy.special import erf
from stats import z_gate

from randla.learn import initialization
from randla.learn._activations import activation_of
from randla.learn.initialization import InitializationStatus, activation_loss, gspectral_init, spectral_init
from randla.learn.result import LearnWarning

FUNCTIONS = {
    "relu": lambda t: np.maximum(t, 0),
    "leaky_relu": lambda t: np.where(t > 0, t, 0.1 * t),
    "erf": erf,
    "linear": lambda t: t,
}
SMOOTH = {
    "tanh": np.tanh,
    "cos": np.cos,
    "sigmoid": lambda t: 1 / (1 + np.exp(-t)),
    "quadratic": lambda t: t * t,
    "against": lambda t: t**3 - 3.5 * t,
}


def gaussian(m, n, rng=0, scale=1.0):
    return scale * np.random.default_rng(rng).standard_normal((m, n))


def init(W, rank, activation="relu", **options):
    return gspectral_init(W, rank, activation, slope=0.1, **options)


def expected_product(s, a, b, rho):
    """E s(a g) s(b g') over a bivariate normal of correlation rho, by nested adaptive quadrature over half-planes."""
    # Polar coordinates: kinks of these activations lie on rays, between which all is smooth.
    angle = np.arccos(rho)

    def radial(t):
        first, second = np.cos(t), np.cos(t - angle)
        inner = lambda r: s(a * r * first) * s(b * r * second) * r * np.exp(-r * r / 2)  # noqa: E731
        return quad(inner, 0, 40, epsabs=1e-12, epsrel=1e-10, limit=200)[0]

    kinks = np.sort(np.mod([np.pi / 2, -np.pi / 2, angle + np.pi / 2, angle - np.pi / 2], 2 * np.pi))
    ends = np.concatenate([[0], kinks, [2 * np.pi]])
    parts = [quad(radial, low, high, epsabs=1e-11, epsrel=1e-9)[0] for low, high in pairwise(ends)]
    return sum(parts) / (2 * np.pi)


def expected_loss(s, w, y):
    a, b = np.linalg.norm(w), np.linalg.norm(y)
    rho = np.clip(w @ y / (a * b), -1, 1)
    return expected_product(s, a, a, 1.0) + expected_product(s, b, b, 1.0) - 2 * expected_product(s, a, b, rho)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("rho", [-0.7, 0.0, 0.6, 0.99])
def test_loss_is_the_integral(name, rho):
    w, y = np.array([[1.3, 0.0]]), 0.7 * np.array([[rho, np.sqrt(1 - rho**2)]])
    loss = activation_loss(w, y, name, slope=0.1)
    assert loss == pytest.approx(expected_loss(FUNCTIONS[name], w[0], y[0]), rel=1e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_loss_is_the_mean_over_samples(name):
    """A z-test with a false-alarm probability of 1e-6; at activations of 9 units and 200,000 samples."""
    W, Y = gaussian(9, 5), gaussian(9, 5, rng=1)
    x = gaussian(200_000, 5, rng=2)
    sample = ((FUNCTIONS[name](x @ W.T) - FUNCTIONS[name](x @ Y.T)) ** 2).sum(axis=1)
    z = (sample.mean() - activation_loss(W, Y, name, slope=0.1)) * np.sqrt(len(sample)) / sample.std()
    z_gate(z, f"mean loss of {name}")


@pytest.mark.parametrize("name", SMOOTH)
def test_quadrature_is_the_mean_over_samples(name):
    W, Y = gaussian(9, 5, scale=0.5), gaussian(9, 5, rng=1, scale=0.5)
    x = gaussian(200_000, 5, rng=2)
    sample = ((SMOOTH[name](x @ W.T) - SMOOTH[name](x @ Y.T)) ** 2).sum(axis=1)
    z = (sample.mean() - activation_loss(W, Y, SMOOTH[name])) * np.sqrt(len(sample)) / sample.std()
    z_gate(z, f"mean loss of {name}")


@pytest.mark.parametrize(("name", "close"), [("erf", 1e-12), ("linear", 1e-12), ("relu", 4e-3), ("leaky_relu", 4e-3)])
def test_quadrature_is_the_closed_form(name, close):
    W, Y = gaussian(20, 6, scale=0.2), gaussian(20, 6, rng=1, scale=0.2)
    by_quadrature = activation_loss(W, Y, FUNCTIONS[name])
    assert by_quadrature == pytest.approx(activation_loss(W, Y, name, slope=0.1), rel=close)
    U, V, info = gspectral_init(W, 2, FUNCTIONS[name])
    closed = init(W, 2, name)[2]
    assert info.relative_loss == pytest.approx(closed.relative_loss, rel=2 * close, abs=1e-5)
    true = activation_loss(W, U @ V.T, name, slope=0.1) / closed.energy
    assert abs(info.relative_loss - true) <= 4 * info.quadrature_error + 1e-12


def test_quadrature_of_functions_that_grow():
    """E exp(w.x) exp(y.x) = exp(|w + y|^2 / 2): what counts are the outer nodes, at rows of norm 3 to 4."""
    W, Y = gaussian(6, 3), gaussian(6, 3, rng=1)
    W, Y = 3.5 * W / np.linalg.norm(W, axis=1)[:, None], 3 * Y / np.linalg.norm(Y, axis=1)[:, None]
    expected = np.sum(
        [np.exp(2 * w @ w) + np.exp(2 * y @ y) - 2 * np.exp((w + y) @ (w + y) / 2) for w, y in zip(W, Y, strict=True)]
    )
    assert activation_loss(W, Y, np.exp) == pytest.approx(expected, rel=1e-11)
    info = gspectral_init(W, 1, np.exp)[2]
    assert info.energy == pytest.approx(np.exp(2 * 3.5**2) * 6, rel=1e-11)
    assert info.quadrature_error < 1e-12


def cosine_loss(W, Y):
    """E cos(w.x) cos(y.x) = (exp(-|w - y|^2 / 2) + exp(-|w + y|^2 / 2)) / 2."""

    def products(A, B):
        return (np.exp(-((A - B) ** 2).sum(axis=1) / 2) + np.exp(-((A + B) ** 2).sum(axis=1) / 2)) / 2

    return (products(W, W) + products(Y, Y) - 2 * products(W, Y)).sum()


def test_what_128_nodes_do_not_resolve_gets_more():
    """Multiples of rows are tried up to four times the largest norm, where 128 nodes see waves that are not there."""
    W = gaussian(12, 8, rng=7)
    U, V, info = gspectral_init(W, 1, np.cos)
    assert info.success
    assert info.quadrature_error < 1e-12
    assert info.loss == pytest.approx(cosine_loss(W, U @ V.T), rel=1e-9)
    Y = 12 * W[::-1] / np.linalg.norm(W[::-1], axis=1)[:, None]
    assert activation_loss(W, Y, np.cos) == pytest.approx(cosine_loss(W, Y), rel=1e-9)


def test_waves_that_nothing_resolves_are_said():
    W = gaussian(12, 8, rng=7, scale=10.0)
    with pytest.warns(LearnWarning, match=r"does not resolve .* Quadrature error"):
        info = gspectral_init(W, 1, np.cos)[2]
    assert info.status is InitializationStatus.UNRESOLVED
    assert not info.success
    assert info.quadrature_error > 0.01
    with pytest.warns(LearnWarning, match="does not resolve"):
        activation_loss(W, W[::-1], np.cos)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9])
def test_loss_keeps_its_digits_at_small_angles(name, angle):
    w = np.array([[2.0, 0.0]])
    y = 2 * np.array([[np.cos(angle), np.sin(angle)]])
    loss = activation_loss(w, y, name, slope=0.1)
    # E (w - y).x ^2 s'(w.x)^2 to first order; the component of x along w is independent of the one across.
    slopes = {
        "relu": 0.5,
        "leaky_relu": 0.5 * (1 + 0.1**2),
        "linear": 1.0,
        "erf": 4 / np.pi / np.sqrt(1 + 4 * 4),  # E s'(2g)^2
    }
    expected = slopes[name] * (2 * angle) ** 2
    assert loss == pytest.approx(expected, rel=2 * angle + 1e-9, abs=4e-16 if name == "erf" else 0)


def best_multiple(w, v, name):
    """min over real multiples c of the loss of c v against w, on a grid of c that is refined."""
    a = np.linalg.norm(w)
    low, high = -1.5 * a, 1.5 * a
    for _ in range(5):
        c = np.linspace(low, high, 25)
        y = c[:, None] * v
        losses = [activation_loss(w[None], row[None], name, slope=0.1) for row in y]
        best, step = c[int(np.argmin(losses))], c[1] - c[0]
        low, high = best - 1.5 * step, best + 1.5 * step
    return min(losses)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "erf"])
def test_closed_form_rows_are_the_best_of_their_line(name):
    """The brute force moves along the line and both ways; the closed form knows the answer."""
    for rng in range(6):
        w, v = gaussian(1, 4, rng=rng)[0], gaussian(1, 4, rng=rng + 100)[0]
        v /= np.linalg.norm(v)
        assert best_on_line(w, v, name) == pytest.approx(best_multiple(w, v, name), rel=1e-6)


def best_on_line(w, v, name):
    act = activation_of(name, 0.1)
    a, p = np.array([np.linalg.norm(w)]), np.array([abs(w @ v) / np.linalg.norm(w)])
    return float((act.energy(a) - act.best(a, p).gain)[0])


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "erf"])
@pytest.mark.parametrize(("m", "n"), [(3, 2), (6, 2), (3, 3)])
def test_brute_force_over_lines(name, m, n):
    """Rank one: every line on a grid, with the best multiple of each row."""
    W = gaussian(m, n, rng=m)
    info = init(W, 1, name, tol=1e-9, starts=3, rng=0)[2]

    def total(t):
        v = np.array([np.cos(t[0]), np.sin(t[0])]) if n == 2 else None
        if n == 3:
            v = np.array([np.cos(t[0]) * np.cos(t[1]), np.sin(t[0]) * np.cos(t[1]), np.sin(t[1])])
        return sum(best_on_line(w, v, name) for w in W)

    side = np.linspace(0, np.pi, 181)
    points = [(t,) for t in side] if n == 2 else [(t, u) for t in side[::3] for u in side[::3]]
    least = min(total(t) for t in points)
    assert info.loss <= least + 1e-12
    assert info.loss >= least - 5e-3 * info.energy


@pytest.mark.parametrize("activation", [*FUNCTIONS, *SMOOTH])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (25, 25)])
def test_never_worse_than_spectral_and_monotone(activation, shape):
    W = gaussian(*shape, rng=3, scale=0.3)
    chosen = SMOOTH.get(activation, activation)
    for rank in (1, 4, 15):
        U, V, info = init(W, rank, chosen)
        P, Q, spectral = spectral_init(W, rank)
        assert U.shape == (shape[0], rank)
        assert V.shape == (shape[1], rank)
        own = activation_loss(W, U @ V.T, chosen, slope=0.1)
        other = activation_loss(W, P @ Q.T, chosen, slope=0.1)
        assert own == pytest.approx(info.loss, rel=1e-9)
        assert other == pytest.approx(info.spectral_loss, rel=1e-9)
        assert info.loss <= info.spectral_loss
        losses = [entry["relative_loss"] for entry in info.history]
        assert (np.diff(losses) <= 0).all()
        assert spectral.status is InitializationStatus.SPECTRAL
        if activation in FUNCTIONS:
            assert info.status in (InitializationStatus.CONVERGED, InitializationStatus.SPECTRAL)


@pytest.mark.parametrize("activation", [*FUNCTIONS, *SMOOTH])
@pytest.mark.parametrize("shape", [(12, 7), (7, 12)])
def test_full_rank_gives_zero(activation, shape):
    W = gaussian(*shape)
    chosen = SMOOTH.get(activation, activation)
    U, V, info = init(W, 7, chosen)
    assert info.status is InitializationStatus.EXACT
    assert np.abs(W - U @ V.T).max() <= 1e-13
    assert info.relative_loss <= 1e-15


def test_linear_is_the_svd():
    W = gaussian(40, 25)
    s = np.linalg.svd(W, compute_uv=False)
    for U, V, info in (spectral_init(W, 6), gspectral_init(W, 6, "linear"), gspectral_init(W, 6, "leaky_relu", slope=1.0)):
        assert np.linalg.norm(W - U @ V.T) == pytest.approx(np.sqrt((s[6:] ** 2).sum()), rel=1e-12)
        assert info.loss == pytest.approx((s[6:] ** 2).sum(), rel=1e-12)
        assert info.relative_spectral_loss == pytest.approx(info.relative_loss, rel=1e-12)
        assert np.abs(U.T @ U - np.diag(s[:6])).max() <= 1e-12
        assert np.abs(V.T @ V - np.diag(s[:6])).max() <= 1e-12


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-9])
def test_singular_values_of_every_size(spread):
    """Small ones go to LAPACK's SVD, large ones to the eigenvalues of W'W; the answer is that of an SVD either way."""
    rng = np.random.default_rng(0)
    P, Q = np.linalg.qr(rng.standard_normal((90, 60)))[0], np.linalg.qr(rng.standard_normal((60, 60)))[0]
    s = np.concatenate([np.geomspace(1, spread, 8), 0.5 * spread * np.geomspace(1, 0.1, 52)])
    W = (P * s) @ Q.T
    for A in (W, W.T):
        U, V, _ = spectral_init(A, 8)
        assert np.linalg.norm(A - U @ V.T) == pytest.approx(np.linalg.norm(s[8:]), rel=1e-5)


def test_large_matrices_are_decomposed_at_random(monkeypatch):
    """As those beyond 2,000 rows and columns are: within 1e-6 of the smallest loss of a flat spectrum, and replayed."""
    W = gaussian(300, 400)
    s = np.linalg.svd(W, compute_uv=False)
    monkeypatch.setattr(initialization, "_LARGE", 200)
    U, _, info = spectral_init(W, 6)
    assert 0 <= info.loss / (s[6:] ** 2).sum() - 1 <= 1e-6
    again, _, _ = spectral_init(W, 6, rng=info.seed)
    assert (again == U).all()
    better = gspectral_init(W, 6, rng=0)[2]
    assert better.loss < better.spectral_loss


def test_published_values():
    """256 x 256, rank 5: spectral .829, generalized power method .787 (own measurements, to the scatter between matrices)."""
    infos = [gspectral_init(gaussian(256, 256, rng=rng), 5)[2] for rng in range(3)]
    assert np.mean([info.relative_spectral_loss for info in infos]) == pytest.approx(0.829, abs=0.002)
    assert max(info.relative_loss for info in infos) <= 0.787
    wider = gspectral_init(gaussian(256, 256), 25)[2]
    assert wider.relative_loss == pytest.approx(0.5817, abs=0.003)


def test_gap_grows_with_width():
    """m = n^1.5, rank 2, entries N(0, 1/n): the gap of the rescaling alone is .087 to 46.3 for n = 8 to 128."""
    expected = {8: 0.087, 16: 0.72, 32: 3.26, 64: 13.1, 128: 46.3}
    gaps = []
    for n, gap in expected.items():
        infos = [gspectral_init(gaussian(int(n**1.5), n, rng=rng, scale=n**-0.5), 2)[2] for rng in range(4 if n < 64 else 1)]
        rescaled = np.mean([info.spectral_loss - info.history[0]["relative_loss"] * info.energy for info in infos])
        assert rescaled == pytest.approx(gap, rel=0.6 if n == 8 else 0.15)
        gaps.append(np.mean([info.spectral_loss - info.loss for info in infos]))
        assert gaps[-1] >= rescaled
    assert (np.diff(gaps) > 0).all()
    # Towards 1 / (2 pi^2) = .0507 for each row as the share of the rank falls.
    assert 0.03 < gaps[-1] / 128**1.5 < 0.0507


def test_random_starts_replay_and_never_hurt():
    W = gaussian(30, 20, rng=5)
    alone = init(W, 2)[2]
    U, _, info = init(W, 2, starts=5, rng=7)
    again, _, other = init(W, 2, starts=5, rng=info.seed)
    assert (again == U).all()
    assert other.start == info.start
    assert info.loss <= alone.loss * (1 + 1e-12)
    assert info.seed == 7


def test_random_start_can_win():
    found = []
    for rng in range(40):
        W = gaussian(4, 3, rng=rng)
        found.append(init(W, 1, starts=4, rng=rng)[2])
    assert any(info.start > 0 and info.loss < info.spectral_loss for info in found)


def test_units_do_not_matter():
    W = gaussian(20, 12)
    U, V, info = gspectral_init(W, 3)
    for exponent in (600, -600):
        P, Q, other = gspectral_init(np.ldexp(W, exponent), 3)
        assert (np.ldexp(U, exponent // 2) == P).all()
        assert (np.ldexp(V, exponent // 2) == Q).all()
        assert other.relative_loss == info.relative_loss
    size = np.logspace(-100, 100, 20)[:, None]
    for name in ("relu", "erf"):
        scaled = gspectral_init(W * size, 3, name)[2]
        assert scaled.relative_loss <= scaled.relative_spectral_loss
        assert np.isfinite(scaled.relative_loss)


@pytest.mark.parametrize("layout", ["C", "F", "strided", "read-only", "integers", "float32"])
def test_layouts(layout):
    W = np.rint(4 * gaussian(25, 16))
    expected = gspectral_init(W, 3)[2].relative_loss
    given = {
        "C": W,
        "F": np.asfortranarray(W),
        "strided": np.repeat(W, 2, axis=1)[:, ::2],
        "read-only": W.copy(),
        "integers": W.astype(np.int32),
        "float32": W.astype(np.float32),
    }[layout]
    given.flags.writeable = layout != "read-only"
    U, V, info = gspectral_init(given, 3)
    assert U.dtype == V.dtype == (np.float32 if layout == "float32" else np.float64)
    assert info.relative_loss == pytest.approx(expected, rel=1e-6 if layout == "float32" else 1e-12)
    assert info.relative_loss <= info.relative_spectral_loss


@pytest.mark.parametrize("activation", ["relu", "erf", "linear", np.tanh])
def test_degenerate_matrices(activation):
    zero = gspectral_init(np.zeros((5, 4)), 2, activation)
    assert not (zero[0] @ zero[1].T).any()
    assert zero[2].loss == 0
    W = gaussian(6, 5)
    W[2] = 0
    U, _, info = gspectral_init(W, 2, activation)
    assert U[2] == pytest.approx(0, abs=1e-12)
    assert info.relative_loss <= info.relative_spectral_loss
    line = gspectral_init(np.outer(np.arange(1.0, 6), np.arange(1.0, 4)), 1, activation)[2]
    assert line.relative_loss <= 1e-12
    row = gspectral_init(W[:1], 1, activation)[2]
    assert row.status is InitializationStatus.EXACT


def test_rows_across_the_subspace_get_a_constant():
    """To max(w.x, 0) the best answer of a direction orthogonal to w is its mean over that: |w| / pi times the direction."""
    W = np.array([[10.0, 0.0], [10.0, 0.0], [0.0, 1.0]])
    U, V, info = gspectral_init(W, 1)
    assert np.linalg.norm((U @ V.T)[2]) == pytest.approx(1 / np.pi, rel=1e-12)
    assert info.loss == pytest.approx(0.5 * (1 - 1 / np.pi**2), rel=1e-12)


def test_iteration_limit_is_said():
    with pytest.warns(LearnWarning, match="iteration limit"):
        info = gspectral_init(gaussian(50, 40), 3, maxiter=3)[2]
    assert info.status is InitializationStatus.ITERATION_LIMIT
    assert not info.success
    assert info.relative_loss < info.relative_spectral_loss


def test_tolerance_of_zero_ends_in_rounding():
    info = gspectral_init(gaussian(30, 20), 3, tol=0.0, maxiter=5000)[2]
    assert info.status is InitializationStatus.ROUNDING
    assert info.stationarity < 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda W: gspectral_init(W[0], 1), ValueError, "W must have 2 dimensions"),
        (lambda W: gspectral_init(W[:0], 1), ValueError, "at least one row"),
        (lambda W: gspectral_init(W, 0), ValueError, "rank must be between 1 and 4"),
        (lambda W: gspectral_init(W, 5), ValueError, "rank must be between 1 and 4"),
        (lambda W: gspectral_init(W, 2.0), TypeError, "rank must be an integer"),
        (lambda W: gspectral_init(W, 2, "swish"), ValueError, "activation must be a function or one of"),
        (lambda W: gspectral_init(W, 2, lambda t: t[0]), ValueError, "activation must map"),
        (lambda W: gspectral_init(W, 2, lambda t: t + 0j), ValueError, "activation must map"),
        (lambda W: gspectral_init(W, 2, lambda t: 1 / (t - t)), ValueError, "activation must be finite"),
        (lambda W: gspectral_init(W, 2, slope=np.nan), ValueError, "slope must be finite"),
        (lambda W: gspectral_init(W, 2, tol=-1), ValueError, "tol must be finite"),
        (lambda W: gspectral_init(W, 2, maxiter=0), ValueError, "maxiter must be at least 1"),
        (lambda W: gspectral_init(W, 2, starts=-1), ValueError, "starts must be between 0"),
        (lambda W: gspectral_init(W, 2, rng="x"), TypeError, "rng must be"),
        (lambda W: gspectral_init(W + 0j, 2), TypeError, "W must be real"),
        (lambda W: gspectral_init(np.where(W > 0, np.nan, W), 2), ValueError, "W must be finite"),
        (lambda W: gspectral_init(1.7e308 * np.sign(W), 2, "erf"), ValueError, "norms are finite"),
        (lambda W: gspectral_init(LAYOUTS["CSR"](W), 2), TypeError, "W must be a dense array"),
        (lambda W: activation_loss(W, W[1:]), ValueError, "Y must have the shape of W"),
    ],
)
def test_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(gaussian(6, 4))
