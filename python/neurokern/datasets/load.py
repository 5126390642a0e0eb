"""Load whatever a path holds."""

from __future__ import annotations

import os
from pathlib import Path

from neurokern.datasets._files import read_npz
from neurokern.datasets.alf import load_alf
from neurokern.datasets.binned import BinnedSession
from neurokern.datasets.binned_npz import session_from_arrays
from neurokern.datasets.kilosort import SPIKES, is_kilosort_folder, load_kilosort
from neurokern.datasets.npz import TIMES, UNITS, recording_from_arrays
from neurokern.datasets.nwb import load_nwb
from neurokern.datasets.recording import SpikeRecording

__all__ = ["load_recording"]


def load_recording(path: str | os.PathLike[str]) -> SpikeRecording | BinnedSession:
    """Load a recording: a folder of ALF or Kilosort, an NWB file, a ``.npz`` of spike times or binned counts.

    Parameters
    ----------
    path : path-like
        A folder goes to :func:`load_kilosort` if it, or one folder in it such as ``sorter_output``, holds
        ``spike_times.npy``, else to :func:`load_alf`; a
        file to :func:`load_nwb`, :func:`load_npz` or, if it holds 3-D ``counts`` and no spike times, to
        :func:`load_binned_npz`. Use these directly for their options.

    Returns
    -------
    SpikeRecording or BinnedSession

    Raises
    ------
    FileNotFoundError
        If the path does not exist.
    ValueError
        If it is none of these.
    """
    source = Path(path)
    if source.is_dir():
        found = _kilosort_below(source)
        return load_alf(source) if found is None else load_kilosort(found, session=source.name)
    if not source.exists():
        raise FileNotFoundError(f"load_recording: no such file or folder: {source}")
    if source.suffix == ".nwb":
        return load_nwb(source)
    if source.suffix in (".mat", ".h5", ".hdf5"):
        raise ValueError(
            f"load_recording: {source.name} has names of its own; say which variables hold what with "
            "load_variables(path, times=..., units=...)"
        )
    if source.suffix != ".npz":
        raise ValueError(
            f"load_recording: {source.name} is neither a folder of ALF files nor a .npz or .nwb file; for "
            "arrays there is SpikeRecording.from_arrays"
        )
    arrays = read_npz("load_recording", source)
    if "counts" in arrays and not any(name in arrays for name in TIMES):
        return session_from_arrays("load_recording", arrays, source.stem)
    if not any(name in arrays for name in (*TIMES, *UNITS)):
        raise ValueError(
            f"load_recording: {source.name} holds {sorted(arrays)}, but neither binned counts ('counts') "
            f"nor spike times ({', '.join(TIMES)}) with unit ids ({', '.join(UNITS)})"
        )
    return recording_from_arrays("load_recording", arrays, source.stem)


def _kilosort_below(folder: Path) -> Path | None:
    """Return the folder with the output of Kilosort, itself or the only one below it, or None."""
    if is_kilosort_folder(folder):
        return folder
    found = [file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{SPIKES}")]
    return found[0] if len(found) == 1 else None
