"""Batches of M/EEG windows: what is known of their channels, padded; items on demand; packed channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data._utils.collate import default_collate_fn_map

from neurokern.datasets.channels import Channels

__all__ = ["ChannelNames", "ChannelTables", "PackedChannels", "pack_channels", "stack_channels"]

_PADDING = -1


class ChannelNames:
    """Names of a window's channels: a tuple, but one that PyTorch leaves whole when it makes a batch."""

    __slots__ = ("_names",)

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: Any) -> Any:
        return self._names[i]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __eq__(self, other: object) -> bool:
        return self._names == (other._names if isinstance(other, ChannelNames) else other)

    def __hash__(self) -> int:
        return hash(self._names)

    def __repr__(self) -> str:
        return repr(self._names)


def _listed(batch: list[ChannelNames], **_: Any) -> list[ChannelNames]:
    return batch


_collators: dict[Any, Callable[..., Any]] = default_collate_fn_map
_collators[ChannelNames] = _listed


class ChannelTables:
    """What batches say of channels, for all recordings, padded to the widest."""

    def __init__(self, of: Sequence[Channels]) -> None:
        self.of = tuple(of)
        self._sizes = np.array([len(channels) for channels in of])
        widest = int(self._sizes.max())
        known = {name for channels in of for name in channels.regions if name}
        self.region_names = tuple(sorted(known))
        number = {name: code for code, name in enumerate(self.region_names)}
        shape = (len(self.of), widest)
        self._tensors = {
            "channel_mask": torch.zeros(shape, dtype=torch.bool),
            "channel_bad": torch.zeros(shape, dtype=torch.bool),
            "channel_types": torch.full(shape, _PADDING),
            "positions": torch.full((*shape, 3), torch.nan),
            "orientations": torch.full((*shape, 3), torch.nan),
            "regions": torch.full(shape, _PADDING),
        }
        for row, channels in enumerate(of):
            n = len(channels)
            values: dict[str, Any] = {
                "channel_mask": np.ones(n, bool),
                "channel_bad": channels.bad,
                "channel_types": channels.type_codes,
                "positions": channels.positions,
                "orientations": channels.orientations,
                "regions": np.array([number.get(name, _PADDING) for name in channels.regions], np.int64),
            }
            for name, value in values.items():
                self._tensors[name][row, :n] = torch.from_numpy(np.asarray(value))
        self._names = [ChannelNames(channels.names) for channels in of]

    def widest(self, recordings: NDArray[np.int64]) -> int:
        """Return the channels of the widest of these recordings."""
        return int(self._sizes[recordings].max())

    def of_batch(self, recordings: NDArray[np.int64]) -> dict[str, Any]:
        """Return what a batch says of its channels."""
        index, widest = torch.from_numpy(recordings), self.widest(recordings)
        facts: dict[str, Any] = {
            name: values[:, :widest].index_select(0, index) for name, values in self._tensors.items()
        }
        rows = recordings.tolist()
        facts["channel_names"] = [self._names[row] for row in rows]
        facts["frame"] = [self.of[row].frame for row in rows]
        return facts


# What stands where a window has no such sample or channel.
_FILL: dict[str, tuple[float, int]] = {  # value, axes to lengthen
    "signal": (0.0, 2),
    "valid": (False, 1),
    "channel_mask": (False, 1),
    "channel_bad": (False, 1),
    "channel_types": (_PADDING, 1),
    "positions": (torch.nan, 1),
    "orientations": (torch.nan, 1),
    "regions": (_PADDING, 1),
}


def stack_channels(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return windows of any channels and lengths, asked for one by one, as a batch that is padded."""
    if any(item.keys() != items[0].keys() for item in items):
        raise ValueError(
            "collate_windows: windows must have the same entries, as those of one kind of dataset"
        )
    batch: dict[str, Any] = {}
    for name, first in items[0].items():
        values = [item[name] for item in items]
        if name in _FILL:
            batch[name] = _padded(values, *_FILL[name])
        elif isinstance(first, (int, float)):
            batch[name] = torch.tensor(
                values, dtype=torch.float64 if isinstance(first, float) else torch.int64
            )
        else:
            batch[name] = values
    return batch


def _padded(values: list[torch.Tensor], fill: float, n_axes: int) -> torch.Tensor:
    longest = [max(value.shape[axis] for value in values) for axis in range(n_axes)]
    shape = (len(values), *longest, *values[0].shape[n_axes:])
    out = torch.full(shape, fill, dtype=values[0].dtype)
    for row, value in zip(out, values, strict=True):
        row[tuple(slice(n) for n in value.shape[:n_axes])] = value
    return out


class PackedChannels(NamedTuple):
    """Channels of all windows of a batch behind each other, without padding.

    Parameters
    ----------
    signal : Tensor of shape (total channels, time)
    cu_seqlens : int32 Tensor of shape (batch + 1,)
        First channel of each window, and their number, as variable-length attention takes it.
    window, channel : int64 Tensors of shape (total channels,)
        Where each comes from in the batch.
    """

    signal: torch.Tensor
    cu_seqlens: torch.Tensor
    window: torch.Tensor
    channel: torch.Tensor


def pack_channels(batch: dict[str, Any], *, by_region: bool = False) -> PackedChannels:
    """Return a batch's channels without padding; ``batch["positions"][packed.window, packed.channel]`` fits.

    Parameters
    ----------
    batch : dict
        Of :class:`~neurokern.datasets.MEEGWindows`.
    by_region : bool, default False
        Channels of one region behind each other within each window, regions in the order of their numbers,
        those of unknown region last.
    """
    mask = batch["channel_mask"]
    window, channel = mask.nonzero(as_tuple=True)
    if by_region:
        regions = batch["regions"][window, channel]
        regions = torch.where(regions < 0, int(batch["regions"].max()) + 1, regions)
        order = torch.argsort(window * (int(regions.max()) + 1) + regions, stable=True)
        window, channel = window[order], channel[order]
    counts = mask.sum(dim=1)
    cu_seqlens = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)
    return PackedChannels(batch["signal"].transpose(1, 2)[window, channel], cu_seqlens, window, channel)
