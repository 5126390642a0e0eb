"""Transfer and few-shot adaptation.

Adapters are objects with ``fit(model, support)``, for MtM and for any encoder that is a torch module.
Read-outs of features have ``fit(features, labels)``. :func:`evaluate_few_shot` compares both.
"""

from neurokern.adapters.adapted import AdaptedModel
from neurokern.adapters.closed_form import (
    LDAProbe,
    PrototypeProbe,
    ReducedRankProbe,
    ReducedRankReadout,
    RidgeHead,
    RidgeProbe,
    RidgeReadout,
)
from neurokern.adapters.contrastive import info_nce, mix_inputs, mixco_loss, soft_clip
from neurokern.adapters.features import count_features, model_features
from neurokern.adapters.federated import average_states, load_shared_state, shared_state
from neurokern.adapters.few_shot import (
    DEFAULT_ADAPTERS,
    evaluate_few_shot,
    few_shot_episodes,
)
from neurokern.adapters.few_shot_summary import few_shot_differences, summarize_few_shot
from neurokern.adapters.few_shot_task import FewShotTask, few_shot_task, write_few_shot_splits
from neurokern.adapters.fine_tune import FineTuneOptions
from neurokern.adapters.front_ends import FewShotAdapter, few_shot_adapt
from neurokern.adapters.frozen import FrozenReadout
from neurokern.adapters.low_rank import add_low_rank, merge_low_rank
from neurokern.adapters.probe import LinearProbe
from neurokern.adapters.retrieval import retrieval_accuracy, retrieve, two_way_identification
from neurokern.adapters.scores import score_predictions
from neurokern.adapters.session_encoder import SessionEncoder
from neurokern.adapters.session_stitch import SessionStitch, StitchedModel
from neurokern.adapters.shared_space import SubjectInput, SubjectLayers
from neurokern.adapters.stitch import adapt_session
from neurokern.adapters.support import Support
from neurokern.adapters.tuning import (
    BiasOnly,
    Contrastive,
    FromScratch,
    FullFineTune,
    GradualUnfreezing,
    HeadProbe,
    LoRA,
    NormOnly,
    PartialFineTune,
    ResetTuning,
    SharedSpace,
    UnitIdentification,
)

__all__ = [
    "DEFAULT_ADAPTERS",
    "AdaptedModel",
    "BiasOnly",
    "Contrastive",
    "FewShotAdapter",
    "FewShotTask",
    "FineTuneOptions",
    "FromScratch",
    "FrozenReadout",
    "FullFineTune",
    "GradualUnfreezing",
    "HeadProbe",
    "LDAProbe",
    "LinearProbe",
    "LoRA",
    "NormOnly",
    "PartialFineTune",
    "PrototypeProbe",
    "ReducedRankProbe",
    "ReducedRankReadout",
    "ResetTuning",
    "RidgeHead",
    "RidgeProbe",
    "RidgeReadout",
    "SessionEncoder",
    "SessionStitch",
    "SharedSpace",
    "StitchedModel",
    "SubjectInput",
    "SubjectLayers",
    "Support",
    "UnitIdentification",
    "adapt_session",
    "add_low_rank",
    "average_states",
    "count_features",
    "evaluate_few_shot",
    "few_shot_adapt",
    "few_shot_differences",
    "few_shot_episodes",
    "few_shot_task",
    "info_nce",
    "load_shared_state",
    "merge_low_rank",
    "mix_inputs",
    "mixco_loss",
    "model_features",
    "retrieval_accuracy",
    "retrieve",
    "score_predictions",
    "shared_state",
    "soft_clip",
    "summarize_few_shot",
    "two_way_identification",
    "write_few_shot_splits",
]
