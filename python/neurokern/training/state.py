"""What a run needs to go on where it stopped: optimizer, schedule, place and best result, without pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from neurokern.checkpoint import (
    CONFIG,
    WEIGHTS,
    check_format,
    check_hash,
    read_json,
    read_tensors,
    sha256_of,
    write_json,
)
from neurokern.models import MtMConfig
from neurokern.training.config import TrainingConfig
from neurokern.training.sharding import copy_whole, whole

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


def training_state(
    names: Mapping[Tensor, str], optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a state, by name; where they are spread, all processes call this together."""
    tensors: dict[str, Tensor] = {f"average/{name}": whole(tensor) for name, tensor in average.items()}
    for parameter, state in optimizer.state.items():
        tensors.update({f"optimizer/{names[parameter]}/{key}": whole(value) for key, value in state.items()})
    return tensors


def write_training_state(
    folder: Path,
    tensors: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.OneCycleLR,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    identity: Mapping[str, Any],
) -> None:
    """Write the state beside the model; ``identity`` says to which run it belongs."""
    save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, folder / TENSORS)
    values = asdict(progress)
    values["best_loss"] = None if math.isinf(progress.best_loss) else progress.best_loss
    write_json(
        folder / VALUES,
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "identity": dict(identity),
            "sha256": sha256_of(folder / TENSORS),
            "progress": values,
            "groups": [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups],
            "scheduler": scheduler.state_dict(),
            "loss_scale": scaler.state_dict(),
        },
    )


def read_training_state(
    folder: Path, identity: Mapping[str, Any], shapes: Mapping[str, torch.Size]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return values and tensors of a stored state; the weights of the model are under ``model/``.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, damaged, of another version, or belongs to a run with other settings or data.
    """
    values = read_run_values(folder, identity)  # other settings may mean other weights: they come first
    weights = read_tensors(folder / WEIGHTS, expected=shapes)
    check_hash(folder / WEIGHTS, read_json(folder / CONFIG).get("weights_sha256"))
    tensors = read_tensors(folder / TENSORS)
    check_hash(folder / TENSORS, values.get("sha256"))
    return values, {**tensors, **{f"model/{name}": tensor for name, tensor in weights.items()}}


def fill_training_state(
    folder: Path,
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    names: Mapping[Tensor, str],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.OneCycleLR,
    scaler: torch.amp.GradScaler,
    average: Mapping[str, Tensor],
) -> Progress:
    """Fill optimizer, schedule and average in place from what was read and return the progress."""
    for name, tensor in average.items():
        copy_whole(tensor, _take(tensors, f"average/{name}", tensor.shape, folder))
    for parameter, name in names.items():
        prefix = f"optimizer/{name}/"
        own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        if own:
            _take(tensors, f"{prefix}exp_avg", parameter.shape, folder)
            optimizer.state[parameter] = {
                key: t if key == "step" else _like(parameter, t) for key, t in own.items()
            }
    try:
        # A group is known by its rate and decay: where weights are spread, there are more groups of them.
        by_rate = {(group["max_lr"], group["weight_decay"]): group for group in values["groups"]}
        for group in optimizer.param_groups:
            saved = by_rate[group["max_lr"], group["weight_decay"]]
            of_this_device = {"fused": group.get("fused"), "foreach": group.get("foreach")}
            group.update({**saved, **of_this_device, "betas": tuple(saved["betas"])})
        rates = [group["lr"] for group in optimizer.param_groups]
        of_groups = {"base_lrs": scheduler.base_lrs, "_last_lr": rates}
        scheduler.load_state_dict({**values["scheduler"], **of_groups})
        if values.get("loss_scale"):
            scaler.load_state_dict(dict(values["loss_scale"]))
        progress = dict(values["progress"])
        best_loss = progress.pop("best_loss")
        return Progress(best_loss=math.inf if best_loss is None else best_loss, **progress)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Trainer: {folder / VALUES} does not describe a run: {error}") from error


def step_of(values: Mapping[str, Any], folder: Path) -> int:
    """Return the step that a stored state is of."""
    step = values.get("progress", {}).get("step") if isinstance(values.get("progress"), Mapping) else None
    if not isinstance(step, int):
        raise ValueError(f"Trainer: {folder / VALUES} does not describe a run: its step is {step!r}")
    return step


def _like(parameter: Tensor, values: Tensor) -> Tensor:
    filled = torch.zeros_like(parameter)
    copy_whole(filled, values)
    return filled


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
    saved = _with_defaults(saved)
    different = {k: (saved.get(k), now.get(k)) for k in now if saved.get(k) != now[k]}
    if different:
        listed = "; ".join(
            f"{k}: {was!r} then, {is_now!r} now" for k, (was, is_now) in sorted(different.items())
        )
        raise ValueError(
            f"Trainer: the checkpoint belongs to another run ({listed}); "
            f"resume with the settings and data it was started with, or train in another folder"
        )


def _with_defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with the settings that there were not yet when it was written."""
    model = saved.get("model")
    with suppress(TypeError, ValueError):  # of a later version: it differs, and the message shows how
        model = MtMConfig.from_dict(model).to_dict() if isinstance(model, Mapping) else model
    return {**TrainingConfig().to_dict(), **saved, "model": model}


def _take(tensors: Mapping[str, Tensor], name: str, shape: torch.Size, folder: Path) -> Tensor:
    if name not in tensors or tensors[name].shape != shape:
        got = tuple(tensors[name].shape) if name in tensors else "nothing"
        raise ValueError(f"Trainer: {name} in {folder / TENSORS} must have shape {tuple(shape)}, got {got}")
    return tensors[name]
