"""Windows on a scale that the training part alone decides on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from neurokern.datasets.window_splits import HeldOut, WindowSplits
from neurokern.datasets.wrapped_windows import WrappedWindows

__all__ = ["StandardizedWindows", "standardize"]

_WINDOWS = 16  # that are read at a time to fit


class StandardizedWindows(WrappedWindows):
    """Windows whose features have mean 0 and standard deviation 1 over the part to train on.

    :func:`standardize` makes them, of all parts of a split; whatever divides windows refuses them.

    Attributes
    ----------
    mean, scale : tensor of shape (features...), float32
        Of the recorded time of the windows to train on; ``scale`` is 1 where nothing varies.
    """

    fitted_on_train = True

    def __init__(self, windows: Any, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__(windows)
        self.mean, self.scale = mean, scale

    def batch(self, indices: Sequence[int], *, shared: bool = False) -> dict[str, Any]:
        """Return windows as one batch; what was not recorded stays 0."""
        batch: dict[str, Any] = dict(self.windows.batch(indices, shared=shared))
        signal = batch["signal"]
        _check_shape(signal, self.mean)
        recorded = batch["valid"].reshape(*batch["valid"].shape, *[1] * self.mean.dim())
        scaled = ((signal.float() - self.mean) / self.scale) * recorded
        batch["signal"] = signal.copy_(scaled) if shared else scaled.to(signal.dtype)
        return batch


def standardize(parts: Any) -> Any:
    """Bring all parts of a split to the scale of its training part, feature by feature.

    Parameters
    ----------
    parts : WindowSplits or HeldOut
        As :func:`split_windows`, :func:`k_shot_windows` and :func:`leave_one_out` give them, of windows that
        all have the same features.

    Returns
    -------
    WindowSplits or HeldOut
        The same parts as :class:`StandardizedWindows`.

    Raises
    ------
    TypeError
        If it is no split: what is fitted on all windows has seen those to test on.
    ValueError
        If windows have other features than the first, or nothing of the training part was recorded.

    Examples
    --------
    >>> parts = standardize(split_windows(windows, by="subject"))  # doctest: +SKIP
    """
    if not isinstance(parts, (WindowSplits, HeldOut)):
        raise TypeError(
            "standardize: parts must be what split_windows, k_shot_windows or leave_one_out give, got "
            f"{type(parts).__name__}; divide first, then the scale comes from the windows to train on alone"
        )
    mean, scale = _moments(parts.train)
    train, test = (
        None if part is None else StandardizedWindows(part, mean, scale) for part in (parts.train, parts.test)
    )
    if isinstance(parts, HeldOut):
        return HeldOut(parts.name, train, test)
    validation = None if parts.validation is None else StandardizedWindows(parts.validation, mean, scale)
    return WindowSplits(train, validation, test, parts.note)


def _moments(windows: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each feature, merged batch by batch in float64."""
    n, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for start in range(0, len(windows), _WINDOWS):
        batch = windows.batch(np.arange(start, min(start + _WINDOWS, len(windows))))
        if n:
            _check_shape(batch["signal"], mean)
        values = batch["signal"][batch["valid"]].double()
        if not len(values):
            continue
        own = values.mean(0)
        step = own - mean
        total = n + len(values)
        squares = squares + ((values - own) ** 2).sum(0) + step**2 * (n * len(values) / total)
        mean, n = mean + step * (len(values) / total), total
    if not n:
        raise ValueError("standardize: nothing of the windows to train on was recorded")
    scale = (squares / n).sqrt()
    varies = scale > 1e-12 * mean.abs().clamp_min(1e-300)
    return mean.float(), torch.where(varies, scale, 1.0).float()


def _check_shape(signal: torch.Tensor, mean: torch.Tensor) -> None:
    if signal.shape[2:] != mean.shape:
        raise ValueError(
            f"standardize: all windows must have the same features, got {tuple(signal.shape[2:])} and "
            f"{tuple(mean.shape)}; take the voxels of one mask, or the same channels by picks="
        )
