"""What people use to get the voxels of a compressed run: beside the streaming readers those with an index.

nibabel reads through indexed_gzip whenever that can be imported; it is timed with and without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import harness
import nibabel
import numpy as np
from nifti_runs import Run
from numpy.typing import NDArray

HEADER_BYTES = 352


def _rows(run: Run, source: Any, first: int, n: int) -> NDArray[np.float32]:
    """Return volumes from a file object that can seek."""
    values, volume = np.empty((n, run.n_voxels), np.float32), np.empty(run.mask.size, run.dtype)
    source.seek(HEADER_BYTES + first * run.volume_bytes)
    for row in values:
        source.readinto(memoryview(volume).cast("B"))
        np.multiply(volume.take(run.places), run.slope, out=row, dtype=np.float32)
        row += run.inter
    return values


@contextlib.contextmanager
def _without_indexed_gzip() -> Iterator[None]:
    with mock.patch("nibabel._compression.HAVE_INDEXED_GZIP", False):
        yield


def first_pass(run: Run) -> harness.Candidates:
    """Return the ways through a whole .nii.gz of which nothing is known yet."""
    import indexed_gzip
    import rapidgzip

    packed = run.compressed()

    def rapid(threads: int) -> NDArray[np.float32]:
        with rapidgzip.open(str(packed), parallelization=threads) as source:
            return _rows(run, source, 0, run.n_volumes)

    def indexed() -> NDArray[np.float32]:
        with indexed_gzip.IndexedGzipFile(str(packed)) as source:
            return _rows(run, source, 0, run.n_volumes)

    def nibabel_alone() -> NDArray[Any]:
        with _without_indexed_gzip():
            return nibabel.load(packed).get_fdata(dtype=np.float32)[run.mask].T

    return {
        "rapidgzip, 1 thread + take": lambda: rapid(1),
        "rapidgzip, 2 threads + take": lambda: rapid(2),
        "indexed_gzip + take": indexed,
        "nibabel without indexed_gzip": nibabel_alone,
    }


def windows(run: Run, starts: list[int], n: int) -> harness.Candidates:
    """Return the ways to windows of n volumes with an index that is there; the last one is the result."""
    import indexed_gzip
    import rapidgzip

    packed = run.compressed()
    indexed = indexed_gzip.IndexedGzipFile(str(packed), spacing=1 << 20)
    indexed.build_full_index()
    rapid = {threads: rapidgzip.open(str(packed), parallelization=threads) for threads in (1, 2)}
    for source in rapid.values():
        source.block_offsets()  # one pass
    image = nibabel.load(packed, keep_file_open=True)
    np.asarray(image.dataobj[..., -1])  # one pass

    def each(window: Callable[[int], Any]) -> Callable[[], Any]:
        return lambda: [window(start) for start in starts][-1]

    return {
        "rapidgzip, 1 thread + take": each(lambda start: _rows(run, rapid[1], start, n)),
        "rapidgzip, 2 threads + take": each(lambda start: _rows(run, rapid[2], start, n)),
        "indexed_gzip + take": each(lambda start: _rows(run, indexed, start, n)),
        "nibabel + indexed_gzip": each(
            lambda start: np.asarray(image.dataobj[..., start : start + n])[run.mask].T
        ),
    }
