"""Processes that prepare one set at a time, and workers that are killed: nothing is corrupted."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from torch.utils.data import DataLoader, get_worker_info  # noqa: E402

from neurokern.datasets import BIDSDataset  # noqa: E402
from neurokern.extractors import FMRIVoxelExtractor  # noqa: E402
from neurokern.ops._cache_files import cached_files, left_behind, what_is_wrong  # noqa: E402

SHAPE = (6, 5, 4)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    for subject in ("01", "02"):
        func = tmp_path / f"ds/sub-{subject}/func"
        func.mkdir(parents=True)
        values = np.random.default_rng(int(subject)).integers(0, 999, (*SHAPE, 30)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), func / f"sub-{subject}_task-a_bold.nii.gz")
    (tmp_path / "ds/task-a_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    return tmp_path / "ds"


def ready(root, extractor=None):
    extractor = extractor or FMRIVoxelExtractor(np.ones(SHAPE, bool), normalize=True, detrend=True)
    return BIDSDataset(root).with_extractor(extractor, length=10)


def prepare(root, wanted):
    windows = ready(root).prepare()
    assert torch.equal(windows.batch(range(6))["signal"], wanted)


def test_processes_that_prepare_one_set_at_a_time_get_the_same_and_leave_a_sound_cache(
    root, monkeypatch, tmp_path
):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "other"))
    wanted = ready(root).batch(range(6))["signal"]
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=prepare, args=(root, wanted)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    found = cached_files()
    assert [file.kind for file in found].count("packed_runs") == 2
    assert [what_is_wrong(file) for file in found] == [None] * len(found)
    assert left_behind() == []


class Killed(FMRIVoxelExtractor):
    """Ends its worker at the second window, as the system does that has no memory left."""

    n_read = 0

    def extract(self, *arguments, **options):
        self.n_read += 1
        if get_worker_info() is not None and self.n_read > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().extract(*arguments, **options)

    def stored(self, run):
        self.n_read += 1
        if get_worker_info() is not None and self.n_read > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().stored(run)


def test_a_worker_that_is_killed_is_an_error_and_the_next_epoch_reads_on(root):
    windows = ready(root, Killed(np.ones(SHAPE, bool), normalize=True))
    loader = DataLoader(windows, batch_size=2, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match="worker"):
        list(loader)
    assert all(what_is_wrong(file) is None for file in cached_files())
    again = ready(root, FMRIVoxelExtractor(np.ones(SHAPE, bool), normalize=True))
    assert sum(len(batch["subject"]) for batch in DataLoader(again, batch_size=2)) == 6
