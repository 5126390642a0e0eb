"""What tells stimuli, and the networks that look at them, from others: hashes of their content."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import pickle
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ModuleKey", "stimulus_key"]

_PIECE = 1 << 22  # bytes that are read at a time
_PLAIN = (bool, int, float, str, type(None))
_OF_MODULES = {*vars(nn.Module()), "training"}  # weights, hooks and parts: told otherwise, or of no effect
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
        # Of an image with a palette the array holds places in it alone.
        _add_array(hashed, np.asarray(stimulus.convert("RGBA") if "P" in stimulus.mode else stimulus))
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
            settings.update(f"{name}:{type(part).__qualname__}:".encode())
            for setting, value in sorted(vars(part).items()):
                if setting not in _OF_MODULES:
                    settings.update(f"{setting}=".encode() + _setting(value) + b";")
        return settings.hexdigest()

    def _hashed(self, tensors: list[tuple[str, Tensor]]) -> str:
        hashed = hashlib.blake2b(f"torch {torch.__version__}".encode(), digest_size=16)
        for name, tensor in tensors:
            hashed.update(f"{name}:".encode())
            _add_tensor(hashed, tensor)
        classes = {kind for part in self._module.modules() for kind in type(part).__mro__}
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


def _setting(value: Any) -> bytes:
    """Return bytes that differ if a module's attribute does, the same in every process."""
    if isinstance(value, _PLAIN):
        return repr(value).encode(errors="replace")
    told = _told(value)
    if told is not None:
        return told
    stream = io.BytesIO()
    pickler = _Pickler(stream, protocol=4)
    pickler.fast = True  # without notes of what is the same object: only values count
    try:
        pickler.dump(value)
    except Exception:  # whatever an object's own way to be pickled may raise
        return type(value).__qualname__.encode()
    return stream.getvalue()


class _Pickler(pickle.Pickler):
    """Writes values; what has an order or an address of its own in each process is told otherwise."""

    def persistent_id(self, obj: Any) -> bytes | None:
        return _told(obj)


def _told(value: Any) -> bytes | None:
    """Return bytes for what pickle would write differently each time, None for all else."""
    if callable(getattr(value, "to_json_string", None)):  # a configuration of transformers
        return str(value.to_json_string()).encode(errors="replace")
    if isinstance(value, Tensor):
        hashed = hashlib.blake2b(digest_size=16)
        _add_tensor(hashed, value)
        return hashed.digest()
    if isinstance(value, (set, frozenset)):
        return b"{" + b",".join(sorted(map(_setting, value))) + b"}"
    if isinstance(value, (nn.Module, weakref.ReferenceType)):
        return type(value).__qualname__.encode()  # parts are told by themselves
    code = getattr(value, "__code__", None)
    return None if code is None else _bytes_of_code(code)


def _bytes_of_code(code: Any) -> bytes:
    """Return what a compiled function does, without where it stands."""
    constants = b"".join(
        _bytes_of_code(one) if hasattr(one, "co_code") else repr(one).encode(errors="replace")
        for one in code.co_consts
    )
    return bytes(code.co_code) + constants + repr(code.co_names).encode()


def _source(kind: type) -> str:
    """Return the source of a class, or its compiled forward pass; of libraries their versions."""
    package = kind.__module__.partition(".")[0]
    if package in _LIBRARIES:
        return str(getattr(sys.modules.get(package), "__version__", ""))
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        code = getattr(getattr(kind, "forward", None), "__code__", None)
        return "" if code is None else _bytes_of_code(code).hex()
