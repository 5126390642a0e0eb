"""Cards of datasets: one small YAML file each, shipped, of a user's folder, or of an installed package."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from neurokern._config import read_yaml

__all__ = ["Card", "RemoteFile", "cards", "check_path", "find_card", "read_card"]

SOURCES = {
    "files": ("url",),
    "s3": ("url", "prefix"),
    "dandi": ("api", "dandiset"),
    "figshare": ("api", "article"),
    "osf": ("api", "node"),
    "manual": ("how",),
}
_DIGESTS = {"sha256": 64, "md5": 32}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,80}")
_GROUP = "neurokern.cards"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a dataset.

    Attributes
    ----------
    path : str
        Where it goes below the dataset's folder, with slashes.
    url : str
        Where it comes from, http or https.
    n_bytes : int or None
        Its size, where the source tells.
    digest : (str, str) or None
        Name of the hash, "sha256" or "md5", and its value in hexadecimal digits.
    facts_url : str or None
        Where the source keeps the digest, if not in its list.
    """

    path: str
    url: str
    n_bytes: int | None = None
    digest: tuple[str, str] | None = None
    facts_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a dataset is, what it may be used for, and whence it comes.

    Attributes
    ----------
    name, title : str
    modality : tuple of str
        Such as ``("spikes",)``, ``("fmri",)``, ``("eeg", "meg")``.
    contains : str
        What was recorded, of whom, in which task.
    license, citation, homepage : str
    doi : str
    size : str
        For people, as far as known.
    load : str
        The call that loads it, with ``folder`` for where it lies.
    checked : str
        What about this card was tried, and what was not; how files are checked.
    source : mapping
        ``kind`` and what belongs to it: "files" (``url``), "s3" (``url`` and ``prefix``), "dandi",
        "figshare", "osf", or "manual" (``how``: what to do by hand).
    files : tuple of RemoteFile
        Of a source of kind "files".
    """

    name: str
    title: str
    modality: tuple[str, ...]
    contains: str
    license: str
    citation: str
    source: Mapping[str, Any]
    homepage: str = ""
    doi: str = ""
    size: str = ""
    load: str = ""
    checked: str = ""
    files: tuple[RemoteFile, ...] = field(default=(), repr=False)


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read a card.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If something is missing or wrong in it, such as a file whose path leads out of the dataset's folder.
    """
    file = Path(path)
    return card_from(read_yaml(file), file.name)


def card_from(values: Mapping[str, Any], where: str) -> Card:
    """Return the card that names and values make; ``where`` begins the messages of errors."""
    known = {f.name: f for f in fields(Card)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]}; known: {', '.join(known)}")
    given: dict[str, Any] = dict(values)
    for name in ("name", "title", "contains", "license", "citation"):
        if not isinstance(given.get(name), str) or not given[name].strip():
            raise ValueError(f"{where}: {name} must be given as text, got {given.get(name)!r}")
    for name in ("homepage", "doi", "size", "load", "checked"):
        if not isinstance(given.get(name, ""), str):
            raise ValueError(f"{where}: {name} must be text, got {given[name]!r}")
    if not _NAME.fullmatch(given["name"]):
        raise ValueError(
            f"{where}: name must be of small letters, digits, '.', '-' and '_', got {given['name']!r}"
        )
    modality = given.get("modality")
    modality = [modality] if isinstance(modality, str) else modality
    if not isinstance(modality, list) or not modality or not all(isinstance(m, str) for m in modality):
        raise ValueError(f"{where}: modality must be a list of names, got {given.get('modality')!r}")
    given["modality"] = tuple(modality)
    given["source"] = _check_source(given.get("source"), where)
    given["files"] = _files(given.get("files", []), given["source"], where)
    return Card(**given)


def _check_source(source: Any, where: str) -> Mapping[str, Any]:
    kind = source.get("kind") if isinstance(source, Mapping) else None
    if kind not in SOURCES:
        raise ValueError(f"{where}: source.kind must be one of {', '.join(SOURCES)}, got {kind!r}")
    for name in SOURCES[kind]:
        if not isinstance(source.get(name), (str, int)) or isinstance(source.get(name), bool):
            raise ValueError(f"{where}: source.{name} must be given, got {source.get(name)!r}")
    for name in ("url", "api"):
        if name in SOURCES[kind] and not str(source[name]).startswith(("http://", "https://")):
            raise ValueError(f"{where}: source.{name} must begin with http(s)://, got {source[name]!r}")
    return dict(source)


def _files(entries: Any, source: Mapping[str, Any], where: str) -> tuple[RemoteFile, ...]:
    if not isinstance(entries, list):
        raise ValueError(f"{where}: files must be a list, got {entries!r}")
    if source["kind"] != "files":
        if entries:
            raise ValueError(f"{where}: files belong to a source of kind 'files', got {source['kind']!r}")
        return ()
    if not entries:
        raise ValueError(f"{where}: a source of kind 'files' must list files")
    found: dict[str, RemoteFile] = {}
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where}: a file must have path, bytes and sha256, got {entry!r}")
        path = check_path(entry.get("path"), where)
        n_bytes = entry.get("bytes")
        if n_bytes is not None and (type(n_bytes) is not int or n_bytes < 0):
            raise ValueError(f"{where}: bytes of {path} must be a whole number, got {n_bytes!r}")
        if path in found:
            raise ValueError(f"{where}: {path} is listed twice")
        digest = first_digest(entry, f"{where}: {path}")
        found[path] = RemoteFile(path, join_url(source["url"], path), n_bytes, digest)
    return tuple(found.values())


def check_digest(name: str, value: Any, where: str) -> tuple[str, str]:
    """Return a hash by name with its digits in small letters, or raise ValueError."""
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-fA-F]{{{_DIGESTS[name]}}}", value):
        raise ValueError(f"{where}: {name} must have {_DIGESTS[name]} hexadecimal digits, got {value!r}")
    return name, value.lower()


def first_digest(entry: Mapping[str, Any], where: str) -> tuple[str, str] | None:
    """Return the best hash that an entry of a list has, or None."""
    found = [check_digest(name, entry[name], where) for name in _DIGESTS if entry.get(name)]
    return found[0] if found else None


def check_path(path: Any, where: str) -> str:
    """Return a path that stays below the folder it is joined to; ValueError for any other one.

    A list of files comes from elsewhere: it must not be able to name files outside of the dataset.
    """
    if not isinstance(path, str) or not path or len(path) > 1000:
        raise ValueError(f"{where}: a path must be text of up to 1000 characters, got {str(path)[:60]!r}")
    parts = PurePosixPath(path).parts
    bad = path.startswith("/") or ".." in parts or "\\" in path or any(ord(c) < 32 for c in path)
    # "C:" is a drive elsewhere; what begins like our own files would take their place.
    if bad or not parts or ":" in parts[0] or any(part.startswith(".neurokern") for part in parts):
        raise ValueError(
            f"{where}: a path must lead to a file below the dataset's folder, got {path[:200]!r}"
        )
    return "/".join(parts)


def join_url(base: str, path: str) -> str:
    """Return the address of a file below another one."""
    from urllib.parse import quote

    return f"{str(base).rstrip('/')}/{quote(path)}"


def cards() -> dict[str, Card]:
    """Return all cards by name: shipped ones, those of installed packages, and the user's own.

    A user's cards lie as ``.yaml`` files in the folders of ``NEUROKERN_CARDS`` (divided like ``PATH``), or in
    ``~/.config/neurokern/cards``; a package names folders of them by entry points of the group
    ``neurokern.cards``. Later ones take the place of earlier ones of the same name.
    """
    found = {}
    for folder in _folders():
        for file in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
            card = read_card(file)
            found[card.name] = card
    return dict(sorted(found.items()))


def find_card(name: str | os.PathLike[str]) -> Card:
    """Return a card by its name, or by the path of its file; ValueError names those that there are."""
    if str(name).endswith((".yaml", ".yml")):
        return read_card(name)
    every = cards()
    if str(name) not in every:
        raise ValueError(f"catalog: there is no card {str(name)!r}; there are {', '.join(every)}")
    return every[str(name)]


def _folders() -> Iterator[Path]:
    yield Path(str(importlib.resources.files("neurokern.datasets.catalog"))) / "cards"
    for entry in importlib.metadata.entry_points(group=_GROUP):
        given = entry.load()
        given = given() if callable(given) else given
        # A package's folder, or a path.
        yield Path(given) if isinstance(given, (str, os.PathLike)) else Path(next(iter(given.__path__)))
    own = os.environ.get("NEUROKERN_CARDS")
    if own:
        yield from (Path(folder) for folder in own.split(os.pathsep) if folder)
    else:
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        yield Path(config) / "neurokern" / "cards"
