"""Numpy files: nothing is unpickled, damage is a ValueError, and what is written is whole or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

__all__ = ["read_npy", "read_npz", "write_npz"]


def read_npy(function: str, path: Path, memory_map: bool = False) -> np.ndarray:
    """Return the array in a ``.npy`` file; its size is checked against the header before memory is taken.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is cut short, holds pickled objects, or is no ``.npy`` file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{function}: no such file: {path}")
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
        array = mapped.view(np.ndarray) if memory_map else np.load(path, allow_pickle=False)
    except Exception as error:  # numpy's header parser raises a dozen kinds, even of the tokenizer
        if "object" in str(error).lower():
            raise ValueError(
                f"{function}: {path.name} holds pickled Python objects, which can run code when they are "
                "loaded; save it again as a numeric or string array"
            ) from error
        raise ValueError(f"{function}: {path.name} is cut short or not a .npy file ({error})") from error
    return array


def read_npz(function: str, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return all arrays of a ``.npz`` file by name; errors as for :func:`read_npy`."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{function}: no such file: {file}")
    try:
        if not _is_zip(file):  # numpy would take it for a pickle, and say how to load that
            raise ValueError("not a zip archive of arrays")
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if foreign:
            raise ValueError(f"{foreign} in it are no .npy arrays")
        return arrays
    except Exception as error:  # as above, and those of zip and deflate
        if "object arrays" in str(error).lower():
            raise ValueError(
                f"{function}: {file.name} holds pickled Python objects, which can run code when they are "
                "loaded; save it again with numeric or string arrays only"
            ) from error
        raise ValueError(f"{function}: {file.name} is cut short or not a .npz file ({error})") from error


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to one compressed ``.npz``: under another name first, then renamed at once."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"save: no such folder: {target.parent}; make it first")
    if target.suffix != ".npz":
        raise ValueError(f"save: the file name must end in .npz, got {target.name!r}")
    pickled = [name for name, values in arrays.items() if values.dtype.hasobject]
    if pickled:
        raise ValueError(f"save: {pickled} hold Python objects, which would have to be pickled")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            np.savez_compressed(stream, **dict(arrays))  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
