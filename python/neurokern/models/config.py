"""Sizes and options of the MtM model, checked once and stored with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from neurokern._check import check_choice, check_flag, check_fraction, check_integer, check_positive

SCHEMES = ("neuron", "causal", "inter-region", "intra-region")
READ_INS = ("linear", "patches", "embeddings", "factors")
SIZES = (
    "n_bins",
    "hidden_size",
    "n_layers",
    "n_heads",
    "mlp_size",
    "stitch_size",
    "patch_size",
    "max_patches",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MtMConfig:
    """Sizes and options of an :class:`MtM`; checked when made.

    Start from :meth:`paper`, :meth:`ndt2`, :meth:`modern` or :meth:`small`.

    Parameters
    ----------
    n_bins : int
        Most time bins of a window. Shorter windows are accepted.
    hidden_size, n_layers, n_heads, mlp_size : int
        The trunk.
    stitch_size : int
        Width of a session's read-in ``Linear(n_units, stitch_size)``; number of factors for "factors", and
        width of a unit's embedding for "embeddings".
    embed_size : int or None
        Width of the softsign network between read-in and trunk; None for one linear layer.
    patch_size, max_patches : int
        For "patches": units in a patch, and most patches of a session (size of the table of their positions).
    position : {"learned", "rotary"}
        How the trunk knows the time of a bin: a learned vector added to it (published), or queries and keys
        that turn with time [1]_, so that attention sees differences of times.
    region_embeddings : bool
        For "embeddings" and "patches": a vector for each region, by name, added to those of its units, or to
        the patches of which it holds most units. Units without a region share that of the unknown region.
    input_dropout, dropout, output_dropout : float
        On the tokens, three times in each layer, and on what the read-out sees.
    schemes : tuple of str
        Masking schemes that have a prompt token, in the order of their tokens.
    strict_causal : bool
        Close the way from the future to the past through the prefix tokens in the scheme "causal". The
        published model leaves it open; a model that is to run online needs it closed.
    session_tokens : bool
        One token for each session (published), or a common one, which serves sessions never trained on as
        well.
    token_std : float
        Standard deviation of positions, prompt and session tokens at the start.
    read_in : {"linear", "patches", "embeddings", "factors"}
        How counts reach the trunk, and rates leave it. "linear": by a trained map of each session
        (published). "patches": the units of a bin in blocks, each a token, through weights that all sessions
        share (the published NDT2 variant), see :mod:`neurokern.models.patches`. "embeddings": through a
        trained vector for each unit, see :mod:`neurokern.models.embeddings`. "factors": as the expected
        factors of the visible units, see :class:`neurokern.models.factors.FactorParts`; it needs the counts
        of a session when it is added. The options below are for "factors".
    smoothing, memory : float, bins
        Standard deviation of the smoothing over time, and time constant of the memory in the scheme "causal".
    half_life : float, windows
        Of the weights in each unit's recent mean: rates drift over a session.
    scale_power : float
        Counts are divided by their unit's spread to this power: 1 gives every unit the same say, 0 none.
    noise_factor : float
        The noise of the units is taken to be so much larger than fitted, against overconfidence: neighboring
        bins are no independent samples, and sessions are short.
    evidence : tuple of float
        By how much the visible counts are believed in each of the schemes; () for 1 in all.
    gain : float
        Of the departures from the mean rate at the start, but for "causal"; then calibrated in training.
    rate_floor : float
        Smallest rate, as a share of the unit's recent mean.

    References
    ----------
    .. [1] Su et al., "RoFormer: enhanced transformer with rotary position embedding", arXiv:2104.09864, 2021.
    """

    n_bins: int = 100
    hidden_size: int = 512
    n_layers: int = 5
    n_heads: int = 8
    mlp_size: int = 1024
    stitch_size: int = 668
    embed_size: int | None = 1336
    patch_size: int = 128
    max_patches: int = 32
    position: Literal["learned", "rotary"] = "learned"
    region_embeddings: bool = False
    input_dropout: float = 0.2
    dropout: float = 0.4
    output_dropout: float = 0.0
    schemes: tuple[str, ...] = SCHEMES
    strict_causal: bool = False
    session_tokens: bool = True
    token_std: float = 1.0
    read_in: Literal["linear", "patches", "embeddings", "factors"] = "linear"
    smoothing: float = 1.0
    memory: float = 3.0
    half_life: float = 20.0
    scale_power: float = 0.5
    noise_factor: float = 3.5
    evidence: tuple[float, ...] = ()
    gain: float = 1.0
    rate_floor: float = 0.3

    def __post_init__(self) -> None:
        for name in SIZES:
            if check_integer("MtMConfig", name, getattr(self, name)) < 1:
                raise ValueError(f"MtMConfig: {name} must be at least 1, got {getattr(self, name)}")
        if self.embed_size is not None and check_integer("MtMConfig", "embed_size", self.embed_size) < 1:
            raise ValueError(f"MtMConfig: embed_size must be None or at least 1, got {self.embed_size}")
        if self.hidden_size % self.n_heads:
            raise ValueError(
                f"MtMConfig: hidden_size must be a multiple of n_heads, "
                f"got hidden_size={self.hidden_size} and n_heads={self.n_heads}"
            )
        for name in ("input_dropout", "dropout", "output_dropout"):
            check_fraction("MtMConfig", name, getattr(self, name))
        check_choice("MtMConfig", "read_in", self.read_in, READ_INS)
        self._check_options()
        for name in ("smoothing", "memory", "half_life", "noise_factor", "gain", "rate_floor"):
            check_positive("MtMConfig", name, getattr(self, name))
        if self.evidence and (len(self.evidence) != len(self.schemes) or min(self.evidence) <= 0):
            raise ValueError(
                f"MtMConfig: evidence must have a number above 0 for each of {self.schemes}, "
                f"got {self.evidence}"
            )
        if not self.schemes or len(set(self.schemes)) != len(self.schemes):
            raise ValueError(f"MtMConfig: schemes must be different names, at least one, got {self.schemes}")

    def _check_options(self) -> None:
        check_choice("MtMConfig", "position", self.position, ("learned", "rotary"))
        if self.position == "rotary" and self.hidden_size // self.n_heads % 2:
            raise ValueError(
                f"MtMConfig: rotary positions need heads of an even size, "
                f"got hidden_size={self.hidden_size} and n_heads={self.n_heads}"
            )
        if check_flag("MtMConfig", "region_embeddings", self.region_embeddings) and not self.shares_read_in:
            raise ValueError(
                f"MtMConfig: region_embeddings need read_in 'embeddings' or 'patches', got {self.read_in!r}"
            )

    @classmethod
    def paper(cls, **changes: Any) -> MtMConfig:
        """Return the published model, NDT1-stitch with prompts (arXiv:2407.14668): 100 bins of 20 ms."""
        return cls(**changes)

    @classmethod
    def ndt2(cls, **changes: Any) -> MtMConfig:
        """Return the published variant with patches: one bin of 128 units is a token (arXiv:2407.14668).

        All weights but the session tokens are shared by all sessions. A window of T bins and N units makes
        ``T ceil(N / 128) + 2`` tokens.
        """
        recipe: dict[str, Any] = {"read_in": "patches", "embed_size": 256}
        return cls(**{**recipe, **changes})

    @classmethod
    def modern(cls, **changes: Any) -> MtMConfig:
        """Return a recipe for many sessions, with the published trunk.

        Rotary positions, prefix tokens that cannot carry the future to the past, and vectors for units,
        regions and sessions in place of two matrices for each session: 129 weights for a unit where the
        published model has 1181. Meant to be trained with ``TrainingConfig.modern()``.
        """
        recipe: dict[str, Any] = {
            "stitch_size": 128,
            "embed_size": None,
            "strict_causal": True,
            "token_std": 0.02,
            "position": "rotary",
            "read_in": "embeddings",
            "region_embeddings": True,
        }
        return cls(**{**recipe, **changes})

    @classmethod
    def small(cls, **changes: Any) -> MtMConfig:
        """Return a model for hundreds of units and hundreds of trials, trained on a CPU."""
        recipe: dict[str, Any] = {
            "hidden_size": 96,
            "n_layers": 2,
            "n_heads": 4,
            "mlp_size": 192,
            "stitch_size": 64,
            "embed_size": None,
            "input_dropout": 0.1,
            "dropout": 0.2,
            "output_dropout": 0.1,
            "strict_causal": True,
            "session_tokens": False,
            "token_std": 0.02,
            "read_in": "factors",
            "evidence": () if "schemes" in changes else (0.5, 1.0, 0.5, 0.8),
            "gain": 1.2,
        }
        return cls(**{**recipe, **changes})

    @property
    def needs_counts(self) -> bool:
        """Whether adding a session takes its counts."""
        return self.read_in == "factors"

    @property
    def uses_counts(self) -> bool:
        """Whether a session starts better if it is added with its counts."""
        return self.read_in in ("factors", "embeddings")

    @property
    def shares_read_in(self) -> bool:
        """Whether all sessions share the matrices that counts go in and rates come out through."""
        return self.read_in in ("patches", "embeddings")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        values = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MtMConfig:
        """Return the config that :meth:`to_dict` described; unknown names are an error."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"MtMConfig: unknown settings {unknown}; known are {sorted(known)}")
        restored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**restored)
