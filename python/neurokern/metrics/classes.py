"""Scores of predicted classes."""

from __future__ import annotations

import math

import numpy as np


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of ``labels`` of the share of their samples that are predicted right.

    Raises
    ------
    ValueError
        If the two differ in shape, or there is no sample.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != labels.shape or labels.size == 0:
        raise ValueError(
            "balanced_accuracy: predicted and labels must have the same shape and hold something, "
            f"got {predicted.shape} and {labels.shape}"
        )
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def roc_auc(scores: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a sample of a class scores higher for it than one of another
    class.

    Ties count half. With more than two classes, the mean over the classes that occur of each against the
    rest.

    Parameters
    ----------
    scores : array of shape (samples, classes), float
        Larger for the likelier class.
    labels : array of shape (samples,)
    classes : array of shape (classes,)
        Label of each column.

    Returns
    -------
    auc : float
        NaN if all samples are of one class.

    Raises
    ------
    ValueError
        If shapes disagree or a score is NaN.
    """
    values, labels, classes = np.asarray(scores, dtype=np.float64), np.asarray(labels), np.asarray(classes)
    if values.shape != (len(labels), len(classes)):
        raise ValueError(
            f"roc_auc: scores must have shape ({len(labels)} samples, {len(classes)} classes), got "
            f"{values.shape}"
        )
    if np.isnan(values).any():
        raise ValueError("roc_auc: scores must not be NaN")
    areas = []
    for column, label in enumerate(classes):
        inside = labels == label
        n_in, n_out = int(inside.sum()), int((~inside).sum())
        if n_in and n_out:
            # For two classes the difference of the scores decides, as it does in predicting.
            score = values[:, column] - values[:, 1 - column] if len(classes) == 2 else values[:, column]
            _, rank, ties = np.unique(score, return_inverse=True, return_counts=True)
            middle = np.cumsum(ties) - (ties - 1) / 2  # mean rank of equal scores, from 1
            areas.append((middle[rank][inside].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))
    return float(np.mean(areas)) if areas else math.nan
