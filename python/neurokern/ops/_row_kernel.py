"""gather_regions and scatter_regions of arrays, and of tensors as registered ops.

On the CPU they are PyTorch's own indexing, which moves the rows at the speed of the memory already; on a GPU
our kernels put them into place without waiting for the host. Both take the whole index, since the gradient of
each is the other: gathering needs the unit of a row, scattering the row of a unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern.ops import _library
from neurokern.ops._library import torch

if TYPE_CHECKING:
    from torch import Tensor

    from neurokern.ops.gather_regions import RegionIndex

# samples (n_rows,), units (n_rows,), rows (n_samples, n_units), cu_seqlens (n_samples + 1,)
Index = tuple[Any, Any, Any, Any]


# ---- on the CPU: the rows that are there, by indexing


def _true_rows(index: Index, max_rows: int | None) -> tuple[Any, Any, Any]:
    """Return sample and unit of each row that is there, and its place among the rows of the other side."""
    samples, units, _, cu_seqlens = index
    n = min(int(cu_seqlens[-1]), len(samples))
    samples, units = samples[:n], units[:n]
    numbers: Any = np.arange(n) if isinstance(samples, np.ndarray) else torch.arange(n)
    if max_rows is None:
        return samples, units, numbers
    in_sample = numbers - cu_seqlens[samples]
    places = samples * max_rows + in_sample
    if n == 0 or int(in_sample.max()) < max_rows:
        return samples, units, places
    has_room = in_sample < max_rows
    return samples[has_room], units[has_room], places[has_room]


def gather_array(
    x: NDArray[Any], index: RegionIndex, max_rows: int | None, backend: str | None
) -> NDArray[Any]:
    """Gather from a numpy array; rows that are not there are 0."""
    _library.choose_backend("gather_regions", "cpu", backend)  # numpy's indexing serves all that it allows
    parts = (index.samples, index.units, index.rows, index.cu_seqlens)
    samples, units, places = _true_rows(parts, max_rows)
    n_rows = len(index.samples) if max_rows is None else x.shape[0] * max_rows
    rows = np.zeros((n_rows, x.shape[1]), dtype=x.dtype)
    rows[places] = x[samples, :, units]
    return rows


def scatter_array(
    rows: NDArray[Any], index: RegionIndex, max_rows: int | None, backend: str | None
) -> NDArray[Any]:
    """Scatter rows of a numpy array; units without a row are 0."""
    _library.choose_backend("scatter_regions", "cpu", backend)
    parts = (index.samples, index.units, index.rows, index.cu_seqlens)
    samples, units, places = _true_rows(parts, max_rows)
    x = np.zeros((index.n_samples, rows.shape[1], index.n_units), dtype=rows.dtype)
    x[samples, :, units] = rows[places]
    return x


def _gather_on_cpu(x: Tensor, index: Index, max_rows: int | None) -> Tensor:
    samples, units, places = _true_rows(index, max_rows)
    packed = x[samples, :, units]
    n_rows = len(index[0]) if max_rows is None else x.shape[0] * max_rows
    if max_rows is None and len(samples) == n_rows:
        return packed
    return x.new_zeros((n_rows, x.shape[1])).index_copy_(0, places, packed)


def _scatter_on_cpu(rows: Tensor, index: Index, max_rows: int | None) -> Tensor:
    samples, units, places = _true_rows(index, max_rows)
    x = rows.new_zeros((index[2].shape[0], rows.shape[1], index[2].shape[1]))
    x[samples, :, units] = rows if len(samples) == len(rows) and max_rows is None else rows[places]
    return x


# ---- the reference: every place of the result asks for its source, which never waits for a device


def _gather_reference(x: Tensor, index: Index, max_rows: int | None) -> Tensor:
    samples, units, _, cu_seqlens = index
    n_rows = len(samples) if max_rows is None else x.shape[0] * max_rows
    if x.numel() == 0 or len(samples) == 0:
        return x.new_zeros((n_rows, x.shape[1]))
    there = samples >= 0
    if max_rows is not None:
        row = (cu_seqlens[:-1, None] + torch.arange(max_rows, device=x.device)).flatten()
        there = (row < cu_seqlens[1:].repeat_interleave(max_rows, output_size=n_rows)) & (row < len(samples))
        row = torch.where(there, row, 0)
        samples, units = samples[row], units[row]
    return x[samples.clamp(min=0), :, units.clamp(min=0)].masked_fill_(~there[:, None], 0)


def _scatter_reference(rows: Tensor, index: Index, max_rows: int | None) -> Tensor:
    _, _, row, cu_seqlens = index
    n_samples, n_units = row.shape
    there = row >= 0
    if max_rows is not None:
        in_sample = row - cu_seqlens[:-1, None]
        there &= in_sample < max_rows
        row = in_sample + torch.arange(n_samples, device=rows.device)[:, None] * max_rows
    if rows.numel() == 0:
        return rows.new_zeros((n_samples, rows.shape[1], n_units))
    x = rows[torch.where(there, row, 0)]
    return x.masked_fill_(~there[:, :, None], 0).transpose(1, 2).contiguous()


# ---- on a GPU: every place of the result written once, by our kernels


def _row_arguments(x: Tensor, rows: Tensor, index: Index, max_rows: int | None) -> dict[str, Any]:
    """Name what both kernels take; the caller keeps the arrays alive."""
    samples, units, rows_of_units, cu_seqlens = index
    return {
        "x": 0,
        "y": 0,
        "rows": _library.address(rows),
        "samples": _library.address(samples),
        "units": _library.address(units),
        "rows_of_units": _library.address(rows_of_units),
        "cu_seqlens": _library.address(cu_seqlens),
        "n_index": len(samples),
        "n_rows": len(rows),
        "shape": tuple(x.shape),
        "x_strides": x.stride(),
        "element_size": x.element_size(),
        "max_rows": -1 if max_rows is None else max_rows,
    }


def _gather_on_gpu(x: Tensor, index: Index, max_rows: int | None) -> Tensor:
    n_rows = len(index[0]) if max_rows is None else x.shape[0] * max_rows
    rows = _library.new_array(x, (n_rows, x.shape[1]), x.dtype)
    samples, units, rows_of_units, cu_seqlens = (part.contiguous() for part in index)  # kept until the launch
    index = (samples, units, rows_of_units, cu_seqlens)
    arguments = _row_arguments(x, rows, index, max_rows) | {"x": _library.address(x)}
    with _library.gpu_module(x) as (module, stream):
        module.gather_regions(arguments, stream)
    return rows


def _scatter_on_gpu(rows: Tensor, index: Index, max_rows: int | None) -> Tensor:
    n_samples, n_units = index[2].shape
    x = _library.new_array(rows, (n_samples, rows.shape[1], n_units), rows.dtype)
    rows = rows.contiguous()
    samples, units, rows_of_units, cu_seqlens = (part.contiguous() for part in index)  # kept until the launch
    index = (samples, units, rows_of_units, cu_seqlens)
    arguments = _row_arguments(x, rows, index, max_rows) | {"y": _library.address(x)}
    with _library.gpu_module(x) as (module, stream):
        module.scatter_regions(arguments, stream)
    return x


# ---- the registered ops


def _by_triton(direction: str, array: Tensor, index: Index, max_rows: int | None) -> Tensor:
    moved: Tensor = getattr(_library.triton_kernels("gather_regions"), direction)(array, index, max_rows)
    return moved


def _gather(
    x: Tensor,
    samples: Tensor,
    units: Tensor,
    rows: Tensor,
    cu_seqlens: Tensor,
    max_rows: int | None,
    backend: str | None,
) -> Tensor:
    index = (samples, units, rows, cu_seqlens)
    chosen = _library.choose_backend("gather_regions", x.device.type, backend)
    if chosen == "reference" or x.element_size() > 8:
        return _gather_reference(x, index, max_rows)
    if chosen == "triton":
        return _by_triton("gather", x, index, max_rows)
    return (_gather_on_gpu if _library.runs_on_gpu(x) else _gather_on_cpu)(x, index, max_rows)


def _scatter(
    values: Tensor,
    samples: Tensor,
    units: Tensor,
    rows: Tensor,
    cu_seqlens: Tensor,
    max_rows: int | None,
    backend: str | None,
) -> Tensor:
    index = (samples, units, rows, cu_seqlens)
    chosen = _library.choose_backend("scatter_regions", values.device.type, backend)
    if chosen == "reference" or values.element_size() > 8:
        return _scatter_reference(values, index, max_rows)
    if chosen == "triton":
        return _by_triton("scatter", values, index, max_rows)
    return (_scatter_on_gpu if _library.runs_on_gpu(values) else _scatter_on_cpu)(values, index, max_rows)


def _fake_gather(
    x: Tensor,
    samples: Tensor,
    units: Tensor,
    rows: Tensor,
    cu_seqlens: Tensor,
    max_rows: int | None,
    backend: str | None,
) -> Tensor:
    n_rows = samples.shape[0] if max_rows is None else rows.shape[0] * max_rows
    return x.new_empty((n_rows, x.shape[1]))


def _fake_scatter(
    values: Tensor,
    samples: Tensor,
    units: Tensor,
    rows: Tensor,
    cu_seqlens: Tensor,
    max_rows: int | None,
    backend: str | None,
) -> Tensor:
    return values.new_empty((rows.shape[0], values.shape[1], rows.shape[1]))


def _save_index(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[1:5])
    ctx.max_rows, ctx.backend = inputs[5:]


def _gather_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    scatter = torch.ops.neurokern.scatter_regions
    return scatter(gradient, *ctx.saved_tensors, ctx.max_rows, ctx.backend), *(None,) * 6


def _scatter_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    gather = torch.ops.neurokern.gather_regions
    return gather(gradient, *ctx.saved_tensors, ctx.max_rows, ctx.backend), *(None,) * 6


_INDEX = "Tensor samples, Tensor units, Tensor rows, Tensor cu_seqlens, SymInt? max_rows, str? backend"
_library.register(
    f"gather_regions(Tensor x, {_INDEX}) -> Tensor",
    cpu=_gather,
    cuda=_gather,
    fake=_fake_gather,
    backward=_gather_backward,
    setup_context=_save_index,
)
_library.register(
    f"scatter_regions(Tensor values, {_INDEX}) -> Tensor",
    cpu=_scatter,
    cuda=_scatter,
    fake=_fake_scatter,
    backward=_scatter_backward,
    setup_context=_save_index,
)
