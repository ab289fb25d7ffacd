"""Every CUDA kernel in several orders of threads and blocks, watched for races, and what a device would refuse.

The emulated device runs the threads between two barriers in the order it is told and looks at what they read and write
(csrc/emulated): what depends on the order, or on a barrier that is not there, fails here.
"""

import os
import re

import emulated
import numpy as np
import pytest
import scipy.sparse as sp
import test_cuda_butterfly as butterflies
import test_cuda_fwht as transforms
import test_cuda_glm as losses
import test_cuda_rows as rows
import test_cuda_sketches as sketches
from emulated import OnDevice
from product_oracles import CHAINS, random_product

from randla.structured.pattern import Chain

SMALLEST = 99 << 10  # bytes of shared memory that a block may have on sm_120, the least of all architectures
ORDERS = {"ascending": 0, "descending": 1, "one": 2, "another": 77}


class Recorder:
    """A module, a class of it or one of its objects that keeps the bytes of all arrays after each call."""

    def __init__(self, inner, bits):
        self.inner, self.bits = inner, bits

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        return Recorder(found, self.bits) if callable(found) else found

    def __call__(self, *args, **options):
        found = self.inner(*(arg.inner if isinstance(arg, Recorder) else arg for arg in args), **options)
        self.bits += [arg.array.tobytes() for arg in args if isinstance(arg, OnDevice) and arg.array.flags.writeable]
        return Recorder(found, self.bits) if type(found).__module__ == self.inner.__module__ else found


@pytest.fixture
def device():
    """The emulated device, set back afterwards."""
    found = emulated.compiled()
    yield found
    found._set_order(0)
    found._watch(False)
    found._set_device(227 << 10, 3)


def each_dtype(f):
    def both():
        for dtype in (np.float32, np.float64):
            f(dtype)

    return both


def of_chain(chain, batch, dtype, *, gradients=True, merge=True):
    P = random_product(chain, np.dtype(dtype))
    butterflies.assert_products(P, batches=(batch,), merge=merge, assert_close=butterflies.assert_close_to_host)
    if gradients:
        butterflies.assert_gradients(P, batch)


def of_dense_rows():
    rng = np.random.default_rng(0)
    for shape in ((40, 5), (70, 66), (37, 260), (21, 1100), (9, 2100)):
        A = rng.standard_normal(shape)
        for k in (1, 3, 8):
            rows.check_residual(A, k, np.float64)
        rows.check_residual(A.astype(np.float32), 1, np.float32)
        rows.check_residual(np.asfortranarray(A), 1, np.float64)
    A = rng.standard_normal((60, 37))
    rows.check_product(A, 3, rows.listed(60, 50))


def of_sparse_rows():
    A = rows.sparse(40, 9000, 30, np.int32, np.float32)
    rows.check_residual(A, 1, np.float64)
    rows.check_product(A, 2, rows.listed(40, 21))
    rows.check_residual(rows.sparse(300, 20, 3, np.int64, np.float64), 4, np.float64)


def of_losses():
    A = np.random.default_rng(1).standard_normal((101, 30))
    for name in ("logistic", "softmax"):
        losses.check_pass(A, name)
        losses.check_pass(np.asfortranarray(A), name)
        losses.check_pass(A, name, rows=rows.listed(101, 60))
        losses.check_pass(sp.csr_array(A * (np.abs(A) > 1)), name)
    losses.check_pass(A[:50, :20].repeat(110, axis=1), "logistic")
    losses.test_losses_have_the_bits_of_the_processor("softmax", 1000, weighted=True)


def of_sparse_sketches(dtype):
    for family, nnz, layout in ((sketches.STACK, 8, "C"), (sketches.SIGN, 3, "F"), (sketches.STACK, 1, "off")):
        sketches.test_sparse_sketch(dtype, layout, family, 50, 300, nnz, 0, 12, 0, 300)
        sketches.test_sparse_sketch_adjoint(dtype, layout, family, 40, nnz, 12, 5, 60)
        sketches.test_csr(dtype, np.int32, 30, 100, 40, 4)
        sketches.test_gather(dtype, layout, 40, 60, 12)
    sketches.test_csr(dtype, np.int64, 7, 60, 9000, 30)
    sketches.test_sparse_sketch_by_windows(dtype, "C", sketches.STACK, 50, 8, 0, 20, 10, 200, 64)


def of_dense_sketches(dtype):
    for family in (0, 1):
        sketches.test_dense_entries(dtype, family, 400, 31, 200, 0, 257)
    for block in (16, 32, 64, 128):
        sketches.test_block_srht(dtype, block, 300, 4096, 5, 100, 1100)
        sketches.test_block_srht_adjoint(dtype, block, 300, 4096, 5, 100, 1100)
    sketches.test_block_srht_in_pieces(dtype, 16, 90, 2)


def of_transforms(dtype):
    for layout in ("C", "F"):
        sketches.test_srtt(dtype, layout, 300, 1500, 1, 5, 100, 900)
        sketches.test_srtt_adjoint(dtype, layout, 20, 1000, 2, 9, 0, 1000)
    for shape in ((3, 64, 1), (1, 1 << 14, 1), (2, 4, 16), (2, 512, 5), (1, 1024, 33), (1, 2048, 7)):
        transforms.test_bits_of_the_processor(dtype, shape)


def of_small_kernels():
    X, out = np.ones((40, 6)), np.full((9, 6), np.nan)
    A = sp.random_array((9, 40), density=0.3, format="csr", rng=np.random.default_rng(0))
    emulated.module().csr_product(*sketches.device(A.data, A.indptr, A.indices, X, out))
    np.testing.assert_allclose(out, A @ X, rtol=1e-14)
    numbers = np.full(700, np.nan)
    emulated.module().uniform(5, 1, 2, 3, OnDevice(numbers))
    assert len(set(numbers)) == 700
    for layout in ("C", "F"):
        for n in (16, 300):
            rows.test_row_squares(n, layout, np.float32)


CASES = {
    "dense rows": of_dense_rows,
    "sparse rows": of_sparse_rows,
    "losses": of_losses,
    "sparse sketches": each_dtype(of_sparse_sketches),
    "dense sketches": each_dtype(of_dense_sketches),
    "transforms": each_dtype(of_transforms),
    "small kernels": of_small_kernels,
    "fused stages": each_dtype(lambda dtype: of_chain(Chain.dyadic(64), 21, dtype)),
    "rows of three packs": lambda: of_chain(Chain.dyadic(1024), 48, np.float32, gradients=False),
    "several runs": lambda: of_chain(Chain.dyadic(2048), 24, np.complex64, gradients=False),
    "complex stages": lambda: of_chain(CHAINS["kaleidoscope"], 9, np.complex128, merge=False),
    "any stages": each_dtype(lambda dtype: of_chain(CHAINS["mixed"], 9, dtype)),
    "large blocks": each_dtype(lambda dtype: of_chain(butterflies.LARGE["small between large"], 9, dtype)),
    "blocks down": lambda: of_chain(butterflies.LARGE["blocks down"], 9, np.float32, gradients=False),
}


def outcome(device, case, monkeypatch):
    bits = []
    monkeypatch.setattr(emulated, "REAL", Recorder(device, bits))
    CASES[case]()
    return bits


@pytest.mark.parametrize("case", CASES)
def test_bits_depend_on_no_order_and_nothing_races(case, device, monkeypatch):
    """Nor on what the device has: more shared memory and other numbers of multiprocessors change tiles alone."""
    expected = outcome(device, case, monkeypatch)
    device._set_device(SMALLEST, 7)
    for order in (1, 2):
        device._set_order(order)
        assert outcome(device, case, monkeypatch) == expected
    device._set_order(77)
    device._watch(True)
    assert outcome(device, case, monkeypatch) == expected
    LAUNCHED[case] = device._launched()


LAUNCHED = {}


def test_every_kernel_has_been_watched(device):
    """Of all structs with threads there is one among those that the cases launch."""
    for case in CASES.keys() - LAUNCHED.keys():  # where this process has not run them
        device._watch(True)
        CASES[case]()
        LAUNCHED[case] = device._launched()
        device._watch(False)
    launched = set().union(*LAUNCHED.values())
    sources = [path for end in ("cu", "h", "inl") for path in emulated.CSRC.glob(f"cuda/*.{end}")]
    kernels = {
        name
        for path in sources
        for name in re.findall(r"struct (\w+) \{[^}]*?constexpr int [^;]*\bkThreads =", path.read_text())
    }
    kernels -= {"SrhtDeal"}
    assert len(kernels) > 30
    assert [name for name in sorted(kernels) if not any(re.search(rf"\b{name}\b", run) for run in launched)] == []


FAULTS = {
    "a missing barrier": (1, "race"),
    "a slow reader": (2, "race .* writes what .* has read|race .* reads what .* has written"),
    "a barrier of warps only": (3, "race"),
    "two blocks write the same": (4, "race .* writes what .* has written"),
    "memory that nobody has written": (5, "race .* nobody has written"),
    "threads with other steps": (6, "different numbers of steps"),
    "a pack at an odd place": (7, "not aligned"),
    "sums dealt too early": (8, "dealt sums"),
}


@pytest.mark.skipif("RANDLA_SANITIZE" in os.environ, reason="sanitizers take the place of the watch")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault, order, device):
    number, message = FAULTS[fault]
    out = np.zeros(128, np.int32)
    device._set_order(ORDERS[order])
    device._watch(True)
    device._faulty(0, out.ctypes.data)
    with pytest.raises((RuntimeError, ValueError), match=message):
        device._faulty(number, out.ctypes.data)


def test_orders_differ(device):
    found = set()
    for order in ORDERS.values():
        device._set_order(order)
        out = np.zeros(128, np.int32)
        device._faulty(1, out.ctypes.data)
        found.add(out.tobytes())
    assert len(found) == len(ORDERS)


# What a device would refuse.


def test_grids_have_an_end(device):
    out = np.lib.stride_tricks.as_strided(np.zeros(1), (2, 1 << 40), (0, 0))
    with pytest.raises(ValueError, match="too large for one launch"):
        device.dense_sketch(0, 4, 1, OnDevice(out), 0, 0)


def test_rows_beyond_one_grid(device):
    """65535 blocks lie along y: of Gaussian rows two in each."""
    expected, found = np.zeros((132_000, 1)), np.zeros((132_000, 1))
    sketches._cpu.dense_sketch(0, 132_001, 3, expected, 1, 0)
    device.dense_sketch(0, 132_001, 3, OnDevice(found), 1, 0)
    assert np.array_equal(found, expected)


def test_shared_memory_has_an_end(device):
    x = np.zeros((1, 256, 16))
    device._set_device(16 << 10, 3)
    with pytest.raises(ValueError, match="more shared memory than the device has"):
        device.fwht(OnDevice(x), OnDevice(x), 1.0)


@pytest.mark.parametrize("kilobytes", [48, 99, 163])
def test_tiles_fit_every_device(kilobytes, device):
    """Chains and transforms are cut by the shared memory there is, and no bit depends on it."""
    cases = [random_product(chain, np.dtype(np.float32)) for chain in (Chain.dyadic(1024), Chain.dyadic(512).T)]
    inputs = [np.random.default_rng(0).standard_normal((P.shape[1], 50)).astype(np.float32) for P in cases]
    x = np.random.default_rng(1).standard_normal((1, 1024, 40))
    expected = [butterflies.multiplied(butterflies.plan(P, merge=True), P, X, "C") for P, X in zip(cases, inputs, strict=True)]
    transformed = transforms.transformed(x, np.empty_like(x), 1.0)
    device._set_device(kilobytes << 10, 132)
    for P, X, Y in zip(cases, inputs, expected, strict=True):
        assert np.array_equal(butterflies.multiplied(butterflies.plan(P, merge=True), P, X, "C"), Y)
    assert np.array_equal(transforms.transformed(x, np.empty_like(x), 1.0), transformed)


def test_arrays_of_another_device_and_of_the_host(device):
    x, y = np.zeros((1, 4, 1)), np.zeros((1, 4, 1))
    for place, message in (
        (1, "to must be on the current device, 0; it is on device 1"),
        (-1, "to must be memory of a CUDA device"),
    ):
        device._place(y.ctypes.data, place)
        with pytest.raises(TypeError, match=message):
            device.fwht(OnDevice(x), OnDevice(y), 1.0)
    device._place(y.ctypes.data, 0)
    device.fwht(OnDevice(x), OnDevice(y), 1.0)


class Nowhere(OnDevice):
    """An empty array as CuPy has it: at no address."""

    @property
    def __cuda_array_interface__(self):
        return super().__cuda_array_interface__ | {"data": (0, False)}


def test_empty_arrays_are_nowhere(device):
    nothing, none, g, squares = Nowhere(np.zeros((0, 3))), Nowhere(np.zeros((1, 0))), np.ones((1, 3)), np.ones(1)
    device.residual(nothing, OnDevice(np.ones((1, 3))), none, none, OnDevice(g), None, OnDevice(squares))
    assert not g.any()
    assert not squares.any()
    out = np.ones((5, 3))
    device.sparse_sketch(0, 5, 10, 2, 0, 1, nothing, 0, OnDevice(out))
    device.block_srht(5, 10, 16, 1, nothing, 0, 0, 1, OnDevice(out))
    assert (out == 1).all()
    device.sparse_sketch_adjoint(0, 3, 10, 2, 0, 1, OnDevice(g.T.copy()), 0, Nowhere(np.zeros((0, 1))))
    device.dense_sketch(0, 4, 1, nothing, 0, 0)
    device.fwht(Nowhere(np.zeros((0, 4, 1))), Nowhere(np.zeros((0, 4, 1))), 1.0)
    device.row_squares(nothing, None, None, Nowhere(np.zeros(0)))
    P = random_product(CHAINS["mixed"], np.dtype(np.float64))
    butterflies.plan(P).apply(Nowhere(np.zeros((P.shape[1], 0))), Nowhere(np.zeros((P.shape[0], 0))))
