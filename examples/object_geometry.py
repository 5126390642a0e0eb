"""When do neurons tell objects apart, and where they are? RSA and kernel analysis over time.

Run it with ``python examples/object_geometry.py zd7_rasters.npz``: rasters of neurons that were recorded one
after another, with the object and the position of each trial. Trials of the same object and position are put
together across neurons, in the order in which they came.
"""

from __future__ import annotations

import sys

import numpy as np

from neurokern.alignment import alignment_table, kernel_analysis, response_ceilings

WIDTH, STEP = 100, 50  # ms
STARTS = np.arange(-200, 401, STEP)


def pseudo_trials(file: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts (repeats, objects x positions, windows, neurons), and object and position of each."""
    with np.load(file, allow_pickle=False) as data:
        spikes = np.unpackbits(data["raster_packed"], axis=1)[:, :1000]
        neuron, names, place = data["row_neuron"], data["row_stimulus"], data["row_position"]
    windows = np.stack([spikes[:, 500 + t : 500 + t + WIDTH].sum(1) for t in STARTS], 1).astype(np.float32)
    kinds = sorted(set(zip(names.tolist(), place.tolist(), strict=True)))
    rows = [
        [np.flatnonzero((neuron == n) & (names == k) & (place == p)) for n in np.unique(neuron)]
        for k, p in kinds
    ]
    fewest = min(len(cell) for row in rows for cell in row)
    counts = np.stack(
        [[windows[cell[:fewest]] for cell in row] for row in rows]
    )  # (21, neurons, trials, windows)
    objects, positions = (np.array(one) for one in zip(*kinds, strict=True))
    return counts.transpose(2, 0, 3, 1), objects, positions


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Return a column for each label."""
    return (labels[:, None] == np.unique(labels)).astype(float)


def main(file: str) -> None:
    """Print, for each window, how the RDM goes with objects and with positions, and the kernel analysis."""
    counts, objects, positions = pseudo_trials(file)
    responses = np.sqrt(counts)
    options = {"method": "rsa", "metric": "euclidean", "comparison": "pearson"}
    ceilings = response_ceilings({"IT": responses}, n_splits=30, **options)
    models = {"object": one_hot(objects), "position": one_hot(positions)}
    table = alignment_table(models, {"IT": responses.mean(0)}, ceilings=ceilings, n_groups=21, **options)
    score = table.pivot(index="time", columns="layer", values="score")
    low, high = (table.pivot(index="time", columns="layer", values=side) for side in ("low", "high"))
    trials = responses.transpose(2, 0, 1, 3).reshape(len(STARTS), -1, responses.shape[-1])
    analysis = kernel_analysis(trials, np.tile(objects, len(responses)), n_dimensions=60)
    print(f"{responses.shape[-1]} neurons, {responses.shape[1]} conditions, {len(responses)} trials of each")
    print("| window (ms) | object | position | ceiling | kernel analysis, area | accuracy, 60 dimensions |")
    print("|---|---|---|---|---|---|")
    for time, start in enumerate(STARTS):
        cells = [
            f"{score.loc[time, name]:.2f} [{low.loc[time, name]:.2f}, {high.loc[time, name]:.2f}]"
            for name in models
        ]
        ceiling = ceilings["IT"][time]
        shown = "–" if np.isnan(ceiling) else f"{ceiling:.2f}"
        area, accuracy = analysis.area[time], analysis.accuracy[time, -1]
        print(f"| {start} to {start + WIDTH} | {' | '.join(cells)} | {shown} | {area:.3f} | {accuracy:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1])
