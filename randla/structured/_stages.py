"""Factors of trigonometric transforms in closed form.

With n = p_1 ... p_L the matrix exp(-2 pi i (k + kappa) (t + s) / n) is K_1 ... K_L up to the order of its columns. By
decimation in time, n = p m, t = j + p t' and k = k' m + k'', it is

    sum_j exp(-2 pi i k' s_j) times entry (k'', t') of the matrix of order m at the shift s_j = (j + s) / p,

in which kappa stays: it enters in the last factor only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ._shortest import divisors

_QUARTERS = np.array([1, -1j, -1, 1j])


def roots(k: np.ndarray, n: int) -> np.ndarray:
    """exp(-2 pi i k / n) for integer k, to half an ulp or so and exact where it is 1, -i, -1 or i."""
    k = 4 * (k % n)
    quarter = (k + n // 2) // n
    angle = (0.5 * np.pi) * ((k - quarter * n) / n)
    return (np.cos(angle) - 1j * np.sin(angle)) * _QUARTERS[quarter % 4]


def primes(n: int) -> list[int]:
    """The prime factors of n in ascending order; [1] for 1, which stands for the factor of a 1 x 1 transform."""
    found = []
    while n > 1:
        p = int(divisors(n)[1])
        found.append(p)
        n //= p
    return found or [1]


def radices(n: int, *, real: bool) -> list[int]:
    """The prime factors of n, pairs of 2 as 4: as many parameters, and fewer factors.

    For real chains there is no 2 at the ends, where pairs of radix 2 are redundant with their neighbour.
    """
    p = primes(n)
    found = [4] * (p.count(2) // 2) + [q for q in p if q > 2]
    if p.count(2) % 2:
        if real and len(found) == 1:
            found[0] *= 2
        else:
            found.insert(int(real), 2)
    return found or [1]


def reversed_digits(p: Sequence[int]) -> np.ndarray:
    """For every position with the digits j_1 ... j_L, the first the most significant, the index with the first the least."""
    index, size = np.zeros(1, np.int64), 1
    for q in p:
        index = (index[:, None] + size * np.arange(q)).ravel()
        size *= q
    return index


def inverse(order: np.ndarray) -> np.ndarray:
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


def stages(p: Sequence[int], kappa2: int = 0, shift4: int = 0) -> list[np.ndarray]:
    """Values (a, p_l, p_l, d) of K_1 ... K_L at kappa = kappa2 / 2 and s = shift4 / 4.

    Column x of the product is column reversed_digits(p)[x] of the transform.
    """
    n, a, values = math.prod(p), 1, []
    for l, q in enumerate(p):
        s = (4 * reversed_digits(p[: l + 1]) + shift4).reshape(a, 1, q)
        k = 2 * np.arange(q)[:, None] + (kappa2 if l == len(p) - 1 else 0)
        v = roots(k * s, 8 * a * q)
        values.append(np.broadcast_to(v[..., None], (a, q, q, n // (a * q))))
        a *= q
    return values


def paired(v: np.ndarray) -> np.ndarray:
    """Complex values (a, b, c, d) as real ones (a, 2 b, 2 c, d), of z as (Re z, Im z)."""
    a, b, c, d = v.shape
    out = np.empty((a, 2, b, c, 2, d))
    out[:, 0, :, :, 0] = out[:, 1, :, :, 1] = v.real
    out[:, 1, :, :, 0] = v.imag
    np.negative(v.imag, out=out[:, 0, :, :, 1])
    return out.reshape(a, 2 * b, 2 * c, d)
