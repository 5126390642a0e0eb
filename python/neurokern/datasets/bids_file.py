"""What a BIDS folder says about one of its images."""

from __future__ import annotations

import os
from pathlib import Path

from neurokern.datasets._bids_tables import read_json
from neurokern.datasets.bids import BIDSDataset, BIDSRun
from neurokern.datasets.bids_index import BIDSIndex
from neurokern.datasets.bids_names import BIDSName

_DESCRIPTION = "dataset_description.json"
_DATATYPES = (
    "func",
    "anat",
    "dwi",
    "fmap",
    "perf",
    "eeg",
    "meg",
    "ieeg",
    "pet",
    "beh",
    "nirs",
    "micr",
    "motion",
)


def is_bids_folder(folder: Path) -> bool:
    """Return whether a folder looks like BIDS: it describes itself, or subjects' folders hold data."""
    if (folder / _DESCRIPTION).is_file():
        return True
    below = (f"{subject}{kind}" for subject in ("sub-*/", "sub-*/ses-*/") for kind in _DATATYPES)
    return any(next(folder.glob(pattern), None) is not None for pattern in below)


def bids_root(path: Path) -> Path | None:
    """Return the BIDS folder that a file lies in: of a derivative below a raw folder the raw one; or None."""
    for folder in path.parents:
        if (folder / _DESCRIPTION).is_file():
            above = folder.parent.parent
            nested = folder.parent.name == "derivatives" and (above / _DESCRIPTION).is_file()
            return above if nested else folder
    return None


def find_run(path: str | os.PathLike[str]) -> BIDSRun:
    """Return an image with its metadata, events and confounds, as far as its folder has them.

    Outside of a BIDS folder the metadata are those of the ``.json`` file of the same name beside it.

    Raises
    ------
    ValueError
        If a sidecar or a table cannot be read.
    """
    image = Path(path).absolute()
    name, root = BIDSName.parse(image.name), bids_root(image)
    if name is None or root is None:
        beside = image.with_name(image.name.partition(".")[0] + ".json")
        metadata = read_json(beside) if beside.is_file() else {}
        return BIDSRun(path=image, entities={}, metadata=metadata, events=None, confounds=None)
    try:
        runs = BIDSDataset(root, derivatives=image.relative_to(root).parts[0] == "derivatives")
        found = [i for i, other in enumerate(runs.table["path"]) if other == image]
    except ValueError:  # no runs of fMRI in it
        found = []
    if found:
        return runs.run(found[0])
    metadata = BIDSIndex(root).metadata(image)
    return BIDSRun(path=image, entities=name.entities, metadata=metadata, events=None, confounds=None)
