"""Masked prediction, decoding and encoding: predictors, baselines, scores, intervals, and a set with known
rates."""

from neurokern.evaluation.behavior_decoding import decode_behavior
from neurokern.evaluation.behavior_encoding import encode_spikes
from neurokern.evaluation.glm_predictor import GLMPredictor
from neurokern.evaluation.label_decoding import decode_labels
from neurokern.evaluation.masked_prediction import evaluate_masked_prediction, score_rates, training_mean
from neurokern.evaluation.mtm_predictor import MtMPredictor
from neurokern.evaluation.poisson_glm import PoissonGLM, fit_poisson_glm
from neurokern.evaluation.predictors import Predictor, TimeCoursePredictor, UnitMeanPredictor
from neurokern.evaluation.psth import psth_rates, tuned_psth_rates
from neurokern.evaluation.reduced_rank_predictor import ReducedRankPredictor
from neurokern.evaluation.region_features import region_features
from neurokern.evaluation.ridge_predictor import RidgePredictor
from neurokern.evaluation.summary import paired_differences, summarize
from neurokern.evaluation.synthetic import SyntheticSession, score_true_rates, simulate_sessions
from neurokern.evaluation.tasks import SCHEME_OF_TASK, TASKS, n_forward_bins

__all__ = [
    "SCHEME_OF_TASK",
    "TASKS",
    "GLMPredictor",
    "MtMPredictor",
    "PoissonGLM",
    "Predictor",
    "ReducedRankPredictor",
    "RidgePredictor",
    "SyntheticSession",
    "TimeCoursePredictor",
    "UnitMeanPredictor",
    "decode_behavior",
    "decode_labels",
    "encode_spikes",
    "evaluate_masked_prediction",
    "fit_poisson_glm",
    "n_forward_bins",
    "paired_differences",
    "psth_rates",
    "region_features",
    "score_rates",
    "score_true_rates",
    "simulate_sessions",
    "summarize",
    "training_mean",
    "tuned_psth_rates",
]
