"""Stimuli on the clock of a run: words with their context, files of a table of events, pieces of a sound."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokern._check import check_integer, check_positive
from neurokern.datasets.event_design import event_regressors

if TYPE_CHECKING:
    import pandas as pd

    from neurokern.datasets.bids_run import BIDSRun
    from neurokern.extractors.stimulus import StimulusFeatures
    from neurokern.extractors.stimulus_files import AudioClip

__all__ = ["TimedStimuli"]


@dataclass(frozen=True, eq=False)
class TimedStimuli:
    """Stimuli with the times at which they were there.

    Parameters
    ----------
    stimuli : sequence
        What :class:`~neurokern.extractors.StimulusFeatures` takes: texts, paths, images, sounds.
    onsets, durations : float64 arrays of shape (n,), seconds
        On the run's clock.

    Raises
    ------
    ValueError
        If lengths differ, or times are not finite.

    Examples
    --------
    >>> words = TimedStimuli.words(["the", "old", "man"], [0.1, 0.4, 0.8], context=1)
    >>> words.stimuli
    ['the', 'the old', 'old man']
    """

    stimuli: Sequence[Any]
    onsets: NDArray[np.float64]
    durations: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {(len(self.stimuli),), self.onsets.shape, self.durations.shape}
        if len(shapes) > 1:
            raise ValueError(
                f"TimedStimuli: {len(self.stimuli)} stimuli must have as many onsets and durations, got "
                f"{self.onsets.shape} and {self.durations.shape}"
            )
        if not (np.isfinite(self.onsets).all() and np.isfinite(self.durations).all()):
            raise ValueError("TimedStimuli: onsets and durations must be finite")

    @classmethod
    def words(
        cls,
        words: Sequence[str],
        onsets: ArrayLike,
        durations: ArrayLike | None = None,
        *,
        context: int = 0,
        separator: str = " ",
    ) -> TimedStimuli:
        """Return each word with those before it, as a text that ends with it.

        Parameters
        ----------
        words : sequence of str
            In the order of the text.
        onsets, durations : arrays of shape (n,), seconds
            Durations default to 0: a word is an impulse.
        context : int, default 0
            Words before each one; fewer at the start. Take ``pool="last"`` for a model that reads on, and
            remember tokens that a tokenizer puts at the end of texts.
        separator : str, default " "
        """
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise TypeError("TimedStimuli.words: words must be a sequence of str")
        if check_integer("TimedStimuli.words", "context", context) < 0:
            raise ValueError(f"TimedStimuli.words: context must be at least 0, got {context}")
        texts = [separator.join(words[max(i - context, 0) : i + 1]) for i in range(len(words))]
        return cls(texts, np.asarray(onsets, np.float64), _durations(durations, len(words)))

    @classmethod
    def from_events(
        cls,
        events: BIDSRun | pd.DataFrame,
        folder: str | os.PathLike[str],
        column: str = "stim_file",
    ) -> TimedStimuli:
        """Return the files that a table of events names, where it names one.

        Parameters
        ----------
        events : BIDSRun or DataFrame
            With ``onset``, ``duration`` and the column.
        folder : path
            What names in the column are relative to; ``root / "stimuli"`` in BIDS, of whose URIs
            (``bids::stimuli/cat.png``) the start is left out.
        column : str, default "stim_file"

        Raises
        ------
        FileNotFoundError
            With all names that lead nowhere, or out of the folder.
        ValueError
            If a column is missing.
        """
        table: Any = events.events if hasattr(events, "events") else events
        if table is None:
            raise ValueError("TimedStimuli.from_events: the run has no table of events")
        if missing := sorted({"onset", "duration", column} - {str(name) for name in table}):
            raise ValueError(f"TimedStimuli.from_events: events have no column {', '.join(missing)}")
        onset, duration = _seconds(table, "onset"), np.nan_to_num(_seconds(table, "duration"))
        known = table[column].notna().to_numpy() & np.isfinite(onset)
        paths = stimulus_paths(table[column][known].tolist(), folder)
        return cls(paths, onset[known], duration[known])

    @classmethod
    def sound(cls, clip: AudioClip, step: float, length: float | None = None) -> TimedStimuli:
        """Return pieces of a sound, each with what was heard in the ``length`` seconds up to its end.

        Parameters
        ----------
        clip : AudioClip
        step : float, seconds
            From one piece to the next: what each stands for.
        length : float, seconds, optional
            What each holds; default ``step``. The first stands where as much was heard.
        """
        step = check_positive("TimedStimuli.sound", "step", step)
        length = step if length is None else check_positive("TimedStimuli.sound", "length", length)
        n = int(np.floor((clip.duration - length) / step + 1e-9)) + 1
        if n < 1:
            raise ValueError(
                f"TimedStimuli.sound: a sound of {clip.duration:g} s holds no piece of {length:g} s"
            )
        ends: NDArray[np.float64] = length + np.arange(n, dtype=np.float64) * step
        size = round(length * clip.rate)
        lasts = np.rint(ends * clip.rate).astype(np.int64)
        pieces = [type(clip)(clip.samples[last - size : last], clip.rate) for last in lasts.tolist()]
        return cls(pieces, ends - step, np.full(n, step))

    def __len__(self) -> int:
        """Return the number of stimuli."""
        return len(self.stimuli)

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        """Yield the middle of each stimulus' time and the stimulus, for ``StimulusFeatures.over_time``."""
        middle = self.onsets + self.durations / 2
        return iter(zip(middle.tolist(), self.stimuli, strict=True))

    def regressors(
        self, features: StimulusFeatures, *, n_volumes: int, tr: float, **options: Any
    ) -> Mapping[str, NDArray[np.floating]]:
        """Return what the stimuli's features put into each volume, by layer.

        Options are those of :func:`~neurokern.datasets.event_regressors`: the blood's response, or delays.
        """
        return {
            name: event_regressors(self.onsets, self.durations, values, n_volumes=n_volumes, tr=tr, **options)
            for name, values in features(self.stimuli).items()
        }


def stimulus_paths(names: Sequence[Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files of these names in a folder; FileNotFoundError tells all that are not there."""
    base = Path(folder)
    lost, paths = [], {}
    for name in dict.fromkeys(map(str, names)):
        inner = Path(name.removeprefix("bids::stimuli/"))
        path = base / inner
        inside = not inner.is_absolute() and ".." not in inner.parts
        if not (inside and path.is_file()):
            lost.append(name)
        paths[name] = path
    if lost:
        raise FileNotFoundError(
            f"TimedStimuli: {len(lost)} of {len(paths)} stimuli are not in {base}: {', '.join(lost[:6])}"
            + (", ..." if lost[6:] else "")
        )
    return [paths[str(name)] for name in names]


def _seconds(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    try:
        return table[column].to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"TimedStimuli.from_events: {column} of events must be seconds or n/a: {error}"
        ) from None


def _durations(durations: ArrayLike | None, n: int) -> NDArray[np.float64]:
    return np.zeros(n) if durations is None else np.asarray(durations, np.float64)
