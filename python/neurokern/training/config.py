"""How a model is trained: one frozen object that is stored with the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from neurokern._check import check_choice, check_fraction, check_integer, check_positive
from neurokern.models.masking import Masking

# May change between a run and its continuation: none of them changes a number, but for rounding and, with
# other parts, the draws of dropout.
FREE_TO_CHANGE = (
    "n_workers",
    "device",
    "progress",
    "checkpoint_every",
    "micro_batch_size",
    "compile",
    "recompute",
    "strategy",
    "timeout",
    "tensorboard",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Options of a :class:`Trainer`. Start from :meth:`paper`, :meth:`modern` or :meth:`small`.

    Parameters
    ----------
    seed : int
        Of the order of windows, masks and dropout. One seed gives one result, bit for bit on a CPU with one
        number of threads.
    batch_size : int
        Windows in a batch, under one masking scheme and, but with ``max_padding``, of one session.
    max_padding : float, optional
        Mix in a batch the windows of sessions of which the largest has at most ``1 + max_padding`` times the
        units of the smallest, see :class:`neurokern.datasets.BucketBatchSampler`. Sessions meet in every
        batch that way, also those with fewer windows than a batch.
    batches_per_step : int
        Batches whose gradients are added up for one step of the optimizer; with several, a step mixes
        sessions and schemes. All processes of a distributed run share the
        ``batch_size * batches_per_step`` windows of a step: the result does not depend on how many they are.
    micro_batch_size : int, optional
        Most windows that go through the model at once, in whole or cut batches: below ``batch_size`` it takes
        less memory, above it several batches of a step share a pass, which fills a GPU. The gradient is the
        same but for rounding and dropout, whose draws belong to a pass. By default ``batch_size``, and a
        process takes no more than its share of a batch at once.
    max_epochs, max_steps : int
        Length of the run: so many passes over all windows, or so many steps if ``max_steps`` is given.
    learning_rate, weight_decay : float
        Highest learning rate of the one-cycle schedule, and AdamW's decay.
    rate_scaling : {"none", "sqrt"}
        "sqrt" multiplies the learning rates by the square root of the number of windows in a step.
    session_learning_rate, session_weight_decay : float, optional
        The same for the read-ins and read-outs of the sessions; those of the trunk when not given. A rate of
        0 keeps them as they started.
    decay : {"all", "matrices"}
        Which weights decay: all (published), or all but biases, norms, positions, tokens and embeddings.
    warmup, div_factor, final_div_factor : float
        Of ``torch.optim.lr_scheduler.OneCycleLR``: share of the run until the highest rate, and by what the
        first and the last rate are smaller.
    reduction : {"sum", "mean"}
        Of the loss, see :func:`neurokern.models.poisson_loss`.
    rate_power : float, optional
        Divide the loss of a unit by its mean count to this power: 0 lets active units lead, 1 gives every
        unit the same say; the loss is then per expected spike. Not weighted at all (published) when not
        given.
    gradient_clip : float, optional
        Largest norm of the gradient.
    refit : bool
        After the best weights were chosen, estimate what the sessions have in closed form anew from training
        and validation windows together: where rates drift, the last windows matter most. Only for
        ``MtMConfig.small`` with a ``session_learning_rate`` of 0.
    episodes : tuple of float
        Train on parts of sessions too, with ``MtMConfig.small``: for each of these shares, a copy of the
        session knows its windows up to there and is trained on those that follow. What is estimated in closed
        form fits its own windows too well; from episodes the trunk learns how it does on later ones.
    episode_length : float
        How much follows, as a share of the session's windows.
    ema_decay : float, optional
        Validate and keep an exponential moving average of the weights instead of the last ones.
    masking : Masking
        Schemes and ratios.
    validate_every : int, optional
        Steps between validations; once an epoch when not given.
    patience : int, optional
        Stop after so many validations without a better one.
    checkpoint_every : int
        Steps between checkpoints to resume from.
    n_workers : int
        Processes that read batches, for each process that trains.
    device : str
        "auto" takes a GPU if there is one; under ``torchrun``, each process its own.
    bf16 : bool
        Run the model in bfloat16 where it is safe; the loss stays in float32.
    fp16 : bool
        The same in float16, with a loss scale that adapts; for GPUs without bfloat16.
    compile : bool
        Compile the layers of the trunk with ``torch.compile``. Where that fails, a warning says why and
        training goes on without.
    recompute : bool
        Keep only the inputs of the layers for the backward pass and compute the rest again: less memory,
        about a third more time.
    strategy : {"replicate", "shard"}
        Where several processes train: each holds the whole model and gradients are added up (as DDP does), or
        the trunk and its optimizer state are spread over them (FSDP2).
    timeout : float
        Seconds to wait for another process before it counts as lost.
    tensorboard : bool
        Write the metrics for TensorBoard, too.
    progress : bool
        Show a progress bar, if the output is a terminal.
    """

    seed: int = 42
    batch_size: int = 16
    max_padding: float | None = None
    batches_per_step: int = 1
    micro_batch_size: int | None = None
    max_epochs: int = 1000
    max_steps: int | None = None
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    rate_scaling: Literal["none", "sqrt"] = "none"
    session_learning_rate: float | None = None
    session_weight_decay: float | None = None
    decay: Literal["all", "matrices"] = "all"
    warmup: float = 0.15
    div_factor: float = 10.0
    final_div_factor: float = 1e4
    reduction: Literal["sum", "mean"] = "sum"
    rate_power: float | None = None
    gradient_clip: float | None = None
    refit: bool = False
    episodes: tuple[float, ...] = ()
    episode_length: float = 0.3
    ema_decay: float | None = None
    masking: Masking = field(default_factory=Masking)
    validate_every: int | None = None
    patience: int | None = None
    checkpoint_every: int = 1000
    n_workers: int = 0
    device: str = "auto"
    bf16: bool = False
    fp16: bool = False
    compile: bool = False
    recompute: bool = False
    strategy: Literal["replicate", "shard"] = "replicate"
    timeout: float = 600.0
    tensorboard: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "batches_per_step",
            "micro_batch_size",
            "max_epochs",
            "checkpoint_every",
            "max_steps",
            "validate_every",
            "patience",
        ):
            if getattr(self, name) is not None:
                check_integer("TrainingConfig", name, getattr(self, name))
                check_positive("TrainingConfig", name, getattr(self, name))
        if self.max_padding is not None and not self.max_padding >= 0:
            raise ValueError(f"TrainingConfig: max_padding must be at least 0, got {self.max_padding!r}")
        if self.gradient_clip is not None:
            check_positive("TrainingConfig", "gradient_clip", self.gradient_clip)
        if not 0 <= check_integer("TrainingConfig", "seed", self.seed) < 2**63:
            raise ValueError(f"TrainingConfig: seed must lie in [0, 2**63), got {self.seed}")
        if check_integer("TrainingConfig", "n_workers", self.n_workers) < 0:
            raise ValueError(f"TrainingConfig: n_workers must be at least 0, got {self.n_workers}")
        for name in ("learning_rate", "div_factor", "final_div_factor", "timeout"):
            check_positive("TrainingConfig", name, getattr(self, name))
        for name in ("weight_decay", "session_learning_rate", "session_weight_decay"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"TrainingConfig: {name} must be at least 0, got {getattr(self, name)!r}")
        check_fraction("TrainingConfig", "warmup", self.warmup)
        if self.ema_decay is not None:
            check_fraction("TrainingConfig", "ema_decay", self.ema_decay)
        for share in (*self.episodes, self.episode_length):
            if not 0 < share < 1:
                raise ValueError(
                    f"TrainingConfig: episodes and their length must lie in (0, 1), got {share!r}"
                )
        check_choice("TrainingConfig", "decay", self.decay, ("all", "matrices"))
        check_choice("TrainingConfig", "reduction", self.reduction, ("sum", "mean"))
        check_choice("TrainingConfig", "rate_scaling", self.rate_scaling, ("none", "sqrt"))
        check_choice("TrainingConfig", "strategy", self.strategy, ("replicate", "shard"))
        if self.bf16 and self.fp16:
            raise ValueError("TrainingConfig: bf16 and fp16 exclude each other; bf16 needs no loss scale")
        if self.fp16 and self.strategy == "shard":
            raise ValueError("TrainingConfig: strategy 'shard' takes bf16 or float32, got fp16")

    @classmethod
    def paper(cls, **changes: Any) -> TrainingConfig:
        """Return the published optimizer, schedule, loss and masks (arXiv:2407.14668)."""
        return cls(**changes)

    @classmethod
    def modern(cls, **changes: Any) -> TrainingConfig:
        """Return the published masks and schedule with today's optimization.

        The mean loss, which weighs sessions and schemes alike, a clipped gradient, bfloat16, decay of the
        trunk's matrices alone, and a rate that grows with the square root of the windows in a step, as in
        IBL's BrainWideBench [1]_.

        References
        ----------
        .. [1] https://github.com/brainbench-org/ibl-bwb (commit 3c8cee9), its MtM recipe.
        """
        recipe: dict[str, Any] = {
            "learning_rate": 1e-4,
            "rate_scaling": "sqrt",
            "decay": "matrices",
            "session_weight_decay": 0.0,
            "reduction": "mean",
            "gradient_clip": 1.0,
            "bf16": True,
        }
        return cls(**{**recipe, **changes})

    @classmethod
    def small(cls, **changes: Any) -> TrainingConfig:
        """Return the recipe for ``MtMConfig.small``: hundreds of trials, minutes on a CPU."""
        recipe: dict[str, Any] = {
            "batch_size": 16,
            "max_steps": 1000,
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "decay": "matrices",
            "final_div_factor": 100.0,
            "reduction": "mean",
            "rate_power": 0.25,
            "gradient_clip": 1.0,
            "session_learning_rate": 0.0,
            "refit": True,
            "episodes": (0.4, 0.55, 0.7, 0.85),
            "masking": Masking(ratio=(0.05, 0.3), causal_targets="random-cut", region_choice="sample"),
            "validate_every": 100,
        }
        return cls(**{**recipe, **changes})

    @property
    def windows_per_step(self) -> int:
        """Windows of a step of the optimizer, over all processes; the last of an epoch may have fewer."""
        return self.batch_size * self.batches_per_step

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON and YAML can hold."""
        values = dataclasses.asdict(self)
        masking = {k: list(v) if isinstance(v, tuple) else v for k, v in values["masking"].items()}
        return {**values, "episodes": list(self.episodes), "masking": masking}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Return the config that :meth:`to_dict` described; unknown names are an error."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"TrainingConfig: unknown settings {unknown}; known are {sorted(known)}")
        masking = Masking.from_dict(values.get("masking", {}))
        return cls(**{**values, "episodes": tuple(values.get("episodes", ())), "masking": masking})
