"""Bring a trained model to a session that it does not know."""

from __future__ import annotations

import copy
import os
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import torch

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

    The session gets its own read-in, read-out and token, by masked prediction on its windows, without labels.

    Parameters
    ----------
    model : MtM
        Not changed.
    train : BinnedSession
        Windows to learn from, in order of time. A session that the model knows already goes on from the parts
        that it has.
    validation : BinnedSession, optional
        Later windows of the same session to choose the best weights by; without them, the last weights are
        kept. Where nothing is trained, they are used like ``train``.
    mode : {"stitch", "full"}, default "stitch"
        "stitch" freezes the trunk and learns the session's parts only. "full" lets every weight learn, as in
        the published transfer [1]_; the model then no longer fits its earlier sessions.
    config : TrainingConfig, optional
        By default ``TrainingConfig.small`` with 400 steps. If its ``session_learning_rate`` is 0, as it is
        by default for a model whose parts start in closed form (``MtMConfig.small``), there is nothing to
        train in mode "stitch": the closed form is the result, within seconds.
    folder : path, optional
        Where checkpoints and metrics of training are kept; without one they are deleted at the end.

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
    if config is None:
        rate = 0.0 if model.config.needs_counts else 1e-3
        config = TrainingConfig.small(max_steps=400, validate_every=50, session_learning_rate=rate)
    if mode == "stitch":
        if config.session_learning_rate == 0:
            _add_from_counts(adapted, train, validation, config.seed)
            return adapted.eval()
        adapted.requires_grad_(False)
        if train.session in adapted.sessions:  # a new one gets its parts below, ready to learn
            adapted.session_parts(train.session).requires_grad_(True)
    if adapted.config.read_in == "embeddings":  # each unit starts as the known one most like it
        _add_from_counts(adapted, train, None, config.seed)
    held_out = [] if validation is None else [validation]
    with tempfile.TemporaryDirectory() as temporary:
        Trainer(adapted, [train], held_out, config, folder or temporary).fit()
    return adapted.requires_grad_(True).eval()


def _add_from_counts(model: MtM, train: BinnedSession, validation: BinnedSession | None, seed: int) -> None:
    if train.session in model.sessions:
        return
    parts = [train.counts] if validation is None else [train.counts, validation.counts]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        regions, counts = train.regions.tolist(), np.concatenate(parts)
        model.add_session(train.session, train.n_units, regions, counts, start="nearest")
