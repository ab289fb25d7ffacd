"""Generalized linear models written again: losses as jets of mpmath, and sums in long double by NumPy."""

import mpmath
import numpy as np
import scipy.sparse as sp

from randla.optimize.losses import _NATIVE

LOSSES = tuple(_NATIVE)
EPS = np.finfo(float).eps
LABELS = {"sign": (-1.0, 1.0), "binary": (0.0, 1.0), "count": (0.0, 1.0, 7.0), "real": (0.0, -0.75, 3.0)}


def labels_of(name):
    return LABELS[_NATIVE[name].kind]


def parameter_of(name):
    return _NATIVE[name].parameter


class Jet:
    """A number with its first and second derivative: the chain rule in mpmath."""

    def __init__(self, f, c=0, d=0):
        self.f, self.c, self.d = mpmath.mpf(f), mpmath.mpf(c), mpmath.mpf(d)

    def through(self, f, first, second):
        return Jet(f, first * self.c, first * self.d + second * self.c**2)

    def __add__(self, other):
        other = other if isinstance(other, Jet) else Jet(other)
        return Jet(self.f + other.f, self.c + other.c, self.d + other.d)

    def __mul__(self, other):
        other = other if isinstance(other, Jet) else Jet(other)
        return Jet(
            self.f * other.f, self.c * other.f + self.f * other.c, self.d * other.f + 2 * self.c * other.c + self.f * other.d
        )

    def __sub__(self, other):
        return self + other * -1

    def __truediv__(self, other):
        return self * (other.inverse() if isinstance(other, Jet) else mpmath.mpf(1) / other)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return self * -1 + other

    def inverse(self):
        return self.through(1 / self.f, -1 / self.f**2, 2 / self.f**3)

    def exp(self):
        e = mpmath.exp(self.f)
        return self.through(e, e, e)

    def log(self):
        return self.through(mpmath.log(self.f), 1 / self.f, -1 / self.f**2)

    def sqrt(self):
        root = mpmath.sqrt(self.f)
        return self.through(root, 1 / (2 * root), -1 / (4 * root**3))


def _tukey(z, y, p):
    r = z - y
    b = 1 - r * r / p**2
    return p**2 / 6 * (1 - b * b * b) if abs(r.f) < p else Jet(p**2 / 6)


def _huber(z, y, p):
    r = z - y
    return r * r / 2 if abs(r.f) <= p else (r if r.f > 0 else r * -1) * p - p**2 / 2


def _squared_sigmoid(z, y, p):
    r = (1 + (z * -1).exp()).inverse() - y
    return r * r


def _softplus(z, y, p):
    r = (1 + z.exp()).log() - y
    return r * r / 2


def _least_squares(z, y, p):
    return (z - y) * (z - y) / 2


def _square(z, y, p):
    return (z - y) * (z - y) / p**2


# As in the docstring of GLM.
FORMULAS = {
    "logistic": lambda z, y, p: (1 + (z * -y).exp()).log(),
    "squared_sigmoid": _squared_sigmoid,
    "least_squares": _least_squares,
    "softplus": _softplus,
    "poisson": lambda z, y, p: z.exp() - z * y,
    "tukey": _tukey,
    "huber": _huber,
    "pseudo_huber": lambda z, y, p: p**2 * ((1 + _square(z, y, p)).sqrt() - 1),
    "cauchy": lambda z, y, p: p**2 / 2 * (1 + _square(z, y, p)).log(),
    "welsch": lambda z, y, p: p**2 / 2 * (1 - (_square(z, y, p) * -1).exp()),
    "geman_mcclure": lambda z, y, p: _square(z, y, p) * p**2 / 2 / (1 + _square(z, y, p)),
}


def exact(name, z, y, p):
    """Value, first and second derivative, in the present precision of mpmath."""
    jet = FORMULAS[name](Jet(z, 1), mpmath.mpf(y), mpmath.mpf(p))
    return jet.f, jet.c, jet.d


def dense(A):
    """A in long double; entries of a sparse A that are stored twice are added there."""
    return A.astype(np.longdouble).toarray() if sp.issparse(A) else np.asarray(A, np.longdouble)


def stable(value, exact_at, z, y, unit=0.0):
    """Whether a value is within some ulp, of itself or of the unit, of one whose arguments are within some ulp of z and y."""
    here = exact_at(z, y)
    nearby = (exact_at(z * (1 + s * EPS), y * (1 + t * EPS)) for s, t in ((4, 0), (-4, 0), (0, 4), (0, -4)))
    allowed = 8 * EPS * max(abs(here), unit) + max(abs(other - here) for other in nearby) + mpmath.mpf(2) ** -1060
    return abs(mpmath.mpf(float(value)) - here) <= allowed
