"""Episodes: parts of a session, where what is estimated from earlier windows is put to use on later ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from neurokern.datasets import BinnedSession, WindowedRecording


@dataclass(frozen=True, slots=True)
class Episode:
    """Windows to estimate a session's parts from, and those after them to train on, under a new name."""

    known: BinnedSession
    ahead: BinnedSession


def episodes_of(
    session: BinnedSession | WindowedRecording, cuts: Sequence[float], length: float
) -> list[Episode]:
    """Cut a session at shares of its windows; cuts that leave a side empty give no episode."""
    binned = session if isinstance(session, BinnedSession) else session.bin()
    episodes = []
    for cut in sorted({round(share * binned.n_windows) for share in cuts}):
        stop = min(cut + max(1, round(length * binned.n_windows)), binned.n_windows)
        if 0 < cut < stop:
            named = dataclasses.replace(binned, session=f"{binned.session} (first {cut} windows)")
            episodes.append(Episode(named.select(slice(0, cut)), named.select(slice(cut, stop))))
    return episodes
