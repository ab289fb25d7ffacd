"""Least squares on a device: passes in float32, factors that stay there, what the host waits for, and the direct method."""

import fake_cupy
import numpy as np
import pytest
from problems import least_squares

import randla
from randla import _device, _device_factor, _device_inner, _plan_device, plan


def solved(cupy, A, b, **options):
    options = {name: cupy.asarray(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}
    result = randla.lstsq(cupy.asarray(A), cupy.asarray(b), rng=1, **options)
    assert isinstance(result.x, cupy.ndarray)
    return result


@pytest.mark.parametrize("method", ["spir", "fossils"])
@pytest.mark.parametrize("cond", [1.0, 1e2, 1e4, 1e5, 1e7, 1e10, 1e12])
def test_accuracy_is_that_of_float64(cupy, in_single, method, cond):
    problem = least_squares(1200, 24, cond, 1e-3)
    found = solved(cupy, problem.A, problem.b, method=method, sketch_size=300)
    expected = randla.lstsq(problem.A, problem.b, rng=1, method=method, sketch_size=300)
    assert found.success
    assert found.backward_error <= max(4 * expected.backward_error, 2e-16)
    # With condition numbers above this the copy would lose what the smallest singular values belong to.
    assert len(in_single) == (cond <= 1e5)


@pytest.mark.parametrize("order", ["C", "F"])
def test_ridge_weights_and_several_right_hand_sides_in_float32(cupy, in_single, order):
    rng = np.random.default_rng(0)
    A, b, w = rng.standard_normal((800, 20)), rng.standard_normal((800, 3)), rng.uniform(0, 1, 800)
    A *= 10.0 ** rng.integers(-120, 120, 20)  # columns that float32 cannot hold
    w[::7] = 0
    A[::7] = 1e150
    found = solved(cupy, np.asarray(A, order=order), b, weights=w, sketch_size=240)
    sizes = np.linalg.norm(A[w > 0], axis=0)
    root = np.sqrt(w[w > 0])[:, None]
    expected = np.linalg.lstsq(A[w > 0] / sizes * root, b[w > 0] * root)[0]
    np.testing.assert_allclose(found.x.get() * sizes[:, None], expected, rtol=0, atol=1e-13)
    assert len(in_single) == 1
    A = rng.standard_normal((800, 20))
    found = solved(cupy, A, b, ridge=50.0, sketch_size=240)
    expected = np.linalg.solve(A.T @ A + 50 * np.eye(20), A.T @ b)
    np.testing.assert_allclose(found.x.get(), expected, rtol=0, atol=1e-14)
    assert len(in_single) == 2


def test_coherent_rows_and_complex_numbers_in_float32(cupy, in_single):
    rng = np.random.default_rng(0)
    A = 1e-6 * rng.standard_normal((1200, 12)) + 1e-6j * rng.standard_normal((1200, 12))
    A[:12] += np.eye(12)
    b = rng.standard_normal(1200) + 1j * rng.standard_normal(1200)
    found = solved(cupy, A, b, sketch_size=400)
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A, b)[0], rtol=0, atol=1e-12)
    assert found.backward_error < 1e-15
    assert len(in_single) == 1


@pytest.mark.parametrize("method", ["spir", "fossils"])
def test_a_copy_that_does_not_do_is_given_up(cupy, in_single, monkeypatch, method):
    """As if the condition number had been estimated a thousand times too small."""
    problem = least_squares(2000, 24, 1e8, 1e-3)
    monkeypatch.setattr(_device_inner, "_SINGLE_EPS", 1e-14)
    restored = []
    restore = _device_inner.DeviceInner.restore
    monkeypatch.setattr(_device_inner.DeviceInner, "restore", lambda self: restored.append(restore(self)) or restored[-1])
    found = solved(cupy, problem.A, problem.b, method=method, sketch_size=300)
    assert len(in_single) == 1
    assert True in restored
    assert found.success
    assert found.backward_error < 2e-16


def test_without_room_there_is_no_copy(cupy, in_single, monkeypatch):
    problem = least_squares(2000, 24, 10.0, 1e-3)
    monkeypatch.setattr(_device, "_has_room", lambda xp, size: size < 4 * 2000 * 24)
    assert solved(cupy, problem.A, problem.b, method="spir", sketch_size=300).success
    monkeypatch.setattr(_device, "_has_room", lambda xp, size: size <= 4 * 2000 * 24)
    assert not in_single
    assert solved(cupy, problem.A, problem.b, method="spir", sketch_size=300).success
    assert in_single
    # float32 data gain nothing.
    assert solved(cupy, problem.A.astype(np.float32), problem.b.astype(np.float32), method="spir").success
    assert len(in_single) == 1


def test_small_matrices_are_not_copied(cupy, monkeypatch):
    monkeypatch.setattr(_device, "DeviceSingle", None)
    problem = least_squares(2000, 24, 10.0, 1e-3)
    assert solved(cupy, problem.A, problem.b, method="spir").success


def spd(cupy, values):
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((len(values), len(values))))[0]
    G = (Q * values) @ Q.T
    return cupy.asarray((G + G.T) / 2)


@pytest.mark.parametrize("told", ["ignore", "raise"])
def test_a_cholesky_factor_that_failed_is_found_out(cupy, told):
    import cupyx

    with cupyx.errstate(linalg=told):
        require_no_wrong_factor(cupy, 40)


def require_no_wrong_factor(cupy, n):
    R, inverse = _device_factor.root_of(spd(cupy, np.linspace(1, 2, n)))
    np.testing.assert_allclose((R @ inverse).get(), np.eye(n), rtol=0, atol=1e-14)
    for smallest in (0.0, -1e-18, -1e-10, -1.0, 1e-15, np.nan):
        assert _device_factor.root_of(spd(cupy, np.r_[smallest, np.linspace(1, 2, n - 1)])) is None
    singular = np.random.default_rng(1).standard_normal((n, n))
    singular[:, 7] = singular[:, 30]
    assert _device_factor.root_of(cupy.asarray(singular.T @ singular)) is None


def test_finite_entries_too_large_to_be_added_up(cupy):
    A = 1.7e308 * np.sign(np.random.default_rng(0).standard_normal((400, 3)))
    for given, b in ((A, np.ones(400)), (cupy.asarray(A), cupy.ones(400))):
        with pytest.raises(ValueError, match="A must be small enough to be added up; its sketch overflowed"):
            randla.lstsq(given, b, method="spir", rng=1)


@pytest.mark.parametrize("method", ["spir", "cholqr"])
@pytest.mark.parametrize("gap", [0.0, 1e-18, 1e-9])
def test_sketches_that_are_singular_or_indefinite_by_rounding(cupy, gap, method):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((900, 15))
    A[:, 8] = A[:, 3] + gap * rng.standard_normal(900)
    b = rng.standard_normal(900)
    if gap < 1e-16:
        with pytest.warns(randla.LstsqWarning, match="Rank 14 of 15"):
            found = solved(cupy, A, b, method=method)
        np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A, b)[0], rtol=0, atol=1e-12)
    else:
        found = solved(cupy, A, b, method=method)
        assert found.rank == 15
        assert found.backward_error < 1e-15


@pytest.mark.parametrize("method", ["spir", "fossils", "cholqr", "momentum", "sketch", "direct"])
def test_no_matrix_of_columns_or_rows_comes_to_the_host(cupy, method):
    m, n = 500, 15
    problem = least_squares(m, n, 1e9, 1e-3)  # by QR of the sketch
    problems = [(problem.A, problem.b), (problem.A + 1j * problem.A[::-1], problem.b * 1j)]
    for A, b in problems if method in ("spir", "direct") else problems[:1]:
        fake_cupy.TRANSFERS.clear()
        result = solved(cupy, A, b, method=method)
        # A problem of complex numbers is a real one of twice the size.
        assert max(np.prod(shape, dtype=int) for shape in fake_cupy.TRANSFERS) <= 2 * n + 2
        assert result.success


@pytest.mark.parametrize("method", ["spir", "fossils", "momentum"])
def test_iterations_wait_for_nothing(cupy, monkeypatch, method):
    """Between two looks of the host, none of which is in the iterations."""
    waited = []

    def noted(function):
        def call(*arguments):
            if waited:
                waited[-1].append(len(fake_cupy.TRANSFERS))
            return function(*arguments)

        return call

    def looked(*arguments, look=_device_inner._Watch.look):
        look(*arguments)
        waited.append([])

    problem = least_squares(2000, 30, 1e6, 1e-3)
    monkeypatch.setattr(_device_inner._Watch, "look", looked)
    for name in ("conjugate_gradients", "heavy_ball"):
        inner = getattr(_device_inner.DeviceInner, name)
        monkeypatch.setattr(_device_inner.DeviceInner, name, lambda *a, inner=inner, **o: waited.append([]) or inner(*a, **o))
    passes = noted(_device.DeviceDense.pass_over)
    monkeypatch.setattr(_device.DeviceDense, "pass_over", passes)
    if method == "momentum":
        inner = _device_inner.DeviceInner.momentum
        monkeypatch.setattr(_device_inner.DeviceInner, "momentum", lambda *a: waited.append([]) or inner(*a))
    result = solved(cupy, problem.A, problem.b, method=method)
    runs = [counts for counts in waited if len(counts) > 1]
    assert sum(len(counts) for counts in waited) >= result.iterations >= 10
    # A residual of the host begins where the iterations end: the last count of a run may be another one.
    assert sum(len(counts) for counts in runs) >= 0.7 * result.iterations
    assert all(len(set(counts[:-1])) == 1 for counts in runs)


def test_waits_do_not_grow_with_iterations(cupy):
    waits = []
    for size in (700, 90):
        problem = least_squares(1000, 30, 1e3, 1e-3)
        fake_cupy.TRANSFERS.clear()
        result = solved(cupy, problem.A, problem.b, method="spir", sketch_size=size)
        waits.append((len(fake_cupy.TRANSFERS), result.iterations))
    (few_waits, few), (many_waits, many) = waits
    assert many >= few + 15
    assert many_waits - few_waits <= 2 * (many - few)


DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cond", [10.0, 1e5])
def test_direct(cupy, dtype, cond, monkeypatch):
    eps = np.finfo(dtype).eps
    problem = least_squares(700, 30, cond, 1e-3)
    A, b = problem.A.astype(dtype), problem.b.astype(dtype)
    if np.dtype(dtype).kind == "c":
        A, b = A + 1j * A[:, ::-1], b + 1j * b[::-1]
    for block in (1 << 28, 4000):
        monkeypatch.setattr("randla._backend.DEVICE_FACTORED", block)
        for given in (A, np.asfortranarray(A), np.repeat(A, 2, axis=1)[:, ::2]):
            found, expected = solved(cupy, given, b, method="direct"), randla.lstsq(A, b, method="direct")
            assert found.x.dtype == dtype
            assert found.status == expected.status
            assert found.backward_error <= max(4 * expected.backward_error, 4 * eps)
            assert found.residual_norm == pytest.approx(expected.residual_norm, rel=float(100 * eps))
            assert found.cond == pytest.approx(expected.cond, rel=0.1)
            np.testing.assert_allclose(found.s, expected.s, rtol=0, atol=200 * eps * expected.s[0])


@pytest.mark.parametrize("columns", [None, 3])
def test_direct_with_ridge_weights_and_deficient_rank(cupy, columns):
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((300, 12)), rng.standard_normal((300, *([columns] if columns else [])))
    w = rng.uniform(0, 1, 300)
    w[5] = 0
    for options in ({"ridge": 1e-3}, {"weights": w, "ridge": 2.0}, {}, {"weights": w}):
        if options == {}:
            A = A * 10.0 ** rng.integers(-100, 100, 12)
        found, expected = solved(cupy, A, b, method="direct", **options), randla.lstsq(A, b, method="direct", **options)
        size = np.linalg.norm(expected.x.reshape(12, -1), axis=1).reshape(12, *[1] * (b.ndim - 1))
        assert (abs(found.x.get() - expected.x) <= 1e-12 * size).all()
        assert found.rank == expected.rank == 12
    A = rng.standard_normal((300, 12))
    A[:, 4] = A[:, 2] - A[:, 7]
    with pytest.warns(randla.LstsqWarning, match="Rank 11 of 12"):
        found = solved(cupy, A, b, method="direct")
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A, b)[0], rtol=0, atol=1e-13)
    assert found.backward_error is not None
    A[:, 6] = 0
    with pytest.warns(randla.LstsqWarning, match="Rank 10 of 12"):
        found = solved(cupy, A, b, method="direct")
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A, b)[0], rtol=0, atol=1e-13)


def test_direct_refuses_what_is_not_finite(cupy):
    A, b = np.random.default_rng(0).standard_normal((50, 4)), np.ones(50)
    for where, name in ((A, "A"), (b, "b")):
        where[7] = np.inf
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            solved(cupy, A, b, method="direct")
        where[7] = 1.0
    with pytest.raises(ValueError, match="works on a copy of A"):
        solved(cupy, A, b, method="direct", allow_copy=False)
    assert solved(cupy, A, np.zeros((50, 0)), method="direct").x.shape == (4, 0)


def test_rows_of_weight_zero_have_no_residual(cupy):
    rng = np.random.default_rng(0)
    for dtype in (np.float64, np.complex128):
        A, w = rng.standard_normal((60, 4)).astype(dtype), rng.uniform(1, 2, 60)
        B = rng.standard_normal((2, 60 * (1 + (dtype is np.complex128))))
        w[[3, 9]] = 0
        A[[3, 9]] = 1e300
        from randla._matrix import wrap

        X = rng.standard_normal((2, wrap(A).shape[1]))
        R, G, squares = wrap(cupy.asarray(A), cupy.asarray(w)).residual(X, cupy.asarray(B))
        expected = wrap(A, w).residual(X, B)
        np.testing.assert_allclose(R.get(), expected[0], rtol=0, atol=1e-13)
        assert not R.get()[:, [3, 9]].any()
        np.testing.assert_allclose(G, expected[1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(squares, expected[2], rtol=1e-13)


def test_which_method_is_chosen(cupy):
    def shaped(*shape):
        return cupy.broadcast_to(cupy.zeros(()), shape)

    def chosen(m, n, dtype=np.float64, **options):
        given = {"allow_copy": True, "sketched": False} | options
        return plan.choose(cupy.empty((m, n), dtype), cupy.empty(m, dtype), "auto", **given)

    assert chosen(20_000, 40) == "direct"
    assert plan.choose(shaped(10**6, 128), shaped(10**6), "auto", allow_copy=True, sketched=False) == "cholqr"
    assert chosen(700, 600) == chosen(700, 600, np.complex64) == "direct"
    assert chosen(700, 600, allow_copy=False) == chosen(700, 600, sketched=True) == "spir"
    assert chosen(5, 0) == "direct"
    # One read of A is the least that a solution takes.
    for n in (100, 512, 2048):
        for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
            costs = _plan_device.seconds(10**6, n, 1, dtype)
            assert min(costs.values()) > 1e6 * n * dtype.itemsize / 4.3e12
            assert (min(costs, key=costs.get) == "spir") == (n >= 512 or dtype.itemsize == 4)


def test_auto_takes_all_shapes(cupy):
    rng = np.random.default_rng(0)
    for shape in ((0, 0), (4, 0), (5, 5), (60, 1), (400, 40)):
        A, b = rng.standard_normal(shape), rng.standard_normal(shape[0])
        found = solved(cupy, A, b)
        if shape[1]:
            np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A, b)[0], rtol=0, atol=1e-11)
        assert found.x.shape == (shape[1],)
