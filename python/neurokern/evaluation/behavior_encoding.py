"""Predict spikes from behavior: how much of each unit's rate a wheel, a pupil or a position accounts for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.datasets import BinnedSession
from neurokern.encoding import RidgeEncoder, complete_rows, delay_features
from neurokern.evaluation._nested_folds import folds_within, make_folds
from neurokern.evaluation.poisson_glm import PoissonGLM, capped_rates, fit_poisson_glm
from neurokern.metrics import bits_per_spike, poisson_d2, r2

__all__ = ["encode_spikes"]

_MODELS = ("poisson", "ridge")
_RATE_FLOOR = 0.05  # of a unit's training mean: the least rate that ridge predicts
_POISSON_PENALTIES = tuple(10.0**exponent for exponent in range(4, -2, -1))
_RIDGE_PENALTIES = tuple(10.0**exponent for exponent in range(-1, 7))


def encode_spikes(
    behavior: Tensor | np.ndarray,
    session: BinnedSession,
    *,
    lags: Sequence[int] = (0,),
    model: str = "poisson",
    folds: int | Sequence[tuple[Any, Any]] = 5,
    gap: int = 0,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """Predict each unit's counts from behavior on held-out windows, all units in one fit.

    Parameters
    ----------
    behavior : array of shape (n_windows, n_bins) or (n_windows, n_bins, signals)
        Bins where any signal is NaN are neither fitted nor scored.
    session : BinnedSession
        Its windows, in order of time.
    lags : sequence of int, default (0,), bins
        Positive ones look back, negative ones ahead (spikes that lead a movement). Bins without a source for
        every lag in their window are left out.
    model : {"poisson", "ridge"}, default "poisson"
        Log-linear (:func:`neurokern.evaluation.fit_poisson_glm`) or linear, its rates not below 5 % of the
        unit's mean.
    folds, gap, groups
        As in :func:`neurokern.evaluation.decode_behavior`, of windows. The penalty, one for all units of
        "poisson" and one for each of "ridge", is chosen by folds within the training windows.

    Returns
    -------
    table : DataFrame
        Two rows for each unit, of the predictors ``model`` and "unit mean" (over the training windows of the
        fold), with the columns of :func:`neurokern.evaluation.evaluate_masked_prediction` and the task
        "encoding". Scores are of all tested bins together, so :func:`summarize` and "
        ":func:`paired_differences` apply.

    Raises
    ------
    ValueError
        If shapes disagree, no bin is left, behavior is infinite somewhere, or folds are bad.
    """
    check_choice("encode_spikes", "model", model, _MODELS)
    signal = torch.as_tensor(behavior).float()
    signal = signal[:, :, None] if signal.ndim == 2 else signal
    if signal.ndim != 3 or signal.shape[:2] != session.counts.shape[:2] or torch.isinf(signal).any():
        raise ValueError(
            f"encode_spikes: behavior must have shape {session.counts.shape[:2]} or (..., signals) and not "
            f"be infinite, "
            f"got {tuple(signal.shape)}"
        )
    if session.counts.size == 0 or signal.shape[2] == 0:
        raise ValueError("encode_spikes: there must be at least one window, bin, unit and signal, got none")
    n_windows, n_bins = signal.shape[:2]
    runs = np.repeat(np.arange(n_windows), n_bins)
    usable = complete_rows(len(runs), list(lags), runs=runs) & ~signal.isnan().any(2).flatten().numpy()
    pairs = make_folds("encode_spikes", folds, n_windows, gap, groups)
    tested = usable & np.isin(runs, np.concatenate([test for _, test in pairs]))
    design = delay_features(signal.nan_to_num().flatten(0, 1), list(lags), runs=runs)
    counts = torch.from_numpy(session.counts.astype(np.float32)).flatten(0, 1)
    rates = torch.zeros(2, *counts.shape)
    for number, (train, test) in enumerate(pairs):
        rows, asked = (np.flatnonzero(usable & np.isin(runs, side)) for side in (train, test))
        if not len(rows) or not len(asked):
            raise ValueError(
                f"encode_spikes: fold {number} must have bins with behavior on both sides, got {len(rows)} "
                f"to fit and "
                f"{len(asked)} to test; behavior is NaN, or windows are no longer than the longest lag"
            )
        inner = _inner_rows(runs[rows], train, gap, groups)
        fit = _poisson_rates if model == "poisson" else _ridge_rates
        x, center, scale = _standardized(design[rows])
        rates[0, asked] = fit(x, counts[rows], (design[asked] - center) / scale, inner)
        rates[1, asked] = counts[rows].mean(0).clamp_min(0.5 / len(rows))
    asked = np.flatnonzero(tested)
    tables = [
        _score(name, session, rates[at, asked], counts[asked]) for at, name in enumerate((model, "unit mean"))
    ]
    return pd.concat(tables, ignore_index=True)


def _standardized(design: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    center, scale = design.mean(0), design.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    return (design - center) / scale, center, scale


def _inner_rows(
    runs: np.ndarray, train: np.ndarray, gap: int, groups: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inner folds of windows as positions among the rows that are fitted."""
    pairs = [
        tuple(np.flatnonzero(np.isin(runs, train[side])) for side in fold)
        for fold in folds_within(train, gap, groups, 4)
    ]
    return [(kept, held_out) for kept, held_out in pairs if len(kept) and len(held_out)]


def _poisson_rates(
    x: Tensor, counts: Tensor, asked: Tensor, inner: list[tuple[np.ndarray, np.ndarray]]
) -> Tensor:
    losses = torch.zeros(len(_POISSON_PENALTIES), dtype=torch.float64)
    for kept, held_out in inner:
        glm: PoissonGLM | None = None
        for at, penalty in enumerate(_POISSON_PENALTIES):
            glm = fit_poisson_glm(x[kept], counts[kept], penalty, start=glm)
            log_rates = glm.log_rates(x[held_out])
            losses[at] += (log_rates.exp() - counts[held_out] * log_rates).sum(dtype=torch.float64)
    chosen = int(losses.nan_to_num(nan=torch.inf).argmin()) if inner else len(_POISSON_PENALTIES) // 2
    glm = fit_poisson_glm(x, counts, _POISSON_PENALTIES[chosen])
    return capped_rates(glm.log_rates(asked), counts.amax(0))


def _ridge_rates(
    x: Tensor, counts: Tensor, asked: Tensor, inner: list[tuple[np.ndarray, np.ndarray]]
) -> Tensor:
    alphas = list(_RIDGE_PENALTIES) if inner else [1.0]
    encoder = RidgeEncoder(alphas=alphas, folds=inner or 2).fit(x, counts)
    floor = _RATE_FLOOR * counts.mean(0).clamp_min(0.5 / len(counts))
    return torch.maximum(encoder.predict(asked).float(), floor)


def _score(name: str, session: BinnedSession, rates: Tensor, counts: Tensor) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "predictor": name,
            "session": session.session,
            "subject": session.subject,
            "task": "encoding",
            "unit": np.asarray(session.unit_ids),
            "region": session.regions,
            "n_spikes": counts.sum(0).long().numpy(),
            "bits_per_spike": bits_per_spike(rates, counts).numpy(),
            "r2": r2(rates, counts).numpy(),
            "psth_r2": np.nan,
            "poisson_d2": poisson_d2(rates, counts).numpy(),
        }
    )
