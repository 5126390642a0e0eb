"""Windows of EEG against MNE, braindecode and mapped files, and the index of a large folder: one thread.

    python benchmarks/pipeline/bench_meeg_windows.py --quick        # does it run?
    python benchmarks/pipeline/bench_meeg_windows.py --save         # a table; rows to benchmarks/results

Four made BrainVision recordings (int16, 64 channels, 500 Hz, 300 s) in the page cache, windows of a second
every 1.2 seconds, in batches of 16. Times are CPU seconds of a pass through all windows. The index is of 100
subjects with 7,600 files, made for it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mne
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from neurokern.datasets import BIDSDataset, BIDSIndex, MEEGWindows, WindowStream, collate_windows
from neurokern.extractors import MEEGExtractor

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

OURS = "neurokern"
STEP = 0.1e-6  # volts of a count
BATCH = 16


class Folder:
    """Recordings on disk, and where their windows lie."""

    def __init__(self, root: Path, *, n_channels: int, sfreq: int, seconds: int, n_runs: int) -> None:
        self.root, self.sfreq, self.n_channels = root, sfreq, n_channels
        self.length, self.stride = sfreq, int(1.2 * sfreq)
        self.paths = []
        for run in range(n_runs):
            self.paths.append(write_brainvision(root, run, n_channels, sfreq, seconds))
        self.n_samples = sfreq * seconds
        starts = range(0, self.n_samples - self.length + 1, self.stride)
        self.places = [(run, start) for run in range(n_runs) for start in starts]

    def windows(self, **options: Any) -> MEEGWindows:
        data = BIDSDataset(self.root, "eeg")
        return data.with_extractor(MEEGExtractor(**options), duration=1.0, stride=1.2)

    @property
    def right(self) -> np.ndarray:
        """The last window, (time, channels)."""
        run, start = self.places[-1]
        counts = np.memmap(self.paths[run].with_suffix(".eeg"), "<i2", "r").reshape(-1, self.n_channels)
        return (counts[start : start + self.length] * STEP).astype(np.float32)


def write_brainvision(root: Path, run: int, n_channels: int, sfreq: int, seconds: int) -> Path:
    folder = root / f"sub-{run + 1:02d}/eeg"
    folder.mkdir(parents=True)
    path = folder / f"sub-{run + 1:02d}_task-rest_eeg.vhdr"
    counts = np.random.default_rng(run).integers(-3000, 3000, (sfreq * seconds, n_channels)).astype("<i2")
    counts.tofile(path.with_suffix(".eeg"))
    channels = "\n".join(f"Ch{i + 1}=E{i + 1},,{STEP * 1e6:g},µV" for i in range(n_channels))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={n_channels}\nSamplingInterval={1e6 / sfreq:g}\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    return path


class Mapped(Dataset[torch.Tensor]):
    """Windows of the .eeg files, mapped: the yardstick."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        shape = (folder.n_samples, folder.n_channels)
        self.files = [np.memmap(p.with_suffix(".eeg"), "<i2", "r", shape=shape) for p in folder.paths]

    def __len__(self) -> int:
        return len(self.folder.places)

    def __getitem__(self, i: int) -> torch.Tensor:
        run, start = self.folder.places[i]
        counts = self.files[run][start : start + self.folder.length]
        return torch.from_numpy(np.multiply(counts.T, np.float32(STEP), dtype=np.float32))


class OfRaw(Dataset[torch.Tensor]):
    """Windows as MNE reads them from files that stay open."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.raws = [mne.io.read_raw(path, verbose="ERROR") for path in folder.paths]

    def __len__(self) -> int:
        return len(self.folder.places)

    def __getitem__(self, i: int) -> torch.Tensor:
        run, start = self.folder.places[i]
        values = self.raws[run].get_data(start=start, stop=start + self.folder.length, verbose="ERROR")
        return torch.from_numpy(values.astype(np.float32))


def braindecode_windows(folder: Folder) -> Any:
    from braindecode.datasets import BaseConcatDataset, RawDataset
    from braindecode.preprocessing import create_fixed_length_windows

    raws = [mne.io.read_raw(path, verbose="ERROR") for path in folder.paths]
    return create_fixed_length_windows(
        BaseConcatDataset([RawDataset(raw, description={}) for raw in raws]),
        window_size_samples=folder.length,
        window_stride_samples=folder.stride,
        drop_last_window=True,
        preload=False,
    )


def last_of(loader: Any, signal: Callable[[Any], torch.Tensor]) -> Callable[[], np.ndarray]:
    """Return a call that goes through all batches, and gives the last window as (time, channels)."""

    def call() -> np.ndarray:
        for batch in loader:
            found = signal(batch)
        return found[-1].numpy()

    return call


def epoch(folder: Folder) -> harness.Candidates:
    windows = folder.windows().prepare()
    by_name = lambda batch: batch["signal"]  # noqa: E731
    transposed = lambda batch: batch.transpose(1, 2)  # noqa: E731
    loader = DataLoader(windows, batch_size=BATCH, collate_fn=collate_windows)
    stream = DataLoader(WindowStream(windows, BATCH, shuffle=False), batch_size=None)
    calls: harness.Candidates = {
        OURS: last_of(loader, by_name),
        "neurokern, stream": last_of(stream, by_name),
        "neurokern, PyTorch's collate": last_of(DataLoader(windows, batch_size=BATCH), by_name),
        "np.memmap of the .eeg + transpose": last_of(
            DataLoader(Mapped(folder), batch_size=BATCH), transposed
        ),
        "mne Raw.get_data": last_of(DataLoader(OfRaw(folder), batch_size=BATCH), transposed),
    }
    if importlib.util.find_spec("braindecode"):
        lazy = DataLoader(braindecode_windows(folder), batch_size=BATCH)
        calls["braindecode windows, lazy"] = last_of(lazy, lambda batch: batch[0].transpose(1, 2))
    return calls


def first_batch(folder: Folder, cache: Path) -> harness.Candidates:
    """Return the way from the folder's name to the first batch, with and without what is kept."""

    def ours(cold: bool) -> np.ndarray:
        if cold:
            for path in cache.rglob("*.safetensors"):
                path.unlink()
        return folder.windows().batch(range(BATCH))["signal"][-1].numpy()

    def mnes() -> np.ndarray:
        raws = OfRaw(folder)
        return torch.stack([raws[i] for i in range(BATCH)])[-1].numpy().T

    return {OURS: lambda: ours(False), "neurokern, first time": lambda: ours(True), "mne Raw.get_data": mnes}


def make_dataset(root: Path, n_subjects: int) -> int:
    """Write names of a folder with sidecars at three levels; 76 files a subject."""
    n_files = 0
    root.mkdir()
    (root / "dataset_description.json").write_text("{}")
    for task in "abcd":
        (root / f"task-{task}_bold.json").write_text(json.dumps({"RepetitionTime": 2.0, "Task": task}))
    for subject in range(n_subjects):
        for session in (1, 2):
            stem = f"sub-{subject:03d}_ses-{session}"
            func = root / f"sub-{subject:03d}/ses-{session}/func"
            anat = func.parent / "anat"
            func.mkdir(parents=True)
            anat.mkdir()
            for task in "abcd":
                for run in (1, 2):
                    name = f"{stem}_task-{task}_run-{run}"
                    (func / f"{name}_bold.nii.gz").touch()
                    (func / f"{name}_sbref.nii.gz").touch()
                    (func / f"{name}_events.tsv").write_text("onset\tduration\n1\t1\n")
                    (func / f"{name}_bold.json").write_text('{"EchoTime": 0.03}')
            for suffix in ("T1w", "T2w", "FLAIR"):
                (anat / f"{stem}_{suffix}.nii.gz").touch()
                (anat / f"{stem}_{suffix}.json").write_text("{}")
            n_files += 8 * 4 + 6
    return n_files


def index(root: Path) -> harness.Candidates:
    def ours() -> int:
        made = BIDSIndex(root, cache=False)
        runs = made.files[made.files["suffix"].eq("bold")]
        return sum("EchoTime" in made.metadata(path) for path in runs["path"])

    def again() -> int:
        made = BIDSIndex(root, cache=True)
        return len(made.select("func", "bold", (".nii", ".nii.gz")))

    calls: harness.Candidates = {
        OURS: ours,
        "neurokern, without metadata": lambda: int(
            BIDSIndex(root, cache=False).files["suffix"].eq("bold").sum()
        ),
        "neurokern, again, without metadata": again,
    }
    if importlib.util.find_spec("bids"):
        import bids

        calls["pybids"] = lambda: len(
            bids.BIDSLayout(root, validate=False).get(suffix="bold", extension=".nii.gz")
        )
    return calls


def differing(right: np.ndarray, result: Any) -> int | None:
    values = np.asarray(result)
    if values.shape != right.shape:
        return None
    return int((~np.isclose(values, right, rtol=1e-6, atol=1e-12)).sum())


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=5).parse_args()
    torch.set_num_threads(1)
    rows: list[harness.Row] = []
    size = {"n_channels": 64, "sfreq": 500, "seconds": 300, "n_runs": 4}
    if arguments.quick:
        size = {"n_channels": 8, "sfreq": 100, "seconds": 30, "n_runs": 2}
    repeats = 2 if arguments.quick else arguments.repeats
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        os.environ["NEUROKERN_CACHE"] = str(cache)
        folder = Folder(Path(name) / "eeg", **size)
        n = len(folder.places)
        n_values = folder.length * folder.n_channels
        first = folder.windows().batch([BATCH - 1])["signal"][0].numpy()
        cases: dict[str, tuple[Callable[[], harness.Candidates], Any, int]] = {
            "epoch of batches": (
                functools.partial(epoch, folder),
                functools.partial(differing, folder.right),
                n,
            ),
            "first batch": (
                functools.partial(first_batch, folder, cache),
                functools.partial(differing, first),
                BATCH,
            ),
        }
        for workload, (make, check, items) in cases.items():
            if arguments.workload in workload:
                traffic = (items * n_values * 2, items * n_values * 4)
                rows += harness.compare(
                    workload, OURS, make(), check, items=items, traffic=traffic,
                    repeats=repeats, budget=arguments.budget,
                )  # fmt: skip
        if arguments.workload in "index of a folder":
            root = Path(name) / "many"
            n_files = make_dataset(root, 4 if arguments.quick else 100)
            time.sleep(2.5)  # folders written to within two seconds are listed again
            n_runs = (4 if arguments.quick else 100) * 16
            rows += harness.compare(
                "index of a folder", OURS, index(root), lambda found: abs(found - n_runs), items=n_files,
                traffic=(n_files * 100, n_files * 100), repeats=repeats, budget=arguments.budget,
            )  # fmt: skip
    packages = ("numpy", "torch", "mne", "braindecode", "pybids")
    harness.report("meeg_windows", rows, harness.machine_facts(packages), arguments.save)


if __name__ == "__main__":
    main()
