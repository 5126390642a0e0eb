"""Features of stimuli kept between runs: files of many stimuli each, found by what the stimuli hold."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurokern.ops._array_cache import ArraySpec, make_arrays, read_array, read_arrays
from neurokern.ops._gzip_cache import cache_folder

__all__ = ["FeatureFiles"]

_FORMAT = "1"
_KEY_BYTES = 16


class FeatureFiles:
    """The features of one layer of one network, with its settings, by the keys of stimuli.

    A file holds the keys of some stimuli and a row of features for each. Files are complete or not there, and
    are read only if their checksum fits; a damaged one is removed, and its stimuli are looked at again.

    Parameters
    ----------
    key : str
        Of network, layer and settings.
    required : bool
        Raise if files cannot be written; otherwise a warning says so.
    """

    def __init__(self, key: str, required: bool = False) -> None:
        self.key, self._required = key, required
        self._keys_of: dict[str, list[bytes]] = {}  # files whose keys were read
        self._file_of: dict[bytes, Path] = {}

    def read(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.floating]]:
        """Return the features of those keys that sound files hold."""
        self._look()
        wanted: dict[Path, list[bytes]] = {}
        for key in keys:
            if key in self._file_of:
                wanted.setdefault(self._file_of[key], []).append(key)
        found: dict[bytes, NDArray[np.floating]] = {}
        for path, chosen in wanted.items():
            arrays = read_arrays(path)
            if arrays is None or not {"keys", "features"} <= arrays.keys():
                self._forget(path)
                continue
            rows = {row.tobytes(): number for number, row in enumerate(arrays["keys"])}
            found |= {key: arrays["features"][rows[key]].copy() for key in chosen if key in rows}
        return found

    def write(self, keys: Sequence[bytes], features: NDArray[np.floating]) -> None:
        """Keep the features of some stimuli, all of one shape."""
        held = hashlib.blake2b(b"".join(keys), digest_size=8)
        name = f"{self.key}-{held.hexdigest()}"
        specs = {
            "keys": ArraySpec("uint8", (len(keys), _KEY_BYTES)),
            "features": ArraySpec(str(features.dtype), features.shape),
        }

        def fill(arrays: dict[str, NDArray]) -> None:
            arrays["keys"][...] = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), _KEY_BYTES)
            arrays["features"][...] = features

        try:
            make_arrays(self._folder / f"{name}.safetensors", specs, {"format": _FORMAT, "key": name}, fill)
        except OSError as error:
            if self._required:
                raise
            warnings.warn(f"StimulusFeatures: features are not kept between runs: {error}", stacklevel=5)

    @property
    def _folder(self) -> Path:
        return cache_folder() / "stimulus_features"

    def _look(self) -> None:
        """Read the keys of files that are new, and forget those that are gone."""
        try:
            names = {name for name in os.listdir(self._folder) if name.startswith(f"{self.key}-")}
        except OSError:
            names = set()
        for name in self._keys_of.keys() - names:
            self._forget(self._folder / name, remove=False)
        for name in sorted(names - self._keys_of.keys()):
            path = self._folder / name
            if path.suffix != ".safetensors":
                continue
            keys = read_array(path, "keys")
            if keys is None or keys.dtype != np.uint8:
                self._forget(path)
                continue
            self._keys_of[name] = [row.tobytes() for row in keys]
            self._file_of |= dict.fromkeys(self._keys_of[name], path)

    def _forget(self, path: Path, remove: bool = True) -> None:
        for key in self._keys_of.pop(path.name, []):
            if self._file_of.get(key) == path:
                del self._file_of[key]
        if remove:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
