"""Learning a monomial of few of many features from its values: `learn_monomial`, `log_covariance`."""

from __future__ import annotations

import dataclasses
import enum
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg

from .. import _check
from ..result import HasStatus
from ._beam import beam
from .result import LearnWarning
from .sparse_regression import basis_pursuit, lasso, omp

METHODS = ("basis-pursuit", "lasso", "omp")
_SHRINKAGE = 0.02  # of "lasso", in units of the smallest penalty that leaves nothing
_CONSTANT = 1e-10  # spread of log|x| below which a feature counts as one of constant modulus
_UNLIKELY = 0.1  # an exponent found to be less than this is none in truth, where it is to be an integer
_BEAM, _BEAM_FACTORS, _BEAM_NUMBERS = 64, 6, 1 << 22  # supports that are kept, their largest size, and numbers held for them
_ZERO = 1e-9  # of log|y|: a residual that rounding leaves
_SHOWN = 5


class MonomialStatus(enum.Enum):
    """How learning a monomial ended. The value is the sentence shown to users."""

    VERIFIED = "The monomial agrees with every sample."
    WRONG_SIGNS = "The monomial agrees with every sample in modulus but not in sign: the data are those of no monomial."
    DEGREE_EXCEEDED = "The monomial that agrees with every sample has a larger degree than allowed."
    NOT_VERIFIED = "No monomial was found that agrees with every sample: too few samples, too much noise, or none exists."

    @property
    def success(self) -> bool:
        return self is MonomialStatus.VERIFIED


@dataclasses.dataclass(frozen=True)
class Monomial(HasStatus):
    """f(x) = sign * constant * prod_s x[support[s]] ** exponents[s]; call it with samples to evaluate it.

    Attributes
    ----------
    support : ndarray (k,), int64
        Ascending.
    exponents : ndarray (k,)
        int64, or float64 where real exponents were asked for; none is zero.
    sign : int
        1 or -1.
    constant : float
        Positive.
    n_features : int
    residual : float
        Largest |f(x) / y - 1| over the samples it was learned from.
    method : str
        What found the support: the method asked for, "lasso" where noise leaves basis pursuit no exact fit, "least-squares" or
        "beam".
    status : MonomialStatus
    message : str
    success : bool
    """

    support: np.ndarray
    exponents: np.ndarray
    sign: int
    constant: float
    n_features: int
    residual: float
    method: str
    status: MonomialStatus

    @property
    def degree(self) -> float:
        """Sum of the absolute values of the exponents."""
        return np.abs(self.exponents).sum().item()

    def __call__(self, X: Any) -> np.ndarray:
        """Values at the rows of X, (m, n_features), or at one sample (n_features,).

        Raises
        ------
        TypeError, ValueError
        """
        x = _check.real_array(X, "X")
        if x.ndim not in (1, 2) or x.shape[-1] != self.n_features:
            raise ValueError(f"X must have {self.n_features} features, in its last of 1 or 2 dimensions; got shape {x.shape}")
        return self.sign * _power_product(x[..., self.support].astype(np.float64), self.exponents, np.log(self.constant))

    def __str__(self) -> str:
        factors = [
            f"x{j}" if power == 1 else f"x{j}^{power:.12g}" for j, power in zip(self.support, self.exponents, strict=True)
        ]
        if self.constant != 1 or not factors:
            factors.insert(0, f"{self.constant:.12g}")
        return ("-" if self.sign < 0 else "") + " ".join(factors)


def learn_monomial(
    X: Any,
    y: Any,
    max_degree: int | None = None,
    *,
    method: str = "basis-pursuit",
    integer: bool = True,
    tol: float | None = None,
) -> Monomial:
    """Learn y = c prod_j x_j^b_j with few of the exponents b_j not zero, from samples of x and y.

    log|y| is linear in log|x|, and the b of smallest 1-norm that fits is looked for, rounded to integers, and checked against
    the data (Andoni, Dudeja, Hsu, Vodrahalli 2019). The logarithm makes the covariance of Gaussian features regular (see
    `log_covariance`) even where their own is singular, so that of order k^2 log(k) log(p)^2 samples suffice for k of p
    features, as long as none is a multiple of another.

    Parameters
    ----------
    X : array (m, p)
        Real, without zeros. Features of constant modulus, like signs, are refused: of them the logarithm shows nothing.
    y : array (m,)
        Real, without zeros.
    max_degree : int
        Largest sum of |b_j|; a monomial beyond it is returned without success.
    method : {"basis-pursuit", "lasso", "omp"}
        How sparse exponents are found. Where there are more samples than features and they determine b, least squares does.
        What it does not find, a beam search for up to 6 factors looks for, which takes fewer samples: of standard normal
        features, 4 factors of 10,000 are found from about 30 samples, not 48.
    integer : bool
        Round exponents to integers, positive or negative; else any real ones are taken, for positive features.
    tol : float
        Largest |f(x) / y - 1| for success; default 1e-8, for float32 data 1e-4. Noise in y is borne as long as the exponents
        still round to the right ones; give a tol above it.

    Returns
    -------
    Monomial

    Warns
    -----
    LearnWarning
        Where the monomial does not agree with the samples.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, among them zeros in X or y and features of constant modulus.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    x, values = _check.real_array(X, "X"), _check.real_array(y, "y")
    if x.ndim != 2 or x.shape[0] < 3 or x.shape[1] < 1:
        raise ValueError(f"X must have 2 dimensions, at least 3 rows and 1 column; got shape {x.shape}")
    if values.shape != (x.shape[0],):
        raise ValueError(f"y must have shape ({x.shape[0]},), one value for each row of X; got {values.shape}")
    _check.finite(x, "X")
    _check.finite(values, "y")
    max_degree = None if max_degree is None else _check.integer(max_degree, "max_degree", 0)
    single = np.float32 in (x.dtype, values.dtype)
    tol = (1e-4 if single else 1e-8) if tol is None else _check.real(tol, "tol", strict=True)
    logs, goal = _logarithms(x.astype(np.float64), values.astype(np.float64))
    best = None
    for support, exponents, used in _candidates(logs, goal, method, max_degree, integer):
        found = _monomial(x, values, logs, goal, support, exponents, used, tol)
        if best is None or found.residual < best.residual:
            best = found
        if found.status is not MonomialStatus.NOT_VERIFIED:
            best = found
            break
    assert best is not None
    if best.success and max_degree is not None and best.degree > max_degree:
        best = dataclasses.replace(best, status=MonomialStatus.DEGREE_EXCEEDED)
    if not best.success:
        warnings.warn(f"{best.message} Largest relative deviation {best.residual:.1e}.", LearnWarning, stacklevel=2)
    return best


def log_covariance(rho: Any) -> np.ndarray:
    """Covariance of log|x|, log|y| for standard normal x, y of correlation rho: arcsin(rho)^2 / 2, entry by entry.

    The variance is pi^2 / 8. All coefficients of the power series in rho^2 are positive, so that a correlation matrix
    goes to a positive definite one, unless two features are equal up to sign.

    Parameters
    ----------
    rho : array
        Correlations in [-1, 1], such as a correlation matrix.

    Returns
    -------
    ndarray of the shape of rho

    Raises
    ------
    TypeError, ValueError
    """
    a = _check.real_array(rho, "rho")
    _check.finite(a, "rho")
    largest = float(np.abs(a).max(initial=0.0))
    if largest > 1 + 8 * np.finfo(a.dtype).eps:
        raise ValueError(f"rho must be correlations, between -1 and 1; got {largest:.17g} in modulus")
    return np.arcsin(np.clip(a, -1.0, 1.0)) ** 2 / 2


def _logarithms(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    zeros = np.flatnonzero((x == 0).any(axis=0))
    if len(zeros):
        count = np.count_nonzero(x == 0)
        raise ValueError(f"X must have no zeros, as their logarithm is infinite; got {count}, in {_columns(zeros)}")
    if not y.all():
        raise ValueError(
            f"y must have no zeros, as their logarithm is infinite; got {len(y) - np.count_nonzero(y)}, "
            f"the first in row {int((y == 0).argmax())}"
        )
    logs = np.log(np.abs(x))
    constant = np.flatnonzero(np.ptp(logs, axis=0) <= _CONSTANT * (1 + np.abs(logs).max(axis=0)))
    if len(constant):
        raise ValueError(
            f"X must have features whose modulus varies; got constant |x| in {_columns(constant)}. Monomials of "
            "features +-1 are parities, which logarithms cannot tell apart."
        )
    return logs, np.log(np.abs(y))


def _columns(index: np.ndarray) -> str:
    shown = ", ".join(str(j) for j in index[:_SHOWN])
    return f"column{'s' if len(index) > 1 else ''} {shown}{', ...' if len(index) > _SHOWN else ''}"


def _candidates(
    logs: np.ndarray, goal: np.ndarray, method: str, max_degree: int | None, integer: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Supports with exponents, the likeliest first."""
    # Centring leaves an unknown constant factor out; of unit norm, every feature bears the same penalty.
    A, b = logs - logs.mean(axis=0), goal - goal.mean()
    size = np.linalg.norm(A, axis=0)
    A /= size
    m, p = A.shape
    # A monomial of more factors is not determined by m - 1 equations (Donoho, Elad 2003).
    most = max(1, min(p, (m - 1) // 2))
    if integer and max_degree is not None:
        most = min(most, max(1, max_degree))
    if not b.any():
        yield np.zeros(0, np.int64), np.zeros(0), method
        return
    yield from _by_method(A, b, size, method, most, integer)
    width = max(1, min(_BEAM, _BEAM_NUMBERS // p))
    for supports, residuals in beam(A, b, width, min(most, _BEAM_FACTORS)):
        yield *_refit(A, b, size, supports[0], integer), "beam"
        if residuals[0] <= _ZERO * np.linalg.norm(b):
            return


def _by_method(
    A: np.ndarray, b: np.ndarray, size: np.ndarray, method: str, most: int, integer: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    coefficients, (m, p) = None, A.shape
    if p < m:
        solution, _, rank, _ = scipy.linalg.lstsq(A, b, cond=1e-10, lapack_driver="gelsy", check_finite=False)
        if rank == p:
            coefficients, most, method = solution, p, "least-squares"
    if coefficients is None and method == "omp":
        for k in range(1, most + 1):
            yield *_refit(A, b, size, np.flatnonzero(_quietly(omp, A, b, k).x), integer), method
        return
    if coefficients is None and method == "basis-pursuit":
        pursued = _quietly(basis_pursuit, A, b)
        # Of more samples than features, noise leaves no exact fit.
        coefficients, method = (pursued.x, method) if pursued.success else (None, "lasso")
    if coefficients is None:
        coefficients = _quietly(lasso, A, b, _SHRINKAGE * float(np.abs(A.T @ b).max()) / m).x
    natural = coefficients / size
    if integer and np.abs(natural).max() < 2.0**53:
        rounded = np.rint(natural)
        yield np.flatnonzero(rounded), rounded[rounded != 0], method
    likely = np.count_nonzero(np.abs(natural) > _UNLIKELY if integer else coefficients)
    order = np.argsort(-np.abs(natural if integer else coefficients), kind="stable")[:likely]
    for k in range(1, min(most, len(order)) + 1):
        yield *_refit(A, b, size, np.sort(order[:k]), integer), method


def _quietly(solve: Callable[..., Any], *arguments: Any) -> Any:
    """What a solver could not do shows when its answer is checked against the samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LearnWarning)
        return solve(*arguments)


def _refit(A: np.ndarray, b: np.ndarray, size: np.ndarray, support: np.ndarray, integer: bool) -> tuple[np.ndarray, np.ndarray]:
    exponents = scipy.linalg.lstsq(A[:, support], b, check_finite=False)[0] / size[support]
    if integer:
        exponents = np.rint(np.clip(exponents, -(2.0**53), 2.0**53))
    return support[exponents != 0], exponents[exponents != 0]


def _monomial(
    x: np.ndarray,
    y: np.ndarray,
    logs: np.ndarray,
    goal: np.ndarray,
    support: np.ndarray,
    exponents: np.ndarray,
    method: str,
    tol: float,
) -> Monomial:
    """The monomial of these exponents with the sign and the constant that fit best, and how well it fits."""
    whole = bool((exponents == np.rint(exponents)).all())
    exponents = exponents.astype(np.int64) if whole else exponents
    rest = goal - logs[:, support] @ exponents
    shift = rest.mean()
    if abs(shift) <= 1e-12 * (1 + np.abs(goal).max()):
        shift = 0.0
    base = x[:, support].astype(np.float64)
    signs = np.sign(y) * (np.where(base[:, exponents % 2 == 1] < 0, -1.0, 1.0).prod(axis=1) if whole else 1.0)
    sign = 1 if signs.sum() >= 0 else -1
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        constant = float(np.exp(shift))
        fitted = sign * _power_product(base, exponents, np.log(constant) if constant else -np.inf)
        residual = np.abs(fitted / y - 1).max()
        modulus = np.abs(np.abs(fitted / y) - 1).max()
    residual = float(residual) if np.isfinite(residual) else np.inf
    status = MonomialStatus.NOT_VERIFIED
    if residual <= tol:
        status = MonomialStatus.VERIFIED
    elif modulus <= tol:
        status = MonomialStatus.WRONG_SIGNS
    return Monomial(support, exponents, sign, constant, x.shape[1], residual, method, status)


def _power_product(base: np.ndarray, exponents: np.ndarray, log_constant: float) -> np.ndarray:
    """exp(log_constant) times the product of powers along the last axis, without overflow on the way."""
    if exponents.dtype.kind == "f":
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where((base < 0).any(axis=-1), np.nan, np.exp(np.log(np.abs(base)) @ exponents + log_constant))
    whole = np.floor(log_constant / np.log(2)) if np.isfinite(log_constant) else 0.0
    mantissa, power = np.frexp(base)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        product = np.exp(log_constant - whole * np.log(2)) * (mantissa ** exponents.astype(np.float64)).prod(axis=-1)
        return np.ldexp(product, np.clip((power * exponents).sum(axis=-1) + int(whole), -5000, 5000).astype(np.int32))
