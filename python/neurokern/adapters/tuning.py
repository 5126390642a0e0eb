"""The adapters that are trained by gradient, each as an object with ``fit(model, support)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar

import torch
from torch import Tensor, nn

from neurokern._check import check_choice, check_positive
from neurokern.adapters.adapted import Pipeline, Structure, dtype_of
from neurokern.adapters.contrastive import info_nce, mix_inputs, mixco_loss, soft_clip
from neurokern.adapters.fine_tune import Step, StepLoss
from neurokern.adapters.gradient import GradientAdapter
from neurokern.adapters.selection import (
    layer_stages,
    match_names,
    modules_by_name,
    normalization_parameters,
)
from neurokern.adapters.session_encoder import SessionEncoder
from neurokern.adapters.support import Support

__all__ = [
    "BiasOnly",
    "Contrastive",
    "FromScratch",
    "FullFineTune",
    "GradualUnfreezing",
    "HeadProbe",
    "LoRA",
    "NormOnly",
    "PartialFineTune",
    "ResetTuning",
    "SharedSpace",
    "UnitIdentification",
]

Stages = list[tuple[int, list[str]]]


@dataclass(frozen=True, kw_only=True)
class HeadProbe(GradientAdapter):
    """A head on frozen features, which are computed once: linear (a convex problem), MLP, or attention.

    With ``head="linear"`` and ``start="probe"`` nothing is left to train: logistic regression of classes,
    ridge regression of values. Other parameters as for :class:`GradientAdapter`.
    """

    def _trains(self) -> bool:
        return self.head != "linear" or self.start != "probe"


@dataclass(frozen=True, kw_only=True)
class FullFineTune(GradientAdapter):
    """All weights learn."""

    def _stages(self, encoder: nn.Module) -> Stages:
        return [(0, [name for name, _ in encoder.named_parameters()])]


@dataclass(frozen=True, kw_only=True)
class PartialFineTune(GradientAdapter):
    """The encoder's parameters that match a name learn, and a head.

    Parameters
    ----------
    parameters : sequence of str
        Shell patterns such as ``("*layers.4.*", "*norm.weight")``; each must match something.
    """

    parameters: Sequence[str] = ("*",)

    def _stages(self, encoder: nn.Module) -> Stages:
        names = [name for name, _ in encoder.named_parameters()]
        return [(0, match_names(type(self).__name__, names, self.parameters))]


@dataclass(frozen=True, kw_only=True)
class BiasOnly(PartialFineTune):
    """All biases learn, and a head (BitFit [1]_).

    References
    ----------
    .. [1] Ben Zaken, Goldberg, Ravfogel, "BitFit: Simple parameter-efficient fine-tuning for
       transformer-based masked language-models", ACL 2022.
    """

    parameters: Sequence[str] = ("*bias",)


@dataclass(frozen=True, kw_only=True)
class NormOnly(GradientAdapter):
    """Weights and biases of the normalization layers learn, and a head."""

    def _stages(self, encoder: nn.Module) -> Stages:
        names = normalization_parameters(encoder)
        if not names:
            raise ValueError(
                "NormOnly: the model has no normalization layer with weights; use PartialFineTune"
            )
        return [(0, names)]


@dataclass(frozen=True, kw_only=True)
class UnitIdentification(PartialFineTune):
    """Only embeddings of units and sessions learn, and a head: the rest of the model stays shared [1]_.

    Parameters
    ----------
    parameters : sequence of str
        Names of embeddings. The default finds those of an MtM (the vectors of units, the session's token) and
        of models that call them unit_emb... and session_emb.... Patterns that match nothing are passed over,
        but one must match.

    References
    ----------
    .. [1] Azabou et al., "A unified, scalable framework for neural population decoding", NeurIPS 2023
       (arXiv:2310.16046), section 2.4.
    """

    parameters: Sequence[str] = ("*unit_emb*", "*session_emb*", "*parts.*.embedding", "*token")

    def _stages(self, encoder: nn.Module) -> Stages:
        names = [name for name, _ in encoder.named_parameters()]
        found: list[str] = []
        for pattern in self.parameters:
            found += [name for name in names if fnmatchcase(name, pattern) and name not in found]
        if not found:
            match_names("UnitIdentification", names, self.parameters)  # raises, with the names there are
        return [(0, found)]


@dataclass(frozen=True, kw_only=True)
class GradualUnfreezing(GradientAdapter):
    """First the head learns, then one layer more every few epochs, the last one first [1]_.

    Parameters
    ----------
    every : int, default 5
        Epochs between stages. Early stopping waits for the last stage; where no samples can be held out,
        training ends after ``blind_epochs``, thawed or not.
    stages : sequence of sequences of str, optional
        Patterns of parameters in the order in which they thaw; by default the layers of the longest stack of
        equal blocks from the last to the first, then all else.

    References
    ----------
    .. [1] Howard & Ruder, "Universal language model fine-tuning for text classification", ACL 2018.
    """

    every: int = 5
    stages: Sequence[Sequence[str]] | None = None

    def _stages(self, encoder: nn.Module) -> Stages:
        if self.every < 1:
            raise ValueError(f"GradualUnfreezing: every must be at least 1, got {self.every}")
        names = [name for name, _ in encoder.named_parameters()]
        if self.stages is None:
            groups = layer_stages(encoder)
        else:
            groups = [match_names("GradualUnfreezing", names, patterns) for patterns in self.stages]
        seen: set[str] = set()
        result: Stages = []
        for number, group in enumerate(groups):
            result.append(((number + 1) * self.every, [name for name in group if name not in seen]))
            seen |= set(group)
        return result


@dataclass(frozen=True, kw_only=True)
class ResetTuning(GradientAdapter):
    """Some modules are drawn anew and learn first; then all weights, or those named, join [1]_.

    Parameters
    ----------
    reset : sequence of str
        Patterns of modules, such as ``("*read_in",)``. All of a module's parts with weights must have
        ``reset_parameters``, as torch's own layers do.
    alone : int, default 10
        Epochs in which the reset modules and the head learn alone.
    then : sequence of str, default ("*",)
        Patterns of parameters that join; () for none.

    References
    ----------
    .. [1] Wang et al., "MindBridge: A cross-subject brain decoding framework", CVPR 2024
       (arXiv:2404.07850), section 3.4.
    """

    reset: Sequence[str] = ()
    alone: int = 10
    then: Sequence[str] = ("*",)
    start: str = "zeros"

    def _stages(self, encoder: nn.Module) -> Stages:
        names = [name for name, _ in encoder.named_parameters()]
        modules = modules_by_name("ResetTuning", encoder, self._reset_patterns())
        first = [name for name in names if any(name.startswith(f"{module}.") for module in modules)]
        joining = match_names("ResetTuning", names, self.then) if self.then else []
        return [(0, first), (self.alone, [name for name in joining if name not in first])]

    def _starts_anew(self, stage: int) -> bool:
        return stage == 0

    def _prepare(self, pipeline: Pipeline) -> None:
        for name, module in modules_by_name("ResetTuning", pipeline.encoder, self._reset_patterns()).items():
            reset_module(module, name)

    def _reset_patterns(self) -> Sequence[str]:
        if not self.reset:
            raise ValueError('ResetTuning: reset must name at least one module, such as ("*read_in",)')
        return self.reset


def reset_module(module: nn.Module, name: str) -> None:
    """Draw all weights of a module anew; ValueError where a part does not say how."""
    for inner, part in module.named_modules():
        if not any(True for _ in part.parameters(recurse=False)):
            continue
        if not callable(getattr(part, "reset_parameters", None)):
            raise ValueError(
                f"ResetTuning: {name}.{inner} ({type(part).__name__}) has weights but no "
                "reset_parameters(); add that method or reset other modules"
            )
        part.reset_parameters()


@dataclass(frozen=True, kw_only=True)
class FromScratch(GradientAdapter):
    """The specialist that transfer has to beat: the same architecture, new weights, the same support set.

    Parameters
    ----------
    make_model : callable
        Returns a module with the names and shapes of the encoder, newly drawn. Called under the seed of the
        options. Not needed for an MtM.
    """

    make_model: Callable[[], nn.Module] | None = None
    start: str = "zeros"

    def _stages(self, encoder: nn.Module) -> Stages:
        return [(0, [name for name, _ in encoder.named_parameters()])]

    def _starts_anew(self, stage: int) -> bool:
        return True

    def _prepare(self, pipeline: Pipeline) -> None:
        make_model = self.make_model
        if make_model is None and isinstance(pipeline.encoder, SessionEncoder):
            make_model = pipeline.encoder.fresh
        if make_model is None:
            raise ValueError("FromScratch: pass make_model=, which returns the architecture with new weights")
        state = make_model().state_dict()
        own = pipeline.encoder.state_dict()
        if {n: v.shape for n, v in state.items()} != {n: v.shape for n, v in own.items()}:
            different = sorted(state.keys() ^ own.keys())[:4] or "in shapes"
            raise ValueError(
                f"FromScratch: make_model() must have the encoder's names and shapes; different: {different}"
            )
        pipeline.encoder.load_state_dict(state)


@dataclass(frozen=True, kw_only=True)
class LoRA(GradientAdapter):
    """Low-rank updates of linear layers, and a head; the model's own weights stay as they are.

    Parameters
    ----------
    targets : sequence of str, default ("*",)
        Patterns of linear layers, such as ``("*qkv", "*proj")``; see
        :func:`neurokern.adapters.add_low_rank`.
    rank : int, default 8
    alpha : float, optional
        The update is scaled by ``alpha / rank``; ``rank`` by default.
    """

    targets: Sequence[str] = ("*",)
    rank: int = 8
    alpha: float | None = None

    def _structure(self, encoder: nn.Module, support: Support) -> Structure:
        low_rank = {"targets": list(self.targets), "rank": self.rank, "alpha": self.alpha}
        return replace(super()._structure(encoder, support), low_rank=low_rank)


@dataclass(frozen=True, kw_only=True)
class SharedSpace(GradientAdapter):
    """A new subject's own layer into the space that the model was trained on, whatever its number of inputs.

    Parameters
    ----------
    size : int
        Of the model's inputs on the last axis.
    pool_size : int, optional
        Adaptive pooling before the layer, see :class:`neurokern.adapters.SubjectInput`.
    pooling : {"max", "mean"}, default "max"
    linear : bool, default True
        False: pooling alone makes the sizes equal, and only the head (or what ``then`` names) learns.
    then : sequence of str, default ()
        Patterns of the model's parameters that learn as well.
    """

    size: int = 0
    pool_size: int | None = None
    pooling: str = "max"
    linear: bool = True
    then: Sequence[str] = ()
    start: str = "zeros"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("SharedSpace", "size", self.size)

    def _stages(self, encoder: nn.Module) -> Stages:
        names = [name for name, _ in encoder.named_parameters()]
        return [(0, match_names("SharedSpace", names, self.then))] if self.then else []

    def _structure(self, encoder: nn.Module, support: Support) -> Structure:
        front = {
            "n_inputs": support.inputs.shape[-1],
            "size": self.size,
            "pool_size": self.pool_size,
            "pooling": self.pooling,
            "linear": self.linear,
        }
        shape = (*support.inputs[:2].shape[:-1], self.size)
        reshaped = torch.zeros(shape, dtype=dtype_of(encoder, torch.float32))
        return Structure(head=self._head(self._n_features(encoder, reshaped), support), front=front)


@dataclass(frozen=True, kw_only=True)
class Contrastive(HeadProbe):
    """A head into an embedding space (of images, text, audio), trained to tell samples apart, for retrieval.

    The targets of the support set are the samples' embeddings, ``(samples, dimensions)``.

    Parameters
    ----------
    loss : {"soft-clip", "info-nce"}, default "soft-clip"
    mixco : float, default 0.33
        Share of the epochs, the first, that are trained on mixed inputs, as published [1]_; 0 for none.
    temperature : float, default 0.07
    parameters : sequence of str, default ()
        Patterns of the encoder's parameters that learn as well.

    References
    ----------
    .. [1] Scotti et al., arXiv:2305.18274, section 2.1.
    """

    loss: str = "soft-clip"
    mixco: float = 0.33
    temperature: float = 0.07
    parameters: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Contrastive", "loss", self.loss, ("soft-clip", "info-nce"))
        check_positive("Contrastive", "temperature", self.temperature)

    _least_held_out: ClassVar[int] = 4

    def _trains(self) -> bool:
        return True

    def _stages(self, encoder: nn.Module) -> Stages:
        names = [name for name, _ in encoder.named_parameters()]
        return [(0, match_names("Contrastive", names, self.parameters))] if self.parameters else []

    def _loss(self, support: Support) -> StepLoss:
        if support.classes is not None:
            raise ValueError('Contrastive: targets must be embeddings; pass kind="values" to Support.of')
        whole = soft_clip if self.loss == "soft-clip" else info_nce

        def loss(model: nn.Module, inputs: Tensor, targets: Tensor, step: Step) -> Tensor:
            if model.training and step.progress < self.mixco:
                mixed = mix_inputs(inputs, step.generator)
                return mixco_loss(model(mixed.inputs), targets, mixed.partner, mixed.share, self.temperature)
            return whole(model(inputs), targets, self.temperature)

        return loss
