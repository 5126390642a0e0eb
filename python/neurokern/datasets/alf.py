"""Recordings in ALF folders, as the International Brain Laboratory and phylib write them."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from neurokern.datasets._alf_files import AlfFolder, find_collections, parents_within, read_object, read_table
from neurokern.datasets._clean import as_ids
from neurokern.datasets._files import read_npy
from neurokern.datasets.recording import SpikeRecording, make_recording
from neurokern.datasets.series import TimeSeries

__all__ = ["load_alf"]

IDS = ("ids", "id", "cluster_id", "cluster_ids")
ACRONYMS = (
    "acronym",
    "acronyms",
    "brainLocationAcronyms_ccf_2017",
    "brainLocationAcronyms",
    "brainAcronyms",
    "region",
)
ATLAS_IDS = ("brainLocationIds_ccf_2017", "brainLocationIds", "atlas_id", "atlas_ids")
DEPTHS = ("depths", "depth")
PROBE = re.compile(r"probe.*", re.IGNORECASE)
# Objects whose times are of what is counted, labeled or sorted, not of a signal that goes on between them.
NO_SERIES = ("spikes", "clusters", "channels", "templates", "trials", "waveforms", "amps", "drift")
SESSION = re.compile(r"(?P<subject>[^/]+)/(?P<date>\d{4}-\d\d-\d\d)/(?P<number>\d{1,3})(/|$)")


def load_alf(
    folder: str | os.PathLike[str],
    *,
    probe: str | None = None,
    session: str | None = None,
    subject: str | None = None,
    memory_map: bool = False,
) -> SpikeRecording:
    """Load spikes, units and trials from a folder of ALF files.

    Files are found by the names that IBL uses: ``spikes.times.npy`` (seconds), ``spikes.clusters.npy``,
    one-column ``clusters.<attribute>.npy``, ``clusters.metrics.csv`` or ``.pqt``, ``trials.<attribute>.npy``,
    ``trials.table.pqt``; with or without a namespace (``_ibl_trials...``) and further parts such as a
    dataset's uuid (``spikes.times.<uuid>.npy``). Spikes may lie in the folder or below it
    (``alf/probe00/pykilosort``), the newest revision (``#2024-05-06#``) counts. Trials may lie beside the
    spikes or above them, up to ``alf``. Other objects with ``timestamps`` or ``times``, such as ``wheel``,
    become series, named ``wheel.position``.

    Regions come from ``clusters.acronym`` (or a name like it), else from the acronyms or atlas ids of
    ``clusters.channels``; depths from ``clusters.depths``, else from ``channels.localCoordinates``. Row k of
    ``clusters.*`` belongs to id k, unless ``clusters.ids`` says otherwise.

    Parameters
    ----------
    folder : path-like
        Folder with the spikes of one session, or a parent of it.
    probe : str, optional
        Load only this probe, or folder within the session such as ``"probe00/pykilosort"``. By default all
        probes are merged: ids of later probes are shifted, a column ``probe`` names each unit's,
        ``probe_unit_id`` its id there.
    session, subject : str, optional
        Names. By default from ``<subject>/<date>/<number>`` in the path, else the folder's name and None.
    memory_map : bool, default False
        Keep sorted float64 spike times on disk and map them, for recordings near the size of the memory. The
        file must then not change while the recording is in use: a mapped file that shrinks stops the process.

    Returns
    -------
    SpikeRecording
        Its ``notes`` say what was dropped, repaired or assumed.

    Raises
    ------
    FileNotFoundError
        If the folder, or spike times or clusters in it, do not exist.
    ValueError
        If a file is cut short, pickled or of a wrong type, lengths disagree, a spike's cluster has no row in
        ``clusters.*``, or the probe is not there or has several spike sortings.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"load_alf: no such folder: {folder}")
    collections = _choose(root, find_collections(root, "spikes", "times"), probe)
    found_subject, found_session = _names(root, collections[0])
    parts = [_load_collection(AlfFolder(path), found_session, memory_map) for path in collections]
    recording = (
        parts[0] if len(parts) == 1 else _merge(parts, [_probe_of(root, path) for path in collections])
    )
    trials, said = _trials(root, collections[0])
    series, about_series = _series(root, collections[0])
    return replace(
        recording,
        trials=trials,
        series=series,
        session=session or found_session,
        subject=subject or found_subject,
        notes=(*recording.notes, *said, *about_series),
    )


def _choose(root: Path, collections: list[Path], probe: str | None) -> list[Path]:
    if not collections:
        raise FileNotFoundError(
            f"load_alf: no spikes.times.npy in {root} or below it; for spikes in samples, such as Kilosort's "
            "spike_times.npy, there is SpikeRecording.from_arrays(samples, clusters, sfreq=...)"
        )
    if root in collections and probe is None:
        return [root]
    names = {path: path.relative_to(root).as_posix() for path in collections}
    if probe is not None:
        wanted = probe.strip("/")
        collections = [p for p, name in names.items() if f"/{wanted}/" in f"/{root.name}/{name}/"]
        if not collections:
            raise ValueError(
                f"load_alf: probe {probe!r} is not in {root.name}; spikes lie in {sorted(names.values())}"
            )
    probes = [_probe_of(root, path) for path in collections]
    twice = sorted({name for name in probes if probes.count(name) > 1})
    if twice:
        raise ValueError(
            f"load_alf: {twice} has several spike sortings, {[names[path] for path in collections]}; "
            "choose one with probe=, such as probe='probe00/pykilosort'"
        )
    return collections


def _probe_of(root: Path, collection: Path) -> str:
    """Return the part of the path that is named like a probe, else the path below the root."""
    parts = collection.relative_to(root.parent).parts
    return next((part for part in parts if PROBE.fullmatch(part)), collection.relative_to(root).as_posix())


def _names(root: Path, collection: Path) -> tuple[str | None, str]:
    match = SESSION.search(collection.as_posix())
    if match:
        return match["subject"], f"{match['subject']}_{match['date']}_{int(match['number']):03d}"
    generic = ("alf", "pykilosort", "iblsorter", "ks2_matlab")
    names = (part for part in reversed(root.parts) if part not in generic and not PROBE.fullmatch(part))
    return None, next(names, root.name)


def _load_collection(folder: AlfFolder, session: str, memory_map: bool) -> SpikeRecording:
    paths = {attribute: folder.find("load_alf", "spikes", attribute) for attribute in ("times", "clusters")}
    missing = [f"spikes.{attribute}.npy" for attribute, path in paths.items() if path is None]
    if missing:
        raise FileNotFoundError(f"load_alf: {' and '.join(missing)} not found in {folder.path}")
    times, clusters = (read_npy("load_alf", path, memory_map) for path in paths.values() if path is not None)
    if times.dtype.kind in "iu":
        raise ValueError(
            f"load_alf: spikes.times must be seconds in floating point, got {times.dtype}; for samples there "
            "is SpikeRecording.from_arrays(samples, clusters, sfreq=...)"
        )
    units, said = _units(folder)
    notes = [f"loaded revision {folder.revision}"] if folder.revision else []
    return make_recording(
        "load_alf", times, clusters, session=session, unit_table=units, notes=(*notes, *said)
    )


def _units(folder: AlfFolder) -> tuple[pd.DataFrame | None, list[str]]:
    """Return the table of units from ``clusters.*``, or None if there is no such file, and notes."""
    table, notes = read_object("load_alf", folder, "clusters"), []
    metrics = read_table("load_alf", folder, "clusters", "metrics")
    if table is not None:
        id_name = next((name for name in IDS if name in table), None)
        table.insert(0, "id", np.arange(len(table)) if id_name is None else _ids(table.pop(id_name)))
        notes = _locate(table, folder)
    if metrics is None:
        return table, notes
    id_name = next((name for name in IDS if name in metrics), None)
    if id_name is None and table is not None and len(metrics) != len(table):
        raise ValueError(
            f"load_alf: clusters.metrics has {len(metrics)} rows without ids, clusters.* {len(table)}"
        )
    metrics.insert(0, "id", np.arange(len(metrics)) if id_name is None else _ids(metrics.pop(id_name)))
    if table is None:
        # Tables of metrics often leave out clusters that failed; they cannot say which ids exist.
        table = (
            metrics if id_name is None else pd.DataFrame({"id": _all_ids(folder, metrics["id"].to_numpy())})
        )
    new = ["id", *(name for name in metrics.columns if name not in table.columns)]
    return table.merge(metrics[new], on="id", how="left", validate="one_to_one"), notes


def _ids(values: pd.Series) -> np.ndarray:
    return as_ids("load_alf", "ids of clusters", values.to_numpy())


def _all_ids(folder: AlfFolder, listed: np.ndarray) -> np.ndarray:
    path = folder.find("load_alf", "spikes", "clusters")
    occurring = (
        np.unique(as_ids("load_alf", "spikes.clusters", read_npy("load_alf", path))) if path else listed
    )
    return np.union1d(occurring[occurring >= 0], listed)


def _locate(table: pd.DataFrame, folder: AlfFolder) -> list[str]:
    """Add region and depth to the table of units, from the units' own attributes or from their channels'."""
    channels = read_object("load_alf", folder, "channels")
    at = _channel_rows(table, channels)
    sources: list[tuple[pd.DataFrame, np.ndarray | None]] = [(table, None)]
    if channels is not None and at is not None:
        sources.append((channels, at))
    notes = []
    region, name = _first(sources, ACRONYMS)
    if region is None:
        region, name = _first(sources, ATLAS_IDS)
        if region is not None:
            notes.append(f"regions are the atlas ids of {name}; no acronyms were found")
            region = region.astype(np.int64).astype(str) if region.dtype.kind in "iuf" else region
    depth, _ = _first(sources, DEPTHS)
    if depth is None:
        depth, _ = _first(sources[1:], ("localCoordinates_1",))
    if region is not None:
        table["region"] = region
    if depth is not None:
        table["depth"] = depth
    return notes


def _channel_rows(table: pd.DataFrame, channels: pd.DataFrame | None) -> np.ndarray | None:
    if channels is None or "channels" not in table:
        return None
    rows = as_ids("load_alf", "clusters.channels", table["channels"].to_numpy())
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(channels)):
        raise ValueError(
            f"load_alf: clusters.channels must be rows of channels.* (0 to {len(channels) - 1}), "
            f"got {rows.min()} to {rows.max()}"
        )
    return rows


def _first(
    sources: list[tuple[pd.DataFrame, np.ndarray | None]], names: tuple[str, ...]
) -> tuple[np.ndarray | None, str]:
    for table, rows in sources:
        for name in names:
            if name in table:
                values = table[name].to_numpy()
                return (values if rows is None else values[rows]), name
    return None, ""


def _merge(parts: list[SpikeRecording], probes: list[str]) -> SpikeRecording:
    """Put the probes of a session together: ids shifted to stay distinct, spikes in order of time."""
    tables, rows, shift, first_row = [], [], 0, 0
    for part, probe in zip(parts, probes, strict=True):
        table = part.unit_table.assign(probe=probe, probe_unit_id=part.unit_table["id"])
        tables.append(table.assign(id=table["id"] + shift))
        rows.append(part.units + np.int32(first_row))
        shift += int(table["id"].max()) + 1 if len(table) else 0
        first_row += len(table)
    times = np.concatenate([part.times for part in parts])
    order = np.argsort(times, kind="stable")
    notes = tuple(
        f"{probe}: {note}" for part, probe in zip(parts, probes, strict=True) for note in part.notes
    )
    return SpikeRecording(
        times=times[order],
        units=np.concatenate(rows)[order],
        unit_table=pd.concat(tables, ignore_index=True),
        session=parts[0].session,
        start=min(part.start for part in parts),
        stop=max(part.stop for part in parts),
        notes=(f"merged probes {', '.join(probes)}", *notes),
    )


def _trials(root: Path, collection: Path) -> tuple[pd.DataFrame | None, list[str]]:
    for place in parents_within(collection, root):
        trials = read_object("load_alf", AlfFolder(place), "trials")
        if trials is not None:
            return trials, []
    places = find_collections(root, "trials", "")
    if len(places) == 1:
        return read_object("load_alf", AlfFolder(places[0]), "trials"), []
    if not places:
        return None, []
    names = [place.relative_to(root).as_posix() for place in places]
    warnings.warn(f"load_alf: trials lie in several folders, {names}, so none were loaded", stacklevel=3)
    return None, [f"no trials loaded: they lie in several folders, {names}"]


def _series(root: Path, collection: Path) -> tuple[dict[str, TimeSeries], list[str]]:
    """Return attributes that have a time for each sample, beside the spikes or above them."""
    found: dict[str, TimeSeries] = {}
    notes = []
    for place in parents_within(collection, root):
        folder = AlfFolder(place)
        for name in folder.objects():
            attributes = folder.attributes(name)
            clock = next((a for a in ("timestamps", "times") if a in attributes), None)
            if name in NO_SERIES or clock is None:
                continue
            for attribute in attributes:
                series = None if attribute == clock else _read_series(folder, name, clock, attribute)
                if series is not None:
                    found.setdefault(f"{name}.{attribute}", series)
                elif attribute != clock:
                    notes.append(f"left unused: {name}.{attribute}")
    return found, notes


def _read_series(folder: AlfFolder, name: str, clock: str, attribute: str) -> TimeSeries | None:
    paths = [folder.find("load_alf", name, part) for part in (clock, attribute)]
    if any(path is None or path.suffix != ".npy" for path in paths):
        return None
    times, values = (read_npy("load_alf", path) for path in paths if path is not None)
    if times.ndim == 2 and times.shape[1] == 2 and times.shape[0] == 2:
        # Of evenly sampled signals two pairs (sample, seconds) are kept, of the first and the last.
        times = np.interp(np.arange(len(values)), times[:, 0], times[:, 1])
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2) or times.size != len(values):
        return None
    return TimeSeries.from_arrays(times, values)
