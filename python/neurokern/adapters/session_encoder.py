"""An MtM as an encoder of one session's windows, so that every adapter of plain modules works on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from neurokern._check import check_choice

if TYPE_CHECKING:
    from neurokern.models import MtM

__all__ = ["SessionEncoder"]

OUTPUTS = ("states", "factors", "rates")


class SessionEncoder(nn.Module):
    """Map counts of one session to features, with gradients.

    Parameters
    ----------
    model : MtM
        Knows the session; its weights are shared, not copied.
    session : str
    scheme : str, default "neuron"
        Masking scheme that the model is told; the published decoding of choices tells it "neuron".
    output : {"states", "factors", "rates"}, optional
        The trunk's states ``(windows, bins, hidden_size)``; expected factors ``(windows, bins,
        stitch_size)``; log-rates ``(windows, bins, units)``. By default factors where the model has them,
        else states.
    """

    def __init__(self, model: MtM, session: str, scheme: str = "neuron", output: str | None = None) -> None:
        super().__init__()
        has_factors = model.config.read_in == "factors"
        output = output or ("factors" if has_factors else "states")
        check_choice("SessionEncoder", "output", output, OUTPUTS)
        if output == "factors" and not has_factors:
            raise ValueError('SessionEncoder: this model has no factors; pass output="states"')
        check_choice("SessionEncoder", "scheme", scheme, model.config.schemes)
        self.mtm = model.with_only(session)
        self.session, self.scheme, self.output = session, scheme, output

    def fresh(self) -> SessionEncoder:
        """Return an encoder of the same kind whose shared weights, and trained parts of the session, are new.

        Parts that are estimated from the session's own counts (``read_in="factors"``) are kept: no other
        session has a part in them.
        """
        from neurokern.models.factors import FactorParts

        known = self.mtm.session_parts(self.session)
        sizes = [(self.session, known.n_units, known.regions)]
        model = type(self.mtm).with_sessions(self.mtm.config, sizes)
        parts = model.session_parts(self.session)
        if isinstance(known, FactorParts):
            parts.load_state_dict(known.state_dict())
        return SessionEncoder(model, self.session, self.scheme, self.output)

    def forward(self, counts: Tensor) -> Tensor:
        """Map float counts ``(windows, bins, units)`` to features ``(windows, bins, features)``."""
        if self.output == "states":
            return self.mtm.embed(counts, self.session, self.scheme)
        if self.output == "factors":
            return self.mtm.expected_factors(counts, self.session, self.scheme)
        return self.mtm(counts, self.session, self.scheme)
