"""A read-out of features, solved and not trained, as an adapter of the model that computes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from neurokern._check import check_choice
from neurokern.adapters._readout import Readout
from neurokern.adapters.adapted import AdaptedModel, Structure, own_names
from neurokern.adapters.closed_form import RidgeProbe
from neurokern.adapters.gradient import encoder_of, outputs_of
from neurokern.adapters.heads import pool_features
from neurokern.adapters.support import Support

__all__ = ["FrozenReadout"]


@dataclass(frozen=True, kw_only=True)
class FrozenReadout:
    """A linear read-out on the features of a frozen model; it becomes the model's head.

    Parameters
    ----------
    readout : callable, default RidgeProbe
        Returns a fresh read-out, such as ``RidgeProbe``, ``LDAProbe``, ``LinearProbe``, ``PrototypeProbe``
        (by distances) for classes, or ``RidgeReadout`` for values.
    pool : {"mean", "flatten"}, default "mean"
        Over bins or tokens.
    """

    adapts_model: ClassVar[bool] = True

    readout: Callable[[], Readout] = RidgeProbe
    pool: str = "mean"

    def __post_init__(self) -> None:
        check_choice("FrozenReadout", "pool", self.pool, ("mean", "flatten"))
        if not callable(self.readout):
            raise TypeError(
                "FrozenReadout: readout must return a read-out when called, as the class RidgeProbe does, "
                f"got {self.readout!r}"
            )

    def fit(self, model: nn.Module, support: Support) -> AdaptedModel:
        """Solve for a head on the model's features; the model is neither changed nor copied.

        Parameters and Returns as for :meth:`neurokern.adapters.GradientAdapter.fit`.

        Raises
        ------
        ValueError
            If model, support set and read-out do not fit together.
        """
        begun = time.perf_counter()
        encoder, session = encoder_of(model, support)
        features = pool_features(outputs_of(encoder, support.inputs), self.pool)
        readout = self.readout()
        readout.fit(features, support.targets)  # type: ignore[attr-defined]
        if readout._unit_length:
            raise ValueError(
                "FrozenReadout: a read-out by cosines is no linear head; take one by distances, or fit it on "
                "the features themselves"
            )
        weights, bias = readout.coefficients()
        head = {"kind": "linear", "n_features": features.shape[1], "n_outputs": len(bias), "pool": self.pool}
        structure = Structure(head=head, session=session)
        pipeline = structure.build(encoder, copied=False)
        out: nn.Linear = pipeline.head.out  # type: ignore[assignment]
        with torch.no_grad():
            out.weight.copy_(weights.T)
            out.bias.copy_(bias)
        return AdaptedModel(
            pipeline=pipeline,
            adapter=type(readout).__name__,
            structure=structure,
            own_names=own_names(pipeline, encoder),
            fitted_on=encoder,
            classes=support.classes,
            n_trainable=weights.numel() + bias.numel(),
            seconds=time.perf_counter() - begun,
            support=support.facts(),
        )
