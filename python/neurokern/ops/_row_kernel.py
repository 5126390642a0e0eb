"""gather_regions and scatter_regions of tensors, as registered ops.

On the CPU they are PyTorch's own indexing, which moves the rows at the speed of the memory already; on a GPU
our kernels put them into place without waiting for the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neurokern.ops import _library
from neurokern.ops._library import torch

if TYPE_CHECKING:
    from torch import Tensor


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _row_arguments(x: Tensor, rows: Tensor, index: list[Any], *, gather: bool) -> dict[str, Any]:
    samples, units, positions = index
    return {
        "x": x.data_ptr() if gather else 0,
        "y": 0 if gather else x.data_ptr(),
        "rows": rows.data_ptr(),
        "samples": samples.data_ptr(),
        "units": units.data_ptr(),
        "positions": 0 if positions is None else positions.data_ptr(),
        "shape": (len(samples), x.shape[1], x.shape[2]),
        "x_strides": x.stride(),
        "element_size": x.element_size(),
    }


def _use_kernel(function: str, x: Tensor, backend: str | None) -> bool:
    native = _library.choose_backend(function, x.device.type, backend) == "native"
    return native and _library.runs_on_gpu(x) and x.element_size() <= 8 and x.numel() > 0


def _gather(
    x: Tensor, samples: Tensor, units: Tensor, positions: Tensor | None, n_rows: int, backend: str | None
) -> Tensor:
    if not _use_kernel("gather_regions", x, backend):
        packed = x[samples, :, units]
        if positions is None:
            return packed
        return x.new_zeros((n_rows, x.shape[1])).index_copy_(0, positions, packed)
    shape = (len(samples) if positions is None else n_rows, x.shape[1])
    rows = _library.new_array(x, shape, x.dtype, fill=None if positions is None else 0)
    index = _contiguous(samples, units, positions)  # kept until the launch
    arguments = _row_arguments(x, rows, index, gather=True)
    with _library.gpu_module(x) as (module, stream):
        module.gather_regions(arguments, stream)
    return rows


def _scatter(
    values: Tensor,
    samples: Tensor,
    units: Tensor,
    positions: Tensor | None,
    n_samples: int,
    n_units: int,
    backend: str | None,
) -> Tensor:
    y = _library.new_array(values, (n_samples, values.shape[1], n_units), values.dtype, fill=0)
    if not _use_kernel("scatter_regions", values, backend):
        y[samples, :, units] = values if positions is None else values[positions]
        return y
    values, *index = _contiguous(values, samples, units, positions)  # kept until the launch
    arguments = _row_arguments(y, values, index, gather=False)
    with _library.gpu_module(y) as (module, stream):
        module.scatter_regions(arguments, stream)
    return y


def _fake_gather(
    x: Tensor, samples: Tensor, units: Tensor, positions: Tensor | None, n_rows: int, backend: str | None
) -> Tensor:
    return x.new_empty((samples.shape[0] if positions is None else n_rows, x.shape[1]))


def _fake_scatter(
    values: Tensor,
    samples: Tensor,
    units: Tensor,
    positions: Tensor | None,
    n_samples: int,
    n_units: int,
    backend: str | None,
) -> Tensor:
    return values.new_empty((n_samples, values.shape[1], n_units))


def _save_index(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[1:4])
    ctx.shape, ctx.backend = tuple(inputs[0].shape), inputs[-1]


def _gather_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    n_samples, _, n_units = ctx.shape
    x = torch.ops.neurokern.scatter_regions(gradient, *ctx.saved_tensors, n_samples, n_units, ctx.backend)
    return x, None, None, None, None, None


def _scatter_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    rows = torch.ops.neurokern.gather_regions(gradient, *ctx.saved_tensors, ctx.shape[0], ctx.backend)
    return rows, None, None, None, None, None, None


_library.register(
    "gather_regions(Tensor x, Tensor samples, Tensor units, Tensor? positions, SymInt n_rows, str? backend) "
    "-> Tensor",
    cpu=_gather,
    cuda=_gather,
    fake=_fake_gather,
    backward=_gather_backward,
    setup_context=_save_index,
)
_library.register(
    "scatter_regions(Tensor values, Tensor samples, Tensor units, Tensor? positions, SymInt n_samples, "
    "SymInt n_units, str? backend) -> Tensor",
    cpu=_scatter,
    cuda=_scatter,
    fake=_fake_scatter,
    backward=_scatter_backward,
    setup_context=_save_index,
)
