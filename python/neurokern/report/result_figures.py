"""Figures of the results: losses, predictions beside the truth, scores, few-shot curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern.report.page import Figure
from neurokern.report.style import COLORS, GRID, INK, MUTED, figure, group_colors, to_data_uri

__all__ = ["few_shot_curve", "loss_curves", "rate_heatmaps", "rate_traces", "score_intervals", "unit_scatter"]

_MARKERS = "osD^vP"


def loss_curves(
    train: tuple[NDArray[Any], NDArray[Any]],
    validation: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    best_step: int | None = None,
    caption: str = "",
) -> Figure:
    """Draw the training loss, and the validation score of each masking scheme, over optimizer steps.

    Parameters
    ----------
    train : (steps, losses)
    validation : mapping of scheme to (steps, bits per spike)
    best_step : int, optional
        The step whose weights were kept.
    """
    with figure(3.4, nrows=1, ncols=2) as (fig, axes):
        left, right = axes[0]
        left.plot(*train, color=INK, marker="o", markersize=3, label="training")
        left.set(title="training loss", xlabel="optimizer step", ylabel="loss (weighted nats)")
        colors = group_colors(list(validation))
        for index, (scheme, curve) in enumerate(validation.items()):
            marker = _MARKERS[index % len(_MARKERS)]
            right.plot(*curve, color=colors[scheme], marker=marker, markersize=3, linewidth=1.4, label=scheme)
        right.set(title="validation, by scheme", xlabel="optimizer step", ylabel="bits per spike")
        right.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
        if best_step is not None:
            right.axvline(best_step, color=MUTED, linestyle=":", linewidth=1.2, label="weights kept")
        fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(validation) + 1)
        for axis in (left, right):
            axis.grid(axis="y")
            axis.set_axisbelow(True)
        source = to_data_uri(fig)
    return Figure(
        source=source, alt="Training loss and validation scores over optimizer steps.", caption=caption
    )


def rate_traces(
    smoothed: NDArray[np.floating],
    predicted: NDArray[np.floating],
    titles: Sequence[str],
    *,
    bin_size: float,
    breaks: Sequence[int] = (),
    caption: str = "",
) -> Figure:
    """Draw the measured and the predicted rate of a few units, one panel each.

    Parameters
    ----------
    smoothed, predicted : array of shape (n_bins, n_shown), spikes per second
    titles : sequence of str, one per column
    bin_size : float, seconds
    breaks : sequence of int
        Bins at which one window ends and the next begins.
    """
    n_columns = 2
    n_rows = -(-len(titles) // n_columns)
    seconds = (np.arange(len(smoothed)) + 0.5) * bin_size
    with figure(1.45 * n_rows + 0.6, nrows=n_rows, ncols=n_columns, sharex=True) as (fig, axes):
        for panel, column, title in zip(axes.flat, range(len(titles)), titles, strict=False):
            panel.fill_between(seconds, smoothed[:, column], color=MUTED, alpha=0.35, linewidth=0)
            panel.plot(seconds, predicted[:, column], color=COLORS["MtM"], linewidth=1.4)
            for at in breaks:
                panel.axvline(at * bin_size, color=GRID, linewidth=0.8, zorder=0)
            panel.set(ylim=(0, None), xlim=(0, seconds[-1]))
            panel.set_title(title, fontweight="normal", fontsize=8.5)
        for panel in axes.flat[len(titles) :]:
            panel.set_visible(False)
        fig.supxlabel("time over the windows shown, joined (s)", fontsize=9)
        fig.supylabel("spikes per second", fontsize=9)
        _trace_legend(fig)
        source = to_data_uri(fig)
    return Figure(source=source, alt="Measured and predicted rates of single units.", caption=caption)


def _trace_legend(fig: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=MUTED, alpha=0.35, label="measured, smoothed"),
        Line2D([], [], color=COLORS["MtM"], label="MtM, this unit hidden"),
    ]
    fig.legend(handles=handles, loc="outside upper right", ncols=2)


def rate_heatmaps(
    maps: Mapping[str, NDArray[np.floating]],
    *,
    bin_size: float,
    breaks: Sequence[int] = (),
    caption: str = "",
) -> Figure:
    """Draw rates of all units side by side, each unit scaled by its own mean and spread over the truth.

    Parameters
    ----------
    maps : mapping of title to array of shape (n_bins, n_units)
        The first one is the truth and sets the scale of each unit.
    bin_size : float, seconds
    """
    truth = next(iter(maps.values()))
    center, spread = truth.mean(axis=0), truth.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)  # a silent unit has no spread to scale by
    extent = (0.0, len(truth) * bin_size, -0.5, truth.shape[1] - 0.5)
    with figure(3.9, nrows=1, ncols=len(maps), sharey=True) as (fig, axes):
        for panel, (title, rates) in zip(axes[0], maps.items(), strict=True):
            image = panel.imshow(
                ((rates - center) / spread).T,
                aspect="auto",
                origin="lower",
                extent=extent,
                cmap="cividis",
                vmin=-1.0,
                vmax=2.5,
                interpolation="nearest",
                rasterized=True,
            )
            for at in breaks:
                panel.axvline(at * bin_size, color="white", linewidth=0.6)
            panel.set(title=title, xlabel="time over the windows shown, joined (s)")
        axes[0, 0].set_ylabel("unit, sorted by group")
        fig.colorbar(image, ax=list(axes[0]), label="rate, SD from the unit's mean", shrink=0.8, aspect=30)
        source = to_data_uri(fig)
    return Figure(source=source, alt="Rates of all units: " + ", ".join(maps) + ".", caption=caption)


def score_intervals(summary: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw mean bits per spike with its interval, one row per task, one mark per predictor.

    Parameters
    ----------
    summary : DataFrame
        Columns ``task``, ``predictor``, ``mean``, ``low``, ``high``.
    """
    tasks = list(dict.fromkeys(summary["task"]))
    predictors = list(dict.fromkeys(summary["predictor"]))
    spacing = min(0.2, 0.75 / max(len(predictors), 1))
    with figure(max(0.62, 0.17 * len(predictors)) * len(tasks) + 1.1) as (fig, axes):
        panel = axes[0, 0]
        panel.axvline(0, color=MUTED, linewidth=0.8)
        for index, predictor in enumerate(predictors):
            rows = summary[summary["predictor"] == predictor].set_index("task").reindex(tasks)
            offset = (index - (len(predictors) - 1) / 2) * spacing
            mean = rows["mean"].to_numpy(float)
            error = np.abs(
                np.stack([mean - rows["low"].to_numpy(float), rows["high"].to_numpy(float) - mean])
            )
            panel.errorbar(
                mean,
                np.arange(len(tasks)) + offset,
                xerr=error,
                fmt=_MARKERS[index % len(_MARKERS)],
                markersize=5,
                color=COLORS.get(predictor, INK),
                linewidth=1.4,
                label=predictor,
            )
        panel.set(
            yticks=range(len(tasks)),
            yticklabels=tasks,
            xlabel="bits per spike (mean over units, 95 % interval)",
        )
        panel.invert_yaxis()
        panel.grid(axis="x")
        panel.set_axisbelow(True)
        fig.legend(loc="outside upper right", ncols=len(predictors))
        source = to_data_uri(fig)
    return Figure(source=source, alt="Mean bits per spike of each task and predictor.", caption=caption)


def unit_scatter(
    scores: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
    *,
    names: tuple[str, str] = ("ridge", "MtM"),
    caption: str = "",
) -> Figure:
    """Draw bits per spike of each unit, one predictor against the other, one panel per task.

    Parameters
    ----------
    scores : mapping of task to (first, second)
        Arrays of shape (n_units,); units where either is not finite are left out.
    names : (str, str)
        Predictors on the horizontal and on the vertical axis.
    """
    with figure(2.75, nrows=1, ncols=len(scores)) as (fig, axes):
        for panel, (task, (first, second)) in zip(axes[0], scores.items(), strict=True):
            finite = np.isfinite(first) & np.isfinite(second)
            _scatter_panel(panel, first[finite], second[finite])
            panel.set(title=task, xlabel=f"{names[0]} (bits/spike)")
        axes[0, 0].set_ylabel(f"{names[1]} (bits/spike)")
        source = to_data_uri(fig)
    return Figure(source=source, alt=f"{names[1]} against {names[0]}, one point per unit.", caption=caption)


def _scatter_panel(panel: Any, first: NDArray[np.floating], second: NDArray[np.floating]) -> None:
    """Plot over the middle 96 % of the values; points beyond are set on the border, so that none is lost."""
    values = np.concatenate([first, second]) if len(first) else np.zeros(1)
    low, high = np.quantile(values, [0.02, 0.98])
    margin = 0.08 * max(high - low, 1e-3)
    low, high = min(low, 0) - margin, max(high, 0) + margin
    panel.plot([low, high], [low, high], color=MUTED, linewidth=0.8, zorder=1)
    panel.axhline(0, color=GRID, linewidth=0.8, zorder=0)
    panel.axvline(0, color=GRID, linewidth=0.8, zorder=0)
    panel.scatter(
        first.clip(low, high),
        second.clip(low, high),
        s=9,
        color=COLORS["MtM"],
        alpha=0.5,
        linewidths=0,
        clip_on=False,
    )
    panel.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
    if len(first):
        share = f"above the line:\n{np.mean(second > first):.0%} of {len(first)} units"
        panel.text(0.04, 0.96, share, transform=panel.transAxes, va="top", fontsize=7.5, color=MUTED)


def few_shot_curve(
    table: pd.DataFrame,
    *,
    chance: float | None = None,
    caption: str = "",
) -> Figure:
    """Draw the score over the number of labeled examples per class, one line per method.

    Parameters
    ----------
    table : DataFrame
        Columns ``method``, ``shots``, ``mean``, ``low``, ``high``.
    chance : float, optional
        Drawn as a dashed line.
    """
    methods = list(dict.fromkeys(table["method"]))
    shots = sorted(set(table["shots"]))
    colors = group_colors(methods)
    with figure(3.7) as (fig, axes):
        panel = axes[0, 0]
        for index, method in enumerate(methods):
            rows = table[table["method"] == method].sort_values("shots")
            raw = method.startswith("raw")
            color = COLORS["ridge"] if raw else colors[method]
            # Methods share the numbers of shots; a small shift keeps their intervals apart.
            at = rows["shots"].to_numpy(float) * (1 + 0.025 * (index - (len(methods) - 1) / 2))
            mean = rows["mean"].to_numpy(float)
            error = np.abs(
                np.stack([mean - rows["low"].to_numpy(float), rows["high"].to_numpy(float) - mean])
            )
            panel.errorbar(
                at,
                mean,
                yerr=error,
                color=color,
                linestyle="--" if raw else "-",
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4.5,
                linewidth=1.5,
                elinewidth=1.0,
                label=method,
            )
        if chance is not None:
            panel.axhline(chance, color=MUTED, linestyle=":", linewidth=1.2, label="chance")
        panel.set_xscale("log")
        panel.set_xticks(shots, [str(count) for count in shots])
        panel.minorticks_off()
        panel.set(xlabel="labeled windows per class", ylabel="balanced accuracy")
        panel.grid(axis="y")
        panel.set_axisbelow(True)
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        source = to_data_uri(fig)
    return Figure(source=source, alt="Balanced accuracy over labeled examples per class.", caption=caption)
