"""Binned sessions: spike counts of one session in windows, dense and small, with regions and labels."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurokern._check import check_finite, check_positive
from neurokern.datasets._clean import check_table
from neurokern.datasets._counting import as_counts, count_spikes, smallest_counts
from neurokern.datasets.windows import bins_per_window, inside_recording

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from neurokern.datasets.recording import SpikeRecording

__all__ = ["BinnedSession", "bin_windows", "index_regions"]


@dataclass(frozen=True, eq=False, kw_only=True)
class BinnedSession:
    """Spike counts of one session in windows of equal length.

    Parameters
    ----------
    counts : ndarray of shape (n_windows, n_bins, n_units), unsigned integers
        Spikes of each unit in each bin; time before units.
    bin_size : float, seconds
        Width of a bin.
    regions : ndarray of shape (n_units,), str
        Region of each unit, "" where unknown.
    unit_ids : ndarray of shape (n_units,), integers
        The source's id of each unit.
    session : str
        Name of the session.
    windows : ndarray of shape (n_windows, 2), float64, seconds, or None
        Start and stop of each window on the session clock. Without them, windows are taken to be in order of
        time and not to overlap.
    trials : DataFrame with n_windows rows, or None
        Labels of each window.
    subject : str or None
        Name of the subject.
    notes : tuple of str
        What was dropped, repaired or assumed on the way.

    Raises
    ------
    ValueError
        If shapes disagree or ``counts`` are not whole numbers of 0 and above.
    """

    counts: np.ndarray
    bin_size: float
    regions: np.ndarray
    unit_ids: np.ndarray
    session: str
    windows: np.ndarray | None = None
    trials: pd.DataFrame | None = None
    subject: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_positive("BinnedSession", "bin_size", self.bin_size)
        object.__setattr__(self, "counts", as_counts("BinnedSession", self.counts))
        object.__setattr__(self, "regions", np.asarray(self.regions, dtype=str))
        object.__setattr__(self, "unit_ids", np.asarray(self.unit_ids))
        for name in ("regions", "unit_ids"):
            if getattr(self, name).shape != (self.n_units,):
                raise ValueError(
                    f"BinnedSession: {name} must have shape ({self.n_units},), "
                    f"got {getattr(self, name).shape}"
                )
        if self.windows is not None:
            object.__setattr__(self, "windows", _as_windows(self.windows, self.n_windows))
        check_table("BinnedSession", "trials", self.trials)
        if self.trials is not None and len(self.trials) != self.n_windows:
            raise ValueError(
                f"BinnedSession: {self.n_windows} windows, but {len(self.trials)} rows of trials"
            )

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return self.counts.shape[0]

    @property
    def n_bins(self) -> int:
        """Number of bins in each window."""
        return self.counts.shape[1]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.counts.shape[2]

    def __len__(self) -> int:
        return self.n_windows

    @property
    def region_index(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Region of each unit, int64 of shape (n_units,), as numbers into the sorted names; -1 if unknown."""
        return index_regions(self.regions)

    def read(self, indices: ArrayLike) -> np.ndarray:
        """Return the counts of some windows as float32 of shape (len(indices), n_bins, n_units)."""
        return self.counts[_as_rows(indices)].astype(np.float32)

    def select(self, window_indices: ArrayLike | slice) -> BinnedSession:
        """Return the session with only these windows: integers, a mask, or a slice (no copy)."""
        rows = window_indices if isinstance(window_indices, slice) else _as_rows(window_indices)
        return replace(
            self,
            counts=self.counts[rows],
            windows=None if self.windows is None else self.windows[rows],
            trials=None if self.trials is None else self.trials.iloc[rows].reset_index(drop=True),
        )

    def select_units(self, unit_indices: ArrayLike) -> BinnedSession:
        """Return the session with only these units (integers or a mask), in the order given."""
        columns = _as_rows(unit_indices)
        return replace(
            self,
            counts=np.ascontiguousarray(self.counts[:, :, columns]),
            regions=self.regions[columns],
            unit_ids=self.unit_ids[columns],
        )

    def rebin(self, factor: int) -> BinnedSession:
        """Return the session with bins ``factor`` times as wide, each the sum of ``factor`` neighbors.

        Raises
        ------
        ValueError, TypeError
            If ``factor`` is not an integer of at least 1 that divides ``n_bins``.
        """
        whole = check_finite("BinnedSession.rebin", "factor", factor)
        if whole != int(whole) or whole < 1 or self.n_bins % int(whole):
            raise ValueError(
                f"BinnedSession.rebin: factor must divide the {self.n_bins} bins, got {factor!r}"
            )
        factor = int(whole)
        groups = self.counts.reshape(self.n_windows, self.n_bins // factor, factor, self.n_units)
        fits = self.counts.dtype == np.uint8 and factor <= 257  # 257 * 255 < 2**16
        wide = np.uint16 if fits else np.uint64
        return replace(
            self,
            counts=smallest_counts("BinnedSession.rebin", groups.sum(axis=2, dtype=wide)),
            bin_size=self.bin_size * factor,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one ``.npz`` that ``load_binned_npz`` reads back; the file appears whole or not at all."""
        from neurokern.datasets.binned_npz import save_binned  # binned_npz imports this module

        save_binned(self, path)

    def __repr__(self) -> str:
        """One line with the sizes: the arrays themselves would fill pages."""
        return (
            f"BinnedSession({self.session!r}: {self.n_windows} windows, {self.n_bins} bins "
            f"of {self.bin_size:g} s, {self.n_units} units, {len(set(self.regions.tolist()))} regions, "
            f"{self.counts.dtype})"
        )


def bin_windows(
    recording: SpikeRecording, windows: np.ndarray, bin_size: float, trials: pd.DataFrame | None = None
) -> BinnedSession:
    """Count the spikes of every unit in every bin of every window.

    Bins are half-open and decided by comparing with edges, see :func:`neurokern.bin_spikes`. Windows may
    overlap.

    Parameters
    ----------
    recording : SpikeRecording
    windows : array of shape (n_windows, 2), seconds
        Start and stop; all of one length, a multiple of ``bin_size``; within the recording.
    bin_size : float, seconds
    trials : DataFrame with n_windows rows, optional
        Labels of each window, such as ``trial_windows`` returns.

    Returns
    -------
    BinnedSession
        Counts are uint8 if they fit, else uint16, else uint32.

    Raises
    ------
    ValueError
        If the windows are empty, of several lengths, not a multiple of ``bin_size``, or reach beyond the
        recording.

    Examples
    --------
    >>> recording = SpikeRecording.from_arrays([0.1, 0.3, 0.35, 1.9], [4, 4, 9, 4])
    >>> bin_windows(recording, sliding_windows(recording, 1.0), bin_size=0.5).counts[:, :, 0]
    array([[2, 0],
           [0, 1]], dtype=uint8)
    """
    windows = check_windows("bin_windows", recording, windows, bin_size)
    n_bins = bins_per_window("bin_windows", windows, bin_size)
    return BinnedSession(
        counts=count_spikes(recording, windows[:, 0], n_bins, bin_size),
        bin_size=float(bin_size),
        regions=recording.regions,
        unit_ids=recording.unit_table["id"].to_numpy(),
        session=recording.session,
        windows=windows,
        trials=None if trials is None else trials.reset_index(drop=True),
        subject=recording.subject,
        notes=recording.notes,
    )


def check_windows(
    function: str, recording: SpikeRecording, windows: ArrayLike, bin_size: float
) -> np.ndarray:
    """Return windows as float64 (n_windows, 2), or raise if not all are equal and within the recording."""
    table = np.asarray(windows, dtype=np.float64)
    bins_per_window(function, table, bin_size)
    outside = ~inside_recording(table, recording.start, recording.stop)
    if outside.any():
        raise ValueError(
            f"{function}: {int(outside.sum())} of {len(table)} windows reach beyond the recording, "
            f"{recording.start:g} to {recording.stop:g} s; trial_windows and sliding_windows leave them out"
        )
    return table


def index_regions(
    regions: np.ndarray, names: tuple[str, ...] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return regions as int64 numbers into ``names`` (default: their own names, sorted); "" and unlisted ones
    are -1.
    """
    vocabulary = tuple(sorted(set(regions.tolist()) - {""})) if names is None else names
    number_of = {name: number for number, name in enumerate(vocabulary)}
    distinct, inverse = np.unique(regions, return_inverse=True)
    numbers = np.array([number_of.get(name, -1) for name in distinct.tolist()], dtype=np.int64)
    return (numbers[inverse] if len(distinct) else np.zeros(0, dtype=np.int64)), vocabulary


def _as_windows(windows: ArrayLike, n_windows: int) -> np.ndarray:
    table = np.asarray(windows, dtype=np.float64)
    if table.shape != (n_windows, 2):
        raise ValueError(f"BinnedSession: windows must have shape ({n_windows}, 2), got {table.shape}")
    if not (table[:, 1] > table[:, 0]).all() or not np.isfinite(table).all():
        raise ValueError(
            "BinnedSession: windows must be finite and stop after they start; leave unknown ones out"
        )
    return table


def _as_rows(indices: ArrayLike) -> np.ndarray:
    rows = np.asarray(indices)
    if rows.size and rows.dtype.kind not in "iub":
        raise TypeError(f"BinnedSession: indices must be integers or a mask, got dtype {rows.dtype}")
    return rows if rows.dtype == bool else rows.astype(np.int64)
