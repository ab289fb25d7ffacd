"""Real data against LAPACK: rank, residual, backward error. Skipped where the data folder is missing."""

import functools

import numpy as np
import pytest
from ls_oracles import EPS, backward_error, householder_solution, spectrum
from problems import LAYOUTS, covtype, harwell_boeing, ijcnn1, kdd99, protein

import randla

ACCURATE = ("auto", "spir", "fossils", "cholqr")

covtype = functools.cache(covtype)
ijcnn1 = functools.cache(ijcnn1)
protein = functools.cache(protein)
kdd99 = functools.cache(kdd99)
sample = functools.cache(functools.partial(covtype, step=5))


@pytest.mark.parametrize("method", ACCURATE)
@pytest.mark.parametrize("layout", ["C", "F", "CSR"])
@pytest.mark.parametrize("read", [ijcnn1, protein], ids=["ijcnn1", "protein"])
def test_full_rank_table_is_solved_as_stably_as_by_qr(read, layout, method):
    A, b = read()
    spec, best, qr = of_qr(read)
    result = randla.lstsq(LAYOUTS[layout](A), b, method=method, rng=1)
    assert result.rank == A.shape[1]
    assert backward_error(A, b, result.x, spec) <= 10 * max(qr, EPS / 4)
    assert result.residual_norm == pytest.approx(best, rel=1e-12)


@functools.cache
def of_qr(read):
    """The singular values and the residual of a table of full rank, and the backward error of Householder QR."""
    A, b = read()
    spec = spectrum(A)
    qr = backward_error(A, b, householder_solution(A, b), spec)
    return spec, np.linalg.norm(b - A @ np.linalg.lstsq(A, b, rcond=None)[0]), qr


@functools.cache
def of_lapack(read):
    """LAPACK's rank, the residual, and singular values up to that rank."""
    A, b = read()
    scaled = A / np.linalg.norm(A, axis=0).clip(1e-300)
    exact, _, rank, _ = np.linalg.lstsq(scaled, b, rcond=None)
    return rank, np.linalg.norm(b - scaled @ exact), spectrum(A, rank)


def agrees_with_lapack(read, rank, result):
    """Same rank, same residual; x by its backward error, because LAPACK's own digits are few here."""
    lapack_rank, best, spec = of_lapack(read)
    assert lapack_rank == rank
    assert result.rank == rank
    assert result.residual_norm == pytest.approx(best, rel=1e-11)
    assert backward_error(*read(), result.x, spec) <= 10 * EPS


@pytest.mark.parametrize("method", ACCURATE)
def test_every_fifth_row_of_covtype_has_rank_53(method):
    A, b = sample()
    # Two soil types do not occur in this sample of rows? They all do: only the sum of one-hots is redundant.
    with pytest.warns(randla.LstsqWarning, match="rank"):
        result = randla.lstsq(A, b, method=method, rng=2)
    agrees_with_lapack(sample, 53, result)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "spir", "cholqr"])
@pytest.mark.parametrize("layout", ["C", "F", "CSR"])
def test_covtype_has_rank_53(layout, method):
    A, b = covtype()
    with pytest.warns(randla.LstsqWarning, match="rank"):
        result = randla.lstsq(LAYOUTS[layout](A), b, method=method, rng=2)
    agrees_with_lapack(covtype, 53, result)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "spir", "fossils", "cholqr"])
@pytest.mark.parametrize("seed", range(2))
def test_kdd99_with_rows_that_carry_whole_directions_has_rank_36(method, seed):
    A, b = kdd99()
    with pytest.warns(randla.LstsqWarning, match="rank"):
        result = randla.lstsq(A, b, method=method, rng=seed)
    agrees_with_lapack(kdd99, 36, result)


@pytest.mark.parametrize("method", [*ACCURATE, "lsqr", "momentum"])
@pytest.mark.parametrize(
    ("name", "residual", "cond"), [("well1033", 0.7521578691563825, 1.66e2), ("illc1033", 0.7521578686991064, 1.89e4)]
)
@pytest.mark.parametrize("layout", ["CSR", "CSC", "C"])
def test_harwell_boeing_matrix_reaches_the_published_residual(name, residual, cond, layout, method):
    A, b = harwell_boeing(name)
    result = randla.lstsq(LAYOUTS[layout](A.toarray()), b, method=method, rng=3)
    assert result.rank == 320
    assert result.residual_norm == pytest.approx(residual, rel=1e-12)
    assert np.linalg.norm(result.x - householder_solution(A.toarray(), b)) < 1e-9 * np.linalg.norm(result.x)


def test_preconditioned_iteration_needs_few_steps_where_plain_lsqr_needs_thousands():
    # scipy's lsqr takes 3750 steps on illc1033 to a tolerance of 1e-12.
    A, b = harwell_boeing("illc1033")
    assert randla.lstsq(A, b, method="lsqr", rng=1).iterations <= 120
