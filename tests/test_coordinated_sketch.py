"""Sketches of two factors that are made apart: their product, their merging, and what they keep."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import stats

import randla
from randla.sampling.matmul import CoordinatedSketch, coordinated_sketch, sketched_matmul

pytestmark = pytest.mark.usefixtures("one_blas_thread")


def tables(n=600, rng=0):
    """Sparse factors that share some rows."""
    rng = np.random.default_rng(rng)
    X = sp.random_array((n, 8), density=0.05, rng=rng, format="csr")
    Y = sp.random_array((n, 6), density=0.05, rng=rng, format="csc")
    return X, Y


def same(a, b):
    assert isinstance(a, CoordinatedSketch)
    np.testing.assert_array_equal(a.indices, b.indices)
    dense = [s.rows.toarray() if sp.issparse(s.rows) else s.rows for s in (a, b)]
    np.testing.assert_array_equal(*dense)
    np.testing.assert_array_equal(a.norms, b.norms)
    assert (a.threshold, a.k, a.seed) == (b.threshold, b.k, b.seed)
    assert a.norm == pytest.approx(b.norm, rel=1e-14)


def test_two_sketches_give_the_product_of_one_call():
    X, Y = tables()
    a, b = coordinated_sketch(X, 50, rng=4), coordinated_sketch(Y, 50, rng=4)
    assert len(a.indices) == 50
    assert sp.issparse(a.rows)
    assert a.rows.shape == (50, 8)
    result = pickle.loads(pickle.dumps(a)).product(b)
    np.testing.assert_array_equal(result.product, sketched_matmul(X.T, Y, 50, rng=4).product)
    np.testing.assert_allclose(result.product, b.product(a).product.T, rtol=1e-14)
    assert result.seed == 4
    assert repr(a) == "CoordinatedSketch(50 rows of 8 columns, k=50, seed=4)"


def test_two_sketches_may_keep_different_numbers_of_rows():
    X, Y = (t.toarray() for t in tables(60))
    X[:, 0] += 1
    Y[:, 0] += 1
    exact, runs = X.T @ Y, 1500
    gaps, shifts = np.empty(runs), np.empty(runs)
    for seed in range(runs):
        result = coordinated_sketch(X, 5, rng=seed).product(coordinated_sketch(Y, 25, rng=seed))
        gaps[seed] = np.linalg.norm(result.product - exact) ** 2 - result.error**2
        shifts[seed] = np.sum(result.product - exact)
    stats.z_gate(np.mean(gaps) / np.std(gaps) * runs**0.5, "squared error")
    stats.z_gate(np.mean(shifts) / np.std(shifts) * runs**0.5, "mean")
    assert result.error_bound == pytest.approx(np.sqrt(1 / 4 + 1 / 24) * np.linalg.norm(X) * np.linalg.norm(Y))


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("cuts", [[1], [200, 201, 450], [0, 600]])
def test_parts_merge_to_the_sketch_of_the_whole(form, cuts):
    X = tables()[0].toarray()
    whole = coordinated_sketch(X, 30, rng=1)
    parts = [
        coordinated_sketch(form(part), 30, offset=offset, rng=1)
        for part, offset in zip(np.split(X, cuts), [0, *cuts], strict=True)
    ]
    for order in (parts, parts[::-1]):
        merged = order[0]
        for part in order[1:]:
            merged = merged.merge(part)
        same(merged, whole)


@pytest.mark.parametrize("k", [3, 1000])
def test_row_blocks_are_read_once(k):
    X, Y = tables()
    dense = X.toarray()
    whole = coordinated_sketch(X, k, rng=2)
    blocks = randla.RowBlocks([dense[:100], sp.csr_array(dense[100:350]), dense[350:]])
    same(coordinated_sketch(blocks, k, rng=2), whole)
    assert blocks.reads == 1
    once = randla.RowBlocks(iter([dense]), shape=dense.shape, dtype=float)
    same(coordinated_sketch(once, k, rng=2), whole)
    shifted = coordinated_sketch(blocks, k, offset=7, rng=2)
    same(shifted, coordinated_sketch(np.concatenate([np.zeros((7, 8)), dense]), k, rng=2))
    assert Y.shape[0] == dense.shape[0]


def test_equal_priorities_are_kept_in_the_order_of_rows(monkeypatch):
    monkeypatch.setattr("randla.sampling.matmul._priorities", lambda norms, indices, seed: np.ones(len(norms)))
    X = np.ones((9, 2))
    sketch = coordinated_sketch(X[5:], 3, offset=5, rng=0).merge(coordinated_sketch(X[:5], 3, rng=0))
    np.testing.assert_array_equal(sketch.indices, [0, 1, 2])
    assert sketch.threshold == 1


def test_kept_rows_are_chosen_in_proportion_for_small_samples():
    # Of two rows of squared norms 4 and 1 the first is kept unless u_0 / 4 > u_1, which has probability 1 / 8.
    X = np.array([[2.0], [1.0]])
    runs = 4000
    first = sum(int(coordinated_sketch(X, 1, rng=seed).indices[0] == 0) for seed in range(runs))
    stats.binomial_gate(first, runs, 7 / 8, "row 0 kept")


def test_what_the_sketches_refuse():
    X = np.ones((5, 2))
    a = coordinated_sketch(X, 3, rng=0)
    with pytest.raises(TypeError, match="other must be a CoordinatedSketch; got ndarray"):
        a.product(X)
    with pytest.raises(ValueError, match=r"other must have seed 0.*got 1"):
        a.product(coordinated_sketch(X, 3, rng=1))
    with pytest.raises(ValueError, match=r"other must have seed 0.*got 1"):
        a.merge(coordinated_sketch(X, 3, offset=5, rng=1))
    with pytest.raises(ValueError, match=r"other must have k = 3 and 2 columns; got k = 4"):
        a.merge(coordinated_sketch(X, 4, offset=5, rng=0))
    with pytest.raises(ValueError, match=r"got k = 3 and 1$"):
        a.merge(coordinated_sketch(X[:, :1], 3, offset=5, rng=0))
    with pytest.raises(ValueError, match="other must be of other rows"):
        a.merge(a)
    with pytest.raises(ValueError, match="offset must be between"):
        coordinated_sketch(X, 3, offset=-1)
    with pytest.raises(ValueError, match=r"X must have vectors of norm below 2\^990.*got one of 1e\+300"):
        coordinated_sketch(X * 1e300 / np.sqrt(2), 3)
    with pytest.raises(ValueError, match="X must have 2 dimensions"):
        coordinated_sketch(X[0], 3)
