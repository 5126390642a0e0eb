"""Ridge regression of many targets on shared features, from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_positive

_BLOCK_ELEMENTS = 1 << 21  # elements of X turned to float64 at a time (16 MiB)


@dataclass(frozen=True, slots=True)
class RidgeFit:
    """A fitted ridge regression; made by :func:`fit_ridge`.

    Attributes
    ----------
    weights : tensor of shape (features, targets) or (features,)
        In the floating dtype of X. One-dimensional when Y was.
    intercept : tensor of shape (targets,) or ()
    alphas : tensor of shape (targets,) or (), float64
        The penalty that each target was fitted with.
    scores : tensor of shape (alphas, targets) or (alphas,), float64, or None
        R2 of every candidate penalty, leave-one-out or on the validation set; rows are in ascending order of
        alpha. None if there was nothing to choose. NaN for a target that never varies.
    """

    weights: Tensor
    intercept: Tensor
    alphas: Tensor
    scores: Tensor | None

    def predict(self, X: Tensor | np.ndarray) -> Tensor:
        """Predictions of shape (samples, targets) or (samples,) for X of shape (samples, features)."""
        features = torch.as_tensor(X, device=self.weights.device).to(self.weights.dtype)
        if features.ndim != 2 or features.shape[1] != self.weights.shape[0]:
            raise ValueError(
                f"RidgeFit.predict: X must have shape (samples, {self.weights.shape[0]}), "
                f"got {tuple(features.shape)}"
            )
        return features @ self.weights + self.intercept


@dataclass(frozen=True, slots=True)
class _Basis:
    """The centered problem in its eigenbasis, where coefficients are rotated / (eigenvalues + alpha)."""

    eigenvalues: Tensor  # (rank,), of the feature Gram (primal) or of the sample Gram (dual)
    vectors: Tensor  # (features, rank) in the primal form, (samples, rank) in the dual form
    rotated: Tensor  # (rank, targets)
    lift: float | None  # eigenvalue given to the constant vector, dual form with intercept only


def fit_ridge(
    X: Tensor | np.ndarray,
    Y: Tensor | np.ndarray,
    alphas: float | Sequence[float] = (1e-1, 1.0, 1e1, 1e2, 1e3, 1e4),
    *,
    validation: tuple[Tensor | np.ndarray, Tensor | np.ndarray] | None = None,
    shared_alpha: bool = False,
    intercept: bool = True,
) -> RidgeFit:
    r"""Solve :math:`\min_{W, b} \|X W + 1 b - Y\|^2 + \sum_t \alpha_t \|W_t\|^2` with alphas from a list.

    The intercept b is not penalized. Features are not scaled: standardize them if one penalty shall mean the
    same for all.

    Parameters
    ----------
    X : tensor or array of shape (samples, features)
    Y : tensor or array of shape (samples, targets) or (samples,)
    alphas : float or sequence of floats, default six decades from 0.1 to 1e4
        Candidate penalties, above 0.
    validation : pair of tensors or arrays (X, Y), optional
        Samples on which the alpha is chosen. Without it, alpha is chosen by the exact leave-one-out error,
        which is too hopeful when neighboring samples are correlated (bins of one trial): give a validation
        set then.
    shared_alpha : bool, default False
        One alpha for all targets (the one with the best mean R2) instead of one each.
    intercept : bool, default True

    Returns
    -------
    fit : RidgeFit

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite, an alpha is not above 0, or there are too few samples
        to choose an alpha.

    Notes
    -----
    With at most as many features as samples the features' Gram matrix is decomposed (primal form), otherwise
    the samples' (dual form): O(n p min(n, p)) for the Gram matrix and O(min(n, p)^3) for the decomposition,
    both in float64, whatever the number of alphas. X itself is turned to float64 in blocks only.

    Leave-one-out residuals are :math:`(y_i - \hat y_i) / (1 - h_i)`. In the dual form with an intercept they
    are :math:`c_i / (A^{-1}_{ii} - 1 / (n (\alpha + \kappa n)))` with :math:`A = K + \kappa 1 1^T + \alpha I`
    and :math:`c = A^{-1} y`. Any :math:`\kappa` is right on paper; lifting the constant vector's eigenvalue
    from 0 to :math:`\kappa n` avoids that two numbers of size :math:`1 / \alpha` cancel.

    References
    ----------
    .. [1] Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 2nd ed., sections 3.4 and
       7.10.
    """
    features, targets = _checked_pair(X, Y, "X", "Y")
    candidates = _checked_alphas(alphas).to(features.device)
    one_target = targets.ndim == 1
    targets = targets.reshape(len(targets), -1)
    if len(candidates) > 1 and validation is None and len(features) < 2:
        raise ValueError(
            "fit_ridge: X must hold at least 2 samples to choose an alpha by leave-one-out, got 1; "
            "pass one alpha or a validation set"
        )
    x_mean, y_mean = _means(features, targets, intercept)
    centered_targets = targets.to(torch.float64) - y_mean
    dual = features.shape[0] < features.shape[1]
    basis = (_dual_basis if dual else _primal_basis)(features, x_mean, centered_targets, intercept)
    if len(candidates) == 1:
        scores, chosen = None, candidates.expand(targets.shape[1])
    else:
        if validation is not None:
            errors, total = _validation_errors(basis, candidates, features, x_mean, y_mean, validation)
        else:
            errors, total = _leave_one_out_errors(
                basis, candidates, features, x_mean, centered_targets, intercept
            )
        scores = (1 - errors / total).masked_fill(total == 0, torch.nan)
        chosen = candidates[_best_index(errors, total, shared_alpha)]
    coefficients = basis.rotated / (basis.eigenvalues[:, None] + chosen)
    weights = _to_weights(basis, coefficients, features, x_mean)
    offset = y_mean - x_mean @ weights
    dtype = features.dtype if features.dtype.is_floating_point else torch.float32
    fit = (weights.to(dtype), offset.to(dtype), chosen.clone(), scores)
    return RidgeFit(*(part[..., 0] if one_target and part is not None else part for part in fit))  # type: ignore[arg-type]


def _checked_alphas(alphas: float | Sequence[float]) -> Tensor:
    values = np.atleast_1d(np.asarray(alphas, dtype=np.float64)).ravel()
    if values.size == 0:
        raise ValueError("fit_ridge: alphas must hold at least one penalty, got none")
    distinct = sorted({check_positive("fit_ridge", "alphas", value) for value in values.tolist()})
    return torch.tensor(distinct, dtype=torch.float64)


def _checked_pair(
    X: Tensor | np.ndarray, Y: Tensor | np.ndarray, x_name: str, y_name: str
) -> tuple[Tensor, Tensor]:
    features = torch.as_tensor(X)
    targets = torch.as_tensor(Y, device=features.device)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(
            f"fit_ridge: {x_name} must have shape (samples, features), got {tuple(features.shape)}"
        )
    if targets.ndim not in (1, 2) or len(targets) != len(features) or len(features) == 0:
        raise ValueError(
            f"fit_ridge: {y_name} must have one row per row of {x_name} and at least one, "
            f"got {tuple(targets.shape)} and {tuple(features.shape)}"
        )
    for name, values in ((x_name, features), (y_name, targets)):
        if values.dtype.is_floating_point and not torch.isfinite(values).all():
            raise ValueError(
                f"fit_ridge: {name} must be finite, got NaN or infinity; drop or fill those samples"
            )
    return features, targets


def _means(features: Tensor, targets: Tensor, intercept: bool) -> tuple[Tensor, Tensor]:
    if not intercept:
        zeros = torch.zeros(features.shape[1] + targets.shape[1], dtype=torch.float64, device=features.device)
        return zeros[: features.shape[1]], zeros[features.shape[1] :]
    x_sum = torch.stack([features[rows].to(torch.float64).sum(0) for rows in _row_blocks(features)]).sum(0)
    return x_sum / len(features), targets.to(torch.float64).mean(0)


def _row_blocks(features: Tensor) -> list[slice]:
    step = max(1, _BLOCK_ELEMENTS // features.shape[1])
    return [slice(first, first + step) for first in range(0, len(features), step)]


def _primal_basis(features: Tensor, x_mean: Tensor, targets: Tensor, intercept: bool) -> _Basis:
    n_features = features.shape[1]
    gram = torch.zeros(n_features, n_features, dtype=torch.float64, device=features.device)
    cross = torch.zeros(n_features, targets.shape[1], dtype=torch.float64, device=features.device)
    for rows in _row_blocks(features):
        block = features[rows].to(torch.float64) - x_mean
        gram.addmm_(block.T, block)
        cross.addmm_(block.T, targets[rows])
    eigenvalues, vectors = torch.linalg.eigh(gram)
    return _Basis(eigenvalues.clamp_min(0), vectors, vectors.T @ cross, None)


def _dual_basis(features: Tensor, x_mean: Tensor, targets: Tensor, intercept: bool) -> _Basis:
    n_samples = len(features)
    gram = torch.zeros(n_samples, n_samples, dtype=torch.float64, device=features.device)
    for columns in _row_blocks(features.T):
        block = features[:, columns].to(torch.float64) - x_mean[columns]
        gram.addmm_(block, block.T)
    lift = None
    if intercept:
        lift = float(gram.diagonal().mean()) or 1.0  # identical samples: any positive number does
        gram += lift
    eigenvalues, vectors = torch.linalg.eigh(gram)
    return _Basis(eigenvalues.clamp_min(0), vectors, vectors.T @ targets, lift)


def _is_dual(basis: _Basis, features: Tensor) -> bool:
    return features.shape[0] < features.shape[1]


def _to_weights(basis: _Basis, coefficients: Tensor, features: Tensor, x_mean: Tensor) -> Tensor:
    directions = basis.vectors @ coefficients
    if not _is_dual(basis, features):
        return directions
    weights = torch.empty(features.shape[1], directions.shape[1], dtype=torch.float64, device=features.device)
    for columns in _row_blocks(features.T):
        weights[columns] = (features[:, columns].to(torch.float64) - x_mean[columns]).T @ directions
    return weights


def _leave_one_out_errors(
    basis: _Basis, alphas: Tensor, features: Tensor, x_mean: Tensor, targets: Tensor, intercept: bool
) -> tuple[Tensor, Tensor]:
    """Sum of squared leave-one-out residuals (alphas, targets), and of squared targets (targets,)."""
    if _is_dual(basis, features):
        residuals = [_dual_residuals(basis, alpha, len(features)) for alpha in alphas.tolist()]
        errors = torch.stack([residual.square().sum(0) for residual in residuals])
    else:
        errors = torch.zeros(len(alphas), targets.shape[1], dtype=torch.float64, device=features.device)
        mean_leverage = 1 / len(features) if intercept else 0.0
        for rows in _row_blocks(features):
            projected = (features[rows].to(torch.float64) - x_mean) @ basis.vectors
            for at, alpha in enumerate(alphas.tolist()):
                shrunk = projected / (basis.eigenvalues + alpha)
                leverage = (shrunk * projected).sum(1, keepdim=True) + mean_leverage
                errors[at] += ((targets[rows] - shrunk @ basis.rotated) / (1 - leverage)).square().sum(0)
    return errors, targets.square().sum(0)


def _dual_residuals(basis: _Basis, alpha: float, n_samples: int) -> Tensor:
    shrunk = basis.vectors / (basis.eigenvalues + alpha)
    inverse_diagonal = (shrunk * basis.vectors).sum(1, keepdim=True)
    if basis.lift is not None:
        inverse_diagonal = inverse_diagonal - 1 / (n_samples * (alpha + basis.lift * n_samples))
    return (shrunk @ basis.rotated) / inverse_diagonal


def _validation_errors(
    basis: _Basis,
    alphas: Tensor,
    features: Tensor,
    x_mean: Tensor,
    y_mean: Tensor,
    validation: tuple[Tensor | np.ndarray, Tensor | np.ndarray],
) -> tuple[Tensor, Tensor]:
    """Sum of squared errors (alphas, targets) on the validation set, and about its own mean (targets,)."""
    x_validation, y_validation = _checked_pair(*validation, "validation X", "validation Y")
    y_validation = y_validation.reshape(len(y_validation), -1).to(torch.float64)
    if x_validation.shape[1] != features.shape[1] or y_validation.shape[1] != len(y_mean):
        raise ValueError(
            f"fit_ridge: validation must have {features.shape[1]} features and {len(y_mean)} targets, "
            f"got {x_validation.shape[1]} and {y_validation.shape[1]}"
        )
    errors = []
    centered = x_validation.to(torch.float64) - x_mean
    for alpha in alphas.tolist():
        weights = _to_weights(basis, basis.rotated / (basis.eigenvalues[:, None] + alpha), features, x_mean)
        errors.append((y_validation - y_mean - centered @ weights).square().sum(0))
    return torch.stack(errors), (y_validation - y_validation.mean(0)).square().sum(0)


def _best_index(errors: Tensor, total: Tensor, shared: bool) -> Tensor:
    """Row of the best alpha for each target; among equals, up to rounding, the strongest penalty."""
    n_alphas, n_targets = errors.shape
    if shared:
        varying = total > 0
        relative = errors[:, varying] / total[varying]
        errors, total = relative.sum(1, keepdim=True), relative.new_ones(1)
    good = errors <= errors.amin(0) * (1 + 1e-9) + 1e-12 * total
    strongest = n_alphas - 1 - good.flip(0).to(torch.uint8).argmax(0)
    return strongest.expand(n_targets)
