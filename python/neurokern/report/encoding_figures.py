"""Figures of encoding models: scores of targets, slices of a map, penalties."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from neurokern.report.page import Figure
from neurokern.report.style import COLORS, INK, MUTED, figure, to_data_uri

__all__ = ["alpha_histogram", "ceiling_scatter", "part_bars", "score_histogram", "score_map"]

_BINS = 60
_SLICES = 12
_FEW_POINTS = 2000


def score_histogram(
    r2: NDArray[np.floating], pearson: NDArray[np.floating], significant: NDArray[np.bool_] | None = None
) -> Figure:
    """Draw how many targets have which R2 and which correlation.

    Parameters
    ----------
    r2, pearson : array of shape (targets,)
        NaN is left out.
    significant : array of shape (targets,), bool, optional
        Drawn on top in another color.
    """
    with figure(3.0, nrows=1, ncols=2) as (fig, axes):
        for axis, (name, values) in zip(axes[0], (("R2", r2), ("correlation", pearson)), strict=True):
            known = np.isfinite(values)
            low, high = np.quantile(values[known], [0.005, 1.0])
            edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
            axis.hist(np.clip(values[known], low, None), edges, color=COLORS["unit mean"], label="all")
            if significant is not None:
                axis.hist(values[known & significant], edges, color=COLORS["MtM"], label="above chance")
                axis.legend()
            axis.axvline(0, color=INK, linewidth=0.8)
            axis.set(xlabel=f"held-out {name}", ylabel="targets", yscale="log")
        source = to_data_uri(fig)
    caption = "Targets by score, on a logarithmic scale; the lowest half percent is put into the first bar."
    return Figure(source=source, alt="Histograms of held-out R2 and correlation of targets.", caption=caption)


def score_map(volume: NDArray[np.floating]) -> Figure:
    """Draw axial slices of a map of R2; ``volume`` is (x, y, z), NaN outside of the mask."""
    levels = np.flatnonzero(np.isfinite(volume).any(axis=(0, 1)))
    shown = levels[np.unique(np.linspace(0, len(levels) - 1, min(_SLICES, len(levels))).round().astype(int))]
    known = volume[np.isfinite(volume)]
    high = max(float(np.quantile(known, 0.999)), 1e-3) if known.size else 1.0
    n_columns = min(6, max(len(shown), 1))
    n_rows = max(-(-len(shown) // n_columns), 1)
    with figure(1.75 * n_rows + 0.5, nrows=n_rows, ncols=n_columns) as (fig, axes):
        drawn = None
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, level in zip(axes.flat, shown, strict=False):
            axis.imshow(np.isfinite(volume[:, :, level]).T, cmap="Greys", vmin=0, vmax=5, origin="lower")
            values = np.ma.masked_less_equal(np.ma.masked_invalid(volume[:, :, level]), 0)
            drawn = axis.imshow(values.T, cmap="inferno", vmin=0, vmax=high, origin="lower")
            axis.set_title(f"z = {level}", fontsize=8)
        if drawn is not None:
            fig.colorbar(drawn, ax=axes, shrink=0.7, label="held-out R2")
        source = to_data_uri(fig)
    caption = (
        "Slices of constant third voxel index, first index to the right; not resampled or reoriented. Gray: "
        "voxels of the mask with R2 of 0 and below. Colors end at the 99.9th percentile."
    )
    return Figure(source=source, alt="Slices of a map of held-out R2.", caption=caption)


def ceiling_scatter(explainable: NDArray[np.floating], r2: NDArray[np.floating]) -> Figure:
    """Draw the held-out R2 of targets against their explainable variance; NaN is left out."""
    known = np.isfinite(explainable) & np.isfinite(r2)
    low = float(min(np.quantile(r2[known], 0.01), 0.0))
    with figure(3.6, nrows=1, ncols=1) as (fig, axes):
        axis = axes[0, 0]
        y = np.clip(r2[known], low, None)
        if known.sum() > _FEW_POINTS:
            drawn = axis.hexbin(explainable[known], y, gridsize=50, bins="log", mincnt=1, cmap="viridis")
            fig.colorbar(drawn, ax=axis, label="targets")
        else:
            axis.scatter(explainable[known], y, s=12, color=COLORS["MtM"], linewidths=0)
        axis.axline((0, 0), slope=1, color=INK, linewidth=0.8)
        axis.axhline(0, color=MUTED, linewidth=0.8)
        axis.set(xlabel="explainable variance", ylabel="held-out R2")
        source = to_data_uri(fig)
    caption = "Each target's R2 against what repeats have in common; the line is where noise alone is left."
    return Figure(source=source, alt="Held-out R2 against explainable variance.", caption=caption)


def part_bars(parts: Mapping[str, NDArray[np.floating]]) -> Figure:
    """Draw the mean R2 over targets of each part, with the 5th and 95th percentile; NaN is left out."""
    known = {name: values[np.isfinite(values)] for name, values in parts.items()}
    means = np.array([values.mean() for values in known.values()])
    bounds = np.array([np.quantile(values, [0.05, 0.95]) for values in known.values()])
    at = np.arange(len(known))[::-1]
    with figure(0.35 * len(known) + 0.9, nrows=1, ncols=1) as (fig, axes):
        axis = axes[0, 0]
        axis.barh(at, means, color=COLORS["MtM"])
        axis.hlines(at, bounds[:, 0], bounds[:, 1], color=INK, linewidth=1)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(at, [name.replace(":", " ") for name in known])
        axis.set(xlabel="part of the held-out R2")
        source = to_data_uri(fig)
    caption = "Means over targets; lines reach from the 5th to the 95th percentile of targets."
    return Figure(source=source, alt="Parts of the held-out R2 by feature space.", caption=caption)


def alpha_histogram(alphas: NDArray[np.floating], candidates: NDArray[np.floating]) -> Figure:
    """Draw how many targets were fitted with each candidate penalty."""
    grid = np.unique(candidates)
    counts = [(alphas == alpha).sum() for alpha in grid]
    with figure(2.4, nrows=1, ncols=1) as (fig, axes):
        axis = axes[0, 0]
        axis.bar(np.arange(len(grid)), counts, color=COLORS["ridge"])
        axis.set_xticks(np.arange(len(grid)), [f"{alpha:.3g}" for alpha in grid], rotation=45)
        axis.set(xlabel="alpha", ylabel="targets")
        axis.tick_params(axis="x", color=MUTED)
        source = to_data_uri(fig)
    caption = "Penalty of each target, fitted to all samples. Targets that nothing predicts take the largest."
    return Figure(source=source, alt="Number of targets by penalty.", caption=caption)
