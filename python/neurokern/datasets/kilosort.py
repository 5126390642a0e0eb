"""Folders of Kilosort and Phy: spikes in samples, the sampling rate, and what was said of the clusters."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from neurokern._check import check_positive
from neurokern.datasets._clean import as_ids, as_vector
from neurokern.datasets._files import read_npy
from neurokern.datasets.recording import SpikeRecording, make_recording

__all__ = ["is_kilosort_folder", "load_kilosort"]

SPIKES = "spike_times.npy"
_RATE = re.compile(r"^\s*sample_rate\s*=\s*([0-9][0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9]+)?)\s*(?:#.*)?$", re.M)
_LARGEST_PARAMS = 1 << 20
_IDS = ("cluster_id", "id", "cluster")


def is_kilosort_folder(folder: Path) -> bool:
    """Return whether a folder holds spikes as Kilosort and Phy write them."""
    return (folder / SPIKES).is_file()


def load_kilosort(
    folder: str | os.PathLike[str],
    *,
    sfreq: float | None = None,
    session: str | None = None,
    subject: str | None = None,
    trials: pd.DataFrame | None = None,
) -> SpikeRecording:
    """Load a folder that Kilosort wrote, curated in Phy or not.

    Read are ``spike_times.npy`` (samples), ``spike_clusters.npy`` or ``spike_templates.npy``, the rate in
    ``params.py``, which is not executed, and the tables ``cluster_info.tsv``, ``cluster_group.tsv``,
    ``cluster_KSLabel.tsv`` and other ``cluster_*.tsv``: their columns go to the unit table, ``group`` with
    what a person decided ("unsorted" without), ``depth`` from ``cluster_info.tsv``.

    Parameters
    ----------
    folder : path-like
    sfreq : float, hertz, optional
        Sampling rate; default that of ``params.py``.
    session, subject : str, optional
        Names; the session's default is the folder's name.
    trials : DataFrame, optional
        As in :class:`SpikeRecording`; Kilosort knows of none.

    Returns
    -------
    SpikeRecording
        :func:`~neurokern.datasets.select_good_units` chooses by ``labels="good"``.

    Raises
    ------
    FileNotFoundError
        If the folder, its spikes or clusters are not there.
    ValueError
        If a file is cut short, pickled or of a wrong type, lengths disagree, or the rate is not known.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"load_kilosort: no such folder: {folder}")
    names = [name for name in ("spike_clusters.npy", "spike_templates.npy") if (root / name).is_file()]
    if not is_kilosort_folder(root) or not names:
        raise FileNotFoundError(
            f"load_kilosort: {root.name} must hold {SPIKES} and spike_clusters.npy or spike_templates.npy"
        )
    samples = as_vector("load_kilosort", SPIKES, read_npy("load_kilosort", root / SPIKES))
    clusters = as_ids("load_kilosort", names[0], read_npy("load_kilosort", root / names[0]))
    if samples.dtype.kind == "f":  # some exporters write whole samples as doubles
        samples = as_ids("load_kilosort", SPIKES, samples)
    rate = _rate(root) if sfreq is None else check_positive("load_kilosort", "sfreq", sfreq)
    if samples.dtype == np.uint64:  # where a time before 0 was written without its sign
        samples = samples.view(np.int64)
    table, notes = _clusters(root, clusters)
    if names[0] != "spike_clusters.npy":
        notes.append("units are templates: there is no spike_clusters.npy")
    return make_recording(
        "load_kilosort",
        samples,
        clusters,
        sfreq=rate,
        session=session or root.name,
        subject=subject,
        unit_table=table,
        trials=trials,
        notes=notes,
    )


def _rate(root: Path) -> float:
    params = root / "params.py"
    advice = "pass sfreq=, the sampling rate in hertz"
    if not params.is_file():
        raise ValueError(f"load_kilosort: {root.name} has no params.py; {advice}")
    if params.stat().st_size > _LARGEST_PARAMS:
        raise ValueError(f"load_kilosort: params.py has {params.stat().st_size} bytes; {advice}")
    found = _RATE.findall(params.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise ValueError(f"load_kilosort: params.py must have a line `sample_rate = NUMBER`; {advice}")
    return check_positive("load_kilosort", "sample_rate of params.py", float(found[-1].replace("_", "")))


def _clusters(root: Path, clusters: np.ndarray) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of units and notes; of a column in several files Phy's cluster_info decides."""
    files = sorted(root.glob("cluster_*.tsv")) + sorted(root.glob("cluster_*.csv"))
    files.sort(key=lambda file: file.stem != "cluster_info")
    table = pd.DataFrame({"id": np.unique(clusters[clusters >= 0])})
    notes, unknown = [], set()
    for file in files:
        columns = _read_table(file)
        if columns is None:
            notes.append(f"left out {file.name}: it has no column cluster_id")
            continue
        unknown |= set(columns["id"]) - set(table["id"])
        new = ["id", *(name for name in columns if name not in table.columns)]
        table = table.merge(columns[new], on="id", how="left")
    if unknown:
        notes.append(f"{len(unknown)} clusters of the tables have no spikes; they were merged or deleted")
    if "group" in table:
        table["group"] = table["group"].fillna("unsorted").astype(str)
    if "depth" in table:
        table["depth"] = pd.to_numeric(table["depth"], errors="coerce")
    return table, notes


def _read_table(file: Path) -> pd.DataFrame | None:
    try:
        # Phy writes tabs into its .csv files, too.
        table = pd.read_csv(file, sep="\t", encoding="utf-8-sig")
    except Exception as error:  # the parser raises many kinds
        raise ValueError(f"load_kilosort: cannot read {file.name}: {error}") from error
    name = next((name for name in _IDS if name in table), None)
    if name is None:
        return None
    table.insert(0, "id", as_ids("load_kilosort", f"{name} of {file.name}", table.pop(name).to_numpy()))
    table = table.drop(columns=[column for column in _IDS if column in table and column != "id"])
    if table["id"].duplicated().any():
        raise ValueError(f"load_kilosort: {file.name} lists a cluster twice")
    return table
