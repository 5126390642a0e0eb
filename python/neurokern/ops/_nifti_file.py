"""An open NIfTI file: header, mapping, seek points; picklable, reopened in workers, aware of changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurokern import _core
from neurokern._check import check_memory
from neurokern.ops import _gzip_cache, _library
from neurokern.ops._nifti_header import VOXEL_TYPES, NiftiFormatError, NiftiHeader, check_decodable, header_of
from neurokern.ops._nifti_mask import VoxelMask
from neurokern.ops._nifti_resident import DECODED_TYPES

if TYPE_CHECKING:
    from neurokern.ops._nifti_parcels import ParcelAtlas
    from neurokern.ops._packed_run import PackedRun

HEADER_BYTES = 540
GZIP_MAGIC = b"\x1f\x8b"
MOST_SEEK_POINTS = 320  # of 32 KiB each, in memory until they lie in the cache
SEEK_BYTES = 1 << 19  # inflated to reach a volume, at most, unless the points are too many
INFLATES_TO = 1032  # times its size at most: Deflate's shortest code stands for its longest match
RAW = 3


class _Parts(NamedTuple):
    """The file of the header and the file of the values, which is the same but for .hdr/.img pairs."""

    header: Path
    values: Path


class NiftiFile:
    """A NIfTI image kept open, for many reads.

    ``.nii`` stays memory-mapped. ``.nii.gz`` is inflated on the fly, as far as a read needs: one pass goes on
    from read to read, checks the stream, and leaves seek points, from which whatever it has passed is read
    again, by any number of threads. Handles are picklable and reopen the file in a worker. A file that
    changes while open is an error at the next read, never a crash.

    Parameters
    ----------
    path : str or path
        ``.nii``, ``.nii.gz``, or one of a pair ``.hdr``/``.img`` (the latter also ``.img.gz``). Whether a
        file is compressed is read off its first bytes, not its name.
    cache : bool or {"cache", "beside"}, default True
        Where to keep the seek points of a compressed file between runs (3 % of the inflated bytes): in the
        cache folder (``NEUROKERN_CACHE``, else ``~/.cache/neurokern``), or beside the file under its name
        and ``.nkindex``. True: what the environment variable ``NEUROKERN_GZIP_INDEX`` says, else the cache
        folder. False: they live as long as the handle, in memory (10 MB at most).

    Attributes
    ----------
    path : Path
        The file of the header.
    header : NiftiHeader

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        If the file cannot be opened, or is not a regular file.
    NiftiFormatError
        If it is no NIfTI file, is cut short, or its header contradicts itself; a ``ValueError``.
    """

    def __init__(self, path: str | os.PathLike[str], *, cache: bool | str = True) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"decode_nifti: image must be a path or a NiftiFile, got {type(path).__name__}; of a nibabel "
                "image that was loaded from a file, pass image.get_filename()"
            )
        self.path = Path(path)
        self._keep = _gzip_cache.where_to_keep(cache)
        self._open()

    def _open(self) -> None:
        parts = _parts_of(self.path)
        self._header_path = parts.header
        self._values_path = parts.values
        self._file = _open_file(parts.values, mapped=True)
        self.is_compressed = _first_bytes(self._file, 2) == GZIP_MAGIC
        if self.is_compressed:
            self._file = _open_file(parts.values, mapped=False)
        try:
            native = _core.NiftiHeader.parse(self._header_bytes(parts), parts.header != parts.values)
            if not self.is_compressed:
                native.check_size(self._file.size)
        except ValueError as error:
            raise NiftiFormatError(f"{self.path}: {error}") from None
        self.header: NiftiHeader = header_of(native)
        self._stream: Any = self._open_stream() if self.is_compressed else None
        self._seek_points: _gzip_cache.SeekPointFiles | None = None
        if self.is_compressed and self._keep is not None:
            self._seek_points = _gzip_cache.SeekPointFiles(self._file, self._values_path, self._keep)

    def _open_stream(self) -> Any:
        h, size = self.header, self._file.size
        if h.offset + h.n_bytes > INFLATES_TO * size:
            raise NiftiFormatError(
                f"{self.path}: the header promises {h.n_bytes} bytes of values, {h.n_bytes / 2**30:.3g} GiB; "
                f"a gzip file of {size} bytes can hold {INFLATES_TO * size} at most"
            )
        volume_bytes = h.n_bytes // h.n_volumes
        volumes = max(-(-h.n_volumes // MOST_SEEK_POINTS), SEEK_BYTES // volume_bytes, 1)
        return _core.GzipStream(
            descriptor=self._file.descriptor, file_bytes=size, base=h.offset, spacing=volumes * volume_bytes
        )

    @property
    def parts(self) -> tuple[Path, ...]:
        """The file, or the two of a pair, the header's first."""
        return tuple(dict.fromkeys((self._header_path, self._values_path)))

    def first_bytes(self, n: int) -> bytes:
        """Return up to ``n`` bytes from the start of the header's file, inflated if it is compressed."""
        one = self._header_path == self._values_path
        return _start_of(self._file if one else _open_file(self._header_path, mapped=False), n)

    def _header_bytes(self, parts: _Parts) -> bytes:
        if parts.header != parts.values:
            return _start_of(_open_file(parts.header, mapped=False))
        return _start_of(self._file)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "keep": self._keep, "state": self._file.state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self._keep = state["path"], state["keep"]
        self._open()
        if self._file.state[:2] != state["state"][:2]:
            raise NiftiFormatError(
                f"{self.path}: the file was changed since the handle was made; open it again"
            )

    def __repr__(self) -> str:
        h = self.header
        return f"NiftiFile({str(self.path)!r}, shape={(*h.shape, h.n_volumes)}, dtype={h.dtype})"

    def read_all(self) -> NDArray[Any]:
        """Return all values, scaled as the header says, as ``(x, y, z)`` or ``(x, y, z, t)``.

        Integers without a scale keep their type; all else is float32.
        """
        h = self.header
        check_decodable(self.path, h)
        keeps = h.slope == 1 and h.inter == 0 and h.dtype not in ("float32", "float64")
        every = VoxelMask.all(h.shape)
        check_memory(
            "decode_nifti", f"all values of {self.path}", 8 * h.n_volumes * h.n_voxels, "decode a window"
        )
        out = np.empty((h.n_volumes, h.n_voxels), dtype=h.dtype if keeps else np.float32)
        self.decode_into(out, every, 0, RAW if keeps else DECODED_TYPES["float32"])
        volumes = out.reshape(h.n_volumes, *h.shape)
        return np.moveaxis(volumes, 0, -1) if h.has_time else volumes[0]

    def read_raw(self, mask: VoxelMask, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return the mask's voxels unscaled, in this machine's byte order: (trs, voxels) of the file's type.

        Half the bytes of float32 for int16: to be kept, or copied to a GPU and decoded there by
        :func:`~neurokern.ops.decode_voxels`, with ``header.in_memory``.
        """
        header = self.header
        check_decodable(self.path, header)
        mask.check_fits("mask", header.shape, header.affine)
        stop = header.n_volumes if stop is None else stop
        if not 0 <= start <= stop <= header.n_volumes:
            raise ValueError(
                f"read_raw: start and stop must lie in order within the {header.n_volumes} volumes, got "
                f"{start} and {stop}"
            )
        out = np.empty((stop - start, mask.n_voxels), dtype=header.dtype)
        if len(out):
            self.decode_into(out, mask, start, RAW)
        return out

    @property
    def content_key(self) -> str:
        """What tells this file's values from others; a change of them changes it.

        A compressed file ends with a checksum of all: size and both ends tell it, wherever it lies. Others
        (and those of several gzip members, whose last checksum is of a part) go by the time of writing and by
        places all over the file.
        """
        key, h = _gzip_cache.content_key(self._file), self.header
        whole = (h.offset + h.n_bytes) % 2**32
        if self.is_compressed and _last_bytes(self._file, 4) == whole.to_bytes(4, "little"):
            return key
        return f"{_gzip_cache.sampled_content(self._file.descriptor, self._file.size)}-{self._file.state[1]}"

    @property
    def mapped(self) -> Any:
        """The native handle of the file with the values."""
        return self._file

    def is_unchanged(self) -> bool:
        """Return whether the file still is what was opened."""
        return bool(self._file.is_unchanged())

    def pack(self, mask: VoxelMask | ParcelAtlas) -> PackedRun:
        """Return the run's voxels of a mask, or means of parcels, as one mapped file of the cache.

        The first call decodes the run in one pass into the file; later ones, of any process, map it. Windows
        then are blocks of memory: ``decode`` and ``read_raw`` of the :class:`~neurokern.ops.PackedRun`.

        Raises
        ------
        OSError
            If the cache folder cannot be written, or its disk is full.
        """
        from neurokern.ops._packed_run import PackedRun

        return PackedRun(self, mask)

    def decode_into(self, out: Any, mask: VoxelMask, start: int, decoded: int, parcels: Any = None) -> None:
        """Decode the mask's voxels from volume ``start`` on into ``out``, (volumes, voxels); checked."""
        self._check_unchanged()
        try:
            if self.is_compressed:
                self._decode_compressed(out, mask, start, decoded, parcels)
            else:
                volumes = self._volumes(out, mask, decoded, self._file.address, start)
                _core.decode_volumes(volumes, parcels, _library.thread_count())
        except ValueError as error:
            raise NiftiFormatError(f"{self._values_path}: {error}") from None
        self._check_unchanged()  # what was read while the file changed may be of both

    def _check_unchanged(self) -> None:
        if not self._file.is_unchanged():
            raise NiftiFormatError(f"{self.path}: the file was changed while it was open; open it again")

    def _volumes(self, out: Any, mask: VoxelMask, decoded: int, address: int, start: int) -> Any:
        h = self.header
        volume_bytes = h.n_bytes // h.n_volumes
        return _core.DecodeVolumes(
            mapped=address,
            descriptor=self._file.descriptor,
            offset=h.offset + start * volume_bytes,
            volume_values=h.n_voxels,
            n_volumes=out.shape[0],
            type=VOXEL_TYPES[h.dtype],
            swapped=h.swapped,
            slope=h.slope,
            inter=h.inter,
            run_starts=mask.run_starts.ctypes.data,
            run_lengths=mask.run_lengths.ctypes.data,
            n_runs=len(mask.run_starts),
            n_voxels=mask.n_voxels,
            order=mask.order.ctypes.data,
            out=out.ctypes.data if isinstance(out, np.ndarray) else out.data_ptr(),
            out_stride=out.strides[0] // out.itemsize if isinstance(out, np.ndarray) else out.stride(0),
            decoded=decoded,
        )

    def _decode_compressed(self, out: Any, mask: VoxelMask, start: int, decoded: int, parcels: Any) -> None:
        stream, n_volumes = self._stream, self.header.n_volumes
        if self._seek_points is not None:
            self._seek_points.load(stream)
            self._seek_points.spool(stream)
        volumes = self._volumes(out, mask, decoded, 0, 0)
        stream.decode(volumes, parcels, start, n_volumes, _library.thread_count())
        if self._seek_points is not None:
            self._seek_points.save(stream)

    def save_seek_points(self) -> None:
        """Keep the seek points found so far, for the next who opens the file.

        A handle does so by itself at the end of the stream and at times before; ``.nii`` has none.
        """
        if self._seek_points is not None:
            self._seek_points.save(self._stream, at_once=True)


def _parts_of(path: Path) -> _Parts:
    """Return the files of header and values; for a pair either may be given."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".hdr"):
        stem = path.with_name(name.removesuffix(".hdr"))
        for suffix in (".img", ".img.gz"):
            if (values := stem.with_name(stem.name + suffix)).exists():
                return _Parts(path, values)
        return _Parts(path, path)
    if name.endswith(".img"):
        stem = path.with_name(name.removesuffix(".img"))
        for suffix in (".hdr", ".hdr.gz"):
            if (header := stem.with_name(stem.name + suffix)).exists():
                return _Parts(header, path)
    return _Parts(path, path)


def _open_file(path: Path, *, mapped: bool) -> Any:
    # Python's own errors say what is missing: FileNotFoundError, IsADirectoryError, PermissionError.
    if path.is_dir():
        raise IsADirectoryError(f"{path} must be a NIfTI file, it is a folder")
    status = path.stat()
    try:
        return _core.MappedFile(os.fsencode(path), mapped)  # its name need not be text
    except RuntimeError as error:
        kind = PermissionError if not os.access(path, os.R_OK) else OSError
        raise kind(f"{path} ({status.st_size} bytes) could not be opened: {error}") from None


def _first_bytes(file: Any, n: int) -> bytes:
    return os.pread(file.descriptor, n, 0)


def _last_bytes(file: Any, n: int) -> bytes:
    return os.pread(file.descriptor, n, max(file.size - n, 0))


def _start_of(file: Any, n: int = HEADER_BYTES) -> bytes:
    """Return the first bytes of a file, inflated if it is compressed."""
    start = _first_bytes(file, n)
    if not start.startswith(GZIP_MAGIC):
        return start
    return bytes(_core.inflate_start(file.descriptor, file.size, n))
