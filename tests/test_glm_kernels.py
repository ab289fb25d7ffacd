"""Passes over rows for generalized linear models: every width, layout, list of rows and number of vectors, in long double."""

import hashlib
import json

import numpy as np
import pytest
import scipy.sparse as sp
from glm_oracles import EPS, LOSSES, dense, labels_of, parameter_of
from test_determinism import child, openmp, threads_for

import randla
from randla import _cpu
from randla.optimize.losses import _NATIVE

pytestmark = pytest.mark.usefixtures("one_blas_thread")

# Every number of blocks of eight columns with every remainder, and the loops for longer rows.
WIDTHS = [*range(1, 71), 100, 500]


def shuffled(A, wide=False):
    """CSR with entries out of order, some of them split in two."""
    A = sp.coo_array(A)
    rng = np.random.default_rng(A.nnz)
    split = A.data * np.where(rng.random(A.nnz) < 0.3, 0.25, 0.0).astype(A.dtype)
    row, col = (np.concatenate([a, a]) for a in A.coords)
    order = rng.permutation(len(row))
    order = order[np.argsort(row[order], kind="stable")]
    index = np.int64 if wide else np.int32
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=A.shape[0]))]).astype(index)
    return sp.csr_array((np.concatenate([A.data - split, split])[order], col[order].astype(index), indptr), shape=A.shape)


DENSE = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, axis=1), 3, axis=0)[::3, ::2],
    "gap": lambda A: np.pad(A, ((0, 0), (1, 2)))[:, 1:-2],
    "reversed": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "F gap": lambda A: np.asfortranarray(np.pad(A, ((2, 1), (0, 0))))[2:-1],
    "F strided": lambda A: np.asfortranarray(np.repeat(A, 2, axis=0))[::2],
}
STORED = DENSE | {"csr": shuffled, "csr64": lambda A: shuffled(A, wide=True)}
# Layouts in which rows are summed in the order of "C"; "F" and CSR have their own.
SAME = [name for name in DENSE if name not in ("F", "F gap")]


@pytest.fixture(params=STORED)
def stored(request):
    return STORED[request.param]


def matrix(m, n, dtype, rng):
    return (rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.7)).astype(dtype)


def parts(A):
    return (A.data, A.indptr, A.indices, A.shape[1]) if sp.issparse(A) else (A,)


def call(name, A, *arguments):
    return getattr(_cpu, f"{name}_csr" if sp.issparse(A) else name)(*parts(A), *arguments)


def products(A, rows, x, d):
    """x A' and (x A' * d) A."""
    u, g = np.full((len(x), A.shape[0] if rows is None else len(rows)), 9.0), np.full_like(x, 9.0)
    call("weighted_product", A, rows, x, None, d, u, g)
    return u, g


def adjoint(A, rows, c):
    g = np.full((len(c), A.shape[1]), 9.0)
    call("weighted_product", A, rows, None, c, None, None, g)
    return g


def evaluate(A, rows, name, y, w, x):
    """f, z, c, d, g of a loss."""
    count = A.shape[0] if rows is None else len(rows)
    z, c, d = np.full((3, len(x), count), 9.0)
    g = np.full_like(x, 9.0)
    number, p = (11, 1.0) if name == "softmax" else (_NATIVE[name].id, parameter_of(name))
    return call("glm", A, rows, number, p, y, w, x, z, c, d, g), z, c, d, g


def softmax(A, rows, x, p, w):
    g = np.full_like(x, 9.0)
    call("softmax_product", A, rows, x, p, w, g)
    return g


def require_close(got, left, right):
    """A product to 32 ulp of the product of the sizes."""
    assert np.all(np.abs(got - left @ right) <= 32 * EPS * (np.abs(left) @ np.abs(right)) + 1e-300)


def same(one, other):
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(one, other, strict=True))


def test_products_of_every_width(stored, dtype):
    rng = np.random.default_rng(0)
    for n in WIDTHS:
        m = int(rng.integers(1, 90))
        A = stored(matrix(m, n, dtype, rng))
        wide = dense(A)
        x, d = rng.standard_normal((9, n)), rng.standard_normal(m)
        u, g = products(A, None, x, d)
        require_close(u, x.astype(np.longdouble), wide.T)
        require_close(g, (u * d).astype(np.longdouble), wide)
        require_close(adjoint(A, None, u), u.astype(np.longdouble), wide)
        # A vector has the same bits alone and among any others.
        for k in range(1, 9):
            assert same(products(A, None, x[:k].copy(), d), (u[:k], g[:k])), (n, k)
            assert same([adjoint(A, None, u[9 - k :].copy())], [adjoint(A, None, u)[9 - k :]]), (n, k)


@pytest.mark.parametrize("m", [1, 7, 8, 9, 64, 65, 128, 129, 2047, 2049])
def test_products_of_every_height(stored, dtype, m):
    rng = np.random.default_rng(m)
    for n in (1, 5, 8, 22, 64, 130):
        A = stored(matrix(m, n, dtype, rng))
        x, d = rng.standard_normal((3, n)), rng.standard_normal(m)
        u, g = products(A, None, x, d)
        require_close(u, x.astype(np.longdouble), dense(A).T)
        # Sums of many rows: rounding grows with their number.
        error = np.abs(g - (u * d).astype(np.longdouble) @ dense(A))
        assert np.all(error <= 8 * EPS * np.sqrt(m + 16) * (np.abs(u * d) @ np.abs(dense(A))) + 1e-300)


def test_layouts_have_the_bits_of_contiguous_rows(dtype):
    rng = np.random.default_rng(1)
    for n in (*range(1, 40), 64, 65, 200):
        A = matrix(150, n, dtype, rng)
        x, d = rng.standard_normal((5, n)), rng.standard_normal(150)
        expected = products(A, None, x, d)
        for name in SAME:
            assert same(products(DENSE[name](A), None, x, d), expected), (name, n)


def row_lists(m, rng):
    return {
        "permuted": rng.permutation(m),
        "repeated": rng.integers(0, m, 2 * m + 3),
        "few": rng.permutation(m)[: m // 7],
        "one": np.array([m - 1]),
        "empty": np.zeros(0, int),
        "ascending": np.arange(1, m, 2),
    }


def test_listed_rows_have_the_bits_of_gathered_rows(stored, dtype):
    rng = np.random.default_rng(2)
    for n in (1, 3, 7, 8, 9, 16, 23, 33, 61, 64, 65, 130):
        A = matrix(120, n, dtype, rng)
        for name, rows in row_lists(120, rng).items():
            kept = stored(A)
            gathered = kept[rows] if sp.issparse(kept) else A[rows]
            x, d, y = rng.standard_normal((4, n)), rng.standard_normal(len(rows)), rng.integers(0, 2, len(rows)).astype(float)
            got = products(kept, rows, x, d)
            assert same(got, products(gathered, None, x, d)), (name, n)
            assert same([adjoint(kept, rows, got[0])], [adjoint(gathered, None, got[0])]), (name, n)
            for loss, k in (("logistic", 1), ("softmax", 4)):
                one = evaluate(kept, rows, loss, y, None, x[:k].copy())
                assert same(one, evaluate(gathered, None, loss, y, None, x[:k].copy())), (name, n, loss)
            p = one[3]
            assert same([softmax(kept, rows, x, p, None)], [softmax(gathered, None, x, p, None)]), (name, n)


@pytest.mark.parametrize("name", [*LOSSES, "softmax"])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_pass_is_its_parts(stored, name, weighted, dtype):
    rng = np.random.default_rng(3)
    k = 3 if name == "softmax" else 1
    for m, n in ((1, 1), (5, 3), (63, 8), (70, 13), (201, 40), (33, 150)):
        A = stored(matrix(m, n, dtype, rng))
        labels = (0.0, 1.0, 2.0) if name == "softmax" else labels_of(name)
        x, y = rng.standard_normal((k, n)) / np.sqrt(n), rng.choice(labels, m)
        w = rng.random(m) if weighted else None
        f, z, c, d, g = evaluate(A, None, name, y, w, x)
        require_close(z, x.astype(np.longdouble), dense(A).T)
        c1, d1 = np.empty_like(z), np.empty_like(z)
        number, p = (11, 1.0) if name == "softmax" else (_NATIVE[name].id, parameter_of(name))
        f1 = _cpu.loss_terms(number, p, y, w, z, c1, d1)
        assert f == pytest.approx(f1, rel=1e-13, abs=1e-13 * m)
        assert same((c, d, g), (c1, d1, adjoint(A, None, c)))
        if name == "softmax":
            continue
        # Outputs that are not wanted change nothing.
        assert call("glm", A, None, number, p, y, w, x, None, None, None, None) == f
        only = np.empty_like(g)
        call("glm", A, None, number, p, y, w, x, None, None, None, only)
        assert same([only], [g])
        (hessian_product,) = products(A, None, x, d[0])[1:]
        require_close(hessian_product, ((x @ dense(A).T) * d).astype(np.longdouble), dense(A))


def test_softmax_products(stored, dtype):
    rng = np.random.default_rng(4)
    for n in (1, 2, 7, 8, 9, 17, 40, 100):
        for k in range(1, 10):
            m = int(rng.integers(1, 80))
            A = stored(matrix(m, n, dtype, rng))
            v, logits = rng.standard_normal((k, n)), rng.standard_normal((k, m))
            p = np.exp(logits) / np.exp(logits).sum(axis=0)
            for w in (None, rng.random(m)):
                t = v @ dense(A).T
                t = p * (t - (p * t).sum(axis=0)) * (1 if w is None else w)
                size = p * (np.abs(v) @ np.abs(dense(A).T)) * (1 if w is None else w)
                size = size + p * size.sum(axis=0)
                got = softmax(A, None, v, p, w)
                assert np.all(np.abs(got - t @ dense(A)) <= 64 * EPS * (size @ np.abs(dense(A))) + 1e-300)


def gram(A, rows, d):
    G = np.zeros((A.shape[1], A.shape[1]))
    if sp.issparse(A):
        _cpu.weighted_gram_csr(A.data, A.indptr, A.indices, rows, d, G)
    else:
        _cpu.gram(A, None, False, None, None, G, d)
    return G


def test_weighted_gram(stored, dtype):
    rng = np.random.default_rng(5)
    for n in (*range(1, 34), 47, 48, 49, 64, 100):
        m = int(rng.integers(1, 200))
        A = stored(matrix(m, n, dtype, rng))
        d = rng.standard_normal(m)  # as indefinite as Hessians are
        G, wide = gram(A, None, d), dense(A)
        assert np.array_equal(G, G.T)
        require_close(G, wide.T * d, wide)
        if sp.issparse(A):
            rows = rng.integers(0, m, 2 * m)
            assert same([gram(A, rows, np.tile(d, 2))], [gram(A[rows], None, np.tile(d, 2))])


def test_weighted_gram_adds(dtype):
    A = matrix(40, 5, dtype, np.random.default_rng(6))
    for form in (np.ascontiguousarray, sp.csr_array):
        B, d = form(A), np.linspace(-1, 1, 40)
        G = np.ones((5, 5))
        if sp.issparse(B):
            _cpu.weighted_gram_csr(B.data, B.indptr, B.indices, None, d, G)
        else:
            _cpu.gram(B, None, False, None, None, G, d)
        np.testing.assert_allclose(G - 1, gram(B, None, d), atol=1e-14)


def test_no_rows(stored, dtype):
    A = stored(np.empty((0, 5), dtype)) if stored is not STORED["csr64"] else sp.csr_array((0, 5), dtype=dtype)
    x, none = np.ones((2, 5)), np.empty(0)
    u, g = products(A, None, x, none)
    assert u.shape == (2, 0)
    assert np.array_equal(g, np.zeros((2, 5)))
    f, *_, g = evaluate(A, None, "logistic", none, None, x[:1].copy())
    assert f == 0
    assert np.array_equal(g, np.zeros((1, 5)))
    assert np.array_equal(softmax(A, None, x, np.empty((2, 0)), None), np.zeros((2, 5)))
    assert np.array_equal(gram(A, None, none), np.zeros((5, 5)))


def test_nan_and_inf_stay_where_they_are():
    A = np.random.default_rng(7).standard_normal((40, 19))
    for bad in (np.nan, np.inf):
        B = A.copy()
        B[17, 18] = bad
        for form in (np.ascontiguousarray, np.asfortranarray, sp.csr_array):
            u, g = products(form(B), None, np.ones((2, 19)), np.ones(40))
            assert np.array_equal(np.flatnonzero(~np.isfinite(u[0])), [17])
            assert not np.isfinite(g).any()


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def fingerprints(threads):
    before = _cpu.max_threads()
    randla.set_num_threads(threads)
    found = {}
    rng = np.random.default_rng(8)
    for dtype in (np.float32, np.float64):
        for m, n in ((24_000, 22), (9000, 5), (700, 300)):
            A = matrix(m, n, dtype, rng)
            y, w, d = rng.integers(0, 2, m).astype(float), rng.random(m), rng.standard_normal(m)
            x, rows = rng.standard_normal((4, n)) / np.sqrt(n), rng.integers(0, m, m // 2)
            for name in ("C", "F", "strided", "csr", "csr64"):
                B = STORED[name](A)
                key = f"{name} {n} {dtype.__name__}"
                found[f"{key} products"] = digest(*products(B, None, x, d), *products(B, rows, x, d[: len(rows)].copy()))
                for loss in (*LOSSES, "softmax") if name == "C" else ("logistic", "softmax"):
                    at = x if loss == "softmax" else x[:1].copy()
                    found[f"{key} {loss}"] = digest(*evaluate(B, None, loss, y, w, at))
                found[f"{key} gram"] = digest(gram(B, None, d)) if n < 300 else ""
                p = np.full((4, m), 0.25)
                found[f"{key} softmax product"] = digest(softmax(B, None, x, p, w))
            z, u = rng.standard_normal((2, 1, m))
            for loss in LOSSES:
                sums = _cpu.loss_difference(_NATIVE[loss].id, parameter_of(loss), y, w, z, u)
                found[f"{n} {loss} change {dtype.__name__}"] = repr(sums)
    randla.set_num_threads(before)
    return found


@openmp
def test_instruction_sets_and_threads_give_the_same_bits():
    found = {}
    for isa in _cpu.available_isas():
        counts = threads_for(isa)
        code = f"import json, test_glm_kernels as k; print(json.dumps([k._cpu.isa(), [k.fingerprints(n) for n in {counts}]]))"
        run = child(code, RANDLA_ISA=isa, OPENBLAS_NUM_THREADS="1")
        assert run.returncode == 0, run.stderr
        used, prints = json.loads(run.stdout)
        assert used == isa
        found |= {(isa, threads): of for threads, of in zip(counts, prints, strict=True)}
    expected = found["baseline", 1]
    assert len(expected) > 200
    for key, prints in found.items():
        differing = [name for name, value in expected.items() if prints[name] != value]
        assert not differing, f"{key} differs from one thread on the baseline"


def ones(*shape):
    return np.ones(shape)


LIST = np.array([0, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: evaluate(ones(5, 2), np.array([0, 5]), "logistic", ones(2), None, ones(1, 2)), "rows must be rows of A"),
        (lambda: products(ones(5, 2), np.array([-1]), ones(1, 2), None), "rows must be rows of A"),
        (lambda: softmax(sp.csr_array(ones(5, 2)), np.array([7]), ones(2, 2), ones(2, 1), None), "rows must be rows of A"),
        (lambda: gram(sp.csr_array(ones(5, 2)), np.array([5]), ones(1)), "rows must be rows of A"),
        (lambda: _cpu.glm(ones(5, 2), None, 12, 1.0, ones(5), None, ones(1, 2), None, None, None, None), "unknown loss"),
        (lambda: _cpu.glm(ones(5, 2), None, -1, 1.0, ones(5), None, ones(1, 2), None, None, None, None), "unknown loss"),
        (lambda: evaluate(ones(5, 2), None, "logistic", ones(4), None, ones(1, 2)), r"y must be \(count,\)"),
        (lambda: evaluate(ones(5, 2), LIST, "logistic", ones(5), None, ones(1, 2)), r"y must be \(count,\)"),
        (lambda: evaluate(ones(5, 2), None, "logistic", ones(5), ones(4), ones(1, 2)), r"w must be \(count,\)"),
        (lambda: _cpu.glm(ones(5, 2), None, 0, 1.0, ones(5), None, ones(1, 3), None, None, None, None), r"x must be \(k, n\)"),
        (lambda: _cpu.glm(ones(5, 2), None, 0, 1.0, ones(5), None, ones(2), None, None, None, None), r"x must be \(k, n\)"),
        (lambda: evaluate(ones(5, 2), None, "logistic", ones(5), None, ones(2, 2)), "other losses one vector"),
        (lambda: _cpu.glm(ones(5, 2), None, 11, 1.0, ones(5), None, ones(2, 2), None, None, None, None), "softmax needs d"),
        (lambda: evaluate(ones(5, 2), None, "softmax", ones(5), None, ones(0, 2)), "softmax needs d"),
        (
            lambda: _cpu.glm(ones(5, 2), None, 0, 1.0, ones(5), None, ones(1, 2), ones(1, 4), None, None, None),
            r"z must be \(k, c",
        ),
        (
            lambda: _cpu.glm(ones(5, 2), None, 0, 1.0, ones(5), None, ones(1, 2), None, ones(2, 5), None, None),
            r"c must be \(k, c",
        ),
        (
            lambda: _cpu.glm(ones(5, 2), None, 0, 1.0, ones(5), None, ones(1, 2), None, None, ones(5, 1), None),
            r"d must be \(k, c",
        ),
        (
            lambda: _cpu.glm(ones(5, 2), None, 0, 1.0, ones(5), None, ones(1, 2), None, None, None, ones(1, 5)),
            r"g must be \(k, n",
        ),
        (lambda: _cpu.weighted_product(ones(5, 2), None, None, None, None, None, None), "one of x and c"),
        (lambda: _cpu.weighted_product(ones(5, 2), None, ones(1, 2), ones(1, 5), None, None, None), "one of x and c"),
        (lambda: products(ones(5, 2), None, ones(1, 3), None), r"x must be \(k, n\)"),
        (lambda: adjoint(ones(5, 2), None, ones(1, 4)), r"c must be \(k, count\)"),
        (lambda: adjoint(ones(5, 2), None, ones(5)), r"c must be \(k, count\)"),
        (lambda: products(ones(5, 2), None, ones(1, 2), ones(4)), r"d must be \(count,\)"),
        (lambda: products(ones(5, 2), LIST, ones(1, 2), ones(5)), r"d must be \(count,\)"),
        (lambda: _cpu.weighted_product(ones(5, 2), None, ones(1, 2), None, None, ones(1, 4), None), r"u must be \(k, count\)"),
        (lambda: _cpu.weighted_product(ones(5, 2), None, ones(1, 2), None, None, None, ones(2, 2)), r"g must be \(k, n\)"),
        (lambda: softmax(ones(5, 2), None, ones(3), ones(3, 5), None), r"x must be \(k, n\)"),
        (lambda: softmax(ones(5, 2), None, ones(3, 2), ones(2, 5), None), r"p must be \(k, count\)"),
        (lambda: softmax(ones(5, 2), None, ones(3, 2), ones(3, 5), ones(4)), r"w must be \(count,\)"),
        (lambda: _cpu.softmax_product(ones(5, 2), None, ones(3, 2), ones(3, 5), None, ones(2, 2)), r"g must be \(k, n\)"),
        (
            lambda: _cpu.weighted_gram_csr(*parts(sp.csr_array(ones(5, 2)))[:3], None, ones(5), ones(2, 3)),
            r"G must be \(n, n\)",
        ),
        (
            lambda: _cpu.weighted_gram_csr(*parts(sp.csr_array(ones(5, 2)))[:3], None, ones(4), ones(2, 2)),
            r"d must be \(count,\)",
        ),
        (lambda: _cpu.gram(ones(5, 2), None, False, None, None, ones(2, 2), ones(4)), "weights must be"),
        (lambda: _cpu.loss_terms(0, 1.0, ones(5), None, ones(5), ones(1, 5), None), r"z must be \(k, count\)"),
        (lambda: _cpu.loss_terms(12, 1.0, ones(5), None, ones(1, 5), ones(1, 5), None), "unknown loss"),
        (lambda: _cpu.loss_terms(0, 1.0, ones(4), None, ones(1, 5), ones(1, 5), None), r"y must be \(count,\)"),
        (lambda: _cpu.loss_terms(0, 1.0, ones(5), ones(4), ones(1, 5), ones(1, 5), None), r"w must be \(count,\)"),
        (lambda: _cpu.loss_terms(0, 1.0, ones(5), None, ones(2, 5), ones(2, 5), None), "other losses one vector"),
        (lambda: _cpu.loss_terms(11, 1.0, ones(5), None, ones(2, 5), ones(2, 5), None), "softmax needs d"),
        (lambda: _cpu.loss_terms(0, 1.0, ones(5), None, ones(1, 5), ones(1, 4), None), r"c must be \(k, count\)"),
        (lambda: _cpu.loss_terms(0, 1.0, ones(5), None, ones(1, 5), ones(1, 5), ones(1, 4)), r"d must be \(k, count\)"),
        (lambda: _cpu.loss_difference(0, 1.0, ones(5), None, ones(5), ones(1, 5)), r"z must be \(k, count\)"),
        (lambda: _cpu.loss_difference(0, 1.0, ones(5), None, ones(2, 5), ones(2, 5)), "only softmax has several margins"),
        (lambda: _cpu.loss_difference(0, 1.0, ones(5), None, ones(1, 5), ones(1, 4)), r"u must be \(k, count\)"),
    ],
)
def test_kernels_refuse_what_does_not_fit(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_kernels_convert_nothing():
    single, integers = ones(1, 2).astype(np.float32), np.arange(2, dtype=np.int32)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _cpu.weighted_product(ones(5, 2), None, single, None, None, None, None)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _cpu.weighted_product(ones(5, 2), integers, ones(1, 2), None, None, None, None)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _cpu.weighted_product(ones(5, 2), None, ones(1, 4)[:, ::2], None, None, None, None)
