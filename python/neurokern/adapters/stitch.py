"""Bring a trained model to a session that it does not know."""

from __future__ import annotations

import copy
import os
import tempfile
from typing import TYPE_CHECKING

from neurokern._check import check_choice

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession
    from neurokern.models import MtM
    from neurokern.training import TrainingConfig

MODES = ("stitch", "full")


def adapt_session(
    model: MtM,
    train: BinnedSession,
    validation: BinnedSession | None = None,
    mode: str = "stitch",
    config: TrainingConfig | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> MtM:
    """Return a copy of a model that knows a new session.

    The session gets its own read-in, read-out and token, which are trained by masked prediction on its
    windows, without labels.

    Parameters
    ----------
    model : MtM
        Not changed.
    train : BinnedSession
        Windows to learn from. A session that the model knows already goes on from its present read-in and
        read-out.
    validation : BinnedSession, optional
        Windows of the same session to choose the best weights by; without them, the last weights are kept.
    mode : {"stitch", "full"}, default "stitch"
        "stitch" freezes the trunk and learns the session's parts only. "full" lets every weight learn, as
        in the published transfer [1]_; the model then no longer fits its earlier sessions.
    config : TrainingConfig, optional
        ``TrainingConfig.small(max_steps=400, validate_every=50)`` by default.
    folder : path, optional
        Where checkpoints and metrics of the run are kept; without one they are deleted at the end.

    Returns
    -------
    adapted : MtM
        In evaluation mode, all weights trainable again.

    Raises
    ------
    ValueError
        If the mode is unknown, or the session does not fit the model (see
        :class:`neurokern.training.Trainer`).

    References
    ----------
    .. [1] Zhang et al., arXiv:2407.14668, section 4.
    """
    from neurokern.training import Trainer, TrainingConfig

    check_choice("adapt_session", "mode", mode, MODES)
    adapted = copy.deepcopy(model)
    recipe = config or TrainingConfig.small(max_steps=400, validate_every=50)
    held_out = [] if validation is None else [validation]
    if mode == "stitch":
        adapted.requires_grad_(False)
        if train.session in adapted.sessions:  # a new one gets its parts from the trainer, ready to learn
            adapted.session_parts(train.session).requires_grad_(True)
    with tempfile.TemporaryDirectory() as temporary:
        Trainer(adapted, [train], held_out, recipe, folder or temporary).fit()
    return adapted.requires_grad_(True).eval()
