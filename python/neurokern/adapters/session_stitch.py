"""Stitching as an adapter: a trained MtM learns a new session without labels; only its parts are saved."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.adapters.files import FORMAT, fingerprint, read_adapter, write_adapter
from neurokern.adapters.stitch import MODES, adapt_session
from neurokern.adapters.support import Inputs, as_inputs

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession
    from neurokern.models import MtM
    from neurokern.training import TrainingConfig

__all__ = ["SessionStitch", "StitchedModel"]

SESSION = "session."  # in names of weights: the parts of the new session, wherever a model keeps them


@dataclass(frozen=True, kw_only=True)
class SessionStitch:
    """Give an MtM the parts of a session that it does not know, by masked prediction; only for MtM.

    Parameters
    ----------
    mode : {"stitch", "full"}, default "stitch"
        "stitch" freezes the trunk: read-in, read-out and token of the session are solved for where the model
        has a closed form for them (``MtMConfig.small``), else trained, as are the vectors of its units where
        the model knows units by vectors (``MtMConfig.modern``; unit identification). "full" lets all learn.
    config : TrainingConfig, optional
        As for :func:`neurokern.adapters.adapt_session`.
    """

    adapts_model: ClassVar[bool] = True

    mode: str = "stitch"
    config: TrainingConfig | None = None

    def __post_init__(self) -> None:
        check_choice("SessionStitch", "mode", self.mode, MODES)

    def fit(
        self, model: MtM, support: BinnedSession, validation: BinnedSession | None = None
    ) -> StitchedModel:
        """Adapt a copy of the model to the session's windows, whose labels are not looked at.

        Parameters
        ----------
        model : MtM
            Must not know the session.
        support : BinnedSession
        validation : BinnedSession, optional
            Later windows to choose the best weights by; used like ``support`` where nothing is trained.

        Raises
        ------
        ValueError
            If the model knows the session, or the session does not fit the model.
        """
        if support.session in model.sessions:
            raise ValueError(
                f"SessionStitch.fit: the model knows {support.session!r} already; rename the recording"
            )
        begun = time.perf_counter()
        adapted = adapt_session(model, support, validation, self.mode, self.config)
        own = _own_weights(adapted, model, support.session)
        n_trained = sum(value.numel() for value in own.values() if value.is_floating_point())
        return StitchedModel(
            model=adapted,
            session=support.session,
            own=tuple(own),
            n_trainable=n_trained,
            seconds=time.perf_counter() - begun,
            fitted_on=model,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class StitchedModel:
    """An MtM that was stitched to a session.

    Attributes
    ----------
    model : MtM
        In evaluation mode; other adapters take it from here.
    session : str
    own : tuple of str
        Names of the adapter's own weights; those of the session's parts begin with ``session.``.
    n_trainable : int
        Numbers that were fitted.
    seconds : float
    fitted_on : MtM or str
        The model before, or the SHA-256 of its weights.
    """

    model: MtM
    session: str
    own: tuple[str, ...]
    n_trainable: int = 0
    seconds: float = 0.0
    fitted_on: MtM | str = ""
    scheme: str = field(default="neuron")

    def predict(self, inputs: Inputs) -> Tensor:
        """Return expected counts per bin, ``(windows, bins, units)``, with nothing hidden."""
        counts, _ = as_inputs("StitchedModel", inputs)
        device = next(self.model.parameters()).device
        chunks = counts.split(256)
        rates = [
            self.model.predict_rates(rows.to(device), self.session, self.scheme).cpu() for rows in chunks
        ]
        return torch.cat(rates)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parts of the session, and all else that differs from the model before."""
        state = _relative_state(self.model, self.session)
        return {name: state[name] for name in self.own}

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the adapter's own weights and what they are, as :meth:`AdaptedModel.save` does."""
        parts = self.model.session_parts(self.session)
        description: dict[str, Any] = {
            "adapter": "SessionStitch",
            "session": self.session,
            "n_units": parts.n_units,
            "regions": None if parts.regions is None else list(parts.regions),
            "n_trainable": self.n_trainable,
            "seconds": self.seconds,
            "base": self.fitted_on if isinstance(self.fitted_on, str) else fingerprint(self.fitted_on),
        }
        return write_adapter(folder, description, self.state_dict())

    @classmethod
    def load(cls, folder: str | os.PathLike[str], model: MtM, *, check_base: bool = True) -> StitchedModel:
        """Read an adapter and put it on a copy of the model that it was fitted on.

        Parameters and Raises as for :meth:`AdaptedModel.load`.
        """
        description, tensors = read_adapter(folder, "SessionStitch")
        try:
            session, n_units = str(description["session"]), int(description["n_units"])
            base, facts = str(description["base"]), {k: description[k] for k in ("n_trainable", "seconds")}
            stitched = _with_session(model, session, n_units, description["regions"])
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(
                f"StitchedModel.load: {FORMAT} in {folder} does not fit the model: {error}"
            ) from error
        if check_base and base != fingerprint(model):
            raise ValueError(
                f"StitchedModel.load: the adapter in {folder} was fitted on a model with other weights; load "
                "that model, or pass check_base=False"
            )
        own = _relative_state(stitched, session)
        for name, value in tensors.items():
            if name not in own or own[name].shape != value.shape:
                raise ValueError(f"StitchedModel.load: {name} in {folder} does not fit the model")
        if missing := sorted({name for name in own if name.startswith(SESSION)} - tensors.keys()):
            raise ValueError(f"StitchedModel.load: {folder} lacks {missing[:4]}")
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)
        device = next(model.parameters()).device
        return cls(
            model=stitched.to(device).eval(), session=session, own=tuple(tensors), fitted_on=base, **facts
        )


def _with_session(model: MtM, session: str, n_units: int, regions: list[str] | None) -> MtM:
    """Return a copy of the model with room for one more session."""
    known = [
        (name, model.session_parts(name).n_units, model.session_parts(name).regions)
        for name in model.sessions
    ]
    grown = type(model).with_sessions(model.config, [*known, (session, n_units, regions)], model.region_names)
    state = grown.state_dict()
    for name, value in model.state_dict().items():
        first = state[name]
        if first.shape == value.shape:
            first.copy_(value)
        else:  # the table of regions, which may have grown
            first[: len(value)].copy_(value)
    return grown


def _relative_state(model: MtM, session: str) -> dict[str, Tensor]:
    """State dict with the session's parts under names that do not depend on where the model keeps them."""
    parts = model.session_parts(session)
    at = next(number for number, known in enumerate(model.parts) if known is parts)
    prefix = f"parts.{at}."
    return {
        SESSION + name.removeprefix(prefix) if name.startswith(prefix) else name: value
        for name, value in model.state_dict().items()
    }


def _own_weights(adapted: MtM, before: MtM, session: str) -> Mapping[str, Tensor]:
    old = before.state_dict()
    return {
        name: value
        for name, value in _relative_state(adapted, session).items()
        if name not in old or old[name].shape != value.shape or not torch.equal(old[name], value)
    }
