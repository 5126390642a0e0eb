"""Few-shot adaptation: read-outs of frozen features, stitching of new sessions, and their comparison."""

from neurokern.adapters.closed_form import LDAProbe, PrototypeProbe, RidgeHead, RidgeProbe, RidgeReadout
from neurokern.adapters.features import count_features, model_features
from neurokern.adapters.few_shot import (
    DEFAULT_ADAPTERS,
    FewShotTask,
    evaluate_few_shot,
    few_shot_episodes,
    few_shot_task,
)
from neurokern.adapters.probe import LinearProbe
from neurokern.adapters.stitch import adapt_session

__all__ = [
    "DEFAULT_ADAPTERS",
    "FewShotTask",
    "LDAProbe",
    "LinearProbe",
    "PrototypeProbe",
    "RidgeHead",
    "RidgeProbe",
    "RidgeReadout",
    "adapt_session",
    "count_features",
    "evaluate_few_shot",
    "few_shot_episodes",
    "few_shot_task",
    "model_features",
]
