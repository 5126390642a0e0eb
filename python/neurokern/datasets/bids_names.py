"""Names of files in a BIDS folder, taken apart.

Names and entities are those of the Brain Imaging Data Structure (Gorgolewski et al. 2016,
doi:10.1038/sdata.2016.44).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENTITIES", "OF_RUNS", "BIDSName", "dataset_of"]

# key in a file's name -> the entity's full name
ENTITIES = {
    "sub": "subject",
    "ses": "session",
    "sample": "sample",
    "task": "task",
    "tracksys": "tracksys",
    "acq": "acquisition",
    "ce": "ceagent",
    "trc": "tracer",
    "stain": "staining",
    "rec": "reconstruction",
    "dir": "direction",
    "run": "run",
    "mod": "modality",
    "echo": "echo",
    "flip": "flip",
    "inv": "inversion",
    "mt": "mtransfer",
    "part": "part",
    "proc": "processing",
    "hemi": "hemisphere",
    "space": "space",
    "split": "split",
    "recording": "recording",
    "chunk": "chunk",
    "seg": "segmentation",
    "res": "resolution",
    "den": "density",
    "label": "label",
    "desc": "description",
}
_PART = re.compile(r"([a-zA-Z0-9]+)-([a-zA-Z0-9+]+)")
# Entities by which runs of one subject differ; echoes and parts of a run share its events and confounds.
OF_RUNS = ("subject", "session", "task", "acquisition", "ceagent", "reconstruction", "direction", "run")


@dataclass(frozen=True)
class BIDSName:
    """A file's name taken apart: ``sub-01_task-rest_bold.nii.gz``."""

    entities: dict[str, str]
    suffix: str
    extension: str

    @classmethod
    def parse(cls, name: str) -> BIDSName | None:
        """Return the parts, or None if the name is not of this form."""
        stem, dot, extension = name.partition(".")
        *pairs, suffix = stem.split("_")
        if not dot or not suffix or "-" in suffix:
            return None
        entities = {}
        for pair in pairs:
            found = _entity(pair)
            if found is None:
                return None
            entities[found[0]] = found[1]
        return cls(entities, suffix, dot + extension)


@functools.lru_cache(maxsize=1 << 14)  # the same few occur in all names
def _entity(pair: str) -> tuple[str, str] | None:
    match = _PART.fullmatch(pair)
    return None if match is None else (ENTITIES.get(match[1], match[1]), match[2])


def dataset_of(root: Path, path: Path) -> Path:
    """Return the folder of the dataset that a file belongs to: a derivative is a dataset of its own."""
    parts = path.relative_to(root).parts
    return root / parts[0] / parts[1] if parts[0] == "derivatives" and len(parts) > 2 else root
