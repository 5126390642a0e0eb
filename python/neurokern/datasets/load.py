"""Load whatever a path holds."""

from __future__ import annotations

import os
from pathlib import Path

from neurokern.datasets._files import read_npz
from neurokern.datasets.alf import load_alf
from neurokern.datasets.binned import BinnedSession
from neurokern.datasets.binned_npz import session_from_arrays
from neurokern.datasets.npz import TIMES, UNITS, recording_from_arrays
from neurokern.datasets.recording import SpikeRecording

__all__ = ["load_recording"]


def load_recording(path: str | os.PathLike[str]) -> SpikeRecording | BinnedSession:
    """Load a recording: an ALF folder, or a ``.npz`` file with spike times, or one with binned counts.

    Parameters
    ----------
    path : path-like
        A folder goes to :func:`load_alf`; a file to :func:`load_npz` or, if it holds 3-D ``counts`` and no
        spike times, to :func:`load_binned_npz`. Use these directly for their options.

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
        return load_alf(source)
    if not source.exists():
        raise FileNotFoundError(f"load_recording: no such file or folder: {source}")
    if source.suffix != ".npz":
        raise ValueError(
            f"load_recording: {source.name} is neither a folder of ALF files nor a .npz file; for arrays "
            "there is SpikeRecording.from_arrays"
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
