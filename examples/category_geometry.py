"""How alike are categories to a brain? RDMs of fMRI blocks, and how far two halves of the runs agree.

Run it with ``python examples/category_geometry.py FOLDER [ENTITY=VALUE ...]`` on a BIDS folder whose runs
show each condition once; an entity is such as ``acquisition=1slice``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np

from neurokern.alignment import (
    compare_rdms,
    compute_rdm,
    cross_validated_rdm,
    geo_topological,
    noise_covariance,
)
from neurokern.datasets import BIDSDataset
from neurokern.extractors import FMRIVoxelExtractor

DELAYS = (0.0, 2.5, 5.0)  # seconds from a block to the volumes that are averaged for it
N_SPLITS = 100

Rdm = Callable[[np.ndarray], np.ndarray]


def blocks(brain: BIDSDataset, delay: float) -> tuple[np.ndarray, np.ndarray]:
    """Return mean volumes of blocks (runs, conditions, voxels), and volumes about them (volumes, voxels)."""
    seconds = float(brain.run(0).events["duration"].median())
    extractor = FMRIVoxelExtractor(normalize=True)
    windows = brain.with_extractor(extractor, duration=seconds, events=True, hrf_delay=delay)
    items = [windows[i] for i in range(len(windows))]
    items.sort(key=lambda item: (item["run"], item["condition"]))
    signal = np.stack([item["signal"].numpy() for item in items])  # (blocks, volumes, voxels)
    signal = signal[:, :, signal.std((0, 1)) > 0]
    means = signal.mean(1)
    residuals = (signal - means[:, None]).reshape(-1, signal.shape[2])
    return means.reshape(len({item["run"] for item in items}), -1, signal.shape[2]), residuals


def halves(means: np.ndarray, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield two halves of the runs, at random."""
    generator = np.random.default_rng(seed)
    for _ in range(N_SPLITS):
        order = generator.permutation(len(means))
        yield means[order[: len(means) // 2]], means[order[len(means) // 2 :]]


def agreement(means: np.ndarray, rdm_of: Rdm) -> float:
    """Return the mean rank correlation of the RDMs of two halves of the runs."""
    return float(np.mean([compare_rdms(rdm_of(a), rdm_of(b)) for a, b in halves(means)]))


def kinds_of_rdm(residuals: np.ndarray) -> dict[str, Rdm]:
    """Return what makes an RDM of (runs, conditions, voxels), by name."""
    noise = noise_covariance(residuals)
    return {
        "correlation of mean patterns": lambda part: compute_rdm(part.mean(0), "correlation"),
        "the same, geo-topological": lambda part: geo_topological(compute_rdm(part.mean(0), "correlation")),
        "Euclidean": lambda part: compute_rdm(part.mean(0), "euclidean"),
        "Euclidean, cross-validated": cross_validated_rdm,
        "Mahalanobis, cross-validated (crossnobis)": lambda part: cross_validated_rdm(part, noise=noise),
    }


def main(root: str, *entities: str) -> None:
    """Print how far halves of the runs agree, for each kind of RDM and each delay."""
    brain = BIDSDataset(root, **dict(pair.split("=", 1) for pair in entities))
    table: dict[str, list[float]] = {}
    for delay in DELAYS:
        means, residuals = blocks(brain, delay)
        for name, rdm_of in kinds_of_rdm(residuals).items():
            table.setdefault(name, []).append(agreement(means, rdm_of))
    print(f"{means.shape[0]} runs, {means.shape[1]} conditions, {means.shape[2]} voxels")
    print(f"| dissimilarity | {' | '.join(f'delay {delay:g} s' for delay in DELAYS)} |")
    print("|---" * (1 + len(DELAYS)) + "|")
    for name, scores in table.items():
        print(f"| {name} | {' | '.join(f'{score:+.2f}' for score in scores)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
