"""The training loop of MtM: schemes and masks by number, on one or many processes, resumable at any step."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import math
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurokern.checkpoint import find_checkpoint, load_model, replace_checkpoint, write_model
from neurokern.datasets import (
    BinnedSession,
    BucketBatchSampler,
    SessionBatchSampler,
    SpikeWindows,
    WindowedRecording,
)
from neurokern.models import MtM
from neurokern.training.acceleration import accelerated, call_compiled, half_precision
from neurokern.training.batches import Part, Plan, all_counts, joined_counts, mean_counts
from neurokern.training.checks import check_sessions, check_settings
from neurokern.training.config import FREE_TO_CHANGE, TrainingConfig
from neurokern.training.distributed import Ranks, pick_device
from neurokern.training.episodes import episodes_of
from neurokern.training.failed import write_failed_batches
from neurokern.training.interruption import (
    NonFiniteLossError,
    StopRequest,
    TrainingInterrupted,
    TrainingMemoryError,
    memory_advice,
)
from neurokern.training.loading import masked_parts
from neurokern.training.log import Log, Meter, tokens_of
from neurokern.training.optimizer import frozen_but
from neurokern.training.part import MaskedPart, mask_part
from neurokern.training.run_state import RunState
from neurokern.training.state import Progress, read_training_state, step_of
from neurokern.training.step import NoMemory, NotFinite, Passes, Stepper
from neurokern.training.validation import Validation

logger = logging.getLogger(__name__)


class Trainer:
    """Train an :class:`MtM` on sessions, in one process or in all that ``torchrun`` started.

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
    Batches, schemes and masks depend on the seed and the number of the step alone, dropout on the place in
    the step as well. A run that was killed and resumed therefore gives the same weights, bit for bit, as one
    that was not, on a CPU with one number of threads.

    Under ``torchrun`` all processes make the same trainer. They share the windows of each step, so that the
    weights are those of one process but for the rounding of sums and, unless ``micro_batch_size`` fixes what
    goes through the model at once, the draws of dropout. The first process alone writes. A run may be resumed
    with another number of processes.
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
        self.device = pick_device(config.device)
        self.sessions = tuple(train)
        check_settings(model, config)
        check_sessions(model, self.sessions, validation, config)
        cuts = config.episodes if model.config.needs_counts else ()
        self.episodes = [e for s in train for e in episodes_of(s, cuts, config.episode_length)]
        self.windows = SpikeWindows([*train, *(episode.ahead for episode in self.episodes)])
        self.sampler = self._make_sampler()
        self.ranks = Ranks(self.device, config.timeout)
        self.plan = Plan(
            self.sampler,
            config.batches_per_step,
            config.micro_batch_size,
            self.ranks.rank,
            self.ranks.size,
            even=config.strategy == "shard",
        )
        self.total_steps = config.max_steps or config.max_epochs * self.plan.steps_per_epoch
        self.model = model
        self._add_sessions()
        self.mean_counts = {s.session: mean_counts(s) for s in self.windows.sessions}
        of_a_window = [tokens_of(model.config, session) for session in self.windows.sessions]
        self.n_tokens = np.repeat(of_a_window, np.diff(self.windows.offsets))
        self.validation: Validation | None = None
        if validation:
            held_out = SpikeWindows(validation)
            self.validation = Validation(held_out, self.mean_counts, config.masking, config.batch_size)
        self._check_agreement()
        self.state = RunState(model, config, self.ranks, self.total_steps)
        unit_weights = {name: self._unit_weights(mean) for name, mean in self.mean_counts.items()}
        self.stepper = Stepper(self.state, self.plan, config, unit_weights)
        self.stop = StopRequest()
        self.meter = Meter(self.device)
        self.log = Log(
            self.folder,
            self.total_steps,
            writes=self.ranks.is_first,
            shows=config.progress,
            tensorboard=config.tensorboard,
        )

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of metrics so far."""
        return self.log.rows

    @property
    def progress(self) -> Progress:
        """Where the run is."""
        return self.state.progress

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
            windows and tokens per second, memory, validation loss (mean and for each scheme) and bits per
            spike over each unit's training mean.

        Raises
        ------
        ValueError
            If the folder holds a run and ``resume`` is False, or the run there has other settings or data.
        NonFiniteLossError
            If the loss becomes NaN or infinite. The weights before that step and its batches are in
            ``failed``, see :func:`neurokern.training.read_failed_batches`.
        TrainingMemoryError
            If a step needs more memory than there is. The state before it is in ``last``.
        TrainingInterrupted
            After SIGINT or SIGTERM, at the end of the step, with the state in ``last``.
        RankLostError
            If another process of the run ended, or did not answer within ``timeout`` seconds.
        """
        if not set(self.state.names) == set(self.state.network.parameters()):
            raise ValueError("Trainer.fit: a trainer runs once; make a new one to train on")
        self._start(resume)
        gpus = [self.device] if self.device.type == "cuda" else []
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(gpus))
            stack.enter_context(self.stop.listening())
            self.log.open(self.progress.step)
            stack.callback(self.log.close)
            network = self.state.network
            self.stepper.trained = stack.enter_context(frozen_but(network, self.state.optimizer))
            stack.enter_context(accelerated(network, self.config))
            self._loop()
        return self._finish()

    def _loop(self) -> None:
        every = self.config.validate_every or self.plan.steps_per_epoch
        progress = self.progress
        if self.validation is not None and not self.history:
            self._validate()  # what training has to improve on
        steps = range(progress.step, self.total_steps)
        masked = masked_parts(self.windows, self.plan, self.config, self.device, steps)
        self.meter.lap()
        while not self._done():
            passes = [[next(masked) for _ in parts] for parts in self.plan.passes(progress.step)]
            items = list(itertools.chain.from_iterable(self.plan.batches(progress.step)))
            interrupted = self._step(passes)
            if self.ranks.size == 1:  # several must agree, which they do in the next step
                interrupted = bool(self.stop.signal)
            progress.seconds += self.meter.add(len(items), int(self.n_tokens[items].sum()))
            self.log.advance()
            if progress.step % every == 0 or progress.step == self.total_steps:
                self._validate()
            progress.seconds += self.meter.lap()
            if progress.step % self.config.checkpoint_every == 0 or self._done() or interrupted:
                self._save(self.folder / "last")
            if interrupted and not self._done():
                raise TrainingInterrupted(
                    f"Trainer: stopped after step {progress.step} of {self.total_steps}; the state is in "
                    f"{self.folder / 'last'}, go on with fit(resume=True)",
                    self.stop.signal or signal.SIGTERM,  # which another process got
                )

    def _step(self, passes: Passes) -> bool:
        """Train on the passes of a step; returns whether some process was asked to stop."""
        try:
            return self.stepper.step(passes, bool(self.stop.signal))
        except NotFinite as problem:
            self._give_up(problem, self.plan.batches(self.progress.step))
        except NoMemory as problem:
            self._give_up_for_memory(problem)
        raise AssertionError("unreachable")

    def _give_up(self, problem: NotFinite, batches: Sequence[list[int]] = ()) -> None:
        """Save the weights, and the batches that gave a number that is not finite, and say so."""
        step = self.progress.step
        places = range(len(batches)) if problem.place is None else [problem.place]
        masked = [self._masked_batch(place, batches[place]) for place in places]

        def write_batches(folder: Path) -> None:
            write_failed_batches(folder, step, masked)

        self.state.save(self.folder / "failed", self._identity(), write_batches if masked else None)
        what = problem.what
        if problem.place is not None:
            names = ", ".join(map(repr, dict.fromkeys(masked[0].batch.session)))
            what = f"loss of {masked[0].scheme!r} masks on session {names}"
        windows = ", with its windows (read_failed_batches)" if masked else ""
        raise NonFiniteLossError(
            f"Trainer: the {what} is {problem.value} in step {step}; the state before that step is in "
            f"{self.folder / 'failed'}{windows}. A lower learning_rate or a gradient_clip may help"
        )

    def _masked_batch(self, place: int, batch: list[int]) -> MaskedPart:
        """Return a batch of the present step as it is trained on."""
        number = self.progress.step * self.config.batches_per_step + place
        part = Part(number, place, batch, 0, len(batch))
        return mask_part(part, self.windows.batch(batch), self.windows, self.config)

    def _give_up_for_memory(self, problem: NoMemory) -> None:
        """Save the state before a step that found no memory, if it still is one, and say what to change."""
        if not problem.updated:
            self._save(self.folder / "last")
        advice = memory_advice(self.config, problem.windows, self.device, self.ranks.size)
        saved = f"the last checkpoint in {self.folder}" if problem.updated else self.folder / "last"
        raise TrainingMemoryError(
            f"Trainer: out of memory in step {self.progress.step} on {problem.where}; set "
            f"{advice}, and go on from {saved} with fit(resume=True)"
        ) from problem.__cause__

    def _make_sampler(self) -> SessionBatchSampler:
        config = self.config
        if config.max_padding is None:
            return SessionBatchSampler(self.windows, config.batch_size, seed=config.seed)
        return BucketBatchSampler(self.windows, config.batch_size, config.max_padding, seed=config.seed)

    def _unit_weights(self, mean: Tensor) -> Tensor | None:
        """Return a weight for each unit's loss, with which the loss is per expected spike."""
        power = self.config.rate_power
        return None if power is None else (mean**-power / (mean ** (1 - power)).mean()).to(self.device)

    def _check_agreement(self) -> None:
        """Raise ValueError in all processes if one of them was given something else."""
        own = json.dumps(self._identity())
        differs = float(self.ranks.first(lambda: own) != own)
        if n_others := int(self.ranks.add_up(torch.tensor([differs]))):
            raise ValueError(
                f"Trainer: {n_others} of {self.ranks.size} processes have other settings or data than the "
                f"first; start all with the same"
            )

    def _add_sessions(self) -> None:
        with torch.random.fork_rng([]):
            torch.manual_seed(self.config.seed)
            for session in (*self.sessions, *(episode.known for episode in self.episodes)):
                if session.session not in self.model.sessions:
                    counts = all_counts(session) if self.model.config.uses_counts else None
                    self.model.add_session(session.session, session.n_units, session.regions.tolist(), counts)

    def _validate(self) -> None:
        """Add a row to the metrics; keep the weights if they are the best so far."""
        progress = self.progress
        row: dict[str, float] = {
            "step": progress.step,
            "epoch": progress.step / self.plan.steps_per_epoch,
            "train_loss": progress.loss_sum / progress.loss_count if progress.loss_count else math.nan,
            "learning_rate": float(self.state.scheduler.get_last_lr()[0]),
            "seconds": round(progress.seconds, 3),
            **self.meter.rates(),
        }
        progress.loss_sum, progress.loss_count = 0.0, 0
        if self.validation is not None:
            network, average = self.state.network, self.state.average
            precision = functools.partial(half_precision, self.config, self.device)
            run = functools.partial(self.validation.run, network, self.device, precision, self.ranks)
            with average.in_use() if average else nullcontext():
                scores = call_compiled(network, run)
            if not math.isfinite(scores["loss"]):
                self._give_up(NotFinite("validation loss", scores["loss"]))
            row.update({f"validation_{name}": value for name, value in scores.items()})
            progress.worse_in_a_row += 1
            if scores["loss"] < progress.best_loss:
                progress.best_loss, progress.best_step = scores["loss"], progress.step
                progress.worse_in_a_row = 0
                self.state.save_best(self.folder / "best")
        self.log.add(row)

    def _done(self) -> bool:
        patience = self.config.patience
        impatient = patience is not None and self.progress.worse_in_a_row >= patience
        return impatient or self.progress.step >= self.total_steps

    def _start(self, resume: bool) -> None:
        """Begin at step 0, or at the last checkpoint of this run, which the first process reads."""
        tensors: dict[str, Tensor] = {}
        shapes = {name: tensor.shape for name, tensor in self.model.state_dict().items()}

        def read() -> dict[str, Any] | None:
            try:
                last = find_checkpoint(self.folder / "last")
            except FileNotFoundError:
                return None
            if not resume:
                raise ValueError(
                    f"Trainer.fit: {self.folder} already holds a run; "
                    f"continue it with resume=True or choose another folder"
                )
            values, stored = read_training_state(last, self._identity(), shapes)
            tensors.update(stored)
            return {"values": values, "rows": self.log.read(step_of(values, last))}

        state = self.ranks.first(read)
        if state is None:
            logger.info("training %d steps from the beginning in %s", self.total_steps, self.folder)
            return
        self.state.fill(self.folder / "last", state["values"], self.ranks.share(tensors))
        self.log.rows = state["rows"]
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
        self.state.save(folder, self._identity())

    def _finish(self) -> pd.DataFrame:
        """Leave the best weights in the model, in evaluation mode, and return the metrics."""
        if self.validation is None:
            self.state.save_best(self.folder / "best")
        best: dict[str, Tensor] = {}
        self.ranks.first(lambda: best.update(self._without_episodes(load_model(self.folder / "best"))))
        self._without_episodes(self.model)
        self.model.to(self.device).load_state_dict(self.ranks.share(best))
        if (self._refit() or self.episodes) and self.ranks.is_first:
            with replace_checkpoint(self.folder / "best") as temporary:
                write_model(self.model, temporary)
        self.model.eval()
        self.ranks.add_up(torch.zeros(1))  # nobody returns before the files are there
        self.ranks.leave_at_exit()
        return pd.DataFrame(self.history)

    def _without_episodes(self, model: MtM) -> dict[str, Tensor]:
        for name in {episode.known.session for episode in self.episodes} & set(model.sessions):
            model.remove_session(name)
        return model.state_dict()

    def _refit(self) -> bool:
        """Estimate the sessions' parts from training and validation windows; says whether it did."""
        in_closed_form = self.model.config.needs_counts and self.config.session_learning_rate == 0
        if self.validation is None or not (self.config.refit and in_closed_form):
            return False
        train = {session.session: session for session in self.sessions}
        for held_out in self.validation.windows.sessions:
            counts = joined_counts(train[held_out.session], held_out)
            self.model.refit_session(held_out.session, counts)
        return True
