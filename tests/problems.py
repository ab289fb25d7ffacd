"""Least-squares problems with known answers, and readers of the real ones."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import randla


@dataclass(frozen=True)
class Problem:
    A: np.ndarray
    b: np.ndarray
    x: np.ndarray
    cond: float
    residual: float


def haar(m, n, rng):
    Q, R = np.linalg.qr(rng.standard_normal((m, n)))
    return Q * np.sign(np.diag(R))


def unit(n, rng):
    v = rng.standard_normal(n)
    return v / np.linalg.norm(v)


def least_squares(m, n, cond, residual, dtype=np.float64, rng=0):
    """||A|| = ||x|| = 1, singular values spread evenly on a log scale, a residual of the given norm.

    The solution is x up to the effect of rounding A and b.
    """
    rng = np.random.default_rng(rng)
    U, V = haar(m, n, rng), haar(n, n, rng)
    x = unit(n, rng)
    A = (U * np.logspace(0, -np.log10(cond), n)) @ V.T
    e = rng.standard_normal(m)
    e -= U @ (U.T @ e)
    e -= U @ (U.T @ e)
    b = A @ x + residual * e / np.linalg.norm(e)
    return Problem(A.astype(dtype), b.astype(dtype), x, cond, residual)


def coherent(m, n, rng=0, noise=1e-4):
    """n rows that carry one direction each, the rest noise: a sketch that misses or merges such rows is singular."""
    rng = np.random.default_rng(rng)
    A = noise * rng.standard_normal((m, n)) / np.sqrt(m)
    A[rng.permutation(m)[:n]] += np.eye(n)
    return A, A @ unit(n, rng) + rng.standard_normal(m) / np.sqrt(m)


def rank_deficient(kind, m, n, rank, rng=0):
    """Exactly `rank` independent columns; for "duplicate" and "zero" of small integers, so that nothing is rounded."""
    rng = np.random.default_rng(rng)
    if kind == "product":
        A = haar(m, rank, rng) @ (np.linspace(1, 2, rank)[:, None] * haar(n, rank, rng).T)
    else:
        A = rng.integers(-9, 10, (m, n)).astype(float)
        A[:, rank:] = 0.0 if kind == "zero" else A[:, : n - rank]
        A = A[:, rng.permutation(n)]
    return A, rng.standard_normal(m)


def badly_scaled(m, n, decades=150, rng=0):
    """Well conditioned once the columns are scaled; their norms run from 10^-decades to 10^decades."""
    rng = np.random.default_rng(rng)
    scale = 10.0 ** np.linspace(-decades, decades, n)
    A = rng.standard_normal((m, n))
    return A * scale, A @ rng.standard_normal(n) + 0.1 * rng.standard_normal(m), scale


def sparse_random(m, n, density=0.02, rng=0):
    """CSR with every column occupied and some empty rows."""
    rng = np.random.default_rng(rng)
    A = sp.random_array(
        (m, n), density=density, format="lil", rng=rng, data_sampler=lambda size: rng.standard_normal(size=size)
    )
    A[rng.permutation(m)[:n], np.arange(n)] = 1.0
    A = A.tocsr()
    return A, A @ unit(n, rng) + 0.1 * rng.standard_normal(m)


LAYOUTS = {"C": np.ascontiguousarray, "F": np.asfortranarray, "CSR": sp.csr_array, "CSC": sp.csc_array}


def data_file(name):
    """Path of a file of the data folder (RANDLA_DATA); skips the calling test where it is missing."""
    root = Path(os.environ.get("RANDLA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    path = root / name
    if not path.exists():
        pytest.skip(f"{name} not found in {root}; set RANDLA_DATA to the folder that holds it")
    return path


def covtype(step=1):
    """Cover type: rank 53 of 54; the target is the class number."""
    with np.load(data_file("covtype.npz")) as z:
        return np.asfortranarray(z["X"][::step].astype(float)), z["y"][::step].astype(float)


def ijcnn1():
    with np.load(data_file("ijcnn1.npz")) as z:
        return z["X"].astype(float), z["y"].astype(float)


def protein():
    with np.load(data_file("protein_casp.npz")) as z:
        return z["X"].astype(float), z["y"].astype(float)


def kdd99():
    """The 38 numeric columns of KDD Cup 1999; a few rows carry whole directions. Is it normal traffic?"""
    numeric = [j for j in range(41) if j not in (1, 2, 3)]
    with gzip.open(data_file("kddcup.data_10_percent.gz"), "rt") as f:
        lines = f.readlines()
    y = np.array([line.rstrip().endswith("normal.") for line in lines], float)
    return np.loadtxt(lines, delimiter=",", usecols=numeric), y


def harwell_boeing(name):
    """well1033 or illc1033 with its right-hand side."""
    A = scipy.io.mmread(data_file(f"sparse/{name}.mtx.gz"))
    b = scipy.io.mmread(data_file(f"sparse/{name}_rhs1.mtx.gz"))
    return sp.csr_array(A), np.asarray(b, float).ravel()


def run_python(code, **environment):
    """A fresh interpreter that runs `code` with the package and the tests of this one, whatever the current directory holds."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(randla.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
