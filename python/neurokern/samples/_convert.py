"""Make ``ibl_120s.npz`` from the wheel of ibllib: ``python -m neurokern.samples._convert WHEEL [FILE]``.

This is how the packaged recording was made; nothing in the package runs it. The fixture is a pickle, so run
it only on a wheel whose hash you have checked against PyPI.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np

from neurokern.datasets._files import write_npz

__all__ = ["convert"]

FIXTURE = "brainbox/tests/fixtures/ephys_test.p"
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> object:
        """Return a class of numpy's arrays."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array")
        return super().find_class(module, name)


def convert(wheel: Path, target: Path) -> None:
    """Write spike times, unit ids and a description to ``target``.

    Times keep their 64 bits: they were corrected for clock drift, so they do not lie on the grid of the 30
    kHz samples. The fixture's ``event_times`` are made up for its unit test and are left out.
    """
    with zipfile.ZipFile(wheel) as archive:
        fixture = ArrayUnpickler(io.BytesIO(archive.read(FIXTURE))).load()
    times = np.asarray(fixture["spike_times"], dtype=np.float64)
    clusters = np.asarray(fixture["spike_clusters"])
    if not (times[1:] >= times[:-1]).all() or clusters.max() >= 2**16:
        raise ValueError("convert: expected sorted times and ids below 65536; the fixture has changed")
    arrays: dict[str, np.ndarray] = {
        "spike_times_s": times,
        "spike_units": clusters.astype(np.uint16),
        "session": np.array("ibl_120s"),
        "start_s": np.array(0.0),
        "stop_s": np.array(120.0),
        "notes": np.array(
            ["120 s of a Neuropixels recording, International Brain Laboratory (see NOTICE.md)"]
        ),
    }
    write_npz(target, arrays)


if __name__ == "__main__":
    convert(
        Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "ibl_120s.npz"
    )
