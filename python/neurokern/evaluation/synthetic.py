"""Sessions with known rates: coupled regions that follow latent dynamics, to hold models and metrics against.

On recordings nobody knows the rates, so nobody knows how far a score is from the best one. Here they are
known: bits per spike of the true rates is the ceiling of every predictor, and what each masked-prediction
task can and cannot draw on is by design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurokern._check import check_fraction, check_integer, check_positive
from neurokern.datasets import BinnedSession, Splits, split_session
from neurokern.evaluation.masked_prediction import score_rates
from neurokern.evaluation.tasks import TASKS

__all__ = ["SyntheticSession", "score_true_rates", "simulate_sessions"]

_SIDES = ("left", "right")


@dataclass(frozen=True, eq=False, kw_only=True)
class SyntheticSession:
    """A simulated session with what nobody knows of a recorded one.

    Attributes
    ----------
    session : BinnedSession
        Counts, with the trial's ``side`` ("left" or "right") in ``trials``.
    rates : float32 array of shape (n_windows, n_bins, n_units), spikes per bin
        The counts are independent Poisson draws with these means.
    behavior : float32 array of shape (n_windows, n_bins, 2)
        A continuous signal that the first region encodes: its latent state, with noise.
    """

    session: BinnedSession
    rates: np.ndarray
    behavior: np.ndarray

    def select(self, windows: np.ndarray | slice) -> SyntheticSession:
        """Return the session with only these windows."""
        chosen = self.session.select(windows)
        return SyntheticSession(session=chosen, rates=self.rates[windows], behavior=self.behavior[windows])

    def split(self, test: float = 0.2, validation: float = 0.1) -> Splits[BinnedSession]:
        """Split by time; ``rates[-len(splits.test):]`` are the rates of the test windows."""
        return split_session(self.session, test=test, validation=validation)


def simulate_sessions(
    n_sessions: int = 2,
    *,
    units_per_region: Sequence[int] = (12, 12, 12, 12),
    n_windows: int = 400,
    n_bins: int = 20,
    bin_size: float = 0.05,
    time_constant: float = 0.4,
    frequency: float = 0.8,
    shared: float = 0.5,
    lag: float = 0.05,
    modulation: float = 0.9,
    side_effect: float = 0.6,
    mean_rate: float = 10.0,
    seed: int = 0,
) -> list[SyntheticSession]:
    r"""Simulate sessions of several regions that share part of their dynamics.

    Region r has the two-dimensional state :math:`z_r(t) = \sqrt{s} B_r g(t - r \cdot lag) + \sqrt{1 - s}
    p_r(t)`: all regions follow one signal g, each with a rotation :math:`B_r` and a delay of its own, and
    each has a private signal :math:`p_r`. Signals are damped rotations with noise, stationary with unit
    variance, :math:`x(t + 1) = \rho R x(t) + \sqrt{1 - \rho^2} \epsilon`. On "right" windows g is moved along
    its first axis, on "left" ones against it. Unit n of region r fires with the rate
    :math:`m_n \exp(a\, c_n^T z_r - a^2 |c_n|^2 / 2)`, with random directions :math:`c_n` and log-normal mean
    rates :math:`m_n`. Counts are Poisson.

    So, by design: other units of its region tell a hidden unit most (co-smoothing, intra-region); other
    regions tell only the shared part (inter-region); and the past tells what the autocorrelation carries
    (forward).

    Parameters
    ----------
    n_sessions : int
        Sessions have the same regions and dynamics; their units and signals are drawn anew.
    units_per_region : sequence of int
        Units of each region; regions are named "A", "B", and so on.
    n_windows, n_bins : int
        Of each session; windows are independent.
    bin_size, time_constant, lag : float, seconds
        ``time_constant`` is that of the autocorrelation; ``lag`` between one region and the next, rounded to
        bins.
    frequency : float, Hz
        Of the rotation; 0 for plain decay.
    shared : float in [0, 1]
        Share s of a region's variance that comes from the common signal.
    modulation : float
        The a above: standard deviation of log-rates for a unit with :math:`|c_n| = 1`.
    side_effect : float
        Size of the move on "right" and "left" windows, in standard deviations of g.
    mean_rate : float, Hz
        Median over units.
    seed : int

    Returns
    -------
    sessions : list of SyntheticSession

    Raises
    ------
    ValueError
        If a size is below 1 (``n_bins`` below 2), or a parameter is out of its range.
    """
    sizes = [check_integer("simulate_sessions", "units_per_region", size) for size in units_per_region]
    for name, value, least in (
        ("n_sessions", n_sessions, 1),
        ("n_windows", n_windows, 1),
        ("n_bins", n_bins, 2),
        ("units_per_region", min(sizes, default=0), 1),
    ):
        if check_integer("simulate_sessions", name, value) < least:
            raise ValueError(f"simulate_sessions: {name} must be at least {least}, got {value}")
    for name, number in (("bin_size", bin_size), ("time_constant", time_constant), ("mean_rate", mean_rate)):
        check_positive("simulate_sessions", name, number)
    for name, number in (
        ("frequency", frequency),
        ("lag", lag),
        ("modulation", modulation),
        ("side_effect", side_effect),
    ):
        if not 0 <= number < np.inf:
            raise ValueError(
                f"simulate_sessions: {name} must be a finite number of at least 0, got {number!r}"
            )
    check_fraction("simulate_sessions", "shared", shared)
    generator = np.random.default_rng(seed)
    turns = generator.uniform(
        0, 2 * np.pi, len(sizes)
    )  # of each region against the common signal: one for all sessions
    decay, turn = float(np.exp(-bin_size / time_constant)), 2 * np.pi * frequency * bin_size
    delays = np.round(np.arange(len(sizes)) * lag / bin_size).astype(int)
    regions = np.repeat([_region_name(number) for number in range(len(sizes))], sizes)
    sessions = []
    for number in range(n_sessions):
        side = generator.integers(0, 2, n_windows)
        common = _rotating_signals(generator, n_windows, n_bins + int(delays.max()), 1, decay, turn)[:, :, 0]
        common[:, :, 0] += side_effect * (2 * side[:, None] - 1)
        private = _rotating_signals(generator, n_windows, n_bins, len(sizes), decay, turn)
        states = np.empty_like(private)  # (windows, bins, regions, 2)
        for region, (delay, angle) in enumerate(zip(delays, turns, strict=True)):
            first = int(delays.max() - delay)
            followed = common[:, first : first + n_bins] @ _rotation(angle)
            states[:, :, region] = shared**0.5 * followed + (1 - shared) ** 0.5 * private[:, :, region]
        rates = _unit_rates(generator, states, sizes, modulation, mean_rate * bin_size)
        behavior = states[:, :, 0] + 0.3 * generator.normal(size=states[:, :, 0].shape)
        session = BinnedSession(
            counts=generator.poisson(rates),
            bin_size=bin_size,
            regions=regions,
            unit_ids=np.arange(len(regions)),
            session=f"synthetic {number + 1}",
            subject=f"simulation {seed}",
            trials=pd.DataFrame({"side": np.array(_SIDES)[side]}),
        )
        sessions.append(SyntheticSession(session=session, rates=rates, behavior=behavior.astype(np.float32)))
    return sessions


def score_true_rates(
    synthetic: SyntheticSession,
    tasks: Sequence[str] = TASKS,
    *,
    conditions: Sequence[str] | None = None,
    max_units: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the true rates as :func:`neurokern.evaluation.evaluate_masked_prediction` scores a predictor's.

    Parameters
    ----------
    synthetic : SyntheticSession
        The test windows: ``synthetic.select(slice(-n_test, None))``.
    tasks, conditions, max_units, seed
        As there.

    Returns
    -------
    table : DataFrame
        Rows of the predictor "true rates". No predictor beats them but by chance; where a task hides what
        a unit's rate depends on, no predictor reaches them.
    """
    return score_rates(
        synthetic.rates,
        synthetic.session,
        tasks,
        name="true rates",
        conditions=conditions,
        max_units=max_units,
        seed=seed,
    )


def _rotating_signals(
    generator: np.random.Generator, n_windows: int, n_bins: int, n_signals: int, decay: float, turn: float
) -> np.ndarray:
    """Stationary signals with unit variance, ``(windows, bins, signals, 2)``."""
    noise = generator.normal(size=(n_windows, n_bins, n_signals, 2))
    step = decay * _rotation(turn)
    signals = noise.copy()
    for at in range(1, n_bins):
        signals[:, at] = signals[:, at - 1] @ step + (1 - decay**2) ** 0.5 * noise[:, at]
    return signals


def _unit_rates(
    generator: np.random.Generator, states: np.ndarray, sizes: Sequence[int], modulation: float, mean: float
) -> np.ndarray:
    """Rates of all units, region after region, ``(windows, bins, units)`` float32."""
    rates = []
    for region, size in enumerate(sizes):
        loadings = modulation * generator.normal(size=(2, size)) / 2**0.5
        means = mean * np.exp(0.4 * generator.normal(size=size))
        rates.append(means * np.exp(states[:, :, region] @ loadings - 0.5 * np.square(loadings).sum(0)))
    return np.concatenate(rates, axis=2).astype(np.float32)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _region_name(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"region {number + 1}"
