"""Masked prediction: the four tasks, the predictors that are compared on them, and their scores."""

from neurokern.evaluation.masked_prediction import evaluate_masked_prediction
from neurokern.evaluation.mtm_predictor import MtMPredictor
from neurokern.evaluation.predictors import Predictor, TimeCoursePredictor, UnitMeanPredictor
from neurokern.evaluation.ridge_predictor import RidgePredictor
from neurokern.evaluation.summary import paired_differences, summarize
from neurokern.evaluation.tasks import SCHEME_OF_TASK, TASKS, n_forward_bins

__all__ = [
    "SCHEME_OF_TASK",
    "TASKS",
    "MtMPredictor",
    "Predictor",
    "RidgePredictor",
    "TimeCoursePredictor",
    "UnitMeanPredictor",
    "evaluate_masked_prediction",
    "n_forward_bins",
    "paired_differences",
    "summarize",
]
