"""The training loop of MtM: one scheme and one session for each batch, resumable at any step."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from neurokern.checkpoint import (
    WEIGHTS,
    find_checkpoint,
    load_model,
    read_tensors,
    replace_checkpoint,
    write_model,
)
from neurokern.datasets import (
    BinnedSession,
    SessionBatchSampler,
    SpikeBatch,
    SpikeWindows,
    WindowedRecording,
    collate_spikes,
)
from neurokern.models import MtM, poisson_loss
from neurokern.models.masking import draw_scheme, mask_batch
from neurokern.training.batches import Plan, all_counts, mean_counts
from neurokern.training.config import TrainingConfig
from neurokern.training.episodes import episodes_of
from neurokern.training.optimizer import WeightAverage, frozen_but, make_optimizer
from neurokern.training.state import Progress, load_training_state, read_run_values, save_training_state
from neurokern.training.validation import Validation

logger = logging.getLogger(__name__)

METRICS = "metrics.csv"

# May change between a run and its continuation: none of them changes a number.
FREE_TO_CHANGE = ("n_workers", "device", "progress", "checkpoint_every")


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message names the step and where the state was saved."""


class Trainer:
    """Train an :class:`MtM` on sessions.

    Parameters
    ----------
    model : MtM
        Trained in place. Sessions that it does not know are added, started from their training windows.
    train : sequence of BinnedSession or WindowedRecording
        Windows to train on, of distinct sessions.
    validation : sequence of BinnedSession or WindowedRecording
        Windows of the same sessions to choose the best weights by. May be empty: then the last weights count.
    config : TrainingConfig, optional
        ``TrainingConfig.paper()`` when not given.
    folder : path
        Gets ``last`` (to resume from), ``best`` (for :func:`neurokern.checkpoint.load_model`) and
        ``metrics.csv``.

    Notes
    -----
    Batches, schemes, masks and dropout depend on the seed and the number of the step alone. A run that was
    killed and resumed therefore gives the same weights, bit for bit, as one that was not, on a CPU with one
    number of threads.
    """

    def __init__(
        self,
        model: MtM,
        train: Sequence[BinnedSession | WindowedRecording],
        validation: Sequence[BinnedSession | WindowedRecording] = (),
        config: TrainingConfig | None = None,
        folder: str | os.PathLike[str] = "run",
    ) -> None:
        self.config = config = config or TrainingConfig.paper()
        self.folder = Path(os.path.abspath(folder))
        self.device = _pick_device(config.device)
        self.sessions = tuple(train)
        cuts = config.episodes if model.config.needs_counts else ()
        self.episodes = [e for s in train for e in episodes_of(s, cuts, config.episode_length)]
        self.windows = SpikeWindows([*train, *(episode.ahead for episode in self.episodes)])
        unknown = set(config.masking.schemes) - set(model.config.schemes)
        if unknown:
            raise ValueError(
                f"Trainer: the model has no prompt for {sorted(unknown)}; it has {model.config.schemes}"
            )
        self._check_regions()
        if self.windows.sessions[0].n_bins > model.config.n_bins:
            raise ValueError(
                f"Trainer: windows have {self.windows.sessions[0].n_bins} bins, the model takes up to "
                f"{model.config.n_bins}; make it with MtMConfig(n_bins=...)"
            )
        self.sampler = SessionBatchSampler(self.windows, config.batch_size, seed=config.seed)
        self.total_steps = config.max_steps or config.max_epochs * self.sampler.batches_per_epoch
        self.model = model
        self._add_sessions()
        model.to(self.device)
        self.mean_counts = {s.session: mean_counts(s) for s in self.windows.sessions}
        self.unit_weights = {name: self._unit_weights(mean) for name, mean in self.mean_counts.items()}
        self.validation: Validation | None = None
        if validation:
            for session in validation:
                if session.session not in {s.session for s in self.sessions}:
                    raise ValueError(
                        f"Trainer: validation session {session.session!r} is not among those to train on"
                    )
            held_out = SpikeWindows(validation)
            self.validation = Validation(held_out, self.mean_counts, config.masking, config.batch_size)
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self.optimizer, self.scheduler = make_optimizer(model, config, self.total_steps)
        self.average = None if config.ema_decay is None else WeightAverage(model, config.ema_decay)
        self.progress = Progress()
        self.history: list[dict[str, float]] = []

    def fit(self, resume: bool = False) -> pd.DataFrame:
        """Train to the end and leave the best weights in the model and in the folder ``best``.

        Parameters
        ----------
        resume : bool, default False
            Go on from the last checkpoint in the folder; without one, start from the beginning.

        Returns
        -------
        history : DataFrame
            The rows of ``metrics.csv``: step, epoch, training loss per hidden count, learning rate, seconds,
            validation loss (mean and for each scheme) and bits per spike over each unit's training mean.

        Raises
        ------
        ValueError
            If the folder holds a run and ``resume`` is False, or the run there has other settings or data.
        NonFiniteLossError
            If the loss becomes NaN or infinite. The weights before that step are in ``failed``.
        """
        if not set(self.names) == set(self.model.parameters()):
            raise ValueError("Trainer.fit: a trainer runs once; make a new one to train on")
        self._start(resume)
        every = self.config.validate_every or self.sampler.batches_per_epoch
        gpus = [self.device] if self.device.type == "cuda" else []
        quiet = not (self.config.progress and sys.stderr.isatty())
        bar = tqdm(total=self.total_steps, initial=self.progress.step, unit="step", disable=quiet)
        with torch.random.fork_rng(gpus), bar, frozen_but(self.model, self.optimizer) as trained:
            clock = time.perf_counter()
            if self.validation is not None and not self.history:
                self._validate()  # what training has to improve on
            for batch in self._batches():
                self._step(batch.to(self.device, non_blocking=True), trained)
                bar.update()
                if self.progress.step % every == 0 or self.progress.step == self.total_steps:
                    bar.set_postfix(loss=self._validate())
                self.progress.seconds += (now := time.perf_counter()) - clock
                clock = now
                if self.progress.step % self.config.checkpoint_every == 0 or self._done():
                    self._save(self.folder / "last")
                if self._done():
                    break
        return self._finish()

    def _check_regions(self) -> None:
        by_region = sorted({"intra-region", "inter-region"} & set(self.config.masking.schemes))
        for session in self.sessions:
            if by_region and not any(session.regions):
                raise ValueError(
                    f"Trainer: no unit of session {session.session!r} has a region, which {by_region} need; "
                    f"group its units, or train with Masking(schemes=('neuron', 'causal'))"
                )

    def _add_sessions(self) -> None:
        with torch.random.fork_rng([]):
            torch.manual_seed(self.config.seed)
            for session in (*self.sessions, *(episode.known for episode in self.episodes)):
                if session.session not in self.model.sessions:
                    counts = all_counts(session) if self.model.config.needs_counts else None
                    self.model.add_session(session.session, session.n_units, session.regions.tolist(), counts)
                elif self.model.session_parts(session.session).n_units != session.n_units:
                    known = self.model.session_parts(session.session).n_units
                    raise ValueError(
                        f"Trainer: session {session.session!r} has {session.n_units} units, "
                        f"the model knows it with {known}"
                    )

    def _unit_weights(self, mean: Tensor) -> Tensor | None:
        """Return a weight for each unit's loss, with which the loss is per expected spike."""
        power = self.config.rate_power
        return None if power is None else (mean**-power / (mean ** (1 - power)).mean()).to(self.device)

    def _batches(self) -> Iterator[SpikeBatch]:
        """Give the batches from the present step to the last one; one set of workers serves all epochs."""
        return iter(
            DataLoader(
                self.windows,
                batch_sampler=Plan(self.sampler, self.progress.step, self.total_steps),
                collate_fn=collate_spikes,
                num_workers=self.config.n_workers,
                pin_memory=self.device.type == "cuda",
            )
        )

    def _step(self, batch: SpikeBatch, trained: list[nn.Parameter]) -> None:
        config, step = self.config, self.progress.step
        entropy = np.random.SeedSequence((config.seed, step)).generate_state(1, np.uint64)
        torch.manual_seed(int(entropy[0]))
        scheme = draw_scheme(config.masking.schemes, seed=config.seed, step=step)
        masked = mask_batch(batch, scheme, config.masking, seed=config.seed, offset=step * config.batch_size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16):
            log_rates = self.model.forward_batch(batch, scheme, counts=masked.inputs, hidden=masked.hidden)
        weights = self.unit_weights[batch.session[0]]
        loss = poisson_loss(log_rates, batch.counts, masked.target_mask, config.reduction, weights)
        value = float(loss.detach())
        self._check_finite(value, f"loss of {scheme!r} masks on session {batch.session[0]!r}")
        self.optimizer.zero_grad()
        loss.backward()
        if config.gradient_clip is not None:
            norm = nn.utils.clip_grad_norm_(trained, config.gradient_clip)
            self._check_finite(float(norm), "norm of the gradient")
        self.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update(step)
        n_targets = int(masked.target_mask.sum()) if config.reduction == "sum" else 1
        self.progress.loss_sum += value / max(n_targets, 1)
        self.progress.loss_count += 1
        self.progress.step += 1

    def _check_finite(self, value: float, what: str) -> None:
        if math.isfinite(value):
            return
        self._save(self.folder / "failed")
        raise NonFiniteLossError(
            f"Trainer: the {what} is {value} in step {self.progress.step}; the state before that step is in "
            f"{self.folder / 'failed'}. A lower learning_rate or a gradient_clip may help"
        )

    def _validate(self) -> float:
        """Add a row to the metrics; keep the weights if they are the best so far. Returns the loss."""
        progress = self.progress
        row: dict[str, float] = {
            "step": progress.step,
            "epoch": progress.step / self.sampler.batches_per_epoch,
            "train_loss": progress.loss_sum / progress.loss_count if progress.loss_count else math.nan,
            "learning_rate": float(self.scheduler.get_last_lr()[0]),
            "seconds": round(progress.seconds, 3),
        }
        progress.loss_sum, progress.loss_count = 0.0, 0
        if self.validation is not None:
            with self.average.in_use() if self.average else nullcontext():
                scores = self.validation.run(self.model, self.device, self.config.bf16)
            self._check_finite(scores["loss"], "validation loss")
            row.update({f"validation_{name}": value for name, value in scores.items()})
            progress.worse_in_a_row += 1
            if scores["loss"] < progress.best_loss:
                progress.best_loss, progress.best_step, progress.worse_in_a_row = (
                    scores["loss"],
                    progress.step,
                    0,
                )
                self._save_best()
        self.history.append(row)
        self._write_history()
        loss = row.get("validation_loss", row["train_loss"])
        logger.info(
            "step %d of %d: loss %.4f, %.0f s", progress.step, self.total_steps, loss, progress.seconds
        )
        return loss

    def _done(self) -> bool:
        patience = self.config.patience
        impatient = patience is not None and self.progress.worse_in_a_row >= patience
        return impatient or self.progress.step >= self.total_steps

    def _start(self, resume: bool) -> None:
        """Begin at step 0, or at the last checkpoint of this run."""
        try:
            last = find_checkpoint(self.folder / "last")
        except FileNotFoundError:
            logger.info("training %d steps from the beginning in %s", self.total_steps, self.folder)
            return
        if not resume:
            raise ValueError(
                f"Trainer.fit: {self.folder} already holds a run; "
                f"continue it with resume=True or choose another folder"
            )
        read_run_values(last, self._identity())  # other settings may mean other weights: they come first
        weights = self.model.state_dict()
        saved = read_tensors(last / WEIGHTS, expected={name: t.shape for name, t in weights.items()})
        self.model.load_state_dict(saved)
        average = {} if self.average is None else self.average.values
        self.progress = load_training_state(
            last, self.names, self.optimizer, self.scheduler, average, self._identity()
        )
        self.history = self._read_history()
        logger.info("resuming %s at step %d of %d", self.folder, self.progress.step, self.total_steps)

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same in a run and its continuation."""
        validated = () if self.validation is None else self.validation.windows.sessions
        settings = {k: v for k, v in self.config.to_dict().items() if k not in FREE_TO_CHANGE}
        return {
            **settings,
            "model": self.model.config.to_dict(),
            "train": [[s.session, s.n_windows, s.n_units] for s in self.windows.sessions],
            "validation": [[s.session, s.n_windows, s.n_units] for s in validated],
        }

    def _save(self, folder: Path) -> None:
        """Write model and training state; the earlier checkpoint stays until this one is whole."""
        average = {} if self.average is None else self.average.values
        with replace_checkpoint(folder) as temporary:
            write_model(self.model, temporary)
            save_training_state(
                temporary,
                self.names,
                self.optimizer,
                self.scheduler,
                average,
                self.progress,
                self._identity(),
            )

    def _save_best(self) -> None:
        with replace_checkpoint(self.folder / "best") as temporary:
            write_model(self.model, temporary, None if self.average is None else self.average.values)

    def _write_history(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".{METRICS}.writing"
        pd.DataFrame(self.history).to_csv(unfinished, index=False)
        unfinished.replace(self.folder / METRICS)

    def _read_history(self) -> list[dict[str, float]]:
        file = self.folder / METRICS
        if not file.is_file():
            return []
        try:
            rows = pd.read_csv(file)
            kept = rows[rows["step"] <= self.progress.step]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Trainer: {file} is damaged ({error}); delete it to go on without the earlier rows"
            ) from None
        return [{str(k): v for k, v in row.items()} for row in kept.to_dict("records")]

    def _finish(self) -> pd.DataFrame:
        """Leave the best weights in the model, in evaluation mode, and return the metrics."""
        if self.validation is None:
            self._save_best()
        best = load_model(self.folder / "best")
        for model in (self.model, best):
            for name in {episode.known.session for episode in self.episodes} & set(model.sessions):
                model.remove_session(name)
        self.model.load_state_dict(best.state_dict())
        if self._refit() or self.episodes:
            with replace_checkpoint(self.folder / "best") as temporary:
                write_model(self.model, temporary)
        self.model.eval()
        return pd.DataFrame(self.history)

    def _refit(self) -> bool:
        """Estimate the sessions' parts from training and validation windows; says whether it did."""
        in_closed_form = self.model.config.needs_counts and self.config.session_learning_rate == 0
        if self.validation is None or not (self.config.refit and in_closed_form):
            return False
        train = {session.session: session for session in self.sessions}
        for held_out in self.validation.windows.sessions:
            both = (train[held_out.session], held_out)
            counts = np.concatenate([all_counts(session) for session in both])
            if all(session.windows is not None for session in both):
                starts = np.concatenate([np.asarray(session.windows)[:, 0] for session in both])
                counts = counts[np.argsort(starts, kind="stable")]
            self.model.refit_session(held_out.session, counts)
        return True


def _pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"TrainingConfig: device must be 'auto', 'cpu' or 'cuda', got {name!r}") from None
    if device.type == "meta":
        raise ValueError("TrainingConfig: device must hold data, got 'meta'; use 'cpu' or 'auto'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"TrainingConfig: device {name!r} was asked for but torch sees no GPU; use 'cpu' or 'auto'"
        )
    return device
