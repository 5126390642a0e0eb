"""Who an MtM knows: sessions and units come and go while the trunk stays."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from neurokern._check import check_choice, check_integer
from neurokern.models.config import MtMConfig
from neurokern.models.embeddings import STARTS, EmbeddedParts, Start
from neurokern.models.factors import FactorParts
from neurokern.models.patches import PatchParts
from neurokern.models.regions import RegionTable
from neurokern.models.stitching import LinearParts, SessionParts

Store = TypeVar("Store", bound="SessionStore")


class SessionStore(nn.Module):
    """The sessions of a model and what belongs to each, by name; base of :class:`MtM`, which makes ``parts``.

    Parameters
    ----------
    config : MtMConfig
    """

    parts: nn.ModuleList

    def __init__(self, config: MtMConfig) -> None:
        super().__init__()
        self.config = config
        self.region_table: RegionTable | None = None
        self._index_of: dict[str, int] = {}

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the sessions that the model knows, in the order in which they were added."""
        return tuple(self._index_of)

    @property
    def region_names(self) -> tuple[str, ...]:
        """Regions that have an embedding, in the order of their rows; () without region embeddings."""
        return () if self.region_table is None else self.region_table.names

    def add_session(
        self,
        session: str,
        n_units: int,
        regions: Sequence[str] | None = None,
        counts: np.ndarray | Tensor | None = None,
        *,
        start: Start = "random",
    ) -> None:
        """Give a new session what it needs of its own: read-in and read-out, or vectors, and a token.

        Parameters
        ----------
        session : str
            Name under which the session is known from now on.
        n_units : int
        regions : sequence of str of length n_units, optional
            Region of each unit, "" where it is not known. Stored with the model.
        counts : array of shape (windows, bins, n_units), optional
            Counts of the *training* windows of the session. ``MtMConfig.small`` starts from them,
            ``MtMConfig.modern`` takes mean rates from them, ``paper`` and ``ndt2`` do not look at them.
        start : {"random", "mean", "nearest"}, default "random"
            For unit embeddings: where a model that was trained on other sessions begins with this one, at the
            mean of the units that it knows (of the same region), or each unit at the known one most like it
            in rate, variability and region, which takes ``counts``.

        Raises
        ------
        ValueError
            If the session is known already, a shape is wrong, or the configuration needs counts and gets
            none.
        """
        self._check_session(session, n_units, regions)
        self._check_start("add_session", start)
        if counts is not None:
            counts = self._check_counts(counts, n_units)
        if counts is None and self.config.needs_counts:
            raise ValueError(
                f"MtM.add_session: this configuration starts session {session!r} from its spikes; "
                f"pass counts=, the (windows, bins, units) counts of its training windows"
            )
        parts = make_parts(self.config, n_units, regions, counts)
        if isinstance(parts, EmbeddedParts):
            device = parts.embedding.device
            parts.to(self._like()).start_like(self._embedded(), start)
            parts.to(device)
        self._append(session, parts)

    def add_units(
        self,
        session: str,
        n_units: int,
        regions: Sequence[str] | None = None,
        counts: np.ndarray | Tensor | None = None,
        *,
        start: Start = "nearest",
    ) -> None:
        """Add units to a known session, behind those that it has.

        Parameters
        ----------
        session : str
        n_units : int
            Number of new units.
        regions, counts, start
            Of the new units alone, as for :meth:`add_session`.

        Raises
        ------
        ValueError
            If the session is unknown, a shape is wrong, or the session has matrices of a fixed size
            (``read_in`` "linear" or "factors").
        """
        old = self.session_parts(session)
        _check_units("add_units", n_units, regions)
        self._check_start("add_units", start)
        if counts is not None:
            counts = self._check_counts(counts, n_units)
        if isinstance(old, EmbeddedParts):
            new = EmbeddedParts(self.config, n_units, regions, counts)
            new.to(self._like()).start_like(self._embedded(), start)
            old.grown(new)
        elif isinstance(old, PatchParts):
            grown = PatchParts(self.config, old.n_units + n_units, _joined(old, n_units, regions))
            old.n_units, old.regions = grown.n_units, grown.regions
            old.patch_region = grown.patch_region.to(old.patch_region.device)
        else:
            raise ValueError(
                f"MtM.add_units: session {session!r} has matrices for {old.n_units} units; "
                f"add the larger session under a new name"
            )
        self._number_regions(old)

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
            If the session is unknown, the shape is wrong, or its parts have no closed form (any ``read_in``
            but "factors").
        """
        parts = self.session_parts(session)
        if not isinstance(parts, FactorParts):
            raise ValueError(
                f"MtM.refit_session: the parts of {session!r} are trained, not estimated from counts"
            )
        counts = self._check_counts(counts, parts.n_units)
        device = parts.loadings.device
        parts.cpu().start_from(counts, self.config)  # windows lie in memory, and one pass over them is enough
        parts.to(device)

    def remove_session(self, session: str) -> None:
        """Forget a session, or raise a ValueError if it is unknown; the others keep their parts."""
        gone = self.session_parts(session)
        kept = [name for name in self._index_of if name != session]
        self.parts = nn.ModuleList(parts for parts in self.parts if parts is not gone)
        self._index_of = {name: number for number, name in enumerate(kept)}

    def with_only(self: Store, session: str) -> Store:
        """Return a model that shares all weights with this one, but knows one session only.

        What is done to its weights is done to this model's, too; copy it first where that is not meant.
        """
        return self.with_names({session: session})

    def with_names(self: Store, names: Mapping[str, str]) -> Store:
        """Return a model that shares all weights with this one and knows its sessions by other names.

        Sessions that ``names`` (old to new) leaves out are not known to it. ValueError for an unknown
        session, or a name that two would have.
        """
        if len(set(names.values())) < len(names):
            raise ValueError(f"MtM.with_names: new names must differ, got {list(names.values())}")
        parts = [self.session_parts(old) for old in names]
        shared = copy.copy(self)
        shared._modules = dict(self._modules)
        shared.parts = nn.ModuleList(parts)
        shared._index_of = {new: number for number, new in enumerate(names.values())}
        return shared

    @classmethod
    def with_sessions(
        cls: type[Store],
        config: MtMConfig,
        sessions: Iterable[tuple[str, int, Sequence[str] | None]],
        region_names: Iterable[str] = (),
    ) -> Store:
        """Return a model that knows some sessions (name, units, regions) but nothing of their spikes.

        For weights that are loaded next; a session that is to be trained comes in through
        :meth:`add_session`. ``region_names`` gives the rows of the region embeddings their order.
        """
        model = cls(config)
        if model.region_table is not None:
            model.region_table.add(map(str, region_names))
        for session, n_units, regions in sessions:
            model._check_session(session, n_units, regions)
            model._append(session, make_parts(config, n_units, regions))
        return model

    def session_parts(self, session: str) -> SessionParts:
        """Return the parts of a session, or raise a ValueError that names the known ones."""
        if session not in self._index_of:
            known = ", ".join(map(repr, self._index_of)) or "none"
            raise ValueError(
                f"MtM: session {session!r} is unknown (known: {known}); add it with model.add_session(...)"
            )
        return self.parts[self._index_of[session]]  # type: ignore[return-value]

    def _check_session(self, session: str, n_units: int, regions: Sequence[str] | None) -> None:
        if not isinstance(session, str):
            raise TypeError(f"MtM.add_session: session must be a name (str), got {session!r}")
        if session in self._index_of:
            raise ValueError(f"MtM.add_session: session {session!r} is already known; choose another name")
        _check_units("add_session", n_units, regions)

    def _check_start(self, function: str, start: str) -> None:
        check_choice(f"MtM.{function}", "start", start, STARTS)

    def _check_counts(self, counts: np.ndarray | Tensor, n_units: int) -> np.ndarray:
        counts = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else np.asarray(counts)
        if counts.ndim != 3 or counts.shape[2] != n_units or counts.size == 0:
            raise ValueError(
                f"MtM: counts of the session must have shape (windows, bins, {n_units}), got {counts.shape}"
            )
        if counts.dtype.kind not in "biuf":
            raise TypeError(f"MtM: counts of the session must be numbers, got {counts.dtype}")
        if not (counts.min() >= 0 and counts.max() < np.inf):  # False for NaN
            raise ValueError("MtM: counts of the session must be finite and at least 0")
        return counts

    def _append(self, session: str, parts: SessionParts) -> None:
        self._index_of[session] = len(self.parts)
        like = self._like()
        self.parts.append(parts if like.is_meta else parts.to(like))
        self._number_regions(parts)

    def _number_regions(self, parts: SessionParts) -> None:
        if self.region_table is not None and parts.regions is not None:  # without any, rows stay 0
            self.region_table.add(parts.regions)
            parts.set_region_rows(self.region_table.rows(parts.regions))

    def _embedded(self) -> list[EmbeddedParts]:
        return [parts for parts in self.parts if isinstance(parts, EmbeddedParts)]

    def _like(self) -> Tensor:
        """Return a weight of the model, whose device and type new ones take."""
        return next(self.parameters())


def make_parts(
    config: MtMConfig, n_units: int, regions: Sequence[str] | None, counts: np.ndarray | None = None
) -> SessionParts:
    """Return what belongs to a session under a configuration."""
    if config.read_in == "factors":
        return FactorParts(config, n_units, regions, counts)
    if config.read_in == "embeddings":
        return EmbeddedParts(config, n_units, regions, counts)
    return (PatchParts if config.read_in == "patches" else LinearParts)(config, n_units, regions)


def _check_units(function: str, n_units: int, regions: Sequence[str] | None) -> None:
    if check_integer(f"MtM.{function}", "n_units", n_units) < 1:
        raise ValueError(f"MtM.{function}: n_units must be at least 1, got {n_units}")
    if regions is not None and (isinstance(regions, str) or len(regions) != n_units):
        got = repr(regions) if isinstance(regions, str) else len(regions)
        raise ValueError(f"MtM.{function}: regions must name a region for each of {n_units} units, got {got}")


def _joined(old: SessionParts, n_units: int, regions: Sequence[str] | None) -> list[str] | None:
    if old.regions is None and regions is None:
        return None
    return [*(old.regions or [""] * old.n_units), *(regions or [""] * n_units)]
