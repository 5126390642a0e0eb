"""Scores by the share of variance that a prediction explains."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from neurokern.metrics._blocks import ArrayT, check_pair, float64_blocks, like


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
    check_pair("r2", "predictions", predictions, "targets", targets)
    if per_window:
        return like(targets, _r2_per_window(predictions, targets))
    n_samples = math.prod(targets.shape[:-1])
    mean = torch.stack([block.sum(0) for (block,) in float64_blocks(targets)]).sum(0) / n_samples
    residual, total = torch.zeros_like(mean), torch.zeros_like(mean)
    for predicted, observed in float64_blocks(predictions, targets):
        residual += (observed - predicted).square().sum(0)
        total += (observed - mean).square().sum(0)
    return like(targets, _one_minus_ratio("r2", residual, total))


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
    check_pair("psth_r2", "rates", rates, "counts", counts)
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
    return like(counts, r2(predicted, observed))


def _r2_per_window(predictions: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Tensor:
    if targets.ndim != 3:
        raise ValueError(
            f"r2: per_window needs arrays of shape (windows, bins, units), got {tuple(targets.shape)}"
        )
    n_bins, n_units = targets.shape[1:]
    parts = []
    for predicted, observed in float64_blocks(predictions, targets):
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
    for (block,) in float64_blocks(values):
        trials = block.view(-1, *values.shape[1:])
        sums.index_add_(0, index[first : first + len(trials)].to(device), trials)
        first += len(trials)
    return sums / torch.from_numpy(n_trials).to(device)[:, None, None]
