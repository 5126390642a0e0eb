"""A card made of a folder, for a lab's own data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from neurokern.datasets.catalog._record import OWN, file_digest
from neurokern.datasets.catalog.card import Card, card_from, check_path

__all__ = ["make_card"]


def make_card(
    folder: str | os.PathLike[str],
    *,
    name: str,
    url: str,
    title: str,
    modality: Sequence[str],
    contains: str,
    license: str,
    citation: str,
    progress: bool = False,
    **more: str,
) -> tuple[Card, dict[str, Any]]:
    """Return a card of all files in a folder, with their sizes and SHA-256.

    Hidden files are left out, and links that lead nowhere or out of the folder are an error.

    Parameters
    ----------
    folder : path-like
    name, title, modality, contains, license, citation
        As in :class:`Card`.
    url : str
        The address below which the files are, or will be, served: ``url`` + ``/`` + path.
    progress : bool, default False
        Show a bar.
    **more : str
        ``homepage``, ``doi``, ``size``, ``load``, ``checked``.

    Returns
    -------
    card : Card
    values : dict
        The same, to be written as YAML.

    Raises
    ------
    ValueError
        If the folder holds no files, or a name cannot be that of a file elsewhere.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"make_card: no such folder: {root}")
    paths = list(_files_below(root))
    if not paths:
        raise ValueError(f"make_card: {root} holds no files")
    files = []
    for path in tqdm(paths, unit="file", disable=not progress):
        relative = check_path(path.relative_to(root).as_posix(), "make_card")
        status = path.stat()
        files.append({"path": relative, "bytes": status.st_size, "sha256": file_digest(path, "sha256")})
        if path.stat().st_mtime_ns != status.st_mtime_ns:
            raise ValueError(f"make_card: {relative} was written to meanwhile; start again")
    values: dict[str, Any] = {
        "name": name,
        "title": title,
        "modality": list(modality),
        "contains": contains,
        "license": license,
        "citation": citation,
        **more,
        "source": {"kind": "files", "url": url},
        "files": files,
    }
    return _checked(values), values


def _checked(values: Mapping[str, Any]) -> Card:
    return card_from(values, "make_card")


def _files_below(root: Path) -> list[Path]:
    found = []
    real = root.resolve()
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith(".") and name != OWN)
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") and name != ".bidsignore":
                continue
            if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(real)):
                raise ValueError(
                    f"make_card: {path.relative_to(root)} is a link that leads nowhere, or out of the folder"
                )
            found.append(path)
    return found
