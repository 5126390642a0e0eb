"""Networks that others published, from their own packages, on real recordings that we read.

``pip install braindecode pytorch_brain``; a test whose package, or the recordings, are absent is skipped.
What was measured stands in docs/systems.md.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mne")

from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import BIDSDataset, collate_windows  # noqa: E402
from neurokern.extractors import MEEGExtractor  # noqa: E402

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def eeg_batch(shared_data, tmp_path, monkeypatch):
    """Windows of two recordings with other channels and rates, in one batch, with places."""
    pytest.importorskip("braindecode.models")  # before anything is read for it
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    extractor = MEEGExtractor("eeg", l_freq=0.5, h_freq=45, resample=200, montage="standard_1005")
    folder = shared_data / "eeg" / "bids_eeg_mini"
    windows = BIDSDataset(folder, modality="eeg").with_extractor(extractor, duration=2.0)
    assert len(windows.runs) == 2
    half = windows.offsets[1]
    items = [0, 1, int(half), int(half) + 1]
    return next(iter(DataLoader(windows, batch_sampler=[items], collate_fn=collate_windows)))


@pytest.mark.filterwarnings("ignore")
def test_reve_reads_any_montage_by_its_places(eeg_batch, monkeypatch):
    models = pytest.importorskip("braindecode.models")
    # Its table of electrodes by name is downloaded; places that are given need none.
    monkeypatch.setattr("braindecode.models.reve.RevePositionBank", torch.nn.Module)
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 2, "heads": 2, "head_dim": 16}
    mask = eeg_batch["channel_mask"]
    assert not mask.all()  # padded: the recordings differ in channels
    for row in (0, 2):
        known = mask[row] & eeg_batch["positions"][row].isfinite().all(1)
        n = int(known.sum())
        net = models.REVE(n_outputs=2, n_chans=n, n_times=400, sfreq=200, attention_pooling=True, **sizes)
        signal = eeg_batch["signal"][row : row + 2, :, known].transpose(1, 2) * 1e5
        scores = net(signal, pos=eeg_batch["positions"][row : row + 2, known])
        assert scores.shape == (2, 2)
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1]))
        loss.backward()
        assert torch.isfinite(loss)
        assert n > 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "sizes"), [
    ("CBraMod", {"n_layer": 1, "nhead": 2}),
    ("BIOT", {"embed_dim": 32, "num_heads": 2, "num_layers": 1}),
    ("EEGConformer", {"num_layers": 1}),
])  # fmt: skip
def test_networks_of_fixed_channels_take_one_recording(eeg_batch, name, sizes):
    models = pytest.importorskip("braindecode.models")
    torch.manual_seed(0)
    known = eeg_batch["channel_mask"][0]
    signal = eeg_batch["signal"][:2, :, known].transpose(1, 2) * 1e6
    net = getattr(models, name)(n_outputs=3, n_chans=signal.shape[1], n_times=400, sfreq=200, **sizes)
    assert net.eval()(signal).shape == (2, 3)


@pytest.mark.filterwarnings("ignore")
def test_poyo_learns_from_a_recording_that_was_handed_over(shared_data, monkeypatch, capsys):
    pytest.importorskip("torch_brain")
    pytest.importorskip("temporaldata")
    file = shared_data / "spikes" / "hippocampus_ca1" / "linear_track.npz"
    monkeypatch.setattr(sys, "argv", ["poyo_on_your_recording.py", str(file), "2"])
    runpy.run_path(str(EXAMPLES / "poyo_on_your_recording.py"), run_name="__main__")
    assert "2 steps: POYO explains" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_batches_of_published_systems_take_a_step(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nibabel")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    runpy.run_path(str(EXAMPLES / "batches_for_published_systems.py"), run_name="__main__")
    shown = capsys.readouterr().out
    for line in (
        "SwiFT: (2, 20, 10, 10, 10)",
        "BrainMAE: (4, 15, 11)",
        "NeuroBOLT: EEG (8, 3200, 3) beside parcels (8, 1, 11)",
        "REVE: (14, 200)",
        "MindBridge: [681, 703] voxels to (8, 1, 16)",
        "FLEEG: subject 01, subject 02 with [4, 3] channels",
    ):
        assert line in shown
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", shown)]
    assert len(losses) == 5
    assert all(0 <= loss < 10 for loss in losses)
