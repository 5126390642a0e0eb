"""What all read-outs share: checked inputs, classes, scaling learned on the support set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_LARGEST = 1e150  # squares of larger numbers overflow when they are summed

Features = Tensor | np.ndarray
Labels = Tensor | np.ndarray | Sequence[object]


@dataclass(frozen=True, slots=True)
class Scaler:
    """Centers features and divides them by their spread over the support set."""

    mean: Tensor  # (..., features)
    scale: Tensor  # (..., features)

    @classmethod
    def fit(cls, features: Tensor, standardize: bool) -> Scaler:
        """Learn from support features (..., samples, features).

        Without ``standardize``, and for a feature that never varies there, features are only centered: that
        changes no read-out, and saves float32 from differences of large numbers.
        """
        mean = features.mean(-2, dtype=torch.float64).to(features.dtype)
        if not standardize:
            return cls(mean, torch.ones_like(mean))
        # In float64: squares of large float32 numbers overflow, those of small ones vanish.
        length = torch.linalg.vector_norm(features - mean[..., None, :], dim=-2, dtype=torch.float64)
        spread = (length / features.shape[-2] ** 0.5).to(features.dtype)
        varies = spread > 1e-6 * mean.abs()
        return cls(mean, torch.where(varies, spread, torch.ones_like(spread)))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean[..., None, :]).div_(self.scale[..., None, :])


def check_support(function: str, features: Features, labels: Labels) -> tuple[Tensor, np.ndarray, Tensor]:
    """Return features as float, the sorted classes, and the class number of each sample.

    Raises
    ------
    ValueError
        If shapes do not match, a feature is not finite, or there are fewer than two classes.
    """
    values = check_features(function, features)
    classes, number = _numbered(function, labels, (len(values),))
    return values, classes, number.to(values.device)


def check_support_stack(
    function: str, features: Features, labels: Labels
) -> tuple[Tensor, np.ndarray, Tensor]:
    """As :func:`check_support` for episodes ``(episodes, samples, features)`` of the same classes."""
    values = check_features(function, features, axes=("episodes", "samples", "features"))
    classes, number = _numbered(function, labels, tuple(values.shape[:2]))
    missing = int((class_counts(number, len(classes)) == 0).any(1).sum())
    if missing:
        raise ValueError(
            f"{function}: every episode must have a sample of each of the {len(classes)} classes, got "
            f"{missing} of {len(number)} episodes without; fit those apart"
        )
    return values, classes, number.to(values.device)


def class_counts(number: Tensor, n_classes: int) -> Tensor:
    """Samples of each class, (..., classes), for class numbers (..., samples)."""
    return torch.nn.functional.one_hot(number, n_classes).sum(-2)


def _numbered(function: str, labels: Labels, shape: tuple[int, ...]) -> tuple[np.ndarray, Tensor]:
    names = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if names.shape != shape:
        wanted = f"({shape[0]})" if len(shape) == 1 else f"{shape}"
        raise ValueError(f"{function}: labels must have one entry per sample {wanted}, got {names.shape}")
    if names.dtype == object:
        names = _plain_labels(function, names)
    if names.dtype.kind not in "biufU":
        raise TypeError(f"{function}: labels must be words or numbers, got {names.dtype}")
    if names.dtype.kind == "f" and np.isnan(names).any():
        raise ValueError(f"{function}: labels must not be NaN; leave out samples without a label")
    classes, number = np.unique(names, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{function}: labels must hold at least 2 classes, got {classes.tolist()}")
    return classes, torch.from_numpy(number.reshape(shape).astype(np.int64))


def _plain_labels(function: str, names: np.ndarray) -> np.ndarray:
    """Return labels that lie in an array of objects as an array of their own type."""
    plain = np.asarray(names.tolist())
    if plain.shape != names.shape or plain.dtype == object:
        missing = sum(name is None for name in names.ravel())
        raise ValueError(
            f"{function}: labels must be words or numbers, got {missing} None or labels of several kinds; "
            "leave out samples without a label"
        )
    return plain


def check_features(
    function: str,
    features: Features,
    n_features: int | None = None,
    *,
    axes: tuple[str, ...] = ("samples", "features"),
) -> Tensor:
    """Return features as a float32 or float64 tensor of shape (samples, features), or raise a ValueError."""
    if not isinstance(features, Tensor):
        features = np.asarray(features)
        if features.dtype.kind not in "biuf":
            raise TypeError(f"{function}: features must be numbers, got {features.dtype}")
        features = features.astype(features.dtype.newbyteorder("="), copy=False)
        features = features.astype(np.float64) if features.dtype.itemsize > 8 else features
        if any(step < 0 for step in features.strides) or not features.flags.writeable:
            features = features.copy()  # torch takes no negative strides, and warns of read-only arrays
    values = torch.as_tensor(features)
    if values.layout != torch.strided or values.is_meta:
        raise TypeError(f"{function}: features must be a dense tensor that holds values")
    if values.is_complex():
        raise TypeError(f"{function}: features must be real numbers, got {values.dtype}")
    # Whole numbers above 2**24 do not fit into float32.
    wide = values.dtype in (torch.int32, torch.int64, torch.uint32, torch.uint64, torch.float64)
    values = values.to(torch.float64 if values.dtype == torch.float64 or wide else torch.float32)
    if values.ndim != len(axes) or 0 in values.shape or n_features not in (None, values.shape[-1]):
        wanted = ", ".join([*axes[:-1], axes[-1] if n_features is None else str(n_features)])
        raise ValueError(
            f"{function}: features must have shape ({wanted}) and hold something, got {tuple(values.shape)}"
        )
    low, high = values.aminmax()
    if not (low > -_LARGEST and high < _LARGEST):  # NaN fails both
        bad = int((~values.isfinite()).any(-1).sum())
        raise ValueError(
            f"{function}: features must be finite, got NaN or infinity in {bad} of "
            f"{values[..., 0].numel()} samples"
            if bad
            else f"{function}: features must be below {_LARGEST:g} in size; give them in another unit"
        )
    return values.detach()


def unit_length(features: Tensor) -> Tensor:
    """Divide samples by their length; one of zeros stays."""
    length = features.norm(dim=-1, keepdim=True)
    return features / torch.where(length > 0, length, torch.ones_like(length))
