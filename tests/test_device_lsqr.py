"""LSQR with A on a device, which a strict stand-in for CuPy plays where there is none, beside that of the host and LAPACK."""

import fake_cupy
import numpy as np
import pytest
import scipy.sparse as sp
from problems import least_squares

import randla


def there(cupy, value):
    if sp.issparse(value):
        import cupyx.scipy.sparse

        return cupyx.scipy.sparse.csr_matrix(sp.csr_matrix(value))
    return cupy.asarray(value) if isinstance(value, np.ndarray) else value


def both(cupy, A, b, **options):
    """The results for A on the device and for A on the host."""
    options = {"method": "lsqr", "rng": 1} | options
    given = {name: there(cupy, value) for name, value in options.items()}
    return randla.lstsq(there(cupy, A), cupy.asarray(b), **given), randla.lstsq(A, b, **options)


def regression(dtype=np.float64, m=1500, n=20, k=4):
    """The second right-hand side is zero, the third has no residual."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((m, n)), rng.standard_normal((m, k))
    if np.dtype(dtype).kind == "c":
        A, B = A + 1j * rng.standard_normal((m, n)), B + 1j * rng.standard_normal((m, k))
    B[:, 1], B[:, 2] = 0, A @ np.ones(n)
    return A.astype(dtype), B.astype(dtype)


@pytest.mark.parametrize("cond", [10.0, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_answers_are_as_good_as_those_of_the_host(cupy, cond, ridge):
    problem = least_squares(2000, 30, cond, 1e-3)
    found, expected = both(cupy, problem.A, problem.b, ridge=ridge)
    assert isinstance(found.x, cupy.ndarray)
    assert found.success
    assert expected.success
    assert found.rank == 30
    # What "forward stable" promises: of the order of QR's error, which is the distance between any two such answers.
    eps, x = 2.2e-16, expected.x
    bound = 50 * eps * (cond + cond**2 * expected.residual_norm / np.linalg.norm(x)) if ridge == 0 else 1e-13
    assert np.linalg.norm(found.x.get() - x) <= bound * np.linalg.norm(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("order", ["C", "F"])
def test_weights_ridge_and_several_right_hand_sides(cupy, dtype, order):
    A, B = regression(dtype)
    A = np.asarray(A, order=order)
    w = np.random.default_rng(1).uniform(0, 1, len(A))
    w[::7] = 0
    found, _ = both(cupy, A, B, ridge=2.0, weights=w)
    wide = A.astype(np.complex128)
    expected = np.linalg.solve((wide.conj().T * w) @ wide + 2 * np.eye(20), wide.conj().T @ (w[:, None] * B))
    assert found.success
    assert found.x.dtype == dtype
    np.testing.assert_allclose(found.x.get(), expected, rtol=0, atol=100 * np.finfo(dtype).eps)
    assert not found.x.get()[:, 1].any()


def test_sparse_matrices(cupy):
    rng = np.random.default_rng(0)
    A = sp.random_array((3000, 40), density=0.1, format="csr", rng=rng)
    b, w = rng.standard_normal(3000), rng.uniform(0, 1, 3000)
    dense = A.toarray()
    found, expected = both(cupy, A, b)
    assert found.status is expected.status is randla.Status.CONVERGED
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(dense, b)[0], rtol=0, atol=1e-13)
    found, _ = both(cupy, A, b, weights=w, ridge=0.1)
    exact = np.linalg.solve((dense.T * w) @ dense + 0.1 * np.eye(40), dense.T @ (w * b))
    np.testing.assert_allclose(found.x.get(), exact, rtol=0, atol=1e-13)


def test_the_host_looks_every_few_steps_and_at_nothing_long(cupy):
    problem = least_squares(2000, 30, 10.0, 1e-3)
    fake_cupy.TRANSFERS.clear()
    result = randla.lstsq(cupy.asarray(problem.A), cupy.asarray(problem.b), method="lsqr", sketch_size=40, rng=1)
    assert result.iterations >= 30
    looks = [shape for shape in fake_cupy.TRANSFERS if shape == (1, 33)]
    # The first after as many steps as there are unknowns.
    assert len(looks) == 1 + -(-(result.iterations - 30) // 4)
    assert result.passes == result.iterations + 4
    assert not [shape for shape in fake_cupy.TRANSFERS if 2000 in shape]


def test_statuses_are_those_of_the_host(cupy):
    A, B = regression()
    found, expected = both(cupy, A, B, tol=1e-6)
    assert found.status is expected.status is randla.Status.CONVERGED
    with pytest.warns(randla.LstsqWarning, match="iteration limit"):
        found, expected = both(cupy, A, B, maxiter=3)
    assert found.status is expected.status is randla.Status.ITERATION_LIMIT
    assert found.iterations == 3
    found, expected = both(cupy, A, B, sketch_size=25)
    assert found.status is expected.status is randla.Status.SKETCHED_ACCURACY
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A, B)[0], rtol=0, atol=1e-13)
    A[:, 3] = A[:, 4]
    with pytest.warns(randla.LstsqWarning, match="Rank 19 of 20"):
        found, expected = both(cupy, A, B)
    assert found.status is expected.status is randla.Status.RANK_DEFICIENT
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A, B)[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_units_do_not_matter(cupy, scale):
    A, B = regression()
    found, _ = both(cupy, A * scale, B)
    assert found.success
    np.testing.assert_allclose(found.x.get() * scale, np.linalg.lstsq(A, B)[0], rtol=0, atol=1e-13)


def test_nothing_to_do(cupy):
    A, B = regression()
    for a, b, ridge in ((A, B[:, :0], 0.0), (A, B[:, 1], 0.0), (A[:, :0], B, 0.0), (np.zeros((30, 3)), np.ones(30), 1.0)):
        found, expected = both(cupy, a, b, ridge=ridge)
        assert found.status is expected.status
        assert found.iterations == 0
        assert found.x.shape == expected.x.shape
        assert not found.x.get().any()


def test_callbacks_see_every_look_and_can_stop(cupy):
    A, B = regression()
    seen = []

    def stop_at_the_third(intermediate_result):
        seen.append(intermediate_result.x)
        if len(seen) == 3:
            raise StopIteration

    result = randla.lstsq(cupy.asarray(A), cupy.asarray(B), method="lsqr", sketch_size=40, rng=1, callback=stop_at_the_third)
    assert result.status is randla.Status.STOPPED
    assert result.iterations == result.history[-1]["iteration"] > result.history[1]["iteration"] > 0
    np.testing.assert_allclose(result.x.get(), seen[-1], rtol=0, atol=1e-13)
