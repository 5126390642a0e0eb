"""A short way to MtM for one population: sizes in, counts in, log-rates out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurokern.models.config import MtMConfig
from neurokern.models.masking import BIN_SCHEMES
from neurokern.models.mtm import MtM

SESSION = "session"
SCHEME_OF_MODE = {
    "co-smoothing": "neuron",
    "co-smooth": "neuron",
    "neurons": "neuron",
    "unit": "neuron",
    "forward": "causal",
    "forward-prediction": "causal",
    "time": "causal",
    "temporal": "causal",
    "intra": "intra-region",
    "inter": "inter-region",
    "region": "inter-region",
}


class MultiTaskMasking(nn.Module):
    """An :class:`MtM` that knows one session, under a shorter call.

    Parameters
    ----------
    n_neurons : int
        Units of the session.
    embed_dim : int, default 512
        Width of the trunk, a multiple of ``n_heads``.
    n_heads : int, default 8
    n_bins : int, default 100
        Most time bins of a window.
    regions : sequence of str of length n_neurons, optional
    **changes
        Other fields of :class:`MtMConfig`, in place of those of ``MtMConfig.paper()``.

    Attributes
    ----------
    mtm : MtM
        The model itself, which training, evaluation and adapters take; its session is ``"session"``.

    Examples
    --------
    >>> model = MultiTaskMasking(30, 64, 4)
    >>> counts = torch.poisson(torch.ones(8, 50, 30))
    >>> hidden = [3, 7]
    >>> log_rates = model(counts, "neuron", hidden)
    >>> target_mask = model.hidden_mask(counts, "neuron", hidden).expand_as(counts)
    >>> loss = poisson_loss(log_rates, counts, target_mask, "mean")
    """

    def __init__(
        self,
        n_neurons: int,
        embed_dim: int = 512,
        n_heads: int = 8,
        *,
        n_bins: int = 100,
        regions: Sequence[str] | None = None,
        **changes: Any,
    ) -> None:
        super().__init__()
        sizes = {"hidden_size": embed_dim, "n_heads": n_heads, "mlp_size": 2 * embed_dim, "n_bins": n_bins}
        self.mtm = MtM(MtMConfig.paper(**{**sizes, **changes}))
        self.mtm.add_session(SESSION, n_neurons, regions)

    def forward(
        self,
        x: Tensor | np.ndarray,
        mode: str = "neuron",
        mask_indices: Tensor | np.ndarray | Sequence[int] | None = None,
    ) -> Tensor:
        """Predict the log-rate of every unit in every bin.

        Parameters
        ----------
        x : array of shape (batch, bins, n_neurons)
            Spike counts of any type of number. Not written to.
        mode : str, default "neuron"
            Masking scheme that the model is told: one of its schemes, also written with "_", or
            "co-smoothing" (neuron), "forward-prediction", "time" (causal), "intra", "inter", "region"
            (inter-region).
        mask_indices : optional
            What to hide: numbers of units; for "causal", numbers of bins; or a bool mask that broadcasts to
            ``x``. None hides nothing: the model sees all of ``x``, and is told the mode only. This is what
            decoding from its states takes, and what to do if ``x`` holds zeros where counts are hidden.

        Returns
        -------
        log_rates : tensor of shape (batch, bins, n_neurons)

        Raises
        ------
        ValueError
            If the mode is unknown, an index is out of range, or ``x`` does not fit.
        """
        scheme, counts = self._scheme(mode), self._counts(x)
        return self.mtm(counts, SESSION, scheme, self._hidden(counts, scheme, mask_indices))

    def embed(
        self,
        x: Tensor | np.ndarray,
        mode: str = "neuron",
        mask_indices: Tensor | np.ndarray | Sequence[int] | None = None,
    ) -> Tensor:
        """Return the trunk's states, ``(batch, bins, embed_dim)``; arguments as in :meth:`forward`."""
        scheme, counts = self._scheme(mode), self._counts(x)
        return self.mtm.embed(counts, SESSION, scheme, self._hidden(counts, scheme, mask_indices))

    def hidden_mask(
        self, x: Tensor | np.ndarray, mode: str, mask_indices: Tensor | np.ndarray | Sequence[int] | None
    ) -> Tensor:
        """Return what :meth:`forward` hides, a bool tensor that broadcasts to ``x``: the loss's targets."""
        counts = self._counts(x)
        hidden = self._hidden(counts, self._scheme(mode), mask_indices)
        return counts.new_zeros(1, 1, 1, dtype=torch.bool) if hidden is None else hidden

    def _scheme(self, mode: str) -> str:
        schemes = self.mtm.config.schemes
        name = str(mode).lower().replace("_", "-").removesuffix("-mask").removesuffix("-masking")
        scheme = name if name in schemes else SCHEME_OF_MODE.get(name, name)
        if scheme not in schemes:
            known = ", ".join(map(repr, (*schemes, *(m for m, s in SCHEME_OF_MODE.items() if s in schemes))))
            raise ValueError(f"MultiTaskMasking: mode must be one of {known}, got {mode!r}")
        return scheme

    def _counts(self, x: Tensor | np.ndarray) -> Tensor:
        counts = torch.as_tensor(x, device=self.mtm.prompts.device)
        return counts if counts.is_floating_point() else counts.to(self.mtm.prompts.dtype)

    def _hidden(
        self, counts: Tensor, scheme: str, indices: Tensor | np.ndarray | Sequence[int] | None
    ) -> Tensor | None:
        if indices is None or counts.ndim != 3:  # a wrong shape is named by the model
            return None
        chosen = torch.as_tensor(indices, device=counts.device)
        by_bin = scheme in BIN_SCHEMES
        size = counts.shape[1 if by_bin else 2]
        if chosen.dtype == torch.bool:
            hidden = chosen
            if hidden.shape == (size,):
                hidden = hidden[:, None] if by_bin else hidden
        else:
            hidden = _one_hot(chosen, size, "bins" if by_bin else "units")
            hidden = hidden[:, None] if by_bin else hidden
        hidden = hidden.reshape([1] * (3 - hidden.ndim) + list(hidden.shape))
        if hidden.ndim > 3 or any(n not in (1, m) for n, m in zip(hidden.shape, counts.shape, strict=True)):
            raise ValueError(
                f"MultiTaskMasking: a mask must broadcast to x, {tuple(counts.shape)}, "
                f"got {tuple(chosen.shape)}"
            )
        return hidden


def _one_hot(numbers: Tensor, size: int, what: str) -> Tensor:
    """Return a bool tensor of shape (size,), True at the numbers."""
    if (numbers.is_floating_point() and numbers.numel()) or numbers.ndim > 1:
        raise ValueError(
            f"MultiTaskMasking: mask_indices must be integers of shape (n,) or a bool mask, got "
            f"{numbers.dtype} of shape {tuple(numbers.shape)}"
        )
    numbers = numbers.long()
    if numbers.numel() and not (numbers.min() >= 0 and numbers.max() < size):
        raise ValueError(
            f"MultiTaskMasking: mask_indices must number {what} from 0 to {size - 1}, "
            f"got {int(numbers.min())} to {int(numbers.max())}"
        )
    hidden = torch.zeros(size, dtype=torch.bool, device=numbers.device)
    hidden[numbers.flatten()] = True
    return hidden
