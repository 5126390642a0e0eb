"""A trained MtM as a predictor."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from neurokern.evaluation.tasks import SCHEME_OF_TASK
from neurokern.models import MtM


class _RateModel(Protocol):
    def predict_rates(
        self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None = None
    ) -> Tensor: ...


class MtMPredictor:
    """Predict with a model, telling it the masking scheme of each task.

    A model that knows a single scheme is told that one in every task: a prompt that was never trained would
    be noise, and attention in one direction a thing it never saw.

    Parameters
    ----------
    model : MtM
        Or anything with its ``predict_rates(counts, session, scheme, hidden)``.
    session : str
        Name under which the model knows the session.
    name : str, default "MtM"
    device : torch.device or str, optional
        Where counts are sent; the device of the model's first parameter by default.
    """

    leaves_out_by_itself = False

    def __init__(
        self, model: _RateModel, session: str, *, name: str = "MtM", device: torch.device | str | None = None
    ) -> None:
        self.name = name
        self._model = model
        self._session = session
        if device is None and isinstance(model, torch.nn.Module):
            device = next(model.parameters()).device
        self._device = torch.device(device or "cpu")
        schemes = model.config.schemes if isinstance(model, MtM) else ()
        self._only = schemes[0] if len(schemes) == 1 else None

    @torch.inference_mode()
    def predict(self, counts: Tensor, task: str, hidden: Tensor) -> Tensor:
        """Return the model's rates, ``(B, T, N)`` on the CPU."""
        visible = counts.to(self._device)
        unseen = hidden.to(self._device)
        rates = self._model.predict_rates(visible, self._session, self._only or SCHEME_OF_TASK[task], unseen)
        return rates.float().cpu()
