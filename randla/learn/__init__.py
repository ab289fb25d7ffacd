"""Sparse and low-rank learning: sparse regression, monomials, ReLU units, initialization of layers."""

from .initialization import InitializationInfo, InitializationStatus, activation_loss, gspectral_init, spectral_init
from .monomials import Monomial, MonomialStatus, learn_monomial, log_covariance
from .relu import ReluResult, ReluStatus, recover_network, relu_regression
from .restricted import RestrictedResult, RestrictedStatus, restricted_eigenvalue
from .result import LearnWarning
from .sparse_regression import (
    BasisPursuitResult,
    LassoPath,
    LassoResult,
    OmpResult,
    SparseStatus,
    basis_pursuit,
    lasso,
    lasso_path,
    omp,
)

__all__ = [
    "BasisPursuitResult",
    "InitializationInfo",
    "InitializationStatus",
    "LassoPath",
    "LassoResult",
    "LearnWarning",
    "Monomial",
    "MonomialStatus",
    "OmpResult",
    "ReluResult",
    "ReluStatus",
    "RestrictedResult",
    "RestrictedStatus",
    "SparseStatus",
    "activation_loss",
    "basis_pursuit",
    "gspectral_init",
    "lasso",
    "lasso_path",
    "learn_monomial",
    "log_covariance",
    "omp",
    "recover_network",
    "relu_regression",
    "restricted_eigenvalue",
    "spectral_init",
]
