"""Where the time of a training step goes: reading, masking, model, loss, gradients, optimizer; one thread.

    python benchmarks/pipeline/bench_training_step.py --quick        # does it run?
    python benchmarks/pipeline/bench_training_step.py --save         # a table; rows to benchmarks/results

Made sessions as large as the published ones, in memory as bytes. Times are CPU seconds of real steps of a
trainer; a phase's ratio is its share of all steps. Phases leave out little: sums of losses, checks.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch

from neurokern.datasets import BinnedSession, SpikeWindows
from neurokern.models import MtM, MtMConfig
from neurokern.training import Trainer, TrainingConfig, loading, step
from neurokern.training.optimizer import frozen_but

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

STEP = "whole step"
PHASES = ("read", "mask", "forward", "loss", "backward", "optimizer")


@dataclass(frozen=True)
class Workload:
    """A recipe on windows of one size."""

    model: Callable[..., MtMConfig]
    training: Callable[..., TrainingConfig]
    n_units: int
    n_bins: int


WORKLOADS = {
    "paper, 16 windows of 100 bins, 676 units": Workload(MtMConfig.paper, TrainingConfig.paper, 676, 100),
    "modern, 16 windows of 100 bins, 676 units": Workload(MtMConfig.modern, TrainingConfig.modern, 676, 100),
    "small, 16 windows of 100 bins, 676 units": Workload(MtMConfig.small, TrainingConfig.small, 676, 100),
    "small, 16 windows of 20 bins, 676 units": Workload(MtMConfig.small, TrainingConfig.small, 676, 20),
}


def made_session(name: str, n_units: int, n_bins: int, n_windows: int) -> BinnedSession:
    """Counts at 5 Hz in bins of 20 ms, units in 12 regions."""
    rng = np.random.default_rng(len(name))
    return BinnedSession(
        counts=rng.poisson(0.1, (n_windows, n_bins, n_units)).astype(np.uint8),
        bin_size=0.02,
        regions=np.array([f"region {k % 12:02d}" for k in range(n_units)]),
        unit_ids=np.arange(n_units),
        session=name,
    )


class Clock:
    """CPU seconds of each phase in each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._step: dict[str, float] = {}

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time added to a phase of the present step."""

        def call(*arguments: Any, **named: Any) -> Any:
            before = time.process_time()
            result = function(*arguments, **named)
            self._step[phase] = self._step.get(phase, 0.0) + time.process_time() - before
            return result

        return call

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a step."""
        self._step = {}
        before = time.process_time()
        yield
        for phase in PHASES:
            self.seconds[phase].append(self._step.get(phase, 0.0))
        self.seconds[STEP].append(time.process_time() - before)


def profile(workload: Workload, n_steps: int, budget: float) -> dict[str, list[float]]:
    """Return the CPU seconds of each phase of each step but those of a first round of reading."""
    sessions = [made_session(f"session {k}", workload.n_units, workload.n_bins, 64) for k in range(2)]
    torch.manual_seed(0)
    model = MtM(workload.model(n_bins=workload.n_bins))
    config = workload.training(batch_size=16, max_steps=10_000, bf16=False, progress=False, device="cpu")
    trainer = Trainer(model, sessions, [], config, "never-written")
    trainer.model.train()
    stepper, network, clock = trainer.stepper, trainer.state.network, Clock()
    patches = [
        mock.patch.object(SpikeWindows, "__getitems__", clock.timed("read", SpikeWindows.__getitems__)),
        mock.patch.object(loading, "mask_part", clock.timed("mask", loading.mask_part)),
        mock.patch.object(network, "forward_parts", clock.timed("forward", network.forward_parts)),
        mock.patch.object(step, "poisson_loss", clock.timed("loss", step.poisson_loss)),
        mock.patch.object(torch.Tensor, "backward", clock.timed("backward", torch.Tensor.backward)),
        mock.patch.object(stepper, "_update", clock.timed("optimizer", stepper._update)),
    ]
    for patch in patches:
        patch.start()
    begun = time.process_time()
    # Read as a DataLoader without workers reads; with workers, this phase is theirs.
    ahead = loading.parts_ahead(trainer.windows, config)  # the first of these warm up; then whole rounds
    steps = range(ahead * (1 + -(-n_steps // ahead)))
    parts = loading.masked_parts(trainer.windows, trainer.plan, config, trainer.device, steps)
    with frozen_but(network, trainer.state.optimizer) as stepper.trained:
        for number in steps:
            with clock.step():
                stepper.step([[next(parts) for _ in one] for one in trainer.plan.passes(number)])
            if number > ahead and (number + 1) % ahead == 0 and time.process_time() - begun > budget:
                break
    for patch in patches:
        patch.stop()
    return {phase: seconds[ahead:] for phase, seconds in clock.seconds.items()}


def rows_of(name: str, workload: Workload, n_steps: int, budget: float) -> list[harness.Row]:
    """Return a row for the step and for each phase."""
    seconds = profile(workload, n_steps, budget)
    rows = []
    for phase in (STEP, *PHASES):
        found = seconds[phase]
        timing = harness.Timing(median(found), min(found), max(found), len(found))
        # Shares of sums: several parts are read and masked in one step, for those after it.
        share = sum(found) / sum(seconds[STEP])
        rows.append(harness.Row(name, phase, 16, timing, share, share, None, 0, 0))
    return rows


def main() -> None:
    options = harness.arguments(__doc__ or "", repeats=20).parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, workload in WORKLOADS.items():
        if options.workload in name:
            n_steps = 2 if options.quick else options.repeats
            rows += rows_of(name, workload, n_steps, options.budget)
    harness.report("training_step", rows, harness.machine_facts(("numpy", "torch")), options.save)


if __name__ == "__main__":
    main()
