"""Solutions of minimum norm with A on a device, beside those of the host and of LAPACK."""

import contextlib
import pickle

import fake_cupy
import numpy as np
import pytest
import scipy.sparse as sp
from problems import haar

import randla
from randla import _device_inner, plan

ITERATIVE = ["spir", "fossils", "cholqr"]
DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def on_device(cupy, value):
    if sp.issparse(value):
        import cupyx.scipy.sparse

        return cupyx.scipy.sparse.csr_matrix(sp.csr_matrix(value))
    return cupy.asarray(value) if isinstance(value, np.ndarray) else value


def solved(cupy, A, b, **options):
    options = {"rng": 1} | {name: on_device(cupy, value) for name, value in options.items()}
    result = randla.lstsq(on_device(cupy, A), cupy.asarray(b), **options)
    assert isinstance(result.x, cupy.ndarray)
    return result


def lapack(A, b, ridge=0.0, cond=None):
    """By the dual problem [A, sqrt(ridge) I]: LAPACK's solution of minimum norm."""
    both = np.hstack([A, np.sqrt(ridge) * np.eye(len(A))]) if ridge else A
    return np.linalg.lstsq(both, b, rcond=cond)[0][: A.shape[1]]


def relative(x, exact):
    return np.linalg.norm(x.get() - exact) / np.linalg.norm(exact)


def backward_error(A, x, b):
    return np.linalg.norm(b - A @ x) / (np.linalg.norm(A) * np.linalg.norm(x))


def problem(cond=1e4, m=20, n=300):
    rng = np.random.default_rng(4)
    A = haar(m, m, rng) * np.logspace(0, -np.log10(cond), m) @ haar(n, m, rng).T
    return A, rng.standard_normal(m)


def numbers(shape, dtype, rng):
    real = rng.standard_normal(shape)
    return (real + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else real).astype(dtype)


@pytest.mark.parametrize("method", [*ITERATIVE, "direct"])
@pytest.mark.parametrize("cond", [1e2, 1e8])
def test_answers_are_as_good_as_those_of_the_host(cupy, method, cond):
    A, b = problem(cond)
    found, expected = solved(cupy, A, b, method=method), randla.lstsq(A, b, rng=1, method=method)
    exact = lapack(A, b)
    assert found.method == method
    assert found.success
    assert found.rank == expected.rank == 20
    assert relative(found.x, exact) <= 20 * cond * 2.2e-16
    true = backward_error(A, found.x.get(), b)
    assert true <= 4 * max(backward_error(A, expected.x, b), 2e-16)
    assert found.backward_error <= max(4 * true, 2e-16)
    assert found.error_bound >= relative(found.x, exact) / 20
    np.testing.assert_allclose(found.s[[0, -1]], [1, 1 / cond], rtol=1e-6 if method in ("cholqr", "direct") else 0.9)


@pytest.mark.parametrize("method", ["spir", "direct"])
@pytest.mark.parametrize(("dtype", "order"), [*zip(DTYPES, "CCFF", strict=True), (np.float32, "strided"), (np.complex128, "C")])
def test_every_dtype_and_order(cupy, method, dtype, order):
    rng = np.random.default_rng(0)
    A, b = numbers((15, 200), dtype, rng), numbers((15, 3), dtype, rng)
    A = np.repeat(A, 2, axis=1)[:, ::2] if order == "strided" else np.asarray(A, order=order)
    for ridge in (0.0, 30.0):
        found = solved(cupy, A, b, method=method, ridge=ridge)
        assert found.x.dtype == dtype
        assert found.x.shape == (200, 3)
        assert relative(found.x, lapack(A, b, ridge)) < 50 * np.finfo(dtype).eps
        residuals = np.linalg.norm(b - A @ found.x.get(), axis=0)
        np.testing.assert_allclose(found.residual_norm, residuals, rtol=1e-3, atol=300 * np.finfo(dtype).eps)
        assert found.rank == 15


@pytest.mark.parametrize(("method", "dtype"), [("spir", np.float32), ("fossils", np.float64), ("cholqr", np.complex128)])
def test_sparse(cupy, method, dtype):
    A = sp.random_array((20, 300), density=0.2, rng=np.random.default_rng(0), format="csr").astype(dtype)
    if np.dtype(dtype).kind == "c":
        A = sp.csr_array(A - 2j * A.multiply(A))
    b, w = np.random.default_rng(1).standard_normal(20).astype(dtype), np.random.default_rng(2).uniform(0.1, 1, 20)
    root = np.sqrt(w)[:, None]
    for options in ({}, {"ridge": 2.0}, {"ridge": 2.0, "weights": w}):
        rows, right = (A.toarray(), b) if "weights" not in options else (A.toarray() * root, b * root[:, 0])
        found = solved(cupy, A, b, method=method, **options)
        assert relative(found.x, lapack(rows, right, options.get("ridge", 0.0))) < 200 * np.finfo(dtype).eps


@pytest.mark.parametrize("method", ["spir", "cholqr", "direct"])
@pytest.mark.parametrize("imaginary", [0, 1j])
@pytest.mark.parametrize("ridge", [0.0, 3.0])
def test_weights(cupy, method, imaginary, ridge):
    rng = np.random.default_rng(4)
    A, b, w = rng.standard_normal((30, 200)), rng.standard_normal(30), 10 ** rng.uniform(-2, 2, 30)
    A, b = A + imaginary * rng.standard_normal(A.shape), b + imaginary * rng.standard_normal(30)
    w[:4], b[:4] = 0, 1e5
    root = np.sqrt(w[4:])
    found = solved(cupy, A, b, weights=w, ridge=ridge, method=method)
    assert relative(found.x, lapack(A[4:] * root[:, None], b[4:] * root, ridge)) < 1e-11
    left = np.linalg.norm((b - A @ found.x.get())[4:] * root)
    assert found.residual_norm == pytest.approx(left, rel=1e-3, abs=1e-10)


@pytest.mark.parametrize("method", ["spir", "cholqr", "direct"])
def test_equations_that_contradict_each_other_are_weighed(cupy, method):
    rng = np.random.default_rng(5)
    A, b, w = rng.standard_normal((20, 200)), rng.standard_normal(20), rng.uniform(0.1, 10, 20)
    A[10:] = A[:10]
    root = np.sqrt(w)
    exact = lapack(A * root[:, None], b * root, cond=1e-10)
    with pytest.warns(randla.LstsqWarning, match="Rank 10 of 20"):
        found = solved(cupy, A, b, weights=w, method=method)
    assert relative(found.x, exact) < 1e-11
    assert found.backward_error < 1e-15
    assert found.rank == 10
    assert np.linalg.norm(lapack(A, b, cond=1e-10) - exact) > 0.01 * np.linalg.norm(exact)


@pytest.mark.parametrize("method", ["spir", "direct"])
@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_without_weight_there_are_no_equations(cupy, method, ridge):
    A, b = problem()
    told = method == "spir" and not ridge
    with pytest.warns(randla.LstsqWarning, match="Rank 0 of 1") if told else contextlib.nullcontext():
        found = solved(cupy, A, b, weights=np.zeros(20), ridge=ridge, method=method)
    assert not found.x.get().any()
    assert found.success
    assert found.residual_norm == found.backward_error == 0


@pytest.mark.parametrize("method", ["auto", "spir", "direct"])
def test_complex_right_hand_sides_of_real_equations(cupy, method):
    A, b = problem(10.0)
    B = np.column_stack([b + 1j * b[::-1], 1j * b])
    found = solved(cupy, A, B, method=method)
    assert relative(found.x, lapack(A, B)) < 1e-13
    assert (found.backward_error < 1e-15).all()
    assert (found.error_bound < 1e-13).all()
    tall = solved(cupy, A.T, np.outer(A[0], [1, 1j]), method=method)
    np.testing.assert_allclose(tall.x.get(), np.outer(np.eye(20)[0], [1, 1j]), rtol=0, atol=1e-13)
    assert (tall.error_bound < 1e-12).all()


@pytest.mark.parametrize("method", ["spir", "fossils", "direct"])
@pytest.mark.parametrize("tol", [1e-4, 1e-9])
def test_small_ridges_and_tolerances(cupy, method, tol):
    A, b = problem(1e6)
    exact = lapack(A, b, 1e-8)
    options = {} if method == "direct" else {"tol": tol, "sketch_size": 60}
    found = solved(cupy, A, b, ridge=1e-8, method=method, **options)
    left = b - A @ found.x.get()
    dual = np.linalg.lstsq(A.T, found.x.get())[0]
    true = np.linalg.norm(left - 1e-8 * dual) / np.linalg.norm(A) / np.linalg.norm(found.x.get())
    if method == "direct":
        assert relative(found.x, exact) < 1e-10
    else:
        assert found.status is randla.Status.CONVERGED
        assert true <= 1.5 * tol


def test_a_sketch_smaller_than_the_equations_with_a_ridge(cupy):
    rng = np.random.default_rng(0)
    A, b = haar(60, 60, rng) * np.logspace(0, -6, 60) @ haar(300, 60, rng).T, rng.standard_normal(60)
    found = solved(cupy, A, b, ridge=1e-2, sketch_size=45, method="spir")
    assert found.success
    assert relative(found.x, lapack(A, b, 1e-2)) < 1e-12


@pytest.mark.parametrize(
    ("method", "kind"), [*((method, np.asarray) for method in (*ITERATIVE, "direct")), ("spir", sp.csr_array)]
)
def test_nothing_as_long_as_the_solution_comes_to_the_host(cupy, method, kind):
    A, b = problem(1e8)
    fake_cupy.TRANSFERS.clear()
    result = solved(cupy, kind(A), b, method=method)
    assert result.success
    assert result.residual_norm < 1e-7
    assert result.rank == 20
    assert max(max(shape, default=0) for shape in fake_cupy.TRANSFERS) <= 21
    assert result.error_bound < 1e-6


def test_waits_of_the_direct_method(cupy):
    A, b = problem(1e3)
    A, b = cupy.asarray(A), cupy.asarray(b)
    fake_cupy.TRANSFERS.clear()
    result = randla.lstsq(A, b, method="direct")
    assert len(fake_cupy.TRANSFERS) == 1
    fake_cupy.TRANSFERS.clear()
    repr(result)
    assert (20, 20) in fake_cupy.TRANSFERS


def test_waits_do_not_grow_with_iterations(cupy):
    A, b = problem(1e3)
    waits = []
    for size in (280, 45):
        fake_cupy.TRANSFERS.clear()
        result = solved(cupy, A, b, method="fossils", sketch_size=size)
        waits.append((len(fake_cupy.TRANSFERS), result.iterations))
    (few_waits, few), (many_waits, many) = waits
    assert many >= few + 10
    assert many_waits - few_waits <= 2 * (many - few)


@pytest.mark.parametrize(("method", "imaginary"), [("spir", 0), ("fossils", 0), ("spir", 1j)])
def test_iterations_in_float32(cupy, in_single, method, imaginary):
    A, b = problem(1e3, 24, 400)
    A, b = A + imaginary * A[:, ::-1], b + imaginary * b[::-1]
    w = np.random.default_rng(6).uniform(0.5, 1, 24)
    w[3] = 0
    A[3] = 1e150  # which float32 cannot hold
    live, root = w > 0, np.sqrt(w[w > 0])
    for ridge in (0.0, 1e-3):
        for weights in (None, w):
            rows, right = (A[live], b[live]) if weights is None else (A[live] * root[:, None], b[live] * root)
            given = (A[live], b[live]) if weights is None else (A, b)
            found = solved(cupy, *given, weights=weights, ridge=ridge, method=method, sketch_size=200)
            assert found.success
            assert found.backward_error < 4e-16
            assert relative(found.x, lapack(rows, right, ridge)) < 1e-12
    assert len(in_single) == 4


@pytest.mark.parametrize("method", ["spir", "fossils"])
def test_a_copy_that_does_not_do_is_given_up(cupy, in_single, monkeypatch, method):
    """As if the condition number had been estimated a thousand times too small."""
    A, b = problem(1e8)
    monkeypatch.setattr(_device_inner, "_SINGLE_EPS", 1e-14)
    found = solved(cupy, A, b, method=method, sketch_size=200)
    assert len(in_single) == 1
    assert found.success
    assert backward_error(A, found.x.get(), b) < 4e-16


@pytest.mark.parametrize("block", [1, 9000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_direct_by_blocks(cupy, monkeypatch, dtype, block):
    rng = np.random.default_rng(0)
    A, b = numbers((20, 650), dtype, rng), numbers((20, 2), dtype, rng)
    w = rng.uniform(0.1, 2, 20)
    w[[0, 7]] = 0
    root = np.sqrt(w)[:, None]
    monkeypatch.setattr("randla._backend.DEVICE_FACTORED", block)
    for ridge in (0.0, 5.0):
        for weights in (None, w):
            rows, right = (A, b) if weights is None else (A * root, b * root)
            found = solved(cupy, A, b, method="direct", ridge=ridge, weights=weights)
            assert found.x.dtype == dtype
            assert relative(found.x, lapack(rows, right, ridge)) < 50 * np.finfo(dtype).eps
            assert found.backward_error.max() < 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("stop_at", [1, 2])
def test_what_the_callback_was_shown_is_returned(cupy, stop_at):
    A, b = problem()
    for complex_b in (b, b * (1 - 3j)):
        shown = []

        def callback(intermediate_result, shown=shown):
            shown.append(intermediate_result.x)
            if len(shown) == stop_at:
                raise StopIteration

        found = solved(cupy, A, complex_b, method="spir", sketch_size=60, callback=callback)
        assert found.status is randla.Status.STOPPED
        assert np.array_equal(found.x.get(), shown[-1].get())
        assert (1e-8 if stop_at == 1 else 0) < relative(found.x, lapack(A, complex_b)) < 2


def test_limits_and_goals_out_of_reach_are_told(cupy):
    A, b = problem()
    with pytest.warns(randla.LstsqWarning, match="iteration limit"):
        assert solved(cupy, A, b, method="spir", sketch_size=40, maxiter=12).iterations == 12
    with pytest.warns(randla.LstsqWarning, match="stopped before"):
        found = solved(cupy, A, b, method="spir", tol=1e-19)
    assert relative(found.x, lapack(A, b)) < 1e-10


@pytest.mark.parametrize("method", ["spir", "direct"])
def test_what_is_not_finite_is_refused(cupy, method):
    A, b = problem()
    for where, name in ((A[3], "A"), (b, "b")):
        where[7], before = np.nan, where[7]
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            solved(cupy, A, b, method=method)
        where[7] = before


def test_unsuitable_methods_are_refused(cupy):
    A, b = problem()
    for method in ("momentum", "lsqr", "sketch", "linf"):
        with pytest.raises(ValueError, match=f"where A has fewer rows than columns; got '{method}'"):
            solved(cupy, A, b, method=method)
    with pytest.raises(TypeError, match="method 'direct' needs a dense array"):
        solved(cupy, sp.csr_array(A), b, method="direct")
    with pytest.raises(ValueError, match="allow_copy=False"):
        solved(cupy, A, b, method="direct", allow_copy=False)


def test_auto(cupy):
    rng = np.random.default_rng(0)
    for shape in ((0, 0), (0, 5), (1, 2), (1, 60), (40, 50), (20, 400)):
        A, b = rng.standard_normal(shape), rng.standard_normal(shape[0])
        found = solved(cupy, A, b)
        assert found.x.shape == (shape[1],)
        if shape[0]:
            np.testing.assert_allclose(found.x.get(), lapack(A, b), rtol=0, atol=1e-11)
    for k in (0, 2):
        assert solved(cupy, np.ones((3, 5)) + np.eye(3, 5), np.ones((3, k))).x.shape == (5, k)

    def chosen(shape, **options):
        class Shaped:
            __cuda_array_interface__ = None

            def __init__(self, *sizes):
                self.shape, self.size, self.dtype = sizes, int(np.prod(sizes)), np.dtype(np.float64)

            def __len__(self):
                return self.shape[0]

        given = {"allow_copy": True, "sketched": False} | options
        return plan.choose(Shaped(*shape), Shaped(shape[0]), "auto", **given)

    assert chosen((20, 400)) == chosen((900, 1000)) == "direct"
    assert chosen((128, 10**6)) == chosen((2048, 10**6)) == "spir"
    assert chosen((20, 400), allow_copy=False) == chosen((20, 400), sketched=True) == "spir"


@pytest.mark.parametrize("method", ["spir", "direct"])
def test_results_print_replay_and_forget_the_device(cupy, method):
    A, b = problem()
    first = solved(cupy, A, b, method=method, rng=None)
    again = solved(cupy, A, b, method=method, rng=first.seed)
    assert np.array_equal(first.x.get(), again.x.get())
    assert "backward_error" in repr(first)
    first.x = first.x.get()
    kept = pickle.loads(pickle.dumps(first))
    assert kept.backward_error == again.backward_error
    assert kept.residual_norm == again.residual_norm
