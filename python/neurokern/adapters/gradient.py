"""What all adapters that are trained by gradient share: build, train, choose on the support set, wrap up."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurokern._check import check_choice
from neurokern.adapters.adapted import AdaptedModel, Pipeline, Structure, dtype_of, evaluation_mode, own_names
from neurokern.adapters.fine_tune import FineTuneOptions, Outcome, Stage, Step, StepLoss, fine_tune, seeded
from neurokern.adapters.heads import HEADS, POOLS, pool_features
from neurokern.adapters.low_rank import low_rank_parameters
from neurokern.adapters.probe import LinearProbe
from neurokern.adapters.support import Support
from neurokern.ops import ridge_cv

__all__ = ["GradientAdapter", "class_loss", "encoder_of", "outputs_of", "value_loss"]

_ROWS_AT_ONCE = 256
_ALPHAS = tuple(10.0**exponent for exponent in range(-3, 4))


def class_loss(model: nn.Module, inputs: Tensor, targets: Tensor, step: Step) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(inputs), targets)


def value_loss(model: nn.Module, inputs: Tensor, targets: Tensor, step: Step) -> Tensor:
    """Mean squared error."""
    outputs = model(inputs)
    if outputs.shape != targets.shape:
        raise ValueError(
            f"fine_tune: outputs must have the shape of the targets, {tuple(targets.shape)}, "
            f"got {tuple(outputs.shape)}"
        )
    return F.mse_loss(outputs, targets.to(outputs.dtype))


def encoder_of(model: nn.Module, support: Support) -> tuple[nn.Module, dict[str, str] | None]:
    """Return the module from inputs to features: an MtM as the encoder of the support's session."""
    from neurokern.adapters.session_encoder import SessionEncoder
    from neurokern.models import MtM

    if isinstance(model, MtM):
        if support.session is None:
            raise ValueError(
                "fit: an MtM needs to know whose windows these are; pass a BinnedSession, or session="
            )
        model = SessionEncoder(model, support.session)
    if isinstance(model, SessionEncoder):
        return model, {"session": model.session, "scheme": model.scheme, "output": model.output}
    return model, None


@dataclass(frozen=True, kw_only=True)
class GradientAdapter:
    """Base of the adapters that are trained; see :mod:`neurokern.adapters.tuning` for them.

    Parameters
    ----------
    head : {"linear", "mlp", "attention", "none"}, default "linear"
        What is put on the encoder's features. "none": the encoder's outputs are the logits or values.
    pool : {"mean", "flatten", "none"}, default "mean"
        Over bins or tokens, for "linear" and "mlp"; "none" predicts something for every bin.
    start : {"probe", "zeros"}, default "probe"
        A linear head starts as logistic or ridge regression on the features, so that training begins where
        a probe ends and does not distort the features first [1]_. Epoch 0 takes part in early stopping.
    hidden, n_heads : int
        Of "mlp" and of "attention".
    options : FineTuneOptions

    References
    ----------
    .. [1] Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution",
       ICLR 2022 (arXiv:2202.10054).
    """

    adapts_model: ClassVar[bool] = True  # what evaluate_few_shot tells it from a read-out by

    head: str = "linear"
    pool: str = "mean"
    start: str = "probe"
    hidden: int = 64
    n_heads: int = 4
    options: FineTuneOptions = field(default_factory=FineTuneOptions)

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_choice(name, "head", self.head, (*HEADS, "none"))
        check_choice(name, "pool", self.pool, POOLS)
        check_choice(name, "start", self.start, ("probe", "zeros"))

    def fit(self, model: nn.Module, support: Support) -> AdaptedModel:
        """Adapt a copy of the model to the support set.

        Parameters
        ----------
        model : nn.Module
            Any encoder that maps inputs ``(samples, ...)`` to features ``(samples, features)`` or
            ``(samples, ..., features)``; or an MtM that knows the session. Not changed.
        support : Support

        Returns
        -------
        adapted : AdaptedModel

        Raises
        ------
        ValueError
            If the adapter, the model and the support set do not fit together.
        RuntimeError
            If the loss becomes NaN or infinite.
        """
        begun = time.perf_counter()
        encoder, session = encoder_of(model, support)
        structure = replace(self._structure(encoder, support), session=session)
        rates = self.options.learning_rates
        rate, outcome = rates[len(rates) // 2], Outcome(self.options.blind_epochs, math.nan)
        share = self.options.validation if self._trains() else 0.0
        rows = support.hold_out(share, self.options.seed) if share else None
        if rows is not None and len(rows[1]) >= self._least_held_out:
            train, held = (support.select(part) for part in rows)
            tried = [
                self._train(encoder, structure, train, lr, self.options.max_epochs, held)[1] for lr in rates
            ]
            at = min(range(len(rates)), key=lambda index: tried[index].loss)
            rate, outcome = rates[at], tried[at]
        pipeline, _, n_trainable = self._train(encoder, structure, support, rate, outcome.epochs)
        chosen: dict[str, Any] = {"epochs": outcome.epochs, "learning_rate": rate}
        if not math.isnan(outcome.loss):
            chosen["held_out_loss"] = outcome.loss
        return AdaptedModel(
            pipeline=pipeline,
            adapter=type(self).__name__,
            structure=structure,
            own_names=own_names(pipeline, encoder),
            fitted_on=encoder,
            classes=support.classes,
            n_trainable=n_trainable,
            seconds=time.perf_counter() - begun,
            chosen=chosen,
            support=support.facts(),
        )

    # What an adapter differs in.

    _least_held_out: ClassVar[int] = 1  # samples that the loss can be taken of

    def _trains(self) -> bool:
        """Whether there is anything to train beyond the start of the head."""
        return True

    def _stages(self, encoder: nn.Module) -> list[tuple[int, list[str]]]:
        """When which of the encoder's own parameters begin to learn: (epoch, names)."""
        return []

    def _starts_anew(self, stage: int) -> bool:
        """Whether a stage's parameters are drawn anew, and learn as fast as the head does."""
        return False

    def _prepare(self, pipeline: Pipeline) -> None:
        """Change the pipeline before it is trained, under the seed of the options."""

    def _structure(self, encoder: nn.Module, support: Support) -> Structure:
        """What is added to the encoder."""
        return Structure(head=self._head(self._n_features(encoder, support.inputs), support))

    def _loss(self, support: Support) -> StepLoss:
        return value_loss if support.classes is None else class_loss

    # What they share.

    @torch.no_grad()
    def _n_features(self, encoder: nn.Module, inputs: Tensor) -> int:
        features = outputs_of(encoder, inputs[:2])
        if features.ndim < 2:
            raise ValueError(
                f"{type(self).__name__}: the encoder must map (samples, ...) to (samples, ..., features), "
                f"got {tuple(features.shape)} for {tuple(inputs[:2].shape)}"
            )
        return int(features[0].numel() if self.pool == "flatten" else features.shape[-1])

    def _head(self, n_features: int, support: Support) -> dict[str, Any] | None:
        n_outputs = support.targets.shape[-1] if support.classes is None else len(support.classes)
        if self.head == "none":
            if n_features != n_outputs:
                raise ValueError(
                    f'{type(self).__name__}: head="none" needs an encoder with {n_outputs} outputs, '
                    f"one for each class or value, got {n_features}"
                )
            return None
        return {
            "kind": self.head,
            "n_features": n_features,
            "n_outputs": n_outputs,
            "pool": self.pool,
            "hidden": self.hidden,
            "n_heads": self.n_heads,
        }

    def _train(
        self,
        encoder: nn.Module,
        structure: Structure,
        support: Support,
        learning_rate: float,
        epochs: int,
        held: Support | None = None,
    ) -> tuple[Pipeline, Outcome, int]:
        """Build a pipeline, train it, and count what learns."""
        names = self._stages(encoder)
        keeps = not names and structure.front is None and structure.low_rank is None
        with seeded(encoder, self.options.seed):
            pipeline = structure.build(encoder, copied=not keeps)
            self._prepare(pipeline)
        stages = self._learning(pipeline, names)
        n_trainable = sum(p.numel() for stage in stages for p in stage.parameters)
        model: nn.Module = pipeline
        data = [part for part in (support, held) if part is not None]
        inputs = [part.inputs for part in data]
        if keeps:  # the features of a frozen encoder are computed once
            model, inputs = pipeline.head, [outputs_of(encoder, values) for values in inputs]
        spread = self._start_head(pipeline, support, inputs[0] if keeps else None)
        targets = [_scaled(part.targets, spread) for part in data]
        outcome = Outcome(0, math.nan)
        if epochs and stages and self._trains():
            outcome = fine_tune(
                model,
                stages,
                (inputs[0], targets[0]),
                self._loss(support),
                self.options,
                learning_rate=learning_rate,
                epochs=epochs,
                held_out=None if held is None else (inputs[1], targets[1]),
                title=type(self).__name__,
            )
        if spread is not None and held is None:
            pipeline.head.rescale(*(part.to(pipeline.head.out.bias) for part in spread))  # type: ignore[operator, union-attr, arg-type]
        (pipeline.head if keeps else pipeline).eval()  # a model that is shared keeps its mode
        return pipeline, outcome, n_trainable

    def _learning(self, pipeline: Pipeline, names: Sequence[tuple[int, list[str]]]) -> list[Stage]:
        """Stages of the optimizer: what was added from the start, the encoder's own when it is their turn."""
        added = [*pipeline.front.parameters(), *pipeline.head.parameters()]
        added += low_rank_parameters(pipeline.encoder).values()
        stages = [Stage(0, tuple(added))] if added else []
        own = dict(pipeline.encoder.named_parameters())
        for number, (epoch, chosen) in enumerate(names):
            factor = 1.0 if self._starts_anew(number) else self.options.encoder_factor
            stages.append(Stage(epoch, tuple(own[name] for name in chosen), factor))
        return stages

    def _start_head(
        self, pipeline: Pipeline, support: Support, features: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Set a linear head to a probe; return mean and spread of values, which it learns standardized."""
        spread = None
        if support.classes is None and self.head != "none":
            flat = support.targets.flatten(0, -2)
            deviation = flat.std(0, unbiased=False)
            spread = flat.mean(0), torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        if self.head != "linear" or self.start != "probe":
            return spread
        if features is None:
            features = outputs_of(Pipeline(pipeline.front, pipeline.encoder, nn.Identity()), support.inputs)
        pooled = pool_features(features, self.pool)
        weight, bias = _probe(pooled, _scaled(support.targets, spread), support.classes)
        out: nn.Linear = pipeline.head.out  # type: ignore[assignment]
        with torch.no_grad():
            out.weight.copy_(weight)
            out.bias.copy_(bias)
        return spread


def _probe(features: Tensor, targets: Tensor, classes: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Weights ``(outputs, features)`` and bias of logistic or ridge regression."""
    if classes is not None:
        if len(targets.unique()) < len(classes):  # a class that is held out altogether
            return torch.zeros(len(classes), features.shape[-1]), torch.zeros(len(classes))
        center = features.mean(0)  # so that a penalty means the same for features of any scale
        length = (features - center).square().sum(1).mean().sqrt().clamp_min(1e-12)
        probe = LinearProbe((0.1, 1.0, 10.0)).fit((features - center) / length, targets)
        weights, bias = probe.coefficients()
        weight = weights.T / length
        return weight, bias - weight @ center
    flat, values = features.flatten(0, -2), targets.flatten(0, -2)
    unit = float((flat - flat.mean(0)).square().sum(1).mean().clamp_min(1e-12))
    if len(flat) < 3:
        return torch.zeros(values.shape[1], flat.shape[1]), values.mean(0)
    found = ridge_cv(flat, values, [alpha * unit for alpha in _ALPHAS], folds="leave-one-out")
    return found.weights.T, found.intercept


@torch.no_grad()
def outputs_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs on the CPU with the module in evaluation mode, in which each part is left as it was."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    dtype = dtype_of(module, inputs.dtype)
    with evaluation_mode(module):
        outputs = torch.cat([module(rows.to(device, dtype)).cpu() for rows in inputs.split(_ROWS_AT_ONCE)])
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def _scaled(targets: Tensor, spread: tuple[Tensor, Tensor] | None) -> Tensor:
    return targets if spread is None else (targets - spread[0]) / spread[1]
