"""Figures of the data: what was recorded, and what each masking scheme hides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern.report.page import Figure
from neurokern.report.style import COLORS, INK, MUTED, figure, group_colors, to_data_uri

__all__ = ["mask_schemes", "order_by_group", "raster"]

_RATE_BIN = 0.02  # seconds, of the population rate under the raster
_MOST_LABELS = 14


def order_by_group(groups: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """Return unit indices sorted by their group's place in ``names``, keeping the order within a group."""
    place = {name: index for index, name in enumerate(names)}
    return np.argsort([place[str(group)] for group in groups], kind="stable")


def raster(
    times: NDArray[np.floating],
    units: NDArray[np.integer],
    groups: Sequence[str],
    names: Sequence[str],
    *,
    start: float,
    stop: float,
    ordered: bool = False,
    caption: str = "",
) -> Figure:
    """Draw the spikes of ``[start, stop)``, one row per unit, above the population rate.

    Parameters
    ----------
    times : array of shape (n_spikes,), seconds
    units : array of shape (n_spikes,), int
        Row of each spike's unit in ``groups``.
    groups : sequence of str, one per unit
        Region, or what stands in for it.
    names : sequence of str
        The groups from bottom to top.
    ordered : bool
        Whether the order of ``names`` means something (depth): then colors follow one scale.
    """
    shown = (times >= start) & (times < stop)
    times, units = times[shown], units[shown]
    order = order_by_group(groups, names)
    row = np.empty(len(order), dtype=np.int64)
    row[order] = np.arange(len(order))
    colors = group_colors(names, ordered=ordered)
    of_unit = [colors[str(group)] for group in groups]
    with figure(5.2, nrows=2, ncols=1, sharex=True, height_ratios=(5, 1)) as (fig, axes):
        top, below = axes[:, 0]
        size = float(np.clip(1200 / max(len(order), 1), 1.5, 16))
        top.scatter(
            times,
            row[units],
            s=size,
            c=[of_unit[unit] for unit in units],
            marker="|",
            linewidths=0.9,
            rasterized=True,
        )
        top.set(ylabel="unit, sorted by group", ylim=(-1, len(order)), xlim=(start, stop))
        _label_groups(top, groups, names, colors)
        n_bins = max(round((stop - start) / _RATE_BIN), 1)
        counts, edges = np.histogram(times, bins=n_bins, range=(start, stop))
        rate = counts / (edges[1] - edges[0]) / max(len(order), 1)
        below.fill_between(edges[:-1], rate, step="post", color=MUTED, alpha=0.5, linewidth=0)
        below.set(xlabel="time in the recording (s)", ylabel="spikes/s\nper unit", ylim=(0, None))
        source = to_data_uri(fig)
    alt = f"Spike raster of {len(order)} units over {stop - start:g} s, units sorted and colored by group."
    return Figure(source=source, alt=alt, caption=caption)


def _label_groups(axes: Any, groups: Sequence[str], names: Sequence[str], colors: dict[str, Any]) -> None:
    """Name each group at the right edge, in its color; of many groups, only the largest."""
    sizes = {name: sum(str(group) == name for group in groups) for name in names}
    labelled = sorted(names, key=lambda name: -sizes[name])[:_MOST_LABELS]
    bottom = 0
    for name in names:
        if name in labelled and sizes[name]:
            axes.annotate(
                f"{name} ({sizes[name]})",
                (1.005, bottom + sizes[name] / 2 - 0.5),
                xycoords=axes.get_yaxis_transform(),
                va="center",
                fontsize=7.5,
                color=colors[name],
                annotation_clip=False,
            )
        bottom += sizes[name]


def mask_schemes(
    counts: NDArray[np.number],
    panels: Sequence[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]],
    *,
    bin_size: float,
    order: NDArray[np.integer] | None = None,
    caption: str = "",
) -> Figure:
    """Draw one window once per scheme: what the model sees, what is hidden, what it must predict.

    Parameters
    ----------
    counts : array of shape (n_bins, n_units)
    panels : sequence of (title, hidden, target)
        ``hidden`` and ``target`` are bool arrays shaped like ``counts``.
    bin_size : float, seconds
    order : array of shape (n_units,), optional
        Units from bottom to top.
    """
    order = np.arange(counts.shape[1]) if order is None else np.asarray(order)
    # A few spikes in a bin are as dark as many: what matters here is where there are any.
    darkness = np.minimum(counts, 2)[:, order].T / 2.0
    extent = (0.0, counts.shape[0] * bin_size, -0.5, len(order) - 0.5)
    with figure(3.7, nrows=1, ncols=len(panels), sharey=True, sharex=True) as (fig, axes):
        for panel, (title, hidden, target) in zip(axes[0], panels, strict=True):
            image = _paint(darkness, hidden[:, order].T, target[:, order].T)
            panel.imshow(
                image, aspect="auto", origin="lower", extent=extent, interpolation="nearest", rasterized=True
            )
            panel.set(title=title, xlabel="time in window (s)", xticks=np.linspace(0.0, extent[1], 3))
            for side in panel.spines.values():
                side.set_visible(True)
        axes[0, 0].set_ylabel("unit, sorted by group")
        _mask_legend(fig)
        source = to_data_uri(fig)
    names = ", ".join(title for title, _, _ in panels)
    return Figure(source=source, alt=f"One window under the masking schemes {names}.", caption=caption)


def _paint(
    darkness: NDArray[np.floating], hidden: NDArray[np.bool_], target: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return an RGB image: counts in gray, on white where seen, on a tint where hidden."""
    ground = np.ones((*darkness.shape, 3))
    ground[hidden & ~target] = _rgb(COLORS["unseen"])
    ground[target] = _rgb(COLORS["target"])
    ink = _rgb(INK)
    strength = darkness[..., None] * np.where(hidden & ~target, 0.25, 0.95)[..., None]
    return ground * (1 - strength) + ink * strength


def _mask_legend(fig: Any) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor="white", edgecolor=MUTED, label="seen by the model"),
        Patch(facecolor=COLORS["target"], label="hidden, to be predicted"),
        Patch(facecolor=COLORS["unseen"], label="hidden, not scored"),
        Patch(facecolor=INK, label="spikes"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=4)


def _rgb(color: str) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgb

    return np.array(to_rgb(color))
