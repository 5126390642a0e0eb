"""Delayed copies of features: finite impulse responses for encoding models, lags for decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from neurokern._check import check_integer, check_memory, check_positive
from neurokern.encoding._arrays import as_tensor, like, run_lengths

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["complete_rows", "delay_features", "seconds_to_delays"]


def delay_features(X: Array, delays: Sequence[int], *, runs: Array | None = None) -> Array:
    """Lay copies of the features, each moved in time, side by side.

    A linear model on the copies is a finite impulse response: it finds the shape of the hemodynamic response
    (delays of 1 to 4 or 5 volumes), or of a tuning over lags, by itself.

    Parameters
    ----------
    X : array or tensor of shape (samples, features)
        Rows in order of time, any real type.
    delays : sequence of int
        Row t of a copy holds row t - delay of X. Positive delays look back (the stimulus comes before the
        response), negative ones ahead.
    runs : array of shape (samples,), optional
        Label of each row's run. Nothing is moved across runs: rows without a source in their run are 0.

    Returns
    -------
    delayed : array or tensor of shape (samples, len(delays) * features)
        Of X's kind and type; all features of the first delay first. Center the features before if 0 shall be
        their mean, and see :func:`complete_rows` for leaving such rows out.

    Raises
    ------
    ValueError, TypeError
        If X has another shape, delays are none, no integers or twice the same, or a run lies in pieces.

    References
    ----------
    .. [1] Huth et al., "Natural speech reveals the semantic maps that tile human cerebral cortex",
       Nature 532 (2016), 453-458: delays of 2, 4, 6 and 8 s.

    Examples
    --------
    >>> delay_features(np.array([[1], [2], [3], [4]]), [0, 1], runs=[0, 0, 1, 1]).tolist()
    [[1, 0], [2, 1], [3, 0], [4, 3]]
    """
    features = as_tensor("delay_features", "X", X)
    if features.ndim != 2:
        raise ValueError(
            f"delay_features: X must have shape (samples, features), got {tuple(features.shape)}"
        )
    steps = check_delays("delay_features", delays)
    n_samples, n_features = features.shape
    lengths = run_lengths("delay_features", runs, n_samples)
    n_bytes = n_samples * n_features * len(steps) * features.element_size()
    check_memory("delay_features", "the delayed features", n_bytes, "use fewer delays or fewer features")
    delayed = features.new_zeros(n_samples, len(steps) * n_features)
    first = 0
    for length in lengths:
        run = slice(first, first + length)
        for at, step in enumerate(steps):
            columns = slice(at * n_features, (at + 1) * n_features)
            _copy_moved(delayed[run, columns], features[run], step)
        first += length
    return like(X, delayed)


def complete_rows(n_samples: int, delays: Sequence[int], *, runs: Array | None = None) -> np.ndarray:
    """Tell which rows of :func:`delay_features` have a source in their own run for every delay.

    Returns
    -------
    complete : array of shape (n_samples,), bool

    Examples
    --------
    >>> complete_rows(5, [0, 1]).tolist()
    [False, True, True, True, True]
    """
    n_samples = check_integer("complete_rows", "n_samples", n_samples)
    if n_samples < 0:
        raise ValueError(f"complete_rows: n_samples must not be negative, got {n_samples}")
    steps = check_delays("complete_rows", delays)
    before, after = max(max(steps), 0), max(-min(steps), 0)
    parts = []
    for length in run_lengths("complete_rows", runs, n_samples):
        at = np.arange(length)
        parts.append((at >= before) & (at < length - after))
    return np.concatenate(parts)


def seconds_to_delays(seconds: Sequence[float], interval: float) -> list[int]:
    """Turn delays in seconds into whole samples, each rounded to the nearest.

    Parameters
    ----------
    seconds : sequence of float
    interval : float, seconds
        Time between samples: the TR of volumes, or the size of bins.

    Raises
    ------
    ValueError
        If two delays fall onto the same sample, or a number is not finite.

    Examples
    --------
    >>> seconds_to_delays([2, 4, 6, 8], interval=2.0)
    [1, 2, 3, 4]
    """
    interval = check_positive("seconds_to_delays", "interval", interval)
    try:
        values = np.asarray(seconds, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise TypeError(f"seconds_to_delays: seconds must be numbers, got {seconds!r}") from None
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"seconds_to_delays: seconds must be finite numbers, at least one, got {seconds!r}")
    delays = [int(step) for step in np.floor(values / interval + 0.5)]
    if len(set(delays)) < len(delays):
        raise ValueError(
            f"seconds_to_delays: seconds must differ by at least the interval of {interval:g} s, got "
            f"{seconds!r}, which are the samples {delays}"
        )
    return delays


def check_delays(function: str, delays: Sequence[int]) -> list[int]:
    """Return delays as integers, or raise if there are none, or one stands there twice."""
    given = list(np.atleast_1d(np.asarray(delays)).tolist())
    steps = [check_integer(function, "delays", delay) for delay in given]
    if not steps or len(set(steps)) < len(steps):
        raise ValueError(f"{function}: delays must be different integers, at least one, got {given!r}")
    return steps


def _copy_moved(target: torch.Tensor, source: torch.Tensor, step: int) -> None:
    length = len(source)
    if abs(step) >= length:
        return
    if step >= 0:
        target[step:] = source[: length - step]
    else:
        target[:step] = source[-step:]
