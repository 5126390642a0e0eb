"""Read a shared model from a folder or from the Hugging Face Hub."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from neurokern.alignment.storage import read_tables
from neurokern.checkpoint import CONFIG, find_checkpoint, load_model, read_json
from neurokern.hub.card import ModelCard
from neurokern.hub.manifest import (
    ALIGNMENT,
    CARD,
    FILES,
    MANIFEST,
    METRICS,
    check_version,
    read_manifest,
    refuse_pickles,
)
from neurokern.models import MtM

if TYPE_CHECKING:
    from neurokern.adapters.adapted import AdaptedModel

__all__ = ["HubFolder", "from_pretrained", "read_folder"]

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class HubFolder:
    """What a shared folder holds besides the weights; made by :func:`read_folder`.

    Attributes
    ----------
    folder : Path
    kind : {"mtm", "adapter"}
    sessions : {"keep", "pseudonyms", "drop"}
        Under which names the sessions were written.
    card : ModelCard
    metrics, alignment : dict of str to DataFrame
    base : mapping
        Of an adapter: ``source`` and ``weights_sha256`` of its base model.
    """

    folder: Path
    kind: str
    sessions: str
    card: ModelCard
    metrics: dict[str, pd.DataFrame]
    alignment: dict[str, pd.DataFrame]
    base: Mapping[str, Any] = field(default_factory=dict)


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    device: str | torch.device = "cpu",
    base: nn.Module | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> MtM | AdaptedModel:
    """Read a model, or an adapter with its base model, in evaluation mode.

    Parameters
    ----------
    source : path or str
        A folder: of :func:`save_pretrained`, a checkpoint, or a training run. Or a repository "owner/name" of
        the Hub, which is downloaded once and then read from the cache; a folder of that name comes first.
    revision : str, optional
        Branch, tag or commit of a repository; a full commit hash pins what is loaded.
    local_files_only : bool, default False
        Never touch the network: a repository must be in the cache. A folder never needs the network.
    device : str or torch.device, default "cpu"
    base : MtM or other module, optional
        Model that an adapter was fitted on, where it does not say where to find it. Its weights are compared
        with the adapter's note of them.
    token : str, optional
        For private repositories; by default the one that ``hf auth login`` stored.
    cache_dir : path, optional
        Where downloads are kept; by default the cache of huggingface_hub.

    Returns
    -------
    model : MtM or AdaptedModel

    Raises
    ------
    ImportError
        If a repository is asked for and huggingface_hub is not installed.
    FileNotFoundError
        If there is no such folder or repository, or, offline, it is not in the cache.
    TypeError
        If ``base`` is no model.
    ValueError
        If a file is cut short, changed (its SHA-256 tells), pickled, holds NaN, names an unknown setting, or
        was written by a later major version; if the base does not fit.
    """
    if base is not None and not isinstance(base, nn.Module):
        raise TypeError(
            f"from_pretrained: base must be a model, got {type(base).__name__}; load it first, as "
            "base=MtM.from_pretrained(...)"
        )
    options: dict[str, Any] = {
        "revision": revision,
        "local_files_only": local_files_only,
        "token": token,
        "cache_dir": cache_dir,
    }
    folder = find_folder(source, **options)
    manifest = read_manifest(folder)
    if manifest is None:
        folder = _checked_checkpoint(folder)
        return load_model(folder, device)
    if manifest.get("kind") != "adapter":
        return load_model(folder, device)
    from neurokern.adapters.adapted import AdaptedModel

    return AdaptedModel.load(folder, (base or _base_of(manifest, folder, options)).to(device))


def read_folder(source: str | os.PathLike[str], **options: Any) -> HubFolder:
    """Return card, scores and alignment of a shared model, once all its files are found unchanged.

    Parameters
    ----------
    source : path or str
    **options
        ``revision``, ``local_files_only``, ``token`` and ``cache_dir``, as in :func:`from_pretrained`.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`from_pretrained`, or if the folder was not written by :func:`save_pretrained`.
    """
    folder = find_folder(source, **options)
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"read_folder: {folder} holds no {MANIFEST}; write it with save_pretrained")
    card = ModelCard.from_dict(manifest.get("card") or {})
    tables = {name: read_tables(folder / name) for name in (METRICS, ALIGNMENT) if (folder / name).is_file()}
    return HubFolder(
        folder=folder,
        kind=str(manifest.get("kind")),
        sessions=str(manifest.get("sessions")),
        card=card,
        metrics=tables.get(METRICS, {}),
        alignment=tables.get(ALIGNMENT, {}),
        base=manifest.get("base") or {},
    )


def find_folder(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Return the local folder of a model, downloading a repository that is not in the cache."""
    path = Path(source).expanduser()
    if path.is_file():
        refuse = " and pickled weights are never loaded" if path.suffix != ".safetensors" else ""
        raise ValueError(
            f"from_pretrained: source must be a folder or a repository 'owner/name', got the file {path}; "
            f"pass the folder that holds it{refuse}"
        )
    if path.is_dir():
        refuse_pickles(path)
        return path
    if not isinstance(source, str) or not REPO_ID.fullmatch(source):
        raise FileNotFoundError(
            f"from_pretrained: there is no folder {path}, and it is no repository 'owner/name' either"
        )
    folder = _download(source, revision, local_files_only, token, cache_dir)
    refuse_pickles(folder)
    return folder


def hub_library() -> Any:
    """Return huggingface_hub, or raise ImportError that names the extra."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise ImportError(
            "repositories of the Hub need huggingface_hub; install it with: pip install 'neurokern[hub]'. "
            "Folders are read and written without it"
        ) from None


def _download(
    repo_id: str, revision: str | None, local_files_only: bool, token: str | None, cache_dir: Any
) -> Path:
    library = hub_library()
    try:
        found = library.snapshot_download(
            repo_id,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            cache_dir=cache_dir,
            allow_patterns=[*FILES, MANIFEST, CARD],  # never a pickle, whatever else is there
        )
    except (OSError, ValueError) as error:  # what huggingface_hub raises derives from them
        where = "the cache" if local_files_only else "the Hub or the cache"
        at = "" if revision is None else f" at revision {revision!r}"
        raise FileNotFoundError(
            f"from_pretrained: {repo_id}{at} was not found in {where} ({_first_line(error)}); check name, "
            "revision and token, or, without a network, pass a folder that was copied here"
        ) from error
    return Path(found)


def _checked_checkpoint(folder: Path) -> Path:
    """Return the checkpoint in a folder without a manifest, of a version that can be read."""
    folder = find_checkpoint(folder)
    refuse_pickles(folder)
    check_version(read_json(folder / CONFIG), folder / CONFIG)
    return folder


def _base_of(manifest: Mapping[str, Any], folder: Path, options: Mapping[str, Any]) -> MtM:
    found = manifest.get("base")
    source = found.get("source") if isinstance(found, Mapping) else None
    if not isinstance(source, str) or not source:
        raise ValueError(
            f"from_pretrained: the adapter in {folder} does not say where its base model is; pass base="
        )
    model = from_pretrained(source, **{**options, "revision": None})
    if not isinstance(model, MtM):
        raise ValueError(f"from_pretrained: the base of {folder}, {source}, is an adapter itself")
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
