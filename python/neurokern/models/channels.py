"""Channels grouped by region, and time in patches: one stream of tokens for each region.

Du-IN reads intracranial channels so (Zheng et al., "Du-IN: discrete units-guided mask modeling for decoding
speech from intracranial neural signals", NeurIPS 2024, arXiv:2405.11459): the channels of a region are fused
before a transformer sees them. Any activity of shape (batch, time, channels) can be grouped, spike counts as
well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neurokern._check import check_integer


@dataclass(frozen=True, eq=False, slots=True)
class RegionTokens:
    """Patches of time of the channels of each region, padded to the largest region.

    Attributes
    ----------
    values : tensor of shape (B, n_patches, n_regions, patch, width)
        0 in the padding. ``values.flatten(3)`` is what a linear layer makes a token of.
    channel_mask : bool tensor of shape (B, n_regions, width)
        True for channels, False for padding.
    slot : int64 tensor of shape (B, C)
        Where each channel went, ``region * width + place in the region``; ``n_regions * width`` for channels
        of unknown region, which are in no token.
    """

    values: Tensor
    channel_mask: Tensor
    slot: Tensor

    @property
    def token_mask(self) -> Tensor:
        """Regions that have channels: bool, (B, n_regions). The others' tokens are all padding."""
        return self.channel_mask.any(2)

    def channels(self, values: Tensor | None = None) -> Tensor:
        """Put values of the tokens' shape back, ``(B, T, C)``; 0 for channels of unknown region.

        Parameters
        ----------
        values : tensor of the shape of ``self.values``, optional
            What a model made of them; the tokens' own values by default, which gives the input again.
        """
        values = self.values if values is None else values
        streams = values.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, T, n_regions * width)
        streams = torch.nn.functional.pad(streams, (0, 1))  # where the unknown channels are
        return streams.gather(2, self.slot[:, None].expand(-1, streams.shape[1], -1))


def region_tokens(
    x: Tensor,
    regions: Tensor,
    *,
    patch: int,
    n_regions: int | None = None,
    max_channels: int | None = None,
) -> RegionTokens:
    """Group channels by region and time by patches.

    Parameters
    ----------
    x : tensor of shape (B, T, C)
    regions : int tensor of shape (C,) or (B, C)
        Region of each channel in ``[0, n_regions)``; negative numbers are padding or unknown.
    patch : int
        Time steps in a token; divides T.
    n_regions, max_channels : int, optional
        Sizes of the result. By default the highest region + 1, and the size of the largest region; giving
        them keeps a GPU from being waited for and one linear layer fitting all batches.

    Returns
    -------
    tokens : RegionTokens
        Differentiable in ``x``.

    Raises
    ------
    ValueError
        If a shape does not fit, T is no multiple of ``patch``, or (on a CPU) a region is beyond ``n_regions``
        or has more than ``max_channels`` channels.

    Examples
    --------
    >>> x = torch.arange(6.0).view(1, 2, 3)
    >>> tokens = region_tokens(x, torch.tensor([1, 0, 1]), patch=2)
    >>> tokens.values.shape, tokens.token_mask
    (torch.Size([1, 1, 2, 2, 2]), tensor([[True, True]]))
    >>> tokens.values[0, 0, 1]
    tensor([[0., 2.],
            [3., 5.]])
    """
    _check_shapes(x, regions, patch)
    n_windows, n_bins, n_channels = x.shape
    regions = regions.to(x.device).expand(n_windows, n_channels)
    if n_regions is None:
        n_regions = int(regions.max()) + 1 if regions.numel() else 0
    if n_regions < 1:
        raise ValueError("region_tokens: regions must hold at least one known region, got none")
    place, sizes = _places(regions, n_regions)
    width = (
        int(sizes.max())
        if max_channels is None
        else check_integer("region_tokens", "max_channels", max_channels)
    )
    _check_sizes(regions, sizes, n_regions, width)
    unknown = n_regions * width
    slot = torch.where((regions >= 0) & (regions < n_regions), regions * width + place, unknown)
    streams = x.new_zeros(n_windows, n_bins, unknown + 1)
    streams = streams.scatter(2, slot[:, None].expand(-1, n_bins, -1), x)[..., :unknown]
    values = streams.reshape(n_windows, n_bins // patch, patch, n_regions, width).transpose(2, 3)
    channel_mask = torch.arange(width, device=x.device) < sizes[..., None]
    return RegionTokens(values, channel_mask, slot)


def _places(regions: Tensor, n_regions: int) -> tuple[Tensor, Tensor]:
    """Return each channel's place among those of its region, ``(B, C)``, and the regions' sizes."""
    member = regions[..., None] == torch.arange(n_regions, device=regions.device)  # (B, C, n_regions)
    before = member.long().cumsum(1) - 1
    return before.gather(2, regions.clamp(0, n_regions - 1)[..., None])[..., 0], member.sum(1)


def _check_shapes(x: Tensor, regions: Tensor, patch: int) -> None:
    if x.ndim != 3 or regions.shape[-1:] != x.shape[2:] or regions.shape[:-1] not in ((), x.shape[:1]):
        raise ValueError(
            f"region_tokens: x must have shape (B, T, C) and regions (C,) or (B, C), got {tuple(x.shape)} "
            f"and {tuple(regions.shape)}"
        )
    if regions.is_floating_point() or regions.dtype == torch.bool:
        raise ValueError(f"region_tokens: regions must be integers, got {regions.dtype}")
    if check_integer("region_tokens", "patch", patch) < 1 or x.shape[1] % patch:
        raise ValueError(f"region_tokens: patch must divide the {x.shape[1]} time steps, got {patch}")


def _check_sizes(regions: Tensor, sizes: Tensor, n_regions: int, width: int) -> None:
    if regions.device.type != "cpu" or not regions.numel():
        return
    if int(regions.max()) >= n_regions:
        raise ValueError(
            f"region_tokens: regions must be below n_regions={n_regions}, got {int(regions.max())}"
        )
    if int(sizes.max()) > width:
        raise ValueError(
            f"region_tokens: max_channels must hold the largest region ({int(sizes.max())}), got {width}"
        )
