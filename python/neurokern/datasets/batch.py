"""Ragged batches: windows of sessions with different numbers of units, padded, with masks and regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

__all__ = ["SpikeBatch", "SpikeSample", "collate_spikes"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SpikeSample:
    """One window of one session, before batching.

    Parameters
    ----------
    counts : Tensor of shape (n_bins, n_units), float32
    regions : Tensor of shape (n_units,), int64
        Numbers into the dataset's ``region_names``; -1 where unknown.
    session : str
    session_index : int
        Number of the session in the dataset.
    window : int
        Number of the window in the session.
    labels : dict of str to Tensor of shape ()
    series : dict of str to Tensor of shape (n_bins,) or (n_bins, columns), float32
    series_valid : dict of str to Tensor of shape (n_bins,), bool
    """

    counts: Tensor
    regions: Tensor
    session: str
    session_index: int
    window: int
    labels: dict[str, Tensor] = field(default_factory=dict)
    series: dict[str, Tensor] = field(default_factory=dict)
    series_valid: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class SpikeBatch:
    """Windows of one or several sessions.

    Parameters
    ----------
    counts : Tensor of shape (batch, n_bins, max_units), float32
        Counts; 0 where a session has no such unit.
    n_units : Tensor of shape (batch,), int64
        Units of each window's session; the others are padding.
    regions : Tensor of shape (batch, max_units), int64
        Region of each unit as a number into the dataset's ``region_names``; -1 for padding and unknown
        regions.
    session : list of str, length batch
    session_index : Tensor of shape (batch,), int64
        Number of each window's session in the dataset.
    window : Tensor of shape (batch,), int64
        Number of each window in its session.
    labels : dict of str to Tensor of shape (batch,)
        Columns of the trials that the dataset was asked for.
    series : dict of str to Tensor of shape (batch, n_bins) or (batch, n_bins, columns), float32
        Behavior in the middle of each bin; NaN where ``series_valid`` is False.
    series_valid : dict of str to Tensor of shape (batch, n_bins), bool
        Where it is known.
    """

    counts: Tensor
    n_units: Tensor
    regions: Tensor
    session: list[str]
    session_index: Tensor
    window: Tensor
    labels: dict[str, Tensor] = field(default_factory=dict)
    series: dict[str, Tensor] = field(default_factory=dict)
    series_valid: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.session)

    def __getitem__(self, i: int) -> SpikeSample:
        """Return a window without its padding."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"SpikeBatch: windows are 0 to {n - 1}, got {i}")
        units = int(self.n_units[i])
        return SpikeSample(
            counts=self.counts[i, :, :units],
            regions=self.regions[i, :units],
            session=self.session[i],
            session_index=int(self.session_index[i]),
            window=int(self.window[i]),
            labels={name: values[i] for name, values in self.labels.items()},
            series={name: values[i] for name, values in self.series.items()},
            series_valid={name: valid[i] for name, valid in self.series_valid.items()},
        )

    @property
    def unit_mask(self) -> Tensor:
        """Which units exist: bool, (batch, max_units); False for padding."""
        columns = torch.arange(self.counts.shape[2], device=self.n_units.device)
        return columns < self.n_units[:, None]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SpikeBatch:
        """Return the batch with its tensors on ``device``; ``non_blocking`` as in :meth:`torch.Tensor.to`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SpikeBatch:
        """Return the batch in page-locked memory; ``DataLoader(pin_memory=True)`` calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> SpikeBatch:
        return SpikeBatch(
            counts=function(self.counts),
            n_units=function(self.n_units),
            regions=function(self.regions),
            session=self.session,
            session_index=function(self.session_index),
            window=function(self.window),
            labels={name: function(values) for name, values in self.labels.items()},
            series={name: function(values) for name, values in self.series.items()},
            series_valid={name: function(valid) for name, valid in self.series_valid.items()},
        )


def collate_spikes(samples: Sequence[SpikeSample] | SpikeBatch) -> SpikeBatch:
    """Make a batch of windows; the ``collate_fn`` of a DataLoader over :class:`SpikeWindows`.

    A :class:`SpikeBatch`, which the dataset makes at once when it is asked for many windows, passes as it is.

    Raises
    ------
    ValueError
        If there are no samples, or they differ in the number of bins or in their labels.
    """
    if isinstance(samples, SpikeBatch):
        return samples
    if not samples:
        raise ValueError("collate_spikes: there are no samples")
    if len({sample.counts.shape[0] for sample in samples}) > 1:
        raise ValueError(
            f"collate_spikes: windows differ in bins: {sorted({s.counts.shape[0] for s in samples})}"
        )
    if len({tuple(sorted(sample.labels)) for sample in samples}) > 1:
        raise ValueError("collate_spikes: samples differ in their labels")
    if len({tuple(sorted(sample.series)) for sample in samples}) > 1:
        raise ValueError("collate_spikes: samples differ in their series")
    sizes = [sample.counts.shape[1] for sample in samples]
    counts = torch.zeros(len(samples), samples[0].counts.shape[0], max(sizes))
    regions = torch.full((len(samples), max(sizes)), -1)
    for row, sample in enumerate(samples):
        counts[row, :, : sizes[row]] = sample.counts
        regions[row, : sizes[row]] = sample.regions
    return SpikeBatch(
        counts=counts,
        n_units=torch.tensor(sizes),
        regions=regions,
        session=[sample.session for sample in samples],
        session_index=torch.tensor([sample.session_index for sample in samples]),
        window=torch.tensor([sample.window for sample in samples]),
        labels={name: torch.stack([s.labels[name] for s in samples]) for name in samples[0].labels},
        series={name: torch.stack([s.series[name] for s in samples]) for name in samples[0].series},
        series_valid={
            name: torch.stack([s.series_valid[name] for s in samples]) for name in samples[0].series
        },
    )


def _collated(samples: Sequence[SpikeSample] | SpikeBatch, **_: Any) -> SpikeBatch:
    return collate_spikes(samples)


# A DataLoader without a collate function makes the same batches.
_collators: dict[Any, Callable[..., Any]] = default_collate_fn_map
_collators[SpikeSample] = _collated
