"""Train each masking scheme alone and all of them together on sessions with known rates, and compare.

Run it with ``python examples/masking_ablation.py [--seeds 3]``: about two minutes of CPU for a seed. A scheme
alone gets 1,500 updates, and so does each of the four in MtM. ``--quick`` is a small version of some seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch

from neurokern.evaluation import (
    TASKS,
    GLMPredictor,
    MtMPredictor,
    Predictor,
    RidgePredictor,
    UnitMeanPredictor,
    evaluate_masked_prediction,
    score_true_rates,
    simulate_sessions,
)
from neurokern.models import SCHEMES, Masking, MtM, MtMConfig
from neurokern.training import Trainer, TrainingConfig

# In the order of the tasks: the scheme that is trained on what the task asks.
SINGLE = ("neuron", "causal", "intra-region", "inter-region")


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Sizes of data and model; ``updates`` of each scheme."""

    n_sessions: int = 2
    n_windows: int = 2000
    n_bins: int = 16
    units_per_region: tuple[int, ...] = (8,) * 6
    updates: int = 1500
    hidden_size: int = 64
    learning_rate: float = 4e-3
    scored_units: int | None = 24
    schemes: tuple[str, ...] = (*SINGLE, "MtM")
    options: dict[str, float] = field(default_factory=lambda: {"mean_rate": 20.0, "time_constant": 0.5})


QUICK = Ablation(
    n_sessions=1,
    n_windows=400,
    n_bins=10,
    units_per_region=(6,) * 4,
    updates=150,
    hidden_size=32,
    schemes=("neuron", "intra-region", "MtM"),
    scored_units=12,
)


def run_ablation(ablation: Ablation, seed: int) -> pd.DataFrame:
    """Return bits per spike of schemes, baselines and true rates: one row each, one column per task."""
    simulated = simulate_sessions(
        ablation.n_sessions,
        n_windows=ablation.n_windows,
        n_bins=ablation.n_bins,
        units_per_region=ablation.units_per_region,
        seed=seed,
        **ablation.options,  # type: ignore[arg-type]
    )
    parts = [one.split(test=0.15, validation=0.05) for one in simulated]
    rows: dict[str, list[pd.DataFrame]] = {}
    for one, part in zip(simulated, parts, strict=True):
        baselines: list[Predictor] = [
            UnitMeanPredictor.fit(part.train),
            RidgePredictor.fit(part.train, part.validation),
            GLMPredictor.fit(part.train, part.validation),
        ]
        for predictor in baselines:
            table = evaluate_masked_prediction(predictor, part.test, max_units=ablation.scored_units)
            rows.setdefault(predictor.name, []).append(table)
        best = one.select(slice(-len(part.test), None))
        ceiling = score_true_rates(best, max_units=ablation.scored_units)
        rows.setdefault("true rates", []).append(ceiling)
    for name in ablation.schemes:
        model = train_schemes(SCHEMES if name == "MtM" else (name,), parts, ablation, seed)
        for part in parts:
            predictor = MtMPredictor(model, part.test.session, name=name)
            table = evaluate_masked_prediction(predictor, part.test, max_units=ablation.scored_units)
            rows.setdefault(name, []).append(table)
    means = {
        name: pd.concat(tables).groupby("task")["bits_per_spike"].mean() for name, tables in rows.items()
    }
    return pd.DataFrame(means).T[list(TASKS)]


def train_schemes(schemes: Sequence[str], parts: Sequence, ablation: Ablation, seed: int) -> MtM:
    """Train the published read-in and trunk, made small, on some schemes; the weights best in validation."""
    torch.manual_seed(seed)
    size = ablation.hidden_size
    model = MtM(
        MtMConfig(
            n_bins=ablation.n_bins,
            hidden_size=size,
            n_layers=2,
            n_heads=4,
            mlp_size=2 * size,
            stitch_size=size,
            embed_size=None,
            input_dropout=0.0,
            dropout=0.0,
            token_std=0.3,
            schemes=tuple(schemes),
        )
    )
    steps = ablation.updates * len(schemes)
    config = TrainingConfig(
        seed=seed,
        batch_size=32,
        max_steps=steps,
        learning_rate=ablation.learning_rate,
        decay="matrices",
        reduction="mean",
        gradient_clip=1.0,
        validate_every=max(1, steps // 5),
        checkpoint_every=steps,
        masking=Masking(schemes=tuple(schemes)),
        progress=False,
    )
    train, validation = [part.train for part in parts], [part.validation for part in parts]
    with tempfile.TemporaryDirectory() as folder:
        Trainer(model, train, validation, config, folder).fit()
    return model


def as_markdown(tables: Sequence[pd.DataFrame]) -> str:
    """Return the mean over seeds; of trained models also the range over seeds."""
    stacked = pd.concat(tables, keys=range(len(tables)))
    mean, low, high = (
        getattr(stacked.groupby(level=1, sort=False), kind)() for kind in ("mean", "min", "max")
    )
    lines = ["| | " + " | ".join(mean.columns) + " |", "|---" * (len(mean.columns) + 1) + "|"]
    for name, row in mean.iterrows():
        cells = [
            f"{row[task]:.2f} ({low.loc[name, task]:.2f} to {high.loc[name, task]:.2f})" for task in mean
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    trained = mean.loc[[name for name in SINGLE if name in mean.index]]
    if len(trained) == len(SINGLE) and "MtM" in mean.index:
        share = mean.loc["MtM"] / trained.max()
        lines.append("| MtM / best single | " + " | ".join(f"{value:.0%}" for value in share) + " |")
        share = mean.loc["MtM"] / mean.loc["true rates"]
        lines.append("| MtM / true rates | " + " | ".join(f"{value:.0%}" for value in share) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (3)")
    parser.add_argument("--quick", action="store_true", help="small data, few updates, two schemes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done = []
    for number in range(arguments.seeds):
        done.append(run_ablation(QUICK if arguments.quick else Ablation(), number))
        sys.stdout.write(f"seed {number}\n{done[-1].round(3).to_string()}\n\n")
        sys.stdout.flush()
    sys.stdout.write(f"mean (range) over {len(done)} seeds\n\n{as_markdown(done)}\n")
