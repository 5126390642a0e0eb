"""What encoding functions accept: numpy arrays or tensors, rows of finite numbers, chunks of targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 1e150  # squares of larger numbers overflow when they are summed
CHUNK_ELEMENTS = 1 << 20  # elements turned to float64 at a time (8 MiB)
_FEWEST_TARGETS = 128  # of a chunk: narrower ones would read scattered pieces of rows


def as_tensor(function: str, name: str, values: Any) -> Tensor:
    """Return a view of an array or tensor of real numbers, without a copy where there need be none."""
    if isinstance(values, Tensor):
        tensor = values.detach()
        if tensor.layout != torch.strided or tensor.is_meta:
            kind = "meta device" if tensor.is_meta else str(tensor.layout)
            raise TypeError(f"{function}: {name} must be a dense tensor that holds values, got one of {kind}")
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{function}: {name} must hold real numbers, got {array.dtype}")
        native = array.dtype.newbyteorder("=")
        native = np.dtype(np.float64) if native.itemsize > 8 else native  # long double: torch has none
        if array.dtype != native or any(step < 0 for step in array.strides) or not array.flags.writeable:
            array = np.array(array, dtype=native)  # torch takes neither, and warns of the third
        tensor = torch.from_numpy(array)
    if tensor.is_complex():
        raise TypeError(f"{function}: {name} must hold real numbers, got {tensor.dtype}")
    return tensor


def like(given: Any, result: Tensor) -> Any:
    """Return a result as the kind that was given: a tensor for a tensor, else a numpy array."""
    return result if isinstance(given, Tensor) else result.cpu().numpy()


def target_chunks(n_samples: int, n_targets: int) -> Iterator[slice]:
    """Slices of targets, so that a chunk of all samples in float64 stays small."""
    step = max(_FEWEST_TARGETS, CHUNK_ELEMENTS // max(n_samples, 1))
    for first in range(0, n_targets, step):
        yield slice(first, min(first + step, n_targets))


def check_finite_values(function: str, name: str, values: Tensor) -> None:
    """Raise with the number of rows (last axis) that hold NaN or infinity, or for values beyond squaring."""
    if not values.is_floating_point() or not values.numel():
        return
    low, high = (float(end) for end in values.aminmax())
    if low > -LARGEST and high < LARGEST:  # false for NaN
        return
    wrong = ~torch.isfinite(values)
    rows = wrong.any(-1) if wrong.ndim > 1 else wrong
    if bool(rows.any()):
        raise ValueError(
            f"{function}: {name} must be finite, got NaN or infinity in {int(rows.sum())} of {rows.numel()} "
            "rows; drop or fill those samples"
        )
    raise ValueError(
        f"{function}: {name} must be below {LARGEST:g} in size, so that squares can be summed, got "
        f"{max(-low, high):.3g}; give it in another unit"
    )


def run_lengths(function: str, runs: Any, n_samples: int) -> list[int]:
    """Return the lengths of runs, of which the rows must lie next to each other; None is one run."""
    if runs is None:
        return [n_samples]
    labels = labels_of(function, "runs", runs)
    if labels.shape != (n_samples,):
        raise ValueError(
            f"{function}: runs must have one label per sample ({n_samples}), got shape {labels.shape}"
        )
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    if len(starts) != len(np.unique(labels)):
        again = labels[starts][_repeats(labels[starts])][0]
        raise ValueError(
            f"{function}: runs must keep the rows of a run together, got run {again!s} in several places; "
            "sort the samples by run, or give each stretch its own label"
        )
    return np.diff(np.r_[starts, n_samples]).tolist()


def labels_of(function: str, name: str, labels: Any) -> np.ndarray:
    """Return labels of one axis as a numpy array: whole numbers or text, without NaN."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype == object:
        missing = sum(label is None or label != label for label in array.ravel())  # NaN differs from itself
        if missing:
            raise ValueError(
                f"{function}: {name} must name each sample's group, got None or NaN in {missing}"
            )
        array = array.astype(str)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{function}: {name} must have shape (samples,), got {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(
            f"{function}: {name} must name each sample's group, got NaN in {np.isnan(array).sum()}"
        )
    return array


def _repeats(labels: np.ndarray) -> np.ndarray:
    """Mark the labels that stand there for the second time or later."""
    first = np.zeros(len(labels), dtype=bool)
    first[np.unique(labels, return_index=True)[1]] = True
    return ~first


def check_features(function: str, X: Any) -> Tensor:
    """Return X as a tensor (samples, features) with at least one of each, for estimators.

    The wording is scikit-learn's where its ``check_estimator`` looks at it.
    """
    features = as_tensor(function, "X", _dense(function, X))
    if features.ndim != 2:
        raise ValueError(
            f"{function}: X must have shape (samples, features), got {tuple(features.shape)}. Reshape your "
            "data: X[:, None] for a single feature, X[None] for a single sample"
        )
    n_samples, n_features = features.shape
    if not n_samples or not n_features:
        raise ValueError(
            f"{function}: X has {n_samples} sample(s) and {n_features} feature(s) (shape=({n_samples}, "
            f"{n_features})) while a minimum of 1 is required."
        )
    check_finite_values(function, "X", features)
    return features


def check_targets(function: str, y: Any, features: Any) -> Tensor:
    """Return y as a tensor (samples, targets) or (samples,) on the device of the features."""
    if y is None:
        raise ValueError(f"{function}: requires y to be passed, but the target y is None")
    targets = as_tensor(function, "y", _dense(function, y))
    if targets.ndim not in (1, 2) or len(targets) != len(features):
        raise ValueError(
            f"{function}: y must have shape ({len(features)}, targets) or ({len(features)},), one row per "
            f"row of X, got {tuple(targets.shape)}"
        )
    check_finite_values(function, "y", targets)
    return targets.to(features.device) if isinstance(features, Tensor) else targets


def _dense(function: str, values: Any) -> Any:
    if isinstance(values, Tensor):
        return values
    if hasattr(values, "toarray"):
        raise TypeError(f"{function}: sparse data is not supported; pass .toarray()")
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise ValueError(f"{function}: Complex data not supported: {array.dtype}")
    return array.astype(np.float64) if array.dtype == object else array
