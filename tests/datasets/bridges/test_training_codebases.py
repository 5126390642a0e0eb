"""Our datasets and models in other training code: Lightning, accelerate, transformers' Trainer, torch_brain.

With the real packages (``pip install lightning accelerate transformers pytorch_brain``), which bring much;
a test whose package is absent is skipped.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import windows_of_all_kinds as made  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import (  # noqa: E402
    SessionBatchSampler,
    SpikeBatch,
    SpikeWindows,
    WindowedRecording,
    WindowStream,
    collate_spikes,
    sliding_windows,
)
from neurokern.models import MtM, MtMConfig, mask_batch, poisson_loss  # noqa: E402


def mtm(windows: SpikeWindows) -> MtM:
    torch.manual_seed(0)
    model = MtM(MtMConfig.small(n_bins=windows.sessions[0].n_bins))
    for session in windows.sessions:
        counts = session.read(range(session.n_windows))
        model.add_session(session.session, session.n_units, session.regions, counts)
    return model


def loss_of(model: MtM, batch: SpikeBatch, step: int) -> torch.Tensor:
    masked = mask_batch(batch, "neuron", seed=step)
    log_rates = model.forward_batch(batch, "neuron", counts=masked.inputs, hidden=masked.hidden)
    return poisson_loss(log_rates, batch.counts, masked.target_mask, "mean")


def test_lightning_trains_mtm_on_a_data_module(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Data(lightning.LightningDataModule):
        def train_dataloader(self):
            windows = made.spikes()
            return DataLoader(
                windows, batch_sampler=SessionBatchSampler(windows, 8), collate_fn=collate_spikes
            )

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.seen = mtm(made.spikes()), []

        def training_step(self, batch, number):
            loss = loss_of(self.model, batch, number)
            self.seen.append(batch.window.tolist())
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-3)

    module = Module()
    before = [parameter.clone() for parameter in module.parameters()]
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **options)
    trainer.fit(module, Data())
    windows = made.spikes()
    plans = [plan for epoch in range(2) for plan in SessionBatchSampler(windows, 8).plan(epoch)]
    assert module.seen == [windows.batch(plan).window.tolist() for plan in plans]
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_accelerate_prepares_loaders_and_leaves_streams_their_order():
    accelerate = pytest.importorskip("accelerate")
    windows = made.spikes()
    loader = DataLoader(windows, batch_sampler=SessionBatchSampler(windows, 8), collate_fn=collate_spikes)
    plans = [windows.batch(plan).window.tolist() for plan in SessionBatchSampler(windows, 8).plan(0)]
    accelerator = accelerate.Accelerator(cpu=True)
    assert [batch.window.tolist() for batch in accelerator.prepare(loader)] == plans
    # A stream divides itself among processes; nothing is left to prepare.
    stream = WindowStream(windows, 8, rank=accelerator.process_index, world_size=accelerator.num_processes)
    model, optimizer = accelerator.prepare(mtm(windows), torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]))
    for step, batch in enumerate(DataLoader(stream, batch_size=None)):
        accelerator.backward(loss_of(model, batch, step))
        optimizer.step()
    assert step + 1 == len(stream)


def test_the_trainer_of_transformers_takes_windows(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    # A folder "datasets" lies beside these tests, which looks like the package of this name.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)
    pytest.importorskip("accelerate")
    pytest.importorskip("mne")
    windows = made.eeg().select([0, 1, 2])

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def forward(self, signal, labels):
            scores = self.layer(signal.mean(1))
            return {"loss": torch.nn.functional.cross_entropy(scores, labels), "logits": scores}

    def collate(items):
        return {
            "signal": torch.stack([item["signal"] for item in items]),
            "labels": torch.tensor([item["condition"] for item in items]),
        }

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=2, learning_rate=0.1, report_to=[],
        remove_unused_columns=False, use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(Net(), arguments, data_collator=collate, train_dataset=windows)
    result = trainer.train()
    assert result.global_step == 6
    assert np.isfinite(result.training_loss)


def test_recordings_of_torch_brain_train_mtm_and_ours_feed_its_sampler():
    torch_brain = pytest.importorskip("torch_brain")
    temporaldata = pytest.importorskip("temporaldata")
    from neurokern.datasets.bridges import from_temporaldata, interval_windows, to_temporaldata

    recording = made.spikes(1).sessions[0].recording
    data = to_temporaldata(recording)
    data.train_domain = temporaldata.Interval(0.0, 15.0)
    assert (
        data.slice(2.0, 3.0).spikes.timestamps.size == ((recording.times >= 2) & (recording.times < 3)).sum()
    )
    with pytest.warns(UserWarning, match="train_domain"):
        back = from_temporaldata(data)
    session = WindowedRecording(back, interval_windows(data.train_domain, 1.0, 0.5), 0.1)
    windows = SpikeWindows([session])
    loss = loss_of(mtm(windows), windows.batch(range(8)), 0)
    assert torch.isfinite(loss)
    samplers = pytest.importorskip("torch_brain.data.sampler")
    sampler = samplers.SequentialFixedWindowSampler(
        sampling_intervals={"session 0": data.train_domain}, window_length=1.0, step=0.5
    )
    theirs = sorted((index.start, index.end) for index in sampler)
    assert theirs == [tuple(window) for window in session.windows.tolist()]
    assert torch_brain.__name__ == "torch_brain"
    assert len(sliding_windows(back, 1.0)) == 20
