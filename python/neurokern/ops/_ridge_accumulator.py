"""Sums over a stream of batches: a cross-validated ridge is solved as if all samples lay in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurokern._check import check_choice, check_integer
from neurokern.ops._library import torch
from neurokern.ops._ridge_arguments import Problem, check_alphas, check_problem
from neurokern.ops._ridge_blas import Algebra, algebra_for
from neurokern.ops._ridge_cv import Fit, run
from neurokern.ops._ridge_plan import RidgePlan
from neurokern.ops._ridge_result import RidgeCVResult, make_result
from neurokern.ops._ridge_scores import SCORINGS
from neurokern.ops._ridge_sums import blocks, means, rounded, shifted
from neurokern.ops._ridge_tall import TallSolver, TargetSums


@dataclass(frozen=True)
class Sums:
    """Of one fold, about the shifts, in float64."""

    gram: Any  # (features + 1, features + 1) of [X, 1]
    cross: Any  # (targets, features + 1): Y'[X, 1]
    y_squared: Any  # (targets,)

    def plus(self, other: Sums) -> Sums:
        return Sums(self.gram + other.gram, self.cross + other.cross, self.y_squared + other.y_squared)

    def moved(self, algebra: Algebra, x_by: Any, y_by: Any) -> Sums:
        """The sums after ``x_by`` is added to every x and ``y_by`` to every y."""
        n = len(x_by)
        move = algebra.array(np.eye(n + 1), "float64")
        move[-1, :-1] = x_by
        sums = self.gram[-1]  # of [X, 1]
        y, weight = self.cross[:, -1], sums[-1]
        return Sums(
            move.T @ self.gram @ move,
            (self.cross + y_by[:, None] * sums[None, :]) @ move,
            self.y_squared + y_by * (2 * y + weight * y_by),
        )


class RidgeAccumulator:
    """Ridge regression with cross-validation over more samples than memory holds, in one pass.

    ``update`` takes batches, each sample with the number of its fold; ``solve`` then gives what
    :func:`ridge_cv` gives for all samples with these folds. Kept are k (p + 1) (p + v + 1) numbers for k
    folds, p features and v targets.

    Parameters
    ----------
    fit_intercept : bool, default True

    Notes
    -----
    Values are shifted by the means of the first batch, so that sums of squares lose no digits to large means;
    the products of a batch with the targets are in the type of the input, all else and all sums in float64.
    An interrupted ``update`` leaves the sums as they were before it.

    Examples
    --------
    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> X, Y = random.normal(size=(200, 4)), random.normal(size=(200, 3))
    >>> sums = RidgeAccumulator()
    >>> for batch in range(10):
    ...     rows = slice(20 * batch, 20 * batch + 20)
    ...     sums.update(X[rows], Y[rows], fold=batch // 2)
    >>> sums.solve([1.0, 10.0, 100.0]).weights.shape
    (4, 3)
    """

    def __init__(self, *, fit_intercept: bool = True) -> None:
        self.fit_intercept = fit_intercept
        self._folds: dict[int, Sums] = {}
        self._shifts: tuple[Any, Any] | None = None
        self._like: Problem | None = (
            None  # kind, device, type and number of axes of the input, without samples
        )

    @property
    def n_samples(self) -> float:
        """Samples so far; their weight, if they have weights."""
        return sum(float(sums.gram[-1, -1]) for sums in self._folds.values())

    @property
    def folds(self) -> list[int]:
        """Numbers of the folds so far."""
        return sorted(self._folds)

    def update(self, x: Any, y: Any, fold: Any = 0, *, sample_weight: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        x : array or tensor of shape (samples, features)
        y : array or tensor of shape (samples, targets) or (samples,)
            Kinds, devices and types as in :func:`solve_ridge`; the same in every batch.
        fold : int, or array of ints of shape (samples,), default 0
            Which fold each sample is left out in.
        sample_weight : array or tensor of shape (samples,), optional
        """
        name = "RidgeAccumulator.update"
        batch = check_problem(name, x, y, sample_weight)
        self._check_like(name, batch)
        labels = _fold_labels(name, fold, len(batch.X))
        with algebra_for(batch.device) as algebra:
            shifts = self._shifts or self._first_shifts(algebra, batch)
            found = dict(self._folds)
            for label in np.unique(labels).tolist():
                rows = slice(None) if (labels == label).all() else np.flatnonzero(labels == label)
                sums = _batch_sums(algebra, batch, rows, shifts)
                found[label] = found[label].plus(sums) if label in found else sums
        like = self._like or _like(algebra, batch)
        self._folds, self._shifts, self._like = found, shifts, like

    def merge(self, other: RidgeAccumulator) -> None:
        """Add the sums of another accumulator, of other samples."""
        if other._like is None or other._shifts is None:
            return
        if other.fit_intercept != self.fit_intercept:
            raise ValueError("RidgeAccumulator.merge: fit_intercept must be the same in both")
        self._check_like("RidgeAccumulator.merge", other._like)
        shifts = self._shifts or other._shifts
        with algebra_for(other._like.device) as algebra:
            found = dict(self._folds)
            for label, sums in other._moved_to(algebra, shifts).items():
                found[label] = found[label].plus(sums) if label in found else sums
        self._folds, self._shifts, self._like = found, shifts, self._like or other._like

    def all_reduce(self, group: Any = None) -> None:
        """Add the sums of all ranks of ``torch.distributed``; every rank then holds those of all samples.

        Call it on every rank, once. Ranks without a sample take part; at least one must have some.
        """
        import torch.distributed as distributed

        mine = None
        if self._like is not None and self._shifts is not None:
            mine = (self._like.kind, self._like.dtype, self._like.one_target, self.folds, self._host_shifts())
        gathered: list[Any] = [None] * distributed.get_world_size(group)
        distributed.all_gather_object(gathered, mine, group=group)
        known = [entry for entry in gathered if entry is not None]
        if not known:
            raise ValueError("RidgeAccumulator.all_reduce: no rank has a sample; call update first")
        kind, _, one_target, _, host = known[0]
        if any(
            entry[0] != kind or entry[2] != one_target or entry[4][0].shape != host[0].shape
            for entry in known
        ):
            raise ValueError(
                "RidgeAccumulator.all_reduce: the ranks hold different kinds or numbers of features"
            )
        device = None if self._like is None else self._like.device
        labels = sorted({label for entry in known for label in entry[3]})
        dtype = max(entry[1] for entry in known)  # float64 beside float32
        with algebra_for(device) as algebra:
            shifts = algebra.array(host[0], "float64"), algebra.array(host[1], "float64")
            own = self._moved_to(algebra, shifts)
            nothing = _no_sums(algebra, len(host[0]), len(host[1]))
            found = {label: _reduced(own.get(label, nothing), group) for label in labels}
            X, Y = (algebra.zeros((0, len(shift)), dtype) for shift in host)
        self._folds, self._shifts = found, shifts
        self._like = Problem(X, Y, None, dtype, one_target, kind, device)

    def solve(
        self,
        alphas: Any,
        *,
        scoring: str = "r2",
        pooled: bool = False,
        shared_alpha: bool = False,
        return_alpha_scores: bool = False,
        return_plan: bool = False,
    ) -> RidgeCVResult:
        """Choose penalties by the folds and fit all samples; parameters and result as in :func:`ridge_cv`.

        With one fold and one alpha there is nothing to choose, and scores are NaN.
        """
        name = "RidgeAccumulator.solve"
        if self._like is None or self._shifts is None:
            raise ValueError(f"{name}: no sample has been added; call update first")
        check_choice(name, "scoring", scoring, SCORINGS)
        candidates = check_alphas(name, alphas)
        if len(self._folds) < 2 and candidates.size > 1:
            raise ValueError(
                f"{name}: alphas must hold one penalty if all samples are of one fold, got "
                f"{candidates.size}; give "
                "update the number of each sample's fold"
            )
        like = self._like
        with algebra_for(like.device) as algebra:
            moments = _StreamMoments(algebra, self._folds, self._shifts, like.dtype, self.fit_intercept)
            solver = TallSolver(moments, candidates, self.fit_intercept, score_folds=len(self._folds) > 1)
            fit: Fit
            fit, plan = run(
                algebra,
                solver,
                RidgePlan("stream"),
                like,
                candidates,
                scoring=scoring,
                pooled=pooled,
                shared=shared_alpha,
                fit_intercept=self.fit_intercept,
                keep_scores=return_alpha_scores,
            )
        return make_result(like, fit, candidates, scoring, pooled, plan if return_plan else None)

    def state_dict(self) -> dict[str, Any]:
        """Everything, as host arrays and plain values: to be saved, and loaded in another process."""
        if self._like is None:
            return {"fit_intercept": self.fit_intercept}
        x_shift, y_shift = self._host_shifts()
        state: dict[str, Any] = {
            "fit_intercept": self.fit_intercept,
            "dtype": self._like.dtype,
            "one_target": self._like.one_target,
            "kind": self._like.kind,
            "folds": np.array(self.folds, np.int64),
            "x_shift": x_shift,
            "y_shift": y_shift,
        }
        for name in ("gram", "cross", "y_squared"):
            state[name] = np.stack([_host(getattr(self._folds[label], name)) for label in self.folds])
        return state

    def load_state_dict(self, state: dict[str, Any], device: Any = None) -> None:
        """Take up the sums of :meth:`state_dict`; ``device`` is that of tensors to come, default the CPU."""
        name = "RidgeAccumulator.load_state_dict"
        if "gram" not in state:
            self.fit_intercept = bool(state["fit_intercept"])
            self._folds, self._shifts, self._like = {}, None, None
            return
        x_shift, y_shift = np.asarray(state["x_shift"]), np.asarray(state["y_shift"])
        p, v, labels = len(x_shift), len(y_shift), np.asarray(state["folds"]).tolist()
        wanted = {"gram": (p + 1, p + 1), "cross": (v, p + 1), "y_squared": (v,)}
        for key, shape in wanted.items():
            if (got := np.shape(state[key])) != (len(labels), *shape):
                raise ValueError(f"{name}: {key} must have shape {(len(labels), *shape)}, got {got}")
        if state["kind"] == "numpy" or device is None or torch.device(device).type == "cpu":
            device = None
        else:
            device = torch.device(device)
        with algebra_for(device) as algebra:
            arrays = [[algebra.array(np.array(part), "float64") for part in state[key]] for key in wanted]
            X, Y = (algebra.zeros((0, size), state["dtype"]) for size in (p, v))
            shifts = algebra.array(x_shift, "float64"), algebra.array(y_shift, "float64")
        self.fit_intercept = bool(state["fit_intercept"])
        self._folds = {label: Sums(*parts) for label, *parts in zip(labels, *arrays, strict=True)}
        self._shifts = shifts
        self._like = Problem(X, Y, None, state["dtype"], state["one_target"], state["kind"], device)

    # ---- inner workings

    def _first_shifts(self, algebra: Algebra, batch: Problem) -> tuple[Any, Any]:
        def shift(values: Any) -> Any:
            if not self.fit_intercept:  # without one, a shift changes the problem
                return algebra.zeros((values.shape[1],), "float64")
            return rounded(algebra, means(algebra, values, batch.weight), batch.dtype)

        return shift(batch.X), shift(batch.Y)

    def _check_like(self, name: str, batch: Problem) -> None:
        like = self._like
        if like is None:
            return
        for what, mine, other in (
            ("features", like.X.shape[1], batch.X.shape[1]),
            ("targets", like.Y.shape[1], batch.Y.shape[1]),
            ("axes of y", like.one_target, batch.one_target),
            ("kind of arrays", like.kind, batch.kind),
            ("device", like.device, batch.device),
            ("type", like.dtype, batch.dtype),
        ):
            if mine != other:
                raise ValueError(f"{name}: {what} must be the same as before, {mine}, got {other}")

    def _moved_to(self, algebra: Algebra, shifts: tuple[Any, Any]) -> dict[int, Sums]:
        if self._shifts is None:
            return {}
        x_by, y_by = (mine - new for mine, new in zip(self._shifts, shifts, strict=True))
        return {label: sums.moved(algebra, x_by, y_by) for label, sums in self._folds.items()}

    def _host_shifts(self) -> tuple[np.ndarray, np.ndarray]:
        assert self._shifts is not None
        return _host(self._shifts[0]), _host(self._shifts[1])


class _StreamMoments:
    """The sums as :class:`TallSolver` takes them."""

    def __init__(
        self,
        algebra: Algebra,
        folds: dict[int, Sums],
        shifts: tuple[Any, Any],
        dtype: str,
        fit_intercept: bool,
    ) -> None:
        self.algebra, self.dtype = algebra, dtype
        self._parts = [folds[label] for label in sorted(folds)]
        self.n_features, self.n_targets = len(shifts[0]), len(shifts[1])
        self.n_test = [self.n_features] * len(self._parts)  # their rows are not at hand
        self.x_shift: Any = shifts[0] if fit_intercept else None
        self.y_shift: Any = shifts[1] if fit_intercept else None

    def grams(self) -> tuple[Any, list[Any], list[Any]]:
        tests = [part.gram for part in self._parts]
        return sum(tests), tests, tests

    def chunk(self, targets: slice) -> tuple[TargetSums, list[TargetSums], list[TargetSums]]:
        cast = self.algebra.cast
        parts = [(part.cross[targets], part.y_squared[targets]) for part in self._parts]
        crosses, squares = sum(cross for cross, _ in parts), sum(y for _, y in parts)
        total = TargetSums(cast(crosses, self.dtype), squares, crosses[:, -1])
        tests = [TargetSums(cast(cross, self.dtype), y, cross[:, -1]) for cross, y in parts]
        return total, tests, tests

    def test_rows(self, fold: int) -> Any | None:
        return None


def _batch_sums(algebra: Algebra, batch: Problem, rows: Any, shifts: tuple[Any, Any]) -> Sums:
    X, Y = batch.X[rows], batch.Y[rows]
    root = None if batch.weight is None else batch.weight[rows] ** 0.5
    n_features, n_targets = X.shape[1], Y.shape[1]
    total = _no_sums(algebra, n_features, n_targets)
    for part in blocks(X.shape[0], n_features + n_targets, 4096):
        own = None if root is None else root[part]
        x = algebra.empty((part.stop - part.start, n_features + 1), batch.dtype)
        x[:, :-1] = shifted(algebra, X[part], shifts[0], own, batch.dtype)
        x[:, -1] = 1.0 if own is None else algebra.cast(own, batch.dtype)
        y = shifted(algebra, Y[part], shifts[1], own, batch.dtype)
        wide = algebra.cast(y, "float64")
        cross = algebra.cast(algebra.mm(y.T, x), "float64")
        cross[:, -1] = algebra.cast(x[:, -1], "float64") @ wide  # exactly: see TargetSums
        found = Sums(
            algebra.gram(algebra.cast(x, "float64")), cross, algebra.xp.einsum("nc,nc->c", wide, wide)
        )
        total = total.plus(found)
    return total


def _no_sums(algebra: Algebra, n_features: int, n_targets: int) -> Sums:
    shapes = (n_features + 1, n_features + 1), (n_targets, n_features + 1), (n_targets,)
    return Sums(*(algebra.zeros(shape, "float64") for shape in shapes))


def _reduced(sums: Sums, group: Any) -> Sums:
    import torch.distributed as distributed

    parts = []
    for values in (sums.gram, sums.cross, sums.y_squared):
        tensor = torch.from_numpy(values.copy()) if isinstance(values, np.ndarray) else values.clone()
        distributed.all_reduce(tensor, group=group)
        parts.append(tensor.numpy() if isinstance(values, np.ndarray) else tensor)
    return Sums(*parts)


def _fold_labels(name: str, fold: Any, n_samples: int) -> np.ndarray:
    if torch is not None and isinstance(fold, torch.Tensor):
        fold = fold.cpu().numpy()
    if np.ndim(fold) == 0:
        return np.full(n_samples, check_integer(name, "fold", fold))
    labels = np.asarray(fold)
    if labels.shape != (n_samples,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: fold must be a whole number or whole numbers of shape ({n_samples},), got "
            f"{labels.dtype} {labels.shape}"
        )
    return labels


def _like(algebra: Algebra, batch: Problem) -> Problem:
    """A batch without its samples."""
    X, Y = (algebra.zeros((0, values.shape[1]), batch.dtype) for values in (batch.X, batch.Y))
    return Problem(X, Y, None, batch.dtype, batch.one_target, batch.kind, batch.device)


def _host(values: Any) -> np.ndarray:
    return np.array(values) if isinstance(values, np.ndarray) else values.cpu().numpy()
