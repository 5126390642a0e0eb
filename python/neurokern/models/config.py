"""Sizes and options of the MtM model, checked once and stored with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from neurokern._check import check_choice, check_fraction, check_positive

SCHEMES = ("neuron", "causal", "inter-region", "intra-region")


@dataclass(frozen=True, kw_only=True, slots=True)
class MtMConfig:
    """Sizes and options of an :class:`MtM`; checked when made. Start from :meth:`paper` or :meth:`small`.

    Parameters
    ----------
    n_bins : int
        Most time bins of a window (size of the table of positions). Shorter windows are accepted.
    hidden_size, n_layers, n_heads, mlp_size : int
        The trunk.
    stitch_size : int
        Width of a session's read-in ``Linear(n_units, stitch_size)``.
    embed_size : int or None
        Width of the softsign network between read-in and trunk; None for one linear layer.
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
    read_in : {"linear", "factors"}
        How a session's counts reach the trunk: by a trained linear map (published), or as the expected
        factors of the visible units, see :class:`neurokern.models.factors.FactorParts`. The options below are
        for "factors", whose number is ``stitch_size``; it needs the counts of a session when it is added.
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
    """

    n_bins: int = 100
    hidden_size: int = 512
    n_layers: int = 5
    n_heads: int = 8
    mlp_size: int = 1024
    stitch_size: int = 668
    embed_size: int | None = 1336
    input_dropout: float = 0.2
    dropout: float = 0.4
    output_dropout: float = 0.0
    schemes: tuple[str, ...] = SCHEMES
    strict_causal: bool = False
    session_tokens: bool = True
    token_std: float = 1.0
    read_in: Literal["linear", "factors"] = "linear"
    smoothing: float = 1.0
    memory: float = 3.0
    half_life: float = 20.0
    scale_power: float = 0.5
    noise_factor: float = 3.5
    evidence: tuple[float, ...] = ()
    gain: float = 1.0
    rate_floor: float = 0.3

    def __post_init__(self) -> None:
        for name in ("n_bins", "hidden_size", "n_layers", "n_heads", "mlp_size", "stitch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"MtMConfig: {name} must be at least 1, got {getattr(self, name)}")
        if self.hidden_size % self.n_heads:
            raise ValueError(
                f"MtMConfig: hidden_size must be a multiple of n_heads, "
                f"got hidden_size={self.hidden_size} and n_heads={self.n_heads}"
            )
        for name in ("input_dropout", "dropout", "output_dropout"):
            check_fraction("MtMConfig", name, getattr(self, name))
        check_choice("MtMConfig", "read_in", self.read_in, ("linear", "factors"))
        for name in ("smoothing", "memory", "half_life", "noise_factor", "gain", "rate_floor"):
            check_positive("MtMConfig", name, getattr(self, name))
        if self.evidence and (len(self.evidence) != len(self.schemes) or min(self.evidence) <= 0):
            raise ValueError(
                f"MtMConfig: evidence must have a number above 0 for each of {self.schemes}, "
                f"got {self.evidence}"
            )
        if not self.schemes or len(set(self.schemes)) != len(self.schemes):
            raise ValueError(f"MtMConfig: schemes must be different names, at least one, got {self.schemes}")

    @classmethod
    def paper(cls, **changes: Any) -> MtMConfig:
        """Return the published model, NDT1-stitch with prompts (arXiv:2407.14668): 100 bins of 20 ms."""
        return cls(**changes)

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
