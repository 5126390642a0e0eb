"""Figures of a run of fMRI: slices through the head, and what happens over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern.ops._nifti_header import nearest_axes
from neurokern.report.page import Figure
from neurokern.report.style import INK, MUTED, figure, group_colors, to_data_uri

__all__ = ["brain_slices", "run_timeline"]

_OUTLINE = "#E69F00"
_GROUND = "black"  # outside of the head, in both themes
_MARGIN = 12.0  # mm around the mask, for the letters of the directions
_ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
_MOST_LANES = 10
_LONGEST_VOXEL = 1000.0  # times its shortest side
_LIMIT = 2.0  # standard deviations shown in a carpet, from black to white


@dataclass(frozen=True)
class _Plane:
    """A slice to draw: rows are the vertical axis, from bottom to top."""

    values: NDArray[Any]
    mask: NDArray[np.bool_]
    extent: tuple[float, float, float, float]  # mm: left, right, bottom, top
    shown: tuple[float, float, float, float]  # mm of it, about the mask
    ends: tuple[tuple[str, str], tuple[str, str]]  # letters of the horizontal and the vertical axis
    title: str


def brain_slices(
    values: NDArray[np.floating],
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    *,
    label: str,
    colors: str = "gray",
    outline: bool = True,
    caption: str = "",
) -> Figure | None:
    """Draw the sagittal, coronal and axial slice through the middle of the mask.

    Left is on the left. Positions are in mm along the array's own axes, so that voxels stay whole; of an
    oblique image they are right in the middle of the volume.

    Parameters
    ----------
    values : array of shape (x, y, z)
        NaN is drawn as background.
    mask : bool array of shape (x, y, z)
        Sets the slices and the range of colors; outlined, or, without ``outline``, all that is drawn.
    affine : array of shape (4, 4)
        From voxels to mm.
    label : str
        Of the colors.

    Returns
    -------
    figure : Figure or None
        None if the image has no plane of more than one voxel in both directions.
    """
    planes = _planes(values if outline else np.where(mask, values, np.nan), mask, affine)
    if not planes:
        return None
    low, high = _color_range(values, mask)
    widths = [plane.shown[1] - plane.shown[0] for plane in planes]
    tallest = max(plane.shown[3] - plane.shown[2] for plane in planes)
    height = float(np.clip(7.6 * tallest / sum(widths), 1.6, 4.6)) + 0.75
    with figure(height, nrows=1, ncols=len(planes), width_ratios=widths) as (fig, axes):
        for panel, plane in zip(axes[0], planes, strict=True):
            drawn = _draw_plane(panel, plane, colors, low, high, outline)
        bar = fig.colorbar(drawn, ax=axes[0].tolist(), shrink=0.75, pad=0.015, aspect=26)
        bar.set_label(label)
        bar.outline.set_visible(False)
        source = to_data_uri(fig)
    names = ", ".join(plane.title for plane in planes)
    return Figure(source=source, alt=f"{label}: {names}.", caption=caption)


def _draw_plane(panel: Any, plane: _Plane, colors: str, low: float, high: float, outline: bool) -> Any:
    drawn = panel.imshow(
        np.ma.masked_invalid(plane.values),
        origin="lower",
        extent=plane.extent,
        cmap=colors,
        vmin=low,
        vmax=high,
        interpolation="nearest",
        rasterized=True,
    )
    if outline and plane.mask.any() and not plane.mask.all() and min(plane.mask.shape) > 1:
        _outline(panel, plane)
    panel.set(facecolor=_GROUND, xlim=plane.shown[:2], ylim=plane.shown[2:], anchor="N")
    panel.set_title(plane.title)
    panel.locator_params(nbins=5)
    panel.set_xlabel("mm")
    for text, at in zip(
        (*plane.ends[0], *plane.ends[1]), ((0.03, 0.5), (0.97, 0.5), (0.5, 0.04), (0.5, 0.96)), strict=True
    ):
        panel.text(
            *at, text, transform=panel.transAxes, ha="center", va="center", fontsize=8.5, color="white",
            fontweight="bold",
        )  # fmt: skip
    return drawn


def _outline(panel: Any, plane: _Plane) -> None:
    """Draw the border between the voxels of the mask and the others, along the voxels' edges."""
    left, right, bottom, top = plane.extent
    rows, columns = plane.mask.shape
    x, y = np.linspace(left, right, columns + 1), np.linspace(bottom, top, rows + 1)
    padded = np.pad(plane.mask, 1)
    r, c = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = [[(x[j], y[i]), (x[j], y[i + 1])] for i, j in zip(r, c, strict=True)]
    r, c = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    level = [[(x[j], y[i]), (x[j + 1], y[i])] for i, j in zip(r, c, strict=True)]
    from matplotlib.collections import LineCollection

    panel.add_collection(
        LineCollection([*upright, *level], colors=_OUTLINE, linewidths=0.9, capstyle="round")
    )


def _planes(values: NDArray[Any], mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> list[_Plane]:
    """Return the drawable slices of an image turned to right, anterior, superior."""
    axes = nearest_axes(affine)
    order = [next(i for i, (space, _) in enumerate(axes) if space == wanted) for wanted in range(3)]
    flips = tuple(slice(None, None, axes[own][1]) for own in order)
    values, mask = (image.transpose(order)[flips] for image in (values, mask))
    edges = _edges(values.shape, np.nan_to_num(affine, posinf=0, neginf=0), order)
    middle = [round(float(at.mean())) for at in np.nonzero(mask)]
    spans = [
        (edge[at.min()] - _MARGIN, edge[at.max() + 1] + _MARGIN)
        for edge, at in zip(edges, np.nonzero(mask), strict=True)
    ]
    planes = []
    for fixed, across, up, name in ((0, 1, 2, "x"), (1, 0, 2, "y"), (2, 0, 1, "z")):
        if values.shape[across] < 2 or values.shape[up] < 2:
            continue
        at = (edges[fixed][middle[fixed]] + edges[fixed][middle[fixed] + 1]) / 2
        planes.append(
            _Plane(
                np.take(values, middle[fixed], axis=fixed).T,
                np.take(mask, middle[fixed], axis=fixed).T,
                (edges[across][0], edges[across][-1], edges[up][0], edges[up][-1]),
                (*spans[across], *spans[up]),
                (_ENDS[across], _ENDS[up]),
                f"{name} = {at:.0f} mm".replace("-", "−"),
            )
        )
    return planes


def _edges(
    shape: tuple[int, ...], affine: NDArray[np.float64], order: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Return the borders of the voxels in mm along each axis, true at the middle of the volume."""
    size = np.linalg.norm(affine[:3, :3], axis=0)
    if not 0 < size.max() < _LONGEST_VOXEL * size.min():  # a damaged affine: voxels are drawn as cubes
        affine, size = np.eye(4), np.ones(3)
    size = size[list(order)]
    own_shape = np.empty(3)
    own_shape[list(order)] = shape
    middle = affine[:3, :3] @ ((own_shape - 1) / 2) + affine[:3, 3]
    return [middle[axis] + (np.arange(n + 1) - n / 2) * size[axis] for axis, n in enumerate(shape)]


def _color_range(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return values to draw as the darkest and the brightest; of positive images 0 is the darkest."""
    inside = values[mask & np.isfinite(values)]
    if not inside.size:
        return 0.0, 1.0
    low = min(float(np.percentile(inside, 0.5)), 0.0)
    high = float(np.percentile(inside, 99.5))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def run_timeline(
    courses: Mapping[str, NDArray[np.floating]],
    carpets: Mapping[str, NDArray[np.floating]],
    *,
    tr: float | None,
    start: int = 0,
    events: Sequence[tuple[float, float, str]] = (),
    caption: str = "",
) -> Figure:
    """Draw events, time courses and carpets above each other, on one clock.

    Parameters
    ----------
    courses : mapping of label to array of shape (trs,)
    carpets : mapping of title to array of shape (voxels, trs)
        In standard deviations.
    tr : float or None, seconds
        Between volumes; without it the axis counts volumes and events are left out.
    start : int, default 0
        First volume of all arrays.
    events : sequence of (onset, duration, name), seconds
    """
    seconds = 1.0 if tr is None else tr
    n = len(next(iter(courses.values())))
    edges = (start * seconds, (start + n) * seconds)
    events = [event for event in events if event[0] < edges[1] and event[0] + event[1] >= edges[0]]
    lanes = sorted({name for _, _, name in events}) if tr is not None else []
    heights = [0.85] * len(courses) + [2.1] * len(carpets)
    if lanes:
        heights.insert(0, max(0.19 * min(len(lanes), _MOST_LANES), 0.35))
    with figure(sum(heights) + 0.9, nrows=len(heights), ncols=1, sharex=True, height_ratios=heights) as (
        fig,
        axes,
    ):
        panels = list(axes[:, 0])
        if lanes:
            _draw_events(panels.pop(0), events, lanes)
        at = (np.arange(start, start + n) + 0.5) * seconds
        for (label, values), color in zip(courses.items(), ("#0072B2", "#D55E00", "#009E73"), strict=False):
            _draw_course(panels.pop(0), at, values, label, color)
        drawn = None
        carpet_panels = list(panels)
        for panel, (title, values) in zip(carpet_panels, carpets.items(), strict=True):
            drawn = _draw_carpet(panel, values, title, edges)
        if drawn is not None:
            bar = fig.colorbar(drawn, ax=carpet_panels, pad=0.012, aspect=30, shrink=0.8)
            bar.set_label("standard deviations")
            bar.outline.set_visible(False)
        axes[-1, 0].set(xlabel="time in the run (s)" if tr is not None else "volume", xlim=edges)
        fig.align_ylabels(axes[:, 0])
        source = to_data_uri(fig)
    shown = ", ".join([*(["events"] if lanes else []), *courses, *carpets])
    return Figure(source=source, alt=f"Over time: {shown}.".replace("\n", " "), caption=caption)


def _draw_events(panel: Any, events: Sequence[tuple[float, float, str]], lanes: Sequence[str]) -> None:
    """Draw a lane for each condition; of too many conditions one lane for all."""
    names = list(lanes) if len(lanes) <= _MOST_LANES else [f"{len(lanes)} conditions"]
    colors = group_colors(names) if len(names) > 1 else {names[0]: INK}
    for lane, name in enumerate(names):
        spans = [
            (on, max(long, 0.2)) for on, long, condition in events if len(names) == 1 or condition == name
        ]
        panel.broken_barh(spans, (lane - 0.36, 0.72), facecolors=colors[name], linewidth=0)
    panel.set(ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)))
    panel.set_yticklabels(names, parse_math=False)  # a name with a dollar sign is a name
    panel.tick_params(left=False, labelsize=7.5)
    panel.spines["left"].set_visible(False)


def _draw_course(panel: Any, at: NDArray[Any], values: NDArray[Any], label: str, color: str) -> None:
    panel.plot(at, values, color=color, linewidth=1.1)
    panel.set_ylabel(label, fontsize=8)
    panel.grid(axis="y")
    panel.set_axisbelow(True)
    panel.margins(y=0.12)
    panel.locator_params(axis="y", nbins=4)


def _draw_carpet(panel: Any, values: NDArray[Any], title: str, edges: tuple[float, float]) -> Any:
    drawn = panel.imshow(
        np.ma.masked_invalid(values),
        aspect="auto",
        origin="lower",
        extent=(*edges, 0, len(values)),
        cmap="gray",
        vmin=-_LIMIT,
        vmax=_LIMIT,
        interpolation="nearest",
        rasterized=True,
    )
    panel.set_title(title, fontsize=8.5, fontweight="normal", color=MUTED)
    panel.set(ylabel="voxels,\nbottom to top", yticks=[])
    panel.yaxis.label.set_fontsize(8)
    return drawn
