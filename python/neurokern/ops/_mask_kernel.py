"""How mask_regions reaches its kernels: one call for arrays, one registered op for tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern.ops import _library
from neurokern.ops._library import torch
from neurokern.ops._mask_reference import INTER_REGION, INTRA_REGION, REPLACE_FILL, MaskRequest, plan_mask

if TYPE_CHECKING:
    from torch import Tensor

# (scheme, thresholds, seed, offset, region, per_sample, span, replacement, value, backend)
Settings = tuple[int, list[int], int, int, int, bool, int, int, float, str | None]

_SETTINGS = (
    "int scheme, int[] thresholds, SymInt seed, SymInt offset, SymInt region, bool per_sample, int span, "
    "int replacement, float value, str? backend"
)
_MAX_UNITS_OF_A_BLOCK = 4096  # whose draws cost a block of the masking kernel as much as its entries do
_ARRAYS = "Tensor? regions, Tensor? n_units, Tensor? n_bins, Tensor? schemes"


# ---- arrays of either kind


def _row_strides(array: Any) -> tuple[int, int]:
    if isinstance(array, np.ndarray):
        return array.strides[0] // array.itemsize, array.strides[1] // array.itemsize
    return array.stride(0), array.stride(1)


def _fill_bits(value: float, dtype: Any) -> int:
    if value == 0:
        return 0
    if isinstance(dtype, np.dtype):
        return int.from_bytes(np.array(value).astype(dtype).tobytes(), "little")
    raw = torch.tensor([value], dtype=torch.float64).to(dtype).view(torch.uint8)
    return int.from_bytes(bytes(raw.tolist()), "little")


def _arguments(
    x: Any,
    inputs: Any,
    target_mask: Any,
    region: Any,
    arrays: tuple[Any, Any, Any, Any],
    settings: Settings,
    best_ranks: Any = None,
) -> dict[str, Any]:
    """Name everything that the kernel takes; the caller keeps the arrays alive."""
    regions, n_units, n_bins, schemes = arrays
    scheme, thresholds, seed, offset, region_id, per_sample, span, replacement, value, _ = settings
    return {
        "x": _library.address(x),
        "inputs": _library.address(inputs),
        "target_mask": _library.address(target_mask),
        "region": _library.address(region),
        "regions": _library.address(regions),
        "unit_counts": _library.address(n_units),
        "bin_counts": _library.address(n_bins),
        "schemes": _library.address(schemes),
        "best_ranks": _library.address(best_ranks),
        "shape": tuple(x.shape),
        "x_strides": _row_strides(x),
        "inputs_strides": _row_strides(inputs),
        "regions_stride": 0 if regions is None or regions.ndim == 1 else regions.shape[1],
        "element_size": x.dtype.itemsize,
        "scheme": scheme,
        "thresholds": thresholds,
        "seed": seed,
        "offset": offset,
        "region_id": region_id,
        "choose_per_sample": per_sample,
        "span": span,
        "replacement": replacement,
        "fill": _fill_bits(value, x.dtype),
    }


def _request(shape: tuple[int, ...], arrays: tuple[Any, Any, Any, Any], settings: Settings) -> MaskRequest:
    regions, n_units, n_bins, schemes = (None if a is None else np.asarray(a) for a in arrays)
    scheme, thresholds, seed, offset, region_id, per_sample, span, replacement, _, _ = settings
    n_samples, size_bins, size_units = shape
    if regions is not None:
        regions = np.broadcast_to(regions, (n_samples, size_units))
    if n_units is not None:
        n_units = np.clip(n_units, 0, size_units)
    n_bins = np.full(n_samples, size_bins) if n_bins is None else np.clip(n_bins, 0, size_bins)
    return MaskRequest(
        regions=regions,
        n_units=n_units,
        n_bins=n_bins,
        schemes=np.full(n_samples, scheme) if schemes is None else schemes,
        thresholds=tuple(thresholds),
        seed=seed,
        offset=offset,
        region=region_id,
        per_sample=per_sample,
        span=span,
        replacement=replacement,
    )


# ---- numpy


def mask_array(
    x: NDArray[Any],
    regions: Any,
    n_units: Any,
    n_bins: Any,
    schemes: Any,
    settings: Settings,
    inplace: bool,
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int64]]:
    """Mask a numpy array; every argument is checked."""
    arrays = (regions, n_units, n_bins, schemes)
    if _library.choose_backend("mask_regions", "cpu", settings[-1]) == "reference":
        plan = plan_mask(_request(x.shape, arrays, settings), x.shape)
        inputs = np.take_along_axis(x, plan.source_bin, axis=1)
        np.copyto(inputs, np.asarray(settings[-2]).astype(x.dtype), where=plan.hidden)
        if inplace:
            x[...] = inputs
        return x if inplace else inputs, plan.target, plan.region
    by_elements = x.flags.aligned and not any(s % x.itemsize for s in x.strides)
    if not by_elements or (x.shape[2] > 1 and x.strides[2] != x.itemsize):
        x = x.copy(order="C")
    inputs = x if inplace else _library.new_array(x, x.shape, x.dtype)
    return inputs, *_mask_into(x, inputs, arrays, settings)


def _mask_into(x: Any, inputs: Any, arrays: tuple[Any, Any, Any, Any], settings: Settings) -> tuple[Any, Any]:
    """Write the masked batch to ``inputs``, which may be ``x``; return the target mask and the regions."""
    n_samples, n_bins, n_units = x.shape
    target_mask = _library.new_array(x, (n_samples, n_bins, n_units), "bool")
    if n_samples * n_bins * n_units == 0:
        return target_mask, _library.new_array(x, (n_samples,), "int64", fill=-1)
    region = _library.new_array(x, (n_samples,), "int64")
    if _library.choose_backend("mask_regions", _library.device_type(x), settings[-1]) == "triton":
        tensors = tuple(map(_library.as_tensor, (x, inputs, target_mask, region)))
        tables = tuple(map(_library.as_tensor, arrays))
        fill = _fill_bits(settings[-2], x.dtype)
        _library.triton_kernels("mask_regions").mask_into(*tensors, tables, settings, fill)
        return target_mask, region
    if _library.runs_on_gpu(x):
        best_ranks = _rank_scratch(x, arrays, settings)
        arguments = _arguments(x, inputs, target_mask, region, arrays, settings, best_ranks)
        with _library.gpu_module(x) as (module, stream):
            module.mask_regions(arguments, stream)
        return target_mask, region
    arguments = _arguments(x, inputs, target_mask, region, arrays, settings)
    _library.core.mask_regions(arguments, _library.thread_count())
    return target_mask, region


def _rank_scratch(x: Any, arrays: tuple[Any, ...], settings: Settings) -> Any:
    """Room for the lowest draw per choice of a region, where a GPU chooses in a kernel of its own.

    Otherwise every block of the masking kernel looks at the units itself and makes the same choice, which
    saves a launch, but not where a block would look at far more units than it masks.
    """
    regions, n_units, _, schemes = arrays
    drawn = schemes is not None or settings[0] in (INTRA_REGION, INTER_REGION)
    if regions is None or settings[4] >= 0 or not drawn:
        return None
    rows_looked_at = 1 if settings[5] or (regions.ndim == 1 and n_units is None) else x.shape[0]
    if rows_looked_at * x.shape[2] <= _MAX_UNITS_OF_A_BLOCK:
        return None
    n_choices = x.shape[0] if settings[5] else 1
    return _library.new_array(x, (n_choices,), "int64", fill=-1)


# ---- torch


def mask_tensor(
    x: Tensor,
    regions: Tensor | None,
    n_units: Tensor | None,
    n_bins: Tensor | None,
    schemes: Tensor | None,
    settings: Settings,
    inplace: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask a tensor through ``torch.ops.neurokern.mask_regions``; every argument is checked."""
    if inplace:
        target_mask, region = torch.ops.neurokern.mask_regions_(
            x, regions, n_units, n_bins, schemes, *settings
        )
        return x, target_mask, region
    inputs, target_mask, region = torch.ops.neurokern.mask_regions(
        x, regions, n_units, n_bins, schemes, *settings
    )
    return inputs, target_mask, region


def _reference(x: Tensor, arrays: tuple[Any, ...], settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    on_host: Any = tuple(None if a is None else a.cpu() for a in arrays)
    shape = (x.shape[0], x.shape[1], x.shape[2])
    plan = plan_mask(_request(shape, on_host, settings), shape)
    hidden, target, source, region = (
        torch.from_numpy(np.array(a)).to(x.device)
        for a in (plan.hidden, plan.target, plan.source_bin, plan.region)
    )
    return x.gather(1, source).masked_fill_(hidden, settings[-2]), target, region


def _mask(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    arrays, settings = rest[:4], rest[4:]
    if _library.choose_backend("mask_regions", x.device.type, settings[-1]) == "reference":
        return _reference(x, arrays, settings)
    if x.shape[2] > 1 and x.stride(2) != 1:
        x = x.contiguous()
    inputs = _library.new_array(x, tuple(x.shape), x.dtype)
    return inputs, *_mask_into(x, inputs, arrays, settings)


def _mask_inplace(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    arrays, settings = rest[:4], rest[4:]
    if _library.choose_backend("mask_regions", x.device.type, settings[-1]) == "reference":
        inputs, target_mask, region = _reference(x, arrays, settings)
        x.copy_(inputs)
        return target_mask, region
    return _mask_into(x, x, arrays, settings)


def _fake_inplace(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    target_mask = torch.empty(x.shape, dtype=torch.bool, device=x.device)
    return target_mask, torch.empty(x.shape[:1], dtype=torch.int64, device=x.device)


def _fake(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), *_fake_inplace(x)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[1:5])
    ctx.settings = inputs[5:]


def _backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Any, ...]:
    """Masking the gradient by the same draws zeroes it where the input was hidden; nothing large is kept."""
    *settings, _replacement, _value, backend = ctx.settings
    masked, _mask, _region = torch.ops.neurokern.mask_regions(
        gradient, *ctx.saved_tensors, *settings, REPLACE_FILL, 0.0, backend
    )
    return masked, *(None,) * (4 + len(ctx.settings))


_library.register(
    f"mask_regions(Tensor x, {_ARRAYS}, {_SETTINGS}) -> (Tensor, Tensor, Tensor)",
    cpu=_mask,
    cuda=_mask,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_library.register(
    f"mask_regions_(Tensor(a!) x, {_ARRAYS}, {_SETTINGS}) -> (Tensor, Tensor)",
    cpu=_mask_inplace,
    cuda=_mask_inplace,
    fake=_fake_inplace,
    backward=None,
)
