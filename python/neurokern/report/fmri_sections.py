"""Sections of a page about runs of fMRI, with the words that say what figures show and how far they reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern.report.fmri_figures import brain_slices, run_timeline
from neurokern.report.fmri_quality import RunQuality, columns_used
from neurokern.report.page import Figure, Section, Table

__all__ = ["ShownRun", "run_section", "runs_table", "warnings_section"]

_NOTHING = "–"
_WINDOW = 400  # volumes of a timeline; more would be narrower than a line


@dataclass(frozen=True, kw_only=True)
class ShownRun:
    """A run, measured, with what its folder says about it. Nothing in it names the subject.

    Attributes
    ----------
    title : str
    quality : RunQuality
    affine : array of shape (4, 4)
    tr : float or None, seconds
    events : sequence of (onset, duration, name), seconds
    header : sequence of (name, text)
        The header's facts.
    """

    title: str
    quality: RunQuality
    affine: NDArray[np.float64]
    tr: float | None
    events: Sequence[tuple[float, float, str]] = ()
    header: Sequence[tuple[str, str]] = field(default_factory=tuple)


def run_section(run: ShownRun) -> Section:
    """Show the mean, the temporal signal to noise, what happens over time, and the header of a run."""
    quality = run.quality
    figures = [_mean_figure(run), _tsnr_figure(run), _timeline(run)]
    parts: list[Figure | Table] = [one for one in figures if one is not None]
    if run.header:
        parts.append(Table(header=(), rows=[list(row) for row in run.header], words=True))
    n = int(quality.mask.sum())
    text = [f"Mask: {quality.mask_how}; {n:,} of {quality.mask.size:,} voxels."]
    if quality.n_not_finite:
        text.append(f"{quality.n_not_finite:,} voxels are NaN or infinite in some volume and are left out.")
    if quality.tsnr is None:
        text.append("One or two volumes say nothing about noise: there is no tSNR and no time course.")
    return Section(title=run.title, text=text, parts=parts)


def runs_table(runs: Sequence[ShownRun], volumes: Sequence[int]) -> Table:
    """Return a line for each run: its length and what is typical of it."""
    header = [
        "run",
        "volumes",
        "TR (s)",
        "voxels in mask",
        "tSNR",
        "DVARS (%)",
        "motion (mm)",
        "events",
    ]
    rows = [
        [
            run.title,
            f"{n:,}",
            "unknown" if run.tr is None else f"{run.tr:g}",
            f"{int(run.quality.mask.sum()):,}",
            _median(run.quality.tsnr if run.quality.tsnr is None else run.quality.tsnr[run.quality.mask]),
            _median(run.quality.dvars),
            _median(run.quality.displacement),
            f"{len(run.events):,}",
        ]
        for run, n in zip(runs, volumes, strict=True)
    ]
    caption = (
        "Medians over the mask's voxels (tSNR) and over volumes (DVARS; motion is framewise displacement). "
        "Compare runs of one protocol only: voxel size, TR and field strength set the level of all three."
    )
    kept = [i for i in range(len(header)) if any(row[i] != _NOTHING for row in rows)]
    return Table(
        header=[header[i] for i in kept], rows=[[row[i] for i in kept] for row in rows], caption=caption
    )


def warnings_section(warnings: Sequence[str]) -> Section | None:
    """List what does not fit together, or return None where nothing was found."""
    if not warnings:
        return None
    return Section(title="To look at first", text=[f"{text[:1].upper()}{text[1:]}." for text in warnings])


def _mean_figure(run: ShownRun) -> Figure | None:
    caption = (
        "Mean over volumes, with the border of the mask in orange. Left is left (L), seen from behind and "
        "from above. A mask that misses brain, or takes in much of what is not, makes all that follows "
        "doubtful."
    )
    return brain_slices(run.quality.mean, run.quality.mask, run.affine, label="mean signal", caption=caption)


def _tsnr_figure(run: ShownRun) -> Figure | None:
    tsnr, mask = run.quality.tsnr, run.quality.mask
    if tsnr is None or not np.isfinite(tsnr[mask]).any():
        return None
    caption = (
        "Temporal signal to noise of each voxel: mean over the standard deviation about a straight line. "
        f"Median {_median(tsnr[mask])} in the mask. Look for dark bands (motion, a broken coil) and for "
        "holes near sinuses and ears; values grow with voxel size."
    )
    return brain_slices(
        tsnr, mask, run.affine, label="tSNR", colors="viridis", outline=False, caption=caption
    )


def _timeline(run: ShownRun) -> Figure | None:
    quality = run.quality
    if quality.dvars is None or quality.before is None or quality.after is None:
        return None
    n = min(len(quality.dvars), _WINDOW)
    courses: dict[str, Any] = {"global signal\n(%)": quality.global_signal, "DVARS\n(%)": quality.dvars}
    if quality.displacement is not None:
        courses["displacement\n(mm)"] = quality.displacement
    removed = "a straight line" + (f", {columns_used(quality.removed)}" if quality.removed else "")
    carpets = {"as recorded": quality.before[:, :n], f"without {removed}": quality.after[:, :n]}
    return run_timeline(
        {name: values[:n] for name, values in courses.items()},
        carpets,
        tr=run.tr,
        events=run.events,
        caption=_timeline_caption(run, n, removed),
    )


def _timeline_caption(run: ShownRun, n: int, removed: str) -> str:
    quality = run.quality
    assert quality.before is not None
    part = "" if quality.dvars is None or n == len(quality.dvars) else f"The first {n} volumes. "
    moved = (
        "Displacement: of the head since the volume before (Power et al. 2012). "
        if quality.displacement is not None
        else ""
    )
    return (
        f"{part}Global signal: mean of the mask about its own mean. DVARS: root mean square, over the mask, "
        f"of the change since the volume before. {moved}Below, each line is one of {len(quality.before):,} "
        f"voxels spread over the mask, each in its own standard deviations: as recorded, and with {removed} "
        "taken out by least squares over the whole run. Upright stripes that stay are shared by the whole "
        "brain: motion, breathing, or the task."
    )


def _median(values: NDArray[np.floating] | None) -> str:
    if values is None or not np.isfinite(values).any():
        return _NOTHING
    return f"{np.nanmedian(values):.3g}"
