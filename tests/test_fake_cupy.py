"""The stand-ins for CuPy and for a device: as strict as what they stand for, and offering nothing that it lacks."""

import inspect
import json

import cupy_api
import emulated
import fake_cupy
import numpy as np
import on_device
import pytest
from emulated import Memory, OnDevice

import randla
from randla import _backend


def test_the_list_of_names_is_that_of_cupy():
    pytest.importorskip("cupyx.scipy.linalg", reason="CuPy and its libraries are needed to compare with")
    assert cupy_api.described() == json.loads(cupy_api.LIST.read_text())


def test_what_the_stand_in_adds_is_in_cupy_too():
    real = pytest.importorskip("cupy")
    pytest.importorskip("cupyx.scipy.sparse", reason="CuPy's libraries are needed to compare with")
    _, modules = fake_cupy.module()
    lacking = []
    for name, module in modules.items():
        place = real if name == "cupy" else __import__(name, fromlist=["_"])
        members = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        lacking += [f"{name}.{key}" for key in members if not hasattr(place, key)]
        for key, value in members.items():
            if inspect.isclass(value) and hasattr(place, key):
                public = {each for each in vars(value) if not each.startswith("_")}
                lacking += [f"{name}.{key}.{each}" for each in sorted(public) if not hasattr(getattr(place, key), each)]
        for key in vars(module.cuda) if name == "cupy" else ():
            lacking += [] if hasattr(real.cuda, key) else [f"cupy.cuda.{key}"]
    assert lacking == []


REFUSED = {
    "names of NumPy alone": lambda cupy, a: cupy.block([a]),
    "methods of NumPy alone": lambda cupy, a: a.setfield(1, float),
    "names of SciPy alone": lambda cupy, a: __import__("cupyx").scipy.linalg.qr(a),
    "functions through NumPy": lambda cupy, a: np.unstack(a),
    "ufuncs through NumPy": lambda cupy, a: np.spacing(a),
    "keywords of NumPy alone": lambda cupy, a: cupy.sum(a, where=a > 0),
    "keywords of methods": lambda cupy, a: a.max(initial=0),
    "too many arguments": lambda cupy, a: a.max(0, None, False, 0),
    "arrays of the host": lambda cupy, a: a + np.ones(3),
    "arrays of the host as arguments": lambda cupy, a: cupy.dot(a, np.ones(3)),
    "arrays of the host in place": lambda cupy, a: a.__iadd__(np.ones(3)),
    "silent transfers": lambda cupy, a: np.asarray(a),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cupy_refuses_is_refused(cupy, what):
    with pytest.raises((TypeError, AttributeError)):
        REFUSED[what](cupy, cupy.ones(3))


def test_reductions_are_arrays_of_the_device_and_their_values_transfers(monkeypatch):
    cupy = fake_cupy.install(monkeypatch)
    total = cupy.ones(3).sum()
    assert isinstance(total, cupy.ndarray)
    assert not fake_cupy.TRANSFERS
    assert float(total) == 3
    assert len(fake_cupy.TRANSFERS) == 1


class Produced:
    """An array that another stream still works on."""

    def __init__(self, array, stream):
        about = {key: array.__cuda_array_interface__[key] for key in ("shape", "strides", "typestr", "data", "version")}
        self.array, self.__cuda_array_interface__ = array, {**about, "stream": stream}


@pytest.mark.gpu
def test_work_of_other_streams_is_waited_for():
    cupy = pytest.importorskip("cupy")
    other, A = cupy.cuda.Stream(non_blocking=True), cupy.zeros((1 << 20, 16))
    S = randla.CountSketch().sample(64, len(A), rng=0)
    S @ A
    cupy.cuda.get_current_stream().synchronize()
    with other:
        for _ in range(200):
            A += 1
    found = S @ Produced(A, other.ptr)
    assert np.array_equal(found.get(), (S @ np.full((1 << 20, 1), 200.0)).repeat(16, axis=1))


def test_arrays_of_others_are_taken_by_cupy_which_waits_for_their_stream(monkeypatch):
    cupy, asked = fake_cupy.install(monkeypatch), []
    taken = Produced(OnDevice(np.ones((300, 4))), 7)
    taken.array = taken.array.array
    asarray = cupy.asarray
    monkeypatch.setattr(cupy, "asarray", lambda a, *args, **kwargs: asked.append(a) or asarray(a, *args, **kwargs))
    randla.CountSketch().sample(40, 300, rng=1) @ taken
    assert taken in asked


@pytest.mark.gpu
def test_torch_tensors_come_and_go_without_a_copy():
    torch = pytest.importorskip("torch")
    A, b = torch.randn(2000, 8, dtype=torch.float64, device="cuda"), torch.randn(2000, dtype=torch.float64, device="cuda")
    x = torch.from_dlpack(randla.lstsq(A, b, rng=0).x)
    assert x.is_cuda
    assert torch.linalg.norm(A.T @ (b - A @ x)) <= 1e-10
    assert _backend.adopted(A).data.ptr == A.data_ptr()


def through_copies(name, *arguments):
    kernels = on_device.Kernels(emulated.compiled(), Memory)
    return getattr(kernels, name)(*arguments)


@pytest.mark.parametrize("view", [np.s_[:, 1:-1], np.s_[::2, ::-1], np.s_[3:, :]])
def test_copies_on_a_device_have_the_strides_of_the_host(view):
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((40, 9))
    A = whole[view]
    x, b = rng.standard_normal((2, A.shape[1])), rng.standard_normal((2, len(A)))
    results = []
    for call in (through_copies, lambda name, *arguments: getattr(emulated.compiled(), name)(*arguments)):
        r, g = np.full(b.shape, np.nan), np.full(x.shape, np.nan)
        call("residual", *map(OnDevice, (A, x, b, r, g)))
        results.append((r, g))
    for found, expected in zip(*results, strict=True):
        assert np.array_equal(found, expected)


def test_copies_on_a_device_overlap_where_the_arrays_do():
    x = np.random.default_rng(0).standard_normal((2, 16, 3))
    y, z = x.copy(), x.copy()
    through_copies("fwht", OnDevice(y), OnDevice(y), 1.0)
    emulated.compiled().fwht(OnDevice(z), OnDevice(z), 1.0)
    assert np.array_equal(y, z)


def test_copies_on_a_device_may_not_be_written_where_the_array_may_not():
    x = np.ones((1, 4, 1))
    x.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only|randla kernel"):
        through_copies("fwht", OnDevice(x), OnDevice(x), 1.0)
