"""Checkpoints: folders of safetensors and JSON, written whole or not at all, and read without trust.

A model is ``model.safetensors`` (weights) and ``config.json`` (format, configuration, sessions, versions).
Nothing is ever pickled or unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import neurokern
from neurokern.models import MtM, MtMConfig

FORMAT = "neurokern-mtm"
FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
MAX_JSON_BYTES = 64 * 2**20

_NO_PICKLE = (
    "pickled checkpoints are never loaded, since they can run any program: where you trust one, build the "
    "model, fill it from torch.load(file, weights_only=True) and write it with save_model"
)

logger = logging.getLogger(__name__)


def save_model(model: MtM, folder: str | os.PathLike[str]) -> Path:
    """Write a model so that :func:`load_model` gives it back, bit for bit.

    Parameters
    ----------
    model : MtM
    folder : path
        Made with its parents. An earlier checkpoint of that name is replaced in one step: a process that is
        killed meanwhile leaves the old one or the new one.

    Returns
    -------
    folder : Path

    Raises
    ------
    ValueError
        If ``folder`` exists and is not a checkpoint: somebody's files are not deleted.
    """
    with replace_checkpoint(folder) as temporary:
        write_model(model, temporary)
    return Path(folder)


def write_model(model: MtM, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the two files of a model into an existing folder; ``weights`` in place of the model's own."""
    tensors = {**model.state_dict(), **(weights or {})}
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / WEIGHTS)
    sessions = []
    for name in model.sessions:
        parts = model.session_parts(name)
        regions = None if parts.regions is None else list(parts.regions)
        sessions.append({"session": name, "n_units": parts.n_units, "regions": regions})
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {"neurokern": neurokern.__version__, "torch": torch.__version__},
        "regions": list(model.region_names),
        "model": model.config.to_dict(),
        "sessions": sessions,
        "weights_sha256": sha256_of(folder / WEIGHTS),
    }
    write_json(folder / CONFIG, description)


def load_model(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> MtM:
    """Read a model that :func:`save_model` or a training run wrote, in evaluation mode.

    Parameters
    ----------
    folder : path
        A checkpoint, or the folder of a training run, whose best checkpoint is then read.
    device : str or torch.device, default "cpu"

    Returns
    -------
    model : MtM

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If a file is cut short, of another format or version, does not fit the configuration, was changed
        since it was written (its SHA-256 tells), or holds NaN.
    """
    path = find_checkpoint(folder)
    description = read_json(path / CONFIG)
    check_format(description, path / CONFIG, FORMAT, FORMAT_VERSION)
    shapes = read_shapes(path / WEIGHTS)
    model = _model_without_weights(description, path, shapes)
    tensors = read_tensors(path / WEIGHTS, expected={k: v.shape for k, v in model.state_dict().items()})
    check_hash(path / WEIGHTS, description.get("weights_sha256"))
    _check_numbers(tensors, path / WEIGHTS)
    model.load_state_dict(tensors, assign=True)
    return model.to(device).eval()


def find_checkpoint(folder: str | os.PathLike[str]) -> Path:
    """Return the folder with the files: the one given, its ``best``, or what a killed replacement left."""
    path = Path(os.path.abspath(folder))
    if path.is_file():
        raise ValueError(
            f"load_model: expected a checkpoint folder with {CONFIG} and {WEIGHTS}, got the file {path}; "
            f"{_NO_PICKLE}"
        )
    for candidate in (path, path / "best"):
        for there in (candidate, _previous(candidate)):
            if (there / CONFIG).is_file():
                return there
    if not path.is_dir():
        raise FileNotFoundError(f"load_model: there is no checkpoint folder {path}")
    held = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    raise FileNotFoundError(f"load_model: {path} holds no {CONFIG} (it holds: {held})")


def _model_without_weights(
    description: Mapping[str, Any], path: Path, shapes: Mapping[str, torch.Size]
) -> MtM:
    """Build the model on the meta device, where absurd sizes take no memory."""
    try:
        config = MtMConfig.from_dict(description["model"])
        sessions = [(str(s["session"]), int(s["n_units"]), s.get("regions")) for s in description["sessions"]]
        if config.n_layers > len(shapes):
            raise ValueError(f"{config.n_layers} layers, but {len(shapes)} tensors are stored")
        n_numbers = sum(map(math.prod, shapes.values()))
        # The regions of units and of patches are held beside the weights, and take memory at once.
        sizes = [n_units for _, n_units, _ in sessions]
        if config.read_in == "patches":
            sizes = [config.max_patches, config.patch_size]
        if max(sizes, default=0) > n_numbers:
            raise ValueError(f"{max(sizes)} units or patches, but {n_numbers} numbers are stored")
        with torch.device("meta"):
            model = MtM.with_sessions(config, sessions, description.get("regions", ()))
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"load_model: {path / CONFIG} does not describe a model: {error}") from error
    return model


def read_tensors(file: Path, expected: Mapping[str, torch.Size] | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, after comparing names and shapes with those expected.

    Raises
    ------
    FileNotFoundError, ValueError
        As for :func:`load_model`.
    """
    shapes = read_shapes(file)
    if expected is not None:
        _check_shapes(shapes, expected, file)
    return load_file(file)


def read_shapes(file: Path) -> dict[str, torch.Size]:
    """Return the shape of each tensor in a safetensors file from its header, with the same errors."""
    if not file.is_file():
        raise FileNotFoundError(f"load_model: {file} is missing")
    try:
        with safe_open(file, framework="pt") as opened:  # compares the header with the length of the file
            return {name: torch.Size(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"load_model: {file} is cut short or is not a safetensors file ({error}); {_NO_PICKLE}"
        ) from error


def _check_numbers(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raise for weights of whole numbers, which no model has, and for NaN, which spreads to all results."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"load_model: {name} in {file} must be floating point, got {tensor.dtype}")
        if not (finite := torch.isfinite(tensor)).all():
            raise ValueError(
                f"load_model: {int((~finite).sum())} of {tensor.numel()} numbers of {name} in {file} are NaN "
                f"or infinite; training went astray before it was written: take an earlier checkpoint"
            )


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_hash(file: Path, expected: object) -> None:
    """Raise ValueError if a file's content is not what a description says; older ones say nothing."""
    if expected is not None and sha256_of(file) != expected:
        raise ValueError(
            f"load_model: {file} is not the file that its description was written for (another SHA-256): it "
            f"was damaged or exchanged; copy the folder again as a whole"
        )


def _check_shapes(shapes: Mapping[str, torch.Size], expected: Mapping[str, torch.Size], file: Path) -> None:
    if shapes.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
        raise ValueError(f"load_model: {file} lacks {missing[:4]} and has unknown {extra[:4]}")
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise ValueError(
                f"load_model: {name} in {file} must have shape {tuple(shape)}, got {tuple(shapes[name])}"
            )


def check_format(description: Mapping[str, Any], file: Path, name: str, version: int) -> None:
    """Raise unless a JSON file is of the format and version that this code writes."""
    if description.get("format") != name:
        raise ValueError(f"{file}: format must be {name!r}, got {description.get('format')!r}")
    if description.get("format_version") != version:
        written = description.get("versions", {}).get("neurokern", "unknown")
        raise ValueError(
            f"{file}: format_version must be {version}, got {description.get('format_version')!r}; "
            f"it was written by neurokern {written}, this is {neurokern.__version__}"
        )


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file for people to read; NaN is an error."""
    file.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; anything else in the file is a ValueError that names it."""
    if not file.is_file():
        raise FileNotFoundError(f"load_model: {file} is missing")
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"load_model: {file} has {file.stat().st_size} bytes, too many for a description")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"load_model: {file} is cut short or is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"load_model: {file} must hold a JSON object, got {type(values).__name__}")
    return values


@contextmanager
def replace_checkpoint(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of ``folder`` when the block ends well.

    A folder cannot be replaced by a single rename, so the old one steps aside as ``.<name>.previous`` first;
    :func:`find_checkpoint` looks there if a process was killed between the two renames. After an exception
    the old one stays. OSError if the disk is full or the folder cannot be written.
    """
    final = Path(os.path.abspath(folder))  # "." has no name to put a dot before
    previous, temporary = _previous(final), final.with_name(f".{final.name}.writing")
    if final.exists() and not (final.is_dir() and ((final / CONFIG).is_file() or not any(final.iterdir()))):
        raise ValueError(f"save_model: {final} exists and is not a checkpoint; choose another folder")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            file.chmod(0o644)  # safetensors makes files that nobody else can read
            _flush(file)
        _flush(temporary)
    except (SafetensorError, OSError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"{final} could not be written ({error}); a checkpoint that was there is whole: make room, or "
            f"choose another folder, and go on from it",
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if final.exists():
        shutil.rmtree(previous, ignore_errors=True)
        final.rename(previous)
    temporary.rename(final)
    _flush(final.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _flush(path: Path) -> None:
    """Wait until the file or the folder's list of names is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
