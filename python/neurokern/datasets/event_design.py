"""What events put into each volume, exact below the TR: convolved with the blood's response, or delayed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from neurokern._check import check_fraction, check_integer, check_memory, check_positive

__all__ = ["event_regressors", "hemodynamic_response"]

# Shape and scale (s) of the gamma densities of response and undershoot, and the undershoot's share.
_RESPONSES = {"spm": ((6.0, 1.0), (16.0, 1.0), 1 / 6), "glover": ((6 / 0.9, 0.9), (12 / 0.9, 0.9), 0.48)}
_VOLUMES_AT_ONCE = 256


def hemodynamic_response(
    seconds: ArrayLike, response: str = "spm", *, cumulative: bool = False
) -> NDArray[np.float64]:
    r"""Return the blood's response to an impulse at time 0, of integral 1; or its integral up to a time.

    A difference of two gamma densities, :math:`\Gamma_1(t) - r\,\Gamma_2(t)` over :math:`1 - r`: for "spm" of
    shapes 6 and 16 and scale 1 s with r = 1/6, for "glover" of delays 6 and 12 s and dispersion 0.9 s with
    r = 0.48 [1]_ [2]_.

    Parameters
    ----------
    seconds : array
    response : {"spm", "glover"}
    cumulative : bool, default False

    References
    ----------
    .. [1] Friston et al. (1998) NeuroImage 7:30; the canonical response of SPM.
    .. [2] Glover (1999) NeuroImage 9:416.
    """
    if response not in _RESPONSES:
        raise ValueError(
            f"hemodynamic_response: response must be one of {', '.join(map(repr, _RESPONSES))}, got "
            f"{response!r}"
        )
    first, second, share = _RESPONSES[response]
    time = torch.from_numpy(np.array(seconds, dtype=np.float64)).clamp(min=0)
    part = _gamma_integral if cumulative else _gamma_density
    value = (part(time, *first) - share * part(time, *second)) / (1 - share)
    return np.asarray(value.numpy())


def _gamma_density(time: torch.Tensor, shape: float, scale: float) -> torch.Tensor:
    x = time / scale
    logarithm = (shape - 1) * x.log() - x - torch.lgamma(torch.tensor(shape, dtype=torch.float64))
    return logarithm.exp() / scale


def _gamma_integral(time: torch.Tensor, shape: float, scale: float) -> torch.Tensor:
    return torch.special.gammainc(torch.tensor(shape, dtype=torch.float64), time / scale)


def event_regressors(
    onsets: ArrayLike,
    durations: ArrayLike,
    values: ArrayLike | torch.Tensor | None = None,
    *,
    n_volumes: int,
    tr: float,
    response: str | Sequence[float] | None = "spm",
    sample_at: float = 0.5,
) -> NDArray[np.floating]:
    """Return what events put into each volume of a run.

    An event is a box of height 1 from its onset on; one without duration an impulse of 1 s times 1. Boxes are
    convolved with the response in closed form: an onset between two volumes is taken as it is, on no grid.

    Parameters
    ----------
    onsets, durations : arrays of shape (events,), seconds
        From the first volume. Events whose onset is NaN do not count; a duration that is NaN is 0.
    values : array of shape (events,) or (events, features), optional
        What each box is multiplied with: features of the stimulus. Default: 1.
    n_volumes : int
    tr : float, seconds
    response : {"spm", "glover"}, sequence of float, or None
        The hemodynamic response; or delays in seconds (a finite impulse response), of each the share of a
        volume's time that the events fill, moved by it; None: that share without a delay.
    sample_at : float in [0, 1], default 0.5
        Place within a volume's time that the convolved response is read at: the slice that others were
        corrected to (fMRIPrep takes the middle), 0 for the first. Of no effect on shares.

    Returns
    -------
    regressors : array of shape (n_volumes, features)
        Of delays (n_volumes, delays * features), all features of the first delay first, as
        :func:`~neurokern.encoding.delay_features` lays them. float32 if the values are, else float64.

    Raises
    ------
    ValueError
        If lengths differ, a duration is negative or infinite, or values are not finite.

    Examples
    --------
    >>> event_regressors([1.0], [3.0], n_volumes=3, tr=2.0, response=None).ravel()
    array([0.5, 1. , 0. ])
    """
    function = "event_regressors"
    tr = check_positive(function, "tr", tr)
    check_fraction(function, "sample_at", sample_at)
    if check_integer(function, "n_volumes", n_volumes) < 0:
        raise ValueError(f"{function}: n_volumes must be at least 0, got {n_volumes}")
    start, stop, weights = _checked(function, onsets, durations, values)
    delays = _delays(function, response)
    n_columns = weights.shape[1] * max(len(delays), 1)
    n_bytes = n_volumes * n_columns * weights.itemsize + 8 * _VOLUMES_AT_ONCE * len(start)
    check_memory(function, "the regressors", n_bytes, "take fewer delays or features")
    found = np.zeros((n_volumes, n_columns), weights.dtype)
    for first in range(0, n_volumes, _VOLUMES_AT_ONCE):
        rows = slice(first, min(first + _VOLUMES_AT_ONCE, n_volumes))
        begin = np.arange(rows.start, rows.stop)[:, None] * tr
        if isinstance(response, str):
            found[rows] = _convolved(begin + sample_at * tr, start, stop, response) @ weights
            continue
        for at, delay in enumerate(delays):
            columns = slice(at * weights.shape[1], (at + 1) * weights.shape[1])
            found[rows, columns] = _shares(begin - delay, tr, start, stop) @ weights
    return found


def _checked(
    function: str, onsets: ArrayLike, durations: ArrayLike, values: ArrayLike | torch.Tensor | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.floating]]:
    """Return start, stop and values of the events that are known."""
    onset, duration = np.asarray(onsets, np.float64), np.nan_to_num(np.asarray(durations, np.float64))
    weights = np.ones((len(onset), 1)) if values is None else np.asarray(values)
    weights = weights[:, None] if weights.ndim == 1 else weights
    if weights.dtype not in (np.float32, np.float64):
        weights = weights.astype(np.float64)
    if onset.ndim != 1 or onset.shape != duration.shape or weights.ndim != 2 or len(weights) != len(onset):
        raise ValueError(
            f"{function}: onsets and durations must be (events,), values (events, features), got "
            f"{onset.shape}, {duration.shape} and {weights.shape}"
        )
    known = ~np.isnan(onset)
    if not (np.isfinite(onset[known]).all() and np.isfinite(duration).all() and (duration >= 0).all()):
        raise ValueError(f"{function}: onsets must be finite or NaN, durations at least 0 s and finite")
    if not np.isfinite(weights[known]).all():
        raise ValueError(f"{function}: values must be finite; leave events without a value out")
    return onset[known], onset[known] + duration[known], weights[known]


def _delays(function: str, response: str | Sequence[float] | None) -> list[float]:
    if isinstance(response, str):
        hemodynamic_response(0.0, response)
        return []
    delays = [0.0] if response is None else [float(delay) for delay in response]
    if not delays or not np.isfinite(delays).all():
        raise ValueError(f"{function}: response must be a name or finite delays in seconds, got {response!r}")
    return delays


def _convolved(
    time: NDArray[np.floating], start: NDArray[np.float64], stop: NDArray[np.float64], response: str
) -> NDArray[np.float64]:
    """Return the response to each event at times (n, 1): (n, events)."""
    instant = start == stop
    found = np.empty((len(time), len(start)))
    found[:, instant] = hemodynamic_response(time - start[instant], response)
    begin, end = time - start[~instant], time - stop[~instant]
    found[:, ~instant] = hemodynamic_response(begin, response, cumulative=True)
    found[:, ~instant] -= hemodynamic_response(end, response, cumulative=True)
    return found


def _shares(
    begin: NDArray[np.floating], tr: float, start: NDArray[np.float64], stop: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of each volume's time that each event fills; of an impulse 1 s over the TR."""
    filled = (np.minimum(begin + tr, stop) - np.maximum(begin, start)).clip(min=0)
    hit = (start == stop) & (begin <= start) & (start < begin + tr)
    shares: NDArray[np.float64] = np.where(hit, 1.0, filled) / tr
    return shares
