"""Which rows are sampled: definition, unbiasedness by enumeration and by chi-square, replay."""

import itertools

import numpy as np
import pytest
from oracles import words64
from stats import chi_square_gate, z_gate

from randla.optimize import _samples
from randla.optimize._samples import RowOrder, draw_rows


def word(index, sub, stream, seed):
    return int(words64(np.array([index]), np.array([sub]), stream, seed)[0].item())


class TestRowOrder:
    def test_definition(self):
        seed = 2**63 + 11
        expected = sorted(range(57), key=lambda i: word(i, 0, 15, seed))
        assert RowOrder(57, seed).order.tolist() == expected

    def test_windows(self):
        rows = RowOrder(10, 4)
        order = rows.order
        for start, size in itertools.product(range(25), range(11)):
            expected = sorted(order[(start + np.arange(size)) % 10])
            assert rows.window(start, size).tolist() == expected
        assert rows.prefix(4).tolist() == sorted(order[:4])
        assert rows.prefix(10).tolist() == list(range(10))

    def test_all_rows_need_no_order(self):
        rows = RowOrder(1000, 0)
        rows.prefix(1000)
        assert "order" not in vars(rows)
        rows.prefix(999)
        assert "order" in vars(rows)

    def test_an_epoch_visits_every_row_once(self):
        rows = RowOrder(1003, 1)
        sizes = [100] * 10 + [3]
        starts = np.cumsum([0, *sizes[:-1]]) + 517
        seen = np.concatenate([rows.window(int(s), k) for s, k in zip(starts, sizes, strict=True)])
        assert sorted(seen) == list(range(1003))

    def test_windows_are_uniform_subsets(self):
        """6000 seeds, windows of 2 of 5 rows: ten subsets, equally likely at every start."""
        subsets = {pair: k for k, pair in enumerate(itertools.combinations(range(5), 2))}
        for start in (0, 3, 4):
            counts = np.zeros(10)
            for seed in range(6000):
                counts[subsets[tuple(RowOrder(5, seed).window(start, 2).tolist())]] += 1
            chi_square_gate(counts, 1 / 10, f"windows at {start}")

    def test_rows_are_equally_likely_in_large_samples(self):
        """Each draw takes 300 of 1000 rows: counts have the variance of independent draws times (n - s) / (n - 1)."""
        counts = np.zeros(1000)
        for seed in range(500):
            counts[RowOrder(1000, seed).window(7 * seed, 300)] += 1
        chi_square_gate(counts, 1 / 1000, "inclusion", scale=999 / 700)

    def test_replay(self):
        assert np.array_equal(RowOrder(300, 9).window(20, 50), RowOrder(300, 9).window(20, 50))
        assert not np.array_equal(RowOrder(300, 9).window(20, 50), RowOrder(300, 10).window(20, 50))

    def test_no_rows(self):
        assert RowOrder(0, 0).prefix(0).size == 0

    @pytest.mark.parametrize(
        ("start", "size", "error", "name"),
        [(0, 11, ValueError, "size"), (0, -1, ValueError, "size"), (-1, 3, ValueError, "start"), (0, 2.0, TypeError, "size")],
    )
    def test_errors(self, start, size, error, name):
        with pytest.raises(error, match=name):
            RowOrder(10, 0).window(start, size)


class TestDrawRows:
    def test_definition(self):
        """By the definition, one draw after the other."""
        p = np.array([0.0, 3.0, 0.0, 1.0, 0.5, 0.0])
        rows, weights = draw_rows(p, 40, 7, 123)
        c, expected = np.cumsum(p), np.zeros(6)
        for t in range(40):
            u = (word(t, 7, 16, 123) >> 11) * 2.0**-53
            j = next(j for j in range(6) if c[j] > u * c[-1])
            expected[j] += c[-1] / (40 * 6 * p[j])
        assert rows.tolist() == np.flatnonzero(expected).tolist()
        np.testing.assert_allclose(weights, expected[rows], rtol=1e-14)

    def test_numbers_on_a_boundary(self, monkeypatch):
        """u c_{n-1} = c_j belongs to the next row of positive importance, so that rows of none are never drawn."""
        monkeypatch.setattr(_samples, "uniform", lambda words: np.array([0.0, 0.25, 0.5, 1 - 2.0**-53]))
        rows, weights = draw_rows(np.array([0.0, 1.0, 0.0, 1.0, 2.0, 0.0]), 4, 0, 0)
        assert rows.tolist() == [1, 3, 4]
        np.testing.assert_allclose(weights, [4 / 24, 4 / 24, 2 * 2 / 24])

    def test_expectation_by_enumeration(self):
        """Each row i comes with probability p_i and weight 1 / (n p_i): the sum over the outcomes of one draw is the mean."""
        p = np.array([0.3, 1e-3, 2.0, 0.0, 0.7])
        h = np.array([1.0, -2.0, 3.0, 0.0, 5.0])
        weight = {}
        for seed in range(6000):
            (row,), (w,) = draw_rows(p, 1, 0, seed)
            weight[int(row)] = w
        assert set(weight) == {0, 1, 2, 4}
        expectation = sum(p[i] / p.sum() * weight[i] * h[i] for i in weight)
        assert expectation == pytest.approx(h.mean(), rel=1e-13)

    def test_frequencies(self):
        p = np.array([5.0, 0.0, 1.0, 2.0, 0.5])
        counts = np.zeros(5)
        for k in range(200):
            rows, weights = draw_rows(p, 100, k, 3)
            counts[rows] += weights * 100 * 5 * p[rows] / p.sum()  # the number of times each was drawn
        assert counts.sum() == pytest.approx(20000)
        keep = p > 0
        chi_square_gate(counts[keep], p[keep] / p.sum(), "draws")

    def test_weighted_sums_are_unbiased(self):
        rng = np.random.default_rng(1)
        p, h = rng.exponential(size=2000), rng.standard_normal(2000) + 1
        p[::7] = h[::7] = 0
        sums = []
        for k in range(400):
            rows, weights = draw_rows(p, 150, k, 5)
            assert (np.diff(rows) > 0).all()
            sums.append(weights @ h[rows])
        # One draw has the value h_i / (n p_i) with probability p_i (p of sum one).
        q = p / p.sum()
        some = q > 0
        deviation = np.sqrt((h[some] ** 2 / q[some]).sum() / 2000**2 - h.mean() ** 2)
        z_gate((np.mean(sums) - h.mean()) / (deviation / np.sqrt(400 * 150)), "mean")

    def test_scale_does_not_matter(self):
        p = np.random.default_rng(2).exponential(size=100)
        rows, weights = draw_rows(p, 60, 0, 0)
        for scale in (2.0**-900, 2.0**1000, 2.0**1020):
            other, w = draw_rows(p * scale, 60, 0, 0)
            assert np.array_equal(rows, other)
            np.testing.assert_allclose(w, weights, rtol=1e-13)

    def test_draws_differ_and_replay(self):
        p = np.ones(1000)
        one, two = draw_rows(p, 50, 0, 8)[0], draw_rows(p, 50, 1, 8)[0]
        assert not np.array_equal(one, two)
        assert not np.array_equal(one, draw_rows(p, 50, 0, 9)[0])
        assert np.array_equal(one, draw_rows(p, 50, 0, 8)[0])

    def test_nothing_to_draw(self):
        for p in (np.zeros(10), np.zeros(0)):
            rows, weights = draw_rows(p, 5, 0, 0)
            assert rows.size == weights.size == 0
            assert rows.dtype == np.int64

    @pytest.mark.parametrize("p", [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 1e-300, 0], [0, 5e-324, 0]])
    def test_one_row_of_importance(self, p):
        rows, weights = draw_rows(np.array(p), 9, 0, 0)
        assert rows.tolist() == [np.argmax(p)]
        assert weights == pytest.approx([1 / 3])

    @pytest.mark.parametrize(
        ("p", "size", "error", "message"),
        [
            ([1.0, -0.5], 3, ValueError, "importance must not be negative"),
            ([1.0, np.nan], 3, ValueError, "importance must be finite"),
            ([1.0, np.inf], 3, ValueError, "importance must be finite"),
            ([1.0, 1.0], 0, ValueError, "size"),
            ([1.0, 1.0], 1.5, TypeError, "size"),
        ],
    )
    def test_errors(self, p, size, error, message):
        with pytest.raises(error, match=message):
            draw_rows(np.array(p), size, 0, 0)
