"""Binned sessions in one ``.npz``: our own layout, and that of the Steinmetz 2019 sessions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from neurokern._check import check_choice, check_positive
from neurokern.datasets._files import read_npz, write_npz
from neurokern.datasets._tables import (
    arrays_of_table,
    check_format,
    columns_of_array,
    number,
    take_prefixed,
    text,
)
from neurokern.datasets.binned import BinnedSession

__all__ = ["load_binned_npz", "save_binned", "session_from_arrays"]

FORMAT = "neurokern.binned/1"
BIN_SIZES = ("bin_size_s", "bin_size", "bin_s")
REGIONS = ("brain_area", "regions", "unit_regions", "region", "brain_areas")
STARTS = ("first_bin_time_s", "window_start_s")
AXES = ("windows bins units", "windows units bins")


def load_binned_npz(
    path: str | os.PathLike[str],
    *,
    bin_size: float | None = None,
    axes: str | None = None,
    session: str | None = None,
) -> BinnedSession:
    """Load counts that are already binned: a Steinmetz 2019 session, or what ``BinnedSession.save`` wrote.

    Parameters
    ----------
    path : path-like
        File with ``counts``, 3-D. Optional: ``bin_size_s``; ``brain_area`` or ``regions`` (one per unit);
        ``unit_ids``; ``first_bin_time_s`` (start of each window on the session clock); ``mouse`` or
        ``subject``; ``session``. Every other array with one entry per window becomes a column of the trials.
    bin_size : float, seconds, optional
        Needed where the file does not give it.
    axes : {"windows bins units", "windows units bins"}, optional
        Order of the axes of ``counts``. By default the axis as long as the regions is that of the units; if
        neither or both are, "windows units bins", the order of the Steinmetz sessions, and ``notes`` says so.
    session : str, optional
        Name; by default the file's own, else the file name without its ending.

    Returns
    -------
    BinnedSession
        Time before units, whatever the file's order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or pickled, has no 3-D ``counts`` or no bin size, or lengths disagree.
    """
    arrays = read_npz("load_binned_npz", path)
    return session_from_arrays("load_binned_npz", arrays, Path(path).stem, bin_size, axes, session)


def session_from_arrays(
    function: str,
    arrays: Mapping[str, np.ndarray],
    default_session: str,
    bin_size: float | None = None,
    axes: str | None = None,
    session: str | None = None,
) -> BinnedSession:
    """Build a binned session from named arrays; see :func:`load_binned_npz`."""
    if "counts" not in arrays or arrays["counts"].ndim != 3:
        raise ValueError(f"{function}: needs a 3-D array 'counts'; the file holds {_shapes(arrays)}")
    check_format(function, arrays, FORMAT)
    if text(arrays, "format") == FORMAT:
        axes = "windows bins units"
    regions_name = next((name for name in REGIONS if name in arrays), None)
    regions = None if regions_name is None else arrays[regions_name]
    if regions is not None and regions.ndim != 1:
        raise ValueError(f"{function}: {regions_name} must hold one name per unit, got shape {regions.shape}")
    counts, said = _time_before_units(function, arrays["counts"], regions, axes)
    width = _bin_size(function, arrays, bin_size)
    n_windows, n_bins, n_units = counts.shape
    notes = arrays.get("notes", np.zeros(0, dtype=str)).reshape(-1).tolist()
    return BinnedSession(
        counts=counts,
        bin_size=width,
        regions=np.full(n_units, "") if regions is None else regions,
        unit_ids=arrays.get("unit_ids", np.arange(n_units)),
        session=session or text(arrays, "session") or default_session,
        windows=_windows(function, arrays, n_windows, n_bins * width),
        trials=_trials(arrays, n_windows, {regions_name or "", "unit_ids"}),
        subject=text(arrays, "subject") or text(arrays, "mouse"),
        notes=(*notes, *said),
    )


def save_binned(session: BinnedSession, path: str | os.PathLike[str]) -> None:
    """Write a binned session as one ``.npz`` that :func:`load_binned_npz` reads."""
    arrays: dict[str, np.ndarray] = {
        "format": np.array(FORMAT),
        "counts": session.counts,
        "bin_size_s": np.array(session.bin_size),
        "regions": session.regions,
        "unit_ids": session.unit_ids,
        "session": np.array(session.session),
        "subject": np.array(session.subject or ""),
        "notes": np.array(session.notes, dtype=str),
    }
    if session.windows is not None:
        arrays["windows_s"] = session.windows
    if session.trials is not None:
        arrays |= arrays_of_table("BinnedSession.save", "trials_", session.trials)
    write_npz(path, arrays)


def _time_before_units(
    function: str, counts: np.ndarray, regions: np.ndarray | None, axes: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if axes is not None:
        check_choice(function, "axes", axes, AXES)
    else:
        fits = [] if regions is None else [axis for axis in (1, 2) if counts.shape[axis] == len(regions)]
        if regions is not None and not fits:
            raise ValueError(f"{function}: {len(regions)} regions fit no axis of counts, {counts.shape}")
        axes = AXES[0] if fits == [2] else AXES[1]
        if len(fits) != 1:
            notes = (f"took the axes of counts, {counts.shape}, as {axes}; axes= sets another order",)
    if axes == AXES[1]:
        counts = np.ascontiguousarray(counts.transpose(0, 2, 1))
    return counts, notes


def _bin_size(function: str, arrays: Mapping[str, np.ndarray], given: float | None) -> float:
    if given is not None:
        return check_positive(function, "bin_size", given)
    name = next((n for n in BIN_SIZES if n in arrays), None)
    if name is None:
        raise ValueError(
            f"{function}: the file gives no bin size ({', '.join(BIN_SIZES)}); pass bin_size= in seconds"
        )
    return check_positive(function, "bin_size", number(function, arrays, name) or 0.0)


def _windows(
    function: str, arrays: Mapping[str, np.ndarray], n_windows: int, length: float
) -> np.ndarray | None:
    if "windows_s" in arrays:
        return arrays["windows_s"]
    name = next((n for n in STARTS if n in arrays and arrays[n].shape == (n_windows,)), None)
    if name is None:
        return None
    if arrays[name].dtype.kind not in "iuf":
        raise ValueError(f"{function}: {name} must be numbers in seconds, got {arrays[name].dtype}")
    if not np.isfinite(arrays[name]).all():
        return None
    starts = arrays[name].astype(np.float64)
    return np.stack([starts, starts + length], axis=1)


def _trials(arrays: Mapping[str, np.ndarray], n_windows: int, not_labels: set[str]) -> pd.DataFrame | None:
    saved = take_prefixed(arrays, ("trials_",))
    if text(arrays, "format") == FORMAT:
        return pd.DataFrame(saved) if saved else None
    columns: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        if values.ndim in (1, 2) and len(values) == n_windows and name not in not_labels:
            columns |= columns_of_array(name.removeprefix("trials_"), values)
    return pd.DataFrame(columns) if columns else None


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: values.shape for name, values in sorted(arrays.items())}
