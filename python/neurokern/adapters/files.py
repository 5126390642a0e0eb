"""Files of adapters: their own weights as safetensors, and JSON that says what they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import neurokern
from neurokern.checkpoint import (
    CONFIG,
    WEIGHTS,
    check_format,
    read_json,
    read_tensors,
    replace_checkpoint,
    sha256_of,
    write_json,
)

__all__ = ["FORMAT", "fingerprint", "read_adapter", "write_adapter"]

FORMAT = "neurokern-adapter"
FORMAT_VERSION = 1


def write_adapter(
    folder: str | os.PathLike[str], description: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write the two files of an adapter, whole or not at all."""
    from safetensors.torch import save_file

    with replace_checkpoint(folder) as temporary:
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(_without_sharing(plain), temporary / WEIGHTS)
        head = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "versions": {"neurokern": neurokern.__version__, "torch": torch.__version__},
            "weights_sha256": sha256_of(temporary / WEIGHTS),
        }
        write_json(temporary / CONFIG, {**head, **description})
    return Path(folder)


def read_adapter(folder: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the two files of an adapter: of the kind named, or, for "", of one with a structure.

    Raises
    ------
    FileNotFoundError, ValueError
        As :meth:`AdaptedModel.load`.
    """
    path = Path(os.path.abspath(folder))
    if not path.is_dir():
        raise FileNotFoundError(f"load: there is no folder {path}")
    description = read_json(path / CONFIG)
    check_format(description, path / CONFIG, FORMAT, FORMAT_VERSION)
    found = description.get("adapter")
    if (kind and found != kind) or (not kind and "structure" not in description):
        other = "StitchedModel" if found == "SessionStitch" else "AdaptedModel"
        raise ValueError(f"load: {path} holds a {found!r} adapter; load it with {other}.load")
    tensors = read_tensors(path / WEIGHTS)
    if description.get("weights_sha256") != sha256_of(path / WEIGHTS):
        raise ValueError(f"load: {path / WEIGHTS} is not the file that {CONFIG} was written with")
    return description, tensors


def fingerprint(encoder: nn.Module) -> str:
    """Return the SHA-256 of a module's weights and their names."""
    digest = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


def _without_sharing(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor memory of its own; safetensors refuses tied weights, two names of one memory."""
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        result[name] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return result
