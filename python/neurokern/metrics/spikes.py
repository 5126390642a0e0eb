"""Scores of predicted firing rates by the likelihood of the spikes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from neurokern.metrics._blocks import ArrayT, check_pair, float64, float64_blocks, like

RATE_FLOOR = 1e-9  # spikes per bin; a predicted rate of zero would make a single spike infinitely surprising


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
    check_pair("bits_per_spike", "rates", rates, "counts", counts)
    loglik, spikes, n_samples = _poisson_sums("bits_per_spike", rates, counts, rate_floor)
    if null is None:
        null_loglik = torch.xlogy(spikes, spikes / n_samples) - spikes
    elif null.ndim == 1:
        if null.shape[0] != counts.shape[-1]:
            raise ValueError(
                f"bits_per_spike: null must have one rate per unit ({counts.shape[-1]}), got {null.shape[0]}"
            )
        constant = float64(null).to(spikes.device).clamp_min(rate_floor)
        null_loglik = spikes * constant.log() - n_samples * constant
    else:
        check_pair("bits_per_spike", "null", null, "counts", counts)
        null_loglik, _, _ = _poisson_sums("bits_per_spike", null, counts, rate_floor)
    scores = (loglik - null_loglik) / (spikes * math.log(2))
    return like(counts, scores.masked_fill(spikes == 0, math.nan))


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
    check_pair("poisson_d2", "rates", rates, "counts", counts)
    loglik, spikes, n_samples = _poisson_sums("poisson_d2", rates, counts, rate_floor)
    saturated = torch.zeros_like(loglik)
    for (observed,) in float64_blocks(counts):
        saturated += (torch.xlogy(observed, observed) - observed).sum(0)
    null = torch.xlogy(spikes, spikes / n_samples) - spikes
    explainable = saturated - null  # half the null deviance
    constant = explainable <= 1e-12 * (1 + spikes)  # zero up to rounding
    return like(counts, ((loglik - null) / explainable).masked_fill(constant, math.nan))


def _poisson_sums(
    function: str, rates: Tensor | np.ndarray, counts: Tensor | np.ndarray, rate_floor: float
) -> tuple[Tensor, Tensor, int]:
    """Log-likelihood of each unit without its ``ln y!`` term, number of spikes, and number of samples."""
    parts = []
    for predicted, observed in float64_blocks(rates, counts):
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
