"""Structured matrices: products of Kronecker-sparse factors (butterflies), factorizations with certificates, transforms."""

from ._constraints import SparseColumns, SparseRows, SparseRowsAndColumns, SparseRowsOrColumns, SparseTotal, Support
from ._suggest import ChainSuggestion
from .factorize import FactorizeResult, FactorizeStatus, butterfly_error, factorize, suggest_chains
from .fsmf import FSMFResult, FSMFStatus, FSMFWarning, fsmf
from .named import RandomProduct, circulant, dct, dft, dst, hadamard, idft, kaleidoscope, toeplitz
from .operators import KroneckerSparse, Product
from .palm import PalmResult, PalmStatus, PalmWarning, palm4msa
from .pattern import Chain, Pattern
from .supports import rank_one_supports, supports_closed, supports_tractable
from .transforms import fwht

__all__ = [
    "Chain",
    "ChainSuggestion",
    "FSMFResult",
    "FSMFStatus",
    "FSMFWarning",
    "FactorizeResult",
    "FactorizeStatus",
    "KroneckerSparse",
    "PalmResult",
    "PalmStatus",
    "PalmWarning",
    "Pattern",
    "Product",
    "RandomProduct",
    "SparseColumns",
    "SparseRows",
    "SparseRowsAndColumns",
    "SparseRowsOrColumns",
    "SparseTotal",
    "Support",
    "butterfly_error",
    "circulant",
    "dct",
    "dft",
    "dst",
    "factorize",
    "fsmf",
    "fwht",
    "hadamard",
    "idft",
    "kaleidoscope",
    "palm4msa",
    "rank_one_supports",
    "suggest_chains",
    "supports_closed",
    "supports_tractable",
    "toeplitz",
]
