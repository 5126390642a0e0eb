"""Recordings and epochs of MOABB's datasets and paradigms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from neurokern.datasets.bids_run import MEEGRun
from neurokern.datasets.bridges._peer import import_peer
from neurokern.datasets.meeg_sources import as_run

__all__ = ["from_moabb"]


def from_moabb(dataset: Any, *, paradigm: Any = None, subjects: Sequence[int] | None = None) -> list[MEEGRun]:
    """Return the recordings of a MOABB dataset as runs with their entities, for ``MEEGWindows(runs, ...)``.

    MOABB downloads what is not there. Events are those of ``dataset.event_id``, from annotations or else the
    trigger channel, with onsets in samples of the recording; each lasts as long as ``dataset.interval``.
    ``windows = MEEGWindows(runs, MEEGExtractor(...), events=True, tmin=..., tmax=...)`` cuts, and
    ``split_windows(windows, by="subject")`` and :func:`~neurokern.datasets.leave_one_out` divide them.

    Parameters
    ----------
    dataset : object of moabb.datasets
    paradigm : object of moabb.paradigms, optional
        Its filters, rate, channels and intervals instead: runs then hold epochs, and each is a window.
    subjects : sequence of int, optional
        Default all of ``dataset.subject_list``.

    Returns
    -------
    list of MEEGRun
        With ``subject``, ``session``, ``run``, and the dataset's ``code`` as ``task``.

    Raises
    ------
    ImportError
        If MOABB is not installed.
    TypeError, ValueError
        If it is no dataset of MOABB, or has no such subject.
    """
    base = import_peer("from_moabb", "moabb.datasets.base", "moabb")
    if not isinstance(dataset, base.BaseDataset):
        raise TypeError(f"from_moabb: dataset must be one of moabb.datasets, got {type(dataset).__name__}")
    wanted = list(dataset.subject_list) if subjects is None else list(subjects)
    unknown = [subject for subject in wanted if subject not in dataset.subject_list]
    if unknown:
        raise ValueError(f"from_moabb: subjects must be of {dataset.subject_list}, got {unknown}")
    if paradigm is not None:
        return [run for subject in wanted for run in _epochs(dataset, paradigm, subject)]
    runs = []
    for subject, sessions in dataset.get_data(subjects=wanted).items():
        for session, of_session in sessions.items():
            for name, raw in of_session.items():
                entities = _entities(dataset, subject, session, name)
                runs.append(_run(raw, entities, _events(dataset, raw)))
    return runs


def _entities(dataset: Any, subject: Any, session: Any, run: Any) -> dict[str, str]:
    return {"subject": str(subject), "session": str(session), "task": str(dataset.code), "run": str(run)}


def _run(data: Any, entities: dict[str, str], events: pd.DataFrame | None) -> MEEGRun:
    return MEEGRun(path=as_run(data).path, entities=entities, metadata={}, events=events, data=data)


def _events(dataset: Any, raw: Any) -> pd.DataFrame:
    """Return the events of a recording, seconds from its first sample."""
    from neurokern.extractors._meeg_files import annotated_events, triggered_events

    noted = annotated_events(raw)
    known = {str(name) for name in dataset.event_id}
    if noted["trial_type"].isin(known).any() or "stim" not in raw.get_channel_types():
        return noted
    events = triggered_events(as_run(raw), raw, "auto")
    named = {str(code): str(name) for name, code in dataset.event_id.items()}
    events["trial_type"] = [named.get(code, code) for code in events["trial_type"]]
    events["duration"] = float(np.diff(dataset.interval)[0])
    # Stretches marked as bad stay marked.
    return pd.concat([events, noted], ignore_index=True).sort_values(
        "onset", kind="stable", ignore_index=True
    )


def _epochs(dataset: Any, paradigm: Any, subject: Any) -> list[MEEGRun]:
    epochs, labels, metadata = paradigm.get_data(dataset, [subject], return_epochs=True)
    epochs.event_id = {str(name): int(code) for name, code in zip(labels, epochs.events[:, 2], strict=True)}
    groups = metadata.reset_index(drop=True).groupby(["session", "run"], sort=False).groups
    return [
        _run(epochs[rows.to_numpy()], _entities(dataset, subject, session, run), None)
        for (session, run), rows in groups.items()
    ]
