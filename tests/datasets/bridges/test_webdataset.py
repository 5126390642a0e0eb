"""Windows of every kind to tar shards and back, to the last bit, with the real webdataset."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("mne")
pytest.importorskip("nibabel")
pytest.importorskip("webdataset")

import windows_of_all_kinds as made  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import collate_spikes, collate_windows  # noqa: E402
from neurokern.datasets.bridges import WebDatasetWindows, to_webdataset  # noqa: E402
from neurokern.datasets.bridges._samples import decode, encode  # noqa: E402
from neurokern.datasets.meeg_batch import ChannelNames  # noqa: E402

KINDS = {
    "spikes": lambda folder: made.spikes(),
    "eeg": lambda folder: made.eeg(),
    "fmri": made.fmri,
    "bfloat16": lambda folder: made.fmri(folder, torch.bfloat16),
    "paired": made.paired,
}


@pytest.mark.parametrize("kind", KINDS)
def test_windows_come_back_as_they_were(kind, tmp_path):
    windows = KINDS[kind](tmp_path)
    shards = to_webdataset(windows, tmp_path / "out", shard_size=3, progress=False)
    assert len(shards) == -(-len(windows) // 3)
    stream = WebDatasetWindows(tmp_path / "out")
    back = list(stream)
    assert len(back) == len(windows) == stream.n_windows
    for i, item in enumerate(back):
        made.assert_same(windows[i], item)
    assert stream.conditions == tuple(getattr(windows, "conditions", ()))
    assert stream.region_names == tuple(getattr(windows, "region_names", ()))


@settings(max_examples=30)
@given(
    names=st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=5),
    values=st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=5), st.booleans()), max_size=4),
    shape=st.lists(st.integers(0, 3), max_size=3),
)
def test_any_names_and_numbers_come_back(names, values, shape):
    item = {name: torch.rand(shape, dtype=torch.float64) for name in names}
    item |= {f"value {i}": value for i, value in enumerate(values)}
    item["channel_names"] = ChannelNames(tuple(names))
    arrays, facts = encode(item)
    assert len({name.lower() for name in arrays}) == len(names)
    made.assert_same(item, decode(arrays, facts))


def test_batches_are_those_of_the_dataset_with_any_number_of_workers(tmp_path):
    windows = made.spikes()
    to_webdataset(windows, tmp_path / "out", shard_size=10, seed=3, progress=False)
    stream = WebDatasetWindows(tmp_path / "out")
    assert stream.unit_ids == {"session 0": [0, 2, 4], "session 1": [0, 2, 4, 6]}
    seen = []
    for workers in (0, 2):
        loader = DataLoader(stream, batch_size=4, num_workers=workers, collate_fn=collate_spikes)
        batches = list(loader)
        seen.append(
            sorted((name, int(w)) for b in batches for name, w in zip(b.session, b.window, strict=True))
        )
        assert batches[0].counts.shape == (4, 10, 4)
    assert seen[0] == seen[1] == sorted((s.session, w) for s in windows.sessions for w in range(s.n_windows))
    first = [(item.session, item.window) for item in stream]
    assert first != seen[0]  # drawn by the seed
    shuffled = [(i.session, i.window) for i in WebDatasetWindows(tmp_path / "out", shuffle=20, seed=1)]
    assert sorted(shuffled) == seen[0]
    assert shuffled != first


def test_an_export_is_the_same_bytes_and_goes_on_where_it_stopped(tmp_path):
    windows = made.eeg()
    first = to_webdataset(windows, tmp_path / "a", shard_size=2, progress=False)
    again = to_webdataset(windows, tmp_path / "b", shard_size=2, progress=False)
    content = [shard.read_bytes() for shard in first]
    assert content == [shard.read_bytes() for shard in again]
    again[1].unlink()
    (tmp_path / "b" / ".shard-000001.tar.1.tmp").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"1 of 3 shards are not there, shard-000001\.tar first"):
        WebDatasetWindows(tmp_path / "b")
    before = again[0].stat().st_mtime_ns
    to_webdataset(windows, tmp_path / "b", shard_size=2, progress=False)
    assert content == [shard.read_bytes() for shard in again]
    assert again[0].stat().st_mtime_ns == before


def test_an_export_that_is_killed_leaves_whole_shards_only(tmp_path):
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; import windows_of_all_kinds as made\n"
        "from neurokern.datasets.bridges import to_webdataset\n"
        "class Slow:\n"
        "    windows = made.spikes()\n"
        "    def __len__(self): return len(self.windows)\n"
        "    def __getitem__(self, i):\n"
        "        if i == 30: import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return self.windows[i]\n"
        "to_webdataset(Slow(), sys.argv[1], shard_size=8, progress=False)\n"
    )
    folders = [str(Path(__file__).parent)]
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path / "out"), *folders], check=False)
    assert run.returncode == -signal.SIGKILL
    shards = sorted((tmp_path / "out").glob("shard-*.tar"))
    assert len(shards) == 3
    for shard in shards:
        with tarfile.open(shard) as tar:
            assert len(tar.getnames()) == 8 * 7


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"must be empty, it holds \['notes.txt'\]"):
        to_webdataset(made.spikes(), tmp_path)
    out = tmp_path / "out"
    to_webdataset(made.spikes(), out, progress=False)
    with pytest.raises(ValueError, match="differs in content, unit_ids, windows"):
        to_webdataset(made.spikes(1), out, progress=False)
    with pytest.raises(ValueError, match="differs in seed"):
        to_webdataset(made.spikes(), out, seed=1, progress=False)
    with pytest.raises(FileNotFoundError, match=r"holds no neurokern\.json"):
        WebDatasetWindows(tmp_path)
    (out / "neurokern.json").write_text("[]")
    with pytest.raises(ValueError, match="cannot be read"):
        WebDatasetWindows(out)
    with pytest.raises(ValueError, match="shard_size must be at least 1"):
        to_webdataset(made.spikes(), tmp_path / "new", shard_size=0)


def test_damaged_shards_are_named(tmp_path):
    shards = to_webdataset(made.spikes(1), tmp_path / "out", shard_size=20, progress=False)
    whole = shards[1].read_bytes()
    for n in (0, 512, len(whole) // 2, len(whole) - 1, len(whole) - 10240):
        shards[1].write_bytes(whole[:n])
        with pytest.raises(ValueError, match=r"shard-000001\.tar is cut short"):
            WebDatasetWindows(tmp_path / "out")
    place = whole.index(b'"values"')
    shards[1].write_bytes(whole[:place] + b"x" + whole[place + 1 :])
    with pytest.raises(ValueError, match="is damaged"):
        list(WebDatasetWindows(tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="no such folder or shard"):
        WebDatasetWindows(tmp_path / "nowhere")


def test_a_full_disk_leaves_no_half_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        to_webdataset(made.spikes(), tmp_path / "out", progress=False)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["neurokern.json"]


def test_the_plain_reader_of_webdataset_sees_arrays_and_facts(tmp_path):
    import webdataset

    windows = made.fmri(tmp_path)
    shards = to_webdataset(windows, tmp_path / "out", progress=False)
    sample = next(iter(webdataset.WebDataset([str(shards[0])], shardshuffle=False).decode()))
    np.testing.assert_array_equal(sample["signal.npy"], windows[0]["signal"].numpy())
    assert sample["facts.json"]["values"]["run"] == "0"
    batch = next(
        iter(DataLoader(WebDatasetWindows(tmp_path / "out"), batch_size=3, collate_fn=collate_windows))
    )
    assert torch.equal(batch["valid"], windows.batch([0, 1, 2])["valid"])
