"""Trees of squares: their sums, and their draws before and after updates."""

import pickle

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
import stats

import randla
from randla.sampling._sum_trees import SumTrees
from randla.sampling.fkv import fkv
from randla.sampling.length_squared import LengthSquaredTree

EPS = np.finfo(float).eps

pytestmark = pytest.mark.usefixtures("one_blas_thread")


def matrix(m=9, n=7, *, rng=0, dtype=float):
    """Uneven sizes, some zeros, a zero row and a zero column."""
    rng = np.random.default_rng(rng)
    A = rng.standard_normal((m, n)) * (1 + rng.pareto(3, (m, 1)))
    if np.dtype(dtype).kind == "c":
        A = A * np.exp(2j * rng.random((m, n)))
    A[rng.random((m, n)) < 0.3] = 0
    A[3], A[:, 2] = 0, 0
    return A.astype(dtype)


FORMS = {
    "dense": np.array,
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "csr": sp.csr_array,
    "csc": sp.csc_matrix,
    "blocks": lambda a: randla.RowBlocks([a[:2], a[2:]]),
    "mixed": lambda a: [a[:4], sp.csr_array(a[4:])],
}


def in_proportion(counts, weights, what):
    """Chi-square of counts against weights that may be zero, rare cells being put together."""
    p = np.ravel(weights) / np.sum(weights)
    counts = np.ravel(counts)
    assert not counts[p == 0].any(), f"{what}: drew what is zero"
    rare = (p > 0) & (p * counts.sum() < 20)
    cells, chances = counts[(p > 0) & ~rare], p[(p > 0) & ~rare]
    if counts.sum() * p[rare].sum() >= 20:
        cells, chances = np.append(cells, counts[rare].sum()), np.append(chances, p[rare].sum())
    else:
        chances = chances / chances.sum()
    stats.chi_square_gate(cells, chances, what)


def check_draws(tree, A, what, k=40_000):
    """Every kind of draw against the squares of A, at the gate's false-alarm probability each."""
    squares = np.abs(A) ** 2
    rows, weights = tree.sample_rows(k)
    in_proportion(np.bincount(rows, minlength=len(A)), squares.sum(axis=1), f"{what}: rows")
    np.testing.assert_allclose(weights, squares.sum() / (k * squares.sum(axis=1)[rows]), rtol=1e-6)
    i, j, weights = tree.sample_entries(k)
    counts = np.zeros(A.shape)
    np.add.at(counts, (i, j), 1)
    in_proportion(counts, squares, f"{what}: entries")
    np.testing.assert_allclose(weights, squares.sum() / (k * squares[i, j]), rtol=1e-6)
    for row in np.flatnonzero(squares.any(axis=1))[:3]:
        columns, weights = tree.sample_columns_of_row(row, k)
        in_proportion(np.bincount(columns, minlength=A.shape[1]), squares[row], f"{what}: row {row}")
        np.testing.assert_allclose(weights, squares[row].sum() / (k * squares[row, columns]), rtol=1e-6)


def check_sums(tree, A):
    np.testing.assert_allclose(tree.row_norms, np.linalg.norm(A, axis=1), rtol=1e-6)
    assert tree.frobenius_norm == pytest.approx(np.linalg.norm(A), rel=1e-6)
    held = tree.rows(np.arange(len(A)))
    np.testing.assert_array_equal(held.toarray() if sp.issparse(held) else held, A)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128, np.complex64])
@pytest.mark.parametrize("form", FORMS)
def test_draws_have_the_probabilities_of_squares(form, dtype):
    A = matrix(dtype=dtype)
    tree = LengthSquaredTree(FORMS[form](A), rng=1)
    assert tree.dtype == np.dtype(dtype)
    assert tree.is_sparse == (form in ("csr", "csc", "mixed"))
    check_sums(tree, A)
    check_draws(tree, A, f"{form} {np.dtype(dtype)}")


@pytest.mark.parametrize("c", [1, 2, 3, 4, 5, 6, 7, 8, 13, 31, 32, 33, 100])
def test_every_leaf_has_the_share_of_the_line_that_its_size_is(c):
    # Exactly: integer leaves, and one point u of the middle of every unit of their sum.
    sizes = np.random.default_rng(c).integers(0, 4, c).astype(float)
    sizes[-1] = 2
    trees = SumTrees(np.array([0, c]), np.array([c, c]), 2 * c)
    trees.set_leaves(np.array([1]), sizes)
    total = int(sizes.sum())
    places = trees.draw(np.ones(total, int), (np.arange(total) + 0.5) / total)
    np.testing.assert_array_equal(np.bincount(places, minlength=c), sizes)
    assert trees.totals().tolist() == [0, total]
    # Node q is the sum of 2q and 2q + 1.
    nodes = trees.nodes[2 * c : 4 * c]
    np.testing.assert_array_equal(nodes[1:c], nodes[2 : 2 * c : 2] + nodes[3 : 2 * c : 2])


def test_trees_of_unequal_sizes_are_built_together():
    size = np.array([0, 3, 1, 0, 8, 5, 0])
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    together, apart = SumTrees(start, size, 17), SumTrees(start, size, 17)
    leaves = np.random.default_rng(0).random(17)
    together.set_leaves(np.arange(7), leaves)
    for t in range(7):
        apart.set_leaves(np.array([t]), leaves[start[t] : start[t] + size[t]])
    np.testing.assert_array_equal(together.nodes, apart.nodes)
    np.testing.assert_allclose(together.totals(), [leaves[s : s + c].sum() for s, c in zip(start, size, strict=True)])


def test_rounding_never_leads_to_a_leaf_that_is_zero():
    # Leaves of sizes that swallow each other, and the largest u there is.
    sizes = np.array([0, 1.0, 0, 1e-17, 0, 3e-17, 1.0, 0, 5e-324, 0, 0])
    trees = SumTrees(np.zeros(1, int), np.array([11]), 11)
    trees.set_leaves(np.zeros(1, int), sizes)
    steps = 2.0**-53 * np.arange(1, 2000)
    u = np.concatenate([np.linspace(0, 1, 2000, endpoint=False), 1 - steps, 0.5 - steps, 0.5 + steps])
    assert np.all(sizes[trees.draw(np.zeros(len(u), int), u)] > 0)


@pytest.mark.parametrize("sizes", [[0, 1, 0, 1], [1.5 * EPS, 0, 1 + 2 * EPS, 0]])
def test_first_and_last_points_of_the_line(sizes):
    # In the second tree rest - left is half way between the right sum and the number below it, and rounds to the sum.
    sizes = np.array(sizes)
    trees = SumTrees(np.zeros(1, int), np.array([4]), 4)
    trees.set_leaves(np.zeros(1, int), sizes)
    assert np.all(sizes[trees.draw(np.zeros(2, int), np.array([0, 1 - 2.0**-53]))] > 0)


def twin_draw(A, seed, number):
    """Row and column of one draw, from docs/definitions.md: a descent with sums made anew at every node."""
    words = [int(w) >> 11 for w in oracles.words64(np.uint64(number), 0, 18, seed)]

    def descend(sizes, u):
        c = len(sizes)

        def total(q):
            return sizes[q - c] if q >= c else total(2 * q) + total(2 * q + 1)

        node, rest = 1, u * total(1)
        while node < c:
            node *= 2
            if rest >= total(node):
                rest, node = rest - total(node), node + 1
        return node - c

    squares = A**2
    row = descend([descend_total(r) for r in squares], words[0] * 2.0**-53)
    return row, descend(list(squares[row]), words[1] * 2.0**-53)


def descend_total(sizes):
    c = len(sizes)
    nodes = [0.0] * c + list(sizes)
    for q in range(c - 1, 0, -1):
        nodes[q] = nodes[2 * q] + nodes[2 * q + 1]
    return nodes[1]


@pytest.mark.parametrize("seed", [0, 2**64 - 5])
def test_draws_follow_the_definition(seed):
    A = matrix(11, 6)
    tree = LengthSquaredTree(A, rng=seed)
    i, j, _ = tree.sample_entries(300)
    assert [twin_draw(A, seed, t) for t in range(300)] == list(zip(i.tolist(), j.tolist(), strict=True))


def test_draws_go_on_and_replay():
    A = matrix()
    tree = LengthSquaredTree(A, rng=5)
    i, j, weights = tree.sample_entries(10)
    assert tree.draws == 10
    first, second = tree.sample_entries(4, first=0), tree.sample_entries(6)
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]]), i)
    np.testing.assert_array_equal(np.concatenate([first[1], second[1]]), j)
    np.testing.assert_allclose(first[2] * 4, weights[:4] * 10)
    again = LengthSquaredTree(sp.csr_array(A), rng=tree.seed)
    np.testing.assert_array_equal(again.sample_rows(10)[0], i)
    assert pickle.loads(pickle.dumps(tree)).sample_rows(5)[0].tolist() == tree.sample_rows(5)[0].tolist()
    far = tree.sample_rows(3, first=2**33)[0]
    np.testing.assert_array_equal(far, tree.sample_rows(1000, first=2**33)[0][:3])
    assert LengthSquaredTree(A).seed != LengthSquaredTree(A).seed


# Updates.


def same_bits(tree, other, *, forms=True):
    """The same sums and the same draws."""
    np.testing.assert_array_equal(tree.row_norms, other.row_norms)
    assert tree.frobenius_norm == other.frobenius_norm
    for got, expected in zip(tree.sample_entries(2000, first=0), other.sample_entries(2000, first=0), strict=True):
        np.testing.assert_array_equal(got, expected)
    if forms:
        np.testing.assert_array_equal(tree._trees.nodes, other._trees.nodes)
        np.testing.assert_array_equal(tree._top.nodes, other._top.nodes)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
def test_many_updates_of_a_dense_matrix_equal_a_new_tree_bit_for_bit(dtype):
    A = matrix(30, 13, dtype=dtype)
    tree = LengthSquaredTree(A, rng=0)
    rng = np.random.default_rng(1)
    for _ in range(1500):
        i, j, value = rng.integers(30), rng.integers(13), rng.standard_normal() * 10.0 ** rng.integers(-9, 9)
        A[i, j] = 0 if rng.random() < 0.2 else value
        tree.update(i, j, A[i, j])
    A[4] = 0
    tree.update_row(4, np.zeros(13))
    A[5] = np.arange(13)
    tree.update_row(5, np.arange(13))
    same_bits(tree, LengthSquaredTree(A, rng=0))
    check_sums(tree, A)
    check_draws(tree, A, "after updates")


def test_many_updates_of_stored_entries_equal_a_new_tree_bit_for_bit():
    A = sp.random_array((40, 60), density=0.2, rng=0, format="csr")
    tree = LengthSquaredTree(A, rng=0)
    i, j = A.nonzero()
    rng = np.random.default_rng(1)
    new = A.copy()
    for s in rng.integers(A.nnz, size=1000):
        new.data[s] = rng.standard_normal()
        tree.update(i[s], j[s], new.data[s])
    same_bits(tree, LengthSquaredTree(new, rng=0))


def test_rows_of_a_sparse_matrix_are_replaced():
    A = matrix(12, 20)
    tree = LengthSquaredTree(sp.csr_array(A), rng=0)
    rng = np.random.default_rng(1)
    for i, density in [(0, 0.1), (0, 1), (3, 0.5), (3, 0), (5, 0.9), (5, 0.2), (5, 1), (11, 1)]:
        A[i] = rng.standard_normal(20) * (rng.random(20) < density)
        tree.update_row(i, A[i] if i % 2 else sp.csr_array(A[i : i + 1]))
        check_sums(tree, A)
    # Room that a row had before is empty when it grows again.
    for column in (2, 7, 11):
        A[3, column] = 1
        tree.update(3, column, 1.0)
    A[5] = 0
    A[5, :2] = 1
    tree.update_row(5, A[5])
    A[5, 2:5] = 2
    for column in (2, 3, 4):
        tree.update(5, column, 2.0)
        check_sums(tree, np.where(np.arange(12)[:, None] == 5, np.where(np.arange(20) <= column, A, 0), A))
    check_draws(tree, A, "rows grown again")
    tree.update_row(3, A[3])
    tree.update_row(5, A[5])
    # Where a row lies does not matter.
    same_bits(tree, LengthSquaredTree(sp.csr_array(A), rng=0), forms=False)
    check_draws(tree, A, "rows replaced")


def test_new_entries_of_a_sparse_matrix():
    A = np.zeros((6, 300))
    A[2, 5] = 1
    tree = LengthSquaredTree(sp.csr_array(A), rng=0)
    rng = np.random.default_rng(1)
    for s in range(900):
        i, j = rng.integers(5), rng.integers(300)
        A[i, j] = 0 if s % 7 == 0 else rng.standard_normal()
        tree.update(i, j, A[i, j])
        if s == 450:
            A[1] = np.arange(300) % 3
            tree.update_row(1, A[1])
    check_sums(tree, A)
    check_draws(tree, A, "new entries", k=150_000)
    # Room for entries doubles: what all moves left behind is less than what rows have now.
    assert len(tree._values) < 8 * np.count_nonzero(A)


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_an_update_changes_as_many_sums_as_the_trees_are_deep(form):
    A = np.random.default_rng(0).standard_normal((1000, 300))
    tree = LengthSquaredTree(form(A), rng=0)
    assert tree.depth == 10 + 9
    nodes, top = tree._trees.nodes.copy(), tree._top.nodes.copy()
    tree.update(700, 123, 3.0)
    changed = np.count_nonzero(nodes != tree._trees.nodes), np.count_nonzero(top != tree._top.nodes)
    # A leaf and the sums above it.
    assert 9 <= changed[0] <= 10
    assert 10 <= changed[1] <= 11
    assert len(nodes) + len(top) <= 2 * A.size + 2 * 1000 + 4


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_squares_beyond_the_range_of_floats(form, scale):
    A = matrix()
    tree = LengthSquaredTree(form(A * scale), rng=0)
    np.testing.assert_allclose(tree.row_norms / scale, np.linalg.norm(A, axis=1), rtol=1e-13)
    assert tree.frobenius_norm / scale == pytest.approx(np.linalg.norm(A))
    check_draws(tree, A, f"scale {scale:g}")
    # To another scale and back.
    changed = A.copy()
    for i in range(9):
        changed[i] = np.arange(7) - i
        for j in range(7):
            tree.update(i, j, changed[i, j])
    np.testing.assert_allclose(tree.row_norms, np.linalg.norm(changed, axis=1), rtol=1e-13)
    check_draws(tree, changed, f"from scale {scale:g}")


def test_rows_of_unlike_scales_have_their_own_columns():
    A = np.array([[3.0, 4.0], [3e-200, 4e-200], [0.0, 0.0], [3e-320, 0.0]])
    tree = LengthSquaredTree(A, rng=0)
    np.testing.assert_allclose(tree.row_norms, [5, 5e-200, 0, 3e-320], rtol=1e-15)
    assert set(tree.sample_rows(1000)[0]) == {0}
    columns, _ = tree.sample_columns_of_row(1, 20_000)
    in_proportion(np.bincount(columns), [9, 16], "tiny row")
    assert set(tree.sample_columns_of_row(3, 10)[0]) == {0}
    tree.update_row(0, [0, 0])
    assert tree.frobenius_norm == pytest.approx(5e-200)
    assert set(tree.sample_rows(1000)[0]) == {1}
    single = LengthSquaredTree(A.astype(np.float32), rng=0)
    np.testing.assert_array_equal(single.row_norms, [5, 0, 0, 0])
    full = LengthSquaredTree(np.full((2, 3), 1.5e308), rng=0)
    assert full.frobenius_norm == np.inf
    assert set(full.sample_rows(50)[0]) == {0, 1}


def test_inputs_may_be_read_only_and_are_copied():
    A = matrix()
    S = sp.csr_array((np.ones(3), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 4))
    for a in (A, S.data, S.indices, S.indptr):
        a.flags.writeable = False
    tree = LengthSquaredTree(A)
    tree.update(0, 0, 77.0)
    assert A[0, 0] != 77
    twice = LengthSquaredTree(S)
    assert twice.row_norms.tolist() == [2, 1]
    twice.update(0, 1, 5.0)
    assert S.data.tolist() == [1, 1, 1]
    whole = LengthSquaredTree(np.arange(6).reshape(2, 3))
    assert whole.dtype == np.float64
    assert whole.frobenius_norm == pytest.approx(np.sqrt(55))


def test_blocks_that_fill_the_same_memory_again():
    A = matrix(12, 5)
    buffer = np.empty((4, 5))

    def read():
        for i in range(0, 12, 4):
            buffer[:] = A[i : i + 4]
            yield buffer

    check_sums(LengthSquaredTree(randla.RowBlocks(read)), A)


@pytest.mark.parametrize("form", [np.zeros, sp.csr_array])
@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_matrices_without_entries(form, shape):
    tree = LengthSquaredTree(form(shape))
    assert tree.row_norms.tolist() == [0.0] * shape[0]
    assert tree.frobenius_norm == 0
    assert tree.depth >= 0
    assert len(tree.sample_rows(0)[0]) == len(tree.sample_entries(0)[2]) == 0
    with pytest.raises(ValueError, match=rf"A must have entries that are not zero.*shape \({shape[0]}, {shape[1]}\)"):
        tree.sample_rows(1)
    with pytest.raises(ValueError, match="A must have entries that are not zero"):
        fkv(tree, 1)
    if min(shape):
        tree.update(2, 1, 0.0)
        tree.update(2, 1, -3.0)
        assert set(tree.sample_rows(9)[0]) == {2}
        tree.update(2, 1, 0.0)
        with pytest.raises(ValueError, match="A must have entries that are not zero"):
            tree.sample_entries(1)


def test_one_entry():
    tree = LengthSquaredTree([[2.0]])
    assert tree.depth == 0
    assert [a.tolist() for a in tree.sample_entries(2)] == [[0, 0], [0, 0], [0.5, 0.5]]
    tree.update(0, 0, 3.0)
    assert tree.frobenius_norm == 3
    assert repr(tree).startswith("LengthSquaredTree(shape=(1, 1), dtype=float64, seed=")


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_blocks_of_entries(form):
    A = matrix()
    tree = LengthSquaredTree(form(A))
    tree.update(3, 6, 5.0)
    tree.update(3, 1, 4.0)
    A[3, 6], A[3, 1] = 5, 4
    np.testing.assert_array_equal(tree.block([3, 0, 3], [6, 1]), A[[3, 0, 3]][:, [6, 1]])
    rows = tree.rows(3)
    np.testing.assert_array_equal(rows.toarray() if sp.issparse(rows) else rows, A[3:4])


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_what_a_tree_refuses(form):
    A = matrix()
    tree = LengthSquaredTree(form(A))
    for value in (np.nan, np.inf):
        bad = A.copy()
        bad[2, 3] = value
        with pytest.raises(ValueError, match="A must be finite; got 1 NaN"):
            LengthSquaredTree(form(bad))
        with pytest.raises(ValueError, match="value must be finite"):
            tree.update(0, 0, value)
        with pytest.raises(ValueError, match="row must be finite"):
            tree.update_row(0, bad[2])
    with pytest.raises(ValueError, match="value must be finite"):
        LengthSquaredTree(form(A.astype(np.float32))).update(0, 0, 1e200)
    with pytest.raises(ValueError, match="value must be a number; got shape"):
        tree.update(0, 0, [1.0])
    with pytest.raises(TypeError, match="value must be real, as A is of dtype float64"):
        tree.update(0, 0, 1j)
    for i, j in ((9, 0), (-1, 0), (0, 7), (0, -1)):
        with pytest.raises(ValueError, match="must be between 0 and"):
            tree.update(i, j, 1.0)
    with pytest.raises(TypeError, match="i must be an integer"):
        tree.update(0.5, 0, 1.0)
    for row in (np.ones(6), np.ones((1, 7)), sp.csr_array(np.ones((2, 7))), sp.csr_array(np.ones((1, 6)))):
        with pytest.raises(ValueError, match=r"row must have 7 entries, as A has shape \(9, 7\)"):
            tree.update_row(0, row)
    with pytest.raises(TypeError, match="row must be real"):
        tree.update_row(0, np.ones(7) * 1j)
    with pytest.raises(ValueError, match="not zero where it is drawn from; got none in row 3"):
        tree.sample_columns_of_row(3, 1)
    with pytest.raises(ValueError, match="i must be between 0 and 8"):
        tree.sample_columns_of_row(9, 1)
    with pytest.raises(ValueError, match="k must be at least 0"):
        tree.sample_rows(-1)
    with pytest.raises(ValueError, match="first must be between"):
        tree.sample_rows(1, first=-1)
    with pytest.raises(TypeError, match="indices must be one or more integers"):
        tree.rows([0.5])
    with pytest.raises(TypeError, match="indices must be one or more integers"):
        tree.rows([[1]])
    with pytest.raises(ValueError, match="columns must be between 0 and 6; got 7 to 7"):
        tree.block([0], [7])
    with pytest.raises(TypeError, match="A must have dtype"):
        LengthSquaredTree(A.astype(object))
    check_sums(tree, A)
