"""Your own arrays to a few-shot decoder. The arrays here are simulated; put your spike times in their place.

Run: python examples/few_shot_on_your_trials.py [steps]
"""

import sys
import tempfile

import numpy as np
import pandas as pd

from neurokern.adapters import RidgeProbe, count_features, evaluate_few_shot, few_shot_task, model_features
from neurokern.datasets import SpikeRecording, bin_windows, split_session, trial_windows
from neurokern.models import MtM, MtMConfig
from neurokern.training import Trainer, TrainingConfig

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200

# Simulated: 30 units, 120 trials; after the stimulus the first ten units fire more on "left" trials.
rng = np.random.default_rng(0)
trials = pd.DataFrame(
    {"stimOn_times": 2.0 + 3.0 * np.arange(120), "side": rng.choice(["left", "right"], 120)}
)
background = rng.uniform(0, 365, 30 * 365 * 4)  # 4 Hz each
evoked = (
    trials["stimOn_times"][trials["side"] == "left"].to_numpy()[:, None] + rng.uniform(0, 0.5, 12)
).ravel()
times = np.concatenate([background, evoked])
units = np.concatenate([rng.integers(0, 30, len(background)), rng.integers(0, 10, len(evoked))])

recording = SpikeRecording.from_arrays(
    times, units, regions=["VISp"] * 10 + ["CA1"] * 20, trials=trials, session="simulated"
)
windows, kept = trial_windows(recording, align="stimOn_times", tmin=-0.2, tmax=0.6)
session = bin_windows(recording, windows, bin_size=0.02, trials=kept)
parts = split_session(session, test=0.3, validation=0.1)

model = MtM(MtMConfig.small(n_bins=session.n_bins, stitch_size=16))
config = TrainingConfig.small(max_steps=steps, validate_every=max(steps // 4, 1))
with tempfile.TemporaryDirectory() as folder:
    Trainer(model, [parts.train], [parts.validation], config, folder).fit()  # sees spikes, never a label

features = count_features(session) | model_features(model, session)
task = few_shot_task(
    session, session.trials["side"], {name: features[name] for name in ("MtM rates", "raw counts")}
)
table = evaluate_few_shot(task, {"ridge": RidgeProbe}, shots=(1, 2, 5, 10), episodes=30)
print(table[["method", "shots", "mean", "low", "high", "chance"]].round(2).to_string(index=False))
