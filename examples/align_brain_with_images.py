"""From a BIDS folder to images found by what the brain did: contrastive alignment from end to end.

Run it with ``python examples/align_brain_with_images.py [steps]``; it takes transformers, scikit-learn,
Pillow and nibabel, and downloads nothing. The responses are made here: each voxel answers to a part of the
digit that is shown, through the blood's response, with noise. No brain was recorded, and the image encoder is
a small vision transformer of random weights, which knows nothing of digits. Why it works all the same: random
layers keep what an image looks like, and the two heads that are trained find what both sides share. The
images that are searched for at the end were never shown in training; pairs that were mixed up stay at chance.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from neurokern.adapters import info_nce, retrieval_accuracy
from neurokern.datasets import (
    BIDSDataset,
    LabeledWindows,
    StimulusBatchSampler,
    TimedStimuli,
    check_no_leak,
    event_regressors,
)
from neurokern.extractors import FMRIVoxelExtractor, StimulusFeatures

TR, N_VOLUMES, SHAPE, N_RUNS, PER_RUN = 2.0, 160, (8, 7, 5), 6, 60
SIZE, BATCH = 32, 30


def make_folder(root: Path) -> None:
    """Write digits, events and BOLD of one subject. The last run shows images that no other run shows."""
    rng = np.random.default_rng(0)
    digits = load_digits().images[rng.permutation(1797)[: 60 * 3]]
    (root / "stimuli").mkdir(parents=True)
    for number, digit in enumerate(digits):
        Image.fromarray((digit * 15).astype(np.uint8)).save(root / f"stimuli/digit{number:03d}.png")
    func = root / "sub-01/func"
    func.mkdir(parents=True)
    (root / "task-digits_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    # A voxel has a place in the image and a sign.
    x, y = np.mgrid[:8, :8].reshape(2, -1, 1)
    place = rng.uniform(-0.5, 7.5, (2, int(np.prod(SHAPE))))
    fields = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 3) * rng.choice([-1, 1], place.shape[1])
    seen = (digits.reshape(len(digits), -1) - digits.mean()) @ fields
    seen /= seen.std()
    for run in range(N_RUNS):
        # Runs 0, 2, 4 show the first third, 1, 3 the second; the last the third.
        third = 2 if run == N_RUNS - 1 else run % 2
        shown = 60 * third + rng.permutation(60)[:PER_RUN]
        onsets = 4.0 + 5.0 * np.arange(PER_RUN) + rng.uniform(0, 1, PER_RUN)  # on no grid
        rows = "".join(f"{t:.3f}\t1\tdigit\tdigit{k:03d}.png\n" for t, k in zip(onsets, shown, strict=True))
        stem = f"sub-01_task-digits_run-{run + 1}"
        (func / f"{stem}_events.tsv").write_text("onset\tduration\ttrial_type\tstim_file\n" + rows)
        bold = event_regressors(onsets, np.ones(PER_RUN), seen[shown], n_volumes=N_VOLUMES, tr=TR)
        bold = bold / bold.std() + rng.normal(size=bold.shape)
        volumes = (1000 + 20 * bold).astype(np.float32).T.reshape(*SHAPE, N_VOLUMES)
        nibabel.save(nibabel.Nifti1Image(volumes, np.eye(4)), func / f"{stem}_bold.nii.gz")


class Heads(nn.Module):
    """A linear layer from the volumes of a window and one from the image's features into the same space."""

    def __init__(self, n_voxels: int, n_features: int) -> None:
        super().__init__()
        self.brain = nn.Sequential(nn.Flatten(), nn.Linear(n_voxels, SIZE))
        self.image = nn.Linear(n_features, SIZE)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.brain(batch["signal"]), self.image(batch["image"])


def features_of_images(root: Path, brain: BIDSDataset) -> tuple[list[str], Tensor]:
    """Return the names of all images, and their features by a vision transformer of random weights."""
    torch.manual_seed(0)
    model = ViTModel(
        ViTConfig(
            image_size=16, patch_size=4, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=96,
        )
    )  # fmt: skip
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    shown = [TimedStimuli.from_events(brain.run(i), root / "stimuli").stimuli for i in range(len(brain))]
    paths = sorted({path for of_run in shown for path in of_run})
    # All tokens side by side: their mean would forget where in the image something is.
    features = StimulusFeatures.from_pretrained((model, processor), "layernorm", pool="flatten")
    values = features(paths)["layernorm"]
    return [path.name for path in paths], values


def train(windows: LabeledWindows, stimuli: list[str], steps: int, mixed_up: bool = False) -> Heads:
    """Return heads for which the signal of a window is nearer to its own image than to those of others."""
    torch.manual_seed(1)
    heads = Heads(windows[0]["signal"].numel(), windows[0]["image"].numel())
    optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3, weight_decay=0.1)
    sampler = StimulusBatchSampler(stimuli, batch_size=BATCH, drop_last=True)
    step = 0
    while step < steps:
        sampler.set_epoch(step // sampler.batches_per_epoch)
        for batch in DataLoader(windows, batch_sampler=sampler):
            brain, image = heads(batch)
            loss = info_nce(brain, image.roll(1, 0) if mixed_up else image, temperature=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return heads.eval()


@torch.no_grad()
def found(heads: Heads, windows: LabeledWindows, k: int) -> float:
    """Return the share of windows whose own image is among the k nearest of all images of these windows."""
    brain, image = heads(windows.batch(range(len(windows))))
    return retrieval_accuracy(brain, image, k=k)


def main(steps: int = 60) -> None:
    """Show how often images that were never trained on are found."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_folder(root)
        brain = BIDSDataset(root, task="digits")
        mask = np.ones(SHAPE, bool)
        extractor = FMRIVoxelExtractor(mask, normalize=True, detrend=True)
        windows = brain.with_extractor(extractor, length=3, events=True, hrf_delay=3.0)
        names, values = features_of_images(root, brain)
        stimuli = windows.events["stim_file"]
        to_train, to_test = stimuli[: 60 * (N_RUNS - 1)], stimuli[60 * (N_RUNS - 1) :]
        of_training = values[[names.index(name) for name in sorted(set(to_train))]]
        scaled = (values - of_training.mean(0)) / of_training.std(0)  # by what is trained on alone
        index = [names.index(name) for name in stimuli]
        labeled = LabeledWindows(windows, {"image": (scaled, index), "stimulus": stimuli})
        training = labeled.select(np.arange(len(to_train)))
        test = labeled.select(np.arange(len(to_train), len(stimuli)))
        check_no_leak(training, test, by="run")
        assert not set(to_train) & set(to_test)
        for what, mixed_up in (("trained", False), ("pairs mixed up", True)):
            heads = train(training, training.label("stimulus"), steps, mixed_up)
            top = {k: found(heads, test, k) for k in (1, 5)}
            shown = ", ".join(f"top-{k} {share:.2f} (chance {k / len(test):.3f})" for k, share in top.items())
            print(f"{what}: {shown} of {len(test)} images never shown before")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
