"""Which layer of a model goes with which group of neurons? Real spikes; the table is saved with the model.

Each group is hidden from the model in turn; the counts of its units in half-second windows, which the model
was never trained on, are predicted from each layer's mean over the window, and from the visible counts.

Run: python examples/align_layers_with_areas.py [steps] [folder to write the model to]
"""

import sys
import tempfile

import pandas as pd
import torch

from neurokern.alignment import alignment_table, layer_features
from neurokern.datasets import bin_windows, sliding_windows, split_session, with_region_groups
from neurokern.hub import DataSource, ModelCard, from_pretrained, read_folder, save_pretrained
from neurokern.models import MtM, MtMConfig
from neurokern.samples import load_sample
from neurokern.training import Trainer, TrainingConfig

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
scratch = tempfile.TemporaryDirectory()
folder = sys.argv[2] if len(sys.argv) > 2 else f"{scratch.name}/shared"

recording = with_region_groups(load_sample(), 4)  # no regions are named: neighbors stand in for them
session = bin_windows(recording, sliding_windows(recording, 0.5), bin_size=0.02)  # (240, 25, 289) counts
parts = split_session(session, test=0.5, validation=0.1)

model = MtM(MtMConfig.small(n_bins=session.n_bins))
config = TrainingConfig.small(max_steps=steps, validate_every=max(steps // 5, 1))
Trainer(model, [parts.train], [parts.validation], config, f"{scratch.name}/run").fit()

counts = torch.from_numpy(parts.test.read(range(parts.test.n_windows)))  # (120, 25, 289), in time
tables = []
for group in sorted(set(session.regions.tolist())):
    hidden = torch.from_numpy(session.regions == group)
    features = layer_features(
        model,
        counts,
        ["token_network", "layers.0", "layers.1", "norm"],
        pool="mean",
        forward=lambda m, x, hidden=hidden: m(x, session.session, "inter-region", hidden.expand_as(x)),
    )
    features["visible counts"] = counts[:, :, ~hidden].sum(1)
    active = hidden & (counts.sum((0, 1)) >= 20)
    tables.append(alignment_table(features, {group: counts[:, :, active].sum(1)}, method="ridge"))
settings = tables[0].attrs
table = pd.concat(tables, ignore_index=True)
table.attrs = settings
print(table.pivot(index="layer", columns="region", values="score").round(3))

card = ModelCard(
    title="MtM of two minutes of spikes",
    license="mit",
    data=(
        DataSource(name="IBL test recording, 120 s", license="mit", url="github.com/int-brain-lab/ibllib"),
    ),
)
save_pretrained(model, folder, card=card, alignment={"hidden groups": table}, sessions="pseudonyms")
best = read_folder(folder).alignment["hidden groups"].sort_values("score").iloc[-1]
print(f"read back: {best['layer']} with {best['region']}, r = {best['score']:.2f}")
print(f"sessions of the shared model: {from_pretrained(folder).sessions}")
