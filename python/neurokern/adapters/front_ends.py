"""A short way to a read-out on a frozen encoder: ``FewShotAdapter`` and ``few_shot_adapt``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurokern._check import check_integer
from neurokern.adapters.heads import pool_features
from neurokern.adapters.support import Support
from neurokern.adapters.tuning import HeadProbe
from neurokern.models import MtM, MultiTaskMasking

__all__ = ["FewShotAdapter", "few_shot_adapt"]


class FewShotAdapter(nn.Module):
    """A linear read-out on the features of a frozen encoder, averaged over bins or tokens.

    Parameters
    ----------
    encoder : nn.Module
        Maps ``(samples, ...)`` to features ``(samples, ..., features)``: a :class:`MultiTaskMasking`, whose
        states are taken, a :class:`SessionEncoder` around an MtM, or any other module. Shared, not copied;
        it gets no gradient and stays in evaluation mode.
    output_dim : int
        Classes, or values to predict.

    Attributes
    ----------
    classes : array of shape (output_dim,), or None
        Labels of the outputs, in their order, after :func:`few_shot_adapt` to classes.

    Examples
    --------
    >>> adapter = FewShotAdapter(MultiTaskMasking(30, 64, 4), output_dim=2)
    >>> adapted = few_shot_adapt(adapter, (counts, choices), n_shots=5)
    >>> adapted.predict(later_counts)
    """

    def __init__(self, encoder: nn.Module, output_dim: int) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"FewShotAdapter: encoder must be a torch module, got {type(encoder).__name__}")
        if isinstance(encoder, MtM):
            raise TypeError(
                "FewShotAdapter: an MtM needs to know the session; pass SessionEncoder(model, session)"
            )
        if check_integer("FewShotAdapter", "output_dim", output_dim) < 1:
            raise ValueError(f"FewShotAdapter: output_dim must be at least 1, got {output_dim}")
        self.encoder, self.output_dim = encoder.eval(), output_dim
        self.head: nn.Module = nn.LazyLinear(output_dim)  # sized by the first features that it sees
        self.classes: np.ndarray | None = None

    def train(self, mode: bool = True) -> FewShotAdapter:
        """Set the mode of the head alone."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return what is read from, ``(samples, features)``."""
        found = self.encoder.embed(x) if isinstance(self.encoder, MultiTaskMasking) else self.encoder(x)
        return pool_features(found, "mean")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits or values, ``(samples, output_dim)``."""
        return self.head(self.features(x))

    @torch.no_grad()
    def predict(self, x: Tensor) -> np.ndarray:
        """Return labels ``(samples,)``, or values ``(samples, output_dim)`` where values were learned."""
        outputs = self(x).cpu().numpy()
        return outputs if self.classes is None else self.classes[outputs.argmax(1)]


def few_shot_adapt(
    model: nn.Module, support_set: Support | Sequence[Any], n_shots: int | None = None
) -> FewShotAdapter:
    """Return a copy of an adapter that has learned from a few labeled samples.

    The head is solved, not iterated: logistic regression of classes, ridge regression of values with the
    penalty chosen on the support set, see :class:`HeadProbe`. Encoders that are to change as well take the
    other adapters of :mod:`neurokern.adapters`, with ``fit(model, support)``.

    Parameters
    ----------
    model : FewShotAdapter or nn.Module
        Not changed; what is returned shares its encoder. A bare encoder gets a read-out of as many outputs as
        the support set has classes or values.
    support_set : Support, or pair (inputs, targets), or sequence of pairs (input, target)
        Targets that are floating point with a fractional part, or have several columns, are values; others
        are classes.
    n_shots : int, optional
        Samples of each class, or in all for values: the first ones. By default every sample.

    Returns
    -------
    adapted : FewShotAdapter

    Raises
    ------
    ValueError
        If a class has fewer than ``n_shots`` samples, or the classes or values are not ``output_dim``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"few_shot_adapt: model must be a torch module, got {type(model).__name__}")
    support = _first_shots(_as_support(support_set), n_shots)
    n_outputs = support.targets.shape[-1] if support.classes is None else len(support.classes)
    if not isinstance(model, FewShotAdapter):
        model = FewShotAdapter(model, n_outputs)
    if n_outputs != model.output_dim:
        what = "values" if support.classes is None else f"classes {support.classes.tolist()}"
        raise ValueError(f"few_shot_adapt: support_set must hold {model.output_dim} {what}, got {n_outputs}")
    device = next((p.device for p in model.encoder.parameters()), torch.device("cpu"))
    features = Support(
        inputs=model.features(support.inputs.to(device)).float().cpu(),
        targets=support.targets,
        classes=support.classes,
        groups=support.groups,
    )
    solved = HeadProbe().fit(nn.Identity(), features).pipeline.head
    adapted = copy.copy(model)
    adapted._modules = {**model._modules, "head": solved.to(device)}
    adapted.classes = support.classes
    return adapted


def _as_support(given: Support | Sequence[Any]) -> Support:
    if isinstance(given, Support):
        return given
    pairs = list(given)
    if len(pairs) == 2 and len(pairs[0]) == len(pairs[1]) and not isinstance(pairs[0], tuple):
        return Support.of(*pairs)
    if not pairs or any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in pairs):
        raise ValueError(
            "few_shot_adapt: support_set must be a Support, a pair (inputs, targets) of one length, or a "
            "sequence of pairs (input, target)"
        )
    inputs = torch.stack([torch.as_tensor(one) for one, _ in pairs])
    return Support.of(inputs, np.stack([np.asarray(target) for _, target in pairs]))


def _first_shots(support: Support, n_shots: int | None) -> Support:
    """Return the first samples of each class, or the first ones of values."""
    if n_shots is None:
        return support
    if check_integer("few_shot_adapt", "n_shots", n_shots) < 1:
        raise ValueError(f"few_shot_adapt: n_shots must be at least 1, got {n_shots}")
    if support.classes is None:
        groups = {"values": np.arange(len(support))}
    else:
        number = support.targets.cpu().numpy()
        groups = {str(name): np.flatnonzero(number == k) for k, name in enumerate(support.classes)}
    for name, rows in groups.items():
        if len(rows) < n_shots:
            raise ValueError(
                f"few_shot_adapt: n_shots must be at most the {len(rows)} of {name}, got {n_shots}"
            )
    return support.select(np.sort(np.concatenate([rows[:n_shots] for rows in groups.values()])))
