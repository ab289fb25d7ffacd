"""Randomized numerical linear algebra: LAPACK-grade answers with a certificate, several times faster."""

import importlib.metadata
import logging

from ._config import set_num_threads, show_config
from .blocks import RowBlocks
from .leverage import LeverageResult, coherence, cross_leverage, effective_dimension, leverage_scores
from .lstsq import lstsq
from .precondition import Preconditioner, sketch_preconditioner
from .result import LeverageWarning, LstsqResult, LstsqWarning, Status
from .sketch import (
    SRTT,
    BlockSRHT,
    CountSketch,
    Distribution,
    Gaussian,
    LessUniform,
    Rademacher,
    RowSample,
    SketchAccumulator,
    SketchOperator,
    SparseSign,
    SparseStack,
    sketch,
)

try:
    __version__ = importlib.metadata.version("randla")
except importlib.metadata.PackageNotFoundError:  # built in place, not installed
    __version__ = "0+unknown"

__all__ = [
    "SRTT",
    "BlockSRHT",
    "CountSketch",
    "Distribution",
    "Gaussian",
    "LessUniform",
    "LeverageResult",
    "LeverageWarning",
    "LstsqResult",
    "LstsqWarning",
    "Preconditioner",
    "Rademacher",
    "RowBlocks",
    "RowSample",
    "SketchAccumulator",
    "SketchOperator",
    "SparseSign",
    "SparseStack",
    "Status",
    "coherence",
    "cross_leverage",
    "effective_dimension",
    "leverage_scores",
    "lstsq",
    "set_num_threads",
    "show_config",
    "sketch",
    "sketch_preconditioner",
]

logging.getLogger("randla").addHandler(logging.NullHandler())
