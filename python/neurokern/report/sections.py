"""Sections of the page: figures and tables with the words that say what they show and how far they reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern.evaluation import summarize
from neurokern.report.data_figures import mask_schemes, order_by_group, raster
from neurokern.report.page import Figure, Section, Table
from neurokern.report.result_figures import (
    few_shot_curve,
    loss_curves,
    rate_heatmaps,
    rate_traces,
    score_intervals,
    unit_scatter,
)
from neurokern.report.summary import (
    decoding_rows,
    difference_rows,
    other_score_rows,
    pair_scores,
    score_table,
)

__all__ = [
    "MIN_SPIKES",
    "data_section",
    "decoding_section",
    "few_shot_section",
    "masking_section",
    "prediction_section",
    "score_section",
    "training_section",
]

MIN_SPIKES = 10  # units with fewer spikes in the scored bins have a score per spike that is mostly chance
_SMOOTHING = 0.06  # seconds, standard deviation of the Gaussian over measured counts in figures


def data_section(
    text: Sequence[str],
    times: NDArray[np.floating] | None,
    units: NDArray[np.integer] | None,
    groups: Sequence[str],
    names: Sequence[str],
    *,
    start: float,
    seconds: float = 4.0,
    ordered: bool = False,
) -> Section:
    """Say which data these are and show a few seconds of them; without spike times, only the words."""
    parts: list[Figure | Table] = []
    if times is not None and units is not None:
        kind = (
            "groups of neighboring units, which are not brain regions"
            if ordered
            else "the regions named in the data"
        )
        caption = (
            f"{seconds:g} s of the recording. Each row is a unit, each mark a spike; color and order are "
            f"{kind}, with "
            "the number of units in each. Below: the mean rate over all units in bins of 20 ms."
        )
        figure = raster(
            times, units, groups, names, start=start, stop=start + seconds, ordered=ordered, caption=caption
        )
        parts.append(figure)
    return Section(title="The data", text=text, parts=parts)


def masking_section(
    counts: NDArray[np.number],
    panels: Sequence[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]],
    groups: Sequence[str],
    names: Sequence[str],
    *,
    bin_size: float,
) -> Section:
    """Show one window under every scheme as training draws it."""
    caption = (
        "One training window, drawn once per scheme. neuron: whole units are hidden. causal: later bins are "
        "hidden and attention looks back only. intra-region: the model sees nothing but the rest of one "
        "region. inter-region: one whole region is hidden. Gray parts are hidden and not scored; what is "
        "hidden, and which region it is, changes with every window."
    )
    figure = mask_schemes(
        counts, panels, bin_size=bin_size, order=order_by_group(groups, names), caption=caption
    )
    text = (
        "The model learns by predicting counts that it cannot see. A prompt token tells it which of the "
        "schemes is in force, so that one set of weights answers all four questions.",
    )
    return Section(title="What the model is asked", text=text, parts=[figure])


def training_section(
    train: tuple[NDArray[Any], NDArray[Any]],
    validation: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    text: Sequence[str],
    best_step: int | None,
) -> Section:
    """Show the training loss, and the validation score of each scheme, over steps."""
    caption = (
        "Left: the loss that training minimizes, mean since the last point; it weighs units by their rates, "
        "so its size means nothing by itself. Right: bits per spike on validation windows with masks that "
        "never change, against each unit's mean over training windows; 0 is no better than that mean. "
        "Schemes differ in difficulty and are not to be compared with each other."
    )
    figure = loss_curves(train, validation, best_step=best_step, caption=caption)
    return Section(title="Training", text=text, parts=[figure])


def prediction_section(
    counts: NDArray[np.number],
    rates: Mapping[str, NDArray[np.floating]],
    unit_scores: NDArray[np.floating],
    groups: Sequence[str],
    names: Sequence[str],
    *,
    bin_size: float,
    n_windows: int = 4,
    n_traces: int = 6,
) -> Section:
    """Show measured beside predicted rates of held-out windows.

    Parameters
    ----------
    counts : array of shape (n_windows, n_bins, n_units)
        Test windows.
    rates : mapping of predictor to array like ``counts``, expected counts per bin
        Co-smoothing: each unit was hidden when it was predicted. The first is drawn as traces.
    unit_scores : array of shape (n_units,)
        Bits per spike of the first predictor; picks and labels the traces.
    """
    chosen = np.arange(min(n_windows, len(counts)))
    breaks = [int(counts.shape[1]) * (index + 1) for index in range(len(chosen) - 1)]
    truth = np.concatenate([_smooth(counts[index] / bin_size, _SMOOTHING / bin_size) for index in chosen])
    joined = {name: np.concatenate(rate[chosen]) / bin_size for name, rate in rates.items()}
    shown = _spread_units(counts, unit_scores, n_traces)
    titles = [f"{groups[unit]}, {unit_scores[unit]:.2f} bits per spike" for unit in shown]
    first = next(iter(joined.values()))
    traces = rate_traces(
        truth[:, shown],
        first[:, shown],
        titles,
        bin_size=bin_size,
        breaks=breaks,
        caption=(
            f"Held-out windows. Gray: counts smoothed with a Gaussian of {_SMOOTHING * 1000:.0f} ms. Blue: "
            "the rate "
            "that MtM expects of the unit from all other units. The units shown are spread from the best "
            "predicted down to the median, so they are better than typical; single spikes are not "
            "predictable, slow changes of rate partly are."
        ),
    )
    order = order_by_group(groups, names)
    order = order[truth[:, order].max(axis=0) > 0]  # a silent unit says nothing here
    maps = rate_heatmaps(
        {"measured, smoothed": truth[:, order], **{name: rate[:, order] for name, rate in joined.items()}},
        bin_size=bin_size,
        breaks=breaks,
        caption=(
            "The same windows for all units that fire in them, each scaled by its own mean and spread. Look "
            "for vertical bands (changes that many units share) that appear in the prediction at the right "
            "time. Predictions are smoother than the truth because they are expectations."
        ),
    )
    return Section(title="Predicted and measured rates", parts=[traces, maps])


def _spread_units(
    counts: NDArray[np.number], scores: NDArray[np.floating], n_traces: int
) -> NDArray[np.int64]:
    """Return units from the best score to the median one, among those that fire enough to see something."""
    total = counts.sum(axis=(0, 1), dtype=np.float64)
    usable = np.flatnonzero(np.isfinite(scores) & (total >= np.quantile(total, 0.5)))
    if not len(usable):
        usable = np.arange(counts.shape[2])
    ranked = usable[np.argsort(-np.nan_to_num(scores[usable], nan=-np.inf), kind="stable")]
    last = max(len(ranked) // 2, min(n_traces, len(ranked)) - 1)
    return ranked[np.unique(np.linspace(0, last, min(n_traces, len(ranked))).round().astype(np.int64))]


def _smooth(rates: NDArray[np.floating], bins: float) -> NDArray[np.float64]:
    """Return ``rates`` (n_bins, n_units) under a Gaussian whose weights sum to 1 at the edges too."""
    at = np.arange(len(rates))
    weights = np.exp(-0.5 * ((at[:, None] - at) / max(bins, 1e-6)) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)) @ rates


def score_section(
    scores: pd.DataFrame, *, text: Sequence[str] = (), model: str = "MtM", rival: str = "ridge"
) -> Section:
    """Show masked-prediction scores beside the baselines: tables, intervals, unit by unit."""
    header, rows, strong = score_table(scores, MIN_SPIKES, model=model, rival=rival)
    caption = (
        "Bits per spike on held-out windows: mean over units [95 % bootstrap interval over units], best in "
        "bold. 0 is a constant rate at the unit's own mean over the very windows that are scored, which no "
        "constant can beat; so the unit's mean over training windows lies below 0. Units with fewer than "
        f"{MIN_SPIKES} spikes in the scored bins are left out. The intervals say how the mean varies over "
        "these units, not over animals or days."
    )
    if (difference := f"{model} − {rival}") in header:
        caption += f" {difference} is the mean difference over the same units."
    parts: list[Figure | Table] = [Table(header=header, rows=rows, strong=strong, caption=caption)]
    caption = (
        "The table as a picture. Units differ much more than predictors do, so the paired difference in the "
        "table says more than whether two intervals overlap."
    )
    parts.append(score_intervals(summarize(scores, min_spikes=MIN_SPIKES), caption=caption))
    parts += [*_differences(scores, model), *_other_scores(scores)]
    if pairs := pair_scores(scores, rival, model, min_spikes=MIN_SPIKES):
        caption = (
            f"One point per unit: above the diagonal {model} predicts it better than {rival}. Points beyond "
            "the middle 96 % are drawn on the border."
        )
        parts.append(unit_scatter(pairs, names=(rival, model), caption=caption))
    return Section(title="Masked prediction", text=text, parts=parts)


def _differences(scores: pd.DataFrame, model: str) -> list[Table]:
    header, rows = difference_rows(scores, MIN_SPIKES, model=model)
    caption = (
        f"{model} minus each baseline on the same units: mean difference [95 % interval over units], and the "
        "interval when sessions are drawn first and units within them, which alone speaks for other "
        "sessions. Units of one session share its animal and day; with few sessions even that interval is "
        "too narrow."
    )
    return [Table(header=header, rows=rows, caption=caption)] if rows else []


def _other_scores(scores: pd.DataFrame) -> list[Table]:
    header, rows = other_score_rows(scores, MIN_SPIKES)
    caption = (
        "Other scores of the same predictions, means over the same units. Over the training mean: bits per "
        "spike where 0 is the unit's mean over training windows, which a predictor could know. R² of single "
        "bins is low by nature, since single spikes are noise. The PSTH is the mean over test trials of a "
        "condition."
    )
    return [Table(header=header, rows=rows, caption=caption)] if rows else []


def decoding_section(table: pd.DataFrame, *, label: str) -> Section:
    """Show how well a label is decoded from the model and from raw counts, with a penalty chosen in
    training.
    """
    header, rows, strong = decoding_rows(table)
    several = table["session"].nunique() > 1
    over = "sessions" if several else "the test trials"
    caption = (
        f"Decoding {label} from whole windows by {table['readout'].iloc[0]} regression, fitted on the "
        "training and validation windows (its penalty by folds within them) and scored on the test windows; "
        f"chance is {table['chance'].mean():.2f}. Mean over sessions [95 % bootstrap interval over {over}]; "
        "the differences are paired. Features of the model are worth something only where they beat raw "
        "counts."
    )
    return Section(title="Decoding", parts=[Table(header=header, rows=rows, strong=strong, caption=caption)])


def few_shot_section(table: pd.DataFrame, *, label: str, chance: float, text: Sequence[str] = ()) -> Section:
    """Show how well few labeled windows suffice to decode ``label``."""
    curve = few_shot_curve(
        table,
        chance=chance,
        caption=(
            f"Decoding {label} from few labeled windows per class; the query windows are never seen in "
            "fitting. "
            "Intervals: 95 % over the random choice of the labeled windows. The same query windows serve "
            "every draw, so the intervals do not cover another session or animal. Dashed: the same "
            "closed-form read-out on raw counts; features of the model are worth something only where they "
            "lie above it."
        ),
    )
    header, rows = _few_shot_rows(table)
    return Section(
        title="Few-shot decoding",
        text=text,
        parts=[curve, Table(header=header, rows=rows, caption="Mean balanced accuracy.")],
    )


def _few_shot_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    shots = sorted(set(table["shots"]))
    wide = table.pivot_table(index="method", columns="shots", values="mean", sort=False)
    rows = [
        [str(method), *(f"{value:.3f}" if np.isfinite(value) else "" for value in row.reindex(shots))]
        for method, row in wide.iterrows()
    ]
    return ["labeled windows per class", *map(str, shots)], rows
