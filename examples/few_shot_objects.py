"""Which of seven objects does a monkey see? Read-outs of neurons in inferotemporal cortex from k trials each.

The neurons were recorded one after another, so a trial here is put together from each neuron's trial of that
number with that object: correlations between neurons are lost, and scores are those of such a population.

Run: python examples/few_shot_objects.py zd7_rasters.npz [episodes]
"""

import sys

import numpy as np
import torch

from neurokern.adapters import (
    FewShotTask,
    LDAProbe,
    PrototypeProbe,
    RidgeProbe,
    evaluate_few_shot,
)

data = np.load(sys.argv[1], allow_pickle=False)
episodes = int(sys.argv[2]) if len(sys.argv) > 2 else 100

raster = np.unpackbits(data["raster_packed"], axis=1)[:, :1000]  # 1 ms, -500 to 499 ms
counts = raster[:, 600:900].reshape(len(raster), 6, 50).sum(2)  # 100 to 400 ms after onset, 50 ms bins
neuron, shown = data["row_neuron"], data["row_stimulus"]
objects = np.unique(shown)
n_trials = min(((neuron == one) & (shown == what)).sum() for one in np.unique(neuron) for what in objects)

trials = np.zeros((n_trials, len(objects), len(np.unique(neuron)), 6), dtype=np.float32)
for column, one in enumerate(np.unique(neuron)):
    for row, what in enumerate(objects):
        trials[:, row, column] = counts[(neuron == one) & (shown == what)][:n_trials]
binned = torch.from_numpy(trials).flatten(0, 1)  # (trials, neurons, bins), in the order of presentation
labels = np.tile(objects, n_trials)
first_query = len(objects) * round(0.6 * n_trials)
task = FewShotTask(
    session="IT",
    features={"counts": binned.sum(2), "binned counts": binned.flatten(1)},
    labels=labels,
    support_pool=np.arange(first_query),
    query=np.arange(first_query, len(labels)),
)
adapters = {
    "ridge": RidgeProbe,
    "lda": LDAProbe,
    "prototypes": PrototypeProbe,
    "cosine": lambda: PrototypeProbe("cosine"),
}
table = evaluate_few_shot(
    task, adapters, shots=(1, 2, 5, 10, 20), episodes=episodes, baselines=["counts, ridge"]
)
print(f"{len(objects)} objects, {n_trials} trials of each, {trials.shape[2]} neurons; query: the last 40 %")
wide = table.pivot_table(index="method", columns="shots", values="mean", sort=False)
print(wide.round(3).to_string())
print(f"chance {table['chance'].iloc[0]:.3f}, shuffled labels {table['shuffled'].mean():.3f}")
