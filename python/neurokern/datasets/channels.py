"""Channels of EEG, MEG and intracranial recordings: names, types, places and orientations."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHANNEL_TYPES", "Channels", "channel_name"]

# By MNE's names; their places are the codes of ``channel_types`` in batches.
CHANNEL_TYPES = (
    "eeg", "mag", "grad", "seeg", "ecog", "dbs", "ref_meg", "eog", "ecg", "emg", "resp", "stim", "misc",
    "bio", "gsr", "temperature", "eyegaze", "pupil", "fnirs_cw_amplitude", "fnirs_od", "hbo", "hbr", "csd",
    "exci", "ias", "syst", "gof", "dipole", "chpi",
)  # fmt: skip
DATA_TYPES = ("eeg", "mag", "grad", "seeg", "ecog", "dbs")
_AROUND = re.compile(r"^(?:EEG|MEG|ECOG|SEEG)[ _-]+|[ _-]+(?:REF|LE|AVG|AV|A1A2)$", re.IGNORECASE)
_PLACE = re.compile(r"(n|fp|af|f|ft|fc|t|c|tp|cp|p|po|o|i|ffc|fft|fcc|ftt|ccp|ttp|cpp|tpp|ppo|poo|aff|afp|oi)"
                    r"(z|\d{1,2})(h?)", re.IGNORECASE)  # fmt: skip
_EARS = {"m1": "M1", "m2": "M2", "a1": "A1", "a2": "A2"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Channels:
    """What is known of the channels of a recording, in the order of its signals.

    Parameters
    ----------
    names : tuple of str
    types : tuple of str
        By MNE's names: ``"eeg"``, ``"mag"``, ``"grad"``, ``"seeg"``, ``"ecog"``, ``"eog"``, ...
    positions : float32 array of shape (n, 3)
        Meters in ``frame``; NaN where unknown.
    orientations : float32 array of shape (n, 3)
        Unit normals of MEG coils in ``frame``; NaN where a channel has none.
    frame : str
        What positions count from: ``"head"`` (MNE's, by nasion and ears), ``"device"``, or the coordinate
        system that a ``_coordsystem.json`` names; "" where no position is known.
    bad : bool array of shape (n,)
    regions : tuple of str
        Region of each channel, "" where unknown.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    positions: NDArray[np.float32]
    orientations: NDArray[np.float32]
    frame: str
    bad: NDArray[np.bool_]
    regions: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.names)
        shapes = {
            "types": (len(self.types),) == (n,),
            "positions": self.positions.shape == (n, 3),
            "orientations": self.orientations.shape == (n, 3),
            "bad": self.bad.shape == (n,),
            "regions": len(self.regions) == n,
        }
        wrong = [name for name, fits in shapes.items() if not fits]
        if wrong:
            raise ValueError(f"Channels: {', '.join(wrong)} must have a row for each of {n} names")

    def __len__(self) -> int:
        """Return the number of channels."""
        return len(self.names)

    def __repr__(self) -> str:
        """Return a line with counts by type."""
        counts = ", ".join(f"{self.types.count(kind)} {kind}" for kind in dict.fromkeys(self.types))
        return f"Channels({counts or 'none'})"

    def select(self, rows: Sequence[int]) -> Channels:
        """Return these channels, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return Channels(
            names=tuple(self.names[row] for row in rows),
            types=tuple(self.types[row] for row in rows),
            positions=self.positions[index],
            orientations=self.orientations[index],
            frame=self.frame,
            bad=self.bad[index],
            regions=tuple(self.regions[row] for row in rows),
        )

    @functools.cached_property
    def type_codes(self) -> NDArray[np.int64]:
        """Places of the types in ``CHANNEL_TYPES``; those that it lacks count as ``"misc"``."""
        misc = CHANNEL_TYPES.index("misc")
        return np.array(
            [CHANNEL_TYPES.index(t) if t in CHANNEL_TYPES else misc for t in self.types], np.int64
        )


def channel_name(name: str) -> str:
    """Return a channel's name as the 10-05 system writes it; names of other kinds stay as they are.

    Recorders add dots to fill a field (``Fc5.``), write capitals (``FCZ``), or what a channel is and against
    what it was recorded (``EEG Fpz-REF``).

    Examples
    --------
    >>> [channel_name(name) for name in ("Fc5.", "FP1", "EEG CZ-REF", "EOG1", "MEG 0113", "LTG-3")]
    ['FC5', 'Fp1', 'Cz', 'EOG1', 'MEG 0113', 'LTG-3']
    """
    bare = _AROUND.sub("", name.strip().rstrip("."))
    bare = _AROUND.sub("", bare)
    if bare.lower() in _EARS:
        return _EARS[bare.lower()]
    match = _PLACE.fullmatch(bare)
    if match is None:
        return name.strip()
    place = match[1].upper()
    place = place.replace("FP", "Fp") if place in ("FP", "AFP") else place
    return place + match[2].lower() + match[3].lower()
