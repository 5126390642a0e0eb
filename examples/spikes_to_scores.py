"""From spike times to a trained model and its scores: what `neurokern demo` does, without the report.

Run: python examples/spikes_to_scores.py [steps]
"""

import sys
import tempfile

import pandas as pd

from neurokern.datasets import bin_windows, sliding_windows, split_session, with_region_groups
from neurokern.evaluation import MtMPredictor, RidgePredictor, evaluate_masked_prediction, summarize
from neurokern.models import MtM, MtMConfig
from neurokern.samples import load_sample
from neurokern.training import Trainer, TrainingConfig

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300

recording = with_region_groups(
    load_sample(), 6
)  # no regions are named: groups of neighbors stand in for them
session = bin_windows(recording, sliding_windows(recording, 1.0), bin_size=0.02)  # (120, 50, 289) counts
parts = split_session(session, test=0.2, validation=0.1)  # in time: train, validation, test
print(parts.note)

model = MtM(MtMConfig.small(n_bins=session.n_bins))
config = TrainingConfig.small(max_steps=steps, validate_every=max(steps // 5, 1))
with tempfile.TemporaryDirectory() as folder:
    Trainer(model, [parts.train], [parts.validation], config, folder).fit()

predictors = [MtMPredictor(model, session.session), RidgePredictor.fit(parts.train, parts.validation)]
scores = pd.concat([evaluate_masked_prediction(one, parts.test, max_units=50) for one in predictors])
print(summarize(scores, min_spikes=10).pivot(index="task", columns="predictor", values="mean").round(3))
