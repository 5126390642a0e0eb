"""What a trainer is given, checked before anything is made or written."""

from __future__ import annotations

from collections.abc import Sequence

from neurokern.datasets import BinnedSession, WindowedRecording
from neurokern.models import MtM
from neurokern.training.config import TrainingConfig

Windows = BinnedSession | WindowedRecording


def check_settings(model: MtM, config: TrainingConfig) -> None:
    """Raise ValueError unless the model has a prompt for each scheme."""
    unknown = set(config.masking.schemes) - set(model.config.schemes)
    if unknown:
        raise ValueError(
            f"Trainer: the model has no prompt for {sorted(unknown)}; it has {model.config.schemes}"
        )


def check_sessions(
    model: MtM, train: Sequence[Windows], validation: Sequence[Windows], config: TrainingConfig
) -> None:
    """Raise ValueError for sessions that cannot be trained on with these settings."""
    if not train:
        raise ValueError("Trainer: there are no sessions to train on")
    by_region = sorted({"intra-region", "inter-region"} & set(config.masking.schemes))
    for session in train:
        _check_windows(model, session)
        if by_region and not any(session.regions):
            raise ValueError(
                f"Trainer: no unit of session {session.session!r} has a region, which {by_region} need; "
                f"group its units, or train with Masking(schemes=('neuron', 'causal'))"
            )
        _check_units(model, session)
    units = {session.session: session.n_units for session in train}
    for session in validation:
        if session.session not in units:
            raise ValueError(
                f"Trainer: validation session {session.session!r} is not among those to train on"
            )
        if session.n_units != units[session.session]:
            raise ValueError(
                f"Trainer: session {session.session!r} has {session.n_units} units in validation, "
                f"{units[session.session]} in training"
            )
        _check_windows(model, session)


def _check_windows(model: MtM, session: Windows) -> None:
    if session.n_windows < 1:
        raise ValueError(f"Trainer: session {session.session!r} has no windows; leave it out")
    if session.n_bins > model.config.n_bins:
        raise ValueError(
            f"Trainer: windows have {session.n_bins} bins, the model takes up to "
            f"{model.config.n_bins}; make it with MtMConfig(n_bins=...)"
        )


def _check_units(model: MtM, session: Windows) -> None:
    if session.session not in model.sessions:
        return
    known = model.session_parts(session.session).n_units
    if known != session.n_units:
        raise ValueError(
            f"Trainer: session {session.session!r} has {session.n_units} units, "
            f"the model knows it with {known}; rename the session if it is another one"
        )
