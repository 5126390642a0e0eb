"""Which of fMRIPrep's confounds to project out, by what they are; and which volumes to scrub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern._check import check_choice, check_integer, check_positive

_MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
# By how many columns a signal is to have.
_EXPANSIONS = {
    0: (),
    1: ("",),
    2: ("", "_derivative1"),
    4: ("", "_derivative1", "_power2", "_derivative1_power2"),
}
# fMRIPrep before 1.2 had other names.
_OLD_NAMES = {
    "trans_x": "X",
    "trans_y": "Y",
    "trans_z": "Z",
    "rot_x": "RotX",
    "rot_y": "RotY",
    "rot_z": "RotZ",
    "csf": "CSF",
    "white_matter": "WhiteMatter",
    "global_signal": "GlobalSignal",
    "framewise_displacement": "FramewiseDisplacement",
    "std_dvars": "stdDVARS",
}


@dataclass(frozen=True, kw_only=True)
class Confounds:
    """Confounds of fMRIPrep's table by what they are, in the names of any version of it.

    Parameters
    ----------
    motion : {6, 12, 24, 0}
        Columns of head motion: the six parameters, with their derivatives, and with the squares of both
        (Friston et al. 1996).
    white_matter_csf : {0, 2, 4, 8}
        Columns of the mean signals of white matter and CSF, likewise.
    global_signal : {0, 1, 2, 4}
        Columns of the mean signal of the brain, likewise.
    compcor : int
        The first so many anatomical components (Behzadi et al. 2007). fMRIPrep finds them in filtered
        signals: its cosines are taken along.
    cosines : bool
        fMRIPrep's slow cosines, whether or not ``compcor`` is taken.
    aroma : bool
        All components that ICA-AROMA calls motion (the aggressive use).
    scrub_displacement : float, optional
        Scrub volumes that the head moved more than so many mm to (framewise displacement; 0.2 to 0.5 are
        usual).
    scrub_dvars : float, optional
        Scrub volumes with a standardized DVARS above this (1.5 to 3).
    scrub_around : (int, int)
        So many volumes before and after each of those, too.
    scrub_first : bool
        Scrub the volumes at the start that fMRIPrep found not to be in a steady state.

    Notes
    -----
    A scrubbed volume has no say in what is projected out and in mean and scale; it stays in place, and
    ``valid`` is False there. That is not filled by interpolation.

    References
    ----------
    .. [1] Friston et al. (1996) Magn. Reson. Med. 35:346.
    .. [2] Behzadi et al. (2007) NeuroImage 37:90.
    .. [3] Power et al. (2012) NeuroImage 59:2142.

    Examples
    --------
    >>> table = pd.DataFrame({"csf": [1.0, 2.0], "white_matter": [0.0, 1.0]})
    >>> table["framewise_displacement"] = [None, 0.9]
    >>> Confounds(motion=0, white_matter_csf=2).columns(table)
    ['csf', 'white_matter']
    >>> Confounds(motion=0, scrub_displacement=0.5).kept(table).tolist()
    [True, False]
    """

    motion: int = 6
    white_matter_csf: int = 0
    global_signal: int = 0
    compcor: int = 0
    cosines: bool = False
    aroma: bool = False
    scrub_displacement: float | None = None
    scrub_dvars: float | None = None
    scrub_around: tuple[int, int] = (0, 0)
    scrub_first: bool = True

    def __post_init__(self) -> None:
        check_choice("Confounds", "motion", self.motion, (0, 6, 12, 24))
        check_choice("Confounds", "white_matter_csf", self.white_matter_csf, (0, 2, 4, 8))
        check_choice("Confounds", "global_signal", self.global_signal, (0, 1, 2, 4))
        if check_integer("Confounds", "compcor", self.compcor) < 0:
            raise ValueError(f"Confounds: compcor must be at least 0, got {self.compcor}")
        for name in ("scrub_displacement", "scrub_dvars"):
            if getattr(self, name) is not None:
                check_positive("Confounds", name, getattr(self, name))
        around = tuple(check_integer("Confounds", "scrub_around", n) for n in self.scrub_around)
        if len(around) != 2 or min(around) < 0:
            raise ValueError(
                f"Confounds: scrub_around must be two numbers of volumes, before and after, each at least 0, "
                f"got {self.scrub_around!r}"
            )

    @property
    def takes_columns(self) -> bool:
        """Whether anything is projected out; without, volumes are scrubbed alone."""
        return bool(
            self.motion
            or self.white_matter_csf
            or self.global_signal
            or self.compcor
            or self.cosines
            or self.aroma
        )

    def columns(self, table: pd.DataFrame) -> list[str]:
        """Return the names of the columns to project out; ValueError names those that the table lacks."""
        wanted = [name + end for end in _EXPANSIONS[self.motion // 6] for name in _MOTION]
        tissues = ("csf", "white_matter")
        wanted += [name + end for end in _EXPANSIONS[self.white_matter_csf // 2] for name in tissues]
        wanted += [f"global_signal{end}" for end in _EXPANSIONS[self.global_signal]]
        found = _named(table, wanted)
        if self.compcor:
            components = _numbered(table, r"a_comp_cor_(\d+)|aCompCor(\d+)")
            if len(components) < self.compcor:
                raise ValueError(
                    f"Confounds: compcor={self.compcor} components are asked for, the table has "
                    f"{len(components)} (a_comp_cor_00, ...)"
                )
            found += components[: self.compcor]
        if self.compcor or self.cosines:
            found += _numbered(table, r"cosine_?(\d+)|Cosine(\d+)")  # none of a run that is too short
        if self.aroma:
            noise = _numbered(table, r"aroma_motion_(\d+)|AROMAAggrComp(\d+)")
            if not noise:
                raise ValueError(
                    "Confounds: aroma is asked for, the table has no columns aroma_motion_01, ..."
                )
            found += noise
        return found

    def kept(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return the volumes that are not scrubbed, (trs,)."""
        moved = np.zeros(len(table), dtype=bool)
        for name, limit in (
            ("framewise_displacement", self.scrub_displacement),
            ("std_dvars", self.scrub_dvars),
        ):
            if limit is not None:
                (column,) = _named(table, [name])
                # The first volume has none: a comparison with NaN is False.
                moved |= table[column].to_numpy(dtype=np.float64, na_value=np.nan) > limit
        scrubbed = moved.copy()
        before, after = self.scrub_around
        for shift in range(1, before + 1):
            scrubbed[:-shift] |= moved[shift:]
        for shift in range(1, after + 1):
            scrubbed[shift:] |= moved[:-shift]
        if self.scrub_first:
            for column in _numbered(table, r"non_steady_state_outlier_?(\d+)|NonSteadyStateOutlier(\d+)"):
                scrubbed |= table[column].to_numpy(dtype=np.float64) > 0
        return ~scrubbed


def _named(table: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    """Return the columns of these names, new or old."""
    here = {str(name) for name in table}
    found = [name if name in here else _OLD_NAMES.get(name, name) for name in wanted]
    if missing := [name for name, column in zip(wanted, found, strict=True) if column not in here]:
        raise ValueError(
            f"Confounds: the table has no columns {', '.join(missing[:6])}{', ...' if missing[6:] else ''}; "
            f"it has {', '.join(sorted(here)[:8])}{', ...' if len(here) > 8 else ''}"
        )
    return found


def _numbered(table: pd.DataFrame, pattern: str) -> list[str]:
    """Return the columns that match, in the order of their numbers."""
    matches = [match for name in table if (match := re.fullmatch(pattern, str(name)))]
    return [m.string for m in sorted(matches, key=lambda m: int(next(filter(None, m.groups()))))]
