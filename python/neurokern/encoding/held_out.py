"""Predictions of samples that a model has not seen, and what feature spaces explain of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from neurokern.encoding._arrays import check_features, check_targets, labels_of, like
from neurokern.encoding.encoder import RidgeEncoder
from neurokern.encoding.folds import check_folds
from neurokern.encoding.scores import score_predictions

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["VariancePartition", "partition_variance", "predict_held_out"]

_MOST_SPACES = 6  # 63 models


def predict_held_out(
    encoder: RidgeEncoder,
    X: Array,
    Y: Array,
    folds: Sequence[tuple[Any, Any]],
    *,
    runs: Array | None = None,
    progress: bool = False,
) -> Array:
    """Predict each test sample by a model fitted, alphas and all, on the training samples of its fold.

    Parameters
    ----------
    encoder : RidgeEncoder
        Settings; it is not fitted itself. Its delays look at the whole of X, so that the first samples of a
        test set keep their past: only responses are held out.
    X : array or tensor of shape (samples, features)
    Y : array or tensor of shape (samples, targets) or (samples,)
    folds : list of (train, test)
        No sample may be tested twice.
    runs : array of shape (samples,), optional
        Label of each sample's run: for delays, for gaps and for ``folds="leave-one-run-out"`` of the encoder.
    progress : bool, default False
        Show a bar over folds.

    Returns
    -------
    predictions : array or tensor like Y, of the floating type of the weights
        NaN for samples that no fold tests.

    Raises
    ------
    ValueError
        If folds are not valid, or a sample is in two test sets.
    """
    function = "predict_held_out"
    _check_encoder(function, encoder)
    features = check_features(function, X)
    targets = check_targets(function, Y, features)
    pairs = check_folds(folds, len(features))
    tested = np.concatenate([test for _, test in pairs])
    if len(np.unique(tested)) < len(tested):
        raise ValueError(
            f"{function}: folds must test a sample at most once, got {len(tested) - len(np.unique(tested))} "
            "more than once"
        )
    design = encoder.design(features, runs)
    labels = None if runs is None else labels_of(function, "runs", runs)
    predictions = torch.empty(0)
    for train, test in tqdm(pairs, desc="folds", disable=not progress, leave=False):
        model = encoder.for_design(design.shape[1])
        kept = _labels_of_training(encoder, train, labels)
        predicted = torch.as_tensor(model.fit(design[train], targets[train], runs=kept).predict(design[test]))
        if not len(predictions):
            predictions = predicted.new_full(targets.shape, torch.nan)
        predictions[test] = predicted
    return like(Y, predictions)


@dataclass(frozen=True, kw_only=True)
class VariancePartition:
    """What feature spaces explain alone and together; made by :func:`partition_variance`.

    Attributes
    ----------
    r2 : dict of tuple of str to array of shape (targets,), float64
        Held-out R2 of the model with these spaces.
    parts : dict of tuple of str to array of shape (targets,), float64
        R2 that exactly these spaces share: the unique part of one space, what two share and no other has, and
        so on. The parts add up to the R2 of all spaces. Noise makes some fall below 0.
    """

    r2: dict[tuple[str, ...], Array]
    parts: dict[tuple[str, ...], Array]


def partition_variance(
    spaces: Mapping[str, Array],
    Y: Array,
    folds: Sequence[tuple[Any, Any]],
    *,
    encoder: RidgeEncoder | None = None,
    runs: Array | None = None,
) -> VariancePartition:
    r"""Split the held-out R2 of a model into parts of its feature spaces.

    A model is fitted on every combination of the spaces, with the same folds. What S alone shares is, by
    inclusion and exclusion, :math:`\sum_{U \subseteq S} (-1)^{|S| - |U|} (R^2(\text{all}) - R^2(\text{all}
    \setminus U))`.

    Parameters
    ----------
    spaces : mapping of name to array of shape (samples, features)
        Two to six. Scale them so that one penalty suits all, or let the encoder ``standardize``.
    Y : array or tensor of shape (samples, targets) or (samples,)
    folds : list of (train, test)
        R2 is computed over all test samples together.
    encoder : RidgeEncoder, optional
        Settings of all models.
    runs : array of shape (samples,), optional

    Returns
    -------
    partition : VariancePartition
        NaN for targets that never vary.

    Raises
    ------
    ValueError
        If there are too few or too many spaces, or their samples differ in number.

    References
    ----------
    .. [1] Lescroart, Stansbury, Gallant, "Fourier power, subjective distance, and object categories all
       provide plausible models of BOLD responses in scene-selective visual areas", Front. Comput. Neurosci. 9
       (2015), 135.
    .. [2] de Heer et al., "The hierarchical cortical organization of human speech processing", J. Neurosci.
       37 (2017), 6539-6557.
    """
    names = tuple(spaces)
    if not 2 <= len(names) <= _MOST_SPACES:
        raise ValueError(
            f"partition_variance: spaces must be 2 to {_MOST_SPACES}, got {len(names)}; every combination "
            "takes a model"
        )
    features = [check_features(f"partition_variance, space {name!r}", X) for name, X in spaces.items()]
    if len({len(X) for X in features}) > 1:
        lengths = {name: len(X) for name, X in zip(names, features, strict=True)}
        raise ValueError(f"partition_variance: spaces must have the same samples, got {lengths}")
    encoder = RidgeEncoder() if encoder is None else encoder
    _check_encoder("partition_variance", encoder)
    tested = np.sort(np.concatenate([test for _, test in check_folds(folds, len(features[0]))]))
    targets = check_targets("partition_variance", Y, features[0])
    r2 = {}
    for members in _combinations(range(len(names))):
        X = torch.cat([features[index] for index in members], dim=1)
        predicted = predict_held_out(encoder, X, targets, folds, runs=runs)
        r2[members] = torch.as_tensor(score_predictions(predicted[tested], targets[tested], "r2"))
    everything = tuple(range(len(names)))
    nothing = torch.zeros_like(r2[everything])
    parts = {}
    for shared in _combinations(everything):
        parts[shared] = nothing.clone()
        for left_out in [(), *_combinations(shared)]:
            rest = tuple(index for index in everything if index not in left_out)
            gained = r2[everything] - r2.get(rest, nothing)
            parts[shared] += (-1) ** (len(shared) - len(left_out)) * gained
    return VariancePartition(
        r2={tuple(names[i] for i in members): like(Y, value) for members, value in r2.items()},
        parts={tuple(names[i] for i in members): like(Y, value) for members, value in parts.items()},
    )


def _check_encoder(function: str, encoder: object) -> None:
    if not isinstance(encoder, RidgeEncoder):
        raise TypeError(
            f"{function}: encoder must be a RidgeEncoder or one of its kind, got {type(encoder).__name__}"
        )


def _combinations(members: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all combinations of at least one member, small ones first."""
    return [some for size in range(1, len(members) + 1) for some in itertools.combinations(members, size)]


def _labels_of_training(
    encoder: RidgeEncoder, train: np.ndarray, labels: np.ndarray | None
) -> np.ndarray | None:
    """Return the runs of training samples; where the test set was cut out of one, another run begins."""
    if encoder.folds == "leave-one-run-out":
        return None if labels is None else labels[train]
    breaks = np.diff(train, prepend=train[0]) > 1
    if labels is not None:
        breaks[1:] |= labels[train][1:] != labels[train][:-1]
    return np.cumsum(breaks)
