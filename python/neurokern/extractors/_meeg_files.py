"""Recordings as MNE reads them, with the tables of BIDS applied; sizes are checked before MNE looks."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern.datasets.channels import DATA_TYPES, Channels, channel_name
from neurokern.ops._gzip_cache import sampled_content

if TYPE_CHECKING:
    from neurokern.datasets.bids_run import MEEGRun

QUIET = "ERROR"  # what MNE logs is said by us where it matters
_BIDS_TYPES = {
    "EEG": "eeg", "EOG": "eog", "VEOG": "eog", "HEOG": "eog", "ECG": "ecg", "EMG": "emg", "SEEG": "seeg",
    "ECOG": "ecog", "DBS": "dbs", "RESP": "resp", "TRIG": "stim", "STIM": "stim", "GSR": "gsr",
    "TEMP": "temperature", "PUPIL": "pupil", "EYEGAZE": "eyegaze", "MISC": "misc", "AUDIO": "misc",
    "REF": "misc", "PD": "misc", "ADC": "misc", "DAC": "misc", "OTHER": "misc", "SYSCLOCK": "syst",
}  # fmt: skip
_METERS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
_HEADER = 1 << 16  # bytes of a text header that are looked at
_DEVICE, _HEAD = 1, 4  # FIFF codes of coordinate frames


def import_mne() -> Any:
    """Return MNE, or raise with the extra that brings it."""
    try:
        import mne
    except ImportError as error:
        raise ImportError(
            f"EEG and MEG are read through MNE-Python, which is not here ({error}); "
            "install it with `pip install 'neurokern[eeg]'`"
        ) from None
    return mne


def open_raw(run: MEEGRun) -> Any:
    """Return the recording as MNE opens it, signals left in the file, tables applied.

    Raises
    ------
    FileNotFoundError
        If the file is not there, or a link to nowhere.
    ValueError
        If it is cut short, or MNE cannot read it.
    """
    mne = import_mne()
    if run.data is not None:
        raw = run.data.copy()
    else:
        _check_there(run.path)
        check_size(run.path)
        try:
            raw = mne.io.read_raw(run.path, preload=False, verbose=QUIET)
        except MemoryError:
            raise
        except Exception as error:  # its readers raise a dozen kinds, struct.error and UnboundLocalError too
            raise ValueError(
                f"{run.path}: cannot be read as a recording: {type(error).__name__}: {error}"
            ) from error
    if run.channels is not None:
        _apply_channels(run, raw, run.channels)
    return raw


def _check_there(path: Path) -> None:
    if not path.exists():
        if path.is_symlink():
            raise FileNotFoundError(
                f"{path} is a link to nowhere; fetch it first, with `datalad get` for instance"
            )
        raise FileNotFoundError(f"no such recording: {path}")


def check_size(path: Path) -> None:
    """Raise if an EDF, BDF or BrainVision file holds less than its header tells."""
    ending = path.suffix.lower()
    if ending in (".edf", ".bdf"):
        _check_edf(path, 3 if ending == ".bdf" else 2)
    elif ending == ".vhdr":
        _check_brainvision(path)


def _check_brainvision(path: Path) -> None:
    """Raise if the file of samples ends within a sample; how many there should be no header tells."""
    fields = _brainvision_fields(path)
    size = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}.get(fields.get("BinaryFormat", ""))
    n_channels = fields.get("NumberOfChannels", "")
    if size is None or not n_channels.isdecimal() or int(n_channels) < 1:
        return  # samples as text, or a header that MNE refuses
    data = path.parent / fields.get("DataFile", "")
    if data.is_symlink():
        _check_there(data)
    if data.is_file() and data.stat().st_size % (int(n_channels) * size):
        raise ValueError(
            f"{path}: {data.name} is cut short: its {data.stat().st_size} bytes end within a sample of "
            f"{n_channels} channels of {size} bytes"
        )


def _check_edf(path: Path, sample_bytes: int) -> None:
    """Compare the size with the records of the header; -1 of them: it was never closed, and is believed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        fixed = file.read(256)
        try:
            n_header, n_records, n_signals = int(fixed[184:192]), int(fixed[236:244]), int(fixed[252:256])
            seconds = float(fixed[244:252])
        except ValueError:
            raise ValueError(
                f"{path}: header must be that of EDF or BDF; its numbers cannot be read"
            ) from None
        if n_signals < 1 or n_header != 256 * (n_signals + 1):
            raise ValueError(
                f"{path}: header must have 256 bytes and 256 for each signal, got {n_header} bytes"
            )
        if n_header > size:
            raise ValueError(f"{path}: is cut short in its header: {size} of {n_header} bytes")
        file.seek(256 + n_signals * 216)
        try:
            per_record = [int(file.read(8)) for _ in range(n_signals)]
        except ValueError:
            raise ValueError(f"{path}: samples per record cannot be read in its header") from None
        labels = [label.strip() for label in _labels(file, n_signals)]
    record = sum(per_record) * sample_bytes
    if min(per_record) < 0 or record <= 0:
        raise ValueError(f"{path}: samples per record must be positive, got {min(per_record)}")
    if n_records >= 0 and size < n_header + n_records * record:
        whole = (size - n_header) // record
        raise ValueError(f"{path}: is cut short: {whole} of {n_records} records of {record} bytes are there")
    n_there = (size - n_header) // record
    if 0 <= n_records < n_there:
        warnings.warn(
            f"{path.name}: its header tells {n_records} records, {n_there} are there and are read; was it "
            "closed as it should?",
            stacklevel=5,
        )
    if fixed[192:197] in (b"EDF+D", b"BDF+D"):
        notes = next((i for i, label in enumerate(labels) if label.endswith("Annotations")), None)
        if notes is not None:
            begin = n_header + sum(per_record[:notes]) * sample_bytes
            n_bytes, n_whole = per_record[notes] * sample_bytes, (size - n_header) // record
            places = (begin + k * record for k in range(n_whole))
            _check_joined(path, seconds, places, n_bytes)


def _labels(file: BinaryIO, n_signals: int) -> list[str]:
    file.seek(256)
    text = file.read(16 * n_signals).decode("latin-1")
    return [text[k : k + 16] for k in range(0, len(text), 16)]


def _check_joined(path: Path, seconds: float, places: Iterator[int], n_bytes: int) -> None:
    """Raise if a file that may have gaps has one: MNE would close it, and move all that follows."""
    first = None
    with path.open("rb") as file:
        for k, place in enumerate(places):
            file.seek(place)
            try:
                onset = float(file.read(n_bytes).split(b"\x14")[0])
            except ValueError:
                raise ValueError(
                    f"{path}: record {k + 1} must begin with its time, as EDF+ demands"
                ) from None
            first = onset if first is None else first
            if not abs(onset - first - k * seconds) <= 1e-3:  # NaN, too
                raise ValueError(
                    f"{path}: has a gap: record {k + 1} begins at {onset - first:g} s instead of "
                    f"{k * seconds:g} s; write each part to a file of its own (EDF+C)"
                )


def check_rate(run: MEEGRun, sfreq: float, n_samples: int) -> None:
    """Warn if the sidecar tells another rate than the file, or a longer recording."""
    told = run.metadata.get("SamplingFrequency")
    if isinstance(told, (int, float)) and not math.isclose(told, sfreq, rel_tol=1e-3):
        warnings.warn(
            f"{run.path.name}: SamplingFrequency of its sidecar is {told} Hz, of the file {sfreq:g} Hz; the "
            "file is believed",
            stacklevel=4,
        )
    seconds, there = run.metadata.get("RecordingDuration"), n_samples / sfreq
    if isinstance(seconds, (int, float)) and there < 0.99 * seconds - 1:
        warnings.warn(
            f"{run.path.name}: RecordingDuration of its sidecar is {seconds:g} s, the file has {there:g} s; "
            "is it cut short?",
            stacklevel=4,
        )


def _apply_channels(run: MEEGRun, raw: Any, table: pd.DataFrame) -> None:
    """Take types and bad channels from the table, matched by name."""
    told = table[[column for column in ("name", "type", "status") if column in table]].drop_duplicates()
    twice = sorted(set(told["name"][told["name"].duplicated()]))
    if twice:
        raise ValueError(
            f"{run.path}: its _channels.tsv lists {', '.join(twice)} several times, with other types or "
            "status"
        )
    rows = _rows_by_name(list(raw.ch_names), [str(name) for name in table["name"]])
    if not rows:
        raise ValueError(
            f"{run.path}: no name of its _channels.tsv ({', '.join(table['name'][:4])}, ...) is one of the "
            f"file's ({', '.join(raw.ch_names[:4])}, ...)"
        )
    missing = len(raw.ch_names) - len(rows)
    if missing or len(rows) < len(table):
        warnings.warn(
            f"{run.path.name}: {missing} channels of the file are not in its _channels.tsv, and "
            f"{len(table) - len(rows)} of the table not in the file; those keep the file's type",
            stacklevel=4,
        )
    kinds = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    types = {}
    for name, row in rows.items():
        wanted = _BIDS_TYPES.get(str(table["type"][row]).upper()) if "type" in table else None
        if wanted is not None and wanted != kinds[name]:
            types[name] = wanted
    if types:
        raw.set_channel_types(types, on_unit_change="ignore", verbose=QUIET)
    if "status" in table:
        bad = [name for name, row in rows.items() if table["status"][row].lower() == "bad"]
        raw.info["bads"] = [name for name in raw.ch_names if name in {*raw.info["bads"], *bad}]


def _rows_by_name(names: list[str], listed: list[str]) -> dict[str, int]:
    """Return the table's row of each channel, by its name, or else by its name in the 10-05 system."""
    exact = {name: row for row, name in reversed(list(enumerate(listed)))}
    alike = {channel_name(name): row for row, name in reversed(list(enumerate(listed)))}
    found = {name: exact.get(name, alike.get(channel_name(name))) for name in names}
    return {name: row for name, row in found.items() if row is not None}


def describe_channels(run: MEEGRun, raw: Any, *, rename: bool, regions: str | None) -> Channels:
    """Return what file and tables say of all channels; positions of a table go before the file's."""
    info = raw.info
    types = tuple(raw.get_channel_types())
    names = tuple(raw.ch_names)
    positions, orientations, frame = _from_info(info)
    if run.electrodes is not None and not {"mag", "grad"} & set(types):
        positions, frame = _from_table(run, names, types)
    given = names
    if rename:
        changed = [channel_name(n) if kind == "eeg" else n for n, kind in zip(names, types, strict=True)]
        given = tuple(
            new if changed.count(new) == 1 else old for old, new in zip(names, changed, strict=True)
        )
    return Channels(
        names=given,
        types=types,
        positions=positions.astype(np.float32),
        orientations=orientations.astype(np.float32),
        frame=frame if np.isfinite(positions).any() else "",
        bad=np.array([name in info["bads"] for name in names], dtype=bool),
        regions=_regions(run, names, regions),
    )


def _from_info(info: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    n = len(info["chs"])
    positions, orientations = np.full((n, 3), np.nan), np.full((n, 3), np.nan)
    turn = info["dev_head_t"]
    frames = {int(ch["coord_frame"]) for ch in info["chs"]}
    for row, channel in enumerate(info["chs"]):
        place, normal = np.array(channel["loc"][:3], float), np.array(channel["loc"][9:12], float)
        if not place.any() or not np.isfinite(place).all():
            continue  # MNE's word for unknown
        in_device = int(channel["coord_frame"]) == _DEVICE
        if in_device and turn is not None:
            place = turn["trans"][:3, :3] @ place + turn["trans"][:3, 3]
            normal = turn["trans"][:3, :3] @ normal
        positions[row] = place
        if in_device and np.isclose(np.linalg.norm(normal), 1, atol=1e-2):
            orientations[row] = normal
    known = _HEAD in frames or (_DEVICE in frames and turn is not None)
    return positions, orientations, "head" if known else "device" if _DEVICE in frames else "unknown"


def _from_table(
    run: MEEGRun, names: tuple[str, ...], types: tuple[str, ...]
) -> tuple[NDArray[np.float64], str]:
    """Return the positions of electrodes in meters, NaN without one, and their coordinate system."""
    assert run.electrodes is not None
    table, positions = run.electrodes, np.full((len(names), 3), np.nan)
    rows = _rows_by_name(list(names), [str(name) for name in table["name"]])
    missing = [axis for axis in "xyz" if axis not in table]
    if missing:
        raise ValueError(
            f"{run.path}: its _electrodes.tsv must have columns x, y and z; {missing} are missing"
        )
    values = table[["x", "y", "z"]].replace("", "nan").apply(pd.to_numeric, errors="coerce").to_numpy(float)
    system, unit = _coordinates(run)
    for at, name in enumerate(names):
        if name in rows:
            positions[at] = values[rows[name]] * unit
    positions[~np.isfinite(positions)] = np.nan
    return positions, system


def _coordinates(run: MEEGRun) -> tuple[str, float]:
    """Return the name of the coordinate system, and the meters of its unit."""
    fields = run.coordinates
    kinds = ("EEG", "iEEG", "MEG")
    system = next(
        (fields[f"{k}CoordinateSystem"] for k in kinds if f"{k}CoordinateSystem" in fields), "unknown"
    )
    unit = next((fields[f"{k}CoordinateUnits"] for k in kinds if f"{k}CoordinateUnits" in fields), None)
    if unit in _METERS:
        return str(system), _METERS[unit]
    warnings.warn(
        f"{run.path.name}: the unit of its electrodes' positions must be m, cm or mm in a _coordsystem.json, "
        f"got {unit!r}; positions are left unknown",
        stacklevel=4,
    )
    return str(system), math.nan


def _regions(run: MEEGRun, names: tuple[str, ...], column: str | None) -> tuple[str, ...]:
    if column is None:
        return ("",) * len(names)
    for table in (run.channels, run.electrodes):
        if table is not None and column in table:
            rows = _rows_by_name(list(names), [str(name) for name in table["name"]])
            return tuple(str(table[column][rows[name]]) if name in rows else "" for name in names)
    raise ValueError(
        f"{run.path}: regions must be a column of its _channels.tsv or _electrodes.tsv, got {column!r}"
    )


def annotated_events(raw: Any) -> pd.DataFrame:
    """Return the file's annotations as ``onset`` from the first sample, ``duration`` and ``trial_type``."""
    notes = raw.annotations
    onset = np.asarray(notes.onset, dtype=np.float64) - raw.first_time  # a recording's own count from there
    columns = {"onset": onset, "duration": notes.duration, "trial_type": [str(d) for d in notes.description]}
    return pd.DataFrame(columns)


def triggered_events(run: MEEGRun, raw: Any, channel: str) -> pd.DataFrame:
    """Return the onsets of a trigger channel as events, named by their values."""
    stims = [n for n, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True) if kind == "stim"]
    if channel != "auto" and channel not in raw.ch_names:
        raise ValueError(
            f"{run.path}: stim_channel must be a channel of the file, got {channel!r}; its trigger channels "
            f"are {', '.join(stims) or 'none'}"
        )
    try:
        found = import_mne().find_events(
            raw, None if channel == "auto" else channel, shortest_event=1, initial_event=True, verbose=QUIET
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{run.path}: its trigger channel {channel!r} cannot be read: {error}") from error
    onset = (found[:, 0] - raw.first_samp) / raw.info["sfreq"]
    kinds = [str(value) for value in found[:, 2].tolist()]
    return pd.DataFrame({"onset": onset, "duration": 0.0, "trial_type": kinds})


def files_of(run: MEEGRun, raw: Any) -> tuple[Path, ...]:
    """Return the files that hold the recording: header, markers, signals, and all of one that is a folder."""
    found = {run.path, *(Path(name) for name in raw.filenames if name is not None)}
    if run.path.suffix.lower() == ".vhdr":
        marker = run.path.parent / _brainvision_fields(run.path).get("MarkerFile", "")
        found |= {marker} if marker.is_file() else set()
    for folder in [path for path in found if path.is_dir()]:
        found |= {path for path in folder.rglob("*") if path.is_file()}
    return tuple(sorted(found))


def _brainvision_fields(path: Path) -> dict[str, str]:
    """Return what a header says of its files and samples."""
    with path.open("rb") as file:
        text = file.read(_HEADER).decode("utf-8", errors="replace")
    names = "DataFile|MarkerFile|NumberOfChannels|BinaryFormat"
    found = re.findall(rf"^({names})\s*=\s*(.+?)\s*$", text, re.M)
    return {name: value.replace("$b", path.stem) for name, value in found}


def signature(files: tuple[Path, ...]) -> tuple[tuple[int, int, int], ...]:
    """Return what changes when a file is written again."""
    states = [file.stat() for file in files]
    return tuple((state.st_ino, state.st_size, state.st_mtime_ns) for state in states)


def content_of(files: tuple[Path, ...]) -> str:
    """Return what tells these files' content from others': size, time of writing and places all over each."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        state = file.stat()
        digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(sampled_content(stream.fileno(), state.st_size).encode())
    return digest.hexdigest()


def pick_rows(run: MEEGRun, channels: Channels, original: list[str], picks: Any) -> list[int]:
    """Return the rows of the channels to take, in the file's order for types, as given for names."""
    if isinstance(picks, str) and picks in ("data", "all"):
        rows = [i for i, kind in enumerate(channels.types) if picks == "all" or kind in DATA_TYPES]
    else:
        wanted = [picks] if isinstance(picks, str) else [str(name) for name in picks]
        by_name = {name: i for names in (original, channels.names) for i, name in enumerate(names)}
        if all(name in channels.types or name in _ALL_TYPES for name in wanted):
            rows = [i for i, kind in enumerate(channels.types) if kind in _with_meg(wanted)]
        else:
            places = [by_name.get(name, by_name.get(channel_name(name))) for name in wanted]
            gone = [name for name, row in zip(wanted, places, strict=True) if row is None]
            if gone:
                raise ValueError(
                    f"{run.path}: picks must be names or types of its channels, there is no "
                    f"{', '.join(gone[:5])}; there are {', '.join(channels.names[:8])}, ..."
                )
            rows = [row for row in places if row is not None]
    if not rows:
        counts = {kind: channels.types.count(kind) for kind in dict.fromkeys(channels.types)}
        raise ValueError(f"{run.path}: picks={picks!r} leaves no channel; there are {counts}")
    return rows


_ALL_TYPES = frozenset(_BIDS_TYPES.values()) | frozenset(DATA_TYPES) | {"meg", "ref_meg"}


def _with_meg(wanted: list[str]) -> set[str]:
    return {*wanted, "mag", "grad"} if "meg" in wanted else set(wanted)
