"""What was seen? Leave-one-run-out decoding of block means, with a closed-form ridge read-out.

Run it with ``python examples/decode_blocks.py FOLDER [ENTITY=VALUE ...]``, such as ``acquisition=1slice``;
``readout=lda`` takes another read-out than ridge.
Each voxel is standardized within its own run, without labels. The delay of the blood response is chosen
within the training runs alone, by leaving each of them out in turn; the test run is looked at once.
"""

from __future__ import annotations

import sys

import numpy as np

from neurokern.adapters import LDAProbe, PrototypeProbe, ReducedRankProbe, RidgeProbe
from neurokern.datasets import BIDSDataset
from neurokern.extractors import FMRIVoxelExtractor

DELAYS = (0.0, 2.5, 5.0)  # seconds from a block to the volumes that are averaged for it

READOUTS = {
    "ridge": RidgeProbe,
    "lda": LDAProbe,
    "reduced-rank": ReducedRankProbe,
    "prototypes": PrototypeProbe,
}

Blocks = tuple[np.ndarray, np.ndarray, np.ndarray]


def block_means(brain: BIDSDataset, delay: float) -> Blocks:
    """Return a mean volume for each block (blocks, voxels), its condition and its run."""
    seconds = float(brain.run(0).events["duration"].median())
    windows = brain.with_extractor(
        FMRIVoxelExtractor(normalize=True), duration=seconds, events=True, hrf_delay=delay
    )
    items = [windows[i] for i in range(len(windows))]
    sizes = sorted({item["signal"].shape[1] for item in items})
    if len(sizes) > 1:
        sys.exit(f"decode_blocks: runs must have the same voxels, got {sizes}; choose some by ENTITY=VALUE")
    means = np.stack([item["signal"].mean(0).numpy() for item in items])
    return means, np.array([item["condition"] for item in items]), np.array([item["run"] for item in items])


def accuracy(blocks: Blocks, train: np.ndarray, test: np.ndarray, readout: str = "ridge") -> float:
    """Return the share of test blocks that a read-out fitted on training blocks gets right."""
    means, condition, _ = blocks
    probe = READOUTS[readout]().fit(means[train], condition[train])
    return float((np.asarray(probe.predict(means[test])) == condition[test]).mean())


def left_out(blocks: Blocks, runs: np.ndarray, readout: str = "ridge") -> float:
    """Return the mean accuracy over ``runs``, each decoded by a read-out fitted on the others of them."""
    run = blocks[2]
    among = np.isin(run, runs)
    return float(np.mean([accuracy(blocks, among & (run != one), run == one, readout) for one in runs]))


def wilson_interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (1927, doi:10.1080/01621459.1927.10502953)."""
    middle = (right + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * (right * (n - right) / n + z**2 / 4) ** 0.5
    return middle - half, middle + half


def main(root: str, *entities: str) -> None:
    """Print the accuracy in each run."""
    wanted = dict(pair.split("=", 1) for pair in entities)
    readout = wanted.pop("readout", "ridge")
    brain = BIDSDataset(root, **wanted)
    by_delay = {delay: block_means(brain, delay) for delay in DELAYS}
    _, condition, run = by_delay[0.0]
    chance = 1 / len(np.unique(condition))
    print("| run | blocks | delay (s), chosen on the other runs | accuracy |\n|---|---|---|---|")
    right, scores = 0, []
    for one in np.unique(run):
        others = np.unique(run[run != one])
        delay = max(DELAYS, key=lambda candidate: left_out(by_delay[candidate], others, readout))
        scores.append(accuracy(by_delay[delay], run != one, run == one, readout))
        right += round(scores[-1] * (run == one).sum())
        print(f"| {one} | {(run == one).sum()} | {delay:g} | {scores[-1]:.3f} |")
    n = len(run)
    low, high = wilson_interval(right, n)
    print(f"| all | {n} | | **{np.mean(scores):.3f}** |")
    print(f"chance {chance:.3f}; {right} of {n} blocks, 95 % interval {low:.2f} to {high:.2f} (Wilson)")


if __name__ == "__main__":
    main(*sys.argv[1:])
