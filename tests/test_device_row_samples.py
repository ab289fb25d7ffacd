"""Sketches by rows drawn in proportion to numbers of a device, which a stand-in for CuPy plays where there is none."""

import pickle

import fake_cupy
import numpy as np
import pytest
import scipy.sparse as sp
from test_sketch import PROBABILITIES

import randla
from randla.sampling import sample_rows


@pytest.mark.parametrize("case", PROBABILITIES)
@pytest.mark.parametrize("d", [1, 97])
def test_rows_are_those_of_the_host(cupy, case, d):
    """A random number would have to lie within 1e-15 of the border between two rows for them to differ."""
    p = PROBABILITIES[case]
    there, here = (randla.RowSample(v).sample(d, len(p), rng=2**63 + 1) for v in (cupy.asarray(p), p))
    np.testing.assert_allclose(there.to_dense(), here.to_dense(), rtol=1e-13)
    np.testing.assert_allclose(there.distribution.probabilities.get(), here.distribution.probabilities, rtol=1e-14)
    assert there.distribution.probabilities.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_products(cupy, dtype, form):
    import cupyx.scipy.sparse

    rng = np.random.default_rng(0)
    A, p = rng.standard_normal((700, 6)), rng.uniform(0, 1, 700)
    A = (A + 1j * A[:, ::-1] if np.dtype(dtype).kind == "c" else A).astype(dtype)
    given = cupyx.scipy.sparse.csr_matrix(sp.csr_matrix(A)) if form == "csr" else cupy.asarray(A)
    there, here = (randla.RowSample(v).sample(90, 700, rng=1) for v in (cupy.asarray(p), p))
    np.testing.assert_allclose((there @ given).get(), here @ A, rtol=1e-6 if dtype == np.float32 else 1e-13)
    Y = rng.standard_normal((90, 3)).astype(dtype)
    np.testing.assert_allclose((there.T @ cupy.asarray(Y)).get(), here.T @ Y, rtol=1e-6 if dtype == np.float32 else 1e-13)


def test_only_the_rows_that_were_drawn_come_to_the_host_and_once(cupy):
    p, A = cupy.asarray(np.random.default_rng(0).uniform(0, 1, 700)), cupy.ones((700, 3))
    fake_cupy.TRANSFERS.clear()
    S = randla.RowSample(p).sample(90, 700, rng=1)
    assert fake_cupy.TRANSFERS == [(2,)]
    for _ in range(3):
        S @ A
    assert fake_cupy.TRANSFERS == [(2,), (2, 90)]


def test_solvers_take_them(cupy):
    rng = np.random.default_rng(0)
    A, b, w = rng.standard_normal((900, 8)), rng.standard_normal(900), rng.uniform(0.5, 1, 900)
    scores = randla.leverage_scores(cupy.asarray(A), rng=1)
    for weights in (None, w):
        given = None if weights is None else cupy.asarray(weights)
        options = {"weights": given, "sketch": randla.RowSample(scores), "sketch_size": 200}
        found = randla.lstsq(cupy.asarray(A), cupy.asarray(b), method="spir", rng=1, **options)
        assert found.success
        roots = np.ones(900) if weights is None else np.sqrt(weights)
        exact = np.linalg.lstsq(A * roots[:, None], b * roots)[0]
        np.testing.assert_allclose(found.x.get(), exact, rtol=0, atol=1e-13)


def test_a_sample_of_rows_is_drawn_again(cupy):
    A = cupy.asarray(np.random.default_rng(0).standard_normal((300, 4)))
    sample = sample_rows(A, 50, scheme="squared-norm", rng=3)
    S = randla.RowSample(sample.probabilities).sample(50, 300, rng=3)
    rows = np.nonzero(S.to_dense())
    np.testing.assert_array_equal(rows[1][np.argsort(rows[0])], sample.indices.get())
    np.testing.assert_allclose(S.to_dense()[rows] ** 2, sample.weights.get(), rtol=1e-12)


def test_they_are_values(cupy):
    p = cupy.asarray(np.arange(1.0, 6))
    distribution = randla.RowSample(p)
    p[:] = 0
    assert float(distribution.probabilities.sum()) == pytest.approx(1)
    again, other = randla.RowSample(cupy.asarray(2 * np.arange(1, 6))), randla.RowSample(cupy.ones(5))
    assert distribution == again
    assert hash(distribution) == hash(again)
    assert distribution != other
    # They draw by other sums than those of the host.
    assert distribution != randla.RowSample(np.arange(1, 6))
    assert distribution != randla.RowSample()
    assert distribution.sample(9, 5, rng=1) == again.sample(9, 5, rng=1)
    assert repr(distribution) == "RowSample(<5 probabilities>)"


def test_samples_are_pickled_without_what_was_drawn(cupy):
    S = randla.RowSample(cupy.asarray(np.arange(1.0, 6))).sample(9, 5, rng=1)
    before = S.to_dense()
    again = pickle.loads(pickle.dumps(S))
    assert set(vars(again)) == {"distribution", "shape", "seed"}
    assert np.array_equal(again.to_dense(), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, -2.0], "not negative and not all zero; got values from -2 to 1"),
        ([1.0, np.nan], "finite, not negative .* got values from"),
        ([1.0, np.inf], "finite, not negative .* got values from"),
        ([0.0, 0.0], "not all zero"),
        ([[1.0, 2.0]], r"a vector with an entry for each row; got shape \(1, 2\)"),
        ([], r"a vector with an entry for each row; got shape \(0,\)"),
    ],
)
def test_unsuitable_probabilities(cupy, values, message):
    with pytest.raises(ValueError, match=f"probabilities must be .*{message}"):
        randla.RowSample(cupy.asarray(np.array(values)))


def test_unsuitable_matrices(cupy):
    with pytest.raises(TypeError, match="probabilities must be real; got complex128"):
        randla.RowSample(cupy.ones(3, complex))
    S = randla.RowSample(cupy.ones(5)).sample(3, 5, rng=0)
    with pytest.raises(ValueError, match="one entry for each of the 4 rows; got 5"):
        randla.RowSample(cupy.ones(5)).sample(3, 4, rng=0)
    for product in (lambda: S @ np.ones((5, 2)), lambda: S.T @ np.ones((3, 2))):
        with pytest.raises(TypeError, match=r"probabilities and A must all be on the host or all on the device; got cupy\.nd"):
            product()
