"""Importance sampling of rows, columns and entries, and products from samples."""

from .fkv import LowRankSample, fkv
from .length_squared import LengthSquaredTree
from .matmul import CoordinatedSketch, MatmulResult, coordinated_sketch, sketched_matmul
from .rows import SampledRows, sample_dpp, sample_rows

__all__ = [
    "CoordinatedSketch",
    "LengthSquaredTree",
    "LowRankSample",
    "MatmulResult",
    "SampledRows",
    "coordinated_sketch",
    "fkv",
    "sample_dpp",
    "sample_rows",
    "sketched_matmul",
]
