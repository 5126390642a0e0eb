"""Ridge regression with a penalty for each band (feature space) and target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern._check import check_choice, check_integer
from neurokern.ops._library import torch
from neurokern.ops._ridge_arguments import check_alphas, check_problem
from neurokern.ops._ridge_band_fit import fit_by_bands
from neurokern.ops._ridge_bands import BandSearch, refit
from neurokern.ops._ridge_blas import algebra_for
from neurokern.ops._ridge_folds import make_folds
from neurokern.ops._ridge_scores import SCORINGS
from neurokern.ops.solve_ridge import RidgeSolution

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["BandedRidgeResult", "banded_ridge_cv", "solve_banded_ridge"]

SEARCHES = ("random", "gradient")
_CONCENTRATIONS = (1.0, 0.1)  # of the Dirichlet draws, in turn: even weights, and some bands next to nothing


@dataclass(frozen=True)
class BandedRidgeResult:
    """A banded ridge regression; made by :func:`banded_ridge_cv`.

    Arrays are of the kind and on the device of the input; without the axis of targets if Y had none.

    Attributes
    ----------
    weights : (features, targets)
        Of the features as they were given.
    intercept : (targets,)
    alphas : (targets,), float64
    band_weights : (bands, targets), float64
        A feature of band b has the penalty ``alphas / band_weights[b]``; a band of weight 0 is left out.
    scores : (targets,), float64
        Cross-validated score of the choice.
    scoring : str
        What the scores are: ``"r2, mean over folds"`` ...
    bands : numpy array of shape (bands,)
        Labels, in the order of ``band_weights``.
    candidates : numpy array of shape (candidates, bands), float64
        Band weights that were tried at random.
    """

    weights: Array
    intercept: Array
    alphas: Array
    band_weights: Array
    scores: Array
    scoring: str
    bands: np.ndarray
    candidates: np.ndarray


def banded_ridge_cv(
    X: Array,
    Y: Array,
    bands: Array,
    alphas: Array,
    folds: Any = 5,
    *,
    search: str = "random",
    band_weights: Array | None = None,
    n_candidates: int = 50,
    seed: int = 0,
    runs: Array | None = None,
    scoring: str = "r2",
    pooled: bool = False,
    fit_intercept: bool = True,
) -> BandedRidgeResult:
    r"""Choose for each target how strongly to penalize each band of features, by cross-validation, and fit.

    Solves :math:`\min_W \|Y - \sum_b X_b W_b\|^2 + \alpha \sum_b \|W_b\|^2 / \gamma_b` [1]_ with
    :math:`\alpha` from a list and band weights :math:`\gamma` from random candidates that sum to 1 [2]_, or
    from there along the gradient of the error of samples left out [3]_.

    Parameters
    ----------
    X : array or tensor of shape (samples, features)
    Y : array or tensor of shape (samples, targets) or (samples,)
        Kinds, devices and types as for :func:`neurokern.ops.solve_ridge`.
    bands : array of shape (features,)
        Label of each feature's band.
    alphas : sequence of floats
        Candidate penalties, above 0.
    folds : default 5
        As for :func:`neurokern.ops.ridge_cv`, but for single samples.
    search : {"random", "gradient"}, default "random"
        "gradient" goes on from each target's best candidate, in the logarithms of all penalties of its bands,
        and takes what scores better. ``n_candidates=1`` starts it from all bands alike. ``alphas`` are not of
        the list then; penalties stay between a tenth of the smallest and 1e5 times the largest.
    band_weights : array of shape (candidates, bands), optional
        Candidates of your own, not negative, in the sorted order of the labels.
    n_candidates : int, default 50
        Without them: all bands alike, each band alone, and Dirichlet draws up to this number.
    seed : int, default 0
    runs : array of shape (samples,), optional
    scoring : {"r2", "pearson", "mse"}, default "r2"
    pooled : bool, default False
        As for :func:`neurokern.ops.ridge_cv`.
    fit_intercept : bool, default True

    Returns
    -------
    result : BandedRidgeResult

    Raises
    ------
    ValueError, TypeError
        As :func:`neurokern.ops.ridge_cv`, or if bands or their weights do not fit.

    Notes
    -----
    With fewer features than samples the sums over samples are computed once: with :math:`D^2` the diagonal
    matrix of the features' weights, a candidate has the Gram matrices :math:`D G D` and cross products
    :math:`D C`.
    With fewer samples the kernel of each band is computed once. Targets are fitted once, after the
    search. Among candidates that are equally good the first is taken, and all bands alike is the first.

    The gradient is that of squared errors: of 1 - R2 also where ``scoring="pearson"`` decides between
    its end and its start. It follows from one more solution with the same matrix. All solutions are by
    conjugate gradients, which multiply the same Gram matrices (kernels for fewer samples than features,
    8 n^2 bytes for each band) by vectors of all targets at once; scores and weights at the end are in
    float64. Errors of samples left out have several minima: more candidates find better ones.

    References
    ----------
    .. [1] Nunez-Elizalde, Huth, Gallant, "Voxelwise encoding models with non-spherical multivariate normal
       priors", NeuroImage 197 (2019), 482-492.
    .. [2] Dupre la Tour et al., "Feature-space selection with banded ridge regression", NeuroImage 264
       (2022), 119728.
    .. [3] Bengio, "Gradient-based optimization of hyperparameters", Neural Computation 12 (2000), 1889-1900.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 40))
    >>> Y = X[:, :20] @ rng.normal(size=(20, 2)) + rng.normal(size=(200, 2))
    >>> fit = banded_ridge_cv(X, Y, np.repeat(["signal", "noise"], 20), [1.0, 10.0, 100.0])
    >>> fit.bands.tolist(), bool((fit.band_weights[1] > 0.9).all())
    (['noise', 'signal'], True)
    """
    function = "banded_ridge_cv"
    check_choice(function, "scoring", scoring, SCORINGS)
    check_choice(function, "search", search, SEARCHES)
    problem = check_problem(function, X, Y)
    grid = check_alphas(function, alphas)
    splits = make_folds(function, folds, runs, problem.shape[0])
    if isinstance(splits, str):
        raise ValueError(f"{function}: folds must be sets of samples, got {folds!r}; use a number or pairs")
    names, band = _check_bands(function, bands, problem.shape[1])
    if band_weights is None:
        candidates = draw_band_weights(len(names), n_candidates, seed)
    else:
        candidates = _check_band_weights(function, band_weights, len(names))
    with algebra_for(problem.device) as algebra:
        tried = BandSearch(algebra, problem, splits, band, grid, fit_intercept)
        choice = tried.best(candidates, scoring, pooled)
        if search == "gradient":
            tried.descend(choice, scoring, pooled)
        weights, intercept = refit(algebra, problem, band, candidates, choice, fit_intercept, tried.kernels)
        of_targets = [
            algebra.array(values, "float64")
            for values in (choice.alphas, choice.band_weights.T.copy(), choice.scores)
        ]

    def give(values: Any) -> Any:
        values = problem.give(values)
        return values[..., 0] if problem.one_target else values

    chosen_alphas, chosen_weights, scores = (give(values) for values in of_targets)
    return BandedRidgeResult(
        give(weights),
        give(intercept),
        chosen_alphas,
        chosen_weights,
        scores,
        scoring=f"{scoring}, {'pooled' if pooled else 'mean over folds'}",
        bands=names,
        candidates=candidates,
    )


def solve_banded_ridge(
    X: Array,
    Y: Array,
    bands: Array,
    penalties: Array,
    *,
    sample_weight: Array | None = None,
    fit_intercept: bool = True,
) -> RidgeSolution:
    r"""Solve :math:`\min_{W, c} \sum_i s_i \|x_i W + c - y_i\|^2 + \sum_{b, t} \alpha_{bt} \|W_{bt}\|^2`.

    Parameters
    ----------
    X : array or tensor of shape (samples, features)
    Y : array or tensor of shape (samples, targets) or (samples,)
        Kinds, devices and types as for :func:`neurokern.ops.solve_ridge`.
    bands : array of shape (features,)
        Label of each feature's band.
    penalties : array of shape (bands,) or (bands, targets)
        Above 0, in the sorted order of the labels; infinity leaves a band out. Those of a search are its
        ``alphas / band_weights``.
    sample_weight, fit_intercept
        As for :func:`neurokern.ops.solve_ridge`.

    Returns
    -------
    solution : RidgeSolution
        As of :func:`neurokern.ops.solve_ridge`.

    Raises
    ------
    ValueError, TypeError
        As :func:`neurokern.ops.solve_ridge`, or if bands or penalties do not fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    >>> weights, _ = solve_banded_ridge(X, Y, [0, 0, 1, 1], [[1.0, 5.0], [np.inf, 2.0]])
    >>> weights[2:, 0].tolist()
    [0.0, 0.0]
    """
    function = "solve_banded_ridge"
    problem = check_problem(function, X, Y, sample_weight)
    names, band = _check_bands(function, bands, problem.shape[1])
    values = _check_penalties(function, penalties, len(names), problem.shape[2])
    with np.errstate(divide="ignore"):
        log_weights = -np.log(values).T
    with algebra_for(problem.device) as algebra:
        solved = fit_by_bands(algebra, problem, band, log_weights, fit_intercept)
    weights, intercept = (problem.give(values) for values in solved)
    return (
        RidgeSolution(weights[:, 0], intercept[0])
        if problem.one_target
        else RidgeSolution(weights, intercept)
    )


def _check_penalties(function: str, penalties: Any, n_bands: int, n_targets: int) -> np.ndarray:
    given = penalties.detach().cpu() if torch is not None and torch.is_tensor(penalties) else penalties
    values = np.asarray(given, dtype=np.float64)
    if values.shape not in ((n_bands,), (n_bands, n_targets)):
        raise ValueError(
            f"{function}: penalties must have shape ({n_bands},) or ({n_bands}, {n_targets}), one for each "
            f"band (and target), got {values.shape}"
        )
    if not (values > 0).all():  # false for NaN, too
        raise ValueError(f"{function}: penalties must be above 0, got {values[~(values > 0)][0]:g}")
    return np.broadcast_to(values.reshape(n_bands, -1), (n_bands, n_targets))


def draw_band_weights(n_bands: int, n_candidates: int, seed: int) -> np.ndarray:
    """Return candidates (candidates, bands) that sum to 1: alike, each alone, then draws."""
    n_candidates = check_integer("banded_ridge_cv", "n_candidates", n_candidates)
    if n_candidates < 1:
        raise ValueError(f"banded_ridge_cv: n_candidates must be at least 1, got {n_candidates}")
    seed = check_integer("banded_ridge_cv", "seed", seed)
    if seed < 0:
        raise ValueError(f"banded_ridge_cv: seed must not be negative, got {seed}")
    fixed = np.vstack([np.full((1, n_bands), 1 / n_bands), np.eye(n_bands)])
    fixed = fixed[:1] if n_bands == 1 else fixed
    generator = np.random.default_rng(seed)
    n_draws = max(n_candidates - len(fixed), 0) if n_bands > 1 else 0
    draws = [
        generator.dirichlet(np.full(n_bands, _CONCENTRATIONS[draw % len(_CONCENTRATIONS)]))
        for draw in range(n_draws)
    ]
    return np.vstack([fixed, *draws])[:n_candidates]


def _check_bands(function: str, bands: Any, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(bands.detach().cpu() if torch is not None and torch.is_tensor(bands) else bands)
    if labels.shape != (n_features,):
        raise ValueError(
            f"{function}: bands must have one label per feature ({n_features}), got shape {labels.shape}"
        )
    missing = int((labels != labels).sum())
    if missing:  # NaN differs from itself, and each would be a band of its own
        raise ValueError(f"{function}: bands must not be NaN, got {missing} such labels")
    try:
        names, band = np.unique(labels, return_inverse=True)
    except TypeError as error:  # objects that have no order
        raise TypeError(
            f"{function}: bands must be labels of one kind that can be sorted, got {error}; use numbers or "
            "strings"
        ) from error
    return names, band.reshape(-1)


def _check_band_weights(function: str, band_weights: Any, n_bands: int) -> np.ndarray:
    candidates = np.asarray(band_weights, dtype=np.float64)
    if candidates.ndim != 2 or candidates.shape[1] != n_bands or not len(candidates):
        raise ValueError(
            f"{function}: band_weights must have shape (candidates, {n_bands}), got {candidates.shape}"
        )
    if not (np.isfinite(candidates).all() and (candidates >= 0).all() and candidates.any(axis=1).all()):
        raise ValueError(
            f"{function}: band_weights must be finite, not negative, and not all 0 in a candidate"
        )
    return candidates
