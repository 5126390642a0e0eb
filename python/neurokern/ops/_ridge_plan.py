"""Which route a cross-validated ridge takes: the one with the least work by a count of operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ROUTES = ("tall", "wide", "blocks")
_EIGH = 12.0  # operations of a symmetric eigendecomposition, in units of n^3 at the rate of float64 products
_WIDE_TYPE = 2.0  # time of a float64 operation in units of one in float32
_BLOCKS_BYTES = 1 << 29  # of the inverses that give the residuals of a block
_PARTS = 4.0  # products that stand for those of all penalties
_SKELETON = 12  # penalties that a long grid comes down to, before the spectrum is known


@dataclass(frozen=True)
class RidgePlan:
    """How :func:`ridge_cv` computes; what ``return_plan=True`` adds to its result.

    Attributes
    ----------
    route : str
        "tall" (sums over folds and triangular factors, for fewer features than samples), "wide" (kernel, one
        decomposition per fold), "blocks" (kernel, one decomposition for all folds), "leave-one-out" or "gcv".
    operations : mapping of str to float
        Estimated work of each admissible route, in float32 operations.
    n_solved : int
        Penalties that were solved; scores of the others follow from them.
    chunk : int
        Targets that are computed together.
    condition : float
        Largest over smallest eigenvalue of the Gram matrix of all samples plus the smallest penalty.
    """

    route: str
    operations: Mapping[str, float] = field(default_factory=dict)
    n_solved: int = 0
    chunk: int = 0
    condition: float = 1.0


def choose_route(
    shape: tuple[int, int, int], n_tests: list[int], n_alphas: int, *, any_aside: bool, float64: bool
) -> RidgePlan:
    """Estimate every route and take the cheapest."""
    operations = {"tall": _tall(shape, n_tests, n_alphas), "wide": _wide(shape, n_tests, n_alphas)}
    if not any_aside and 4 * n_alphas * max(n_tests, default=0) ** 2 <= _BLOCKS_BYTES:
        operations["blocks"] = _blocks(shape, n_tests, n_alphas)
    if float64:  # the products with targets, too
        operations = {name: _WIDE_TYPE * count for name, count in operations.items()}
    return RidgePlan(min(operations, key=lambda name: operations[name]), operations)


def _tall(shape: tuple[int, int, int], n_tests: list[int], n_alphas: int) -> float:
    n, p, v = shape
    ranks = [min(test, p) for test in n_tests]
    small = n * p**2 + (len(n_tests) * (_EIGH + 5) + _EIGH) * p**3
    scores = sum(4 * p**2 + _PARTS * rank * (2 * p - rank) + _mixed(rank, n_alphas) for rank in ranks)
    return _WIDE_TYPE * small + v * (2.0 * n * p + 4 * p**2 + scores)


def _wide(shape: tuple[int, int, int], n_tests: list[int], n_alphas: int) -> float:
    n, p, v = shape
    small = _EIGH * n**3 + sum(_EIGH * (n - test) ** 3 + 2 * test * n**2 for test in n_tests)
    scores = sum(
        2.0 * (n - test) ** 2 + 2 * _PARTS * test * (n - test) + _mixed(test, n_alphas) for test in n_tests
    )
    return n**2 * p + _WIDE_TYPE * small + v * (scores + 2.0 * n**2 + 2.0 * n * p)


def _blocks(shape: tuple[int, int, int], n_tests: list[int], n_alphas: int) -> float:
    n, p, v = shape
    small = _EIGH * n**3 + n_alphas * sum(2.0 * test**2 * n + 2.0 * test**3 for test in n_tests)
    scores = sum(
        2.0 * _PARTS * test * n + 2.0 * n_alphas * test**2 + _mixed(test, n_alphas) for test in n_tests
    )
    return n**2 * p + _WIDE_TYPE * small + v * (scores + 2.0 * n**2 + 2.0 * n * p)


def _mixed(n_test: int, n_alphas: int) -> float:
    """Work of combinations of parts, of which eight blocks of eigenvalues have four each."""
    return 96.0 * min(n_alphas, _SKELETON) * n_test
