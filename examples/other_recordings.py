"""Train MtM on one recording and compare it with ridge, a GLM and raw counts: hidden spikes and decoding.

Run it with ``python examples/other_recordings.py KIND FILE [STEPS]``:

- ``m1``: binned motor cortex and hand velocity (Dyer et al. 2017), ``.npz`` with ``Yte`` and ``Xte``
- ``ca1``: spike times and position on a linear track, ``.npz``
- ``it``: rasters of single units recorded one after another, seven objects (Zhang et al. 2011), ``.npz``
- ``retina``: spike times of a multi-electrode array (Eglen et al. 2014), ``.h5``; needs h5py
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurokern.adapters import count_features, model_features
from neurokern.datasets import (
    BinnedSession,
    SpikeRecording,
    Splits,
    bin_windows,
    sliding_windows,
    split_session,
)
from neurokern.evaluation import (
    GLMPredictor,
    MtMPredictor,
    RidgePredictor,
    UnitMeanPredictor,
    decode_behavior,
    decode_labels,
    evaluate_masked_prediction,
    paired_differences,
    summarize,
)
from neurokern.evaluation.tasks import sample_units
from neurokern.models import Masking, MtM, MtMConfig
from neurokern.training import Trainer, TrainingConfig

TASKS = ("co-smoothing", "forward-prediction")
SCHEMES = ("neuron", "causal")  # one region each, or none: nothing to predict between regions
PAST, AROUND = tuple(range(5)), tuple(range(-4, 5))  # bins that raw counts are decoded from


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recording in windows, and what may be decoded from it: a signal of each bin, or a label of each
    window.
    """

    session: BinnedSession
    behavior: np.ndarray | None = None  # (windows, bins, signals)
    signals: tuple[str, ...] = ()
    label: str | None = None  # column of the trials
    max_units: int | None = None
    gap: float = 0.0  # seconds between parts


def m1(path: str) -> Case:
    """Cut the longer of the two stretches into windows of 18 bins; counts are binned already."""
    with np.load(path, allow_pickle=False) as file:
        counts, velocity = file["Yte"], file["Xte"]
    n_windows = len(counts) // 18
    rows = slice(0, 18 * n_windows)
    session = BinnedSession(
        counts=counts[rows].reshape(n_windows, 18, -1),
        bin_size=0.05,  # not said in the file: nothing below depends on it but the smoothing of ridge
        regions=np.full(counts.shape[1], "M1"),
        unit_ids=np.arange(counts.shape[1]),
        session="m1",
    )
    behavior = velocity[rows].reshape(n_windows, 18, 2).astype(np.float32)
    return Case(session=session, behavior=behavior, signals=("velocity x", "velocity y"))


def ca1(path: str) -> Case:
    """Windows of 5 s in bins of 0.25 s of the run along the track; the position at the middle of each bin."""
    with np.load(path, allow_pickle=False) as file:
        times, units = file["spike_times_s"], file["spike_units"]
        clock, position = file["pos_t_s"], file["pos_x_px"].astype(np.float64)
    moving = np.flatnonzero(
        position != position[-1]
    )  # at the end the animal rests and the tracker stands still
    start, stop = clock[moving[0]], clock[moving[-1]]
    ran = (times >= start) & (times <= stop)
    recording = SpikeRecording.from_arrays(times[ran], units[ran], start=start, stop=stop, session="ca1")
    session = bin_windows(recording, sliding_windows(recording, 5.0), 0.25)
    assert session.windows is not None
    middle = session.windows[:, :1] + 0.125 + 0.25 * np.arange(session.n_bins)
    behavior = np.interp(middle, clock, position)[:, :, None].astype(np.float32)
    return Case(session=session, behavior=behavior, signals=("position",), gap=5.0)


def it(path: str) -> Case:
    """Pseudo-trials: the k-th presentation of an object at a place, whichever day each neuron saw it."""
    with np.load(path, allow_pickle=False) as file:
        spikes = np.unpackbits(file["raster_packed"], axis=1)[:, 500:1000]  # from the onset on, 1 ms
        counts = spikes.reshape(len(spikes), 10, 50).sum(2).astype(np.uint8)
        neuron, names = file["row_neuron"], file["stimulus_names"]
        condition = 3 * file["row_stimulus"].astype(int) + file["row_position"]
    table = pd.DataFrame({"neuron": neuron, "condition": condition})
    table["repeat"] = table.groupby(["neuron", "condition"]).cumcount()
    n_repeats = int(table.groupby(["neuron", "condition"]).size().min())
    n_neurons = int(neuron.max()) + 1
    trials = np.zeros(
        (n_repeats, 21, 10, n_neurons), dtype=np.uint8
    )  # repeats in order: a split by time splits them
    kept = (table["repeat"] < n_repeats).to_numpy()
    trials[table["repeat"][kept], table["condition"][kept], :, neuron[kept]] = counts[kept]
    session = BinnedSession(
        counts=trials.reshape(-1, 10, n_neurons),
        bin_size=0.05,
        regions=np.full(n_neurons, "IT"),
        unit_ids=np.arange(n_neurons),
        session="it",
        trials=pd.DataFrame({"object": np.tile(np.repeat(names, 3), n_repeats)}),
    )
    return Case(session=session, label="object")


def retina(path: str) -> Case:
    """Windows of 10 s in bins of 0.5 s of spontaneous waves."""
    import h5py

    with h5py.File(path) as file:
        times, sizes = file["spikes"][:], file["sCount"][:]
    units = np.repeat(np.arange(len(sizes)), sizes)
    recording = SpikeRecording.from_arrays(times, units, session="retina")
    session = bin_windows(recording, sliding_windows(recording, 10.0), 0.5)
    return Case(session=session, max_units=100, gap=10.0)


def train(parts: Splits[BinnedSession], steps: int) -> MtM:
    """Train the recipe for small data, on the two schemes that need no regions."""
    torch.manual_seed(0)
    model = MtM(MtMConfig.small(n_bins=parts.train.n_bins, schemes=SCHEMES))
    masking = Masking(schemes=SCHEMES, ratio=(0.05, 0.3), causal_targets="random-cut")
    config = TrainingConfig.small(
        max_steps=steps, masking=masking, validate_every=max(1, steps // 10), progress=False
    )
    with tempfile.TemporaryDirectory() as folder:
        Trainer(model, [parts.train], [parts.validation], config, folder).fit()
    return model


def masked_prediction(model: MtM, parts: Splits[BinnedSession], max_units: int | None) -> str:
    """Return bits per spike of model and baselines on the test windows, and what the model adds to each."""
    scored = sample_units(parts.test.region_index[0], max_units, 0)
    baselines = [
        RidgePredictor.fit(parts.train, parts.validation, TASKS),
        GLMPredictor.fit(parts.train, parts.validation, TASKS, units=scored),
        UnitMeanPredictor.fit(parts.train),
    ]
    predictors = [MtMPredictor(model, parts.test.session), *baselines]
    scores = pd.concat(
        [evaluate_masked_prediction(one, parts.test, TASKS, max_units=max_units) for one in predictors]
    )
    means = summarize(scores, min_spikes=10)[["predictor", "task", "mean", "low", "high", "n_units"]]
    differences = [
        paired_differences(scores, "MtM", one.name, min_spikes=10).assign(minus=one.name) for one in baselines
    ]
    columns = ["task", "minus", "mean", "low", "high", "wins"]
    return f"{means.round(3).to_string()}\n\n{pd.concat(differences)[columns].round(3).to_string()}"


def joined(parts: Splits[BinnedSession]) -> tuple[list[BinnedSession], list[tuple[np.ndarray, np.ndarray]]]:
    """Return all parts, and one fold: fit on training and validation windows, score on test windows."""
    sizes = len(parts.train) + len(parts.validation), len(parts.test)
    return [parts.train, parts.validation, parts.test], [
        (np.arange(sizes[0]), sizes[0] + np.arange(sizes[1]))
    ]


@torch.inference_mode()
def bin_features(model: MtM, part: BinnedSession, scheme: str) -> dict[str, Tensor]:
    """Return the features of each bin, ``(windows, bins, features)``."""
    counts = torch.from_numpy(part.read(range(len(part))))
    model.eval()
    return {
        "MtM factors": model.expected_factors(counts, part.session, scheme),
        "MtM states": model.embed(counts, part.session, scheme),
        "MtM rates": model(counts, part.session, scheme),
    }


def behavior_table(model: MtM, case: Case, parts: Splits[BinnedSession], rows: np.ndarray) -> pd.DataFrame:
    """Decode the signal: from the past alone, and from bins on both sides."""
    pieces, fold = joined(parts)
    assert case.behavior is not None
    tables = []
    for scheme, lags, said in (("causal", PAST, "past"), ("neuron", AROUND, "both sides")):
        of_model: dict[str, list[Tensor]] = {}
        for piece in pieces:
            for name, values in bin_features(model, piece, scheme).items():
                of_model.setdefault(name, []).append(values)
        raw = torch.cat([torch.from_numpy(piece.read(range(len(piece)))) for piece in pieces])
        features = {
            "raw counts": lagged(raw, lags),
            **{name: torch.cat(values) for name, values in of_model.items()},
        }
        table = decode_behavior(features, case.behavior[rows], folds=fold, names=case.signals)
        tables.append(table.assign(bins=said))
    return pd.concat(tables, ignore_index=True)


def lagged(counts: Tensor, lags: tuple[int, ...]) -> Tensor:
    """Return the counts of neighboring bins side by side; bins beyond the window are 0."""
    n_bins = counts.shape[1]
    padded = torch.nn.functional.pad(counts, (0, 0, max(lags), max(-min(lags), 0)))
    return torch.cat([padded[:, max(lags) - lag :][:, :n_bins] for lag in lags], dim=2)


def label_table(model: MtM, case: Case, parts: Splits[BinnedSession]) -> pd.DataFrame:
    """Decode the label of each window from what the model makes of it, and from raw counts."""
    pieces, fold = joined(parts)
    found: dict[str, list[Tensor]] = {}
    for piece in pieces:
        for name, values in {**count_features(piece), **model_features(model, piece)}.items():
            found.setdefault(name, []).append(values)
    labels = np.concatenate(
        [piece.trials[case.label].to_numpy() for piece in pieces if piece.trials is not None]
    )
    return decode_labels(
        {name: torch.cat(values) for name, values in found.items()}, labels, folds=fold, readout="ridge"
    )


def main(kind: str, path: str, steps: int = 1000) -> None:
    """Print the tables of one recording."""
    case = {"m1": m1, "ca1": ca1, "it": it, "retina": retina}[kind](path)
    session = case.session
    # The number of each window travels along, so that behavior finds its window in whatever part it is.
    trials = pd.DataFrame({"row": np.arange(len(session))})
    if session.trials is not None:
        trials = session.trials.assign(row=np.arange(len(session)))
    numbered = BinnedSession(
        **{name: getattr(session, name) for name in session.__dataclass_fields__} | {"trials": trials}
    )
    parts = split_session(numbered, gap=case.gap)
    sys.stdout.write(f"{session!r}\n{parts.note}\n\n")
    model = train(parts, steps)
    sys.stdout.write(masked_prediction(model, parts, case.max_units) + "\n")
    if case.behavior is not None:
        rows = np.concatenate(
            [piece.trials["row"].to_numpy() for piece in joined(parts)[0] if piece.trials is not None]
        )
        table = behavior_table(model, case, parts, rows)
        columns = [
            "bins",
            "features",
            "target",
            "r2",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
        ]
        sys.stdout.write(f"\n{table[columns].round(3).to_string()}\n")
    if case.label is not None:
        table = label_table(model, case, parts)
        columns = [
            "features",
            "balanced_accuracy",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
        ]
        sys.stdout.write(f"\n{table[columns].round(3).to_string()}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
