"""Windows as WebDataset: tar files that are read from end to end, from disks or the net."""

from __future__ import annotations

import io
import os
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset
from tqdm import tqdm

from neurokern._check import check_integer
from neurokern.datasets.bridges._peer import import_peer
from neurokern.datasets.bridges._samples import (
    FACTS,
    MANIFEST,
    decode,
    describe,
    encode,
    order_of,
    read_manifest,
    write_manifest,
)

__all__ = ["WebDatasetWindows", "to_webdataset"]

_JSON, _NPY = f"{FACTS}.json", ".npy"
_MANY = 100_000  # shards that are drawn from at once: all


def to_webdataset(
    windows: Any,
    folder: str | os.PathLike[str],
    *,
    shard_size: int = 1000,
    seed: int | None = None,
    progress: bool = True,
) -> list[Path]:
    """Write windows as shards that WebDataset, and anything that reads tar files, takes.

    A window is ``000000042.signal.npy``, ``000000042.valid.npy``, ... and ``000000042.facts.json`` with its
    numbers and names; no package is needed to write it. A shard appears whole or not at all, with the same
    bytes each time. Call it again after an interruption: shards that are there are kept.

    Parameters
    ----------
    windows : FMRIWindows, MEEGWindows, PairedWindows, SpikeWindows, or another dataset of such items
    folder : path-like
        New, empty, or with the same export begun.
    shard_size : int, default 1000
        Windows in a shard.
    seed : int, optional
        Draws the order: WebDataset shuffles within a buffer only. Default: the dataset's order.
    progress : bool, default True

    Returns
    -------
    list of Path
        The shards, ``shard-000000.tar``, ...

    Raises
    ------
    ValueError
        If the folder holds anything else, or there are no windows.
    """
    if check_integer("to_webdataset", "shard_size", shard_size) < 1:
        raise ValueError(f"to_webdataset: shard_size must be at least 1, got {shard_size}")
    target, n = Path(folder), len(windows)
    manifest = describe("to_webdataset", windows, seed) | {"shard_size": shard_size}
    order = order_of("to_webdataset", n, seed)
    target.mkdir(parents=True, exist_ok=True)
    _begin(target, manifest)
    shards = _shards(target, manifest)
    with tqdm(total=n, desc="shards", unit=" windows", disable=not progress) as bar:
        for number, shard in enumerate(shards):
            rows = order[number * shard_size : (number + 1) * shard_size]
            if not shard.is_file():
                _write_shard(shard, windows, rows, number * shard_size)
            bar.update(len(rows))
    return shards


def _shards(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    n = -(-manifest["windows"] // manifest["shard_size"])
    return [folder / f"shard-{number:06d}.tar" for number in range(n)]


def _begin(folder: Path, manifest: dict[str, Any]) -> None:
    """Make sure that the folder is empty, or holds this very export, begun."""
    if (folder / MANIFEST).is_file():
        found = read_manifest("to_webdataset", folder)
        other = sorted(name for name in manifest if found.get(name) != manifest[name])
        if other:
            raise ValueError(
                f"to_webdataset: {folder} holds an export that differs in {', '.join(other)}; give another"
            )
        return
    strangers = [file.name for file in folder.iterdir() if not file.name.endswith(".tmp")]
    if strangers:
        raise ValueError(f"to_webdataset: {folder} must be empty, it holds {sorted(strangers)[:3]}")
    write_manifest(folder, manifest)


def _write_shard(shard: Path, windows: Any, rows: NDArray[np.int64], first: int) -> None:
    temporary = shard.with_name(f".{shard.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            _write_tar(stream, windows, rows, first)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, shard)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_tar(stream: BinaryIO, windows: Any, rows: NDArray[np.int64], first: int) -> None:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for number, row in enumerate(rows.tolist(), start=first):
            arrays, facts = encode(windows[row])
            members = [(_JSON, facts.encode())]
            members += [(name + _NPY, _npy(values)) for name, values in arrays.items()]
            for name, content in members:
                info = tarfile.TarInfo(f"{number:09d}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _npy(values: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


class WebDatasetWindows(IterableDataset[Any]):
    """Windows of shards that :func:`to_webdataset` wrote, as the dataset gave them: tensors, masks, names.

    ``DataLoader(stream, batch_size=16, num_workers=4, collate_fn=collate_windows)`` (``collate_spikes`` for
    spikes) makes batches. Each worker reads shards of its own.

    Parameters
    ----------
    source : path-like, or sequence of str
        The folder, or shards as WebDataset takes them: paths, URLs, ``pipe:`` commands.
    shuffle : int, default 0
        Windows in the buffer that is drawn from; shards are then drawn, too. 0 keeps the order.
    **options
        Of :class:`webdataset.WebDataset`, such as ``seed`` or ``nodesplitter=webdataset.split_by_node``.

    Attributes
    ----------
    conditions, region_names : tuple of str
        Names that the windows' codes stand for; () where only shards are given.
    unit_ids : dict of str to list
        Ids of the units of each session, in the order of their columns.

    Raises
    ------
    ImportError
        If webdataset is not installed.
    FileNotFoundError, ValueError
        If the folder holds no export, or one that was cut short.
    """

    def __init__(
        self, source: str | os.PathLike[str] | Sequence[str], *, shuffle: int = 0, **options: Any
    ) -> None:
        self._peer = "webdataset"
        import_peer("WebDatasetWindows", self._peer, self._peer)
        manifest: dict[str, Any] = {}
        single = isinstance(source, (str, os.PathLike))
        self.shards: str | list[str] = os.fspath(source) if single else list(source)  # type: ignore[arg-type]
        if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
            manifest = read_manifest("WebDatasetWindows", Path(source))
            shards = _shards(Path(source), manifest)
            missing = [shard.name for shard in shards if not shard.is_file()]
            if missing:
                raise ValueError(
                    f"WebDatasetWindows: {len(missing)} of {len(shards)} shards are not there, {missing[0]} "
                    "first; call to_webdataset again to go on"
                )
            _check_whole(shards)
            self.shards = [os.fspath(shard) for shard in shards]
        elif isinstance(self.shards, str) and not _is_remote(self.shards) and not Path(self.shards).exists():
            raise FileNotFoundError(f"WebDatasetWindows: no such folder or shard: {self.shards}")
        self.n_windows = manifest.get("windows")
        self.conditions = tuple(manifest.get("conditions", ()))
        self.region_names = tuple(manifest.get("region_names", ()))
        self.unit_ids = dict(manifest.get("unit_ids", {}))
        self.shuffle = check_integer("WebDatasetWindows", "shuffle", shuffle)
        # More workers than shards are no error: some have nothing to do.
        self.options = {
            "shardshuffle": len(self.shards) if shuffle else False,
            "empty_check": False,
        } | options

    def pipeline(self) -> Any:
        """Return the ``webdataset.WebDataset`` itself, to add steps to."""
        peer = import_peer("WebDatasetWindows", self._peer, self._peer)
        stream = peer.WebDataset(self.shards, **self.options)
        if self.shuffle:
            stream = stream.shuffle(self.shuffle, seed=self.options.get("seed"))
        return stream.compose(_windows_of)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.pipeline())


def _is_remote(source: str) -> bool:
    return "://" in source or "{" in source or source.startswith("pipe:")


def _check_whole(shards: Sequence[Path]) -> None:
    """Raise if a shard was cut short: a tar file ends with zeros, and readers take any end for the end."""
    for shard in shards:
        size = shard.stat().st_size
        with shard.open("rb") as stream:
            stream.seek(max(size - 2 * tarfile.BLOCKSIZE, 0))
            end = stream.read()
        if size % tarfile.RECORDSIZE or len(end) != 2 * tarfile.BLOCKSIZE or any(end):
            raise ValueError(
                f"WebDatasetWindows: {shard} is cut short; delete it and call to_webdataset again"
            )


def _windows_of(samples: Iterable[dict[str, Any]]) -> Iterator[Any]:
    return map(_window, samples)


def _window(sample: dict[str, Any]) -> Any:
    """Return a window from the bytes of its members."""
    if _JSON not in sample:
        raise ValueError(
            f"WebDatasetWindows: {sample.get('__url__')}: {sample.get('__key__')} has no {_JSON}; it was not "
            "written by to_webdataset"
        )
    arrays = {
        name.removesuffix(_NPY): np.load(io.BytesIO(content), allow_pickle=False)
        for name, content in sample.items()
        if name.endswith(_NPY)
    }
    try:
        return decode(arrays, sample[_JSON])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"WebDatasetWindows: {sample.get('__url__')}: {sample.get('__key__')} is damaged: {error!r}"
        ) from error
