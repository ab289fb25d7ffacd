"""Fixed supports: definitions by brute force, quantifier elimination, and the reduction from matrix completion."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from randla.structured.supports import Witness, rank_one_supports, supports_closed, supports_tractable


def random_supports(rng, high=6):
    m, n, r = rng.integers(2, high, 3)
    density = rng.uniform(0.2, 0.9)
    return rng.random((m, r)) < density, rng.random((n, r)) < density


def rectangles(I, J):
    """Entries of each rank-one support that has any."""
    sets = (frozenset(itertools.product(np.flatnonzero(I[:, k]), np.flatnonzero(J[:, k]))) for k in range(I.shape[1]))
    return [s for s in sets if s]


def completion_to_fsmf(mask):
    """Supports whose nearest product is the rank-one completion of a matrix known on the mask, as one of full support and one
    for every row's unknown entries."""
    m, n = mask.shape
    unknown = [i for i in range(m) if not mask[i].all()]
    I = np.column_stack([np.ones(m, bool), *(np.arange(m) == i for i in unknown)])
    J = np.column_stack([np.ones(n, bool), *(~mask[i] for i in unknown)])
    return I, J


def components_are_bicliques(mask):
    """Whether the graph of rows and columns with an edge for every entry of the mask has no induced path of three edges."""
    rows, columns = range(mask.shape[0]), range(mask.shape[1])
    return not any(
        mask[i2, j1] and mask[i1, j1] and mask[i1, j2] and not mask[i2, j2]
        for i1, i2 in itertools.permutations(rows, 2)
        for j1, j2 in itertools.permutations(columns, 2)
    )


def require_witness(I, J, witness):
    """The corner, recomputed from the definition."""
    at = [(i, j) for i in witness.rows for j in witness.columns]
    parts = [[k for k in range(I.shape[1]) if I[i, k] and J[j, k]] for i, j in at]
    full, *others = witness.components
    assert others
    assert parts[:3] == [[full]] * 3
    assert parts[3] == sorted(witness.components)


def patterns(n):
    """Consecutive dyadic pair, Monarch pair, LU and unconstrained supports of order n."""
    one, half = np.ones, n // 2
    dyadic = np.kron(one((2, 2)), np.eye(half)), np.kron(np.eye(2), np.kron(one((2, 2)), np.eye(half // 2))).T
    monarch = np.kron(one((4, 4)), np.eye(n // 4)), np.kron(np.eye(4), one((n // 4, n // 4))).T
    return {"dyadic": dyadic, "monarch": monarch, "lu": (np.tril(one((n, n))),) * 2, "full": (one((n, 3)), one((n, 3)))}


@pytest.mark.parametrize("n", [8, 64])
def test_named_patterns(n):
    kinds = {name: supports_tractable(*pair) for name, pair in patterns(n).items()}
    both = "disjoint-or-identical"
    assert kinds == {"dyadic": both, "monarch": both, "lu": False, "full": both}
    closed = {name: supports_closed(*pair) for name, pair in patterns(n).items()}
    assert closed.pop("lu") == (False, Witness((0, 1), (0, 1), (0, 1)))
    assert set(closed.values()) == {(True, None)}


def test_classes_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(300):
        I, J = random_supports(rng)
        found = rank_one_supports(I, J)
        members = [k for box in found for k in box.members]
        assert sorted(members) == [k for k in range(I.shape[1]) if I[:, k].any() and J[:, k].any()]
        assert [box.members[0] for box in found] == sorted(box.members[0] for box in found)
        for box in found:
            for k in box.members:
                assert np.array_equal(box.rows, np.flatnonzero(I[:, k]))
                assert np.array_equal(box.columns, np.flatnonzero(J[:, k]))
        assert len(set(rectangles(I, J))) == len(found)


def test_disjoint_or_identical_by_pairs():
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(1000):
        I, J = random_supports(rng)
        parts = rectangles(I, J)
        expected = all(a == b or not a & b for a, b in itertools.combinations(parts, 2))
        seen.add(expected)
        assert (supports_tractable(I, J) == "disjoint-or-identical") == expected
    assert seen == {True, False}


def test_rank_one_completion_is_decided_always():
    """Exhaustive on 3 x 3: closed, and tractable, iff the known entries form bicliques."""
    counts = {True: 0, False: 0}
    for bits in itertools.product([False, True], repeat=9):
        mask = np.array(bits).reshape(3, 3)
        I, J = completion_to_fsmf(mask)
        closed, witness = supports_closed(I, J)
        assert closed == bool(supports_tractable(I, J)) == components_are_bicliques(mask)
        counts[closed] += 1
        if not closed:
            require_witness(I, J, witness)
    assert min(counts.values()) > 50


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_term_rank_decides_what_is_free(rank):
    """Two singletons leave of a 3 x 3 block all but two entries of one line: any values there have a product of rank 3."""
    one = np.ones((3, rank))
    I = np.column_stack([one, np.eye(3)[:, [0, 0]]])
    J = np.column_stack([one, np.eye(3)[:, [0, 1]]])
    assert bool(supports_tractable(I, J)) == (rank == 3)


def test_free_entries_grow_in_steps():
    """The corner frees the cross of the 2 x 2 block of two components, and that the rest of the 3 x 3 one of three."""
    full, two = np.ones((3, 3)), np.array([[0, 0], [1, 1], [1, 1]])
    corner = np.array([[0], [0], [1]])
    I = np.hstack([full, two, corner])
    assert supports_tractable(I, I) == "completion"
    I = np.hstack([full[:, :1], two, corner])  # the first one alone keeps a cross
    assert supports_tractable(I, I) is False


def test_blocks_that_free_entries_separate():
    """A component whose off-diagonal blocks are free has two blocks of its own, one of them shared with another component."""
    first, second = np.array([1, 1, 1, 0, 0, 0, 0]), np.array([0, 0, 0, 1, 1, 1, 1])
    whole = first + second
    free_rows = [*np.eye(7)[:3], *np.eye(7)[3:]]
    I = np.column_stack([whole, second, *free_rows])
    J = np.column_stack([whole, second, *[second] * 3, *[first] * 4])
    assert supports_tractable(I, J) == "completion"
    other = np.array([0, 0, 0, 1, 1, 0, 0])  # overlaps the second block in part
    assert supports_tractable(np.column_stack([I, other]), np.column_stack([J, other])) is False


@pytest.mark.parametrize("density", [None, 0.02])
def test_witness_is_one(density):
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(400 if density is None else 5):
        pair = random_supports(rng) if density is None else (rng.random((60, 40)) < density, rng.random((50, 40)) < 3 * density)
        closed, witness = supports_closed(*pair)
        if closed is False:
            require_witness(*pair, witness)
            found += 1
        else:
            assert witness is None
        assert (closed is True) == bool(supports_tractable(*pair))
    assert found


def test_tractability_does_not_depend_on_order():
    rng = np.random.default_rng(3)
    for _ in range(300):
        I, J = random_supports(rng)
        rows, columns, parts = (rng.permutation(k) for k in (len(I), len(J), I.shape[1]))
        kind = supports_tractable(I, J)
        assert supports_tractable(I[rows][:, parts], J[columns][:, parts]) == kind
        assert supports_tractable(J, I) == kind
        assert supports_closed(J, I)[0] == supports_closed(I, J)[0]


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 3, 0)])
def test_empty(shape):
    m, n, r = shape
    assert rank_one_supports(np.ones((m, r)), np.ones((n, r))) == []
    assert supports_closed(np.ones((m, r)), np.ones((n, r))) == (True, None)


def test_large_supports():
    pairs = patterns(1024)
    assert supports_tractable(*pairs["dyadic"]) == "disjoint-or-identical"
    assert supports_tractable(*pairs["lu"]) is False
    assert supports_closed(*pairs["lu"])[0] is False
    sparse = supports_closed(sp.csr_array(pairs["dyadic"][0]), sp.csc_array(pairs["dyadic"][1]))
    assert sparse == (True, None)


@pytest.mark.parametrize(
    ("error", "message", "I", "J"),
    [
        (TypeError, "I must be a mask", np.array([["a"]]), np.eye(1)),
        (TypeError, "J must be a mask", np.eye(1), np.eye(1) * 1j),
        (ValueError, "I must have 2 dimensions; got 1", np.ones(3), np.eye(3)),
        (ValueError, "J must not have NaN; got 1", np.eye(1), np.array([[np.nan]])),
        (ValueError, "J must have as many columns as I, 2; got 3", np.eye(2), np.eye(3)),
        (ValueError, "I must be convertible to an array; got a list", [[1], [1, 0]], np.eye(2)),
    ],
)
def test_errors(error, message, I, J):
    for function in (rank_one_supports, supports_tractable, supports_closed):
        with pytest.raises(error, match=message):
            function(I, J)


@pytest.mark.slow
def test_closedness_by_quantifier_elimination():
    z3 = pytest.importorskip("z3")
    rng = np.random.default_rng(4)
    # Rank-one supports that all products of two by two can have, in pairs, and some of three by three.
    sides = [np.array(bits) for bits in itertools.product([False, True], repeat=2) if any(bits)]
    boxes = itertools.combinations_with_replacement(itertools.product(sides, sides), 2)
    pairs_of_masks = [(np.column_stack([a, c]), np.column_stack([b, d])) for (a, b), (c, d) in boxes]
    pairs_of_masks += [(rng.random((3, 2)) < 0.8, rng.random((3, 2)) < 0.8) for _ in range(20)]
    decided = {True: 0, False: 0}
    for I, J in pairs_of_masks:
        m, n = len(I), len(J)
        closed, _ = supports_closed(I, J)
        if closed is None:
            continue

        def factor(mask, name):
            return [[z3.Real(f"{name}{i}{k}") if v else None for k, v in enumerate(row)] for i, row in enumerate(mask)]

        def product(X, Y):
            terms = [[[a * b for a, b in zip(x, y, strict=True) if a is not None and b is not None] for y in Y] for x in X]
            return [[sum(entry) if entry else z3.RealVal(0) for entry in row] for row in terms]

        X, Y = factor(I, "x"), factor(J, "y")
        A = [[z3.Real(f"a{i}{j}") for j in range(n)] for i in range(m)]
        eps = z3.Real("eps")
        pairs = [(a, b) for u, v in zip(A, product(X, Y), strict=True) for a, b in zip(u, v, strict=True)]
        unknowns = [v for row in (*X, *Y) for v in row if v is not None]
        solver = z3.Solver()
        solver.set("timeout", 1000)
        equal, near = z3.And([a == b for a, b in pairs]), z3.And([z3.And(a - b < eps, b - a < eps) for a, b in pairs])
        solver.add(z3.ForAll(unknowns, z3.Not(equal)) if unknowns else z3.Not(equal))
        solver.add(z3.ForAll([eps], z3.Implies(eps > 0, z3.Exists(unknowns, near) if unknowns else near)))
        answer = solver.check()
        if answer != z3.unknown:
            assert closed == (answer == z3.unsat)
            decided[closed] += 1
    assert decided[True] > 20
    assert decided[False]
