"""Encoding models: many targets from shared features, and what is needed around the solver."""

from neurokern.encoding.banded import BandedRidgeEncoder
from neurokern.encoding.ceilings import (
    NormalizedScores,
    explainable_variance,
    normalize_scores,
    spearman_brown,
    split_half_reliability,
)
from neurokern.encoding.delays import complete_rows, delay_features, seconds_to_delays
from neurokern.encoding.encoder import RidgeEncoder
from neurokern.encoding.folds import check_folds, contiguous_folds, group_folds, leave_one_run_out, purge
from neurokern.encoding.held_out import VariancePartition, partition_variance, predict_held_out
from neurokern.encoding.permutation import PermutationTest, adjust_p_values, permutation_test
from neurokern.encoding.reduced_rank import ReducedRankRidgeEncoder
from neurokern.encoding.scores import score_predictions

__all__ = [
    "BandedRidgeEncoder",
    "NormalizedScores",
    "PermutationTest",
    "ReducedRankRidgeEncoder",
    "RidgeEncoder",
    "VariancePartition",
    "adjust_p_values",
    "check_folds",
    "complete_rows",
    "contiguous_folds",
    "delay_features",
    "explainable_variance",
    "group_folds",
    "leave_one_run_out",
    "normalize_scores",
    "partition_variance",
    "permutation_test",
    "predict_held_out",
    "purge",
    "score_predictions",
    "seconds_to_delays",
    "spearman_brown",
    "split_half_reliability",
]
