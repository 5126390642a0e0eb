"""What tells stimuli, and the networks that look at them, from others: hashes of their content."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ModuleKey", "stimulus_key"]

_PIECE = 1 << 22  # bytes that are read at a time
_PLAIN = (bool, int, float, str, type(None))
_LIBRARIES = ("torch", "transformers", "torchvision", "timm", "builtins")  # told by their versions


def stimulus_key(stimulus: Any) -> bytes:
    """Return 16 bytes that tell a stimulus by its content; a file by its bytes, whatever its name.

    Raises
    ------
    TypeError
        If it is no text, path, array, tensor or audio clip.
    """
    hashed = hashlib.blake2b(digest_size=16)
    _add_stimulus(hashed, stimulus)
    return hashed.digest()


def _add_stimulus(hashed: Any, stimulus: Any) -> None:
    if isinstance(stimulus, str):
        # Lone surrogates are no UTF-8, yet a text may hold them, as names of files do.
        hashed.update(b"text:" + stimulus.encode("utf-8", "surrogatepass"))
    elif isinstance(stimulus, os.PathLike):
        hashed.update(b"file:")
        with Path(stimulus).open("rb") as file:
            while piece := file.read(_PIECE):
                hashed.update(piece)
    elif isinstance(stimulus, Tensor):
        _add_tensor(hashed, stimulus)
    elif hasattr(stimulus, "samples") and hasattr(stimulus, "rate"):
        hashed.update(f"audio:{stimulus.rate!r}:".encode())
        _add_array(hashed, stimulus.samples)
    elif hasattr(stimulus, "getbands"):  # an image of Pillow
        hashed.update(f"image:{stimulus.mode}:".encode())
        _add_array(hashed, np.asarray(stimulus))
    elif isinstance(stimulus, np.ndarray) and stimulus.dtype.kind in "biuf":
        _add_array(hashed, stimulus)
    else:
        raise TypeError(
            "StimulusFeatures: a stimulus must be a text (str), a file (Path), an image, an AudioClip, or an "
            f"array or tensor of numbers, got {type(stimulus).__name__}"
        )


def _add_array(hashed: Any, array: np.ndarray) -> None:
    hashed.update(f"{array.dtype.str}:{array.shape}:".encode())
    hashed.update(np.ascontiguousarray(array).tobytes())


def _add_tensor(hashed: Any, tensor: Tensor) -> None:
    """Add type, shape and bytes; numpy does not know all of torch's types."""
    plain = tensor.detach().cpu().contiguous()
    hashed.update(f"{plain.dtype}:{tuple(plain.shape)}:".encode())
    if plain.numel():
        hashed.update(plain.reshape(-1).view(torch.uint8).numpy().data)


class ModuleKey:
    """The key of a module: weights, settings and, for classes that are not torch's, their source.

    Weights are hashed again only after they were changed or replaced.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._seen: tuple[Any, ...] = ()
        self._digest = ""

    def __call__(self) -> str:
        """Return the key of the module as it is now."""
        tensors = [*self._module.named_parameters(), *self._module.named_buffers()]
        # The tensors themselves are kept: the address of one that is gone may belong to another one.
        seen = tuple((name, tensor, tensor.data_ptr(), _version(tensor)) for name, tensor in tensors)
        if not self._digest or not _are_same(seen, self._seen):
            self._seen, self._digest = seen, self._hashed(tensors)
        settings = hashlib.blake2b(self._digest.encode(), digest_size=16)
        for name, part in self._module.named_modules():
            settings.update(f"{name}:{type(part).__qualname__}:{_settings(part)!r};".encode(errors="replace"))
        return settings.hexdigest()

    def _hashed(self, tensors: list[tuple[str, Tensor]]) -> str:
        hashed = hashlib.blake2b(f"torch {torch.__version__}".encode(), digest_size=16)
        for name, tensor in tensors:
            hashed.update(f"{name}:".encode())
            _add_tensor(hashed, tensor)
        classes = {type(part) for part in self._module.modules()}
        for kind in sorted(classes, key=lambda kind: (kind.__module__, kind.__qualname__)):
            hashed.update(f"{kind.__module__}.{kind.__qualname__}:{_source(kind)};".encode(errors="replace"))
        return hashed.hexdigest()


def _version(tensor: Tensor) -> object:
    """Return a number that grows when a tensor is written to; what equals nothing where torch has none."""
    return object() if tensor.is_inference() else tensor._version


def _are_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(
        a[0] == b[0] and a[1] is b[1] and a[2:] == b[2:] for a, b in zip(one, other, strict=True)
    )


def _settings(part: nn.Module) -> Mapping[str, Any]:
    """Return the numbers, names and configuration that a module holds beside its weights."""
    found: dict[str, Any] = {}
    for name, value in sorted(vars(part).items()):
        if name == "training" or name.startswith("_"):
            continue
        if isinstance(value, _PLAIN):
            found[name] = value
        elif isinstance(value, (tuple, list)) and all(isinstance(one, _PLAIN) for one in value):
            found[name] = tuple(value)
        elif callable(getattr(value, "to_json_string", None)):  # a configuration of transformers
            found[name] = value.to_json_string()
    return found


def _source(kind: type) -> str:
    """Return the source of a class, or its compiled forward pass; of libraries their versions."""
    package = kind.__module__.partition(".")[0]
    if package in _LIBRARIES:
        return str(getattr(sys.modules.get(package), "__version__", ""))
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        code = getattr(getattr(kind, "forward", None), "__code__", None)
        return "" if code is None else f"{code.co_code!r}{code.co_consts!r}{code.co_names!r}"
