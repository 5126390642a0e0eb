"""Scores of predicted firing rates, one number per unit.

Every function takes arrays whose last axis is units and whose other axes are samples (windows, bins), as
torch tensors or numpy arrays, and returns a float64 vector of the same kind. Sums run in float64 over blocks
of bounded size, so that a float32 or uint8 recording is never copied whole to float64.

A unit for which a score is undefined (silent, or without variance) gets NaN; averages over units are left to
the caller, who thereby sees how many units count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

ArrayT = TypeVar("ArrayT", Tensor, np.ndarray)

RATE_FLOOR = 1e-9  # spikes per bin; a predicted rate of zero would make a single spike infinitely surprising
_BLOCK_ELEMENTS = 1 << 20  # elements turned to float64 at a time (8 MiB)


def bits_per_spike(
    rates: ArrayT, counts: ArrayT, null: ArrayT | None = None, *, rate_floor: float = RATE_FLOOR
) -> ArrayT:
    r"""Information that predicted rates carry about the spikes of each unit, in bits per spike.

    With the Poisson log-likelihood :math:`L(\lambda) = \sum_i y_i \ln \lambda_i - \lambda_i - \ln y_i!` over
    all samples of a unit, the score is :math:`(L(\text{rates}) - L(\text{null})) / (\ln 2 \sum_i y_i)`. The
    term :math:`\ln y_i!` is the same in both and cancels, so it is not computed.

    Parameters
    ----------
    rates : tensor or array of shape (..., units), float, spikes per bin
        Predicted rates. Values below ``rate_floor`` are raised to it.
    counts : tensor or array of shape (..., units), integer or float, spikes per bin
        Observed counts, same shape as ``rates``.
    null : tensor or array of shape (units,) or (..., units), optional, spikes per bin
        Rates of the null model. By default each unit's own mean over these very samples, which no constant
        can beat: a constant prediction then scores at most 0.
    rate_floor : float, default 1e-9, spikes per bin

    Returns
    -------
    scores : tensor or array of shape (units,), float64
        NaN for a unit without a spike.

    Raises
    ------
    ValueError
        If the shapes differ, there is no sample, a rate is not finite, or a count is negative or not finite.

    References
    ----------
    .. [1] Pei et al., "Neural Latents Benchmark '21", arXiv:2109.04463, section 3 (co-bps).
    .. [2] Zhang et al., "Towards a universal translator for neural dynamics", arXiv:2407.14668, section 4.
    """
    _check_pair("bits_per_spike", "rates", rates, "counts", counts)
    loglik, spikes, n_samples = _poisson_sums("bits_per_spike", rates, counts, rate_floor)
    if null is None:
        null_loglik = torch.xlogy(spikes, spikes / n_samples) - spikes
    elif null.ndim == 1:
        if null.shape[0] != counts.shape[-1]:
            raise ValueError(
                f"bits_per_spike: null must have one rate per unit ({counts.shape[-1]}), got {null.shape[0]}"
            )
        constant = _float64(null).to(spikes.device).clamp_min(rate_floor)
        null_loglik = spikes * constant.log() - n_samples * constant
    else:
        _check_pair("bits_per_spike", "null", null, "counts", counts)
        null_loglik, _, _ = _poisson_sums("bits_per_spike", null, counts, rate_floor)
    scores = (loglik - null_loglik) / (spikes * math.log(2))
    return _like(counts, scores.masked_fill(spikes == 0, math.nan))


def poisson_d2(rates: ArrayT, counts: ArrayT, *, rate_floor: float = RATE_FLOOR) -> ArrayT:
    r"""Fraction of Poisson deviance explained for each unit.

    :math:`D^2 = 1 - D(y, \text{rates}) / D(y, \bar y)` with the deviance :math:`D(y, \lambda) = 2 \sum_i y_i
    \ln(y_i / \lambda_i) - y_i + \lambda_i`. It is 1 for rates equal to the counts and 0 for the unit's own
    mean, so, unlike bits per spike, it has a fixed upper end.

    Parameters
    ----------
    rates, counts : tensors or arrays of shape (..., units), spikes per bin
    rate_floor : float, default 1e-9, spikes per bin

    Returns
    -------
    scores : tensor or array of shape (units,), float64
        NaN for a unit whose counts never change.

    Raises
    ------
    ValueError
        As :func:`bits_per_spike`.

    References
    ----------
    .. [1] Cameron & Windmeijer, "R-squared measures for count data regression models with applications to
       health-care utilization", J. Bus. Econ. Stat. 14 (1996), 209-220.
    """
    _check_pair("poisson_d2", "rates", rates, "counts", counts)
    loglik, spikes, n_samples = _poisson_sums("poisson_d2", rates, counts, rate_floor)
    saturated = torch.zeros_like(loglik)
    for (observed,) in _float64_blocks(counts):
        saturated += (torch.xlogy(observed, observed) - observed).sum(0)
    null = torch.xlogy(spikes, spikes / n_samples) - spikes
    explainable = saturated - null  # half the null deviance
    constant = explainable <= 1e-12 * (1 + spikes)  # zero up to rounding
    return _like(counts, ((loglik - null) / explainable).masked_fill(constant, math.nan))


def r2(predictions: ArrayT, targets: ArrayT, *, per_window: bool = False) -> ArrayT:
    r"""Coefficient of determination of each unit over single samples, not clipped.

    :math:`R^2 = 1 - \sum_i (y_i - \hat y_i)^2 / \sum_i (y_i - \bar y)^2`.

    Parameters
    ----------
    predictions, targets : tensors or arrays of shape (..., units)
        Rates and counts, or any continuous signal. With ``per_window`` the shape is (windows, bins, units).
    per_window : bool, default False
        False: one :math:`\bar y` and one ratio over all samples. True: the ratio is formed over the bins of
        each window, and averaged over those windows in which the unit's targets vary.

    Returns
    -------
    scores : tensor or array of shape (units,), float64
        NaN for a unit whose targets never vary.

    Raises
    ------
    ValueError
        If the shapes differ, there is no sample, or a value is not finite.
    """
    _check_pair("r2", "predictions", predictions, "targets", targets)
    if per_window:
        return _like(targets, _r2_per_window(predictions, targets))
    n_samples = math.prod(targets.shape[:-1])
    mean = torch.stack([block.sum(0) for (block,) in _float64_blocks(targets)]).sum(0) / n_samples
    residual, total = torch.zeros_like(mean), torch.zeros_like(mean)
    for predicted, observed in _float64_blocks(predictions, targets):
        residual += (observed - predicted).square().sum(0)
        total += (observed - mean).square().sum(0)
    return _like(targets, _one_minus_ratio("r2", residual, total))


def psth_r2(rates: ArrayT, counts: ArrayT, conditions: ArrayT) -> ArrayT:
    """R2 of each unit's trial-averaged time course, over all conditions and bins together, not clipped.

    Rates and counts are averaged over the trials of each condition, and the averages are compared as in
    :func:`r2`. Averaging removes the spiking noise that no prediction can follow.

    Parameters
    ----------
    rates, counts : tensors or arrays of shape (trials, bins, units), spikes per bin
    conditions : tensor or array of shape (trials,)
        Label of each trial's condition: numbers, or strings in a numpy array.

    Returns
    -------
    scores : tensor or array of shape (units,), float64
        NaN for a unit whose averages never vary.

    Raises
    ------
    ValueError
        If the shapes differ, there is no sample, or a value is not finite.

    References
    ----------
    .. [1] Zhang et al., arXiv:2407.14668, section 4: conditions are the combinations of block, choice and
       reward.
    """
    _check_pair("psth_r2", "rates", rates, "counts", counts)
    if rates.ndim != 3:
        raise ValueError(f"psth_r2: rates must have shape (trials, bins, units), got {tuple(rates.shape)}")
    labels = conditions.cpu().numpy() if isinstance(conditions, Tensor) else np.asarray(conditions)
    if labels.shape != (rates.shape[0],):
        raise ValueError(
            f"psth_r2: conditions must have one label per trial ({rates.shape[0]}), got shape {labels.shape}"
        )
    _, condition, n_trials = np.unique(labels, return_inverse=True, return_counts=True)
    predicted = _condition_means(rates, condition, n_trials)
    observed = _condition_means(counts, condition, n_trials)
    return _like(counts, r2(predicted, observed))


def bootstrap_interval(
    values: np.ndarray, *, confidence: float = 0.95, n_bootstrap: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean; NaN values are left out.

    Parameters
    ----------
    values : array of shape (n,), float
        Independent draws (units, episodes, sessions).
    confidence : float, default 0.95
        Within (0, 1).
    n_bootstrap : int, default 2000
    seed : int, default 0
        The same seed gives the same interval.

    Returns
    -------
    low, high : float
        Both NaN when no value is left, both the value itself when there is only one.

    Raises
    ------
    ValueError
        If ``confidence`` is not within (0, 1) or ``n_bootstrap`` is below 1.
    """
    _check_bootstrap("bootstrap_interval", confidence, n_bootstrap)
    kept = np.asarray(values, dtype=np.float64).ravel()
    kept = kept[~np.isnan(kept)]
    if kept.size == 0:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK_ELEMENTS // kept.size)
    means = [
        kept[generator.integers(0, kept.size, (min(rows, n_bootstrap - first), kept.size))].mean(1)
        for first in range(0, n_bootstrap, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def hierarchical_interval(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean when values come in groups: groups are drawn, then values within them.

    Units of one session share its animal, its day and its probe, so an interval over units alone is too
    narrow for a claim about other sessions.

    Parameters
    ----------
    values : array of shape (n,), float
        NaN values are left out.
    groups : array of shape (n,)
        Label of each value's group (session, subject).
    confidence, n_bootstrap, seed
        As in :func:`bootstrap_interval`.

    Returns
    -------
    low, high : float
        Of the mean over all values, groups weighing as much as they hold. With one group, the interval over
        its values: nothing can then be said about other groups. Both NaN when no value is left.

    Raises
    ------
    ValueError
        As :func:`bootstrap_interval`; or if the two differ in length.

    References
    ----------
    .. [1] Saravanan, Berman, Sober, "Application of the hierarchical bootstrap to multi-level data in
       neuroscience", Neurons, Behavior, Data Analysis, and Theory 3 (2020).
    """
    flat, labels = np.asarray(values, dtype=np.float64).ravel(), np.asarray(groups).ravel()
    if flat.shape != labels.shape:
        raise ValueError(
            f"hierarchical_interval: groups must label each of {len(flat)} values, got {len(labels)} labels"
        )
    kept = ~np.isnan(flat)
    names, number = np.unique(labels[kept], return_inverse=True)
    if len(names) < 2:
        return bootstrap_interval(flat, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)
    _check_bootstrap("hierarchical_interval", confidence, n_bootstrap)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(
        0, len(names), (n_bootstrap, len(names))
    )  # a group for each place of each draw
    sums, sizes = np.zeros(n_bootstrap), np.zeros(n_bootstrap)
    for group in range(len(names)):
        members = flat[kept][number == group]
        draw_of = np.nonzero(drawn == group)[0]
        np.add.at(sizes, draw_of, len(members))
        rows = max(1, _BLOCK_ELEMENTS // len(members))
        for first in range(0, len(draw_of), rows):
            part = draw_of[first : first + rows]
            resampled = members[generator.integers(0, len(members), (len(part), len(members)))]
            np.add.at(sums, part, resampled.sum(1))
    low, high = np.quantile(sums / sizes, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of ``labels`` of the share of their samples that are predicted right.

    Raises
    ------
    ValueError
        If the two differ in shape, or there is no sample.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != labels.shape or labels.size == 0:
        raise ValueError(
            "balanced_accuracy: predicted and labels must have the same shape and hold something, "
            f"got {predicted.shape} and {labels.shape}"
        )
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def roc_auc(scores: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a sample of a class scores higher for it than one of another
    class.

    Ties count half. With more than two classes, the mean over the classes that occur of each against the
    rest.

    Parameters
    ----------
    scores : array of shape (samples, classes), float
        Larger for the likelier class.
    labels : array of shape (samples,)
    classes : array of shape (classes,)
        Label of each column.

    Returns
    -------
    auc : float
        NaN if all samples are of one class.

    Raises
    ------
    ValueError
        If shapes disagree or a score is NaN.
    """
    values, labels, classes = np.asarray(scores, dtype=np.float64), np.asarray(labels), np.asarray(classes)
    if values.shape != (len(labels), len(classes)):
        raise ValueError(
            f"roc_auc: scores must have shape ({len(labels)} samples, {len(classes)} classes), got "
            f"{values.shape}"
        )
    if np.isnan(values).any():
        raise ValueError("roc_auc: scores must not be NaN")
    areas = []
    for column, label in enumerate(classes):
        inside = labels == label
        n_in, n_out = int(inside.sum()), int((~inside).sum())
        if n_in and n_out:
            # For two classes the difference of the scores decides, as it does in predicting.
            score = values[:, column] - values[:, 1 - column] if len(classes) == 2 else values[:, column]
            _, rank, ties = np.unique(score, return_inverse=True, return_counts=True)
            middle = np.cumsum(ties) - (ties - 1) / 2  # mean rank of equal scores, from 1
            areas.append((middle[rank][inside].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))
    return float(np.mean(areas)) if areas else math.nan


def _check_bootstrap(function: str, confidence: float, n_bootstrap: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"{function}: confidence must lie within (0, 1), got {confidence!r}")
    if n_bootstrap < 1:
        raise ValueError(f"{function}: n_bootstrap must be at least 1, got {n_bootstrap!r}")


def _poisson_sums(
    function: str, rates: Tensor | np.ndarray, counts: Tensor | np.ndarray, rate_floor: float
) -> tuple[Tensor, Tensor, int]:
    """Log-likelihood of each unit without its ``ln y!`` term, number of spikes, and number of samples."""
    parts = []
    for predicted, observed in _float64_blocks(rates, counts):
        low, high = predicted.aminmax()
        if not (low > -torch.inf and high < torch.inf):  # NaN fails both
            raise ValueError(f"{function}: rates must be finite, got NaN or infinity")
        low, high = observed.aminmax()
        if not (low >= 0 and high < torch.inf):
            raise ValueError(f"{function}: counts must be finite and not negative")
        predicted = predicted.clamp_min(rate_floor)
        parts.append(torch.stack([(observed * predicted.log() - predicted).sum(0), observed.sum(0)]))
    loglik, spikes = torch.stack(parts).sum(0)
    return loglik, spikes, math.prod(counts.shape[:-1])


def _r2_per_window(predictions: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Tensor:
    if targets.ndim != 3:
        raise ValueError(
            f"r2: per_window needs arrays of shape (windows, bins, units), got {tuple(targets.shape)}"
        )
    n_bins, n_units = targets.shape[1:]
    parts = []
    for predicted, observed in _float64_blocks(predictions, targets):
        observed = observed.view(-1, n_bins, n_units)
        residual = (observed - predicted.view_as(observed)).square().sum(1)
        total = (observed - observed.mean(1, keepdim=True)).square().sum(1)
        parts.append(_one_minus_ratio("r2", residual, total))
    return torch.cat(parts).nanmean(0)


def _one_minus_ratio(function: str, residual: Tensor, total: Tensor) -> Tensor:
    if not (torch.isfinite(residual).all() and torch.isfinite(total).all()):
        raise ValueError(f"{function}: values must be finite, got NaN or infinity")
    return (1 - residual / total).masked_fill(total == 0, math.nan)


def _condition_means(values: Tensor | np.ndarray, condition: np.ndarray, n_trials: np.ndarray) -> Tensor:
    """Mean over the trials of each condition, float64, shape (conditions, bins, units)."""
    index = torch.from_numpy(condition.astype(np.int64))
    device = values.device if isinstance(values, Tensor) else torch.device("cpu")
    sums = torch.zeros(len(n_trials), *values.shape[1:], dtype=torch.float64, device=device)
    first = 0
    for (block,) in _float64_blocks(values):
        trials = block.view(-1, *values.shape[1:])
        sums.index_add_(0, index[first : first + len(trials)].to(device), trials)
        first += len(trials)
    return sums / torch.from_numpy(n_trials).to(device)[:, None, None]


def _float64_blocks(*arrays: Tensor | np.ndarray) -> Iterator[tuple[Tensor, ...]]:
    """Matching blocks of whole leading entries as float64 tensors of shape (samples, units)."""
    length, n_units = arrays[0].shape[0], arrays[0].shape[-1]
    per_entry = math.prod(arrays[0].shape[1:])
    step = max(1, _BLOCK_ELEMENTS // max(1, per_entry))
    for first in range(0, length, step):
        yield tuple(_float64(array[first : first + step]).reshape(-1, n_units) for array in arrays)


def _float64(array: Tensor | np.ndarray) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().to(torch.float64)
    return torch.from_numpy(np.array(array, dtype=np.float64))  # a copy, since torch refuses read-only arrays


def _like(given: ArrayT, scores: Tensor) -> ArrayT:
    return scores if isinstance(given, Tensor) else scores.numpy()


def _check_pair(
    function: str, name: str, array: Tensor | np.ndarray, other_name: str, other: Tensor | np.ndarray
) -> None:
    both = (array, other)
    if not (all(isinstance(a, Tensor) for a in both) or all(isinstance(a, np.ndarray) for a in both)):
        raise TypeError(
            f"{function}: {name} and {other_name} must both be torch tensors or both numpy arrays, "
            f"got {type(array).__name__} and {type(other).__name__}"
        )
    if tuple(array.shape) != tuple(other.shape):
        raise ValueError(
            f"{function}: {name} and {other_name} must have the same shape, "
            f"got {tuple(array.shape)} and {tuple(other.shape)}"
        )
    if array.ndim < 2:
        raise ValueError(f"{function}: {name} must have shape (..., units), got {tuple(array.shape)}")
    if math.prod(array.shape[:-1]) == 0:
        raise ValueError(f"{function}: {name} must hold at least one sample, got shape {tuple(array.shape)}")
