"""MtM: a transformer that predicts hidden spike counts from the visible ones, over any number of sessions."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from neurokern._check import check_choice
from neurokern.models.blocks import EncoderLayer, attention_mask
from neurokern.models.config import MtMConfig
from neurokern.models.factors import FactorParts
from neurokern.models.stitching import LinearParts, SessionParts

if TYPE_CHECKING:
    from neurokern.datasets import SpikeBatch


class MtM(nn.Module):
    """Multi-task masking: one transformer for all sessions, with a read-in and a read-out for each.

    A time bin is a token: the counts of its units go through the session's read-in, a small network shared by
    all sessions, and the trunk; the session's read-out makes them log-rates. Two prefix tokens tell the trunk
    the session and the masking scheme. The architecture is that of [1]_ with ``MtMConfig.paper()``.

    Parameters
    ----------
    config : MtMConfig, optional
        ``MtMConfig.paper()`` when not given.

    Notes
    -----
    Sessions are known by name and can be added at any time with :meth:`add_session`; two sessions with
    equally many units share nothing. Weights are drawn from torch's global generator: call
    ``torch.manual_seed`` before.

    References
    ----------
    .. [1] Zhang et al., "Towards a 'universal translator' for neural dynamics at single-cell, single-spike
       resolution", arXiv:2407.14668, 2024.

    Examples
    --------
    >>> model = MtM(MtMConfig.paper(n_bins=20)).eval()
    >>> model.add_session("monday", n_units=5)
    >>> model(torch.zeros(2, 20, 5), session="monday", scheme="causal").shape
    torch.Size([2, 20, 5])
    """

    def __init__(self, config: MtMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MtMConfig.paper()
        size = config.hidden_size
        self.token_network: nn.Module = nn.Linear(config.stitch_size, size)
        if config.embed_size is not None:
            self.token_network = nn.Sequential(
                nn.Linear(config.stitch_size, config.embed_size),
                nn.Softsign(),
                nn.Linear(config.embed_size, size),
            )
        self.positions = nn.Parameter(torch.randn(config.n_bins, size) * config.token_std)
        self.prompts = nn.Parameter(torch.randn(len(config.schemes), size) * config.token_std)
        self.input_dropout = nn.Dropout(config.input_dropout)
        layers = [
            EncoderLayer(size, config.mlp_size, config.n_heads, config.dropout)
            for _ in range(config.n_layers)
        ]
        for layer in layers:
            layer.scale_for_depth(config.n_layers)
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(size)
        self.output_dropout = nn.Dropout(config.output_dropout)
        self.output_network: nn.Module = nn.Identity()
        if config.read_in == "factors":
            self.output_network = nn.Linear(size, config.stitch_size)
            nn.init.zeros_(self.output_network.weight)  # start at what the factors alone predict
            nn.init.zeros_(self.output_network.bias)
            start = torch.zeros(len(config.schemes), 4)
            start[:, 0] = torch.tensor(
                [0.0 if name == "causal" else math.log(config.gain) for name in config.schemes]
            )
            self.calibration = nn.Parameter(start)
        if not config.session_tokens:
            self.common_token = nn.Parameter(torch.randn(size) * config.token_std)
        self.parts = nn.ModuleList()  # by number and not by name: names may hold dots, which torch forbids
        self._index_of: dict[str, int] = {}

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the sessions that the model knows, in the order in which they were added."""
        return tuple(self._index_of)

    def add_session(
        self,
        session: str,
        n_units: int,
        regions: Sequence[str] | None = None,
        counts: np.ndarray | Tensor | None = None,
    ) -> None:
        """Give a new session its own read-in, read-out and token.

        Parameters
        ----------
        session : str
            Name under which the session is known from now on.
        n_units : int
        regions : sequence of str of length n_units, optional
            Region of each unit, stored with the model.
        counts : array of shape (windows, bins, n_units), optional
            Counts of the *training* windows of the session. ``MtMConfig.small`` starts from them; ``paper``
            does not look at them.

        Raises
        ------
        ValueError
            If the session is known already, a shape is wrong, or the configuration needs counts and gets
            none.
        """
        self._check_session(session, n_units, regions)
        if counts is not None:
            counts = self._check_counts(counts, n_units)
        if counts is None and self.config.needs_counts:
            raise ValueError(
                f"MtM.add_session: this configuration starts session {session!r} from its spikes; "
                f"pass counts=, the (windows, bins, units) counts of its training windows"
            )
        self._append(session, _make_parts(self.config, n_units, regions, counts))

    def refit_session(self, session: str, counts: np.ndarray | Tensor) -> None:
        """Estimate the parts of a known session anew from more or newer counts; its token stays.

        Parameters
        ----------
        session : str
        counts : array of shape (windows, bins, n_units)
            In the order of time, as for :meth:`add_session`.

        Raises
        ------
        ValueError
            If the session is unknown, the shape is wrong, or its parts have no closed form
            (``read_in="linear"``).
        """
        parts = self.session_parts(session)
        if not isinstance(parts, FactorParts):
            raise ValueError(
                f"MtM.refit_session: the parts of {session!r} are trained, not estimated from counts"
            )
        counts = self._check_counts(counts, parts.n_units)
        device = self.positions.device
        parts.cpu().start_from(counts, self.config)  # windows lie in memory, and one pass over them is enough
        parts.to(device)

    def remove_session(self, session: str) -> None:
        """Forget a session, or raise a ValueError if it is unknown; the others keep their parts."""
        gone = self.session_parts(session)
        kept = [name for name in self._index_of if name != session]
        self.parts = nn.ModuleList(parts for parts in self.parts if parts is not gone)
        self._index_of = {name: number for number, name in enumerate(kept)}

    def with_only(self, session: str) -> MtM:
        """Return a model that shares all weights with this one, but knows one session only.

        What is done to its weights is done to this model's, too; copy it first where that is not meant.
        """
        parts = self.session_parts(session)
        shared = copy.copy(self)
        shared._modules = dict(self._modules)
        shared.parts = nn.ModuleList([parts])
        shared._index_of = {session: 0}
        return shared

    @classmethod
    def with_sessions(
        cls, config: MtMConfig, sessions: Iterable[tuple[str, int, Sequence[str] | None]]
    ) -> MtM:
        """Return a model that knows some sessions (name, units, regions) but nothing of their spikes.

        For weights that are loaded next; a session that is to be trained comes in through
        :meth:`add_session`.
        """
        model = cls(config)
        for session, n_units, regions in sessions:
            model._check_session(session, n_units, regions)
            model._append(session, _make_parts(config, n_units, regions))
        return model

    def _check_session(self, session: str, n_units: int, regions: Sequence[str] | None) -> None:
        if session in self._index_of:
            raise ValueError(f"MtM.add_session: session {session!r} is already known; choose another name")
        if n_units < 1:
            raise ValueError(f"MtM.add_session: n_units must be at least 1, got {n_units}")
        if regions is not None and len(regions) != n_units:
            raise ValueError(
                f"MtM.add_session: regions must name a region for each of {n_units} units, got {len(regions)}"
            )

    def _check_counts(self, counts: np.ndarray | Tensor, n_units: int) -> np.ndarray:
        counts = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else np.asarray(counts)
        if counts.ndim != 3 or counts.shape[2] != n_units or counts.size == 0:
            raise ValueError(
                f"MtM: counts of the session must have shape (windows, bins, {n_units}), got {counts.shape}"
            )
        if not (counts.min() >= 0 and counts.max() < np.inf):  # False for NaN
            raise ValueError("MtM: counts of the session must be finite and at least 0")
        return counts

    def _append(self, session: str, parts: SessionParts) -> None:
        self._index_of[session] = len(self.parts)
        self.parts.append(parts.to(self.positions.device, self.positions.dtype))

    def session_parts(self, session: str) -> SessionParts:
        """Return the parts of a session, or raise a ValueError that names the known ones."""
        if session not in self._index_of:
            known = ", ".join(map(repr, self._index_of)) or "none"
            raise ValueError(
                f"MtM: session {session!r} is unknown (known: {known}); add it with model.add_session(...)"
            )
        return self.parts[self._index_of[session]]  # type: ignore[return-value]

    def forward(self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None = None) -> Tensor:
        """Predict the log-rate of every unit in every bin.

        Parameters
        ----------
        counts : tensor of shape (B, T, N), float
            Spikes per bin of one session, with the hidden entries set to 0. Not written to.
        session : str
        scheme : str
            Masking scheme: picks the prompt token; "causal" also keeps each bin from seeing later ones.
        hidden : bool tensor broadcastable to (B, T, N), optional
            True where a count is hidden and not just zero. ``MtMConfig.paper()`` cannot tell the two apart
            and does not need it; with "factors" it should be given whenever something is hidden.

        Returns
        -------
        log_rates : tensor of shape (B, T, N)
            Natural logarithm of the expected count of each bin.

        Raises
        ------
        ValueError
            If the session or the scheme is unknown, or ``counts`` does not fit the session.
        """
        parts, _, bypass, states = self._run(counts, session, scheme, hidden)
        return parts.read_out(self._output(states), bypass, self._calibration(scheme))  # (B, T, N)

    def embed(self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None = None) -> Tensor:
        """Return the trunk's states of the bins, ``(B, T, hidden_size)``; arguments as in :meth:`forward`."""
        return self._run(counts, session, scheme, hidden)[3]

    def expected_factors(
        self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None = None
    ) -> Tensor:
        """Return the factors that the rates are read from, ``(B, T, stitch_size)``; arguments as in
        :meth:`forward`.

        They are what was read in plus what the trunk adds: few numbers, and better ones to decode from with
        few trials than the trunk's states. ValueError for a model without factors (``read_in="linear"``).
        """
        if self.config.read_in != "factors":
            raise ValueError("MtM.expected_factors: this model has no factors; use embed(...)")
        _, read, _, states = self._run(counts, session, scheme, hidden)
        return read + self._output(states)

    @torch.no_grad()
    def predict_rates(
        self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None = None
    ) -> Tensor:
        """Return expected counts per bin, ``(B, T, N)``, without dropout and without a graph for gradients.

        Arguments as in :meth:`forward`; the module's training mode is the same afterwards.
        """
        was_training = self.training
        self.eval()
        try:
            return self(counts, session, scheme, hidden).float().exp()
        finally:
            self.train(was_training)

    def forward_batch(
        self, batch: SpikeBatch, scheme: str, *, counts: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Predict log-rates of windows from several sessions in one pass through the trunk.

        Parameters
        ----------
        batch : SpikeBatch
            Windows padded to the largest number of units; says the session and the units of each.
        scheme : str
        counts : tensor of shape (B, T, n_units of the largest session), optional
            Masked counts to use in place of ``batch.counts``.
        hidden : bool tensor of the same shape, optional
            As in :meth:`forward`.

        Returns
        -------
        log_rates : tensor of shape (B, T, n_units of the largest session)
            Columns beyond the units of a window's session are 0; what the padding holds never matters.
        """
        counts = batch.counts if counts is None else counts
        rows_of = _rows_of(batch.session, counts.device)
        all_parts = [self.session_parts(session) for session in rows_of]
        reads, bypasses = [], []
        for (session, rows), parts in zip(rows_of.items(), all_parts, strict=True):
            seen = counts[rows, :, : parts.n_units]
            unseen = None if hidden is None else hidden[rows, :, : parts.n_units]
            self._check_input(seen, session)
            read, bypass = parts.read_in(seen, unseen, scheme == "causal", self._evidence(scheme))
            reads.append(read)
            bypasses.append(bypass)
        tokens = [self._token(parts, len(read)) for parts, read in zip(all_parts, reads, strict=True)]
        states = self._output(self._encode(torch.cat(reads), torch.cat(tokens), scheme))
        dtype = torch.promote_types(states.dtype, torch.float32)
        log_rates = torch.zeros(counts.shape, dtype=dtype, device=counts.device)
        calibration = self._calibration(scheme)
        by_session = states.split([len(read) for read in reads])
        for rows, parts, state, bypass in zip(rows_of.values(), all_parts, by_session, bypasses, strict=True):
            log_rates[rows, :, : parts.n_units] = parts.read_out(state, bypass, calibration).to(dtype)
        return log_rates

    def _run(
        self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None
    ) -> tuple[SessionParts, Tensor, Tensor | None, Tensor]:
        """Return the session's parts, what they read in, what bypasses the trunk, and the states."""
        parts = self._check_input(counts, session)
        read, bypass = parts.read_in(counts, hidden, scheme == "causal", self._evidence(scheme))
        states = self._encode(read, self._token(parts, len(counts)), scheme)  # (B, T, D)
        return parts, read, bypass, states

    def _token(self, parts: SessionParts, n_windows: int) -> Tensor:
        token = self.common_token if parts.token is None else parts.token
        return token.expand(n_windows, -1)

    def _evidence(self, scheme: str) -> float:
        check_choice("MtM", "scheme", scheme, self.config.schemes)
        return self.config.evidence[self.config.schemes.index(scheme)] if self.config.evidence else 1.0

    def _calibration(self, scheme: str) -> Tensor | None:
        if self.config.read_in != "factors":
            return None
        return self.calibration[self.config.schemes.index(scheme)]

    def _output(self, states: Tensor) -> Tensor:
        return self.output_network(self.output_dropout(states))

    def _encode(self, read: Tensor, session_tokens: Tensor, scheme: str) -> Tensor:
        """Run the shared part: ``(B, T, stitch_size)`` and ``(B, D)`` to states ``(B, T, D)``."""
        n_windows, n_bins, _ = read.shape
        prompt = self.prompts[self.config.schemes.index(scheme)].expand(n_windows, -1)
        bins = self.token_network(read) + self.positions[:n_bins]  # (B, T, D)
        prefix = torch.stack([session_tokens, prompt], dim=1).to(bins.dtype)  # (B, 2, D)
        tokens = self.input_dropout(torch.cat([prefix, bins], dim=1))  # (B, 2 + T, D)
        attend = attention_mask(
            2, n_bins, causal=scheme == "causal", strict=self.config.strict_causal, device=tokens.device
        )
        for layer in self.layers:
            tokens = layer(tokens, attend)
        return self.norm(tokens)[:, 2:]

    def _check_input(self, counts: Tensor, session: str) -> SessionParts:
        parts = self.session_parts(session)
        fits = counts.ndim == 3 and counts.shape[2] == parts.n_units and counts.shape[1] <= self.config.n_bins
        if not fits or counts.shape[1] == 0:
            raise ValueError(
                f"MtM: counts of session {session!r} must have shape "
                f"(B, up to {self.config.n_bins} bins, {parts.n_units} units), got {tuple(counts.shape)}"
            )
        if not counts.is_floating_point():
            raise TypeError(f"MtM: counts must be floating point, got {counts.dtype}; pass counts.float()")
        return parts


def _rows_of(sessions: Sequence[str], device: torch.device) -> dict[str, Tensor | slice]:
    """Return the rows of each session; of a single one a slice, which needs no copy."""
    rows: dict[str, list[int]] = {}
    for row, session in enumerate(sessions):
        rows.setdefault(session, []).append(row)
    if len(rows) == 1:
        return dict.fromkeys(rows, slice(None))
    return {session: torch.tensor(numbers, device=device) for session, numbers in rows.items()}


def _make_parts(
    config: MtMConfig, n_units: int, regions: Sequence[str] | None, counts: np.ndarray | None = None
) -> SessionParts:
    if config.read_in == "factors":
        return FactorParts(config, n_units, regions, counts)
    return LinearParts(config, n_units, regions)
