"""Low rank approximation, traces and diagonals, each with an estimate of its error."""

from .cholesky import CholeskyResult, rpcholesky
from .diagonal import DiagResult, diag, row_norms
from .eigh import EighResult, eigh
from .interpolative import CURResult, InterpolativeResult, cur, interpolative
from .logdet import LogdetResult, logdet
from .nystrom import NystromResult, nystrom
from .pcg import PCGResult, PCGStatus, nystrom_pcg
from .qr import PivotedQRResult, qr
from .result import LowRankStatus, LowRankWarning
from .streaming import StreamingSVD, StreamingSVDResult
from .svd import SVDResult, svd
from .trace import TraceResult, trace

__all__ = [
    "CURResult",
    "CholeskyResult",
    "DiagResult",
    "EighResult",
    "InterpolativeResult",
    "LogdetResult",
    "LowRankStatus",
    "LowRankWarning",
    "NystromResult",
    "PCGResult",
    "PCGStatus",
    "PivotedQRResult",
    "SVDResult",
    "StreamingSVD",
    "StreamingSVDResult",
    "TraceResult",
    "cur",
    "diag",
    "eigh",
    "interpolative",
    "logdet",
    "nystrom",
    "nystrom_pcg",
    "qr",
    "row_norms",
    "rpcholesky",
    "svd",
    "trace",
]
