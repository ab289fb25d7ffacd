"""Sampled rows of arrays of a device, which a strict stand-in for CuPy plays where there is none, against those of the host."""

from fractions import Fraction

import fake_cupy
import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from stats import chi_square_gate
from test_sampling import importance, inclusion_probabilities, leverage, matrix, options, row_uniforms

import randla
from randla._device_draws import Law, running_sums, uniform_numbers
from randla.sampling import coordinated_sketch, fkv, sample_dpp, sample_rows, sketched_matmul

pytestmark = pytest.mark.usefixtures("one_blas_thread")

DEVICE = ("uniform", "leverage", "ridge", "squared-norm", "poisson", "priority")
LAYOUTS = {
    "C": lambda A: A,
    "F": lambda A: A.T.copy().T,
    "strided": lambda A: A.repeat(2, axis=0).repeat(3, axis=1)[::2, ::3],
}


def drawn(cupy, A, k, **options):
    """A sample made on the device and the same of the host, where a random number would have to be within 1e-15 of the border
    between two rows for them to differ."""
    w = options.pop("weights", None)
    found = sample_rows(cupy.asarray(A), k, weights=None if w is None else cupy.asarray(w), **options)
    for part, dtype in ((found.indices, np.int64), (found.weights, np.float64), (found.probabilities, np.float64)):
        assert isinstance(part, cupy.ndarray)
        assert part.dtype == dtype
    return found, sample_rows(A, k, weights=w, **options)


def assert_same(found, expected, rtol=1e-9):
    np.testing.assert_array_equal(found.indices.get(), expected.indices)
    np.testing.assert_allclose(found.weights.get(), expected.weights, rtol=rtol)
    np.testing.assert_allclose(found.probabilities.get(), expected.probabilities, rtol=rtol, atol=1e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("scheme", DEVICE)
def test_rows_are_those_of_the_host(cupy, scheme, dtype):
    A = matrix(300, 5, dtype).astype(dtype)
    w = np.random.default_rng(1).uniform(0, 4, 300)
    w[::7] = 0
    for seed in (0, 2**64 - 1):
        assert_same(*drawn(cupy, A, 40, scheme=scheme, rng=seed, **options(scheme)))
    assert_same(*drawn(cupy, A, 40, scheme=scheme, weights=w, rng=3, **options(scheme)))
    assert_same(*drawn(cupy, A, 40, scheme=scheme, defensive=0.25, rng=4, **options(scheme)))


@pytest.mark.parametrize("scheme", DEVICE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(cupy, scheme, layout):
    A = matrix(300, 6, complex)
    given = LAYOUTS[layout](cupy.asarray(A))
    for a, b in ((A, given), (A.real, given.real)):
        expected = sample_rows(a, 40, scheme=scheme, rng=11, **options(scheme))
        found = sample_rows(b, 40, scheme=scheme, rng=11, **options(scheme))
        assert_same(found, expected)
        np.testing.assert_allclose(found.take(b).get(), expected.take(a), rtol=1e-9)
        np.testing.assert_allclose(found.take(b[:, 0]).get(), expected.take(a[:, 0]), rtol=1e-9)


@pytest.mark.parametrize("scheme", DEVICE)
@pytest.mark.parametrize("number", [float, complex])
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_sparse_matrices(cupy, scheme, form, number):
    import cupyx.scipy.sparse

    A = matrix(300, 6, number)
    A[np.random.default_rng(0).random(A.shape) < 0.4] = 0
    given = getattr(cupyx.scipy.sparse, f"{form}_matrix")(sp.csr_array(A))
    for w in (None, np.arange(300) % 3.0):
        on = None if w is None else cupy.asarray(w)
        found = sample_rows(given, 40, scheme=scheme, weights=on, rng=11, **options(scheme))
        expected = sample_rows(A, 40, scheme=scheme, weights=w, rng=11, **options(scheme))
        assert_same(found, expected)
        taken = found.take(given)
        assert isinstance(taken, cupyx.scipy.sparse.csr_matrix)
        np.testing.assert_allclose(taken.toarray().get(), expected.take(A), rtol=1e-8)


@pytest.mark.parametrize("scheme", DEVICE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_importance_of_each_row_may_be_given(cupy, scheme, dtype):
    scores = np.random.default_rng(0).lognormal(2, 1.5, 500).astype(dtype)
    scores[::9] = 0
    for k in (1, 60, 460, 600):
        found, expected = drawn(cupy, scores, k, scheme=scheme, rng=k, **options(scheme))
        assert_same(found, expected, rtol=1e-13)


def test_definition_of_the_draws(cupy):
    A = matrix(80, 4)
    for scheme in ("uniform", "leverage", "squared-norm"):
        p = importance(A, scheme)
        found = sample_rows(cupy.asarray(A), 300, scheme=scheme, rng=5)
        entries = oracles.row_sample_entries(300, 80, 5, None if scheme == "uniform" else p / p.sum())
        assert found.indices.get().tolist() == [column for _, column, _ in entries]
    found = sample_rows(cupy.asarray(A), 20, scheme="poisson", rng=6)
    inclusion = inclusion_probabilities(leverage(A), 20)
    np.testing.assert_array_equal(found.indices.get(), np.flatnonzero(row_uniforms(80, 6) < inclusion))


@pytest.mark.parametrize("count", [0, 1, 255, 256, 1000])
def test_random_numbers_have_the_bits_of_those_of_the_host(cupy, count):
    for seed in (0, 12345, 2**64 - 1):
        np.testing.assert_array_equal(uniform_numbers(cupy.zeros(1), count, 12, seed).get(), row_uniforms(count, seed))


def exact_sums(x):
    parts, total = [], Fraction(0)
    for value in x:
        total += Fraction(float(value))
        parts.append(total / Fraction(float(x.max())))
    return parts


@pytest.mark.parametrize("kind", ["flat", "wide", "tiny and huge", "subnormal", "one"])
def test_running_sums_are_rounded_once_and_never_decrease(cupy, kind):
    rng = np.random.default_rng(0)
    x = {
        "flat": np.full(3000, 1 / 3),
        "wide": rng.lognormal(0, 8, 3000),
        "tiny and huge": np.where(np.arange(3000) % 50 == 0, 1e300, 1e300 * 2.0**-55 * rng.random(3000)),
        "subnormal": 5e-324 * rng.integers(0, 100, 3000),
        "one": np.array([0.3]),
    }[kind]
    sums = running_sums(cupy.asarray(x)).get()
    assert (np.diff(sums) >= 0).all()
    # A number in units of the largest is itself rounded.
    for found, exact in zip(sums, exact_sums(x), strict=True):
        assert abs(Fraction(found) - exact) <= Fraction(2.0**-52) * exact + Fraction(2.0**-90)


def test_sums_do_not_depend_on_the_order_of_additions(cupy):
    x = np.random.default_rng(1).lognormal(0, 4, 2000)
    forward, backward = running_sums(cupy.asarray(x)).get(), running_sums(cupy.asarray(x[::-1].copy())).get()
    assert forward[-1] == backward[-1]


def test_draws_never_meet_rows_of_importance_zero(cupy):
    for numbers in ([0, 0, 1, 0], [1, 0, 0], [0, 0, 3, 1e-30, 0], [2.0**-70, 1, 2.0**-70]):
        law = Law(cupy.asarray(np.array(numbers, float)))
        u = np.array([0, 2.0**-53, 0.5, 1 - 2.0**-53])
        assert (np.array(numbers)[law.draw(cupy.asarray(u)).get()] > 0).all()


def test_draws_have_their_law(cupy):
    # Chi-square with a false-alarm probability of 1e-6; the seed is fixed.
    p = np.random.default_rng(2).lognormal(0, 1, 200)
    p /= p.sum()
    N = int(np.ceil(25 / p.min()))
    found = sample_rows(cupy.asarray(p), N, rng=7).indices.get()
    chi_square_gate(np.bincount(found, minlength=200), p, "draws on a device")


@pytest.mark.parametrize("scheme", DEVICE)
def test_weights_make_sums_unbiased(cupy, scheme):
    """Of 20 samples the mean lies within what their spread allows: 6 standard errors, 2e-5 for each of 9 numbers."""
    A = matrix(2000, 3)
    exact, given = A.T @ A, cupy.asarray(A)
    grams = []
    for seed in range(20):
        rows = sample_rows(given, 200, scheme=scheme, rng=seed, **options(scheme)).take(given).get()
        grams.append(rows.T @ rows)
    error = np.abs(np.mean(grams, axis=0) - exact)
    assert (error <= 6 * np.std(grams, axis=0, ddof=1) / np.sqrt(20) + 1e-9 * np.abs(exact)).all()


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e-160, 1e-30, 1e150, 1e200, 1e307])
@pytest.mark.parametrize("weight", [1.0, 1e-300, 1e300])
def test_squared_norms_of_any_size(cupy, size, weight):
    # Integers, so that numbers near the smallest keep their digits.
    A = np.random.default_rng(3).integers(-9, 10, (200, 4)).astype(float)
    A[50] = 0
    w = np.random.default_rng(4).uniform(0.5, 2, 200)
    for given in (A, A + 1j * A[::-1]):
        squares = np.sum(np.abs(given) ** 2, axis=1)
        for v in (None, w):
            row_weights = None if v is None else v * weight
            expected = sample_rows(squares if v is None else squares * v, 60, weights=row_weights, rng=1)
            more = {"scheme": "squared-norm", "rng": 1}
            with np.errstate(over="ignore"):
                on = None if v is None else cupy.asarray(row_weights)
                assert_same(sample_rows(cupy.asarray(given * size), 60, weights=on, **more), expected)
                if 1e-300 < size < 1e300:
                    host = sample_rows(given * size, 60, weights=row_weights, **more)
                    np.testing.assert_array_equal(host.indices, expected.indices)


def test_a_huge_row_of_weight_zero_does_not_hide_the_others(cupy):
    A, w = matrix(100, 4), np.ones(100)
    A[3], w[3] = 1e200, 0
    A[10] = 1e-200
    found, expected = drawn(cupy, A, 30, scheme="squared-norm", weights=w, rng=1)
    assert_same(found, expected)
    assert 3 not in found.indices.get()


@pytest.mark.parametrize("scheme", DEVICE)
def test_smallest_samples(cupy, scheme):
    one = np.full((1, 3), 2.0)
    found, expected = drawn(cupy, one, 1, scheme=scheme, rng=0, **options(scheme))
    assert_same(found, expected)
    assert "SampledRows(1 of 1 rows" in repr(found)
    idx, w = found
    assert idx is found[0]
    assert w is found[1]


def test_sampled_least_squares(cupy):
    rng = np.random.default_rng(0)
    m, n = 20_000, 20
    A = rng.standard_normal((m, n))
    A[:40] *= 1_000
    b = A @ np.ones(n) + rng.standard_normal(m)
    b[40:] += 20 * rng.standard_normal(m - 40)
    on, right = cupy.asarray(A), cupy.asarray(b)
    idx, w = randla.sample_rows(on, 600, scheme="leverage", rng=0)
    result = randla.lstsq(on[idx], right[idx], weights=w, rng=0)
    assert isinstance(result.x, cupy.ndarray)
    best = np.linalg.norm(b - A @ np.linalg.lstsq(A, b)[0])
    assert np.linalg.norm(b - A @ result.x.get()) < 1.1 * best
    host = randla.sample_rows(A, 600, scheme="leverage", rng=0)
    np.testing.assert_array_equal(idx.get(), host.indices)
    expected = randla.lstsq(A[host.indices], b[host.indices], weights=host.weights, rng=0).x
    np.testing.assert_allclose(result.x.get(), expected, rtol=1e-9)


@pytest.mark.parametrize("scheme", DEVICE)
def test_nothing_as_long_as_the_rows_crosses(cupy, scheme):
    m, k = 3000, 150
    given = cupy.asarray(matrix(m, 6))
    fake_cupy.TRANSFERS.clear()
    sample_rows(given, k, scheme=scheme, rng=1, **options(scheme))
    assert not [shape for shape in fake_cupy.TRANSFERS if max(shape, default=0) >= k]
    assert len(fake_cupy.TRANSFERS) <= (0 if scheme == "uniform" else 80)


def test_same_seeds_give_the_same_bits(cupy):
    given = cupy.asarray(matrix(500, 6))
    for scheme in DEVICE:
        first = sample_rows(given, 50, scheme=scheme, **options(scheme))
        again = sample_rows(given, 50, scheme=scheme, rng=first.seed, **options(scheme))
        for a, b in zip((*first, first.probabilities), (*again, again.probabilities), strict=True):
            np.testing.assert_array_equal(a.get(), b.get())


@pytest.mark.parametrize("scheme", ["leverage", "ridge", "squared-norm", "poisson", "priority"])
def test_unsuitable_matrices(cupy, scheme):
    more = options(scheme)
    with pytest.raises(ValueError, match="A must have a row that is not zero"):
        sample_rows(cupy.zeros((30, 3)), 5, scheme=scheme, **more)
    with pytest.raises(ValueError, match="A must have a row that is not zero"):
        sample_rows(cupy.zeros((30, 0)), 5, scheme=scheme, **more)
    with pytest.raises(ValueError, match="A must have a row that is not zero"):
        sample_rows(cupy.ones((30, 3)), 5, scheme=scheme, weights=cupy.zeros(30), **more)
    with pytest.raises(ValueError, match="A must have rows to draw from"):
        sample_rows(cupy.zeros((0, 3)), 5, scheme=scheme, **more)
    for bad in (np.nan, np.inf):
        A = matrix(40, 3)
        A[7, 1] = bad
        for w in (None, cupy.asarray(np.arange(40) != 7.0)):
            with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="A must be finite"):
                sample_rows(cupy.asarray(A), 5, scheme=scheme, weights=w, **more)


def test_unsuitable_scores(cupy):
    for bad, message in (
        ([1.0, -2.0], "not be negative; got -2"),
        ([0.0, 0.0], "not all be zero"),
        ([1, np.nan], "be finite"),
    ):
        with pytest.raises(ValueError, match=f"scores must {message}"):
            sample_rows(cupy.asarray(np.array(bad)), 3)
    with pytest.raises(TypeError, match="scores must be real"):
        sample_rows(cupy.ones(4, np.complex128), 3)


def test_arrays_of_host_and_device_do_not_mix(cupy):
    A, w = matrix(40, 3), np.ones(40)
    both = "must all be on the host or all on the device; got"
    for a, b, names in (
        (cupy.asarray(A), w, r"cupy\.ndarray, numpy\.ndarray"),
        (A, cupy.asarray(w), r"numpy\.ndarray, cupy\.ndarray"),
    ):
        for scheme in DEVICE:
            with pytest.raises(TypeError, match=f"A and weights {both} {names}"):
                sample_rows(a, 5, scheme=scheme, weights=b, **options(scheme))
    with pytest.raises(TypeError, match=f"A and indices {both}"):
        sample_rows(cupy.asarray(A), 5, rng=0).take(A)
    with pytest.raises(TypeError, match=f"A and indices {both}"):
        sample_rows(A, 5, rng=0).take(cupy.asarray(A))


def test_what_stays_on_the_host(cupy):
    A = cupy.asarray(abs(matrix(40, 3)))
    for scheme, k in (("volume", 5), ("dpp", 2), ("dpp", None)):
        for given in (A, A[:, 0]):
            with pytest.raises(
                TypeError, match=rf"A must be on the host for scheme '{scheme}'; got cupy\.ndarray, for uniform"
            ):
                sample_rows(given, k, scheme=scheme)
    for call in (
        lambda: sample_dpp(A),
        lambda: fkv(A, 2),
        lambda: randla.sampling.LengthSquaredTree(A),
        lambda: coordinated_sketch(A, 3),
        lambda: sketched_matmul(A, A.T, 3),
        lambda: randla.sketch_preconditioner(A),
    ):
        with pytest.raises(TypeError, match=r"must be a numpy array; got cupy\.ndarray"):
            call()
