"""Which windows of a batch go through one read-in together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from neurokern.models.embeddings import EmbeddedParts, UnitVectors
from neurokern.models.patches import PaddedPatches, PatchParts
from neurokern.models.stitching import SessionParts

if TYPE_CHECKING:
    from neurokern.models.mtm import MtM


class Reader(Protocol):
    """What maps counts to the trunk's input, and its output to log-rates; see :class:`SessionParts`."""

    def read_in(
        self, counts: Tensor, hidden: Tensor | None, causal: bool, evidence: float = 1.0
    ) -> tuple[Tensor, Tensor | None]: ...

    def read_out(
        self, states: Tensor, bypass: Tensor | None, calibration: Tensor | None = None
    ) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Group:
    """Windows of one session, or of several whose units are padded to one number.

    Attributes
    ----------
    rows : int64 tensor or slice
        Their rows in the batch.
    reader : Reader
    n_columns : int
        Units, of the largest session.
    tokens : tensor of shape (1, D) or (windows, D)
        Session tokens.
    patch_vectors : tensor of shape (patches, D) or (windows, patches, D), optional
        Vectors of the regions of patches.
    schemes : sequence of str
        Scheme of each window, or one for all.
    name : str
        For messages.
    real : bool tensor of shape (windows, 1, n_columns), optional
        False for padding; None where there is none.
    """

    rows: Tensor | slice
    reader: Reader
    n_columns: int
    tokens: Tensor
    patch_vectors: Tensor | None
    schemes: Sequence[str]
    name: str
    real: Tensor | None = None


def group_of_session(model: MtM, session: str) -> Group:
    """Return windows that are all of one session."""
    return _group(model, model.session_parts(session), slice(None), (), session)


def groups_of_batch(
    model: MtM,
    sessions: Sequence[str],
    schemes: Sequence[str],
    device: torch.device,
    only: str | None = None,
) -> list[Group]:
    """Divide the windows of a batch, or those of one scheme.

    Parameters
    ----------
    model : MtM
    sessions, schemes : sequence of str
        Session and scheme of each window of the batch.
    device : torch.device
    only : str, optional
        Leave out the windows of other schemes.

    Returns
    -------
    groups : list of Group
        One for all windows of unit embeddings, one for each number of patches, else one for each session.
    """
    rows_of: dict[str, list[int]] = {}
    for row, session in enumerate(sessions):
        if only is None or schemes[row] == only:
            rows_of.setdefault(session, []).append(row)
    parts_of = {session: model.session_parts(session) for session in rows_of}
    together: dict[object, list[str]] = {}
    for session, parts in parts_of.items():
        key = parts.n_patches if isinstance(parts, PatchParts) else session
        together.setdefault("all" if isinstance(parts, EmbeddedParts) else key, []).append(session)
    groups = []
    for names in together.values():
        numbers = [row for name in names for row in rows_of[name]]
        chosen = _index(numbers, device, everything=numbers == list(range(len(sessions))))
        told = [schemes[row] for row in numbers]
        if len(names) == 1:
            groups.append(_group(model, parts_of[names[0]], chosen, told, names[0]))
            continue
        counted = torch.tensor([len(rows_of[name]) for name in names])
        number = torch.arange(len(names)).repeat_interleave(counted).to(device)
        groups.append(_padded_group(model, [parts_of[name] for name in names], chosen, number, told, names))
    return groups


def take_rows(values: Tensor, rows: Tensor | slice) -> Tensor:
    """Return some rows of a tensor; what has one row for all windows stays as it is."""
    return values if isinstance(rows, slice) or len(values) == 1 else values[rows]


def _index(numbers: list[int], device: torch.device, everything: bool) -> Tensor | slice:
    """Return the rows; all of a batch as a slice, which needs no copy."""
    return slice(None) if everything else torch.tensor(numbers, device=device)


def _token(model: MtM, parts: SessionParts) -> Tensor:
    return model.common_token if parts.token is None else parts.token


def _group(model: MtM, parts: SessionParts, rows: Tensor | slice, schemes: Sequence[str], name: str) -> Group:
    reader: Reader = parts.reader(model.region_table) if isinstance(parts, EmbeddedParts) else parts
    vectors = None
    if isinstance(parts, PatchParts) and model.region_table is not None:
        vectors = model.region_table.weight[parts.patch_region]
    return Group(rows, reader, parts.n_units, _token(model, parts)[None], vectors, schemes, name)


def _padded_group(
    model: MtM,
    sessions: list[SessionParts],
    rows: Tensor | slice,
    number: Tensor,
    schemes: Sequence[str],
    names: list[str],
) -> Group:
    """Return windows of several sessions; ``number`` (windows,) says which of the sessions each is of."""
    n_columns = max(parts.n_units for parts in sessions)
    tokens = torch.stack([_token(model, parts) for parts in sessions])[number]
    embedded = [parts for parts in sessions if isinstance(parts, EmbeddedParts)]
    if embedded:
        reader = UnitVectors.of_windows(embedded, number, model.region_table)
        return Group(rows, reader, n_columns, tokens, None, schemes, ", ".join(names), reader.real)
    patched = [parts for parts in sessions if isinstance(parts, PatchParts)]
    n_units = torch.tensor([parts.n_units for parts in patched], device=number.device)[number]
    real = torch.arange(n_columns, device=number.device) < n_units[:, None, None]
    vectors = None
    if model.region_table is not None:
        vectors = model.region_table.weight[torch.stack([parts.patch_region for parts in patched])[number]]
    patches = PaddedPatches(patched[0].n_patches, patched[0].patch_size, real)
    return Group(rows, patches, n_columns, tokens, vectors, schemes, ", ".join(names), real)
