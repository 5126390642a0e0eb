"""Quality of sorted units, and the steps that choose by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurokern._check import check_fraction, check_positive

if TYPE_CHECKING:
    from neurokern.datasets.recording import SpikeRecording

__all__ = ["select_good_units", "unit_quality"]

REFRACTORY = 0.002  # seconds
PRESENCE_BIN = 60.0  # seconds
LABELS = ("group", "KSLabel", "label", "quality", "ks2_label", "labels")


def unit_quality(
    recording: SpikeRecording, *, refractory: float = REFRACTORY, presence_bin: float = PRESENCE_BIN
) -> pd.DataFrame:
    """Return measures of each unit's quality.

    Parameters
    ----------
    recording : SpikeRecording
    refractory : float, seconds, default 0.002
        Shorter intervals between spikes of one neuron are violations.
    presence_bin : float, seconds, default 60
        Length of the stretches that presence is counted in; what remains at the end belongs to the last.

    Returns
    -------
    DataFrame
        A row per unit: ``rate`` (Hz over the whole recording), ``isi_violations`` (fraction of the intervals
        between its spikes below ``refractory``; NaN with fewer than two spikes), ``presence_ratio`` (fraction
        of stretches with a spike).
    """
    check_positive("unit_quality", "refractory", refractory)
    check_positive("unit_quality", "presence_bin", presence_bin)
    n_units = recording.n_units
    order = np.argsort(recording.units, kind="stable")  # times stay ascending within a unit
    units, times = recording.units[order], recording.times[order]
    same = units[1:] == units[:-1]
    short = same & (np.diff(times) < refractory)
    n_intervals = np.bincount(units[1:][same], minlength=n_units)
    n_short = np.bincount(units[1:][short], minlength=n_units)
    n_stretches = max(int(recording.duration // presence_bin), 1)
    # The last stretch takes the rest that fills none of its own.
    stretch = ((recording.times - recording.start) // presence_bin).astype(np.int64).clip(0, n_stretches - 1)
    present = np.zeros((n_units, n_stretches), dtype=bool)
    present[recording.units, stretch] = True
    with np.errstate(invalid="ignore", divide="ignore"):
        violations = np.where(n_intervals > 0, n_short / n_intervals, np.nan)
    columns = {"rate": recording.rates, "isi_violations": violations, "presence_ratio": present.mean(axis=1)}
    return pd.DataFrame(columns)


def select_good_units(
    recording: SpikeRecording,
    *,
    min_rate: float | None = None,
    max_isi_violations: float | None = None,
    min_presence: float | None = None,
    labels: Sequence[str] | str | None = None,
    label_column: str | None = None,
    refractory: float = REFRACTORY,
    presence_bin: float = PRESENCE_BIN,
) -> SpikeRecording:
    """Return the recording with the units that meet every given condition; ``notes`` has a line for each.

    Parameters
    ----------
    recording : SpikeRecording
    min_rate : float, hertz, optional
        Lowest mean rate.
    max_isi_violations : float, optional
        Largest fraction of intervals below ``refractory``; units with fewer than two spikes have none.
    min_presence : float, optional
        Smallest fraction of stretches of ``presence_bin`` seconds with a spike.
    labels : str or sequence of str, optional
        What the sorter or a person must have called the unit, such as ``"good"``.
    label_column : str, optional
        Column of the unit table with these names; default the first of ``group``, ``KSLabel``, ``label``,
        ``quality``, ``ks2_label`` that there is.
    refractory, presence_bin : float, seconds
        As in :func:`unit_quality`.

    Raises
    ------
    ValueError
        If no unit is left, or there are no labels where they are asked for.
    """
    quality = unit_quality(recording, refractory=refractory, presence_bin=presence_bin)
    steps: list[tuple[str, np.ndarray]] = []
    if min_rate is not None:
        steps.append((f"rate of at least {min_rate:g} Hz", quality["rate"].to_numpy() >= min_rate))
    if max_isi_violations is not None:
        check_fraction("select_good_units", "max_isi_violations", max_isi_violations)
        few = ~(quality["isi_violations"].to_numpy() > max_isi_violations)
        steps.append((f"at most {max_isi_violations:g} of intervals below {refractory * 1e3:g} ms", few))
    if min_presence is not None:
        check_fraction("select_good_units", "min_presence", min_presence)
        often = quality["presence_ratio"].to_numpy() >= min_presence
        steps.append((f"spikes in at least {min_presence:g} of stretches of {presence_bin:g} s", often))
    if labels is not None:
        wanted = [labels] if isinstance(labels, str) else list(labels)
        column = _label_column(recording.unit_table, label_column)
        fits = recording.unit_table[column].astype(str).isin(wanted).to_numpy()
        steps.append((f"{column} in {', '.join(wanted)}", fits))
    keep, notes = np.ones(recording.n_units, dtype=bool), []
    for name, fits in steps:
        notes.append(f"quality: {int((keep & fits).sum())} of {int(keep.sum())} units have {name}")
        keep &= fits
    if not keep.any():
        raise ValueError(f"select_good_units: no unit is left; {'; '.join(notes)}")
    chosen = recording.select_units(keep)
    return replace(chosen, notes=(*recording.notes, *notes))


def _label_column(table: pd.DataFrame, given: str | None) -> str:
    column = given or next((name for name in LABELS if name in table), None)
    if column is None or column not in table:
        raise ValueError(
            "select_good_units: label_column must be a column of the unit table "
            f"({', '.join(table.columns)}), got {given!r}"
        )
    return column
