"""HDF5 files through h5py: no link leads out of the file, sizes are checked before memory is taken."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neurokern._check import check_memory

__all__ = ["child", "number_attribute", "open_hdf5", "read_values", "scalar_text"]


@contextlib.contextmanager
def open_hdf5(function: str, source: Any) -> Iterator[Any]:
    """Open a file by its path, or one that is open in binary; what HDF5 raises becomes a ValueError."""
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{function}: HDF5 is read through h5py; `pip install 'neurokern[nwb]'`") from None
    name = "the file"
    if isinstance(source, (str, os.PathLike)):
        name = Path(source).name
        if not Path(source).is_file():
            raise FileNotFoundError(f"{function}: no such file: {source}")
    try:
        file = h5py.File(source, "r")
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{function}: {name} is cut short or not an HDF5 file ({error})") from error
    with file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError) as error:  # HDF5's words for damage within
            raise ValueError(f"{function}: {name} is damaged: {error}") from error


def child(group: Any, path: str, function: str) -> Any:
    """Return what lies below a group, or None; a link to another file is an error."""
    import h5py

    at = group
    for part in path.split("/"):
        if not isinstance(at, h5py.Group) or part not in at:
            link = at.get(part, getlink=True) if isinstance(at, h5py.Group) else None
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(
                    f"{function}: {at.name}/{part} is a link to another file, which is not followed"
                )
            return None
        if isinstance(at.get(part, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{function}: {at.name}/{part} is a link to another file, which is not followed")
        at = at[part]
    return at


def read_values(function: str, stored: Any, kinds: str) -> np.ndarray:
    """Return the values of a dataset of one of these kinds; text as ``str``."""
    import h5py

    if not isinstance(stored, h5py.Dataset):
        raise ValueError(f"{function}: {getattr(stored, 'name', stored)} must be an array in the file")
    if stored.is_virtual or stored.external:
        raise ValueError(f"{function}: {stored.name} lies in another file, which is not followed")
    text = h5py.check_string_dtype(stored.dtype) is not None
    if stored.dtype.kind not in kinds or (stored.dtype.kind == "O" and not text):
        raise ValueError(f"{function}: {stored.name} must be of kind {kinds}, got {stored.dtype}")
    n_bytes = math.prod(stored.shape) * max(stored.dtype.itemsize, 1)
    check_memory(function, stored.name, n_bytes, "is the file damaged?")
    if text:
        values = stored.asstr(errors="replace")[()]
        return np.asarray(values, dtype=str) if np.ndim(values) else np.array([values], dtype=str)
    values = np.asarray(stored[()])
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def number_attribute(function: str, stored: Any, name: str, default: float) -> float:
    """Return an attribute that is one finite number, or the default if there is none."""
    value = np.asarray(stored.attrs.get(name, default)).reshape(-1)
    if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value[0]):
        raise ValueError(f"{function}: {name} of {stored.name} must be a number, got {stored.attrs[name]!r}")
    return float(value[0])


def scalar_text(file: Any, path: str) -> str:
    """Return a text of the file, or "" if there is none."""
    stored = child(file, path, "read")
    if stored is None or getattr(stored, "shape", None) != ():
        return ""
    value = stored[()]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
