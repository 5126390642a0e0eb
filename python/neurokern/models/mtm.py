"""MtM: a transformer that predicts hidden spike counts from the visible ones, over any number of sessions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neurokern._check import check_choice
from neurokern.models.blocks import EncoderLayer, attention_mask, rotary_turns
from neurokern.models.config import MtMConfig
from neurokern.models.groups import Group, group_of_session, groups_of_batch, take_rows
from neurokern.models.patches import PatchPositions
from neurokern.models.regions import RegionTable
from neurokern.models.sessions import SessionStore

if TYPE_CHECKING:
    from neurokern.datasets import SpikeBatch

N_PREFIX = 2  # the session's token and the scheme's


class MtM(SessionStore):
    """Multi-task masking: one transformer for all sessions, with a read-in and a read-out for each.

    A time bin is a token: the counts of its units go through the session's read-in, a small network shared by
    all sessions, and the trunk; the session's read-out makes them log-rates. Two prefix tokens tell the trunk
    the session and the masking scheme. The architecture is that of [1]_ with ``MtMConfig.paper()``, and of
    its NDT2 variant, with several tokens for each bin, with ``MtMConfig.ndt2()``.

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

    # Parameters of two dimensions that are no matrices: a decay would draw them to 0 for nothing.
    EMBEDDINGS = (
        "positions",
        "patch_positions.space",
        "patch_positions.time",
        "prompts",
        "calibration",
        "region_table.weight",
    )

    def __init__(self, config: MtMConfig | None = None) -> None:
        config = config or MtMConfig.paper()
        super().__init__(config)
        size = config.hidden_size
        self.token_network: nn.Module = _token_network(config)
        self.positions: nn.Parameter | None = None
        self.patch_positions: PatchPositions | None = None
        if config.read_in == "patches":
            timed = config.position == "learned"
            self.patch_positions = PatchPositions(
                config.max_patches, config.n_bins, size, config.token_std, timed
            )
        elif config.position == "learned":
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
        self.output_network: nn.Module = _output_network(config)
        if config.read_in == "factors":
            self.calibration = nn.Parameter(_start_of_calibration(config))
        if not config.session_tokens:
            self.common_token = nn.Parameter(torch.randn(size) * config.token_std)
        if config.region_embeddings:
            self.region_table = RegionTable(size if config.read_in == "patches" else config.stitch_size)
        self.parts = nn.ModuleList()  # by number and not by name: names may hold dots, which torch forbids

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
            True where a count is hidden and not just zero. ``MtMConfig.paper()`` and ``ndt2()`` cannot tell
            the two apart and do not need it; with "factors" and "embeddings" it should be given whenever
            something is hidden.

        Returns
        -------
        log_rates : tensor of shape (B, T, N)
            Natural logarithm of the expected count of each bin.

        Raises
        ------
        ValueError
            If the session or the scheme is unknown, or ``counts`` does not fit the session.
        """
        group, _, bypass, states = self._run(counts, session, scheme, hidden)
        return group.reader.read_out(self._output(states), bypass, self._calibration(scheme))  # (B, T, N)

    def embed(self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None = None) -> Tensor:
        """Return the trunk's states of the bins, ``(B, T, hidden_size)``; arguments as in :meth:`forward`.

        The state of a bin that is several patches is the mean of theirs.
        """
        states = self._run(counts, session, scheme, hidden)[3]
        return states.mean(2) if states.ndim == 4 else states

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
        self,
        batch: SpikeBatch,
        scheme: str | Sequence[str],
        *,
        counts: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Predict log-rates of windows from several sessions.

        Windows share a pass through the trunk. No trunk token is made for padding: windows of sessions with
        different numbers of patches go through it in groups of one number, and so do windows of different
        schemes.

        Parameters
        ----------
        batch : SpikeBatch
            Windows padded to the largest number of units; says the session and the units of each.
        scheme : str, or one for each window
        counts : tensor of shape (B, T, n_units of the largest session), optional
            Masked counts to use in place of ``batch.counts``.
        hidden : bool tensor broadcastable to the same shape, optional
            As in :meth:`forward`.

        Returns
        -------
        log_rates : tensor of shape (B, T, n_units of the largest session)
            Columns beyond the units of a window's session are 0; what the padding holds never matters.
        """
        counts = batch.counts if counts is None else counts
        if counts.ndim != 3 or len(counts) != len(batch.session):
            raise ValueError(
                f"MtM.forward_batch: counts must have shape ({len(batch.session)} windows, bins, units), "
                f"got {tuple(counts.shape)}"
            )
        schemes = [scheme] * len(counts) if isinstance(scheme, str) else list(scheme)
        if len(schemes) != len(counts):
            raise ValueError(
                f"MtM.forward_batch: scheme must be a name or {len(counts)} of them, got {len(schemes)}"
            )
        log_rates = None
        for name in dict.fromkeys(schemes):
            rows = None if len(set(schemes)) == 1 else [k for k, s in enumerate(schemes) if s == name]
            for group, rates in self._predict_groups(batch.session, name, counts, hidden, rows):
                if log_rates is None:
                    log_rates = rates.new_zeros(counts.shape)
                log_rates[group.rows, :, : rates.shape[2]] = rates.to(log_rates.dtype)
        if log_rates is None:
            raise ValueError("MtM.forward_batch: the batch holds no windows")
        return log_rates

    def _predict_groups(
        self,
        sessions: Sequence[str],
        scheme: str,
        counts: Tensor,
        hidden: Tensor | None,
        rows: list[int] | None,
    ) -> list[tuple[Group, Tensor]]:
        """Return each group of the batch with its log-rates, in float32 or wider."""
        groups = groups_of_batch(self, sessions, counts.device, rows)
        evidence, calibration = self._evidence(scheme), self._calibration(scheme)
        reads, bypasses = [], []
        for group in groups:
            seen = take_rows(counts, group.rows)[:, :, : group.n_columns]
            unseen = None if hidden is None else take_rows(hidden, group.rows)
            if unseen is not None and unseen.shape[2] > 1:
                unseen = unseen[:, :, : group.n_columns]
            seen = self._check_input(seen, group, unseen)
            read, bypass = group.reader.read_in(seen, unseen, scheme == "causal", evidence)
            reads.append(read)
            bypasses.append(bypass)
        states = self._encode_groups(groups, reads, scheme)
        predicted = []
        for group, state, bypass in zip(groups, states, bypasses, strict=True):
            rates = group.reader.read_out(self._output(state), bypass, calibration)
            predicted.append((group, rates.to(torch.promote_types(rates.dtype, torch.float32))))
        return predicted

    def _encode_groups(self, groups: list[Group], reads: list[Tensor], scheme: str) -> list[Tensor]:
        """Run the trunk once for all groups, or once for each where they differ in tokens for a bin."""
        tokens = [group.tokens.expand(len(read), -1) for group, read in zip(groups, reads, strict=True)]
        if self.config.read_in == "patches":
            return [
                self._encode(read, token, scheme, group.patch_vectors)
                for group, read, token in zip(groups, reads, tokens, strict=True)
            ]
        states = self._encode(torch.cat(reads), torch.cat(tokens), scheme)
        return list(states.split([len(read) for read in reads]))

    def _run(
        self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None
    ) -> tuple[Group, Tensor, Tensor | None, Tensor]:
        """Return the session's group, what it reads in, what bypasses the trunk, and the states."""
        group = group_of_session(self, session)
        counts = self._check_input(counts, group, hidden)
        read, bypass = group.reader.read_in(counts, hidden, scheme == "causal", self._evidence(scheme))
        states = self._encode(read, group.tokens.expand(len(counts), -1), scheme, group.patch_vectors)
        return group, read, bypass, states

    def _evidence(self, scheme: str) -> float:
        check_choice("MtM", "scheme", scheme, self.config.schemes)
        return self.config.evidence[self.config.schemes.index(scheme)] if self.config.evidence else 1.0

    def _calibration(self, scheme: str) -> Tensor | None:
        if self.config.read_in != "factors":
            return None
        return self.calibration[self.config.schemes.index(scheme)]

    def _output(self, states: Tensor) -> Tensor:
        return self.output_network(self.output_dropout(states))

    def _encode(
        self, read: Tensor, session_tokens: Tensor, scheme: str, patch_vectors: Tensor | None = None
    ) -> Tensor:
        """Run the shared part, from what was read in and ``(B, D)`` to states.

        ``(B, T, read)`` gives ``(B, T, D)``, and ``(B, T, patches, read)`` gives ``(B, T, patches, D)``.
        """
        n_windows, n_bins = read.shape[:2]
        tokens_per_bin = read.shape[2] if read.ndim == 4 else 1
        bins = self._with_positions(self.token_network(read), patch_vectors)
        prompt = self.prompts[self.config.schemes.index(scheme)].expand(n_windows, -1)
        prefix = torch.stack([session_tokens, prompt], dim=1).to(bins.dtype)  # (B, 2, D)
        tokens = self.input_dropout(torch.cat([prefix, bins.flatten(1, -2)], dim=1))  # (B, 2 + tokens, D)
        attend = attention_mask(
            N_PREFIX,
            n_bins,
            causal=scheme == "causal",
            strict=self.config.strict_causal,
            tokens_per_bin=tokens_per_bin,
            device=tokens.device,
        )
        turns = self._turns(n_bins, tokens_per_bin, tokens.device)
        for layer in self.layers:
            tokens = layer(tokens, attend, turns)
        return self.norm(tokens)[:, N_PREFIX:].unflatten(1, bins.shape[1:-1])

    def _with_positions(self, bins: Tensor, patch_vectors: Tensor | None) -> Tensor:
        n_bins = bins.shape[1]
        if self.positions is not None:
            bins = bins + self.positions[:n_bins]
        if self.patch_positions is not None:
            bins = bins + self.patch_positions(n_bins, bins.shape[2])
        if patch_vectors is not None:
            bins = bins + patch_vectors[..., None, :, :]  # (patches, D) or (B, patches, D)
        return bins

    def _turns(self, n_bins: int, tokens_per_bin: int, device: torch.device) -> Tensor | None:
        """Return by how much tokens turn; the prefix does not."""
        if self.config.position != "rotary":
            return None
        bins = torch.arange(n_bins, device=device).repeat_interleave(tokens_per_bin)
        times = torch.cat([bins.new_zeros(N_PREFIX), bins])
        return rotary_turns(times, self.config.hidden_size // self.config.n_heads)

    def _check_input(self, counts: Tensor, group: Group, hidden: Tensor | None) -> Tensor:
        """Return counts in the type of the weights, or raise."""
        n_units, n_bins = group.n_columns, self.config.n_bins
        fits = counts.ndim == 3 and counts.shape[2] == n_units and 1 <= counts.shape[1] <= n_bins
        if not fits:
            raise ValueError(
                f"MtM: counts of session {group.name!r} must have shape "
                f"(B, up to {n_bins} bins, {n_units} units), got {tuple(counts.shape)}"
            )
        if not counts.is_floating_point():
            raise TypeError(f"MtM: counts must be floating point, got {counts.dtype}; pass counts.float()")
        if counts.device.type == "cpu" and counts.numel() and not torch.compiler.is_compiling():
            _check_visible(counts, hidden, group)
        return counts.to(self.prompts.dtype)


def _check_visible(counts: Tensor, hidden: Tensor | None, group: Group) -> None:
    """Raise for counts that are negative, NaN or infinite; what is hidden or padding may hold anything.

    On a GPU nobody looks: that would wait for the device.
    """
    for unseen in (hidden, None if group.real is None else ~group.real):
        counts = counts if unseen is None else counts.masked_fill(unseen, 0.0)
    low, high = counts.detach().aminmax()
    if not (low >= 0 and high < torch.inf):  # NaN fails both
        raise ValueError(
            f"MtM: visible counts of session {group.name!r} must be finite and at least 0, "
            f"got values from {low} to {high}"
        )


def _token_network(config: MtMConfig) -> nn.Module:
    """Return what makes tokens of what is read in: a linear layer, or two about a softsign, as published."""
    width = {"patches": config.patch_size, "embeddings": 2 * config.stitch_size}
    read_size = width.get(config.read_in, config.stitch_size)
    if config.embed_size is None:
        return nn.Linear(read_size, config.hidden_size)
    return nn.Sequential(
        nn.Linear(read_size, config.embed_size),
        nn.Softsign(),
        nn.Linear(config.embed_size, config.hidden_size),
    )


def _output_network(config: MtMConfig) -> nn.Module:
    """Return the shared part of the read-out."""
    if config.read_in == "linear":
        return nn.Identity()
    if config.read_in == "patches":
        return nn.Linear(config.hidden_size, config.patch_size)
    network = nn.Linear(config.hidden_size, config.stitch_size)
    nn.init.zeros_(network.weight)  # start at what the factors, or the units' biases, predict alone
    nn.init.zeros_(network.bias)
    return network


def _start_of_calibration(config: MtMConfig) -> Tensor:
    start = torch.zeros(len(config.schemes), 4)
    start[:, 0] = torch.tensor(
        [0.0 if name == "causal" else math.log(config.gain) for name in config.schemes]
    )
    return start
