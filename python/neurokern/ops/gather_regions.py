"""Pack the units of a region, sample by sample, and put them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurokern._check import check_integer
from neurokern.ops import _row_kernel
from neurokern.ops._library import torch
from neurokern.ops._target_kernel import pack_targets
from neurokern.ops.mask_regions import MaskedBatch

if TYPE_CHECKING:
    from neurokern.ops._types import Array


class PackedRegions(NamedTuple):
    """Rows of the chosen units, packed; sample b has ``values[cu_seqlens[b] : cu_seqlens[b + 1]]``."""

    values: Any  # (n_rows, n_bins)
    cu_seqlens: Any  # (n_samples + 1,), int32


class PaddedRegions(NamedTuple):
    """Rows of the chosen units in a block per sample, and where the block holds a unit."""

    values: Any  # (n_samples, max_rows, n_bins), 0 where the mask is False
    mask: Any  # (n_samples, max_rows), bool


@dataclass(frozen=True)
class RegionIndex:
    """Which units of each sample are chosen; build it once per batch with :func:`region_index`.

    Attributes
    ----------
    samples, units : int64 arrays of shape (n_rows,)
        Row i of the packed array is unit ``units[i]`` of sample ``samples[i]``; by sample, then by unit.
        -1 in rows beyond the true number, which only an index of given ``n_rows`` has.
    rows : int32 array of shape (n_samples, n_units)
        The inverse: the packed row of each unit, -1 for units without one.
    cu_seqlens : int32 array of shape (n_samples + 1,)
        First row of each sample, and the true number of rows.
    padding_mask : bool array of shape (n_samples, max_rows)
        True where the padded block holds a unit.
    """

    samples: Any
    units: Any
    rows: Any
    cu_seqlens: Any
    padding_mask: Any

    @property
    def n_samples(self) -> int:
        """Number of samples of the batch."""
        return int(self.rows.shape[0])

    @property
    def n_units(self) -> int:
        """Number of units of the batch that the index is for."""
        return int(self.rows.shape[1])


def region_index(
    units: Array | MaskedBatch,
    region: int | Array | None = None,
    *,
    n_samples: int | None = None,
    n_rows: int | None = None,
    max_rows: int | None = None,
) -> RegionIndex:
    """Build the index that :func:`gather_regions` and :func:`scatter_regions` take.

    Parameters
    ----------
    units : array of shape (n_samples, n_units) or (n_units,), or MaskedBatch
        Bool: True for chosen units. Integers: region numbers, of which ``region`` is chosen. A masked batch
        chooses the units that have a target in any bin.
    region : int or int array of shape (n_samples,), optional
        The region to choose, where ``units`` are region numbers; per sample if an array.
        A negative region chooses nothing.
    n_samples : int, optional
        Number of samples that share ``units`` of shape (n_units,).
    n_rows, max_rows : int, optional
        Room for packed rows, and for rows of a sample in a padded block; by default as much as there are.
        Rows that are not there are marked and read as 0; rows that find no room are left out.

    Returns
    -------
    RegionIndex
        On the device of ``units``. Without both ``n_rows`` and ``max_rows`` its size depends on values, so
        building it on a GPU waits for the device; gathering and scattering with it never do.

    Raises
    ------
    ValueError
        If the shapes do not fit, or region numbers come without ``region``, or a mask with one.
    """
    if isinstance(units, MaskedBatch):
        units = units.target_mask.any(1)
    is_torch = torch is not None and isinstance(units, torch.Tensor)
    if not is_torch:
        units = np.asarray(units)
    n_rows, max_rows = _check_room("n_rows", n_rows), _check_room("max_rows", max_rows)
    chosen = _chosen(_per_sample_units(units, n_samples), region, is_torch)
    size = int(chosen.shape[0]) * int(chosen.shape[1])
    if size >= 2**31:
        raise ValueError(f"region_index: n_samples * n_units must be below 2**31, got {size}")
    return _index_of(chosen, n_rows, max_rows, is_torch)


def _check_room(name: str, room: int | None) -> int | None:
    if room is None:
        return None
    room = check_integer("region_index", name, room)
    if not 0 <= room < 2**31:
        raise ValueError(f"region_index: {name} must lie in [0, 2**31), got {room}")
    return room


def _index_of(chosen: Any, n_rows: int | None, max_rows: int | None, is_torch: bool) -> RegionIndex:
    xp: Any = torch if is_torch else np
    device = {"device": chosen.device} if is_torch else {}
    n_samples, n_units = chosen.shape
    chosen = chosen.contiguous() if is_torch else np.ascontiguousarray(chosen)
    flat, cu_seqlens = pack_targets(chosen[:, None], n_rows, None)
    samples = flat // max(n_units, 1)  # -1 stays -1
    units = xp.where(flat < 0, flat, flat - samples * n_units)
    numbers = chosen.reshape(-1).cumsum(0) - 1
    has_row = chosen.reshape(-1) & (numbers < flat.shape[0])
    inverse = xp.where(has_row, numbers, numbers * 0 - 1).reshape(n_samples, n_units)
    counts = cu_seqlens[1:] - cu_seqlens[:-1]
    if max_rows is None:
        max_rows = int(counts.max()) if n_samples else 0
    in_sample = xp.arange(max_rows, **device)
    padding_mask = in_sample < counts[:, None]
    padding_mask &= in_sample + cu_seqlens[:-1, None] < flat.shape[0]
    inverse = inverse.to(torch.int32) if is_torch else inverse.astype(np.int32)
    return RegionIndex(samples, units, inverse, cu_seqlens, padding_mask)


def _per_sample_units(units: Any, n_samples: int | None) -> Any:
    if units.ndim == 1:
        if n_samples is None:
            raise ValueError("region_index: n_samples must be given for units of shape (n_units,), got None")
        if check_integer("region_index", "n_samples", n_samples) < 0:
            raise ValueError(f"region_index: n_samples must be at least 0, got {n_samples}")
        units = units[None]
        shape = (n_samples, units.shape[1])
        return units.expand(shape) if not isinstance(units, np.ndarray) else np.broadcast_to(units, shape)
    if units.ndim != 2 or n_samples not in (None, units.shape[0]):
        raise ValueError(
            f"region_index: units must have the shape (n_units,) or (n_samples, n_units), "
            f"got {tuple(units.shape)}" + ("" if n_samples is None else f" with n_samples={n_samples}")
        )
    return units


def _chosen(units: Any, region: Any, is_torch: bool) -> Any:
    is_mask = units.dtype == (torch.bool if is_torch else bool)
    if is_mask != (region is None):
        raise ValueError(
            "region_index: region must be given with region numbers and only with them, got "
            f"region={region!r} with units of {units.dtype}"
        )
    if is_mask:
        return units
    _check_integers("units", units)
    if isinstance(region, int):
        return (units == region) & (units >= 0)
    region = region if torch is not None and isinstance(region, torch.Tensor) else np.asarray(region)
    _check_integers("region", region)
    region = torch.as_tensor(region, device=units.device) if is_torch else np.asarray(region)
    if tuple(region.shape) not in ((), (units.shape[0],)):
        raise ValueError(
            f"region_index: region must be a number or have the shape ({units.shape[0]},), "
            f"got {tuple(region.shape)}"
        )
    return (units == region.reshape(-1, 1)) & (units >= 0)


def _check_integers(name: str, array: Any) -> None:
    is_array = isinstance(array, np.ndarray)
    whole = array.dtype.kind in "iu" if is_array else not (array.is_floating_point() or array.is_complex())
    if not whole:
        raise TypeError(f"region_index: {name} must be integers, got {array.dtype}")


def gather_regions(
    x: Array, index: RegionIndex, *, padded: bool = False, backend: str | None = None
) -> PackedRegions | PaddedRegions:
    """Take the chosen units out of a batch, a row of bins per unit.

    Parameters
    ----------
    x : tensor or array of shape (n_samples, n_bins, n_units)
        Activity of any dtype and strides.
    index : RegionIndex
        From :func:`region_index`, for the same numbers of samples and units, on the device of ``x``.
    padded : bool, default False
        Return a block per sample instead of packed rows.
    backend : {None, "native", "triton", "reference"}, default None
        On the CPU "native" is PyTorch's own indexing, which reads and writes at the speed of the memory.

    Returns
    -------
    PackedRegions or PaddedRegions
        ``(values, cu_seqlens)``, or ``(values, mask)`` if ``padded``. ``values`` is differentiable in ``x``.

    Raises
    ------
    ValueError
        If ``index`` was built for another number of samples or units, or lies on another device.

    Examples
    --------
    >>> x = torch.arange(8.0).reshape(2, 2, 2)  # two samples, two bins, two units
    >>> index = region_index(torch.tensor([[7, 7], [3, 7]]), region=7)
    >>> gather_regions(x, index).values
    tensor([[0., 2.],
            [1., 3.],
            [5., 7.]])
    """
    is_torch = _check_kind("gather_regions", "x", x, index)
    if x.ndim != 3 or (x.shape[0], x.shape[2]) != (index.n_samples, index.n_units):
        raise ValueError(
            f"gather_regions: x must have the shape ({index.n_samples}, n_bins, {index.n_units}) "
            f"of the index, got {tuple(x.shape)}"
        )
    n_samples, max_rows = index.padding_mask.shape
    room = max_rows if padded else None
    if is_torch:
        parts = (index.samples, index.units, index.rows, index.cu_seqlens)
        rows = torch.ops.neurokern.gather_regions(x, *parts, room, backend)
    else:
        rows = _row_kernel.gather_array(x, index, room, backend)
    if not padded:
        return PackedRegions(rows, index.cu_seqlens)
    return PaddedRegions(rows.reshape(n_samples, max_rows, x.shape[1]), index.padding_mask)


def scatter_regions(values: Array, index: RegionIndex, *, backend: str | None = None) -> Array:
    """Put rows back to where :func:`gather_regions` took them from; all else is 0.

    It is the inverse of gathering, and its gradient.

    Parameters
    ----------
    values : tensor or array of shape (n_rows, n_bins) or (n_samples, max_rows, n_bins)
        Packed or padded rows; what a padded block holds outside of the mask is not read.
    index : RegionIndex
        The index of the batch.
    backend : {None, "native", "triton", "reference"}, default None
        As in :func:`gather_regions`.

    Returns
    -------
    x : tensor or array of shape (n_samples, n_bins, n_units), dtype of ``values``
        Differentiable in ``values``.

    Raises
    ------
    ValueError
        If ``values`` has neither the packed nor the padded shape of the index, or lies on another device.
    """
    is_torch = _check_kind("scatter_regions", "values", values, index)
    n_rows, (n_samples, max_rows) = len(index.samples), tuple(index.padding_mask.shape)
    is_packed = values.ndim == 2 and values.shape[0] == n_rows
    is_padded = values.ndim == 3 and tuple(values.shape[:2]) == (n_samples, max_rows)
    if not (is_packed or is_padded):
        raise ValueError(
            f"scatter_regions: values must have the shape ({n_rows}, n_bins) or "
            f"({n_samples}, {max_rows}, n_bins) of the index, got {tuple(values.shape)}"
        )
    room = None if is_packed else max_rows
    rows: Any = values if is_packed else values.reshape(n_samples * max_rows, values.shape[-1])
    if not is_torch:
        return _row_kernel.scatter_array(rows, index, room, backend)
    parts = (index.samples, index.units, index.rows, index.cu_seqlens)
    return torch.ops.neurokern.scatter_regions(rows, *parts, room, backend)


def _check_kind(function: str, name: str, array: Any, index: RegionIndex) -> bool:
    """Return whether ``array`` is a tensor; raise unless the index is of its kind and on its device."""
    if not isinstance(index, RegionIndex):
        raise TypeError(f"{function}: index must come from region_index, got {type(index).__name__}")
    is_torch = torch is not None and isinstance(array, torch.Tensor)
    if not (is_torch or isinstance(array, np.ndarray)):
        raise TypeError(
            f"{function}: {name} must be a torch tensor or a numpy array, got {type(array).__name__}"
        )
    if is_torch == isinstance(index.samples, np.ndarray):
        raise TypeError(f"{function}: index must be of the kind of {name}, {type(array).__name__}")
    if is_torch and index.samples.device != array.device:
        raise ValueError(
            f"{function}: index must be on the device of {name}, {array.device}, got {index.samples.device}"
        )
    return is_torch
