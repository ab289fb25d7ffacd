"""Decompositions from one pass: published bounds, bits that do not depend on chunks, errors that are told."""

import math
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import LIBRARIES
from spectra import orthogonal

import randla
from randla.lowrank.result import LowRankStatus
from randla.lowrank.streaming import StreamingSVD

pytestmark = pytest.mark.usefixtures("one_blas_thread")

M, N, K = 2500, 60, 5
DTYPES = (np.float32, np.float64, np.complex64, np.complex128)
SPECTRA = {
    "flat": np.ones(N),
    "slow": np.arange(1, N + 1) ** -0.5,
    "fast": np.arange(1, N + 1) ** -2.0,
    "exponential": 0.6 ** np.arange(N),
    "cliff": np.r_[np.ones(8), 1e-4 * np.ones(N - 8)],
    "clustered": np.r_[np.ones(4), 0.5 * np.ones(4), 1e-2 * np.ones(N - 8)],
}


def matrix(values, m=M, n=N, dtype=float, seed=0):
    rng, r = np.random.default_rng(seed), len(values)
    complex_ = np.dtype(dtype).kind == "c"
    left = np.linalg.qr(rng.standard_normal((m, r)) + (1j * rng.standard_normal((m, r)) if complex_ else 0))[0]
    return ((left * values) @ orthogonal(n, rng, complex_)[:r]).astype(dtype)


def streamed(A, k=K, *, cuts=(), order=None, k_result=None, **keywords):
    stream = StreamingSVD(*A.shape, k, dtype=A.dtype, **keywords)
    chunks = list(zip([0, *cuts], [*cuts, A.shape[0]], strict=True))
    for i in range(len(chunks)) if order is None else order:
        start, stop = chunks[i]
        stream.add(A[start:stop], start)
    return stream.result(k_result)


def bits(result):
    arrays = (result.U, result.s, result.Vh, result.s_upper, result.tails)
    return b"".join([*(a.tobytes() for a in arrays), np.float64([result.error, result.tail_error]).tobytes()])


def true_error(result, A):
    return float(np.linalg.norm(A - (result.U * result.s) @ result.Vh))


@pytest.mark.parametrize("dtype", DTYPES)
def test_chunks_orders_and_mergers_do_not_change_a_bit(dtype):
    A = matrix(SPECTRA["slow"], dtype=dtype)
    batch = streamed(A, rng=1)
    cuts = [1, 7, 500, 1023, 1024, 1300, 2049, 2100]
    shuffled = np.random.default_rng(0).permutation(len(cuts) + 1)
    results = [streamed(A, cuts=cuts, rng=1), streamed(A, cuts=cuts, order=shuffled, rng=1)]
    results.append(streamed(A, cuts=range(1, M), rng=1))
    # Workers whose rows interleave and meet inside windows; sizes that raise the cut of the sums in one of them only.
    parts = [StreamingSVD(M, N, K, dtype=dtype, rng=1) for _ in range(3)]
    for i, (start, stop) in enumerate(zip([0, *cuts], [*cuts, M], strict=True)):
        parts[i % 3].add(A[start:stop], start)
    before = bits(parts[1].result())
    for other in parts[1:]:
        parts[0].merge(other)
    assert bits(parts[1].result()) == before
    results.append(parts[0].result())
    results.append(streamed(np.asfortranarray(A), rng=1))
    assert {bits(result) for result in results} == {bits(batch)}
    assert batch.U.dtype == A.dtype
    assert batch.s.dtype == A.real.dtype
    assert bits(streamed(A, rng=2)) != bits(batch)


def test_mergers_of_rows_of_very_different_sizes_keep_the_bits():
    A = matrix(SPECTRA["slow"], m=6000) * np.logspace(-30, 30, 6000)[:, None]
    A[4000, 3], A[10, 3] = 1e290, -3e295
    for split in (1024, 2048, 3100):
        low, high = (StreamingSVD(*A.shape, K, rng=3) for _ in range(2))
        low.add(A[:split])
        high.add(A[split:], split)
        for first, second in ((low, high), (high, low)):
            joined = pickle.loads(pickle.dumps(first))
            joined.merge(second)
            assert bits(joined.result()) == bits(streamed(A, rng=3))
    empty = StreamingSVD(*A.shape, K, rng=3)
    empty.merge(pickle.loads(pickle.dumps(joined)))
    assert bits(empty.result()) == bits(joined.result())


def test_more_open_windows_than_are_kept_change_rounding_alone():
    m = 12 * 1024
    A = matrix(SPECTRA["fast"], m=m)
    stream = StreamingSVD(m, N, K, rng=4)
    for start in (*range(0, m, 1024), *range(512, m, 1024)):
        stream.add(A[start : start + 512], start)
    assert stream.rows_seen == m
    np.testing.assert_allclose(stream.result().s, streamed(A, rng=4).s, rtol=1e-12)


def test_threads_do_not_change_the_sketches():
    A = matrix(SPECTRA["slow"])
    one = streamed(A, rng=1)
    randla.set_num_threads(2)
    try:
        with LIBRARIES.limit(limits=2, user_api="blas"):
            two = streamed(A, rng=1)
    finally:
        randla.set_num_threads(1)
    np.testing.assert_allclose(two.s, one.s, rtol=1e-13)
    np.testing.assert_allclose(two.error, one.error, rtol=1e-12)


@pytest.mark.parametrize("kind", ["csr", "csc", "mixed", "strided", "list"])
def test_rows_of_every_kind(kind):
    A = matrix(SPECTRA["fast"]) * (np.random.default_rng(1).random((M, N)) < 0.3)
    stream = StreamingSVD(M, N, K, rng=0)
    make = {
        "csr": lambda i, rows: sp.csr_array(rows),
        "csc": lambda i, rows: sp.csc_matrix(rows),
        "mixed": lambda i, rows: rows if i % 3 else sp.csr_array(rows),
        "strided": lambda i, rows: np.repeat(np.repeat(rows, 2, axis=0), 2, axis=1)[::2, ::2],
        "list": lambda i, rows: rows.tolist(),
    }[kind]
    for i, start in enumerate(range(0, M, 400)):
        stream.add(make(i, A[start : start + 400]))
    result, dense = stream.result(), streamed(A, rng=0)
    np.testing.assert_allclose(result.s, dense.s, rtol=1e-11)
    np.testing.assert_allclose(result.error, dense.error, rtol=1e-9)
    twice = sp.csr_array((np.ones(4), [0, 0, 1, 1], [0, 2, 4]), shape=(2, N))
    short = StreamingSVD(2, N, 2, rng=0)
    short.add(twice)
    assert short.result().norm == math.sqrt(8)


def test_memory_that_is_filled_again_is_not_kept():
    A = matrix(SPECTRA["fast"])
    stream, buffer = StreamingSVD(M, N, K, rng=0), np.empty((100, N))
    for start in range(0, M, 100):
        buffer[:] = A[start : start + 100]
        stream.add(buffer)
        buffer[:] = np.nan
    assert bits(stream.result()) == bits(streamed(A, rng=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(M, N), (70, 300), (40, 40), (9, 5), (1, 7), (7, 1)])
def test_matrices_of_smaller_rank_are_recovered(shape, dtype):
    r = min(3, *shape)
    A = matrix(np.array([5.0, 2.0, 0.5])[:r], *shape, dtype=dtype)
    result = streamed(A, rng=0)
    eps, k = np.finfo(dtype).eps, min(K, *shape)
    assert result.status is LowRankStatus.EXACT
    assert true_error(result, A) <= 200 * eps * result.norm
    np.testing.assert_allclose(result.s[:r], [5.0, 2.0, 0.5][:r], rtol=100 * eps)
    np.testing.assert_allclose(result.U.conj().T @ result.U, np.eye(k), atol=50 * eps)
    np.testing.assert_allclose(result.Vh @ result.Vh.conj().T, np.eye(k), atol=50 * eps)
    largest = result.U[np.argmax(np.abs(result.U), axis=0), range(k)]
    assert np.all(largest.real > 0)
    assert np.abs(largest.imag).max() <= 4 * eps


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("name", SPECTRA)
def test_near_eckart_young(name, complex_):
    values = SPECTRA[name]
    A = matrix(values, dtype=complex if complex_ else float)
    result = streamed(A, rng=5)
    best = math.sqrt(np.sum(values[K:] ** 2))
    found = true_error(result, A)
    assert best * (1 - 1e-12) <= found
    # Tropp, Yurtsever, Udell, Cevher 2019, section 5: cutting costs at most twice the error before the cut.
    full = true_error(streamed(A, k_result=4 * K + 1, rng=5), A)
    assert found <= best + 2 * full + 1e-12
    assert math.isclose(result.norm, np.linalg.norm(values), rel_tol=1e-12)
    assert np.all(np.abs(result.s - values[:K]) <= full + 1e-12)
    # Ten rows of the error sketch: within a factor of two but for 1e-4 of seeds at the worst of these spectra.
    assert found / 2 < result.error < 2 * found
    assert full / 2 < result.tail_error < 2 * full
    tails = np.sqrt(np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0))[: len(result.tails)]
    assert np.all(np.abs(result.tails - tails) <= 2 * result.tail_error)
    assert np.all(result.s_upper >= values[:K] * (1 - 1e-12))
    assert result.relative_error == result.error / result.norm


def test_expected_error_stays_below_the_published_bound():
    # Theorem 5.1 of the paper for real Gaussian sketches. The mean of 60 seeds is five of its standard deviations below: were
    # the expectation above the bound, the normal law would give that a probability of 3e-7.
    values, size, core = SPECTRA["slow"], 12, 30
    A = matrix(values, m=120)
    tails = np.cumsum(values[::-1] ** 2)[::-1]
    bound = (core - 1) / (core - size - 1) * min((size + r - 1) / (size - r - 1) * tails[r] for r in range(size - 1))
    squares = []
    for seed in range(60):
        options = {"range_size": size, "core_size": core, "distribution": randla.Gaussian(), "rng": seed}
        squares.append(true_error(streamed(A, 5, k_result=size, **options), A) ** 2)
    assert tails[size] < np.mean(squares) < bound - 5 * np.std(squares) / math.sqrt(60)


@pytest.mark.parametrize("name", ["slow", "fast", "cliff"])
def test_error_estimates_over_200_seeds(name):
    values = SPECTRA[name][:40]
    A = matrix(values, m=90, n=40)
    ratios, widths = [], []
    for seed in range(200):
        result = streamed(A, 4, range_size=9, rng=seed)
        ratios.append(result.error**2 / true_error(result, A) ** 2)
        full = streamed(A, 4, range_size=9, k_result=9, rng=seed)
        widths.append(full.error**2 / true_error(full, A) ** 2)
    # E of the squared ratio is one, its variance at most 2 / 10 (a chi-square of ten degrees at the worst, a residual of
    # rank one): the mean of 200 is within 0.16, five deviations, but for a probability of 6e-7 by the normal law.
    assert abs(np.mean(ratios) - 1) < 0.16
    assert abs(np.mean(widths) - 1) < 0.16
    assert np.mean(np.abs(np.sqrt(ratios) - 1) < 0.5) >= 0.95


def test_a_known_tail_makes_the_estimate_sharper():
    # The part that is cut off is known, and only the small rest is estimated. From the error sketch alone, an error of nearly
    # rank one would have a standard deviation of 22 %.
    values = np.r_[10.0, 5.0, 1.0, 1e-2 * np.ones(20)]
    A = matrix(values, m=200)
    errors = [streamed(A, 2, range_size=9, rng=seed).error for seed in range(20)]
    np.testing.assert_allclose(errors, math.hypot(1.0, 1e-2 * math.sqrt(20)), rtol=0.05)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(dtype, scale) for dtype in DTYPES for scale in ((1e-30, 1e30) if np.dtype(dtype).char in "fF" else (1e-200, 1e200))],
)
def test_sizes_of_any_kind(dtype, scale):
    A = matrix(SPECTRA["fast"], dtype=dtype)
    plain, result = streamed(A, rng=0), streamed((A * scale).astype(dtype), rng=0)
    digits = 1e4 * np.finfo(dtype).eps
    np.testing.assert_allclose(result.s / scale, plain.s, rtol=digits)
    np.testing.assert_allclose([result.error / scale, result.tail_error / scale], [plain.error, plain.tail_error], rtol=digits)


def test_sums_that_overflow_are_refused():
    stream = StreamingSVD(3000, 4, 2, rng=0)
    stream.add(np.full((3000, 4), 1.7e308))
    with pytest.raises(ValueError, match="rows must be small enough"):
        stream.result()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (300, 20)])
def test_zero_and_empty_matrices(shape):
    stream = StreamingSVD(*shape, 3, dtype=np.float32, rng=0)
    stream.add(np.zeros(shape, np.float32))
    result = stream.result()
    k = min(3, *shape)
    assert result.status is LowRankStatus.EXACT
    assert result.error == result.relative_error == result.norm == 0
    assert (result.U.shape, result.s.shape, result.Vh.shape) == ((shape[0], k), (k,), (k, shape[1]))
    np.testing.assert_array_equal(result.U.T @ result.U, np.eye(k))
    assert result.Vh.dtype == np.float32


def test_rows_that_did_not_come_are_zero():
    A = matrix(SPECTRA["fast"])
    A[1000:1700] = 0
    stream = StreamingSVD(M, N, K, rng=0)
    stream.add(A[1700:], 1700)
    stream.add(A[:1000], 0)
    result = stream.result()
    assert stream.rows_seen == M - 700
    assert "700 of 2500 rows have not come" in result.message
    np.testing.assert_allclose(result.s, streamed(A, rng=0).s, rtol=1e-12)
    # More can come afterwards, and looking has changed nothing.
    stream.add(A[1000:1700], 1000)
    assert bits(stream.result()) == bits(streamed(A, rng=0))
    assert stream.result().notes == ""


def test_ranks_up_to_the_size_of_the_sketch_can_be_asked_for():
    A = matrix(SPECTRA["fast"])
    full, some = streamed(A, k_result=4 * K + 1, rng=0), streamed(A, rng=0)
    np.testing.assert_array_equal(full.s[:K], some.s)
    assert full.error <= full.tail_error <= some.error
    assert (some.dim, some.rank, some.passes, some.method) == (4 * K + 1, K, 1, "streaming")
    U, s, Vh = some
    assert (U.shape, s.shape, Vh.shape) == ((M, K), (K,), (K, N))


def test_a_seed_replays():
    A = matrix(SPECTRA["slow"])
    result = streamed(A)
    assert bits(streamed(A, rng=result.seed)) == bits(result)
    assert "streaming" in repr(result)


def test_refused_rows_change_nothing():
    A = matrix(SPECTRA["fast"])
    stream = StreamingSVD(M, N, K, rng=0)
    stream.add(A[:1000])
    for rows, offset, error, message in (
        (A[:5], 998, ValueError, "rows must come once each; got row 998 again"),
        (A[:5], M - 3, ValueError, "end by row 2500"),
        (A[:5, :3], None, ValueError, f"rows must have {N} columns"),
        (A[0], None, ValueError, "rows must have 2 dimensions"),
        (A[:5] * 1j, None, TypeError, "rows must be real"),
        (A[:5], -1, ValueError, "offset must be at least 0"),
        (A[:5], 2.5, TypeError, "offset must be an integer"),
        (np.full((2, N), np.nan), None, ValueError, "rows must be finite"),
        (sp.csr_array(np.full((2, N), np.inf)), None, ValueError, "rows must be finite"),
        ("text", None, TypeError, "rows must have dtype"),
    ):
        with pytest.raises(error, match=message):
            stream.add(rows, offset)
    stream.add(A[1000:])
    assert bits(stream.result()) == bits(streamed(A, rng=0))


def test_streams_that_do_not_fit_are_not_merged():
    stream = StreamingSVD(50, 20, 3, rng=0)
    stream.add(np.ones((10, 20)))
    with pytest.raises(TypeError, match="other must be a StreamingSVD; got int"):
        stream.merge(3)
    for other, name in (
        (StreamingSVD(51, 20, 3, rng=0), "shape"),
        (StreamingSVD(50, 20, 3, rng=1), "seed"),
        (StreamingSVD(50, 20, 3, dtype=np.float32, rng=0), "dtype"),
        (StreamingSVD(50, 20, 2, rng=0), "k"),
        (StreamingSVD(50, 20, 3, range_size=9, rng=0), "range_size"),
        (StreamingSVD(50, 20, 3, core_size=40, rng=0), "core_size"),
        (StreamingSVD(50, 20, 3, error_size=4, rng=0), "error_size"),
        (StreamingSVD(50, 20, 3, distribution=randla.SparseStack(), rng=0), "distribution"),
    ):
        with pytest.raises(ValueError, match=f"other must have the same {name}"):
            stream.merge(other)
    again = StreamingSVD(50, 20, 3, rng=0)
    again.add(np.ones((2, 20)), 9)
    with pytest.raises(ValueError, match="got row 9 in both"):
        stream.merge(again)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((-1, 5, 2), {}, ValueError, "m must be at least 0; got -1"),
        ((5, 5.0, 2), {}, TypeError, "n must be an integer"),
        ((5, 5, 0), {}, ValueError, "k must be at least 1; got 0"),
        ((50, 50, 5), {"dtype": "U3"}, TypeError, "dtype must have dtype"),
        ((50, 50, 5), {"range_size": 4}, ValueError, "range_size must be at least 5; got 4"),
        ((50, 50, 5), {"range_size": 9, "core_size": 8}, ValueError, "core_size must be at least 9; got 8"),
        ((50, 50, 5), {"error_size": 0}, ValueError, "error_size must be at least 1"),
        ((50, 50, 5), {"distribution": "gaussian"}, TypeError, "distribution must be a Distribution"),
        ((50, 50, 5), {"rng": "x"}, TypeError, "rng must be"),
    ],
)
def test_unsuitable_arguments(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        StreamingSVD(*arguments, **keywords)


@pytest.mark.parametrize("k", [0, 22])
def test_ranks_that_the_sketches_do_not_hold_are_refused(k):
    with pytest.raises(ValueError, match="k must be between 1 and 21"):
        StreamingSVD(M, N, K).result(k)
