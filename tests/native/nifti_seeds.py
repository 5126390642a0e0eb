"""Write the seeds of decode_nifti_fuzz: small images of every kind. Usage: nifti_seeds.py FOLDER."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from nifti_files import CODES, write_nifti

OPTIONS = bytes([0, 0, 1, 2, 1, 1, 0, 3])
PARCELS = bytes([0, 0, 0, 3, 2, 0, 0, 4])
HOSTILE_INDEX = bytes([3, 0, 2, 1, 1, 1, 0, 4]) + bytes([3, 0, 16, 1])  # one patch of three bytes


def images(folder: Path) -> dict[str, bytes]:
    """Return files by name: each type and byte order, both versions, plain and compressed."""
    random = np.random.default_rng(0)
    files = {}
    for number, dtype in enumerate(CODES):
        raw = random.integers(0, 100, (7, 5, 3, 6)).astype(dtype)
        order, version = "<>"[number % 2], 1 + number % 3 % 2
        for suffix in (".nii", ".nii.gz"):
            name = f"{dtype}{suffix}"
            path = write_nifti(folder / name, raw, order=order, version=version, slope=0.5, inter=number)
            files[name] = path.read_bytes()
    return files


def main() -> None:
    """Write one file for each seed into the folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in images(Path(scratch)).items():
            (folder / name).write_bytes(OPTIONS + content)
            (folder / f"parcels-{name}").write_bytes(PARCELS + content)
            if name.endswith(".gz"):
                (folder / f"index-{name}").write_bytes(HOSTILE_INDEX + content)


if __name__ == "__main__":
    main()
