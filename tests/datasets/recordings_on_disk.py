"""Small recordings of EEG, written byte by byte: BrainVision and EDF, and the tables beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

NAMES = ("Fc5.", "CZ", "Pz", "EOG1")
STEP = 0.5  # microvolts of a count


def counts_of(n_channels: int, n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2000, 2000, (n_samples, n_channels)).astype("<i2")


def write_brainvision(
    path: Path, *, names=NAMES, n_samples=1000, sfreq=100, seed=0, markers=()
) -> np.ndarray:
    """Write ``path`` (.vhdr) with .eeg and .vmrk; return the signals in volts, (samples, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = counts_of(len(names), n_samples, seed)
    counts.tofile(path.with_suffix(".eeg"))
    channels = "\n".join(f"Ch{i + 1}={name},,{STEP},µV" for i, name in enumerate(names))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nMarkerFile={path.stem}.vmrk\nDataFormat=BINARY\n"
        f"DataOrientation=MULTIPLEXED\nNumberOfChannels={len(names)}\nSamplingInterval={1e6 / sfreq:g}\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    lines = "\n".join(f"Mk{i + 1}={kind},{at},1,0" for i, (kind, at) in enumerate(markers))
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\n[Marker Infos]\n{lines}\n",
        encoding="utf-8",
    )
    return counts * STEP * 1e-6


def write_edf(path: Path, *, names=NAMES, n_records=10, rate=100, seed=0, onsets=None) -> np.ndarray:
    """Write an EDF of one-second records; return the signals in volts, (samples, channels).

    With ``onsets``, the seconds at which records begin, it is an EDF+D, which may have gaps.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = counts_of(len(names), n_records * rate, seed)
    n = len(names) + (onsets is not None)
    rates = [rate] * len(names) + [15] * (onsets is not None)

    def field(values, width):
        return "".join(str(value).ljust(width)[:width] for value in values)

    labels = [*names, "EDF Annotations"][:n]
    header = "0".ljust(8) + "X X X X".ljust(80) + "Startdate X X X X".ljust(80) + "01.01.2000.00.00"
    header += field([256 * (n + 1)], 8) + ("EDF+D" if onsets else "").ljust(44)
    header += field([n_records], 8) + field([1], 8) + field([n], 4)
    header += field(labels, 16) + " " * 80 * n + field((["uV"] * len(names) + [""])[:n], 8)
    header += (
        field([-16384] * n, 8) + field([16383.5] * n, 8) + field([-32768] * n, 8) + field([32767] * n, 8)
    )
    header += " " * 80 * n + field(rates, 8) + " " * 32 * n
    records = counts.reshape(n_records, rate, len(names)).transpose(0, 2, 1)
    content = header.encode("latin-1")
    for k, record in enumerate(records):
        content += record.tobytes()
        content += b"" if onsets is None else f"+{onsets[k]}\x14\x14\0".encode().ljust(30, b"\0")
    path.write_bytes(content)
    return counts * STEP * 1e-6


def write_tables(stem: Path, *, names=NAMES, bad=(), events=None, positions=True) -> None:
    """Write channels, electrodes, coordinate system, events and sidecar beside a recording."""
    kinds = ["EOG" if "EOG" in name else "EEG" for name in names]
    rows = [f"{n}\t{k}\tuV\t{'bad' if n in bad else 'good'}" for n, k in zip(names, kinds, strict=True)]
    Path(f"{stem}_channels.tsv").write_text("\n".join(["name\ttype\tunits\tstatus", *rows]) + "\n")
    Path(f"{stem}_eeg.json").write_text(json.dumps({"SamplingFrequency": 100}))
    if events is not None:
        rows = ["\t".join(map(str, row)) for row in events]
        Path(f"{stem}_events.tsv").write_text("\n".join(["onset\tduration\ttrial_type", *rows]) + "\n")
    if positions:
        subject = stem.with_name(stem.name.partition("_")[0])
        rows = [f"{name}\t{i * 10}\t20\t{'n/a' if 'EOG' in name else 30}" for i, name in enumerate(names)]
        Path(f"{subject}_electrodes.tsv").write_text("\n".join(["name\tx\ty\tz", *rows]) + "\n")
        system = {"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "mm"}
        Path(f"{subject}_coordsystem.json").write_text(json.dumps(system))
