"""Pack the units of a region, sample by sample, and put them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurokern._check import check_integer
from neurokern.ops import _row_kernel  # noqa: F401  (registers the ops)
from neurokern.ops._library import torch
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
    positions : int64 array of shape (n_rows,)
        Where row i stands in the padded block, counted over ``(n_samples, max_rows)``.
    cu_seqlens : int32 array of shape (n_samples + 1,)
        First row of each sample, and the number of rows.
    padding_mask : bool array of shape (n_samples, max_rows)
        True where the padded block holds a unit.
    n_units : int
        Units of the batch that the index is for.
    """

    samples: Any
    units: Any
    positions: Any
    cu_seqlens: Any
    padding_mask: Any
    n_units: int

    @property
    def n_samples(self) -> int:
        """Number of samples of the batch."""
        return int(self.padding_mask.shape[0])


def region_index(
    units: Array | MaskedBatch, region: int | Array | None = None, *, n_samples: int | None = None
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

    Returns
    -------
    RegionIndex
        On the device of ``units``. Its size depends on values, so building it on a GPU waits for the device,
        once; gathering and scattering with it do not.

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
    units = _per_sample_units(units, n_samples)
    chosen = _chosen(units, region, is_torch)
    if is_torch:
        samples, numbers = chosen.nonzero(as_tuple=True)
        counts = chosen.sum(1)
        ends = counts.cumsum(0)
        cu_seqlens: Any = torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)
        max_rows = int(counts.max()) if counts.numel() else 0
        arange: Any = torch.arange(max(max_rows, len(samples)), device=chosen.device)
    else:
        samples, numbers = np.nonzero(chosen)
        counts = chosen.sum(1)
        ends = counts.cumsum()
        cu_seqlens = np.concatenate([[0], ends]).astype(np.int32)
        max_rows = int(counts.max(initial=0))
        arange = np.arange(max(max_rows, len(samples)))
    positions = samples * max_rows + arange[: len(samples)] - (ends - counts)[samples]
    padding_mask = arange[:max_rows] < counts[:, None]
    return RegionIndex(samples, numbers, positions, cu_seqlens, padding_mask, int(chosen.shape[1]))


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
    backend : {None, "native", "reference"}, default None
        On the CPU both are PyTorch's own indexing, which reads and writes at the speed of the memory already.

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
    if not is_torch:
        rows = x[index.samples, :, index.units]
        if not padded:
            return PackedRegions(rows, index.cu_seqlens)
        block = np.zeros((n_samples * max_rows, x.shape[1]), dtype=x.dtype)
        block[index.positions] = rows
        return PaddedRegions(block.reshape(n_samples, max_rows, x.shape[1]), index.padding_mask)
    op = torch.ops.neurokern.gather_regions
    if not padded:
        return PackedRegions(op(x, index.samples, index.units, None, 0, backend), index.cu_seqlens)
    block = op(x, index.samples, index.units, index.positions, n_samples * max_rows, backend)
    return PaddedRegions(block.reshape(n_samples, max_rows, x.shape[1]), index.padding_mask)


def scatter_regions(values: Array, index: RegionIndex, *, backend: str | None = None) -> Array:
    """Put rows back to where :func:`gather_regions` took them from; all else is 0.

    It is the inverse of gathering, and its gradient.

    Parameters
    ----------
    values : tensor or array of shape (n_rows, n_bins) or (n_samples, max_rows, n_bins)
        Packed or padded rows; what a padded block holds outside of the mask is not read.
    index : RegionIndex
        The index of the batch.
    backend : {None, "native", "reference"}, default None
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
    n_bins = values.shape[-1]
    rows: Any = values if is_packed else values.reshape(n_samples * max_rows, n_bins)
    positions = None if is_packed else index.positions
    if is_torch:
        return torch.ops.neurokern.scatter_regions(
            rows, index.samples, index.units, positions, n_samples, index.n_units, backend
        )
    x = np.zeros((n_samples, n_bins, index.n_units), dtype=values.dtype)
    x[index.samples, :, index.units] = rows if positions is None else rows[positions]
    return x


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
