"""Randomized numerical linear algebra: LAPACK-grade answers with a certificate, several times faster."""

import importlib.metadata
import logging

from ._config import set_num_threads, show_config
from .blocks import RowBlocks
from .landmarks import Landmarks, LandmarksWarning, StreamingLandmarks, kernel_landmarks
from .leverage import LeverageResult, coherence, cross_leverage, effective_dimension, leverage_scores
from .lowrank import (
    LowRankWarning,
    StreamingSVD,
    diag,
    eigh,
    interpolative,
    nystrom,
    nystrom_pcg,
    rpcholesky,
    svd,
    trace,
)
from .lp import LewisResult, LpResult, LpStatus, LpWarning, lewis_weights, lp_regression, lp_sensitivities
from .lstsq import lstsq
from .precondition import Preconditioner, sketch_preconditioner
from .result import LeverageWarning, LstsqResult, LstsqWarning, Status
from .sampling import (
    CoordinatedSketch,
    LengthSquaredTree,
    LowRankSample,
    MatmulResult,
    SampledRows,
    coordinated_sketch,
    fkv,
    sample_dpp,
    sample_rows,
    sketched_matmul,
)
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
    "CoordinatedSketch",
    "CountSketch",
    "Distribution",
    "Gaussian",
    "Landmarks",
    "LandmarksWarning",
    "LengthSquaredTree",
    "LessUniform",
    "LeverageResult",
    "LeverageWarning",
    "LewisResult",
    "LowRankSample",
    "LowRankWarning",
    "LpResult",
    "LpStatus",
    "LpWarning",
    "LstsqResult",
    "LstsqWarning",
    "MatmulResult",
    "Preconditioner",
    "Rademacher",
    "RowBlocks",
    "RowSample",
    "SampledRows",
    "SketchAccumulator",
    "SketchOperator",
    "SparseSign",
    "SparseStack",
    "Status",
    "StreamingLandmarks",
    "StreamingSVD",
    "coherence",
    "coordinated_sketch",
    "cross_leverage",
    "diag",
    "effective_dimension",
    "eigh",
    "fkv",
    "interpolative",
    "kernel_landmarks",
    "leverage_scores",
    "lewis_weights",
    "lp_regression",
    "lp_sensitivities",
    "lstsq",
    "nystrom",
    "nystrom_pcg",
    "rpcholesky",
    "sample_dpp",
    "sample_rows",
    "set_num_threads",
    "show_config",
    "sketch",
    "sketch_preconditioner",
    "sketched_matmul",
    "svd",
    "trace",
]

logging.getLogger("randla").addHandler(logging.NullHandler())
