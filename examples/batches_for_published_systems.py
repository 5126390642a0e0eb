"""What published systems take, from folders of fMRI and EEG: batches in a few lines, and a step of training.

Run it with ``python examples/batches_for_published_systems.py``; it takes nibabel and mne. The recordings are
noise that is made here, to show shapes and masks; the networks are single layers that stand where theirs do.
docs/systems.md says what was run of the systems themselves.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from neurokern import mask_regions
from neurokern.datasets import (
    BIDSDataset,
    PairedWindows,
    collate_windows,
    group_windows,
    pack_channels,
)
from neurokern.extractors import FMRIParcelExtractor, FMRIVolumeExtractor, FMRIVoxelExtractor, MEEGExtractor

SUBJECTS, SHAPE, TR, RATE = ("01", "02"), (12, 12, 12), 2.0, 200.0


def make_folder(root: Path) -> None:
    """Write noise: a run of fMRI and one of EEG for each subject, of other channels each."""
    import mne

    (root / "dataset_description.json").write_text('{"Name": "noise", "BIDSVersion": "1.9.0"}')
    for k, subject in enumerate(SUBJECTS):
        draw = np.random.default_rng(k)
        func, eeg = root / f"sub-{subject}" / "func", root / f"sub-{subject}" / "eeg"
        func.mkdir(parents=True)
        eeg.mkdir()
        image = nibabel.Nifti1Image(draw.normal(100, 9, (*SHAPE, 30)).astype(np.float32), np.eye(4))
        nibabel.save(image, func / f"sub-{subject}_task-rest_bold.nii")
        (func / f"sub-{subject}_task-rest_bold.json").write_text(f'{{"RepetitionTime": {TR}}}')
        names = ["Fz", "Cz", "Pz", "Oz"][: 4 - k]
        info = mne.create_info(names, RATE, "eeg", verbose="ERROR")
        raw = mne.io.RawArray(draw.normal(0, 1e-5, (len(names), int(60 * RATE))), info, verbose="ERROR")
        raw.save(eeg / f"sub-{subject}_task-rest_eeg.fif", verbose="ERROR")


def step(network: nn.Module, loss: torch.Tensor) -> float:
    """Take one step of gradient descent and return the loss."""
    loss.backward()
    torch.optim.SGD(network.parameters(), 1e-3).step()
    return float(loss.detach())


def swift(root: Path) -> str:
    """Windows of volumes without the background, 20 TRs each, scaled over the brain (arXiv:2307.05916)."""
    extractor = FMRIVolumeExtractor(crop=(slice(1, 11),) * 3, normalize=True)
    windows = BIDSDataset(root, task="rest").with_extractor(extractor, length=20, stride=5)
    batch = next(iter(DataLoader(windows, batch_size=2)))
    network = nn.Conv3d(20, 4, 2, stride=2)
    loss = step(network, network(batch["signal"]).square().mean())
    return f"SwiFT: {tuple(batch['signal'].shape)} (batch, trs, x, y, z), loss {loss:.2f}"


def brain_mae(root: Path) -> str:
    """Series of parcels, of which half the entries are hidden and asked for (arXiv:2406.17086)."""
    atlas = np.arange(1728).reshape(SHAPE) // 144  # 11 parcels and the background
    extractor = FMRIParcelExtractor(atlas, normalize=True)
    windows = BIDSDataset(root, task="rest").with_extractor(extractor, length=15)
    batch = next(iter(DataLoader(windows, batch_size=4)))
    masked = mask_regions(batch["signal"], None, "random", ratio=0.5, seed=0)
    network = nn.Linear(11, 11)
    asked = masked.target_mask & batch["valid"][..., None]
    loss = step(network, (network(masked.inputs) - batch["signal"])[asked].square().mean())
    return f"BrainMAE: {tuple(batch['signal'].shape)} (batch, trs, parcels), loss {loss:.2f}"


def neuro_bolt(root: Path) -> str:
    """Each volume's parcels beside the 16 s of EEG before it (arXiv:2410.05341)."""
    atlas = np.arange(1728).reshape(SHAPE) // 144
    bold = BIDSDataset(root, task="rest").with_extractor(FMRIParcelExtractor(atlas, normalize=True), length=1)
    eeg = BIDSDataset(root, "eeg", task="rest").with_extractor(MEEGExtractor(["Fz", "Cz", "Pz"]))
    pairs = PairedWindows(bold, {"eeg": eeg}, within={"eeg": (-16.0, 0.0)}, pad=True)
    whole = [i for i in range(len(pairs)) if bool(pairs[i]["eeg_valid"].all())]
    batch = next(iter(DataLoader(pairs.select(whole), batch_size=8, shuffle=True)))
    network = nn.Linear(3, 11)
    loss = step(network, (network(batch["eeg_signal"].mean(1)) - batch["signal"][:, 0]).square().mean())
    shapes = tuple(batch["eeg_signal"].shape), tuple(batch["signal"].shape)
    return f"NeuroBOLT: EEG {shapes[0]} beside parcels {shapes[1]}, loss {loss:.2f}"


def reve(root: Path) -> str:
    """Channels of any montage with their places, packed without padding (arXiv:2510.21585)."""
    extractor = MEEGExtractor("eeg", montage="standard_1005")
    windows = BIDSDataset(root, "eeg").with_extractor(extractor, duration=1.0)
    batch = next(iter(DataLoader(windows, batch_size=4, shuffle=True, collate_fn=collate_windows)))
    packed = pack_channels(batch)
    places = batch["positions"][packed.window, packed.channel]
    network = nn.Linear(203, 8)
    loss = step(network, network(torch.cat([packed.signal * 1e5, places], 1)).square().mean())
    return f"REVE: {tuple(packed.signal.shape)} (channels, time) at {tuple(places.shape)}, loss {loss:.2f}"


def mind_bridge(root: Path) -> str:
    """Voxels of people with other masks, brought to one number (arXiv:2404.07850)."""
    people, outputs = [], []
    for k, subject in enumerate(SUBJECTS):
        mask = np.random.default_rng(k).random(SHAPE) < 0.4
        extractor = FMRIVoxelExtractor(mask, normalize=True)
        people.append(BIDSDataset(root, subject=subject).with_extractor(extractor, length=1))
    network = nn.Sequential(nn.AdaptiveMaxPool1d(512), nn.Linear(512, 16))
    for windows in people:
        outputs.append(network(windows.batch(range(8))["signal"]))
    loss = step(network, (outputs[0].mean() - outputs[1].mean()).square())
    sizes = [windows.feature_dim for windows in people]
    return f"MindBridge: {sizes} voxels to {tuple(outputs[0].shape)}, loss {loss:.4f}"


def fleeg(root: Path) -> str:
    """A client for each subject with channels of its own, one shared part (Neural Networks 172, 106100)."""
    windows = BIDSDataset(root, "eeg").with_extractor(MEEGExtractor(), duration=1.0)
    clients = group_windows(windows, by="subject")
    shared = nn.Linear(4, 2)
    widths = []
    for client in clients.values():
        batch = client.batch(range(8))
        widths.append(batch["signal"].shape[2])
        own = nn.Linear(widths[-1], 4)
        step(shared, shared(own(batch["signal"].mean(1))).square().mean())
    return f"FLEEG: {', '.join(clients)} with {widths} channels, {len(clients)} steps"


def main() -> None:
    """Print what each system is given."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder))
        for system in (swift, brain_mae, neuro_bolt, reve, mind_bridge, fleeg):
            print(system(Path(folder)))


if __name__ == "__main__":
    main()
