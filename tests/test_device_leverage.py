"""Leverage scores of arrays of a device, which a strict stand-in for CuPy plays where there is none."""

import warnings

import fake_cupy
import numpy as np
import pytest
import scipy.sparse as sp
from leverage_oracles import EPS, basis, by_svd, check, check_deficient, decaying, full, generic, oracle
from problems import badly_scaled, coherent, haar, rank_deficient
from test_leverage import stepped
from test_leverage_sketch import REFUSED

from randla import _leverage
from randla._numeric import norms
from randla._row_map import RowMap
from randla.leverage import coherence, cross_leverage, effective_dimension, leverage_scores
from randla.result import LeverageWarning

pytestmark = pytest.mark.usefixtures("one_blas_thread")

DTYPES = [np.float64, np.float32, np.complex128, np.complex64]
LAYOUTS = {
    "C": lambda A: A,
    "F": lambda A: A.T.copy().T,
    "strided": lambda A: A.repeat(2, axis=0).repeat(3, axis=1)[::2, ::3],
    "reversed": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
}
# With every route: a sketch and its correction, QR of few rows per column, the transpose of a wide matrix.
SHAPES = [(600, 8), (40, 8), (8, 40)]
OPTIONS = ({}, {"rank": 3}, {"method": "sketch"}, {"method": "sketch", "rank": 3, "rtol": 1e-6})


def fetched(cupy, A, **options):
    """The result of the device, with its scores on the host."""
    options = {name: cupy.asarray(value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
    result = full(A if isinstance(A, cupy.ndarray) else cupy.asarray(A), **options)
    assert isinstance(result.scores, cupy.ndarray)
    assert all(isinstance(value, float) for value in (result.effective_dimension, result.cond, result.relative_error))
    object.__setattr__(result, "scores", result.scores.get())
    return result


@pytest.mark.parametrize("m", [400, 60], ids=["tall", "short"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_of_every_layout_and_type(cupy, layout, dtype, m):
    n = 13
    A = generic(m, n, dtype)
    given, weights = LAYOUTS[layout](cupy.asarray(A)), np.random.default_rng(1).random(m) * (np.arange(m) % 5 > 0)
    A = A.astype(np.result_type(A, np.float64))
    check(fetched(cupy, given), oracle(A), n, tolerance=1e-11)
    check(fetched(cupy, given, ridge=1e4), oracle(A, 1e4), n, tolerance=1e-11)
    check(fetched(cupy, given, weights=weights), oracle(A, weights=weights), n, tolerance=1e-11)
    check(fetched(cupy, given, rank=4), by_svd(A, rank=4), 4, tolerance=1e-9)
    assert np.all(np.abs(fetched(cupy, given, method="sketch", rtol=0.5).scores / oracle(A) - 1) < 0.5)
    found = fetched(cupy, given, weights=weights, method="sketch", rtol=0.5)
    np.testing.assert_array_equal(found.scores[weights == 0], 0)


@pytest.mark.parametrize("shape", [(250, 13), (60, 13), (13, 60)])
@pytest.mark.parametrize("number", [np.float64, np.float32, np.complex128])
def test_sparse_matrices(cupy, number, shape):
    import cupyx.scipy.sparse

    A = generic(*shape, number)
    A[np.random.default_rng(2).random(shape) < 0.6] = 0
    A[:13, :13] += np.eye(13).astype(number)
    given, w = cupyx.scipy.sparse.csr_matrix(sp.csr_array(A)), np.arange(shape[0]) % 3.0
    A = A.astype(np.result_type(A, np.float64))
    weighted = A * np.sqrt(w)[:, None]

    def found(**options):
        return leverage_scores(given, rng=1, **options).get()

    np.testing.assert_allclose(found(), by_svd(A), rtol=1e-9)
    np.testing.assert_allclose(found(weights=cupy.asarray(w)), by_svd(weighted), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(found(ridge=1e3), by_svd(A, 1e3), rtol=1e-9)
    np.testing.assert_allclose(found(rank=3), by_svd(A, rank=3), rtol=1e-8)
    np.testing.assert_allclose(found(method="sketch", rtol=0.5), by_svd(A), rtol=0.5)
    if shape[0] > shape[1]:
        pairs = cupy.asarray(np.arange(40).reshape(20, 2))
        expected = cross_leverage(A, pairs.get(), rng=1)
        np.testing.assert_allclose(cross_leverage(given, pairs, rng=1).get(), expected, atol=1e-11)


@pytest.mark.parametrize("cond", [1e4, 1e8, 1e11, 1e14])
@pytest.mark.parametrize("m", [3000, 200], ids=["tall", "short"])
def test_error_is_that_of_a_qr_factorization(cupy, m, cond):
    rng = np.random.default_rng(2)
    n = 20
    A = (haar(m, n, rng) * np.logspace(0, -np.log10(cond), n)) @ haar(n, n, rng).T
    truth, result = oracle(A), fetched(cupy, A)
    error = np.max(np.abs(result.scores / truth - 1))
    householder = np.max(np.abs(norms(np.linalg.qr(A)[0]) ** 2 / truth - 1))
    assert error <= max(20 * cond * EPS, 4 * householder)
    assert error <= 10 * result.relative_error
    assert result.rank == n
    assert result.scores.sum() == pytest.approx(n, abs=1e-9)
    assert cond / 20 < result.cond <= 2 * cond


@pytest.mark.parametrize("number", [float, complex])
@pytest.mark.parametrize("m", [3000, 200], ids=["tall", "short"])
def test_scores_of_a_numerically_singular_matrix_sum_to_its_rank(cupy, m, number):
    rng = np.random.default_rng(3)
    A = (haar(m, 20, rng) * np.logspace(0, -20, 20)) @ haar(20, 20, rng).T
    if number is complex:
        A = A * np.exp(2j * rng.random((m, 1)))
    result = fetched(cupy, A)
    assert 12 < result.rank < 20
    # Complex scores are those of the upper half of the real matrix, whose rounding is not that of the lower one.
    assert result.scores.sum() == pytest.approx(result.rank, abs=1e-9 if number is float else 1e-3)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (1, 4), (5, 1), (1, 0)])
@pytest.mark.parametrize("method", ["auto", "exact", "sketch"])
def test_smallest_shapes(cupy, shape, method):
    for A in (np.full(shape, 3.0), np.full(shape, 3.0 + 1j)):
        result = fetched(cupy, A, method=method)
        check(result, np.full(shape[0], 1 / max(shape[0], 1) if A.size else 0.0), min(1, A.size))
        assert coherence(cupy.asarray(A)) == pytest.approx(result.scores.max(initial=0.0))
        assert effective_dimension(cupy.asarray(A), 0.0) == pytest.approx(min(1, A.size))


@pytest.mark.parametrize("ridge", [0.0, 1e3])
@pytest.mark.parametrize("method", ["exact", "sketch"])
@pytest.mark.parametrize("shape", SHAPES)
def test_zero_matrix_has_zero_scores(cupy, shape, method, ridge):
    result = fetched(cupy, np.zeros(shape), method=method, ridge=ridge)
    assert not result.scores.any()
    assert result.effective_dimension == pytest.approx(0, abs=1e-12)
    if not ridge:
        result = fetched(cupy, np.zeros(shape), method=method, rank=2)
        assert not result.scores.any()
        assert result.rank == 0


@pytest.mark.parametrize("method", ["exact", "sketch"])
@pytest.mark.parametrize("m", [3000, 100], ids=["tall", "short"])
@pytest.mark.parametrize("kind", ["product", "duplicate", "zero"])
def test_rank_deficient(cupy, kind, m, method):
    A, _ = rank_deficient(kind, m, 12, 8)
    A[7:11] = 0
    truth = by_svd(A, rank=8)
    for given in (A, A * (1 + 1j)):
        result = fetched(cupy, given, method=method)
        check_deficient(result, truth, 8, exact=method == "exact" or m == 100)
        assert not result.scores[7:11].any()


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("options", [{}, {"ridge": 3.0}, {"rank": 2}, {"method": "sketch"}], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_scaled_rows(cupy, shape, options, dtype):
    A, rng = generic(*shape, dtype), np.random.default_rng(6)
    w = rng.random(shape[0]) * 10.0 ** rng.integers(-4, 4, shape[0])
    w[1:3] = 0
    A[:, 2] = 0
    found = fetched(cupy, A, weights=w, **options)
    truth = full(A * np.sqrt(w)[:, None], **options).scores
    tolerance = 0.5 if "method" in options and shape[0] == 600 else 1e-7
    np.testing.assert_allclose(found.scores, truth, rtol=tolerance, atol=1e-12)
    assert not found.scores[1:3].any()


def test_huge_rows_of_weight_zero_are_nothing(cupy):
    A, w = generic(600, 8), np.ones(600)
    A[5], w[5] = 1e300, 0
    truth = np.insert(by_svd(np.delete(A, 5, axis=0)), 5, 0)
    np.testing.assert_allclose(fetched(cupy, A, weights=w).scores, truth, rtol=1e-10)
    np.testing.assert_allclose(fetched(cupy, A, weights=w, method="sketch").scores, truth, rtol=0.25)


def test_rows_that_carry_a_direction_alone(cupy):
    A = coherent(5000, 10)[0]
    np.testing.assert_allclose(fetched(cupy, A).scores, by_svd(A), rtol=1e-6, atol=1e-14)
    assert coherence(cupy.asarray(A), rng=1) == pytest.approx(by_svd(A).max())


@pytest.mark.parametrize("method", ["exact", "sketch"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_columns_of_any_size(cupy, method, dtype):
    A, _, scale = badly_scaled(3000, 9, 150 if dtype == np.float64 else 14)
    A = A.astype(dtype)
    truth = by_svd(A / scale)
    found = fetched(cupy, A, method=method).scores
    np.testing.assert_allclose(found, truth, rtol=1e-11 if method == "exact" else 0.25)
    np.testing.assert_allclose(fetched(cupy, A[:60], method=method).scores, by_svd((A / scale)[:60]), rtol=1e-11)


@pytest.mark.parametrize("size", [1e-305, 1e-200, 1e200])
@pytest.mark.parametrize(
    "options", [{}, {"rank": 3}, {"method": "sketch"}, {"method": "sketch", "rank": 3, "rtol": 1e-6}], ids=str
)
def test_matrix_of_any_size(cupy, options, size):
    if size == 1e-305 and "rank" in options:
        size = 1e-200
    # Integers, so that numbers near the smallest keep their digits.
    A = np.rint(generic(2000, 8) * 1e3)
    for given in (A * size, (A * size)[:60]):
        result = fetched(cupy, given, **options)
        tolerance = 0.25 if options == {"method": "sketch"} else 1e-6
        np.testing.assert_allclose(result.scores, by_svd(A[: len(given)], rank=options.get("rank")), rtol=tolerance)
        assert result.rank == options.get("rank", 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(20, 30), (20, 900)])
def test_wide(cupy, shape, layout, dtype):
    A = generic(*shape, dtype)
    given, w = LAYOUTS[layout](cupy.asarray(A)), np.arange(20) % 3.0
    A = A.astype(np.result_type(A, np.float64))
    for method in ("auto", "sketch"):
        np.testing.assert_array_equal(fetched(cupy, given, method=method).scores, 1.0)
        np.testing.assert_array_equal(fetched(cupy, given, weights=w, method=method).scores, w > 0)
        np.testing.assert_allclose(fetched(cupy, given, ridge=1e5, method=method).scores, by_svd(A, 1e5), rtol=1e-10)
    check(fetched(cupy, given, rank=3), by_svd(A, rank=3), 3, tolerance=1e-8)
    assert effective_dimension(given, 1e5) == pytest.approx(by_svd(A, 1e5).sum(), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(500, 30), (100, 30), (30, 100)])
def test_rank_k_with_a_gap(cupy, shape, dtype):
    sigma = np.linspace(1, 0.5, 30) * np.where(np.arange(30) < 5, 1, 0.1)
    A, U = stepped(max(shape), 30, sigma, dtype)
    if shape[0] < shape[1]:
        A, U = A.conj().T, np.linalg.svd(A.conj().T)[0]
    truth = np.sum(np.abs(U[:, :5]) ** 2, axis=1)
    check(fetched(cupy, A, rank=5), truth, 5, tolerance=1e-9)
    result = fetched(cupy, A, rank=5, method="sketch", rtol=1e-3)
    np.testing.assert_allclose(result.scores, truth, atol=1e-3 * truth.max())
    assert result.gap == pytest.approx(1 - sigma[5] / sigma[4], rel=1e-2)


def test_scores_without_a_gap_are_not_given_in_silence(cupy):
    A, _ = stepped(2000, 10, np.ones(10))
    with pytest.warns(LeverageWarning, match="Singular values 4 and 5 differ by"):
        leverage_scores(cupy.asarray(A), rank=4, rng=1)


@pytest.mark.parametrize("rtol", [0.5, 0.25])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sketched_scores_have_the_error_that_was_asked_for(cupy, rtol, dtype):
    rng = np.random.default_rng(12)
    A = (rng.standard_normal((8000, 40)) * rng.gamma(0.5, size=(8000, 1))) @ haar(40, 40, rng)
    A = (A + 1j * A[::-1] if np.dtype(dtype).kind == "c" else A).astype(dtype)
    truth = by_svd(A.astype(np.result_type(A, np.float64)))
    result = fetched(cupy, A, method="sketch", rtol=rtol)
    ratio = result.scores / truth
    assert np.all(np.abs(ratio - 1) <= rtol)
    assert rtol / 12 < np.std(ratio) < rtol / 4
    assert result.passes == 2
    # The same sketch as the host's: what is left is rounding, in float32 where that is enough.
    expected = full(A, method="sketch", rtol=rtol).scores
    np.testing.assert_allclose(result.scores, expected, rtol=rtol / 20 if np.dtype(dtype).itemsize < 16 else 1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex64])
def test_random_projection_of_many_columns_keeps_the_error(cupy, dtype):
    rng = np.random.default_rng(15)
    A = rng.standard_normal((2500, 300)) * rng.gamma(0.5, size=(2500, 1))
    A = A.astype(dtype)
    ratio = fetched(cupy, A, method="sketch", rtol=3.0).scores / by_svd(A.astype(np.result_type(A, np.float64)))
    assert np.all(ratio < 4)
    assert 0.1 < np.std(ratio) < 0.4
    assert np.mean(ratio) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("number", [np.float64, np.complex128])
def test_few_effective_dimensions_among_many_columns(cupy, number, monkeypatch):
    monkeypatch.setattr(_leverage, "LARGE_N", 300)
    monkeypatch.setattr("randla.leverage.LARGE_N", 300)
    A, ridge = decaying(1000, 400, number=number), 1e4
    A[::2] *= 1e-2
    A[::2] += 3 * np.random.default_rng(1).standard_normal((500, 400))
    truth = by_svd(A, ridge)
    result = fetched(cupy, A, ridge=ridge, rtol=0.5)
    assert result.method == "sketch"
    assert np.all(np.abs(result.scores / truth - 1) < 0.5)
    assert np.mean((result.scores / truth)[::2]) == pytest.approx(1, abs=0.03)
    assert effective_dimension(cupy.asarray(A), ridge, rng=2) == pytest.approx(truth.sum(), rel=0.05)


@pytest.mark.parametrize("number", [np.float64, np.complex128])
def test_effective_dimension(cupy, number):
    A = decaying(3000, 120, number=number)
    for given in (A, A[:80]):
        for ridge in (1e2, 1e5):
            truth = by_svd(given, ridge).sum()
            assert effective_dimension(cupy.asarray(given), ridge) == pytest.approx(truth, rel=1e-10)
            found = effective_dimension(cupy.asarray(given), ridge, method="sketch", rtol=0.3, rng=0)
            assert found == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize("ridge", [0.0, 200.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_leverage_is_the_projection(cupy, dtype, ridge):
    m = 300
    A = generic(m, 6, dtype)
    weights = np.random.default_rng(16).random(m) * (np.arange(m) % 4 > 0)
    pairs = np.random.default_rng(17).integers(0, m, (40, 2))
    B = A.astype(np.result_type(A, np.float64))
    for w in (None, weights):
        Q = basis(B if w is None else B * np.sqrt(w)[:, None], ridge)
        given = None if w is None else cupy.asarray(w)
        found = cross_leverage(cupy.asarray(A), cupy.asarray(pairs), ridge=ridge, weights=given, rng=1)
        assert isinstance(found, cupy.ndarray)
        assert found.dtype == B.dtype
        np.testing.assert_allclose(found.get(), (Q @ Q.conj().T).astype(B.dtype)[*pairs.T], atol=1e-11)
    assert cross_leverage(cupy.ones((9, 0)), cupy.asarray(pairs[:3] % 9)).get().tolist() == [0, 0, 0]


@pytest.mark.parametrize("options", [{}, {"ridge": 2.0}, {"rank": 3}, {"weights": 3000}, {"method": "sketch"}], ids=str)
@pytest.mark.parametrize("number", [np.float64, np.complex128])
def test_nothing_as_long_as_the_rows_crosses(cupy, options, number):
    m, n = 3000, 12
    given = cupy.asarray(generic(m, n, number))
    if "weights" in options:
        options = {"weights": cupy.ones(m)}
    fake_cupy.TRANSFERS.clear()
    leverage_scores(given, rng=1, **options)
    assert fake_cupy.TRANSFERS
    # Of a complex matrix every number is two by two.
    assert max(max(shape, default=1) for shape in fake_cupy.TRANSFERS) <= 2 * n
    # Sixteen waits for each of the two ends of a condition number, of which there are two.
    assert len(fake_cupy.TRANSFERS) <= 80
    # The factor stays where it is, unless its singular values are asked for.
    assert sum(min(shape, default=0) >= n for shape in fake_cupy.TRANSFERS if len(shape) == 2) == ("rank" in options)


def test_waits_do_not_grow_with_the_blocks_of_rows(cupy, monkeypatch):
    given, counts = cupy.asarray(generic(3000, 12)), []
    for block in (1 << 24, 12 * 256):
        monkeypatch.setattr("randla._backend.DEVICE_BLOCK", block)
        for method in ("exact", "sketch"):
            fake_cupy.TRANSFERS.clear()
            scores = leverage_scores(given, rng=1, method=method).get()
            counts.append(len(fake_cupy.TRANSFERS))
            np.testing.assert_allclose(scores, by_svd(given.get()), rtol=1e-10 if method == "exact" else 0.25)
    assert counts[:2] == counts[2:]


def test_blocks_of_rows_make_no_difference(cupy, monkeypatch):
    """By QR, and of images that are orthonormal to a few digits only."""
    rng = np.random.default_rng(1)
    steep = (haar(1000, 12, rng) * 10.0 ** -np.arange(12)) @ haar(12, 12, rng).T
    monkeypatch.setattr("randla._backend.DEVICE_BLOCK", 12 * 50)
    for A in (generic(140, 12), steep):
        result = fetched(cupy, A)
        np.testing.assert_allclose(result.scores, oracle(A), rtol=result.relative_error)
        assert result.scores.sum() == pytest.approx(12, rel=1e-9)


def test_number_of_passes(cupy):
    A = generic(3000, 12)
    for options, passes in (({}, 3), ({"ridge": 2.0}, 3), ({"rank": 3}, 3), ({"method": "sketch"}, 2)):
        assert fetched(cupy, A, **options).passes == passes
    # By QR: sizes of columns first.
    assert fetched(cupy, A[:100]).passes == 3


def test_maps_of_rows_of_any_size(cupy):
    # The smallest numbers are multiplied by scales which the map cannot take in.
    rng = np.random.default_rng(0)
    T, rows = rng.standard_normal((5, 3)), np.rint(rng.standard_normal((7, 5)) * 1e4)
    for exponent, single in ((1000, False), (100, True), (20, True), (0, True), (0, False)):
        mapped = RowMap(T, np.full(5, 2.0**exponent)).on_device(cupy.zeros(1), single)
        found = mapped.images(cupy.asarray(rows * 2.0**-exponent)).get()
        assert found.dtype == (np.float32 if single and exponent < 30 else np.float64)
        np.testing.assert_allclose(found, rows @ T, rtol=1e-12 if found.dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"method": "sketch"}, {"ridge": 1.0}], ids=str)
def test_same_seeds_give_the_same_bits(cupy, options):
    for A in (generic(3000, 9), generic(3000, 9, complex)):
        first = fetched(cupy, A, **options)
        again = fetched(cupy, A, **{**options, "rng": first.seed})
        np.testing.assert_array_equal(first.scores, again.scores)


@pytest.mark.parametrize(("error", "message", "options"), REFUSED, ids=[message for _, message, _ in REFUSED])
def test_unsuitable_options_are_refused(cupy, error, message, options):
    options = {name: cupy.asarray(value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
    with pytest.raises(error, match=message):
        leverage_scores(cupy.ones((20, 4)), **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "options", [{}, {"ridge": 2.0}, {"rank": 3}, {"method": "sketch"}, {"method": "sketch", "rank": 3}], ids=str
)
@pytest.mark.parametrize("number", [np.float64, np.complex128])
def test_entries_that_are_not_finite_are_refused(cupy, options, bad, number):
    for shape in SHAPES:
        A = generic(*shape, number)
        A[shape[0] - 2, 3] = bad
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "invalid value", RuntimeWarning)
            with pytest.raises(ValueError, match=r"A must be .*got NaN or infinite entries"):
                leverage_scores(cupy.asarray(A), rng=1, **options)


def test_arrays_of_host_and_device_do_not_mix(cupy):
    A, w = generic(40, 3), np.ones(40)
    both = "must all be on the host or all on the device; got"
    with pytest.raises(TypeError, match=rf"A and weights {both} cupy\.ndarray, numpy\.ndarray"):
        leverage_scores(cupy.asarray(A), weights=w)
    with pytest.raises(TypeError, match=rf"A and weights {both} numpy\.ndarray, cupy\.ndarray"):
        coherence(A, weights=cupy.asarray(w))
    with pytest.raises(TypeError, match=rf"A and pairs {both} cupy\.ndarray, builtins\.list"):
        cross_leverage(cupy.asarray(A), [[0, 1]])
    with pytest.raises(TypeError, match=rf"A and pairs {both} numpy\.ndarray, cupy\.ndarray"):
        cross_leverage(A, cupy.asarray(np.array([[0, 1]])))


def test_unsuitable_pairs_are_refused(cupy):
    A = cupy.ones((20, 4))
    for pairs, error, message in (
        ([[0.0, 1.0]], TypeError, "pairs must be integers; got dtype float64"),
        ([[0, 1, 2]], ValueError, r"pairs must have shape \(k, 2\)"),
        ([[0, 20]], ValueError, "from 0 to 19; got 0 to 20"),
    ):
        with pytest.raises(error, match=message):
            cross_leverage(A, cupy.asarray(np.array(pairs)))
    with pytest.raises(ValueError, match=r"at least as many rows as columns; got shape \(4, 20\)"):
        cross_leverage(A.T, cupy.asarray(np.array([[0, 1]])))
