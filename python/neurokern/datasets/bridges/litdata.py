"""Windows as chunks of litdata, which streams them from disks or buckets and resumes in the middle."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from tqdm import tqdm

from neurokern._check import check_integer
from neurokern.datasets.bridges._peer import import_peer
from neurokern.datasets.bridges._samples import (
    FACTS,
    decode,
    describe,
    encode,
    order_of,
    read_manifest,
    write_manifest,
)

__all__ = ["from_litdata", "to_litdata"]


def to_litdata(
    windows: Any,
    folder: str | os.PathLike[str],
    *,
    chunk_size: int = 256,
    compression: str | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Path:
    """Write windows as chunks of litdata, as its ``optimize`` does, in a fixed order.

    The folder appears when all is written; an interrupted export leaves nothing under its name, and starts
    anew. (A killed one leaves a folder ``.NAME.....tmp`` beside it, to delete.)

    Parameters
    ----------
    windows : FMRIWindows, MEEGWindows, PairedWindows, SpikeWindows, or another dataset of such items
        With the same entries in each window.
    folder : path-like
        New, or empty.
    chunk_size : int, default 256
        Windows in a chunk.
    compression : str, optional
        As litdata takes it, such as ``"zstd"``.
    seed : int, optional
        Draws the order; default the dataset's.
    progress : bool, default True

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ImportError
        If litdata is not installed.
    ValueError
        If the folder is not empty, or there are no windows.
    """
    if check_integer("to_litdata", "chunk_size", chunk_size) < 1:
        raise ValueError(f"to_litdata: chunk_size must be at least 1, got {chunk_size}")
    peer = import_peer("to_litdata", "litdata.streaming.writer", "litdata")
    target = Path(os.path.abspath(folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"to_litdata: {target} must be a new or empty folder")
    manifest = describe("to_litdata", windows, seed)
    order = order_of("to_litdata", len(windows), seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir()
        writer = peer.BinaryWriter(str(temporary), chunk_size=chunk_size, compression=compression)
        rows = tqdm(order.tolist(), desc="chunks", unit=" windows", disable=not progress)
        for number, row in enumerate(rows):
            arrays, facts = encode(windows[row])
            writer[number] = {FACTS: facts, **arrays}
        writer.done()
        writer.merge()
        write_manifest(temporary, manifest)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def from_litdata(folder: str | os.PathLike[str], **options: Any) -> Any:
    """Return the ``litdata.StreamingDataset`` of what :func:`to_litdata` wrote: tensors, masks, names.

    ``litdata.StreamingDataLoader(dataset, batch_size=16, collate_fn=collate_windows)`` makes batches
    (``collate_spikes`` those of spikes), and its ``state_dict`` resumes.

    Parameters
    ----------
    folder : path-like or URL
        Names of conditions and regions are read from local folders.
    **options
        Of ``litdata.StreamingDataset``, such as ``shuffle``, ``seed``, ``drop_last``.

    Returns
    -------
    litdata.StreamingDataset
        With ``conditions``, ``region_names`` and ``unit_ids`` as attributes.

    Raises
    ------
    ImportError
        If litdata is not installed.
    FileNotFoundError, ValueError
        If the folder holds no export.
    """
    peer = import_peer("from_litdata", "litdata", "litdata")
    remote = isinstance(folder, str) and "://" in folder
    manifest = {} if remote else read_manifest("from_litdata", Path(folder))
    dataset = peer.StreamingDataset(os.fspath(folder), transform=_window, **options)
    dataset.conditions = tuple(manifest.get("conditions", ()))
    dataset.region_names = tuple(manifest.get("region_names", ()))
    dataset.unit_ids = dict(manifest.get("unit_ids", {}))
    return dataset


def _window(sample: dict[str, Any]) -> Any:
    return decode(sample, sample[FACTS])
