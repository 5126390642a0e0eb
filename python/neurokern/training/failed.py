"""The batches of a step whose loss was not finite: kept beside the weights, to look at and to try again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from neurokern.checkpoint import check_format, read_json, read_tensors, write_json
from neurokern.training.part import MaskedPart

FORMAT = "neurokern-failed-batches"
FORMAT_VERSION = 1
TENSORS = "batches.safetensors"
VALUES = "batches.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class FailedBatch:
    """A batch as the model got it in the step that failed.

    Attributes
    ----------
    session, scheme : str or tuple of str
        One for the batch, or one for each window.
    step : int
        Number of the step, counted from 0.
    windows : tuple of int
        Numbers of the windows in their sessions.
    counts : tensor of shape (B, T, N), float32
        Before masking.
    target_mask : bool tensor of shape (B, T, N)
        True where the loss counts.
    hidden : bool tensor of shape (B, 1, N), (B, T, 1) or (B, T, N)
        True where the input was hidden: ``model(counts.masked_fill(hidden, 0), session, scheme, hidden)``.
    """

    session: str | tuple[str, ...]
    scheme: str | tuple[str, ...]
    step: int
    windows: tuple[int, ...]
    counts: Tensor
    target_mask: Tensor
    hidden: Tensor


def write_failed_batches(folder: Path, step: int, batches: Sequence[MaskedPart]) -> None:
    """Write the batches of a step, each with its scheme and its masks, into an existing folder."""
    tensors, values = {}, []
    for place, masked in enumerate(batches):
        batch, masks = masked.batch, masked.masks
        for name, tensor in (
            ("counts", batch.counts),
            ("target_mask", masks.target.expand_as(batch.counts)),
            ("hidden", masks.hidden),
        ):
            # A copy: targets and hidden may be one tensor, which safetensors refuses.
            tensors[f"{place}/{name}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        session = batch.session[0] if len(set(batch.session)) == 1 else batch.session
        values.append({"session": session, "scheme": masked.scheme, "windows": batch.window.tolist()})
    save_file(tensors, folder / TENSORS)
    description = {"format": FORMAT, "format_version": FORMAT_VERSION, "step": step, "batches": values}
    write_json(folder / VALUES, description)


def read_failed_batches(folder: str | os.PathLike[str]) -> list[FailedBatch]:
    """Return the batches that a run with a loss that was not finite left.

    Parameters
    ----------
    folder : path
        The folder ``failed`` of the run, or the run's.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, damaged or of another version.
    """
    path = Path(os.path.abspath(folder))
    path = path if (path / VALUES).is_file() else path / "failed"
    values = read_json(path / VALUES)
    check_format(values, path / VALUES, FORMAT, FORMAT_VERSION)
    tensors = read_tensors(path / TENSORS)
    try:
        return [
            FailedBatch(
                session=_names(batch["session"]),
                scheme=_names(batch["scheme"]),
                step=int(values["step"]),
                windows=tuple(int(number) for number in batch["windows"]),
                counts=tensors[f"{place}/counts"],
                target_mask=tensors[f"{place}/target_mask"].to(torch.bool),
                hidden=tensors[f"{place}/hidden"].to(torch.bool),
            )
            for place, batch in enumerate(values["batches"])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"read_failed_batches: {path / VALUES} does not describe batches: {error}"
        ) from error


def _names(stored: object) -> str | tuple[str, ...]:
    return tuple(map(str, stored)) if isinstance(stored, list) else str(stored)
