"""Behavior and other signals that were recorded beside spikes, read at any time with what is known there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokern._check import check_positive

__all__ = ["TimeSeries"]

_GAP = 5.0  # usual steps between samples that are read across


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeSeries:
    """Samples of a signal on the session clock.

    Parameters
    ----------
    times : float64 array of shape (n,), seconds
        Ascending and finite; steps may differ.
    values : float array of shape (n,) or (n, columns)
        NaN where nothing was measured.
    columns : tuple of str
        Names of the columns; () of a one-column signal.
    unit : str
        Unit of measure as the source names it, or "".

    Raises
    ------
    ValueError
        If lengths differ, or times are not ascending and finite.
    """

    times: NDArray[np.float64]
    values: NDArray[np.floating]
    columns: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        if self.times.ndim != 1 or self.values.ndim not in (1, 2) or len(self.times) != len(self.values):
            raise ValueError(
                "TimeSeries: times must be (n,), values (n,) or (n, columns), got "
                f"{self.times.shape}, {self.values.shape}"
            )
        if not (np.isfinite(self.times).all() and (np.diff(self.times) >= 0).all()):
            raise ValueError("TimeSeries: times must be ascending and finite")
        if self.columns and self.values.shape[1:] != (len(self.columns),):
            raise ValueError(f"TimeSeries: {len(self.columns)} columns for values of {self.values.shape}")

    @classmethod
    def from_arrays(
        cls, times: ArrayLike, values: ArrayLike, columns: tuple[str, ...] = (), unit: str = ""
    ) -> TimeSeries:
        """Make a series from samples in any order; those without a finite time are left out."""
        clock, samples = np.asarray(times, np.float64).reshape(-1), np.asarray(values)
        if samples.ndim == 2 and samples.shape[1] == 1:
            samples = samples.reshape(-1)
        if samples.dtype.kind != "f":
            samples = samples.astype(np.float64)
        if samples.ndim not in (1, 2) or len(samples) != len(clock):
            raise ValueError(f"TimeSeries: {len(clock)} times for values of shape {samples.shape}")
        known = np.isfinite(clock)
        clock, samples = clock[known], samples[known]
        order = np.argsort(clock, kind="stable")
        return cls(times=clock[order], values=samples[order], columns=columns, unit=unit)

    def __repr__(self) -> str:
        """Return a line with the sizes."""
        return f"TimeSeries({self.values.shape}, unit={self.unit!r})"

    def at(self, times: ArrayLike, max_gap: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return values at any times, by linear interpolation, and where they are known.

        Parameters
        ----------
        times : array of any shape, seconds
        max_gap : float, seconds, optional
            Longest step between samples that is read across; default five usual (median) steps.

        Returns
        -------
        values : float array of the shape of ``times`` (and columns)
            NaN where ``valid`` is False.
        valid : bool array of the shape of ``times``
            False before the first sample, after the last, in gaps, and beside samples that are NaN.
        """
        wanted = np.asarray(times, np.float64)
        shape = wanted.shape + self.values.shape[1:]
        if len(self.times) < 2:
            return np.full(shape, np.nan), np.zeros(wanted.shape, bool)
        steps = np.diff(self.times)
        gap = _GAP * float(np.median(steps)) if max_gap is None else check_positive("at", "max_gap", max_gap)
        after = np.searchsorted(self.times, wanted, side="right").clip(1, len(self.times) - 1)
        before = after - 1
        step = self.times[after] - self.times[before]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(step > 0, (wanted - self.times[before]) / step, 1.0)
        valid = (wanted >= self.times[0]) & (wanted <= self.times[-1]) & ((step <= gap) | (share == 0))
        valid |= (wanted == self.times[after]) & (wanted <= self.times[-1])
        if self.values.ndim == 2:
            share = share[..., None]
        low, high = self.values[before], self.values[after]
        # A neighbor that is NaN does not count where its share is nothing.
        low, high = np.where(share == 1, high, low), np.where(share == 0, low, high)
        values = low + (high - low) * share
        finite = np.isfinite(values)
        valid &= finite.all(axis=-1) if self.values.ndim == 2 else finite
        values[~valid] = np.nan
        return values, valid

    def in_windows(
        self, windows: np.ndarray, bin_size: float, max_gap: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values in the middle of the bins of windows, and where they are known.

        Parameters
        ----------
        windows : array of shape (n_windows, 2), seconds
            Of one length, a multiple of ``bin_size``.
        bin_size : float, seconds

        Returns
        -------
        values : array of shape (n_windows, n_bins) or (n_windows, n_bins, columns)
        valid : bool array of shape (n_windows, n_bins)
        """
        from neurokern.datasets.windows import bins_per_window

        n_bins = bins_per_window("TimeSeries.in_windows", windows, bin_size)
        return self.at(windows[:, :1] + (np.arange(n_bins) + 0.5) * bin_size, max_gap)
