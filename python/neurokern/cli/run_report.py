"""The report of a run, assembled from what training and evaluation left."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neurokern._environment import describe_environment
from neurokern.cli.decoding import DecodingResult
from neurokern.cli.few_shot import FewShotResult
from neurokern.cli.sessions import LoadedSession
from neurokern.cli.settings import RunSettings
from neurokern.cli.train import settings_text
from neurokern.datasets import BinnedSession, SpikeWindows, Splits, collate_spikes
from neurokern.evaluation import Predictor
from neurokern.models import SCHEMES
from neurokern.models.masking import mask_batch
from neurokern.report import Section, write_page
from neurokern.report.sections import (
    MIN_SPIKES,
    data_section,
    decoding_section,
    few_shot_section,
    masking_section,
    prediction_section,
    score_section,
    training_section,
)
from neurokern.report.summary import verdict

__all__ = ["RunResults", "co_smoothing_rates", "write_run_report"]

_WINDOWS_SHOWN = 4
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """What there is to report; the first session is the one that figures show."""

    settings: RunSettings
    loaded: Sequence[LoadedSession]
    splits: Mapping[str, Splits[BinnedSession]]
    predictors: Mapping[str, Sequence[Predictor]]
    scores: pd.DataFrame
    folder: pathlib.Path
    few_shot: FewShotResult | None = None
    decoding: DecodingResult | None = None
    title: str = "MtM on held-out spikes"
    seconds: Mapping[str, float] = field(default_factory=dict)


def write_run_report(path: pathlib.Path, results: RunResults) -> pathlib.Path:
    """Write the page and return its path."""
    first = results.loaded[0]
    names = group_names(first.session)
    sections = [_data(first, names), _masking(first, results, names)]
    if training := _training(results):
        sections.append(training)
    sections += [score_section(results.scores, text=_score_text(results)), _prediction(first, results, names)]
    if results.decoding is not None:
        sections.append(decoding_section(results.decoding.table, label=results.decoding.label))
    if results.few_shot is not None:
        few = results.few_shot
        sections.append(few_shot_section(few.shown, label=few.label, chance=few.chance, text=few.text))
    return write_page(path, results.title, _lede(results), sections, _facts(results))


def group_names(session: BinnedSession) -> list[str]:
    """Return the session's regions, or what stands in for them, sorted; units without any are "unknown"."""
    return sorted({region or "unknown" for region in session.regions.tolist()})


def _groups(session: BinnedSession) -> list[str]:
    return [region or "unknown" for region in session.regions.tolist()]


def _lede(results: RunResults) -> list[str]:
    n_sessions = len(results.loaded)
    units = sum(one.session.n_units for one in results.loaded)
    recordings = [one.recording for one in results.loaded]
    seconds = sum(recording.duration for recording in recordings if recording is not None)
    what = f"{n_sessions} recording{'s' if n_sessions > 1 else ''}, {units:,} units"
    if all(recording is not None for recording in recordings):
        what += f", {seconds:,.0f} s"
    limits = "One recording of two minutes says nothing about other animals." if 0 < seconds < 600 else ""
    lede = [
        f"{what}. MtM, a transformer trained by multi-task masking, predicts spikes that it was not shown. "
        "All scores "
        f"are on windows held out from training. {limits}".strip()
    ]
    lede.append(verdict(results.scores, min_spikes=MIN_SPIKES))
    if any(one.stand_in for one in results.loaded):
        lede.append(
            "These data name no brain regions. Groups of neighboring units stand in for them, so "
            "“intra-region” and “inter-region” mean within and between such groups here; nothing follows "
            "about anatomy."
        )
    return lede


def _data(first: LoadedSession, names: list[str]) -> Section:
    session, recording = first.session, first.recording
    text = [
        f"{session.n_units} units in {len(names)} {'groups' if first.stand_in else 'regions'}; {first.how}, "
        f"counted in {session.n_bins} bins of {session.bin_size * 1000:g} ms."
    ]
    text += [f"Note: {note}." for note in first.notes]
    if recording is None:
        return data_section(text, None, None, _groups(session), names, start=0.0)
    return data_section(
        text,
        recording.times,
        recording.units,
        _groups(session),
        names,
        start=recording.start + min(recording.duration / 3, max(recording.duration - 4.0, 0.0)),
        seconds=min(4.0, recording.duration),
        ordered=first.stand_in,
    )


def _masking(first: LoadedSession, results: RunResults, names: list[str]) -> Section:
    """Draw the masks of one training window as the trainer would."""
    train = results.splits[first.session.session].train
    windows = SpikeWindows([train])
    batch = collate_spikes([windows[len(windows) // 2]])
    masking = results.settings.training.masking
    panels = []
    for scheme in [scheme for scheme in SCHEMES if scheme in masking.schemes]:
        masked = mask_batch(batch, scheme, masking, seed=results.settings.training.seed)
        hidden = masked.hidden.expand_as(masked.target_mask)[0].numpy()
        panels.append((scheme, hidden, masked.target_mask[0].numpy()))
    return masking_section(
        batch.counts[0].numpy(), panels, _groups(first.session), names, bin_size=train.bin_size
    )


def _training(results: RunResults) -> Section | None:
    file = results.folder / "metrics.csv"
    if not file.is_file():
        return None
    history = pd.read_csv(file)
    step = history["step"].to_numpy()
    curves = {
        column.removeprefix("validation_bits_per_spike_"): (step, history[column].to_numpy())
        for column in history.columns
        if column.startswith("validation_bits_per_spike_")
    }
    best = int(step[history["validation_loss"].argmin()]) if "validation_loss" in history else None
    seconds = float(history["seconds"].iloc[-1])
    start = ""
    if results.settings.model.needs_counts:
        start = (
            " Before the first step, read-in and read-out of a recording were set in closed form from its "
            "training counts, so the curves start from there."
        )
    kept = f"; the weights of step {best} were kept" if best is not None else ""
    return training_section(
        (step, history["train_loss"].to_numpy()),
        curves,
        text=(f"{int(step[-1])} steps in {seconds:.0f} s{kept}.{start}",),
        best_step=best,
    )


def _score_text(results: RunResults) -> tuple[str, ...]:
    names = {
        "co-smoothing": "co-smoothing predicts each unit from all others",
        "forward-prediction": "forward-prediction the last tenth of a window from what came before",
        "intra-region": "intra-region each unit from the rest of its own region",
        "inter-region": "inter-region a whole region from the others",
    }
    asked = [names[task] for task in dict.fromkeys(results.scores["task"])]
    return (
        f"Each task hides something that it then asks for: {'; '.join(asked)}. Ridge regression was fitted "
        "on the "
        "same training windows and tuned on the same validation windows; unit mean is each unit's mean rate "
        "over the training windows."
        + "".join(said for name, said in _BASELINES.items() if name in set(results.scores["predictor"])),
    )


_BASELINES = {
    "reduced rank": " Reduced rank is ridge regression of many units through few dimensions that they share.",
    "GLM": " GLM is log-linear Poisson regression on what the task leaves visible, tuned likewise.",
    "PSTH": " PSTH is the mean training window of the test window's condition; it sees no test spike.",
}


def _prediction(first: LoadedSession, results: RunResults, names: list[str]) -> Section:
    session = first.session.session
    test = results.splits[session].test
    shown = test.read(range(min(_WINDOWS_SHOWN, test.n_windows)))
    rates = {
        predictor.name: co_smoothing_rates(predictor, shown)
        for predictor in results.predictors[session]
        if predictor.name in ("MtM", "ridge")
    }
    rows = results.scores.query("session == @session and task == 'co-smoothing' and predictor == 'MtM'")
    unit_scores = rows.set_index("unit")["bits_per_spike"].reindex(test.unit_ids).to_numpy(float)
    return prediction_section(shown, rates, unit_scores, _groups(test), names, bin_size=test.bin_size)


def co_smoothing_rates(predictor: Predictor, counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rate of each unit in each bin with just this unit hidden, in the shape of ``counts``."""
    seen = torch.from_numpy(counts)
    if predictor.leaves_out_by_itself:
        nothing = torch.zeros(1, 1, 1, dtype=torch.bool)
        return predictor.predict(seen, "co-smoothing", nothing).numpy()
    n_windows, n_bins, n_units = counts.shape
    rates = np.empty_like(counts)
    size = max(1, _CHUNK_ELEMENTS // (n_bins * n_units))
    for first in range(0, n_windows * n_units, size):
        pair = torch.arange(first, min(first + size, n_windows * n_units))
        window, unit = pair // n_units, pair % n_units
        hidden = torch.nn.functional.one_hot(unit, n_units).bool()[:, None, :]
        predicted = predictor.predict(seen[window].masked_fill(hidden, 0.0), "co-smoothing", hidden)
        rates[window, :, unit] = predicted[torch.arange(len(pair)), :, unit].numpy()
    return rates


def _facts(results: RunResults) -> dict[str, str]:
    environment = describe_environment()
    libraries = {name: version for name, version in environment["libraries"].items() if version}
    settings = dataclasses.replace(
        results.settings, data=tuple(pathlib.Path(path).name for path in results.settings.data)
    )
    isa = environment["cpu"].get("isa", "unknown")
    facts = {
        "neurokern": f"{environment['neurokern']}, instruction set {isa}",
        "libraries": ", ".join(f"{name} {version}" for name, version in libraries.items()),
        "machine": f"{environment['platform']}, {environment['threads']['cpus']} CPUs",
        "seed": str(results.settings.training.seed),
    }
    if results.seconds:
        total = sum(results.seconds.values())
        facts["time"] = "\n".join(
            [
                *(f"{seconds:7.1f} s  {title}" for title, seconds in results.seconds.items()),
                f"{total:7.1f} s  in all",
            ]
        )
    facts["settings"] = settings_text(settings)
    return facts
