"""Scores of predicted firing rates, one number per unit; of predicted classes; and intervals of means.

Functions of rates and signals take arrays whose last axis is units and whose other axes are samples
(windows, bins), as torch tensors or numpy arrays, and return a float64 vector of the same kind. Sums run in
float64 over blocks of bounded size, so that a float32 or uint8 recording is never copied whole to float64.

A unit for which a score is undefined (silent, or without variance) gets NaN; averages over units are left to
the caller, who thereby sees how many units count.
"""

from neurokern.metrics.classes import balanced_accuracy, roc_auc
from neurokern.metrics.intervals import bootstrap_interval, hierarchical_interval
from neurokern.metrics.spikes import RATE_FLOOR, bits_per_spike, poisson_d2
from neurokern.metrics.variance import psth_r2, r2

__all__ = [
    "RATE_FLOOR",
    "balanced_accuracy",
    "bits_per_spike",
    "bootstrap_interval",
    "hierarchical_interval",
    "poisson_d2",
    "psth_r2",
    "r2",
    "roc_auc",
]
