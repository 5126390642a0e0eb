"""What a run needs to go on where it stopped: optimizer, schedule, place and best result, without pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from neurokern.checkpoint import check_format, read_json, read_tensors, write_json

FORMAT = "neurokern-training"
FORMAT_VERSION = 1
TENSORS = "trainer.safetensors"
VALUES = "trainer.json"


@dataclass(slots=True)
class Progress:
    """Where a run is. The order of windows, masks and dropout follow from ``step`` and the seed."""

    step: int = 0  # batches trained on
    best_step: int = 0
    best_loss: float = math.inf
    worse_in_a_row: int = 0  # validations since the best one
    loss_sum: float = 0.0  # of the batches since the last row of metrics
    loss_count: int = 0
    seconds: float = 0.0


def save_training_state(
    folder: Path,
    names: Mapping[Tensor, str],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.OneCycleLR,
    average: Mapping[str, Tensor],
    progress: Progress,
    identity: Mapping[str, Any],
) -> None:
    """Write the state beside the model; ``identity`` says to which run it belongs."""
    tensors = {f"average/{name}": tensor for name, tensor in average.items()}
    for parameter, state in optimizer.state.items():
        tensors.update({f"optimizer/{names[parameter]}/{key}": value for key, value in state.items()})
    save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, folder / TENSORS)
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    values = asdict(progress)
    values["best_loss"] = None if math.isinf(progress.best_loss) else progress.best_loss
    write_json(
        folder / VALUES,
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "identity": dict(identity),
            "progress": values,
            "groups": groups,
            "scheduler": scheduler.state_dict(),
        },
    )


def load_training_state(
    folder: Path,
    names: Mapping[Tensor, str],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.OneCycleLR,
    average: Mapping[str, Tensor],
    identity: Mapping[str, Any],
) -> Progress:
    """Fill optimizer, schedule and average in place from a folder and return the progress.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, damaged, of another version, or belongs to a run with other settings or data.
    """
    values = read_run_values(folder, identity)
    tensors = read_tensors(folder / TENSORS)
    for name, tensor in average.items():
        tensor.copy_(_take(tensors, f"average/{name}", tensor.shape, folder))
    for parameter, name in names.items():
        prefix = f"optimizer/{name}/"
        own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        if own:
            _take(tensors, f"{prefix}exp_avg", parameter.shape, folder)
            on_device = {k: t if k == "step" else t.to(parameter.device) for k, t in own.items()}
            optimizer.state[parameter] = on_device
    try:
        for group, saved in zip(optimizer.param_groups, values["groups"], strict=True):
            group.update({**saved, "betas": tuple(saved["betas"])})
        scheduler.load_state_dict(values["scheduler"])
        best_loss = values["progress"].pop("best_loss")
        return Progress(best_loss=math.inf if best_loss is None else best_loss, **values["progress"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Trainer: {folder / VALUES} does not describe a run: {error}") from error


def read_run_values(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not a tensor of a stored state, or raise if it belongs to another run."""
    values = read_json(folder / VALUES)
    check_format(values, folder / VALUES, FORMAT, FORMAT_VERSION)
    saved = values.get("identity", {})
    if not isinstance(saved, Mapping):
        raise ValueError(f"Trainer: {folder / VALUES} does not describe a run: identity is {saved!r}")
    _check_identity(saved, identity)
    return values


def _check_identity(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    different = {k: (saved.get(k), now.get(k)) for k in {**saved, **now} if saved.get(k) != now.get(k)}
    if different:
        listed = "; ".join(
            f"{k}: {was!r} then, {is_now!r} now" for k, (was, is_now) in sorted(different.items())
        )
        raise ValueError(
            f"Trainer: the checkpoint belongs to another run ({listed}); "
            f"resume with the settings and data it was started with, or train in another folder"
        )


def _take(tensors: Mapping[str, Tensor], name: str, shape: torch.Size, folder: Path) -> Tensor:
    if name not in tensors or tensors[name].shape != shape:
        got = tuple(tensors[name].shape) if name in tensors else "nothing"
        raise ValueError(f"Trainer: {name} in {folder / TENSORS} must have shape {tuple(shape)}, got {got}")
    return tensors[name]
