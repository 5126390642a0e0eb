"""Run predictors on the masked-prediction tasks and score them unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from neurokern._check import check_choice
from neurokern.datasets import BinnedSession
from neurokern.evaluation.predictors import Predictor, recent_rates
from neurokern.evaluation.tasks import TASKS, n_forward_bins, queries_of, sample_units
from neurokern.metrics import bits_per_spike, poisson_d2, psth_r2, r2

_WINDOWS_TO_FILL = 16  # of one query: fewer leave a batch too small to be worth a call
_CHUNK_ELEMENTS = 1 << 22  # windows x bins x units given to a predictor at a time (16 MiB as float32)


def evaluate_masked_prediction(
    predictor: Predictor,
    test: BinnedSession,
    tasks: Sequence[str] = TASKS,
    *,
    conditions: Sequence[str] | np.ndarray | None = None,
    train_mean: np.ndarray | None = None,
    max_units: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score a predictor on the four tasks of the MtM paper.

    - co-smoothing: each unit in turn is hidden in all bins and predicted from all others.
    - forward-prediction: the last tenth of the bins (at least one) of all units is predicted from the bins
    before.
    - intra-region: each unit in turn is hidden together with every unit of every other region.
    - inter-region: each region in turn is hidden and all its units are predicted at once from the others.

    Parameters
    ----------
    predictor : Predictor
    test : BinnedSession
        Windows that the predictor was not fitted on.
    tasks : sequence of str, default all four
    conditions : sequence of str, or array of shape (n_windows,), optional
        For ``psth_r2``: columns of ``test.trials`` whose combinations are the conditions, or the labels
        themselves. By default all windows are one condition if the session has trials, and ``psth_r2`` is NaN
        if it has none (windows that are not aligned to anything have no time course in common).
    train_mean : array of shape (n_units,), optional, spikes per bin
        Mean counts of the training windows, :func:`training_mean`. Adds the column
        ``bits_per_spike_over_training_mean``: the null model then knows nothing of the test windows, so a
        constant may score above 0.
    max_units : int, optional
        Score a random subset of so many units, spread over the regions in proportion to their sizes, and the
        same for every predictor. Two tasks need one pass of a model per unit, hence the option.
    seed : int, default 0
        Of that subset. Nothing else is random.
    batch_size : int, optional
        Windows per call of the predictor; bounded by memory by default.
    progress : bool, default False
        Show a progress bar.

    Returns
    -------
    table : DataFrame
        One row per task and scored unit, with the columns ``predictor, session, subject, task, unit`` (its
        id), ``region, n_spikes`` (in the scored bins), ``bits_per_spike, r2, psth_r2, poisson_d2`` (see
        :mod:`neurokern.metrics`; NaN for silent units). The null model of ``bits_per_spike`` is the unit's
        own mean over the scored bins of these very windows, as published.

    Raises
    ------
    ValueError
        If the session is empty, a task is unknown or impossible, or the predictor returns rates of a wrong
        shape, negative rates, NaN or infinity.

    Notes
    -----
    The region tasks leave out units of unknown region (""). In intra-region, a unit that is alone in its
    region is predicted with nothing visible; its row is kept and shows what the predictor expects without any
    input.

    Hiding one unit changes the first layer of the model by one rank, but that layer is 3 % of a forward pass
    of the published model with 600 units, so each query takes a whole pass. Batches hold one query where
    there are at least 16 windows, pairs of query and window below.

    References
    ----------
    .. [1] Zhang et al., arXiv:2407.14668, section 4.
    """
    _check_arguments(test, tasks)
    regions = _region_numbers(test, tasks)
    units = sample_units(regions, max_units, seed)
    labels = _condition_labels(test, conditions)
    train_mean = _checked_mean(test, train_mean)
    counts = torch.from_numpy(test.counts.astype(np.float32))
    run = _Run(predictor, counts, batch_size or max(1, _CHUNK_ELEMENTS // counts[0].numel()), test.session)
    tables = []
    with tqdm(desc=f"{predictor.name}, {test.session}", unit=" windows", disable=not progress) as bar:
        for task in tasks:
            if task == "forward-prediction":
                first, asked = test.n_bins - n_forward_bins(test.n_bins), units
                rates = run.forward(first, bar)[:, :, asked]
            else:
                hidden, scored = queries_of(task, regions, units)
                first, asked = 0, units if task == "co-smoothing" else units[regions[units] >= 0]
                rates = run.hiding_units(task, hidden, scored, bar)[:, :, asked]
            null = None if train_mean is None else train_mean[asked]
            observed = counts[:, first:, asked]
            tables.append(_score(predictor.name, test, task, asked, rates, observed, labels, null))
    return pd.concat(tables, ignore_index=True)


def score_rates(
    rates: np.ndarray | Tensor,
    test: BinnedSession,
    tasks: Sequence[str] = TASKS,
    *,
    name: str = "rates",
    conditions: Sequence[str] | np.ndarray | None = None,
    train_mean: np.ndarray | None = None,
    max_units: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score given rates on the entries that each task asks for, as :func:`evaluate_masked_prediction` does.

    For predictions that were made elsewhere, and for the true rates of a simulation. The tasks differ here
    only in which entries they score.

    Parameters
    ----------
    rates : array or tensor of shape (n_windows, n_bins, n_units), spikes per bin
    test : BinnedSession
    tasks, conditions, train_mean, max_units, seed
        As there.
    name : str, default "rates"
        What the column ``predictor`` says.

    Returns
    -------
    table : DataFrame

    Raises
    ------
    ValueError
        If ``rates`` have another shape than the counts, are negative or not finite, or an argument is bad.
    """
    if tuple(rates.shape) != test.counts.shape:
        raise ValueError(
            f"score_rates: rates must have the shape {test.counts.shape} of the counts, got "
            f"{tuple(rates.shape)}"
        )
    given = _GivenRates(name, _float32(rates))
    return evaluate_masked_prediction(
        given,
        test,
        tasks,
        conditions=conditions,
        train_mean=train_mean,
        max_units=max_units,
        seed=seed,
        batch_size=max(1, test.n_windows),
    )


def _float32(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().float().cpu()
    return torch.from_numpy(
        np.array(values, dtype=np.float32)
    )  # a copy, since torch refuses read-only arrays


class _GivenRates:
    """Answers every query with the same rates; asked for all windows at once."""

    leaves_out_by_itself = True

    def __init__(self, name: str, rates: Tensor) -> None:
        self.name, self._rates = name, rates

    def predict(self, counts: Tensor, task: str, hidden: Tensor) -> Tensor:
        return self._rates


class _Run:
    """One predictor on the counts of one session, in chunks of bounded size, with its answers checked."""

    def __init__(self, predictor: Predictor, counts: Tensor, batch_size: int, session: str) -> None:
        self._predictor, self._counts, self._session = predictor, counts, session
        self._batch_size = batch_size

    def forward(self, first: int, bar: tqdm) -> Tensor:
        """Rates of the bins from ``first`` on, all units: (windows, hidden bins, units)."""
        n_bins = self._counts.shape[1]
        hidden = (torch.arange(n_bins) >= first)[None, :, None]
        visible = self._counts.masked_fill(hidden, 0)
        parts = []
        for rows in _chunks(len(visible), self._batch_size):
            parts.append(self._predict(visible[rows], "forward-prediction", hidden)[:, first:])
            bar.update(len(parts[-1]))
        return torch.cat(parts)

    def hiding_units(self, task: str, hidden: np.ndarray, scored: np.ndarray, bar: tqdm) -> Tensor:
        """Rates of all asked units: (windows, bins, units), NaN where no query asks."""
        rates = torch.full_like(self._counts, torch.nan)
        if self._predictor.leaves_out_by_itself:
            asked = torch.from_numpy(scored.any(0))
            nothing = torch.zeros(1, 1, 1, dtype=torch.bool)
            for rows in _chunks(len(rates), self._batch_size):
                predicted = self._predict(self._counts[rows], task, nothing)
                rates[rows][:, :, asked] = predicted[:, :, asked]
                bar.update(len(predicted))
            return rates
        hidden_units, asked_units = torch.from_numpy(hidden), torch.from_numpy(scored)
        if len(self._counts) >= _WINDOWS_TO_FILL:
            self._query_by_query(task, hidden_units, asked_units, rates, bar)
        else:
            self._pairs(task, hidden_units, asked_units, rates, bar)
        return rates

    def _query_by_query(
        self, task: str, hidden_units: Tensor, asked_units: Tensor, rates: Tensor, bar: tqdm
    ) -> None:
        """Ask one query of many windows: what a model works out from the mask, it works out once."""
        for unseen, asked in zip(hidden_units, asked_units, strict=True):
            for rows in _chunks(len(self._counts), self._batch_size):
                visible = self._counts[rows].masked_fill(unseen, 0)
                predicted = self._predict(visible, task, unseen[None, None])
                rates[rows][:, :, asked] = predicted[:, :, asked]
                bar.update(len(predicted))

    def _pairs(self, task: str, hidden_units: Tensor, asked_units: Tensor, rates: Tensor, bar: tqdm) -> None:
        """Let pairs of query and window share batches, so that few windows fill them too."""
        n_windows = len(self._counts)
        for pairs in _chunks(len(hidden_units) * n_windows, self._batch_size):
            pair = torch.arange(pairs.start, pairs.stop)
            query, window = pair // n_windows, pair % n_windows
            unseen = hidden_units[query][:, None, :]
            predicted = self._predict(self._counts[window].masked_fill_(unseen, 0), task, unseen)
            row, unit = asked_units[query].nonzero(as_tuple=True)
            rates[window[row], :, unit] = predicted[row, :, unit]
            bar.update(len(pair))

    def _predict(self, visible: Tensor, task: str, hidden: Tensor) -> Tensor:
        rates = self._predictor.predict(visible, task, hidden)
        where = f"evaluate_masked_prediction: predictor {self._predictor.name!r}, {task} of {self._session!r}"
        if not isinstance(rates, Tensor) or rates.shape != visible.shape:
            got = tuple(rates.shape) if isinstance(rates, Tensor) else type(rates).__name__
            raise ValueError(f"{where}: rates must be a tensor of shape {tuple(visible.shape)}, got {got}")
        low, high = rates.aminmax()
        if not (low >= 0 and high < torch.inf):  # NaN fails both
            raise ValueError(
                f"{where}: rates must be finite and not negative, got values from {low} to {high}"
            )
        return rates


def _chunks(length: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, length)) for first in range(0, length, size))


def _score(
    name: str,
    test: BinnedSession,
    task: str,
    units: np.ndarray,
    rates: Tensor,
    counts: Tensor,
    labels: np.ndarray | None,
    null: np.ndarray | None,
) -> pd.DataFrame:
    silent = torch.full((len(units),), torch.nan)
    over_training = {}
    if null is not None:
        scores = bits_per_spike(rates, counts, torch.from_numpy(null))
        over_training["bits_per_spike_over_training_mean"] = scores.numpy()
    return pd.DataFrame(
        {
            "predictor": name,
            "session": test.session,
            "subject": test.subject,
            "task": task,
            "unit": np.asarray(test.unit_ids)[units],
            "region": test.regions[units],
            "n_spikes": counts.sum((0, 1)).long().numpy(),
            "bits_per_spike": bits_per_spike(rates, counts).numpy(),
            "r2": r2(rates, counts).numpy(),
            "psth_r2": (
                silent if labels is None else psth_r2(rates, counts, torch.from_numpy(labels))
            ).numpy(),
            "poisson_d2": poisson_d2(rates, counts).numpy(),
            **over_training,
        }
    )


def training_mean(train: BinnedSession) -> np.ndarray:
    """Return each unit's mean count per bin, at least half a spike in all windows: float64,
    ``(n_units,)``."""
    if train.counts.size == 0:
        raise ValueError(
            f"training_mean: train must have at least one window, bin and unit, got {train.counts.shape}"
        )
    return recent_rates(train.counts, None)


def _checked_mean(test: BinnedSession, mean: np.ndarray | None) -> np.ndarray | None:
    if mean is None:
        return None
    values = np.asarray(mean, dtype=np.float64)
    if values.shape != (test.n_units,) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"evaluate_masked_prediction: train_mean must hold a finite rate of at least 0 for each of "
            f"{test.n_units} units, got shape {values.shape}; use training_mean(train)"
        )
    return values


def _check_arguments(test: BinnedSession, tasks: Sequence[str]) -> None:
    for task in tasks:
        check_choice("evaluate_masked_prediction", "tasks", task, TASKS)
    if not tasks or isinstance(tasks, str):
        raise ValueError(f"evaluate_masked_prediction: tasks must be a sequence of names, got {tasks!r}")
    if test.counts.size == 0:
        raise ValueError(
            f"evaluate_masked_prediction: test session {test.session!r} must have at least one window, "
            f"bin and unit, got counts of shape {test.counts.shape}"
        )


def _region_numbers(test: BinnedSession, tasks: Sequence[str]) -> np.ndarray:
    numbers, names = test.region_index
    if not names and {"intra-region", "inter-region"} & set(tasks):
        raise ValueError(
            f"evaluate_masked_prediction: session {test.session!r} names no region of any unit; "
            "leave out the region tasks or give its units regions"
        )
    return numbers


def _condition_labels(
    test: BinnedSession, conditions: Sequence[str] | np.ndarray | None
) -> np.ndarray | None:
    """Number of each window's condition, or None if the windows have no conditions."""
    if conditions is None:
        return None if test.trials is None else np.zeros(test.n_windows, dtype=np.int64)
    if isinstance(conditions, np.ndarray):
        if conditions.shape != (test.n_windows,):
            raise ValueError(
                f"evaluate_masked_prediction: conditions must have one label for each of {test.n_windows} "
                f"windows, got shape {conditions.shape}"
            )
        return np.unique(conditions, return_inverse=True)[1]
    trials = pd.DataFrame() if test.trials is None else test.trials
    known = list(trials.columns)
    if not conditions or not set(conditions) <= set(known):
        raise ValueError(
            f"evaluate_masked_prediction: conditions must be columns of the session's trials ({known}), "
            f"got {conditions!r}"
        )
    return trials.groupby(list(conditions), dropna=False).ngroup().to_numpy().astype(np.int64)
