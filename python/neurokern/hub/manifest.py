"""``hub.json``: which files belong to a shared model, their hashes, and what can read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import neurokern
from neurokern.checkpoint import CONFIG, WEIGHTS, check_format, read_json, sha256_of, write_json

MANIFEST = "hub.json"
CARD = "README.md"
ALIGNMENT = "alignment.json"
METRICS = "metrics.json"
FILES = (CONFIG, WEIGHTS, ALIGNMENT, METRICS)  # the card may be edited later, and has no hash
SESSIONS = ("keep", "pseudonyms", "drop")
TORCH_RANGE = ">=2.4"

FORMAT = "neurokern-hub"
FORMAT_VERSION = 1
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def write_manifest(folder: Path, **facts: Any) -> None:
    """Write the hashes of the files of a folder, and ``facts`` beside them."""
    files = {
        name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
        for name in FILES
        if (folder / name).is_file()
    }
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {"neurokern": neurokern.__version__, "torch": torch.__version__},
        "requires": {"torch": TORCH_RANGE},
        **facts,
        "files": files,
    }
    write_json(folder / MANIFEST, description)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what ``hub.json`` says, once its files are found whole and unchanged; None where there is none.

    Raises
    ------
    ValueError
        If it is damaged, of a later major version, or a file is missing, cut short or changed.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return None
    manifest = read_json(file)
    check_version(manifest, file)
    check_format(manifest, file, FORMAT, FORMAT_VERSION)
    files = manifest.get("files")
    if not isinstance(files, Mapping) or not {CONFIG, WEIGHTS} <= set(files):
        raise ValueError(f"from_pretrained: {file} must list {CONFIG} and {WEIGHTS} under 'files'")
    for name, facts in files.items():
        _check_file(folder, str(name), facts, file)
    return manifest


def check_version(description: Mapping[str, Any], file: Path) -> None:
    """Raise ValueError if a later major version of neurokern wrote a description."""
    versions = description.get("versions", {})
    written = versions.get("neurokern", "") if isinstance(versions, Mapping) else ""
    major = re.match(r"\d+", str(written))
    if major is None:
        raise ValueError(f"from_pretrained: {file} does not say which neurokern wrote it, got {written!r}")
    if int(major[0]) > int(neurokern.__version__.split(".")[0]):
        raise ValueError(
            f"from_pretrained: {file} was written by neurokern {written}, which this one "
            f"({neurokern.__version__}) does not know; update it: pip install --upgrade neurokern"
        )


def refuse_pickles(folder: Path) -> None:
    """Raise ValueError if a folder's only weights are pickled."""
    if (folder / WEIGHTS).is_file() or not folder.is_dir():
        return
    if found := sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICKLES):
        raise ValueError(
            f"from_pretrained: {folder} holds {', '.join(found[:3])} and no {WEIGHTS}; pickled weights are "
            "never loaded, since they can run any program. Where you trust them, build the model, fill it "
            "from torch.load(file, weights_only=True) and write it with save_pretrained"
        )


def _check_file(folder: Path, name: str, facts: Any, manifest: Path) -> None:
    if name not in FILES or not isinstance(facts, Mapping):
        raise ValueError(f"from_pretrained: {manifest} lists a file that no model has, {name!r}")
    file = folder / name
    if not file.is_file():
        raise FileNotFoundError(f"from_pretrained: {file} is missing, which {MANIFEST} lists")
    size = file.stat().st_size
    if size != facts.get("bytes"):
        how = (
            "is cut short" if isinstance(facts.get("bytes"), int) and size < facts["bytes"] else "was changed"
        )
        raise ValueError(
            f"from_pretrained: {file} {how}: it has {size} bytes of {facts.get('bytes')}; copy it again"
        )
    if sha256_of(file) != facts.get("sha256"):
        raise ValueError(
            f"from_pretrained: {file} was damaged or exchanged: its SHA-256 is not the one in {MANIFEST}; "
            "copy the folder again as a whole"
        )
