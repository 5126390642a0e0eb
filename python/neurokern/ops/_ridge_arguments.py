"""What the ridge solvers accept: kinds, types, shapes, values that are no numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurokern._check import check_choice
from neurokern.ops import _ridge_blas
from neurokern.ops._library import torch

EXACT_IN_FLOAT32 = {"bool", "int8", "uint8", "int16", "uint16", "float16", "bfloat16", "float32"}
EXACT_IN_FLOAT64 = {"int32", "int64", "uint32", "uint64", "float64"}
_CHECKED = 1 << 22  # elements that are looked at together
LARGEST = 1e150  # squares of larger numbers overflow when they are summed


@dataclass(frozen=True)
class Problem:
    """Checked input, as arrays of one algebra: numpy on the CPU, tensors on a GPU."""

    X: Any  # (samples, features), float32 or float64
    Y: Any  # (samples, targets), any real type; cast where it is used
    weight: Any | None  # (samples,), float64, positive or 0
    dtype: str  # of the products and of the result
    one_target: bool  # Y had one axis
    kind: str  # "numpy" or "torch": what the result is
    device: Any | None  # None for the CPU

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples, features, targets."""
        return self.X.shape[0], self.X.shape[1], self.Y.shape[1]

    def give(self, values: Any) -> Any:
        """Return a result as the kind that was given."""
        if self.kind == "torch" and isinstance(values, np.ndarray):
            return torch.from_numpy(values)
        return values


def check_problem(
    function: str, X: Any, Y: Any, sample_weight: Any = None, *, nan_policy: str = "raise"
) -> Problem:
    """Check X, Y and the weights of samples; raise what does not fit."""
    check_choice(function, "nan_policy", nan_policy, ("raise", "mask"))
    X, x_type, kind, device = _as_array(function, "X", X)
    Y, y_type, y_kind, y_device = _as_array(function, "Y", Y)
    if (y_kind, y_device) != (kind, device):
        raise ValueError(
            f"{function}: X and Y must both be numpy arrays, or tensors on one device, got "
            f"{_place(kind, device)} and {_place(y_kind, y_device)}"
        )
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(
            f"{function}: X must have shape (samples, features) with at least one feature, got "
            f"{tuple(X.shape)}"
        )
    if Y.ndim not in (1, 2) or Y.shape[0] != X.shape[0]:
        raise ValueError(
            f"{function}: Y must have shape ({X.shape[0]}, targets) or ({X.shape[0]},), one row per row of "
            f"X, got {tuple(Y.shape)}"
        )
    if X.shape[0] == 0:
        raise ValueError(f"{function}: X must have at least one sample, got {tuple(X.shape)}")
    dtype = "float64" if {x_type, y_type} & EXACT_IN_FLOAT64 else "float32"
    one_target = Y.ndim == 1
    Y = Y.reshape(len(Y), -1)
    X = _cast(X, dtype)
    check_rows_finite(function, "X", X)
    check_rows_finite(function, "Y", Y, nan_allowed=nan_policy == "mask")
    return Problem(X, Y, check_weight(function, sample_weight, X, device), dtype, one_target, kind, device)


def _as_array(function: str, name: str, values: Any) -> tuple[Any, str, str, Any]:
    """Return an array of the algebra, the name of its type, its kind and its device (None for the CPU)."""
    if torch is not None and isinstance(values, torch.Tensor):
        kind, type_name = "torch", str(values.dtype).removeprefix("torch.")
        values = values.detach()
        device = _ridge_blas.device_of(values)
        if device is None and values.layout == torch.strided:
            values = (values.float() if type_name == "bfloat16" else values).resolve_neg().numpy()
    else:
        values = np.asarray(values)
        kind, type_name, device = "numpy", values.dtype.name, None
    if type_name not in EXACT_IN_FLOAT32 | EXACT_IN_FLOAT64:
        raise TypeError(f"{function}: {name} must hold real numbers of at most 64 bits, got {type_name}")
    return values, type_name, kind, device


def _place(kind: str, device: Any | None) -> str:
    return "a numpy array" if kind == "numpy" else f"a tensor on {device or 'cpu'}"


def _cast(values: Any, dtype: str) -> Any:
    if isinstance(values, np.ndarray):
        return values.astype(dtype, copy=False)
    return values.to(getattr(torch, dtype))


def check_rows_finite(function: str, name: str, values: Any, *, nan_allowed: bool = False) -> None:
    """Raise with the number of rows that hold NaN or infinity, or infinity alone; or for too large values."""
    xp: Any = np if isinstance(values, np.ndarray) else torch
    if not (values.dtype.kind == "f" if xp is np else values.is_floating_point()):
        return
    step = max(1, _CHECKED // max(values.shape[1], 1))
    bad, largest = 0, 0.0
    for first in range(0, values.shape[0], step):
        block = values[first : first + step]
        if _is_fine(block):
            continue
        wrong = xp.isinf(block) if nan_allowed else ~xp.isfinite(block)
        bad += int(wrong.any(1).sum())
        sizes = abs(block)
        largest = max(
            largest, float(sizes[sizes == sizes].max(initial=0) if xp is np else sizes.nan_to_num().max())
        )
    if bad and nan_allowed:
        raise ValueError(f"{function}: {name} must not be infinite, got infinity in {bad} rows")
    if bad:
        raise ValueError(
            f"{function}: {name} must be finite, got NaN or infinity in {bad} of {values.shape[0]} rows; "
            "drop or "
            "fill those samples"
        )
    if largest >= LARGEST:
        raise ValueError(
            f"{function}: {name} must be below {LARGEST:g} in size, so that squares can be summed, got "
            f"{largest:.3g}; give it in another unit"
        )


def _is_fine(block: Any) -> bool:
    """Whether all values are numbers that can be squared; false also for some that are."""
    if not (block.shape[0] and block.shape[1]):
        return True
    if "float64" in str(block.dtype):  # NaN is the smallest and the largest of any values
        return bool(block.min() > -LARGEST) and bool(block.max() < LARGEST)
    with np.errstate(all="ignore"):
        return math.isfinite(float(block.sum()))  # finite only if all are; sums may also overflow


def check_weight(function: str, weight: Any, X: Any, device: Any) -> Any | None:
    """Return weights of samples in float64 on the device of X, or None."""
    if weight is None:
        return None
    if torch is not None and isinstance(weight, torch.Tensor):
        weight = weight.detach().to(device or "cpu", torch.float64)
        weight = weight.numpy() if device is None else weight
    else:
        weight = np.asarray(weight, np.float64)
        weight = weight if device is None else torch.as_tensor(weight, device=device)
    if tuple(weight.shape) != (X.shape[0],):
        raise ValueError(
            f"{function}: sample_weight must have shape ({X.shape[0]},), one per sample, got "
            f"{tuple(weight.shape)}"
        )
    # A comparison with NaN is false, so that NaN is refused, too. Squares of weights must be finite, as well.
    if not (bool((weight >= 0).all()) and 0 < float(weight.sum()) < LARGEST):
        raise ValueError(
            f"{function}: sample_weight must be finite and not negative, and not all 0; got a smallest of "
            f"{float(weight.min()):g} and a sum of {float(weight.sum()):g}"
        )
    return weight


def check_alpha(function: str, alpha: Any, n_targets: int) -> np.ndarray:
    """Return one penalty ``(1,)`` or one per target ``(targets,)``, in float64 on the host."""
    values = _host_float64(function, "alpha", alpha)
    if values.ndim > 1 or values.size not in (1, n_targets):
        raise ValueError(
            f"{function}: alpha must be one number or have shape ({n_targets},), one per target, "
            f"got shape {values.shape}"
        )
    _check_penalties(function, "alpha", values)
    values = values.reshape(-1)
    return values[:1] if values.size and (values == values[0]).all() else values


def check_alphas(function: str, alphas: Any) -> np.ndarray:
    """Return candidate penalties: ascending, without duplicates, in float64 on the host."""
    values = _host_float64(function, "alphas", alphas).reshape(-1)
    if values.size == 0:
        raise ValueError(f"{function}: alphas must hold at least one penalty, got none")
    _check_penalties(function, "alphas", values)
    return np.unique(values)


def _host_float64(function: str, name: str, values: Any) -> np.ndarray:
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{function}: {name} must be a number or numbers, got {values!r}") from None


def _check_penalties(function: str, name: str, values: np.ndarray) -> None:
    bad = values[~((values > 0) & np.isfinite(values))]
    if bad.size:
        raise ValueError(
            f"{function}: {name} must be finite and above 0, got {bad[0]:g}; for next to no penalty take a "
            "small "
            "share of the mean squared norm of a feature, say 1e-6 of it"
        )
