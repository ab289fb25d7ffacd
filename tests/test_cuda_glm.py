"""CUDA kernels for generalized linear models: losses with the bits of the processor, passes that are their parts."""

import emulated
import numpy as np
import pytest
import scipy.sparse as sp
from emulated import OnDevice
from glm_oracles import LOSSES, labels_of, parameter_of
from test_cuda_rows import LAYOUTS, assert_near, call, exact, listed, on_device, sparse, unset

from randla import _cpu
from randla.optimize.losses import _NATIVE

pytestmark = pytest.mark.usefixtures("kernels")

NAMES = [*LOSSES, "softmax"]
CLASSES = 3


def number_of(name):
    return (11, 1.0) if name == "softmax" else (_NATIVE[name].id, parameter_of(name))


def labels(name, count, rng, classes=CLASSES):
    return rng.choice(np.arange(classes) if name == "softmax" else labels_of(name), count).astype(float)


def emulate(name, *arguments):
    return getattr(emulated.module(), name)(*map(on_device, arguments))


def margins(count, k, rng):
    """Of every size, and zeros."""
    z = rng.standard_normal((k, count)) * 10 ** rng.uniform(-12, 1.3, (k, count))
    z[:, : count // 20] = 0
    return z


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("count", "weighted"), [(0, False), (1, True), (1000, False), (70001, True)])
def test_losses_have_the_bits_of_the_processor(name, count, weighted):
    rng, k = np.random.default_rng(count), CLASSES if name == "softmax" else 1
    z, u, y = margins(count, k, rng), margins(count, k, rng), labels(name, count, rng)
    w = rng.random(count) if weighted else None
    c, d, total = unset(k, count), unset(k, count), unset(1)
    c1, d1 = unset(k, count), unset(k, count)
    emulate("loss_terms", *number_of(name), y, w, z, c, d, total)
    expected = _cpu.loss_terms(*number_of(name), y, w, z, c1, d1)
    assert np.array_equal(c, c1)
    assert np.array_equal(d, d1)
    # Every value has the same bits; their sum has another order.
    assert total[0] == pytest.approx(expected, rel=1e-13)
    sums = unset(2)
    at = d if name == "softmax" else z
    emulate("loss_difference", *number_of(name), y, w, at, u, sums)
    expected = _cpu.loss_difference(*number_of(name), y, w, at, u)
    assert sums[1] == pytest.approx(expected[1], rel=1e-13)
    assert abs(sums[0] - expected[0]) <= 1e-15 * np.sqrt(max(1, count) * expected[1]) * 8


@pytest.mark.parametrize("name", NAMES)
def test_single_changes_have_the_bits_of_the_processor(name):
    rng, k = np.random.default_rng(9), CLASSES if name == "softmax" else 1
    for _ in range(60):
        z, u, y = margins(1, k, rng), margins(1, k, rng), labels(name, 1, rng)
        if name == "softmax":
            z = rng.dirichlet(np.ones(k))[:, None].copy()
        sums = unset(2)
        emulate("loss_difference", *number_of(name), y, None, z, u, sums)
        assert tuple(sums) == _cpu.loss_difference(*number_of(name), y, None, z, u)


def test_terms_may_lie_where_the_margins_were():
    for name in ("logistic", "softmax"):
        rng, k = np.random.default_rng(0), CLASSES if name == "softmax" else 1
        z, y = margins(500, k, rng), labels(name, 500, rng)
        c, d, e, total = unset(k, 500), unset(k, 500), unset(k, 500), unset(1)
        emulate("loss_terms", *number_of(name), y, None, z, c, d, total)
        emulate("loss_terms", *number_of(name), y, None, z, z, e, None)
        assert np.array_equal(c, z)
        assert np.array_equal(d, e)
    only = unset(1, 500)
    emulate("loss_terms", *number_of("tukey"), y, None, margins(500, 1, rng), only, None, None)
    assert not np.isnan(only).any()


def check_pass(A, name, rows=None, weighted=True, classes=CLASSES):
    """A pass against its parts: margins, losses of them, and sums of rows."""
    rng, n = np.random.default_rng(A.shape[1]), A.shape[1]
    k = classes if name == "softmax" else 1
    a = exact(A) if rows is None else exact(A)[rows]
    count = len(a)
    x, y = rng.standard_normal((k, n)) / np.sqrt(max(n, 1)), labels(name, count, rng, k)
    w = rng.random(count) if weighted else None
    z, c, d, g, total = unset(k, count), unset(k, count), unset(k, count), unset(k, n), unset(1)
    call("glm", A, rows, *number_of(name), y, w, x, z, c, d, g, total)
    assert_near(z, x @ a.T, np.abs(x) @ np.abs(a.T), n)
    c1, d1, total1 = unset(k, count), unset(k, count), unset(1)
    emulate("loss_terms", *number_of(name), y, w, z, c1, d1, total1)
    assert np.array_equal(c, c1)
    assert np.array_equal(d, d1)
    assert total == pytest.approx(total1, rel=1e-13)
    assert_near(g, c.astype(np.longdouble) @ a, np.abs(c) @ np.abs(a), count)
    # Outputs that are not wanted change nothing.
    h, e = unset(k, n), unset(k, count)
    call("glm", A, rows, *number_of(name), y, w, x, None, None, e if name == "softmax" else None, h, None)
    assert np.array_equal(g, h)
    if name == "softmax":
        check_softmax_product(A, a, rows, x, d, w)


def check_softmax_product(A, a, rows, x, p, w):
    g = unset(*x.shape)
    call("softmax_product", A, rows, x, p, w, g)
    u = (x @ a.T).astype(float)
    t = (1 if w is None else w) * p * (u - (p * u).sum(axis=0))
    sizes = (np.abs(p) * (np.abs(x) @ np.abs(a.T) + (p * (np.abs(x) @ np.abs(a.T))).sum(axis=0))) @ np.abs(a)
    assert_near(g, t.astype(np.longdouble) @ a, sizes, a.size / max(len(a), 1) + len(a))


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_is_its_parts(name):
    for n in (5, 130):
        A = np.random.default_rng(n).standard_normal((201, n))
        check_pass(A, name)
        check_pass(A.astype(np.float32), name, weighted=False)
        check_pass(A, name, rows=listed(201, 90))
        check_pass(np.asfortranarray(A), name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 60, 100, 200, 380, 390, 1600, 2100])
def test_passes_of_every_width_and_layout(n, dtype, layout):
    A = LAYOUTS[layout](np.random.default_rng(n).standard_normal((77, n)).astype(dtype))
    check_pass(A, "logistic")
    check_pass(A, "softmax")


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 8, 9, 17])
def test_softmax_of_any_number_of_classes(classes):
    A = np.random.default_rng(classes).standard_normal((150, 40))
    check_pass(A, "softmax", classes=classes)
    check_pass(A, "softmax", classes=classes, rows=np.random.default_rng(1).permutation(150)[:70])
    check_pass(sp.csr_array(A * (np.abs(A) > 1)), "softmax", classes=classes)


@pytest.mark.parametrize("name", ["logistic", "huber", "softmax"])
def test_passes_of_sparse_matrices(name):
    A = sparse(300, 70, 20, np.int32, np.float32)
    check_pass(A, name)
    check_pass(A, name, rows=listed(300, 120))
    check_pass(A, name, rows=np.zeros(0, np.int64))


def test_passes_without_rows():
    for name in ("logistic", "softmax"):
        check_pass(np.zeros((0, 5)), name)
        check_pass(np.zeros((4, 0)), name)


def test_what_is_refused():
    A, x, y = np.ones((4, 3)), np.ones((1, 3)), np.ones(4)
    module = emulated.module()
    with pytest.raises(ValueError, match="unknown loss"):
        module.glm(OnDevice(A), None, 12, 1.0, OnDevice(y), None, OnDevice(x), None, None, None, None, None)
    with pytest.raises(ValueError, match="softmax needs d"):
        module.glm(OnDevice(A), None, 11, 1.0, OnDevice(y), None, OnDevice(x), None, None, None, None, None)
    with pytest.raises(ValueError, match="y has the wrong size"):
        module.loss_terms(0, 1.0, OnDevice(x[0]), None, OnDevice(y[None]), OnDevice(y[None].copy()), None, None)
    with pytest.raises(ValueError, match="several margins"):
        module.loss_difference(0, 1.0, OnDevice(y[:2]), None, OnDevice(np.ones((2, 2))), OnDevice(np.ones((2, 2))), None)
