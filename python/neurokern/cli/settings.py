"""The configuration of a training run: every value that decides its result, from file and flags."""

from __future__ import annotations

import argparse
import os
import pathlib
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from neurokern._config import apply_settings, parse_flags, read_yaml
from neurokern.cli.sessions import SplitSettings, WindowSettings
from neurokern.models import MtMConfig
from neurokern.training import TrainingConfig

__all__ = [
    "RUN_FILE",
    "RunSettings",
    "SplitSettings",
    "WindowSettings",
    "effective_settings",
    "settings_of_recipe",
]

RUN_FILE = "run.yaml"

T = TypeVar("T")


def _default_training() -> TrainingConfig:
    return TrainingConfig.small(checkpoint_every=100)  # an interruption costs seconds of work


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything that decides the result of a training run, given the data.

    Attributes
    ----------
    data : tuple of str
        Recordings, or folders of them.
    threads : int or None
        CPU threads of torch; None takes torch's own number. One by default: a small model is as fast on it,
        and much faster where other programs run beside it. One number of threads belongs to one result, since
        sums in another order round differently.
    windows, split, model, training
        See their classes.
    """

    data: tuple[str, ...] = ()
    threads: int | None = 1
    windows: WindowSettings = field(default_factory=WindowSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    model: MtMConfig = field(default_factory=MtMConfig.small)
    training: TrainingConfig = field(default_factory=_default_training)


def settings_of_recipe(name: str) -> RunSettings:
    """Return the settings of a recipe of :class:`MtMConfig`, with the training that belongs to it.

    "ndt2" is trained as "paper": the published variant differs in the model alone.
    """
    train = getattr(TrainingConfig, "paper" if name == "ndt2" else name)
    return RunSettings(model=getattr(MtMConfig, name)(), training=train(checkpoint_every=100))


def effective_settings(args: argparse.Namespace, defaults: T) -> T:
    """Return the defaults with ``--config`` in their place, then ``--seed``, then ``--set``."""
    settings = defaults
    if args.config:
        settings = apply_settings(settings, read_yaml(args.config), where=os.path.basename(args.config))
    if args.seed is not None:
        settings = apply_settings(settings, {"training": {"seed": args.seed}, "split": {"seed": args.seed}})
    return apply_settings(settings, parse_flags(args.settings), where="--set")


def with_data(settings: RunSettings, data: list[str]) -> RunSettings:
    """Return the settings with ``data`` as absolute paths, so that run.yaml works from any folder."""
    paths = data or list(settings.data)
    return replace(settings, data=tuple(str(pathlib.Path(path).expanduser().resolve()) for path in paths))


def read_run_settings(run: pathlib.Path) -> RunSettings:
    """Return the settings stored in a run folder."""
    file = run / RUN_FILE
    if not run.is_dir() or not file.is_file():
        raise FileNotFoundError(
            f"{run} is not a run folder: it holds no {RUN_FILE}; make one with: neurokern train"
        )
    values: dict[str, Any] = read_yaml(file)
    return apply_settings(RunSettings(), values, where=RUN_FILE)
