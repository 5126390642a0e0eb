"""Ridge regression as an estimator, with scikit-learn's protocol but without needing it."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.encoding._arrays import check_features, check_targets, labels_of, like
from neurokern.encoding.delays import delay_features
from neurokern.encoding.folds import Fold, check_folds, contiguous_folds, leave_one_run_out
from neurokern.encoding.scores import score_predictions
from neurokern.ops import ridge_cv, solve_ridge

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["DEFAULT_ALPHAS", "RidgeEncoder"]

DEFAULT_ALPHAS = tuple(float(alpha) for alpha in np.logspace(-1, 6, 15))
Self = TypeVar("Self", bound="RidgeEncoder")


class ChosenFit(NamedTuple):
    """Weights ``(features, targets)``, intercept, alphas and cross-validated scores ``(targets,)``."""

    weights: Tensor
    intercept: Tensor
    alphas: Tensor
    scores: Tensor | None


class RidgeEncoder:
    r"""Ridge regression of many targets with an alpha for each, chosen by cross-validation.

    Follows scikit-learn's protocol (``get_params``, ``set_params``, ``clone``, pipelines; ``check_estimator``
    passes) without importing it. Numpy arrays and tensors, on any device, are taken and given back.

    Parameters
    ----------
    alphas : float or sequence of float, default 15 from 0.1 to 1e6
        Penalties above 0. With a single one nothing is chosen.
    folds : int, "leave-one-run-out", list of (train, test) or splitter, default 5
        A number of contiguous stretches, each run in turn (:meth:`fit` then needs ``runs``), any pairs of
        indices, or a splitter of scikit-learn, of which runs are the groups. Shuffled folds of slow signals
        choose alphas that are too small.
    gap : int, default 0
        Samples on either side of a contiguous test stretch that are left out of training.
    delays : sequence of int, optional
        Samples by which the features are moved (:func:`neurokern.encoding.delay_features`).
    standardize : bool, default False
        Give each feature variance 1 over the training samples, so that one penalty means the same for all.
        ``coef_`` stays in the units of X.
    shared_alpha : bool, default False
        One alpha for all targets, instead of one each.
    scoring : {"r2", "pearson"}, default "r2"
        What alphas are chosen by, averaged over folds.
    fit_intercept : bool, default True

    Attributes
    ----------
    coef_ : array or tensor of shape (targets, features), or (features,) for Y of one axis
        With delays ``len(delays) * n_features_in_`` features, all of the first delay first.
    intercept_ : array or tensor of shape (targets,), or float
    alpha_ : array or tensor of shape (targets,), or float
    cv_scores_ : array or tensor of shape (targets,), or float, or None
        Mean score over folds of the alpha that was chosen; a little too good, since it was chosen by it. Use
        :func:`neurokern.encoding.predict_held_out` for a score to report. None with a single alpha.
    n_features_in_ : int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 3))
    >>> Y = X @ rng.normal(size=(3, 1000)) + rng.normal(size=(200, 1000))
    >>> encoder = RidgeEncoder(folds=4).fit(X[:150], Y[:150])
    >>> encoder.coef_.shape, encoder.score(X[150:], Y[150:]) > 0.5
    ((1000, 3), True)
    """

    _estimator_type = "regressor"
    _fitted: ClassVar[tuple[str, ...]] = ("coef_", "intercept_", "alpha_", "cv_scores_")
    _chooses = False  # whether there is something to choose with a single alpha, too

    def __init__(
        self,
        *,
        alphas: float | Sequence[float] = DEFAULT_ALPHAS,
        folds: int | str | Sequence[tuple[Any, Any]] = 5,
        gap: int = 0,
        delays: Sequence[int] | None = None,
        standardize: bool = False,
        shared_alpha: bool = False,
        scoring: str = "r2",
        fit_intercept: bool = True,
    ) -> None:
        self.alphas = alphas
        self.folds = folds
        self.gap = gap
        self.delays = delays
        self.standardize = standardize
        self.shared_alpha = shared_alpha
        self.scoring = scoring
        self.fit_intercept = fit_intercept

    def fit(self: Self, X: Array, y: Array, *, runs: Array | None = None) -> Self:
        """Fit the weights of all targets, and choose their alphas.

        Parameters
        ----------
        X : array or tensor of shape (samples, features)
        y : array or tensor of shape (samples, targets) or (samples,)
        runs : array of shape (samples,), optional
            Label of each sample's run: for delays, gaps, and ``folds="leave-one-run-out"``.

        Raises
        ------
        ValueError, TypeError
            If shapes, folds or alphas do not fit, or a value is not finite.
        """
        name = f"{type(self).__name__}.fit"
        features = check_features(name, X)
        targets = check_targets(name, y, features)
        check_choice(name, "scoring", self.scoring, ("r2", "pearson"))
        alphas = _as_alphas(name, self.alphas)
        needs_folds = self._chooses or alphas.size != 1
        folds = self._make_folds(name, len(features), runs) if needs_folds else None
        design, scale = self.design(features, runs), None
        if self.standardize:
            design, scale = _scale(design)
        fit = self._solve(design, targets.reshape(len(targets), -1), alphas, folds)
        weights = fit.weights if scale is None else fit.weights / scale[:, None].to(fit.weights.dtype)
        one = targets.ndim == 1
        self.coef_ = like(X, weights[:, 0] if one else weights.mT)
        self.intercept_ = _of_targets(X, fit.intercept, one)
        self.alpha_ = _of_targets(X, fit.alphas, one)
        self.cv_scores_ = None if fit.scores is None else _of_targets(X, fit.scores, one)
        self.n_features_in_ = features.shape[1]
        return self

    def for_design(self, n_columns: int) -> RidgeEncoder:
        """Return an encoder of the same settings, not fitted, for columns that :meth:`design` has delayed.

        Parameters
        ----------
        n_columns : int
            Of the design.

        Returns
        -------
        encoder : RidgeEncoder
            Of the same class, without delays.
        """
        return type(self)(**self.get_params() | {"delays": None})

    def _solve(self, X: Tensor, Y: Tensor, alphas: np.ndarray, folds: list[Fold] | None) -> ChosenFit:
        if folds is None:
            weights, intercept = solve_ridge(X, Y, float(alphas[0]), fit_intercept=self.fit_intercept)
            same = torch.full((Y.shape[1],), float(alphas[0]), dtype=torch.float64, device=X.device)
            return ChosenFit(weights, intercept, same, None)
        fit = ridge_cv(
            X,
            Y,
            alphas,
            folds,
            scoring=self.scoring,
            shared_alpha=self.shared_alpha,
            fit_intercept=self.fit_intercept,
        )
        return ChosenFit(fit.weights, fit.intercept, fit.alphas, fit.scores)

    def predict(self, X: Array, *, runs: Array | None = None) -> Array:
        """Return predictions of shape (samples, targets) or (samples,), of the kind of X."""
        name = type(self).__name__
        self._check_fitted()
        features = check_features(f"{name}.predict", X)
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {features.shape[1]} features, but {name} is expecting {self.n_features_in_} features "
                "as input"
            )
        coef = torch.as_tensor(self.coef_, device=features.device)
        intercept = torch.as_tensor(self.intercept_, dtype=coef.dtype, device=coef.device)
        design = self.design(features, runs).to(coef.dtype)
        return like(X, design @ (coef if coef.ndim == 1 else coef.T) + intercept)

    def score(self, X: Array, y: Array, *, runs: Array | None = None) -> float:
        """Return the mean R2 over the targets that vary; NaN if none does."""
        scores = torch.as_tensor(self.score_targets(X, y, "r2", runs=runs))
        return float(scores.nanmean())

    def score_targets(self, X: Array, y: Array, metric: str = "r2", *, runs: Array | None = None) -> Array:
        """Return the score of each target (:func:`neurokern.encoding.score_predictions`)."""
        predictions = self.predict(X, runs=runs)
        targets = check_targets(f"{type(self).__name__}.score_targets", y, predictions)
        return like(y, torch.as_tensor(score_predictions(predictions, targets, metric)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and settings as one safetensors file; :meth:`load` reads it, on any machine.

        Folds that were given as indices are not kept.
        """
        self._check_fitted()
        from safetensors.torch import save_file

        settings = {name: _json_value(value) for name, value in self.get_params().items()}
        values = {name: getattr(self, name) for name in self._fitted if getattr(self, name) is not None}
        tensors = {name: torch.as_tensor(value).cpu().contiguous() for name, value in values.items()}
        notes = {"class": type(self).__name__, "settings": json.dumps(settings)}
        notes["n_features_in"] = str(self.n_features_in_)
        temporary = f"{os.fspath(path)}.part"
        save_file(tensors, temporary, metadata=notes)
        os.replace(temporary, path)

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote; weights are numpy arrays.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                notes = file.metadata() or {}
                values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if notes.get("class") != cls.__name__:
                raise ValueError(f"it holds {notes.get('class', 'no estimator')}")
            encoder = cls(**json.loads(notes["settings"]))
            encoder.n_features_in_ = int(notes["n_features_in"])
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{cls.__name__}.load: {path} must be a file that save wrote: {error}") from None
        for name in cls._fitted:
            value = values.get(name)
            setattr(encoder, name, value if value is None or value.ndim else value[()])
        return encoder

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self: Self, **params: Any) -> Self:
        """Change settings, and return the estimator."""
        for name, value in params.items():
            if name not in self._names():
                raise ValueError(
                    f"{type(self).__name__}.set_params: unknown setting {name!r}; known: "
                    f"{', '.join(self._names())}"
                )
            setattr(self, name, value)
        return self

    @classmethod
    def _names(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = {n: v for n, v in self.get_params().items() if repr(v) != repr(defaults[n].default)}
        return (
            f"{type(self).__name__}({', '.join(f'{name}={value!r:.60}' for name, value in changed.items())})"
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True, multi_output=True),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(),
        )

    def _check_fitted(self) -> None:
        if hasattr(self, "coef_"):
            return
        kind = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", ValueError)
        raise kind(f"{type(self).__name__} must be fitted first: call fit(X, Y)")

    def design(self, features: Tensor, runs: Any = None) -> Tensor:
        """Return the features (samples, features) with their delays."""
        return features if self.delays is None else delay_features(features, self.delays, runs=runs)

    def _make_folds(self, name: str, n_samples: int, runs: Any) -> list[Fold]:
        if n_samples < 2:
            raise ValueError(
                f"{name}: X must have at least 2 samples to choose alphas by folds, got 1 sample"
            )
        labels = None if runs is None else labels_of(name, "runs", runs)
        if labels is not None and len(labels) != n_samples:
            raise ValueError(f"{name}: runs must have one label per sample ({n_samples}), got {len(labels)}")
        if isinstance(self.folds, str):
            check_choice(name, "folds", self.folds, ("leave-one-run-out",))
            if labels is None:
                raise ValueError(
                    f"{name}: runs must be given with folds={self.folds!r}, one label per sample"
                )
            return leave_one_run_out(labels, gap=self.gap)
        if isinstance(self.folds, (int, np.integer)):
            return contiguous_folds(n_samples, min(int(self.folds), n_samples), gap=self.gap, runs=labels)
        if hasattr(self.folds, "split"):
            return check_folds(self.folds.split(np.empty((n_samples, 1)), groups=labels), n_samples)
        if not hasattr(self.folds, "__iter__"):
            raise TypeError(
                f"{name}: folds must be a number, 'leave-one-run-out', pairs (train, test) or a splitter of "
                f"scikit-learn, got {self.folds!r}"
            )
        return check_folds(self.folds, n_samples)


def _as_alphas(function: str, alphas: Any) -> np.ndarray:
    try:
        if alphas is None:
            raise TypeError
        return np.ravel(np.asarray(_host(alphas), dtype=np.float64))
    except (TypeError, ValueError):
        raise TypeError(f"{function}: alphas must be a number or numbers, got {alphas!r:.80}") from None


def _scale(design: Tensor) -> tuple[Tensor, Tensor]:
    """Give columns a standard deviation of 1; constant ones stay."""
    scale = design.double().std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    dtype = design.dtype if design.is_floating_point() else torch.float32
    return design / scale.to(dtype), scale


def _of_targets(X: Any, values: Tensor, one: bool) -> Any:
    result = like(X, values)
    return result[0] if one else result


def _host(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _json_value(value: Any) -> Any:
    """Return a setting as JSON can hold it; folds of indices become the default."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return _host(value).tolist()
    if isinstance(value, (list, tuple)):
        simple = all(isinstance(entry, (int, float, str, np.number)) for entry in value)
        return [_json_value(entry) for entry in value] if simple else 5
    return value
