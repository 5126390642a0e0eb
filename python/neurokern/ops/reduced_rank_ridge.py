"""Ridge regression of many targets through few components that all of them share."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern._check import check_integer
from neurokern.ops._ridge_arguments import Problem, check_alphas, check_problem
from neurokern.ops._ridge_blas import Algebra, algebra_for
from neurokern.ops._ridge_folds import Fold, make_folds
from neurokern.ops._ridge_sums import blocks, cross, gram, kernel, means, shifted

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["ReducedRankRidgeResult", "reduced_rank_ridge_cv"]

_DROPPED = 1e-12  # eigenvalues below this share of the largest are rounding
_TIE = 1e-7  # scores that differ by less are equal
_TARGETS = 2048  # that are rotated together


@dataclass(frozen=True)
class ReducedRankRidgeResult:
    """A reduced-rank ridge regression; made by :func:`reduced_rank_ridge_cv`.

    Arrays are of the kind and on the device of the input; without the axis of targets if Y had none.

    Attributes
    ----------
    weights : (features, targets)
        ``projections @ loadings``.
    intercept : (targets,)
    projections : (features, rank)
        From features to components; the first component explains most.
    loadings : (rank, targets)
        From components to targets; rows are orthonormal.
    alpha : float
    rank : int
    score : float
        Mean over folds of the R2 of all targets together, for the alpha and rank that were chosen.
    scores : numpy array of shape (alphas, ranks), float64
        Of all candidates.
    alphas, ranks : numpy arrays
        Candidates, ascending, without duplicates.
    """

    weights: Array
    intercept: Array
    projections: Array
    loadings: Array
    alpha: float
    rank: int
    score: float
    scores: np.ndarray
    alphas: np.ndarray
    ranks: np.ndarray

    def predict(self, X: Array) -> Array:
        """Predictions (samples, targets) for X (samples, features)."""
        return X @ self.weights + self.intercept


def reduced_rank_ridge_cv(
    X: Array,
    Y: Array,
    alphas: Array | float,
    folds: Any = 5,
    *,
    ranks: Array | int | None = None,
    runs: Array | None = None,
    fit_intercept: bool = True,
) -> ReducedRankRidgeResult:
    r"""Ridge regression with weights of a low rank; penalty and rank are chosen by cross-validation.

    Solves :math:`\min_{W, b} \|X W + b - Y\|^2 + \alpha \|W\|^2` among the W of rank r [1]_: targets are
    predicted through r components, which many related targets (voxels, units) support together.

    Parameters
    ----------
    X : array or tensor of shape (samples, features)
    Y : array or tensor of shape (samples, targets) or (samples,)
        Kinds, devices and types as for :func:`neurokern.ops.solve_ridge`. Targets count by their variance:
        scale them if all shall count alike.
    alphas : float or sequence of floats
        Candidate penalties, above 0.
    folds : default 5
        As for :func:`neurokern.ops.ridge_cv`, but for single samples. Not looked at with one alpha and one
        rank: ``score`` and ``scores`` are NaN then.
    ranks : int or sequence of ints, optional
        Candidate ranks, at least 1; by default all from 1 to the smallest of the numbers of samples, features
        and targets. One above what samples, features and targets allow is that.
    runs : array of shape (samples,), optional
    fit_intercept : bool, default True

    Returns
    -------
    result : ReducedRankRidgeResult

    Raises
    ------
    ValueError, TypeError
        As :func:`neurokern.ops.ridge_cv`; or if a rank is no integer of at least 1.

    Notes
    -----
    With the ridge weights :math:`W_\alpha`, the solution of rank r is :math:`W_\alpha U_r U_r^T`, with
    :math:`U_r` the leading eigenvectors of :math:`Y^T X (X^T X + \alpha)^{-1} X^T Y`. One eigendecomposition
    of the features' (or, if smaller, the samples') Gram matrix serves all penalties, one of a matrix of the
    smaller of its rank and the number of targets all ranks: errors of rank r are cumulative sums over
    components. Among candidates whose scores are equal to 1e-7 the smallest rank, then the largest penalty is
    taken. All of it is in float64; Y is copied by columns, X by blocks.

    References
    ----------
    .. [1] Mukherjee & Zhu, "Reduced rank ridge regression and its kernel extensions", Stat. Anal. Data Min. 4
       (2011), 612-622.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 30))
    >>> Y = X[:, :2] @ rng.normal(size=(2, 50)) + rng.normal(size=(200, 50))
    >>> reduced_rank_ridge_cv(X, Y, [1.0, 10.0, 100.0]).rank
    2
    """
    function = "reduced_rank_ridge_cv"
    problem = check_problem(function, X, Y)
    candidates = check_alphas(function, alphas)
    n_samples, n_features, n_targets = problem.shape
    if n_targets == 0:
        raise ValueError(f"{function}: Y must have at least one target, got shape {tuple(Y.shape)}")
    most = min(n_samples, n_features, n_targets)
    sizes = _check_ranks(function, ranks, most)
    with algebra_for(problem.device) as algebra:
        whole = Whole.of(algebra, problem, fit_intercept)
        scores = np.full((len(candidates), len(sizes)), np.nan)
        if scores.size > 1:
            splits = make_folds(function, folds, runs, n_samples)
            if isinstance(splits, str):
                raise ValueError(
                    f"{function}: folds must be sets of samples, got {folds!r}; use a number or pairs"
                )
            scores = _scores(algebra, problem, splits, candidates, sizes, fit_intercept, whole)
        at_alpha, at_rank = _best(scores)
        basis = Basis(algebra, problem, None, fit_intercept, whole)
        parts = basis.solve(float(candidates[at_alpha]), int(sizes[at_rank]))
        weights, intercept, projections, loadings = (algebra.cast(part, problem.dtype) for part in parts)

    def give(values: Any, of_targets: bool = True) -> Any:
        values = problem.give(values)
        return values[..., 0] if problem.one_target and of_targets else values

    return ReducedRankRidgeResult(
        give(weights),
        give(intercept),
        give(projections, of_targets=False),
        give(loadings),
        alpha=float(candidates[at_alpha]),
        rank=int(projections.shape[1]),
        score=float(scores[at_alpha, at_rank]),
        scores=scores,
        alphas=candidates,
        ranks=sizes,
    )


@dataclass(frozen=True)
class Whole:
    """Products of all samples about their mean, from which those of folds follow."""

    shift: Any | None  # (features,), the mean
    kernel: Any | None  # (samples, samples), for fewer samples than features
    gram: Any | None  # (features, features), otherwise

    @classmethod
    def of(cls, algebra: Algebra, problem: Problem, fit_intercept: bool) -> Whole:
        """Multiply once."""
        shift = means(algebra, problem.X, None) if fit_intercept else None
        if problem.shape[0] < problem.shape[1]:
            return cls(shift, kernel(algebra, problem.X, shift, None), None)
        return cls(shift, None, gram(algebra, problem.X, shift, None))


class Basis:
    r"""A centered problem in the eigenbasis V of its features: :math:`Z = V^T X^T Y`.

    Parameters
    ----------
    fold : Fold or None
        Whose training samples are fitted; all samples by default.
    """

    def __init__(
        self, algebra: Algebra, problem: Problem, fold: Fold | None, fit_intercept: bool, whole: Whole
    ) -> None:
        rows = slice(None) if fold is None else algebra.array(fold.train, "int64")
        self.algebra, self._problem, self._rows, self._whole = algebra, problem, rows, whole
        self._fit_intercept = fit_intercept
        Y = problem.Y[rows]
        self.y_mean = means(algebra, Y, None) if fit_intercept else None
        self._dual = len(Y) < problem.shape[1]
        matrix = self._matrix(fold, len(Y))
        values, vectors = algebra.eigh(matrix)
        on_host = algebra.host(values)
        kept = algebra.array(np.flatnonzero(on_host > _DROPPED * max(on_host[-1], 0.0)), "int64")
        self.values, self._vectors = values[kept], vectors[:, kept]
        root = self.values[:, None] ** 0.5
        self._to_basis = self._vectors / root.T if self._dual else self._vectors
        self.Z = algebra.empty((len(self.values), Y.shape[1]), "float64")
        for first in range(0, Y.shape[1], _TARGETS):
            targets = slice(first, first + _TARGETS)
            part = self.center_targets(Y, targets)
            if self._dual:
                self.Z[:, targets] = root * algebra.mm(self._vectors.T, part)
            else:
                products = cross(algebra, self._X, self.x_mean, part, None, "float64")
                self.Z[:, targets] = algebra.mm(self._vectors.T, products)
        self._by_basis = len(self.values) < Y.shape[1]
        self.inner = algebra.mm(self.Z, self.Z.T) if self._by_basis else None

    @functools.cached_property
    def _X(self) -> Any:
        return self._problem.X[self._rows]

    @functools.cached_property
    def x_mean(self) -> Any | None:
        """Mean of the features over the samples of the fit."""
        return means(self.algebra, self._X, None) if self._fit_intercept else None

    def _matrix(self, fold: Fold | None, n_samples: int) -> Any:
        """The kernel of the samples, or the Gram matrix of the features, about the mean of the fit."""
        whole = self._whole
        if fold is None:
            return whole.kernel if whole.gram is None else whole.gram
        if whole.kernel is not None:
            matrix = whole.kernel[self._rows][:, self._rows]
            self._of_mean = matrix.mean(1)
            return self._about_mean(matrix, self._of_mean)
        if self._dual or fold.aside is not None:
            return (kernel if self._dual else gram)(self.algebra, self._X, self.x_mean, None)
        test = gram(self.algebra, self._test(fold), whole.shift, None)
        if self.x_mean is None:
            return whole.gram - test
        moved = self.x_mean - whole.shift
        return whole.gram - test - n_samples * moved[:, None] * moved[None, :]

    def _about_mean(self, products: Any, of_mean: Any) -> Any:
        """Products of some samples with those of the fit, once both are less the mean of the latter."""
        if not self._fit_intercept:
            return products
        return products - products.mean(1)[:, None] - of_mean[None, :] + of_mean.mean()

    def _test(self, fold: Fold) -> Any:
        test = fold.test if isinstance(fold.test, slice) else self.algebra.array(fold.test, "int64")
        return self._problem.X[test]

    def center_targets(self, Y: Any, targets: slice) -> Any:
        """Targets less their mean over the samples of the fit, in float64."""
        mean = None if self.y_mean is None else self.y_mean[targets]
        return shifted(self.algebra, Y[:, targets], mean, None, "float64")

    def coordinates(self, fold: Fold) -> Any:
        """Test samples of the fold in the basis, (n, rank of the basis)."""
        mm = self.algebra.mm
        if self._whole.kernel is not None:
            test = fold.test if isinstance(fold.test, slice) else self.algebra.array(fold.test, "int64")
            products = self._whole.kernel[test][:, self._rows]
            return mm(self._about_mean(products, self._of_mean), self._to_basis)
        X = self._test(fold)
        if not self._dual:
            return mm(shifted(self.algebra, X, self.x_mean, None, "float64"), self._to_basis)
        total = self.algebra.zeros((len(X), self._X.shape[0]), "float64")
        for columns in blocks(self._X.shape[1], len(X) + self._X.shape[0]):
            total += mm(self._centered(X, columns), self._centered(self._X, columns).T)
        return mm(total, self._to_basis)

    def components(self, alpha: float) -> tuple[Any, Any]:
        """Directions of the fitted values, leading ones first.

        Returns
        -------
        strengths : (m,)
            Eigenvalues of :math:`Z^T D Z` with :math:`D = (\\lambda + \\alpha)^{-1}`.
        turned : (rank of the basis, m) or (targets, m)
            Eigenvectors of :math:`D^{1/2} Z Z^T D^{1/2}`, or of :math:`Z^T D Z` where that is smaller.
        """
        d = 1 / (self.values + alpha)
        root = d[:, None] ** 0.5
        if self.inner is not None:
            matrix = root * self.inner * root.T
        else:
            matrix = self.algebra.gram(root * self.Z)
        strengths, turned = self.algebra.eigh(matrix)
        flip = self.algebra.xp.flip
        return flip(strengths, (0,)).clip(0), flip(turned, (1,))

    def gains(self, alpha: float, B: Any, Y: Any) -> np.ndarray:
        """By how much each component lowers the squared error of new samples, summed over targets: (m,).

        ``B`` are their coordinates; ``Y`` their targets, or ``Y Z'`` where the basis is the smaller side.
        """
        mm = self.algebra.mm
        strengths, turned = self.components(alpha)
        d = 1 / (self.values + alpha)
        if self._by_basis:
            left, right = mm(B * d**0.5, turned), mm(Y * d**0.5, turned)
            gains = 2 * (left * right).sum(0) - strengths * (left * left).sum(0)
        else:
            left, right = mm(B * d, mm(self.Z, turned)), mm(Y, turned)
            gains = 2 * (left * right).sum(0) - (left * left).sum(0)
        return self.algebra.host(gains)

    def against_targets(self, Y: Any) -> tuple[Any, float, float]:
        """What ``gains`` takes for new targets; their squares about the fit's mean and about their own."""
        algebra = self.algebra
        products = algebra.zeros((len(Y), len(self.values)), "float64")
        about_fit = about_own = 0.0
        for first in range(0, Y.shape[1], _TARGETS):
            part = self.center_targets(Y, slice(first, first + _TARGETS))
            about_fit += float((part * part).sum())
            own = part - part.mean(0)
            about_own += float((own * own).sum())
            if self._by_basis:
                products += algebra.mm(part, self.Z[:, first : first + _TARGETS].T)
            else:
                products = part if not first else algebra.xp.concatenate([products, part], 1)
        return products, about_fit, about_own

    def solve(self, alpha: float, rank: int) -> tuple[Any, Any, Any, Any]:
        """Weights (features, targets), intercept (targets,), projections and loadings of this rank."""
        algebra = self.algebra
        strengths, turned = self.components(alpha)
        strengths, turned = strengths[:rank], turned[:, :rank]
        d = (1 / (self.values + alpha))[:, None]
        if self._by_basis:
            safe = algebra.xp.where(strengths > 0, strengths, 0.0 * strengths + 1.0)
            loadings = algebra.mm((turned * d**0.5 / safe**0.5).T, self.Z)
        else:
            loadings = turned.T
        # Components are turned so that their largest loading is positive.
        largest = np.abs(algebra.host(loadings)).argmax(1)
        signs = np.sign(algebra.host(loadings)[np.arange(len(largest)), largest])
        loadings = loadings * algebra.array(np.where(signs == 0, 1.0, signs), "float64")[:, None]
        coefficients = d * algebra.mm(self.Z, loadings.T)
        projections = self._to_features(coefficients)
        weights = algebra.mm(projections, loadings)
        if self.x_mean is None:
            return weights, algebra.zeros((weights.shape[1],), "float64"), projections, loadings
        return weights, self.y_mean - self.x_mean @ weights, projections, loadings

    def _to_features(self, coefficients: Any) -> Any:
        mm = self.algebra.mm
        inside = mm(self._to_basis, coefficients)
        if not self._dual:
            return inside
        weights = self.algebra.empty((self._X.shape[1], inside.shape[1]), "float64")
        for columns in blocks(*self._X.shape[::-1]):
            weights[columns] = mm(self._centered(self._X, columns).T, inside)
        return weights

    def _centered(self, X: Any, columns: slice) -> Any:
        mean = None if self.x_mean is None else self.x_mean[columns]
        return shifted(self.algebra, X[:, columns], mean, None, "float64")


def _scores(
    algebra: Algebra,
    problem: Problem,
    folds: list[Fold],
    alphas: np.ndarray,
    ranks: np.ndarray,
    fit_intercept: bool,
    whole: Whole,
) -> np.ndarray:
    """Mean over folds of the R2 of all targets together, (alphas, ranks)."""
    each = []
    for fold in folds:
        basis = Basis(algebra, problem, fold, fit_intercept, whole)
        test = fold.test if isinstance(fold.test, slice) else algebra.array(fold.test, "int64")
        B = basis.coordinates(fold)
        Y, about_fit, about_own = basis.against_targets(problem.Y[test])
        found = np.full((len(alphas), len(ranks)), np.nan)
        for at, alpha in enumerate(alphas if about_own > 0 else []):
            gained = np.append(0.0, np.cumsum(basis.gains(float(alpha), B, Y)))
            found[at] = 1 - (about_fit - gained[np.minimum(ranks, len(gained) - 1)]) / about_own
        each.append(found)
    counted = [found for found in each if not np.isnan(found).any()]
    return np.mean(counted, axis=0) if counted else each[0]


def _best(scores: np.ndarray) -> tuple[int, int]:
    """Places of the penalty and the rank."""
    if np.isnan(scores).any():
        return len(scores) - 1, 0
    good = scores >= scores.max() - _TIE
    at_rank = int(good.any(0).argmax())
    return int(np.flatnonzero(good[:, at_rank])[-1]), at_rank


def _check_ranks(function: str, ranks: Any, most: int) -> np.ndarray:
    if ranks is None:
        return np.arange(1, most + 1)
    values = np.unique([check_integer(function, "ranks", rank) for rank in np.ravel(np.asarray(ranks))])
    if values.size == 0 or values[0] < 1:
        raise ValueError(
            f"{function}: ranks must hold at least one integer of at least 1, got {values.tolist()}"
        )
    return np.unique(np.minimum(values, most))
