"""How many samples a monomial of four factors takes: the share of exact recoveries over samples and features.

python benchmarks/phase_diagram.py [--trials 25] [--quick] [-o FOLDER]

Every cell learns that many monomials x_a^i x_b^j x_c^k x_d^l, exponents 1 or 2, of Gaussian features that are independent or
whose covariance has rank 75. A recovery is one with every exponent right.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from pictures import IMAGES, RESULTS
from threadpoolctl import threadpool_limits

from randla._files import write_text
from randla.bench.measure import provenance
from randla.cli import Progress, plain
from randla.learn.monomials import learn_monomial
from randla.learn.result import LearnWarning

ROOT = Path(__file__).resolve().parents[1]
FACTORS, RANK = 4, 75
KINDS = {"independent": "independent features", "singular": f"covariance of rank {RANK}"}
FEATURES = (100, 180, 320, 560, 1000, 1800, 3200, 5600, 10_000)
SAMPLES = tuple(range(10, 53, 3))


def recovered(kind: str, m: int, p: int, seed: int) -> bool:
    rng = np.random.default_rng((seed, m, p, kind == "singular"))
    X = rng.standard_normal((m, RANK if kind == "singular" else p))
    if kind == "singular":
        X = X @ rng.standard_normal((RANK, p))
    support = np.sort(rng.choice(p, FACTORS, replace=False))
    exponents = rng.integers(1, 3, FACTORS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LearnWarning)
        found = learn_monomial(X, np.prod(X[:, support] ** exponents, axis=1))
    return found.success and np.array_equal(found.support, support) and np.array_equal(found.exponents, exponents)


def measure(features: list[int], samples: list[int], trials: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """The share of recoveries by kind: a row for each number of samples, a column for each number of features."""
    shares: dict[str, list[list[float]]] = {}
    with threadpool_limits(1, user_api="blas"):
        for kind in KINDS:
            shares[kind] = []
            for m in samples:
                progress(f"{KINDS[kind]}, {m} samples")
                shares[kind].append([sum(recovered(kind, m, p, seed) for seed in range(trials)) / trials for p in features])
    return {"factors": FACTORS, "features": features, "samples": samples, "trials": trials, "shares": shares}


def half(samples: np.ndarray, share: np.ndarray) -> float:
    """Where the share first crosses one half, between two numbers of samples."""
    above = int((share >= 0.5).argmax())
    if share[above] < 0.5:
        return float("nan")
    if above == 0:
        return float(samples[0])
    low, high = share[above - 1], share[above]
    return float(samples[above - 1] + (0.5 - low) / (high - low) * (samples[above] - samples[above - 1]))


def draw(record: dict[str, Any], path: Path) -> None:
    features, samples = np.array(record["features"]), np.array(record["samples"])
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained", sharey=True)
    middle = np.sqrt(features[1:] * features[:-1])
    columns = np.concatenate([[features[0] ** 2 / middle[0]], middle, [features[-1] ** 2 / middle[-1]]])
    step = samples[1] - samples[0]
    rows = np.append(samples - step / 2, samples[-1] + step / 2)
    for axis, (kind, title) in zip(axes, KINDS.items(), strict=True):
        share = np.array(record["shares"][kind])
        mesh = axis.pcolormesh(columns, rows, share, cmap="Blues", vmin=0, vmax=1)
        crossing = np.array([half(samples, column) for column in share.T])
        known = np.isfinite(crossing)
        slope, offset = np.polyfit(np.log(features[known]), crossing[known], 1)
        grid = np.geomspace(features[0], features[-1], 50)
        axis.plot(features, crossing, "o", color="#c8553d", label="half of them")
        axis.plot(grid, slope * np.log(grid) + offset, color="#c8553d", label=f"{slope:.1f} log p {offset:+.1f}")
        axis.set(xscale="log", xlim=(columns[0], columns[-1]), ylim=(rows[0], rows[-1]), xlabel="features p", title=title)
        axis.legend(frameon=True, framealpha=0.9, edgecolor="none", loc="upper left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("samples m")
    figure.colorbar(mesh, ax=axes, label="recovered exactly", pad=0.01)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=25, help="monomials in each cell (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few features and trials, to try the machinery; needs --output")
    parser.add_argument("-o", "--output", help="folder of the measurements and the picture (default: those of the repository)")
    args = parser.parse_args(words)
    if args.quick and not args.output:
        parser.error("--quick figures mean nothing and must not replace others: give another folder with --output")
    results, images = (Path(args.output), Path(args.output)) if args.output else (RESULTS, IMAGES)
    images.mkdir(parents=True, exist_ok=True)
    features, samples, trials = (FEATURES[:4], SAMPLES[::2], 4) if args.quick else (FEATURES, SAMPLES, args.trials)
    with Progress() as progress:
        record = measure(list(features), list(samples), trials, progress)
    record["provenance"] = provenance(ROOT)
    write_text(results / "monomial-phase.json", json.dumps(record, default=plain) + "\n")
    draw(record, images / "monomial-phase.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
