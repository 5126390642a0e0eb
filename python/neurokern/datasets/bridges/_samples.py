"""Windows as named arrays and one JSON text, for the shards of other packages, and back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurokern._check import check_integer
from neurokern.datasets._random import permutation
from neurokern.datasets.batch import SpikeSample
from neurokern.datasets.meeg_batch import ChannelNames

__all__ = ["FACTS", "decode", "describe", "encode", "order_of", "read_manifest", "write_manifest"]

FACTS = "facts"  # name of the JSON text beside the arrays
MANIFEST = "neurokern.json"
_FORMAT = 1
_SPIKES = ("session", "session_index", "window")
_GROUPS = ("labels", "series", "series_valid")


def encode(item: Any) -> tuple[dict[str, NDArray[Any]], str]:
    """Return a window's arrays under names that any archive takes, and all else as JSON."""
    fields = _flat(item) if isinstance(item, SpikeSample) else dict(item)
    arrays: dict[str, NDArray[Any]] = {}
    places: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, (torch.Tensor, np.ndarray)):
            place = _place(name, arrays)
            arrays[place], kind = _as_array(value)
            places[place] = [name, kind]
        elif isinstance(value, (ChannelNames, tuple)) and all(isinstance(one, str) for one in value):
            texts[name] = list(value)
        elif value is None or isinstance(value, (str, bool, int, float)):
            values[name] = value
        else:
            raise TypeError(
                f"entries of a window must be tensors, arrays, numbers or texts, {name!r} is a "
                f"{type(value).__name__}"
            )
    facts = {"kind": type(item).__name__, "arrays": places, "names": texts, "values": values}
    return arrays, json.dumps(facts)


def decode(arrays: Mapping[str, Any], facts: str | bytes | Mapping[str, Any]) -> Any:
    """Return the window that :func:`encode` took apart."""
    told = json.loads(facts) if isinstance(facts, (str, bytes)) else facts
    item: dict[str, Any] = dict(told["values"])
    item |= {name: ChannelNames(tuple(values)) for name, values in told["names"].items()}
    for place, (name, kind) in told["arrays"].items():
        values = arrays[place]
        if not isinstance(values, torch.Tensor):
            values = torch.from_numpy(values if values.flags.writeable else values.copy())
        item[name] = values.view(torch.bfloat16) if kind == "bfloat16" else values
    return _spike_sample(item) if told["kind"] == SpikeSample.__name__ else item


def _flat(sample: SpikeSample) -> dict[str, Any]:
    fields: dict[str, Any] = {"counts": sample.counts, "regions": sample.regions}
    fields |= {name: getattr(sample, name) for name in _SPIKES}
    for group in _GROUPS:
        fields |= {f"{group}.{name}": value for name, value in getattr(sample, group).items()}
    return fields


def _spike_sample(fields: Mapping[str, Any]) -> SpikeSample:
    groups: dict[str, dict[str, torch.Tensor]] = {group: {} for group in _GROUPS}
    for name, value in fields.items():
        group, _, rest = name.partition(".")
        if rest:
            groups[group][rest] = value
    whole = {name: value for name, value in fields.items() if "." not in name}
    return SpikeSample(**whole, **groups)  # type: ignore[arg-type]


def _place(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name that is left alone where capitals and signs are not; the facts tell the true one."""
    plain = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-") or "array"
    place, n = plain, 1
    while place in taken or place == FACTS:
        n += 1
        place = f"{plain}-{n}"
    return place


def _as_array(value: Any) -> tuple[NDArray[Any], str]:
    if not isinstance(value, torch.Tensor):
        return np.asarray(value), str(value.dtype)
    tensor = value.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # numpy has none
        return tensor.view(torch.int16).numpy(), "bfloat16"
    return tensor.numpy(), str(tensor.dtype).removeprefix("torch.")


def describe(function: str, windows: Any, seed: int | None) -> dict[str, Any]:
    """Return what tells this export from others, and what windows share: names of conditions and regions."""
    n = len(windows)
    if not n:
        raise ValueError(f"{function}: there are no windows")
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.asarray(getattr(windows, "offsets", [n]), np.int64).tobytes())
    if hasattr(windows, "spans"):
        for part in windows.spans():
            digest.update(np.ascontiguousarray(part).tobytes())
    for i in sorted({0, n // 2, n - 1}):
        arrays, facts = encode(windows[i])
        for values in arrays.values():
            digest.update(np.ascontiguousarray(values).tobytes())
        digest.update(facts.encode())
    manifest: dict[str, Any] = {"format": _FORMAT, "windows": n, "seed": seed, "content": digest.hexdigest()}
    for name in ("conditions", "region_names"):
        manifest[name] = list(getattr(windows, name, ()))
    sessions = getattr(windows, "sessions", ())
    manifest["unit_ids"] = {s.session: np.asarray(s.unit_ids).tolist() for s in sessions}
    return manifest


def order_of(function: str, n: int, seed: int | None) -> NDArray[np.int64]:
    """Return the windows in the order of the dataset, or drawn by a seed."""
    if seed is None:
        return np.arange(n)
    return permutation(n, check_integer(function, "seed", seed), 0, n)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write what the windows share beside them, whole or not at all."""
    temporary = folder / f".{MANIFEST}.{uuid.uuid4().hex}.tmp"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(temporary, folder / MANIFEST)


def read_manifest(function: str, folder: Path) -> dict[str, Any]:
    """Return what :func:`write_manifest` wrote."""
    file = folder / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{function}: {folder} holds no {MANIFEST}; was it exported by neurokern?")
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
        if manifest["format"] != _FORMAT:
            raise ValueError(f"its format is {manifest['format']}, not {_FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{function}: {file} cannot be read: {error}") from None
    return manifest
