"""Labels of trials from a short expression: a column, or a comparison. Nothing is evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Labels", "choose_label", "make_labels", "make_split_labels"]

_COMPARISON = re.compile(r"^\s*(\w+)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*$")
_COLUMN = re.compile(r"^\s*(\w+)\s*$")
_OPERATORS: dict[str, Callable[..., NDArray[np.bool_]]] = {
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
_MOST_CLASSES = 20
_SIDES = (("contrast_left", "contrast_right"), ("contrastLeft", "contrastRight"))


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Classes of trials.

    Attributes
    ----------
    expression : str
        As it was given.
    values : int64 array of shape (n_trials,)
        Index of the class of each trial, -1 where the trial is dropped.
    names : tuple of str
        One name per class.
    note : str
        How many trials were dropped and why; "" if none.
    """

    expression: str
    values: NDArray[np.int64]
    names: tuple[str, ...]
    note: str


def make_labels(expression: str, trials: pd.DataFrame) -> Labels:
    """Return the class of each trial.

    A trial is dropped where its value is missing, and where two columns compared with ``<`` or ``>`` are
    equal. Where just one of two compared columns is missing it counts as 0: a stimulus that was not shown is
    often stored so.

    Raises
    ------
    ValueError
        If the expression is neither a column nor a comparison, names an unknown column, or gives fewer than
        two or more than 20 classes.
    """
    return _check_classes(_labels(expression, trials, trials), "trials")


def make_split_labels(expression: str, train: pd.DataFrame, test: pd.DataFrame) -> tuple[Labels, Labels]:
    """Return the classes of training and test trials, with one numbering of the classes for both.

    Raises
    ------
    ValueError
        As :func:`make_labels`, for each of the two; and if a class is in the test trials only.
    """
    together = pd.concat([train, test], ignore_index=True)
    first = _check_classes(_labels(expression, train, together), "training trials")
    second = _check_classes(_labels(expression, test, together), "test trials")
    unseen = sorted(set(second.values.tolist()) - set(first.values.tolist()) - {-1})
    if unseen:
        names = ", ".join(first.names[index] for index in unseen)
        raise ValueError(
            f"label {expression!r}: no training trial shows the class {names} of the test trials"
        )
    return first, second


def _labels(expression: str, trials: pd.DataFrame, all_trials: pd.DataFrame) -> Labels:
    """Label some trials; the classes of a column are those of all trials."""
    if match := _COMPARISON.match(expression):
        return _comparison(expression, trials, *match.groups())
    if match := _COLUMN.match(expression):
        return _classes(expression, trials, all_trials, match[1])
    raise ValueError(
        f"label {expression!r}: must be COLUMN, COLUMN>COLUMN or COLUMN>NUMBER (also <, >=, <=, ==, !=)"
    )


def _check_classes(labels: Labels, which: str) -> Labels:
    if len(np.unique(labels.values[labels.values >= 0])) < 2:
        raise ValueError(
            f"label {labels.expression!r}: all {which} fall into one class, so there is nothing to decode"
        )
    return labels


def choose_label(trials: pd.DataFrame, test: pd.DataFrame | None = None) -> str | None:
    """Return a label that suits these trials: choice, else side of the stimulus, else feedback, else None.

    A label with fewer than ten trials in its second largest class is passed over, and one whose classes the
    test trials do not show.
    """
    candidates = [name for name in ("choice", "response_choice") if name in trials]
    candidates += [f"{left}>{right}" for left, right in _SIDES if left in trials and right in trials]
    candidates += [name for name in ("feedbackType", "feedback", "feedback_type") if name in trials]
    for expression in candidates:
        try:
            labels = make_labels(expression, trials)
            if test is not None:
                make_split_labels(expression, trials, test)
        except ValueError:
            continue
        sizes = np.sort(np.bincount(labels.values[labels.values >= 0]))
        if sizes[-2] >= 10:
            return expression
    return None


def _comparison(expression: str, trials: pd.DataFrame, name: str, operator: str, other: str) -> Labels:
    left = _numbers(expression, trials, name)
    constant = _number_or_none(other)
    right = np.full(len(left), constant) if constant is not None else _numbers(expression, trials, other)
    keep = np.isfinite(left)
    if constant is None:
        keep = np.isfinite(left) | np.isfinite(right)
        left, right = np.nan_to_num(left), np.nan_to_num(right)
    reasons = [(int((~keep).sum()), "without a value")]
    if constant is None and operator in "<>":
        ties = keep & (left == right)
        keep &= ~ties
        reasons.append((int(ties.sum()), "with equal values"))
    truth = _OPERATORS[operator](left, right)
    values = np.where(keep, truth.astype(np.int64), -1)
    dropped = " and ".join(f"{count} trials {why}" for count, why in reasons if count)
    note = f"dropped {dropped}" if dropped else ""
    return Labels(expression=expression, values=values, names=("no", "yes"), note=note)


def _classes(expression: str, trials: pd.DataFrame, all_trials: pd.DataFrame, name: str) -> Labels:
    classes = pd.Index(_column(expression, all_trials, name).dropna().unique()).sort_values()
    codes = classes.get_indexer(pd.Index(trials[name]))  # a missing value gets -1
    if len(classes) > _MOST_CLASSES:
        raise ValueError(
            f"label {expression!r}: has {len(classes)} different values; compare it with a number, such as "
            f"{name}>0"
        )
    dropped = int((codes < 0).sum())
    note = f"dropped {dropped} trials without a value" if dropped else ""
    return Labels(
        expression=expression,
        values=codes.astype(np.int64),
        names=tuple(f"{name} {value}" for value in classes),
        note=note,
    )


def _column(expression: str, trials: pd.DataFrame, name: str) -> pd.Series:
    if name not in trials:
        raise ValueError(
            f"label {expression!r}: the trials have no column {name!r}; they have "
            f"{', '.join(map(str, trials.columns))}"
        )
    return trials[name]


def _numbers(expression: str, trials: pd.DataFrame, name: str) -> NDArray[np.float64]:
    try:
        return _column(expression, trials, name).to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        if str(error).startswith("label "):
            raise
        raise ValueError(f"label {expression!r}: column {name!r} does not hold numbers") from None


def _number_or_none(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
