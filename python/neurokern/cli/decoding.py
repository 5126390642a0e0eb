"""Decode a label of the trials from a trained model and from raw counts, session by session."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurokern.adapters import count_features, model_features
from neurokern.cli._common import text_table, write_csv
from neurokern.cli.labels import choose_label, make_split_labels
from neurokern.evaluation import decode_labels
from neurokern.report.summary import decoding_rows

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.models import MtM

__all__ = ["DecodingResult", "decode_sessions"]

_KINDS = ("raw counts", "MtM factors", "MtM states", "MtM rates")


@dataclass(frozen=True, kw_only=True)
class DecodingResult:
    """What was decoded and how well.

    Attributes
    ----------
    table : DataFrame
        Rows of :func:`neurokern.evaluation.decode_labels` with the column ``session``.
    label : str
    """

    table: pd.DataFrame
    label: str

    def as_text(self) -> str:
        """Return the table as text."""
        header, rows, _ = decoding_rows(self.table)
        return text_table(header, rows)

    def write(self, folder: pathlib.Path) -> pathlib.Path:
        """Write the table and return its path."""
        return write_csv(folder / "decoding.csv", self.table)


def decode_sessions(
    model: MtM, splits: Mapping[str, Splits[BinnedSession]], label: str | None
) -> DecodingResult | None:
    """Decode ``label``, or without one what suits the trials of each session; None if there is nothing to
    decode.

    Read-outs are fitted on training and validation windows and scored on test windows, as published.

    Raises
    ------
    ValueError
        If a label was given and a session has no trials, or the label does not fit them.
    """
    tables, labels = [], []
    for session, parts in splits.items():
        chosen = label or _suitable(parts)
        if chosen is None:
            continue
        tables.append(_decode(model, parts, chosen).assign(session=session))
        labels.append(chosen)
    if not tables:
        return None
    return DecodingResult(
        table=pd.concat(tables, ignore_index=True), label=" or ".join(dict.fromkeys(labels))
    )


def _suitable(parts: Splits[BinnedSession]) -> str | None:
    trials = parts.train.trials
    return None if trials is None else choose_label(trials, parts.test.trials)


def _decode(model: MtM, parts: Splits[BinnedSession], label: str) -> pd.DataFrame:
    fitted_on = (parts.train, parts.validation)
    if any(part.trials is None for part in (*fitted_on, parts.test)):
        raise ValueError(f"--label {label!r}: recording {parts.test.session!r} has no trials")
    trials = pd.concat([part.trials for part in fitted_on], ignore_index=True)
    assert parts.test.trials is not None  # for the type checker: checked above
    first, second = make_split_labels(label, trials, parts.test.trials)
    values = np.concatenate([first.values, second.values])
    kept = np.flatnonzero(values >= 0)
    features = {name: table[kept] for name, table in _features(model, (*fitted_on, parts.test)).items()}
    n_fitted = int((first.values >= 0).sum())
    fold = (np.arange(n_fitted), np.arange(n_fitted, len(kept)))
    return decode_labels(features, values[kept], folds=[fold])


def _features(model: MtM, parts: tuple[BinnedSession, ...]) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {}
    for part in parts:
        if not len(part):
            continue
        for name, values in {**count_features(part), **model_features(model, part)}.items():
            if name in _KINDS:
                found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}
