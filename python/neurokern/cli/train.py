"""``neurokern train``: pretrain MtM on one or many recordings."""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from neurokern._config import to_mapping, write_text, write_yaml
from neurokern.cli._common import new_parser, require_torch, say, speaks

if TYPE_CHECKING:
    import pandas as pd

    from neurokern.cli.sessions import LoadedSession
    from neurokern.cli.settings import RunSettings
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.models import MtM

_EXAMPLES = """\
  neurokern train sessions/ --out runs/a
  neurokern train alf/probe00 more.npz --out runs/b --set training.max_steps=500
  neurokern train sessions/ --out runs/a --resume           go on after an interruption
  neurokern train --config runs/a/run.yaml --out runs/c     the same run again, same result
  torchrun --nproc-per-node 4 -m neurokern train sessions/ --out runs/d    on four GPUs of this machine

Settings most often changed, as --set NAME=VALUE, with the defaults of the recipe small (run.yaml lists all):
  training.max_steps=1000            steps of the optimizer
  training.batch_size=16             windows in a batch
  training.batches_per_step=1        batches in a step: with several, a step mixes sessions and schemes
  training.micro_batch_size=null     most windows in the model at once: lower it if memory runs out
  training.max_padding=null          0.25 mixes sessions in a batch that differ by up to 25 % in units
  training.learning_rate=0.001       the highest of the cycle
  training.n_workers=0               processes that read windows
  training.device=auto               cpu, cuda, or auto: cuda where there is a GPU
  windows.bin_size=0.02              seconds
  windows.tmin=-0.5                  seconds from each trial's event, to windows.tmax=1.5
  windows.length=1.0                 seconds of a window where there are no trials

The folder gets run.yaml (every setting, the data included), environment.json, metrics.csv, best/ (the
weights with the lowest validation loss) and last/ (to resume from). On a CPU, run.yaml and the same
number of threads give the same weights bit for bit.

Under torchrun (several processes, GPUs or machines), the processes share the windows of each step: the
result is that of one process but for rounding and dropout. For larger steps, which more processes are for,
set training.batches_per_step. Any number of processes resumes a run. With Ctrl-C or SIGTERM, training ends
after the step with a checkpoint.
"""

_MOST_THREADS = 1024  # beyond, starting them may end the process
_RUN_FILES = ("run.yaml", "environment.json", "metrics.csv", "best", "last")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``train``."""
    parser = new_parser(
        commands,
        "train",
        run,
        summary="pretrain MtM on recordings",
        description=(
            "Train MtM by multi-task masking. DATA are ALF folders, folders of Kilosort or Phy, .nwb files, "
            ".npz files of spike times or of counts, "
            "or folders of them. The last windows of each recording are held out for validation and test."
        ),
        examples=_EXAMPLES,
    )
    from neurokern.cli._flags import add_settings_flags

    parser.add_argument("data", nargs="*", metavar="DATA", help="recordings, or folders of recordings")
    parser.add_argument("--out", required=True, metavar="RUN", help="folder for the run")
    parser.add_argument(
        "--recipe",
        choices=("small", "modern", "paper", "ndt2"),
        help="model and training to start from: small data (default), unit embeddings for many sessions, the "
        "published model, or its variant with patches of units",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    add_settings_flags(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Load, split, train, and say where the result is."""
    require_torch("train")
    from neurokern.cli.sessions import load_sessions, split_for_training

    folder = pathlib.Path(args.out)
    settings = _settings(args, folder)
    use_threads(settings.threads)
    if not speaks():
        logging.getLogger("neurokern").setLevel(logging.WARNING)
    loaded = load_sessions(settings.data, settings.windows)
    splits = {one.session.session: split_for_training(one.session, settings.split) for one in loaded}
    settings = fit_to_windows(settings, [one.session for one in loaded])
    describe_sessions(loaded, splits)
    args.interrupted = f"; go on with: neurokern train --out {folder} --resume"
    _, history = train_model(settings, list(splits.values()), folder, resume=args.resume)
    last = history.iloc[-1]
    loss = "validation_loss" if "validation_loss" in history else "train_loss"
    say(f"trained {int(last['step'])} steps; {loss.replace('_', ' ')} {history[loss].min():.4f}")
    say(f"weights   {folder / 'best'}")
    say(f"settings  {folder / 'run.yaml'}")
    say(f"next      neurokern evaluate {folder} --report")


def _settings(args: argparse.Namespace, folder: pathlib.Path) -> RunSettings:
    from neurokern.cli.settings import effective_settings, read_run_settings, settings_of_recipe, with_data

    stored = args.resume and (folder / "run.yaml").is_file()
    if stored and args.recipe:
        raise ValueError("--recipe belongs to a new run; --resume goes on with the recipe of the folder")
    defaults = read_run_settings(folder) if stored else settings_of_recipe(args.recipe or "small")
    settings = with_data(effective_settings(args, defaults), args.data)
    if not settings.data:
        raise ValueError("no DATA given: name recordings, or a --config file that names them")
    return settings


def use_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads in this process; None leaves it as it is."""
    import torch

    if threads is None:
        return
    if not 1 <= threads <= _MOST_THREADS:
        raise ValueError(f"threads must lie in 1 ... {_MOST_THREADS}, got {threads}")
    torch.set_num_threads(threads)


def fit_to_windows(settings: RunSettings, sessions: Sequence[BinnedSession]) -> RunSettings:
    """Return the settings with as many positions in the model as the windows have bins."""
    bins = {session.session: session.n_bins for session in sessions}
    if len(set(bins.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in bins.items())
        raise ValueError(f"windows of all sessions must have the same number of bins, got {listed}")
    return replace(settings, model=replace(settings.model, n_bins=next(iter(bins.values()))))


def check_fit(model: MtM, session: BinnedSession) -> None:
    """Raise ValueError if the model cannot read the windows, or knows the session with other units."""
    name, most = session.session, model.config.n_bins
    if session.n_bins > most:
        raise ValueError(
            f"{name}: windows have {session.n_bins} bins, the model takes up to {most}; set shorter windows "
            "(windows.tmin and windows.tmax around trials, windows.length without) or wider bins "
            "(windows.bin_size)"
        )
    known = model.session_parts(name).n_units if name in model.sessions else session.n_units
    if known != session.n_units:
        raise ValueError(
            f"{name}: has {session.n_units} units, but the model knows a session of that name with {known}; "
            "rename the recording if it is another one"
        )


def describe_sessions(
    loaded: Sequence[LoadedSession],
    splits: Mapping[str, Splits[BinnedSession]],
    write: Callable[[str], None] = say,
) -> None:
    """Say what each session holds, how it was windowed and split, and what was assumed."""
    for one in loaded:
        session, parts = one.session, splits[one.session.session]
        sizes = (len(part) for part in (parts.train, parts.validation, parts.test))
        counts = " / ".join(map(str, sizes))
        write(
            f"{session.session}: {session.n_units} units, {len(set(session.regions.tolist()))} regions; "
            f"{one.how}; {counts} train / validation / test windows of {session.n_bins} bins"
        )
        for note in one.notes:
            write(f"note: {note}")


def prepare_folder(
    folder: pathlib.Path, settings: RunSettings, *, resume: bool = False, replace: bool = False
) -> None:
    """Write run.yaml and environment.json.

    Raises
    ------
    ValueError
        If the folder holds a file that a run writes and neither ``resume`` nor ``replace`` is given, or
        ``replace`` is and it holds something else than a run.
    """
    from neurokern._environment import describe_environment

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --out, a folder")
    if resume and any((folder / name).is_dir() for name in ("last", ".last.previous")):
        return  # whether it may go on with these settings, the trainer says; until then, run.yaml is its own
    if replace and folder.exists():
        _clear_run(folder)
    taken = [name for name in _RUN_FILES if (folder / name).exists()]
    if taken and not resume:
        raise ValueError(
            f"{folder} holds a run already ({', '.join(taken)}); choose another --out, or go on with --resume"
        )
    write_yaml(folder / "run.yaml", settings)
    write_text(folder / "environment.json", json.dumps(describe_environment(), indent=2) + "\n")


def _clear_run(folder: pathlib.Path) -> None:
    """Delete what an earlier run left in its folder, and nothing else."""
    if not (folder / "run.yaml").is_file():
        if any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no earlier run; choose another --out")
        return
    for name in ("last", "best", "failed", "tensorboard"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    for name in ("metrics.csv", "environment.json", "run.yaml"):
        (folder / name).unlink(missing_ok=True)


def train_model(
    settings: RunSettings,
    splits: Sequence[Splits[BinnedSession]],
    folder: pathlib.Path,
    *,
    resume: bool = False,
    replace: bool = False,
) -> tuple[MtM, pd.DataFrame]:
    """Train a new model on the sessions' training windows; return it with its history.

    The folder is made, or cleared of an earlier run with ``replace``, once the settings are found good.
    """
    import torch

    from neurokern.models import MtM
    from neurokern.training import Trainer

    with torch.random.fork_rng([]):
        torch.manual_seed(settings.training.seed)  # the weights at the start
        model = MtM(settings.model)
    trainer = Trainer(
        model,
        [parts.train for parts in splits],
        [parts.validation for parts in splits if len(parts.validation)],
        settings.training,
        folder,
    )
    # Under torchrun, the first process alone writes, and all end if it cannot.
    trainer.ranks.first(lambda: prepare_folder(folder, settings, resume=resume, replace=replace))
    history = trainer.fit(resume=resume)
    if resume and trainer.ranks.is_first:
        write_yaml(folder / "run.yaml", settings)  # the data may have moved
    return model, history


def settings_text(settings: RunSettings) -> str:
    """Return the settings as YAML, for terminal and report."""
    import yaml

    return yaml.safe_dump(to_mapping(settings), sort_keys=False, default_flow_style=None).rstrip()
