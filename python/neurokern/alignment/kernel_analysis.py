"""Kernel analysis: how few dimensions of a representation a task needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice, check_fraction, check_integer, check_memory
from neurokern.alignment._patterns import as_patterns, center, center_kernel, square_distances
from neurokern.encoding._arrays import as_tensor, like

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["KernelAnalysis", "kernel_analysis"]

DEFAULT_QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, kw_only=True)
class KernelAnalysis:
    """Result of :func:`kernel_analysis`.

    Attributes
    ----------
    loss : array or tensor of shape (..., dimensions + 1), float64
        Leave-one-out loss with the first 0, 1, 2, ... dimensions of the kernel, relative to guessing the mean
        of the other samples: 1 at 0 dimensions, 0 is perfect.
    area : array or tensor of shape (...), float64
        Mean over the curve of 1 - loss, in which a loss counts as 1 at most: 1 is a task solved by the first
        dimension, 0 one that is never better than guessing.
    accuracy : array or tensor of shape (..., dimensions + 1), float64, or None
        Share of samples whose class has the largest leave-one-out output, for labels that are classes.
    scale : array or tensor of shape (...,), float64
        Quantile of the distances that was chosen as the width of the Gaussian kernel; NaN for a linear one.
    """

    loss: Array
    area: Array
    accuracy: Array | None
    scale: Array


def kernel_analysis(
    features: Array,
    labels: Array,
    *,
    kernel: str = "rbf",
    n_dimensions: int | None = None,
    quantiles: Sequence[float] = DEFAULT_QUANTILES,
) -> KernelAnalysis:
    r"""Leave-one-out loss of a task over the number of leading dimensions of the kernel.

    The centered kernel matrix is decomposed; labels are regressed on its first d eigenvectors, largest
    eigenvalue first, with an intercept; each sample is predicted from all others [1]_ [2]_. A representation
    that suits the task puts it into few dimensions: its loss falls early.

    Parameters
    ----------
    features : array or tensor of shape (..., samples, features)
        Layers, regions or time windows along the leading axes are done at once. To compare them, give them
        the same numbers of units and trials: with more of them, noise falls.
    labels : array of shape (samples,) or (samples, targets)
        Classes (whole numbers or text), or numbers to be regressed on (floating point).
    kernel : {"rbf", "linear"}
    n_dimensions : int, optional
        Length of the curve; by default as many as there can be, samples - 2.
    quantiles : sequence of float within (0, 1]
        Quantiles of the distances between samples that are tried as :math:`\sigma` of "rbf"; the one with the
        largest area is kept, for each leading entry. With several, the area is a little too good.

    Returns
    -------
    analysis : KernelAnalysis
        NaN for features that never vary.

    Raises
    ------
    ValueError
        If there are fewer than four samples or one class, labels do not fit, or a value is not finite.

    Notes
    -----
    The eigenvectors are those of all samples together (no label is used for them), and the regression on them
    is what leaves a sample out: residuals are divided by one less their leverage, exactly.

    References
    ----------
    .. [1] Montavon, Braun, Mueller, "Kernel analysis of deep networks", JMLR 12 (2011), 2563-2581.
    .. [2] Cadieu et al., "The neural representation benchmark and its evaluation on brain and machine",
       ICLR 2013, arXiv:1301.3530.
    """
    function = "kernel_analysis"
    check_choice(function, "kernel", kernel, ("rbf", "linear"))
    values = center(as_patterns(function, "features", features, least=4))
    n_samples = values.shape[-2]
    targets, classes = _targets(function, labels, n_samples)
    targets, longest = targets.to(values.device), n_samples - 2
    length = longest if n_dimensions is None else check_integer(function, "n_dimensions", n_dimensions)
    if not 1 <= length <= longest:
        raise ValueError(f"{function}: n_dimensions must lie within [1, {longest}], got {n_dimensions!r}")
    n_bytes = 8.0 * math.prod(values.shape[:-2]) * n_samples**2
    check_memory(function, f"kernels of {n_samples} samples", 4 * n_bytes, "take fewer samples")
    shares = (math.nan,) if kernel == "linear" else tuple(quantiles)
    if kernel == "rbf" and (not shares or min(check_fraction(function, "quantiles", s) for s in shares) == 0):
        raise ValueError(f"{function}: quantiles must lie within (0, 1], got {quantiles!r}")
    best: dict[str, Tensor] = {}
    for share in shares:
        _keep_better(best, _curves(_kernel(values, share), targets, classes, length), share)
    accuracy = None if classes is None else like(features, best["accuracy"])
    loss, area, scale = (like(features, best[name]) for name in ("loss", "area", "scale"))
    return KernelAnalysis(loss=loss, area=area, accuracy=accuracy, scale=scale)


def _targets(function: str, labels: Array, n_samples: int) -> tuple[Tensor, Tensor | None]:
    """Return centered targets (samples, targets) and, for classes, the class of each sample."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != n_samples:
        raise ValueError(
            f"{function}: labels must have shape ({n_samples},) or ({n_samples}, targets), got {array.shape}"
        )
    if array.ndim == 1 and array.dtype.kind != "f":
        names, numbers = np.unique(array.astype(str) if array.dtype == object else array, return_inverse=True)
        if len(names) < 2:
            raise ValueError(f"{function}: labels must hold at least two classes, got {len(names)}")
        classes = torch.from_numpy(numbers)
        return torch.nn.functional.one_hot(classes).to(torch.float64), classes
    targets = as_tensor(function, "labels", array.reshape(n_samples, -1)).to(torch.float64)
    if not bool(torch.isfinite(targets).all()) or bool((targets == targets[:1]).all(0).any()):
        raise ValueError(f"{function}: labels must be finite and vary over samples")
    return targets, None


def _kernel(values: Tensor, share: float) -> Tensor:
    if math.isnan(share):
        size = values.abs().amax((-2, -1), keepdim=True)
        values = values / size.where(size > 0, 1.0)
        return values @ values.mT
    distances = square_distances(values, values)
    n = values.shape[-2]
    row, column = torch.triu_indices(n, n, 1, device=values.device)
    ordered = distances[..., row, column].sort(-1).values
    width = ordered[..., max(0, math.ceil(share * len(row)) - 1)][..., None, None]
    return torch.exp(-distances / (2 * width.where(width > 0, 1.0)))


def _curves(K: Tensor, targets: Tensor, classes: Tensor | None, length: int) -> dict[str, Tensor]:
    """Loss, area and accuracy for the first 0 to ``length`` dimensions."""
    K = center_kernel(K)
    values, vectors = torch.linalg.eigh(K)
    values, vectors = values.flip(-1), vectors.flip(-1)[..., :length]
    # Beyond the rank eigenvectors are any basis of what is left, the constant one included: they add nothing.
    vectors = vectors * (values[..., None, :length] > 1e-11 * values[..., None, :1])
    n = K.shape[-1]
    residual = (targets - targets.mean(0)).expand(*K.shape[:-2], *targets.shape)
    leverage = K.new_full(K.shape[:-1], 1 / n)
    losses, right = [], []
    for used in range(length + 1):
        if used:
            vector = vectors[..., used - 1, None]
            residual = residual - vector * (vector.mT @ residual)
            leverage = leverage + vector[..., 0].square()
        left_out = residual / (1 - leverage).clamp_min(1e-9)[..., None]
        losses.append(left_out.square().sum((-2, -1)))
        if classes is not None:
            right.append(((targets - left_out).argmax(-1) == classes.to(K.device)).double().mean(-1))
    loss = torch.stack(losses, -1)
    loss = loss / loss[..., :1]
    silent = values[..., :1] <= 1e-12  # kernels are of size 1
    loss = loss.masked_fill(silent, math.nan)
    curves = {"loss": loss, "area": (1 - loss[..., 1:]).clamp_min(0).mean(-1)}
    if classes is not None:
        curves["accuracy"] = torch.stack(right, -1).masked_fill(silent, math.nan)
    return curves


def _keep_better(best: dict[str, Tensor], new: dict[str, Tensor], share: float) -> None:
    new["scale"] = torch.full_like(new["area"], share)
    if not best:
        best.update(new)
        return
    better = new["area"] > best["area"]
    for name, value in new.items():
        mask = better[..., None] if value.ndim > better.ndim else better  # curves have an axis more
        best[name] = torch.where(mask, value, best[name])
