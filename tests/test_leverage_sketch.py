"""Sketched leverage scores and their laws, passes and seeds, what follows from scores, arguments that are refused."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from leverage_oracles import FORMS, basis, by_svd, cut, decaying, full, generic
from problems import haar
from scipy.sparse.linalg import LinearOperator
from stats import z_gate
from test_determinism import digest, distinct_over_threads

import randla
from randla import _cpu, _leverage
from randla.leverage import coherence, cross_leverage, effective_dimension, leverage_scores

pytestmark = pytest.mark.usefixtures("one_blas_thread")


@pytest.fixture(autouse=True)
def _restore_threads():
    before = _cpu.max_threads()
    yield
    randla.set_num_threads(before)


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(12)
    A = rng.standard_normal((20_000, 100)) * rng.gamma(0.5, size=(20_000, 1))
    A = A @ (haar(100, 100, rng) * np.logspace(0, 3, 100))
    return A, by_svd(A)


@pytest.mark.parametrize("rtol", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("form", ["C", "CSR", "list of blocks"])
def test_sketched_scores_have_the_error_that_was_asked_for(form, rtol, many):
    A, truth = many
    result = full(FORMS[form](A), method="sketch", rtol=rtol)
    ratio = result.scores / truth
    assert np.all(np.abs(ratio - 1) <= rtol)
    # Of m numbers of one chi-square law the largest deviation is four to five times the standard one: no work was wasted.
    assert rtol / 12 < np.std(ratio) < rtol / 4
    assert result.relative_error == rtol
    assert result.passes == 2
    assert result.rank == 100
    # The mean over n directions of a ratio with this deviation.
    assert result.scores.sum() == pytest.approx(100, rel=rtol / 10)


@pytest.mark.parametrize("form", ["C", "CSR"])
def test_sketched_scores_are_unbiased(form):
    """Sums over seeds, also where the rows of the sketch are not few beside those of A."""
    for m in (1500, 6000):
        A = generic(m, 40, seed=13)
        given = FORMS[form](A)
        sums = np.array([leverage_scores(given, method="sketch", rng=seed).sum() for seed in range(20)])
        # A matter of a few percent without the correction; sums differ by half a percent from seed to seed.
        assert abs(sums.mean() / 40 - 1) < 0.01
        # ... and 20 of them by what 19 degrees of freedom allow.
        z_gate((sums.mean() - 40) / max(np.std(sums, ddof=1) / np.sqrt(20), 0.004 * 40), f"mean of {m} rows")


@pytest.mark.parametrize("ridge", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize("form", ["C", "CSR"])
def test_sketched_ridge_scores_are_right_for_strong_and_for_weak_rows(form, ridge):
    # Rows along weak directions have no bias to take off, those along strong ones have: one factor for all would be wrong.
    rng = np.random.default_rng(14)
    m, n = 12_000, 200
    A = rng.standard_normal((m, n)) * np.repeat([10.0, 0.1], n // 2)
    A[: m // 2, : n // 2] *= 1e-3
    truth, scores = by_svd(A, ridge), full(FORMS[form](A), method="sketch", ridge=ridge).scores
    ratio = scores / truth
    assert np.all(np.abs(ratio - 1) <= 0.25)
    for part in (slice(0, m // 2), slice(m // 2, m)):
        assert np.mean(ratio[part]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("form", ["C", "CSR"])
def test_random_projection_of_many_columns_keeps_the_error(form):
    rng = np.random.default_rng(15)
    A = rng.standard_normal((12_000, 300)) * rng.gamma(0.5, size=(12_000, 1))
    ratio = full(FORMS[form](A), method="sketch", rtol=3.0).scores / by_svd(A)
    assert np.all(ratio < 4)
    # The sketch alone, of 1,200 rows or more, would spread them by five percent.
    assert 0.1 < np.std(ratio) < 0.4
    assert np.mean(ratio) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("rtol", [1e-2, 1e-6, 1e-15, 1e-300, 10.0, 1e300])
def test_any_error_may_be_asked_for(rtol):
    A = generic(1500, 10)
    for options in ({}, {"ridge": 100.0}):
        scores = full(A, method="sketch", rtol=rtol, **options).scores
        np.testing.assert_allclose(scores, by_svd(A, options.get("ridge", 0.0)), rtol=max(min(rtol, 1), 1e-11))
    assert effective_dimension(A, 100.0, method="sketch", rtol=rtol) == pytest.approx(
        by_svd(A, 100.0).sum(), rel=max(min(rtol, 1), 1e-11)
    )


@pytest.mark.parametrize("number", [np.float64, np.complex128])
@pytest.mark.parametrize("form", ["C", "F", "CSR", "operator", "list of blocks"])
def test_few_effective_dimensions_among_many_columns(form, number, monkeypatch):
    # As beyond 5,000 columns, where nothing of the size n x n is made.
    monkeypatch.setattr(_leverage, "LARGE_N", 300)
    monkeypatch.setattr("randla.leverage.LARGE_N", 300)
    A, ridge = decaying(1200, 500, number=number), 1e4
    A[::2] *= 1e-2
    A[::2] += 3 * np.random.default_rng(1).standard_normal((600, 500))
    truth = by_svd(A, ridge)
    result = full(FORMS[form](A), ridge=ridge, rtol=0.5)
    assert result.method == "sketch"
    assert np.all(np.abs(result.scores / truth - 1) < 0.5)
    # Half of the rows have hardly any weight along strong directions, where alone a sketch is biased, here by 20 percent.
    assert np.mean((result.scores / truth)[::2]) == pytest.approx(1, abs=0.03)
    assert result.scores.sum() == pytest.approx(truth.sum(), rel=0.03)
    assert result.effective_dimension == pytest.approx(truth.sum(), rel=0.05)
    assert effective_dimension(FORMS[form](A), ridge, rng=2) == pytest.approx(truth.sum(), rel=0.05)


@pytest.mark.slow
def test_wide_sparse_with_seven_thousand_columns():
    rng = np.random.default_rng(10)
    m, n = 1200, 7000
    A = sp.random_array((m, n), density=2e-3, rng=rng, format="lil", data_sampler=lambda size: rng.standard_normal(size=size))
    A[:, :40] = (rng.random((m, 40)) < 0.05) * rng.standard_normal((m, 40)) * 100
    A = A.tocsr()
    ridge = 1e4
    K = (A @ A.T).toarray()
    truth = 1 - ridge * np.linalg.inv(K + ridge * np.eye(m)).diagonal()
    result = full(A, ridge=ridge, method="sketch")
    assert 40 < truth.sum() < 100
    assert np.all(np.abs(result.scores / truth - 1) < 0.25)
    assert effective_dimension(A, ridge, rng=1) == pytest.approx(truth.sum(), rel=0.05)


# Passes, seeds, threads


class Readings:
    """A source that starts anew, and counts."""

    def __init__(self, blocks):
        self.blocks, self.count = blocks, 0

    def __iter__(self):
        self.count += 1
        yield from self.blocks


def counted(A):
    calls = []

    def product(name, M):
        def apply(X):
            calls.append(name)
            return M @ X

        return apply

    return calls, LinearOperator(
        A.shape,
        matvec=product("A", A),
        rmatvec=product("A'", A.T),
        matmat=product("A", A),
        rmatmat=product("A'", A.T),
        dtype=A.dtype,
    )


def test_number_of_passes(tmp_path):
    A = generic(3000, 12)
    exact, sketch = by_svd(A), {"method": "sketch"}
    np.save(tmp_path / "A.npy", A)
    mapped, fortran = np.load(tmp_path / "A.npy", mmap_mode="r"), tmp_path / "F.npy"
    np.save(fortran, np.asfortranarray(A))
    for given, passes in (
        (A, 3),
        (sp.csr_array(A), 3),
        (A[:100], 2),
        (mapped, 2),
        (np.load(fortran, mmap_mode="r"), 2),
        (cut(A, 1000), 2),
    ):
        result = full(given)
        assert result.passes == passes
        np.testing.assert_allclose(result.scores, exact if result.scores.size == 3000 else by_svd(A[:100]), rtol=1e-11)
        assert full(given, ridge=2.0).passes == passes
        assert full(given, rank=3).passes == passes
        assert full(given, **sketch).passes == 2
        assert full(given, ridge=2.0, **sketch).passes <= 4
    source = Readings(cut(A, 700, 1500))
    for options in ({}, sketch):
        result, before = full(randla.RowBlocks(source, shape=A.shape, dtype=A.dtype), **options), source.count
        assert result.passes == before
        source.count = 0


def test_products_of_an_operator_are_few():
    A = generic(3000, 12)
    calls, operator = counted(A)
    np.testing.assert_allclose(leverage_scores(operator, rng=1), by_svd(A), rtol=1e-10)
    # Twelve columns fit into one block: a sketch, two products for the Gram matrix, the images.
    assert calls == ["A", "A", "A'", "A"]


class Bare:
    """Only what is asked of an operator: no blocks, no dtype."""

    def __init__(self, A):
        self.A, self.shape = A, A.shape

    def matvec(self, x):
        return self.A @ x

    def rmatvec(self, y):
        return self.A.T @ y


def test_operator_with_single_products_only():
    A = generic(300, 7)
    np.testing.assert_allclose(leverage_scores(Bare(A), rng=1), by_svd(A), rtol=1e-10)
    np.testing.assert_allclose(leverage_scores(Bare(A), ridge=50.0, rng=1), by_svd(A, 50.0), rtol=1e-10)


KINDS = ({}, {"ridge": 2.0}, {"rank": 3})
OPTIONS = (*KINDS, *({"method": "sketch", **kind} for kind in KINDS))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("form", ["C", "F", "CSR"])
def test_seeds_replay_and_threads_do_not_matter(form, options):
    for dtype in (np.float32, np.complex128):
        given = FORMS[form](generic(5000, 9, dtype))
        result = leverage_scores(given, full_output=True, **options)
        assert type(result.seed) is int
        again = leverage_scores(given, full_output=True, rng=result.seed, **options)
        assert digest(again.scores) == digest(result.scores)
        assert dataclasses.asdict(again).keys() == dataclasses.asdict(result).keys()
        assert len(distinct_over_threads(lambda given=given: [leverage_scores(given, rng=3, **options)])) == 1
    generator = np.random.default_rng(5)
    first, second = (leverage_scores(given, rng=generator, full_output=True, **options).seed for _ in range(2))
    assert first != second


def test_only_sketched_scores_depend_on_the_seed():
    A = generic(5000, 9)
    exact = [leverage_scores(A, rng=seed) for seed in (1, 2)]
    np.testing.assert_allclose(*exact, rtol=1e-12)
    sketched = [leverage_scores(A, method="sketch", rng=seed) for seed in (1, 2)]
    assert np.max(np.abs(sketched[0] / sketched[1] - 1)) > 1e-3


def test_plain_output_is_an_array_and_the_full_one_is_immutable():
    A = generic(50, 4)
    scores, result = leverage_scores(A, rng=1), full(A)
    assert isinstance(scores, np.ndarray)
    np.testing.assert_array_equal(result.scores, scores)
    assert (result.method, result.seed, result.rank) == ("exact", 1, 4)
    assert np.isnan(result.gap)
    assert result.effective_dimension == 4.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.rank = 3


# Coherence, effective dimension, cross-leverage


def test_coherence_is_the_largest_score():
    A = generic(300, 5)
    assert coherence(A, rng=1) == leverage_scores(A, rng=1).max()
    assert coherence(A, ridge=30.0, rng=1) == leverage_scores(A, ridge=30.0, rng=1).max()
    assert coherence(A, full_output=True, rng=1) == coherence(A, rng=1)
    assert coherence(np.eye(50, 5)) == pytest.approx(1, abs=1e-14)
    assert coherence(np.ones((50, 1))) == pytest.approx(1 / 50)


@pytest.mark.parametrize("number", [np.float64, np.complex128])
@pytest.mark.parametrize("form", ["C", "CSR", "operator"])
def test_effective_dimension(form, number):
    A = decaying(3000, 120, number=number)
    for ridge in (1e2, 1e5):
        truth = by_svd(A, ridge).sum()
        for given, side in ((FORMS[form](A), truth), (FORMS[form](A[:80]), by_svd(A[:80], ridge).sum())):
            assert effective_dimension(given, ridge) == pytest.approx(side, rel=1e-10)
            for seed in range(3):
                found = effective_dimension(given, ridge, method="sketch", rtol=0.3, rng=seed)
                assert found == pytest.approx(side, rel=0.03)
    assert effective_dimension(FORMS[form](A), 0.0) == 120
    assert effective_dimension(FORMS[form](A), 0.0, method="sketch") == 120


@pytest.mark.parametrize("ridge", [0.0, 200.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("form", FORMS)
def test_cross_leverage_is_the_projection(form, dtype, ridge):
    m, n = 300, 6
    A = generic(m, n, dtype)
    weights = np.random.default_rng(16).random(m) * (np.arange(m) % 4 > 0)
    pairs = np.random.default_rng(17).integers(0, m, (40, 2))
    pairs[:10, 1] = pairs[:10, 0]
    tolerance = 1e-4 if form == "operator" and dtype == np.float32 else 1e-11
    B = A.astype(np.result_type(A, np.float64))
    for w in (None, weights):
        Q = basis(B if w is None else B * np.sqrt(w)[:, None], ridge)
        P = (Q @ Q.conj().T).astype(B.dtype)
        found = cross_leverage(FORMS[form](A), pairs, ridge=ridge, weights=w, rng=1)
        assert found.dtype == B.dtype
        np.testing.assert_allclose(found, P[*pairs.T], atol=tolerance)
        swapped = cross_leverage(FORMS[form](A), pairs[:, ::-1], ridge=ridge, weights=w, rng=1)
        np.testing.assert_allclose(swapped, found.conj(), atol=tolerance)
    np.testing.assert_allclose(found[:10], leverage_scores(B, ridge=ridge, weights=weights)[pairs[:10, 0]], atol=tolerance)


def test_cross_leverage_of_nothing():
    A = generic(30, 4)
    assert cross_leverage(A, np.empty((0, 2))).shape == (0,)
    assert cross_leverage(A + 1j, np.empty((0, 2), int)).dtype == np.complex128
    for nothing in (np.zeros((3, 0)), np.zeros((3, 2)), np.zeros((300, 2))):
        assert cross_leverage(nothing, [[0, 1], [2, 2]]).tolist() == [0.0, 0.0]
    assert cross_leverage(np.zeros((3, 0), complex), [[0, 1]]).dtype == np.complex128
    assert cross_leverage(np.zeros((0, 0)), np.empty((0, 2))).shape == (0,)


# Arguments

REFUSED = [
    (ValueError, "method must be one of auto, exact, sketch; got 'qr'", {"method": "qr"}),
    (ValueError, "ridge must be finite and at least 0; got -1", {"ridge": -1.0}),
    (ValueError, "ridge must be finite", {"ridge": np.nan}),
    (ValueError, "ridge must be finite", {"ridge": np.inf}),
    (TypeError, "ridge must be a real number", {"ridge": "1"}),
    (ValueError, "ridge must be 0 where a rank is given; got 2", {"ridge": 2.0, "rank": 2}),
    (ValueError, "rank must be between 1 and 4; got 5", {"rank": 5}),
    (ValueError, "rank must be between 1 and 4; got 0", {"rank": 0}),
    (TypeError, "rank must be an integer", {"rank": 2.0}),
    (ValueError, "rtol must be finite and greater than 0; got 0", {"rtol": 0.0}),
    (TypeError, "rtol must be a real number", {"rtol": None}),
    (ValueError, "rcond must be finite and at least 0", {"rcond": -1e-3}),
    (ValueError, r"weights must have shape \(20,\)", {"weights": np.ones(19)}),
    (ValueError, "weights must not be negative", {"weights": -np.ones(20)}),
    (ValueError, "weights must be finite", {"weights": np.full(20, np.nan)}),
    (TypeError, "weights must be real", {"weights": np.ones(20, complex)}),
    (TypeError, "rng must be", {"rng": "seed"}),
]


@pytest.mark.parametrize(("error", "message", "options"), REFUSED, ids=[message for _, message, _ in REFUSED])
def test_unsuitable_options_are_refused(error, message, options):
    with pytest.raises(error, match=message):
        leverage_scores(np.ones((20, 4)), **options)
    with pytest.raises(error, match=message):
        coherence(np.ones((20, 4)), **options)


def test_unsuitable_matrices_are_refused(monkeypatch):
    for A, error, message in (
        (np.ones(3), ValueError, "2 dimensions; got 1"),
        (np.ones((3, 2), dtype=object), TypeError, "A must have dtype"),
        ((np.ones((2, 2)) for _ in range(2)), TypeError, "readable more than once"),
        ([np.ones((2, 5)), np.ones((1, 5))], ValueError, r"as many rows as columns .* row blocks; got shape \(3, 5\)"),
    ):
        with pytest.raises(error, match=message):
            leverage_scores(A)
    with pytest.raises(TypeError, match="unexpected keyword"):
        coherence(np.ones((3, 2)), size=2)
    monkeypatch.setattr(_leverage, "LARGE_N", 10)
    with pytest.raises(ValueError, match=r"ridge or rank must be given .* 10 rows; got shape \(20, 30\)"):
        leverage_scores(np.ones((20, 30)), method="sketch")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("form", ["C", "F", "CSR", "list of blocks", "operator"])
def test_entries_that_are_not_finite_are_refused(form, options, bad):
    for m in (3000, 40):
        A = generic(m, 8)
        A[m - 2, 3] = bad
        shapes = [A] if form == "list of blocks" or m == 3000 else [A, A.T.copy()]
        for given in shapes:
            with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=r"A must be .*got NaN or infinite entries"):
                leverage_scores(FORMS[form](given), rng=1, **options)


def test_unsuitable_arguments_of_the_others_are_refused():
    A = np.ones((20, 4))
    with pytest.raises(ValueError, match="method must be one of"):
        effective_dimension(A, 1.0, method="rank")
    with pytest.raises(ValueError, match="ridge must be finite and at least 0; got -1"):
        effective_dimension(A, -1.0)
    with pytest.raises(ValueError, match="rtol must be finite and greater than 0"):
        effective_dimension(A, 1.0, rtol=0)
    for pairs, error, message in (
        ([[0.0, 1.0]], TypeError, "pairs must be integers; got dtype float64"),
        ([[True, False]], TypeError, "pairs must be integers"),
        ([0, 1], ValueError, r"pairs must have shape \(k, 2\); got \(2,\)"),
        ([[0, 1, 2]], ValueError, r"pairs must have shape \(k, 2\)"),
        ([[0, 20]], ValueError, "from 0 to 19; got 0 to 20"),
        ([[-1, 3]], ValueError, "from 0 to 19; got -1 to 3"),
    ):
        with pytest.raises(error, match=message):
            cross_leverage(A, pairs)
    with pytest.raises(ValueError, match=r"at least as many rows as columns; got shape \(4, 20\)"):
        cross_leverage(A.T, [[0, 1]])
    with pytest.raises(ValueError, match="ridge must be"):
        cross_leverage(A, [[0, 1]], ridge=-1.0)
