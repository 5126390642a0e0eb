"""MtM: a transformer that predicts hidden spike counts from the visible ones, over any number of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neurokern._check import check_choice
from neurokern._hub_methods import HubMethods
from neurokern.models.blocks import EncoderLayer, attention_mask, rotary_turns
from neurokern.models.config import MtMConfig
from neurokern.models.dropout import Dropout
from neurokern.models.groups import Group, group_of_session, groups_of_batch, take_rows
from neurokern.models.input_checks import check_hidden, check_visible
from neurokern.models.networks import output_network, start_of_calibration, token_network
from neurokern.models.patches import PatchPositions
from neurokern.models.regions import RegionTable
from neurokern.models.sessions import SessionStore

if TYPE_CHECKING:
    from neurokern.datasets import SpikeBatch

N_PREFIX = 2  # the session's token and the scheme's


class MtM(HubMethods, SessionStore):
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
        self.token_network: nn.Module = token_network(config)
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
        self.input_dropout = Dropout(config.input_dropout)
        layers = [
            EncoderLayer(size, config.mlp_size, config.n_heads, config.dropout)
            for _ in range(config.n_layers)
        ]
        for layer in layers:
            layer.scale_for_depth(config.n_layers)
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(size)
        self.output_dropout = Dropout(config.output_dropout)
        self.output_network: nn.Module = output_network(config)
        if config.read_in == "factors":
            self.calibration = nn.Parameter(start_of_calibration(config))
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

        Windows share a pass through the trunk, whatever their sessions and schemes. No token is made for
        padding: windows of sessions with different numbers of patches take a pass for each number.

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
        return self.forward_parts([(counts, batch.session, scheme, hidden)])[0]

    def forward_parts(
        self, parts: Sequence[tuple[Tensor, Sequence[str], str | Sequence[str], Tensor | None]]
    ) -> list[Tensor]:
        """Predict log-rates of several batches in one pass through the trunk.

        Batches of other numbers of units stay as they are: no counts are copied and nothing is padded.

        Parameters
        ----------
        parts : sequence of (counts, sessions, scheme, hidden)
            Of each batch the counts, the session of each window, and the rest as in :meth:`forward_batch`.
            All have the same number of bins.

        Returns
        -------
        log_rates : list of tensor
            What :meth:`forward_batch` gives for each.
        """
        read = [self._read_part(*part) for part in parts]
        groups = [group for own, _, _ in read for group in own]
        states = iter(self._encode_groups(groups, [r for _, reads, _ in read for r in reads]))
        return [
            self._write_part(counts, own, [next(states) for _ in own], bypasses)
            for (counts, *_), (own, _, bypasses) in zip(parts, read, strict=True)
        ]

    def _read_part(
        self, counts: Tensor, sessions: Sequence[str], scheme: str | Sequence[str], hidden: Tensor | None
    ) -> tuple[list[Group], list[Tensor], list[Tensor | None]]:
        """Return the groups of a batch, what each reads in, and what bypasses the trunk."""
        if counts.ndim != 3 or len(counts) != len(sessions):
            raise ValueError(
                f"MtM.forward_batch: counts must have shape ({len(sessions)} windows, bins, units), "
                f"got {tuple(counts.shape)}"
            )
        schemes = [scheme] * len(counts) if isinstance(scheme, str) else list(scheme)
        if len(schemes) != len(counts):
            raise ValueError(
                f"MtM.forward_batch: scheme must be a name or {len(counts)} of them, got {len(schemes)}"
            )
        if not schemes:
            raise ValueError("MtM.forward_batch: the batch holds no windows")
        groups = self._groups(sessions, schemes, counts.device)
        reads, bypasses = [], []
        for group in groups:
            seen = take_rows(counts, group.rows)[:, :, : group.n_columns]
            unseen = None if hidden is None else take_rows(hidden, group.rows)
            if unseen is not None and unseen.shape[-1] == counts.shape[2]:
                unseen = unseen[..., : group.n_columns]
            seen = self._check_input(seen, group, unseen)
            causal, evidence = group.schemes[0] == "causal", self._evidence(group.schemes[0])
            read, bypass = group.reader.read_in(seen, unseen, causal, evidence)
            reads.append(read)
            bypasses.append(bypass)
        return groups, reads, bypasses

    def _write_part(
        self, counts: Tensor, groups: list[Group], states: list[Tensor], bypasses: list[Tensor | None]
    ) -> Tensor:
        """Return the log-rates of a batch from the states of its groups."""
        dtype = torch.promote_types(states[0].dtype, torch.float32)
        log_rates = None
        for group, state, bypass in zip(groups, states, bypasses, strict=True):
            rates = group.reader.read_out(self._output(state), bypass, self._calibration(group.schemes[0]))
            if rates.shape == counts.shape and isinstance(group.rows, slice):
                return rates.to(dtype)  # all of the batch, nothing to put together
            if log_rates is None:
                log_rates = torch.zeros(counts.shape, dtype=dtype, device=counts.device)
            log_rates[group.rows, :, : rates.shape[2]] = rates.to(dtype)
        assert log_rates is not None  # a batch holds windows, and each is of a group
        return log_rates

    def _groups(self, sessions: Sequence[str], schemes: list[str], device: torch.device) -> list[Group]:
        """Divide a batch into windows of one read-in, which in the case of factors knows the scheme."""
        for scheme in set(schemes):
            check_choice("MtM", "scheme", scheme, self.config.schemes)
        if self.config.read_in != "factors":
            return groups_of_batch(self, sessions, schemes, device)
        return [
            group
            for name in dict.fromkeys(schemes)
            for group in groups_of_batch(self, sessions, schemes, device, only=name)
        ]

    def _encode_groups(self, groups: list[Group], reads: list[Tensor]) -> list[Tensor]:
        """Run the trunk once for all groups, or once for each where they differ in tokens for a bin."""
        tokens = [group.tokens.expand(len(read), -1) for group, read in zip(groups, reads, strict=True)]
        if self.config.read_in == "patches":
            return [
                self._encode(read, token, group.schemes, group.patch_vectors)
                for group, read, token in zip(groups, reads, tokens, strict=True)
            ]
        schemes = [scheme for group in groups for scheme in group.schemes]
        states = self._encode(torch.cat(reads), torch.cat(tokens), schemes)
        return list(states.split([len(read) for read in reads]))

    def _run(
        self, counts: Tensor, session: str, scheme: str, hidden: Tensor | None
    ) -> tuple[Group, Tensor, Tensor | None, Tensor]:
        """Return the session's group, what it reads in, what bypasses the trunk, and the states."""
        group = group_of_session(self, session)
        counts = self._check_input(counts, group, hidden)
        read, bypass = group.reader.read_in(counts, hidden, scheme == "causal", self._evidence(scheme))
        states = self._encode(read, group.tokens.expand(len(counts), -1), [scheme], group.patch_vectors)
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
        self,
        read: Tensor,
        session_tokens: Tensor,
        schemes: Sequence[str],
        patch_vectors: Tensor | None = None,
    ) -> Tensor:
        """Run the shared part, from what was read in and ``(B, D)`` to states.

        ``(B, T, read)`` gives ``(B, T, D)``, and ``(B, T, patches, read)`` gives ``(B, T, patches, D)``.
        ``schemes`` names one for each window, or one for all.
        """
        n_windows, n_bins = read.shape[:2]
        tokens_per_bin = read.shape[2] if read.ndim == 4 else 1
        bins = self._with_positions(self.token_network(read), patch_vectors)
        prompt = self._prompts(schemes).expand(n_windows, -1)
        prefix = torch.stack([session_tokens, prompt], dim=1).to(bins.dtype)  # (B, 2, D)
        tokens = self.input_dropout(torch.cat([prefix, bins.flatten(1, -2)], dim=1))  # (B, 2 + tokens, D)
        attend = self._attend(schemes, n_bins, tokens_per_bin, tokens.device)
        turns = self._turns(n_bins, tokens_per_bin, tokens.device)
        for layer in self.layers:
            tokens = layer(tokens, attend, turns)
        return self.norm(tokens)[:, N_PREFIX:].unflatten(1, bins.shape[1:-1])

    def _prompts(self, schemes: Sequence[str]) -> Tensor:
        """Return the token of each scheme, ``(1, D)`` if they are all the same."""
        numbers = [self.config.schemes.index(scheme) for scheme in schemes]
        if len(set(numbers)) == 1:
            return self.prompts[numbers[0]][None]
        return self.prompts[torch.tensor(numbers, device=self.prompts.device)]

    def _attend(
        self, schemes: Sequence[str], n_bins: int, tokens_per_bin: int, device: torch.device
    ) -> Tensor | None:
        """Return which token may look at which, for all windows or for each, ``(B, 1, L, L)``."""
        causal = [scheme == "causal" for scheme in schemes]
        mask = attention_mask(
            N_PREFIX,
            n_bins,
            causal=any(causal),
            strict=self.config.strict_causal,
            tokens_per_bin=tokens_per_bin,
            device=device,
        )
        if mask is None or all(causal):
            return mask
        both_ways = torch.tensor([not c for c in causal], device=device)
        return mask | both_ways[:, None, None, None]

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
        if hidden is not None:
            check_hidden(hidden, counts)
        if counts.device.type == "cpu" and counts.numel() and not torch.compiler.is_compiling():
            check_visible(counts, hidden, group)
        return counts.to(self.prompts.dtype)
