"""Scores of predictions from sums over the samples of each fold, without the predictions themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neurokern.ops._ridge_blas import Algebra

SCORINGS = ("r2", "pearson", "mse")


@dataclass(frozen=True)
class FoldSums:
    """Weighted sums over the test samples of one fold; y and its prediction are about ``origin``.

    Shapes are (targets,) and (targets, alphas).
    """

    weight: float
    origin: Any  # what was taken from y and its predictions: the mean of the training samples, say
    y: Any
    y_squared: Any
    error: Any  # squared
    guess: Any = None  # of these three only Pearson's r knows
    guess_squared: Any = None
    product: Any = None


class Scores:
    """Scores (targets, alphas) in float64: the mean over folds, or of the predictions of all folds (pooled).

    A fold in which a target does not vary has no R2 and no correlation, and does not count; a target that
    varies in none gets NaN. Predictions that do not vary have the correlation 0.
    """

    def __init__(self, algebra: Algebra, scoring: str, pooled: bool) -> None:
        self.algebra, self.scoring, self.pooled = algebra, scoring, pooled
        self._sums: Any = 0.0
        self._count: Any = 0.0
        self._pool: list[Any] = [0.0] * 7

    @property
    def needs_products(self) -> bool:
        return self.scoring == "pearson"

    def add(self, sums: FoldSums) -> None:
        """Take in one fold."""
        parts = self._moved(sums) if self.pooled else self._parts(sums)
        if self.pooled:
            self._pool = [total + part for total, part in zip(self._pool, parts, strict=True)]
            return
        score, valid = self._score(*parts)
        self._sums = self._sums + self.algebra.xp.where(valid[:, None], score, 0.0 * score)
        self._count = self._count + self.algebra.cast(valid, "float64")

    def result(self) -> Any:
        """Return the scores; NaN where there are none."""
        if self.pooled:
            score, valid = self._score(*self._pool)
            return self.algebra.xp.where(valid[:, None], score, 0.0 * score + float("nan"))
        nan = self.algebra.xp.where(self._count > 0, 0.0 * self._count, 0.0 * self._count + float("nan"))
        return (self._sums + nan[:, None]) / self._count.clip(1)[:, None]

    def _parts(self, sums: FoldSums) -> list[Any]:
        guesses = (sums.guess, sums.guess_squared, sums.product) if self.needs_products else (0.0, 0.0, 0.0)
        return [sums.weight, sums.y, sums.y_squared, sums.error, *guesses]

    def _moved(self, sums: FoldSums) -> list[Any]:
        """Move the sums of a fold to the origin that all folds share."""
        weight, y, y_squared, error, guess, guess_squared, product = self._parts(sums)
        origin, by_alpha = sums.origin, sums.origin[:, None]
        if self.needs_products:
            product = product + by_alpha * (y[:, None] + guess) + weight * by_alpha**2
            guess_squared = guess_squared + 2 * by_alpha * guess + weight * by_alpha**2
            guess = guess + weight * by_alpha
        y_squared = y_squared + 2 * origin * y + weight * origin**2
        return [weight, y + weight * origin, y_squared, error, guess, guess_squared, product]

    def _score(
        self, weight: float, y: Any, y_squared: Any, error: Any, guess: Any, guess_squared: Any, product: Any
    ) -> tuple[Any, Any]:
        """Scores (targets, alphas) and whether each target has one."""
        spread = y_squared - y * y / weight
        if self.scoring == "mse":
            return error / weight, spread == spread
        # Sums in float64 leave 1e-16 of y'y where y does not vary.
        valid = spread > 1e-13 * y_squared
        safe = self.algebra.xp.where(valid, spread, 0.0 * spread + 1.0)[:, None]
        if self.scoring == "r2":
            return 1 - error / safe, valid
        guess_spread = (guess_squared - guess * guess / weight).clip(0)
        # Of sums in float32 less is left.
        varies = guess_spread > 1e-12 * guess_squared
        guess_spread = self.algebra.xp.where(varies, guess_spread, 0.0 * guess_spread + 1.0)
        r = (product - y[:, None] * guess / weight) / (safe * guess_spread) ** 0.5
        return self.algebra.xp.where(varies, r, 0.0 * r), valid


def best_alphas(scores: Any, scoring: str, tolerance: float, algebra: Algebra) -> Any:
    """Index of the best of the ascending alphas for each target, from scores (targets, alphas).

    Among alphas as good as the best, up to ``tolerance``, the largest is taken; without a score, too.
    """
    xp = algebra.xp
    good = -scores if scoring == "mse" else scores
    good = xp.where(xp.isnan(good), xp.zeros_like(good), good)
    best = xp.amax(good, 1)
    slack = tolerance * abs(best) if scoring == "mse" else tolerance
    reaching = good >= (best - slack)[:, None]
    return good.shape[1] - 1 - xp.argmax(algebra.cast(xp.flip(reaching, (1,)), "int8"), 1)
