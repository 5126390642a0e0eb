"""Support sets: the few labeled windows that an adapter learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.datasets import BinnedSession, SpikeBatch

__all__ = ["Inputs", "Support", "as_inputs"]

Inputs = Tensor | np.ndarray | BinnedSession | SpikeBatch
Kind = Literal["classes", "values"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Support:
    """Labeled samples of one session or subject, in the order of time; make one with :meth:`of`.

    Attributes
    ----------
    inputs : float tensor of shape (samples, ...)
    targets : tensor
        Of classes: int64 of shape (samples,), numbers into ``classes``. Of values: float of shape
        (samples, ..., targets).
    classes : array of shape (classes,) or None
        Sorted labels; None where targets are values.
    groups : int64 array of shape (samples,)
        Samples of one group (a trial, a block) are never on both sides of an inner split.
    session : str or None
        Where the samples are a session's.
    """

    inputs: Tensor
    targets: Tensor
    classes: np.ndarray | None
    groups: np.ndarray
    session: str | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        targets: Tensor | np.ndarray | Sequence[object] | str,
        *,
        kind: Kind | Literal["auto"] = "auto",
        groups: np.ndarray | Sequence[object] | None = None,
        session: str | None = None,
    ) -> Support:
        """Check and gather a support set.

        Parameters
        ----------
        inputs : tensor, array, BinnedSession or SpikeBatch of one session
            Samples along the first axis.
        targets : sequence of length n_samples, array, or str
            Classes (any kind of label) or values of shape (samples,), (samples, targets) or, for a target
            per bin, (samples, bins, targets). A str names a column of a BinnedSession's trials or a label of
            the SpikeBatch. Samples whose class is None, NaN or "" are left out.
        kind : {"auto", "classes", "values"}, default "auto"
            "auto": floating point targets with a fractional part, or with more than one axis, are values.
        groups : sequence of length n_samples, optional
            Trial or block of each sample; by default each is its own.
        session : str, optional
            Name of the session, for an :class:`neurokern.models.MtM`; taken from a BinnedSession or a
            SpikeBatch.

        Raises
        ------
        ValueError
            If lengths differ, an input or a value is not finite, or fewer than two classes are left.
        """
        found, name = as_inputs("Support", inputs)
        values = _named_targets(inputs, targets) if isinstance(targets, str) else _as_array(targets)
        n = len(found)
        for what, given in (("targets", values), ("groups", groups)):
            if given is not None and len(given) != n:
                raise ValueError(f"Support: {what} must have one entry per sample ({n}), got {len(given)}")
        check_choice("Support", "kind", kind, ("auto", "classes", "values"))
        number = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        if kind == "values" or (kind == "auto" and _are_values(values)):
            return cls(
                inputs=found,
                targets=_as_values(values),
                classes=None,
                groups=number,
                session=session or name,
            )
        if values.ndim != 1:
            raise ValueError(f"Support: classes must have shape (samples,), got {values.shape}")
        known = ~pd.isna(values) & (values != "")
        classes, of_sample = np.unique(values[known], return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"Support: targets must hold at least 2 classes, got {classes.tolist()}")
        return cls(
            inputs=found[torch.from_numpy(np.flatnonzero(known))],
            targets=torch.from_numpy(of_sample.astype(np.int64)),
            classes=classes,
            groups=number[known],
            session=session or name,
        )

    def select(self, rows: np.ndarray) -> Support:
        """Return the support set with only these samples; the classes stay those of all."""
        index = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        return Support(
            inputs=self.inputs[index],
            targets=self.targets[index],
            classes=self.classes,
            groups=self.groups[rows],
            session=self.session,
        )

    def facts(self) -> dict[str, Any]:
        """Return how large the support set is, in numbers that say nothing of who or what it shows."""
        described: dict[str, Any] = {"n_samples": len(self), "n_groups": len(np.unique(self.groups))}
        if self.classes is None:
            return {**described, "n_targets": int(self.targets.shape[-1])}
        sizes = np.bincount(self.targets.cpu().numpy(), minlength=len(self.classes))
        return {**described, "n_classes": len(sizes), "shots": [int(sizes.min()), int(sizes.max())]}

    def hold_out(self, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return rows to train on and rows to validate on, or None where that leaves a class without samples.

        Whole groups are held out, of each class at least one; a class needs two groups, values need four.
        """
        generator = np.random.default_rng(seed)
        held = np.zeros(len(self), dtype=bool)
        strata = np.zeros(len(self), dtype=np.int64) if self.classes is None else self.targets.cpu().numpy()
        least = 4 if self.classes is None else 2
        for stratum in np.unique(strata):
            groups = np.unique(self.groups[strata == stratum])
            if len(groups) < least:
                return None
            n_held = min(max(1, round(fraction * len(groups))), len(groups) - 1)
            held |= np.isin(self.groups, generator.permutation(groups)[:n_held])
        kept = np.flatnonzero(~held)
        if len(np.unique(strata[kept])) < len(np.unique(strata)):  # a group held several classes
            return None
        return kept, np.flatnonzero(held)


def as_inputs(function: str, inputs: Inputs) -> tuple[Tensor, str | None]:
    """Return samples as a float tensor, and the name of their session where they have one."""
    session = None
    if isinstance(inputs, BinnedSession):
        session = inputs.session
        values = torch.from_numpy(inputs.read(range(inputs.n_windows)))
    elif isinstance(inputs, SpikeBatch):
        names = sorted(set(inputs.session))
        if len(names) != 1:
            raise ValueError(f"{function}: a batch must be of one session, got {names}; pass one at a time")
        session = names[0]
        values = inputs.counts[:, :, : int(inputs.n_units[0])]
    else:
        values = torch.as_tensor(inputs)
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(
            f"{function}: inputs must have shape (samples, ...) and hold something, got {tuple(values.shape)}"
        )
    values = values if values.is_floating_point() else values.float()
    low, high = values.aminmax()
    if not (low > -torch.inf and high < torch.inf):  # NaN fails both
        raise ValueError(f"{function}: inputs must be finite, got NaN or infinity")
    return values, session


def _named_targets(inputs: Inputs, name: str) -> np.ndarray:
    if isinstance(inputs, SpikeBatch) and name in inputs.labels:
        return inputs.labels[name].cpu().numpy()
    if isinstance(inputs, BinnedSession) and inputs.trials is not None and name in inputs.trials:
        return inputs.trials[name].to_numpy()
    raise ValueError(f"Support: the inputs have no column {name!r}; pass the targets themselves")


def _as_array(targets: Tensor | np.ndarray | Sequence[object]) -> np.ndarray:
    return targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)


def _are_values(targets: np.ndarray) -> bool:
    if targets.dtype.kind != "f":
        return False
    return targets.ndim > 1 or bool((targets[~np.isnan(targets)] % 1 != 0).any())


def _as_values(targets: np.ndarray) -> Tensor:
    if targets.dtype.kind not in "biuf":
        raise TypeError(f"Support: values must be numbers, got {targets.dtype}")
    values = torch.from_numpy(targets.astype(np.float32))
    if not values.isfinite().all():
        raise ValueError("Support: values must be finite, got NaN or infinity; leave those samples out")
    return values[:, None] if values.ndim == 1 else values
