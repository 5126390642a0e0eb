"""What an adapter makes of a model: it predicts, and is kept as a file of the adapter's own weights."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from neurokern._hub_methods import HubMethods
from neurokern.adapters.files import fingerprint, read_adapter, write_adapter
from neurokern.adapters.heads import Head
from neurokern.adapters.low_rank import add_low_rank, low_rank_parameters, merge_low_rank
from neurokern.adapters.scores import score_predictions
from neurokern.adapters.session_encoder import SessionEncoder
from neurokern.adapters.shared_space import SubjectInput
from neurokern.adapters.support import Inputs, as_inputs

__all__ = ["AdaptedModel", "Pipeline"]

_ROWS_AT_ONCE = 256


class Pipeline(nn.Module):
    """An input layer, an encoder and a head, one after the other."""

    def __init__(self, front: nn.Module, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.front, self.encoder, self.head = front, encoder, head

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(samples, ...)`` to outputs ``(samples, ...)``."""
        for part in (self.front, self.encoder):
            inputs = part(inputs.to(dtype_of(part, inputs.dtype)))
        return self.head(inputs.to(dtype_of(self.head, inputs.dtype)))


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each part back into its own afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def dtype_of(module: nn.Module, otherwise: torch.dtype) -> torch.dtype:
    """Return the type of a module's weights, or ``otherwise`` where it has none."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), otherwise)


@dataclass(frozen=True)
class Structure:
    """What has to be built before weights can be loaded; plain values that JSON can hold."""

    head: dict[str, Any] | None = None
    front: dict[str, Any] | None = None
    low_rank: dict[str, Any] | None = None
    session: dict[str, str] | None = None

    def build(self, model: nn.Module, *, copied: bool = True) -> Pipeline:
        """Return a pipeline around a copy of the model, or around the model itself."""
        encoder = model
        if self.session is not None and not isinstance(model, SessionEncoder):
            encoder = SessionEncoder(model, **self.session)  # type: ignore[arg-type]
        like = next((p for p in encoder.parameters() if p.is_floating_point()), torch.zeros(()))
        if copied:
            encoder = copy.deepcopy(encoder)
        if self.low_rank is not None:
            add_low_rank(encoder, **self.low_rank)
        # Beside an encoder of half precision, what learns stays in single precision.
        dtype = torch.promote_types(like.dtype, torch.float32)
        front, head = (part.to(like.device, dtype) for part in self.added())
        return Pipeline(front, encoder, head)

    def added(self) -> tuple[nn.Module, nn.Module]:
        """Return a new input layer and a new head."""
        front = nn.Identity() if self.front is None else SubjectInput(**self.front)
        return front, nn.Identity() if self.head is None else Head(**self.head)

    def check_sizes(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise a ValueError unless input layer and head have the shapes of the stored ones.

        They are built on the meta device, where absurd sizes take no memory.
        """
        with torch.device("meta"):
            parts = dict(zip(("front", "head"), self.added(), strict=True))
        for part, module in parts.items():
            for name, value in module.state_dict().items():
                stored = tensors.get(f"{part}.{name}")
                if stored is None or stored.shape != value.shape:
                    has = "nothing" if stored is None else f"shape {tuple(stored.shape)}"
                    raise ValueError(
                        f"{part}.{name} must have shape {tuple(value.shape)}, the file has {has}"
                    )


@dataclass(frozen=True, eq=False, kw_only=True)
class AdaptedModel(HubMethods):
    """A model with an adapter on it.

    Attributes
    ----------
    pipeline : nn.Module
        Input layer, encoder and head. The encoder is a copy in evaluation mode where the adapter changes it,
        else the model itself.
    adapter : str
        Name of the adapter.
    classes : array or None
        Labels, where classes are predicted.
    n_trainable : int
        Numbers that were fitted.
    seconds : float
        Of fitting, with the choice of epochs and learning rate.
    chosen : dict
        What was chosen on the support set: epochs, learning rate, held-out loss.
    support : dict
        How large the support set was: samples, groups, classes and the fewest and most samples of a class.
    fitted_on : nn.Module or str
        The encoder before adaptation, or the SHA-256 of its weights.
    """

    pipeline: Pipeline
    adapter: str
    structure: Structure
    own_names: tuple[str, ...]
    fitted_on: nn.Module | str
    classes: np.ndarray | None = None
    n_trainable: int = 0
    seconds: float = 0.0
    chosen: Mapping[str, Any] = field(default_factory=dict)
    support: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """SHA-256 of the weights of the encoder that the adapter was fitted on."""
        return self.fitted_on if isinstance(self.fitted_on, str) else fingerprint(self.fitted_on)

    @property
    def encoder(self) -> nn.Module:
        """The model, adapted."""
        return self.pipeline.encoder

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, values or embeddings, with gradients; inputs on the model's device."""
        return self.pipeline(inputs)

    __call__ = forward

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> Tensor:
        """Return logits, values or embeddings on the CPU, without a graph for gradients."""
        values, _ = as_inputs("AdaptedModel", inputs)
        device = next((p.device for p in self.pipeline.parameters()), torch.device("cpu"))
        with evaluation_mode(self.pipeline):
            return torch.cat([self.pipeline(rows.to(device)).cpu() for rows in values.split(_ROWS_AT_ONCE)])

    def predict(self, inputs: Inputs) -> np.ndarray | Tensor:
        """Return labels as an array of shape (samples,), or values or embeddings as a tensor."""
        outputs = self.outputs(inputs)
        return outputs if self.classes is None else self.classes[outputs.argmax(1).numpy()]

    def predict_proba(self, inputs: Inputs) -> Tensor:
        """Return the softmax of the logits, ``(samples, classes)``; ValueError where values are predicted."""
        if self.classes is None:
            raise ValueError("AdaptedModel.predict_proba: this adapter predicts values, not classes")
        return self.outputs(inputs).softmax(1)

    def score(
        self,
        inputs: Inputs,
        targets: Tensor | np.ndarray | Sequence[object],
        *,
        groups: np.ndarray | None = None,
        confidence: float = 0.95,
        n_bootstrap: int = 2000,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Score the predictions for samples that the adapter has not learned from.

        Parameters
        ----------
        inputs : tensor, array, BinnedSession or SpikeBatch
        targets : labels or values of shape (samples, ...)
            As in :meth:`Support.of`.
        groups : array of shape (samples,), optional
            Trial or block of each sample, drawn as a whole by the bootstrap.
        confidence, n_bootstrap, seed
            Of the interval.

        Returns
        -------
        table : DataFrame
            One row: ``method, metric, mean, low, high, chance, n_samples``; a table for the card, as in
            ``save_pretrained(..., metrics={"held-out trials": table})``.
        """
        truth = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
        predicted = np.asarray(self.predict(inputs))
        if self.classes is None and truth.ndim == 1:
            truth = truth[:, None]
        if truth.shape != predicted.shape:
            raise ValueError(
                f"AdaptedModel.score: targets must have shape {predicted.shape}, got {truth.shape}"
            )
        table = score_predictions(
            predicted,
            truth,
            groups=groups,
            kind="values" if self.classes is None else "classes",
            confidence=confidence,
            n_bootstrap=n_bootstrap,
            seed=seed,
        )
        table.insert(0, "method", self.adapter)
        return table

    def state_dict(self) -> dict[str, Tensor]:
        """Return the adapter's own weights: those of input layer and head, and all that it changed."""
        state = self.pipeline.state_dict()
        return {name: state[name] for name in self.own_names}

    def merge(self) -> nn.Module:
        """Return a copy of the encoder with low-rank updates added to its weights."""
        return merge_low_rank(copy.deepcopy(self.encoder))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the adapter's own weights (safetensors) and what they are (JSON); whole or not at all.

        Raises
        ------
        TypeError
            If the labels are neither text nor numbers.
        ValueError
            If ``folder`` exists and holds other things.
        """
        description = {
            "adapter": self.adapter,
            "structure": {k: v for k, v in vars(self.structure).items() if v is not None},
            "classes": _plain_classes(self.classes),
            "n_trainable": self.n_trainable,
            "seconds": self.seconds,
            "chosen": dict(self.chosen),
            "support": dict(self.support),
            "base": self.base,
        }
        return write_adapter(folder, description, self.state_dict())

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], model: nn.Module, *, check_base: bool = True
    ) -> AdaptedModel:
        """Read an adapter and put it on a copy of the model that it was fitted on.

        Parameters
        ----------
        folder : path
        model : nn.Module
            The base model; not changed.
        check_base : bool, default True
            Refuse a model whose weights are not those that the adapter was fitted on.

        Raises
        ------
        FileNotFoundError
            If the folder or one of its files is missing.
        ValueError
            If a file is cut short, of another format, or does not fit the model.
        """
        description, tensors = read_adapter(folder, "")
        try:
            structure = Structure(**description["structure"])
            structure.check_sizes(tensors)
            classes = description["classes"]
            names = ("adapter", "n_trainable", "seconds", "chosen")
            facts = {name: description[name] for name in names} | {"fitted_on": description["base"]}
            facts["support"] = dict(description.get("support") or {})  # not written by early versions
            structure = _with_session(structure, model, facts["fitted_on"])
            base = fingerprint(Structure(session=structure.session).build(model, copied=False).encoder)
            pipeline = structure.build(model)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"AdaptedModel.load: {folder} does not fit the model: {error}") from error
        if check_base and base != facts["fitted_on"]:
            raise ValueError(
                f"AdaptedModel.load: the adapter in {folder} was fitted on a model with other weights; "
                "load that model, or pass check_base=False"
            )
        _check_tensors(tensors, pipeline, str(folder))
        pipeline.load_state_dict(tensors, strict=False)
        return cls(
            pipeline=pipeline.eval(),
            structure=structure,
            own_names=tuple(tensors),
            classes=None if classes is None else np.asarray(classes),
            **facts,
        )


def _with_session(structure: Structure, model: nn.Module, base: str) -> Structure:
    """Return the structure with the session by the name that this model knows it under.

    Where the name was withheld, or the model was shared under pseudonyms, it is the one with the weights that
    the adapter was fitted on.
    """
    known = getattr(model, "sessions", None)
    if structure.session is None or known is None or structure.session["session"] in known:
        return structure
    for name in known:
        named = dataclasses.replace(structure, session={**structure.session, "session": name})
        if fingerprint(Structure(session=named.session).build(model, copied=False).encoder) == base:
            return named
    raise ValueError(
        f"none of its {len(known)} sessions has the weights that the adapter was fitted on; stitch the model "
        "to that session first, or load the model that was shared with the adapter"
    )


def _check_tensors(tensors: Mapping[str, Tensor], pipeline: Pipeline, file: str) -> None:
    """Raise unless every tensor fits the pipeline, and all that the adapter adds is there."""
    known = pipeline.state_dict()
    for name, value in tensors.items():
        if name not in known or known[name].shape != value.shape or known[name].dtype != value.dtype:
            has = f"{tuple(known[name].shape)}, {known[name].dtype}" if name in known else "nothing"
            raise ValueError(
                f"AdaptedModel.load: {name} in {file} is {tuple(value.shape)}, {value.dtype}, where the "
                f"model has {has}"
            )
    updates = {f"encoder.{name}" for name in low_rank_parameters(pipeline.encoder)}
    added = {name for name in known if name.startswith(("front.", "head."))} | updates
    if missing := sorted(added - tensors.keys()):
        raise ValueError(f"AdaptedModel.load: {file} lacks {missing[:4]}")


def own_names(pipeline: Pipeline, base: nn.Module) -> tuple[str, ...]:
    """Names of all weights that the base does not have, or has with other values."""
    before = base.state_dict()
    names = []
    for name, value in pipeline.state_dict().items():
        plain = name.removeprefix("encoder.")
        same = name.startswith("encoder.") and plain in before and _same(before[plain], value)
        if not same:
            names.append(name)
    return tuple(names)


def _same(first: Tensor, second: Tensor) -> bool:
    return first.data_ptr() == second.data_ptr() or torch.equal(first, second.to(first.device))


def _plain_classes(classes: np.ndarray | None) -> list[Any] | None:
    if classes is None:
        return None
    values = classes.tolist()
    if not all(isinstance(value, (str, int, float, bool)) for value in values):
        raise TypeError(f"AdaptedModel.save: labels must be text or numbers, got {values[:3]}")
    return values
