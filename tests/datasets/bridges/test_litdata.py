"""Windows of every kind to chunks of litdata and back, to the last bit.

With the real package: ``pip install litdata``. It brings torchvision and boto3, so it is no part of the
``test`` extra; without it these tests are skipped.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mne")
pytest.importorskip("nibabel")
litdata = pytest.importorskip("litdata")

import windows_of_all_kinds as made  # noqa: E402

from neurokern.datasets import collate_windows  # noqa: E402
from neurokern.datasets.bridges import from_litdata, to_litdata  # noqa: E402

KINDS = {
    "spikes": lambda folder: made.spikes(1),
    "eeg": lambda folder: made.eeg(),
    "fmri": made.fmri,
    "bfloat16": lambda folder: made.fmri(folder, torch.bfloat16),
    "paired": made.paired,
}


@pytest.mark.parametrize("kind", KINDS)
def test_windows_come_back_as_they_were(kind, tmp_path):
    windows = KINDS[kind](tmp_path)
    to_litdata(windows, tmp_path / "out", chunk_size=4, progress=False)
    back = from_litdata(tmp_path / "out")
    assert len(back) == len(windows)
    for i in range(len(windows)):
        made.assert_same(windows[i], back[i])
    assert back.conditions == tuple(getattr(windows, "conditions", ()))
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")) == []


def test_its_loader_gives_our_batches_and_resumes(tmp_path):
    windows = made.eeg()
    to_litdata(windows, tmp_path / "out", progress=False)
    options = {"batch_size": 2, "collate_fn": collate_windows}
    whole = list(litdata.StreamingDataLoader(from_litdata(tmp_path / "out"), **options))
    assert torch.equal(whole[1]["channel_mask"], windows.batch([2, 3])["channel_mask"])
    loader = litdata.StreamingDataLoader(from_litdata(tmp_path / "out"), **options)
    next(iter(loader))
    state = loader.state_dict()
    resumed = litdata.StreamingDataLoader(from_litdata(tmp_path / "out"), **options)
    resumed.load_state_dict(state)
    assert torch.equal(next(iter(resumed))["signal"], whole[1]["signal"])


def test_what_fails_leaves_nothing(tmp_path):
    class Broken:
        windows = made.spikes(1)

        def __len__(self):
            return len(self.windows)

        def __getitem__(self, i):
            if i == 5:
                raise OSError(5, "Input/output error")
            return self.windows[i]

    with pytest.raises(OSError, match="Input/output"):
        to_litdata(Broken(), tmp_path / "out", progress=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").write_text("")
    with pytest.raises(ValueError, match="new or empty folder"):
        to_litdata(made.spikes(1), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no neurokern\.json"):
        from_litdata(tmp_path)
