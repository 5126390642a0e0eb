"""Sorted spikes from and to the sortings of SpikeInterface."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern._check import check_integer, check_positive
from neurokern.datasets.bridges._peer import import_peer, say_left_out
from neurokern.datasets.bridges._units import UNIT_ID, arrays_of_columns, unit_table
from neurokern.datasets.recording import SpikeRecording

__all__ = ["from_spikeinterface", "to_spikeinterface"]

_TOLERANCE = 1e-3  # samples that a time may be off its sample


def from_spikeinterface(
    sorting: Any, *, segment: int | None = None, session: str = "recording", stop: float | None = None
) -> SpikeRecording:
    """Return a sorting as a recording; times are samples over the rate, each rounded once.

    A sorting with a registered recording has that recording's times and end. Units keep their order; ids that
    are no ascending numbers become the column ``unit_id``. Properties become columns of the unit table.

    Parameters
    ----------
    sorting : spikeinterface BaseSorting
    segment : int, optional
        Needed where there are several.
    session : str
        Name of the recording.
    stop : float, seconds, optional
        End of the recording; default the registered recording's, else the whole second after the last spike.

    Raises
    ------
    ImportError
        If spikeinterface is not installed.
    TypeError, ValueError
        If it is no sorting, or the segment is not given or not there.

    Warns
    -----
    UserWarning
        Of properties with more than one value for a unit.
    """
    peer = import_peer("from_spikeinterface", "spikeinterface.core", "spikeinterface")
    if not isinstance(sorting, peer.BaseSorting):
        raise TypeError(
            f"from_spikeinterface: sorting must be a spikeinterface sorting, got {type(sorting).__name__}"
        )
    number = _segment(sorting, segment)
    vector = sorting.to_spike_vector()
    vector = vector[vector["segment_index"] == number]
    times = _times(sorting, vector["sample_index"], number)
    rows = vector["unit_index"].astype(np.int32)
    if not (times[1:] >= times[:-1]).all():
        order = np.argsort(times, kind="stable")
        times, rows = times[order], rows[order]
    properties = {name: np.asarray(sorting.get_property(name)) for name in sorting.get_property_keys()}
    left = [f"property {name}" for name, values in properties.items() if values.ndim != 1]
    ids = np.asarray(sorting.unit_ids)
    flat = {name: values for name, values in properties.items() if values.ndim == 1}
    start, end = _bounds(sorting, times, number)
    return SpikeRecording(
        times=times,
        units=rows,
        unit_table=unit_table(pd.DataFrame({"id": ids, **flat}), ids),
        session=session,
        start=start,
        stop=end if stop is None else float(stop),
        notes=say_left_out("from_spikeinterface", "a recording", left),
    )


def _segment(sorting: Any, segment: int | None) -> int:
    n = int(sorting.get_num_segments())
    if segment is None and n > 1:
        raise ValueError(
            f"from_spikeinterface: the sorting has {n} segments, each with a clock of its own; give segment="
        )
    number = 0 if segment is None else check_integer("from_spikeinterface", "segment", segment)
    if not 0 <= number < n:
        raise ValueError(f"from_spikeinterface: segment must be 0 to {n - 1}, got {number}")
    return number


def _times(sorting: Any, samples: NDArray[np.int64], segment: int) -> NDArray[np.float64]:
    if sorting.has_recording() or sorting.has_time_vector(segment_index=segment):
        return np.asarray(sorting.sample_index_to_time(samples, segment_index=segment), np.float64)
    begin = float(sorting.get_start_time(segment_index=segment) or 0.0)
    seconds = samples / float(sorting.get_sampling_frequency())
    return seconds + begin if begin else seconds


def _bounds(sorting: Any, times: NDArray[np.float64], segment: int) -> tuple[float, float]:
    first, last = (float(times[0]), float(times[-1])) if len(times) else (0.0, 0.0)
    begin = min(float(sorting.get_start_time(segment_index=segment) or 0.0), first)
    if sorting.has_recording():
        return begin, max(float(sorting.get_end_time(segment_index=segment)), last)
    return begin, float(np.floor(last) + 1.0)


def to_spikeinterface(recording: SpikeRecording, sfreq: float) -> Any:
    """Return a recording as a ``NumpySorting``; columns of the unit table become properties.

    Parameters
    ----------
    recording : SpikeRecording
        With times that are samples at ``sfreq``.
    sfreq : float, hertz
        Rate of the clock that the spikes were sorted on.

    Raises
    ------
    ImportError
        If spikeinterface is not installed.
    ValueError
        If a time lies between two samples, or before 0.

    Warns
    -----
    UserWarning
        Of what a sorting has no place for: trials, series, bounds, names, and columns of Python objects.
    """
    peer = import_peer("to_spikeinterface", "spikeinterface.core", "spikeinterface")
    rate = check_positive("to_spikeinterface", "sfreq", sfreq)
    exact = recording.times * rate
    samples = np.rint(exact).astype(np.int64)
    off = np.abs(exact - samples).max(initial=0.0)
    if off > _TOLERANCE or samples.min(initial=0) < 0:
        raise ValueError(
            f"to_spikeinterface: times must be samples from 0 at sfreq, got {recording.times.min():g} s at "
            f"the least, and times up to {off:.3g} samples off; is {rate:g} Hz the rate of the recording? "
            "Times on a clock that was fitted to another's are no samples; round them first"
        )
    table = recording.unit_table
    ids = (table[UNIT_ID] if UNIT_ID in table else table["id"]).to_numpy()
    ids = ids.astype(str) if ids.dtype.kind not in "iu" else ids
    vector = np.zeros(len(samples), peer.base.minimum_spike_dtype)
    vector["sample_index"], vector["unit_index"] = samples, recording.units
    sorting = peer.NumpySorting(vector, rate, ids)
    lacking = {"trials": recording.trials is None, "series": not recording.series}
    left = [name for name, nothing in lacking.items() if not nothing]
    left += ["start", "stop", "session", *(["subject"] if recording.subject else [])]
    own = table.drop(columns=["id", UNIT_ID], errors="ignore")
    for name, values in arrays_of_columns(own, "units", left).items():
        sorting.set_property(name, values)
    say_left_out("to_spikeinterface", "a sorting", left)
    return sorting
