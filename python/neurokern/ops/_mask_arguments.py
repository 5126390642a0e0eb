"""Checks of mask_regions' arguments, and their form for the kernel."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from neurokern._check import check_choice, check_fraction, check_integer, check_number
from neurokern.ops._library import torch
from neurokern.ops._mask_reference import CAUSAL, REPLACE_FILL, REPLACE_RANDOM, SCHEMES, TEMPORAL
from neurokern.ops._philox import threshold

DEFAULT_RATIO = 0.3
_MAX_SAMPLE = 2**55


def check_batch(x: Any, is_torch: bool) -> None:
    if x.ndim != 3:
        raise ValueError(
            f"mask_regions: x must have the shape (n_samples, n_bins, n_units), got {tuple(x.shape)}"
        )
    if is_torch and x.layout != torch.strided:
        raise TypeError(f"mask_regions: x must be a dense tensor, got {x.layout}; use x.to_dense()")
    plain = not (x.is_complex() or x.is_quantized) if is_torch else x.dtype.kind in "biuf"
    if not (plain and x.dtype.itemsize in (1, 2, 4, 8)):
        raise TypeError(f"mask_regions: x must be floating point, integer or bool, got {x.dtype}")
    if not is_torch and not x.dtype.isnative:
        raise TypeError(
            "mask_regions: x must be in the byte order of this machine; "
            "use x.astype(x.dtype.newbyteorder('='))"
        )


def read_draws(
    n_samples: int, seed: int, offset: int, span: int, region: int | None, region_choice: str
) -> tuple[int, int]:
    """Return seed and offset as Python integers."""
    seed = check_integer("mask_regions", "seed", seed)
    offset = check_integer("mask_regions", "offset", offset)
    span = check_integer("mask_regions", "span", span)
    if not 0 <= seed < 2**63:
        raise ValueError(f"mask_regions: seed must lie in [0, 2**63), got {seed}")
    if not 0 <= offset <= _MAX_SAMPLE - n_samples:
        raise ValueError(f"mask_regions: offset must lie in [0, 2**55 - n_samples], got {offset}")
    if span < 1:
        raise ValueError(f"mask_regions: span must be at least 1 bin, got {span}")
    if span >= 2**31:
        raise ValueError(f"mask_regions: span must be below 2**31 bins, got {span}")
    if region is not None and not 0 <= check_integer("mask_regions", "region", region) < 2**31:
        raise ValueError(f"mask_regions: region must lie in [0, 2**31), got {region}")
    check_choice("mask_regions", "region_choice", region_choice, ("batch", "sample"))
    return seed, offset


def read_schemes(scheme: Any, x: Any) -> tuple[Any, int, set[int]]:
    """Return numbers per sample or None, the number for all, and the numbers known to be used."""
    if isinstance(scheme, str):
        code = SCHEMES.index(check_choice("mask_regions", "scheme", scheme, SCHEMES))
        return None, code, {code}
    if isinstance(scheme, (list, tuple)) and all(isinstance(name, str) for name in scheme):
        codes = [SCHEMES.index(check_choice("mask_regions", "scheme", name, SCHEMES)) for name in scheme]
        return read_per_sample("scheme", codes, x), 0, set(codes)
    return read_per_sample("scheme", scheme, x), 0, set()


def read_replacement(replacement: str | float, x: Any, is_torch: bool) -> tuple[int, float]:
    if isinstance(replacement, str):
        name = check_choice("mask_regions", "replacement", replacement, ("zero", "random"))
        return (REPLACE_RANDOM if name == "random" else REPLACE_FILL), 0.0
    value = check_number("mask_regions", "replacement", replacement)
    is_float = x.dtype.is_floating_point if is_torch else x.dtype.kind == "f"
    if math.isfinite(value) or not is_float:
        limits = _float_limits(x, is_torch) if is_float else _integer_limits(x, is_torch)
        whole = value.is_integer() and value == replacement  # an integer above 2**53 may not be a float
        if not ((is_float or whole) and limits[0] <= value <= limits[1]):
            raise ValueError(f"mask_regions: replacement must be a value of {x.dtype}, got {replacement!r}")
    return REPLACE_FILL, value


def _float_limits(x: Any, is_torch: bool) -> tuple[float, float]:
    info: Any = torch.finfo(x.dtype) if is_torch else np.finfo(x.dtype)
    return float(info.min), float(info.max)


def _integer_limits(x: Any, is_torch: bool) -> tuple[int, int]:
    if x.dtype in ((torch.bool,) if is_torch else (np.dtype(bool),)):
        return 0, 1
    info: Any = torch.iinfo(x.dtype) if is_torch else np.iinfo(x.dtype)
    return max(int(info.min), -(2**53)), min(int(info.max), 2**53)


def read_thresholds(ratio: float | Mapping[str, float], span: int) -> list[int]:
    ratios = [DEFAULT_RATIO] * len(SCHEMES)
    if isinstance(ratio, Mapping):
        for name, value in ratio.items():
            check_choice("mask_regions", "ratio's scheme", name, SCHEMES)
            ratios[SCHEMES.index(name)] = check_fraction("mask_regions", f"ratio[{name!r}]", value)
    else:
        ratios = [check_fraction("mask_regions", "ratio", ratio)] * len(SCHEMES)
    return list(_thresholds(tuple(ratios), span))


@functools.lru_cache(maxsize=64)  # a training run asks for the same ones at each step
def _thresholds(ratios: tuple[float, ...], span: int) -> tuple[int, ...]:
    def of_a_draw(scheme: int, ratio: float) -> float:
        in_time = scheme in (TEMPORAL, CAUSAL) and span > 1 and 0 < ratio < 1
        return 1 - (1 - ratio) ** (1 / span) if in_time else ratio

    return tuple(threshold(of_a_draw(scheme, ratio)) for scheme, ratio in enumerate(ratios))


def read_regions(regions: Any, x: Any) -> Any:
    if regions is None:
        return None
    regions = _integers("regions", regions, x)
    n_samples, _, n_units = x.shape
    if tuple(regions.shape) not in ((n_units,), (n_samples, n_units)):
        raise ValueError(
            f"mask_regions: regions must have the shape ({n_units},) or ({n_samples}, {n_units}) of x, "
            f"got {tuple(regions.shape)}"
        )
    return regions


def read_per_sample(name: str, values: Any, x: Any) -> Any:
    if values is None:
        return None
    values = _integers(name, values, x)
    if tuple(values.shape) != (x.shape[0],):
        raise ValueError(
            f"mask_regions: {name} must have one entry per sample, shape ({x.shape[0]},), "
            f"got {tuple(values.shape)}"
        )
    return values


def _integers(name: str, values: Any, x: Any) -> Any:
    """Return ``values`` as contiguous int64 of the kind and on the device of ``x``."""
    if isinstance(x, np.ndarray):
        array = np.asarray(values)
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"mask_regions: {name} must be integers, got {array.dtype}")
        return np.require(array, np.int64, ["C_CONTIGUOUS", "ALIGNED"])
    if not isinstance(values, torch.Tensor):
        # By way of numpy, which reads columns of pandas and other byte orders.
        array = np.asarray(values)
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"mask_regions: {name} must be integers, got {array.dtype}")
        values = torch.from_numpy(array.astype(np.int64)).to(x.device)
    dtype = values.dtype
    if dtype != torch.int64 and (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool):
        raise TypeError(f"mask_regions: {name} must be integers, got {dtype}")
    if values.device != x.device:
        raise ValueError(
            f"mask_regions: {name} must be on the device of x, {x.device}, got {values.device}; "
            f"use {name}.to(x.device)"
        )
    ready = dtype == torch.int64 and values.is_contiguous()  # cheaper than calls that do nothing
    return values if ready else values.to(torch.int64).contiguous()


def read_max_targets(max_targets: int | None, return_index: bool, x: Any) -> int | None:
    if return_index and math.prod(x.shape) >= 2**31:
        raise ValueError(
            f"mask_regions: x must have fewer than 2**31 entries with return_index=True, got shape "
            f"{tuple(x.shape)}; mask parts of the batch by offset"
        )
    if max_targets is None:
        return None
    max_targets = check_integer("mask_regions", "max_targets", max_targets)
    if not return_index:
        raise ValueError(
            f"mask_regions: max_targets must come with return_index=True, got {max_targets} without"
        )
    if not 0 <= max_targets < 2**31:
        raise ValueError(f"mask_regions: max_targets must lie in [0, 2**31), got {max_targets}")
    return max_targets


def check_inplace(x: Any, is_torch: bool, kind: int) -> None:
    if kind == REPLACE_RANDOM:
        raise ValueError("mask_regions: replacement='random' reads other bins of x, so inplace must be False")
    if is_torch and x.requires_grad and torch.is_grad_enabled():
        raise ValueError("mask_regions: x must not require a gradient with inplace=True; use inplace=False")
    if not is_torch and not x.flags.behaved:
        raise ValueError("mask_regions: x must be writeable and aligned with inplace=True")
    strides = x.stride() if is_torch else [s // x.itemsize for s in x.strides]
    rows, reach = [(strides[i], x.shape[i]) for i in (1, 0) if x.shape[i] > 1], x.shape[2]
    contiguous = x.shape[2] <= 1 or strides[2] == 1
    for stride, size in sorted(rows):
        contiguous = contiguous and stride >= reach
        reach = stride * size
    if not contiguous:
        raise ValueError(
            f"mask_regions: x must have units next to each other and no shared memory with inplace=True, "
            f"got strides {tuple(strides)} for shape {tuple(x.shape)}; use inplace=False"
        )
