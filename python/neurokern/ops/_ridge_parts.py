r"""Predictions for all penalties from a few parts, eigenvalues taken by neighbors.

A prediction is :math:`\sum_j r_j \, d_j(\alpha) \, z_j` over eigenvalues j, with one smooth function of the
penalty for each. Over all eigenvalues these functions span as many dimensions as a long grid has skeleton
penalties; over neighboring ones three or four. So eigenvalues are cut into blocks, each with few functions
that stand for all penalties, and the products that cost most are only as many as those; predictions are
combinations of the blocks' parts, which :mod:`neurokern.ops._ridge_score_op` forms and sums in cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_score_op import ridge_sums

# Of a component's share in predictions, of which a row has many with errors of either sign.
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}
_PLACES = np.array([0, 1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64]) / 64  # where blocks may end
_SAMPLES = 24  # eigenvalues that stand for those between two places
_PART_COST = 9.0  # of writing and reading a part, in multiply-adds
_MIX_COST = 1.6  # of a multiply-add of parts beside one of a product
_WORTH_CUTTING = 3e8  # multiply-adds of all products
_BUFFER_BYTES = 1 << 22  # of the parts of some targets: stays in cache


@dataclass(frozen=True)
class Block:
    """Neighboring eigenvalues, and what stands for all penalties there."""

    columns: slice
    basis: Any  # (penalties, few): parts are functions times it
    mix: Any  # (few, penalties): functions are parts times it


def cut(functions: np.ndarray, dtype: str, n_rows: int, *, triangular: bool = False) -> list[slice]:
    """Where to cut eigenvalues in descending order, so that the products take the least work.

    Parameters
    ----------
    functions : (eigenvalues, penalties) float64
        The share of each eigenvalue's component in predictions.
    dtype : str
        Of the products.
    n_rows : int
        Predictions, of all samples and targets. Where they are few, one block is all.
    triangular : bool
        Whether a row has no eigenvalues in front of its own place.
    """
    n, n_penalties = functions.shape
    if float(n_rows) * functions.size < _WORTH_CUTTING:
        return [slice(0, n)]
    functions = _relative(functions)[0]
    places = np.unique(np.round(_PLACES * n).astype(int))
    pairs = [(i, j) for i in range(len(places)) for j in range(i + 1, len(places))]
    index = np.stack([np.linspace(places[i], places[j] - 1, _SAMPLES).round().astype(int) for i, j in pairs])
    ranks = _ranks(functions[index], TOLERANCE[dtype])
    height = np.arange(n) / n if triangular else np.ones(n)
    work = np.append(0.0, np.cumsum(height))
    best = np.append(0.0, np.full(len(places) - 1, np.inf))
    before = np.zeros(len(places), int)
    for (i, j), rank in zip(pairs, ranks, strict=True):  # ascending in j for each i, and in i
        share = work[places[j]] - work[places[i]]
        rows = height[places[j] - 1]
        cost = best[i] + rank * (share + rows * (_PART_COST + _MIX_COST * n_penalties))
        if cost < best[j]:
            best[j], before[j] = cost, i
    ends = [len(places) - 1]
    while ends[-1]:
        ends.append(int(before[ends[-1]]))
    ends.reverse()
    return [slice(int(places[a]), int(places[b])) for a, b in itertools.pairwise(ends)]


def _ranks(functions: np.ndarray, tolerance: float) -> np.ndarray:
    """How many functions give each of (cases, eigenvalues, penalties) to the tolerance."""
    u, s, v = np.linalg.svd(functions, full_matrices=False)
    rest = functions.copy()
    ranks = np.zeros(len(functions), int)
    for k in range(s.shape[1]):
        open_cases = np.abs(rest).max((1, 2)) > tolerance
        if not open_cases.any():
            break
        ranks[open_cases] += 1
        rest -= (u[:, :, k] * s[:, None, k])[:, :, None] * v[:, k, None, :]
    return ranks


def basis_of(functions: np.ndarray, dtype: str) -> np.ndarray:
    """Fewest orthonormal combinations of penalties that give functions (any, penalties) to the tolerance."""
    if functions.shape[0] <= 2 or functions.shape[1] <= 2:
        return np.eye(functions.shape[1])
    triangle = np.linalg.qr(functions, mode="r") if len(functions) > 2 * functions.shape[1] else functions
    basis = np.linalg.svd(triangle, full_matrices=True)[2].T
    rest = functions.copy()
    for k in range(basis.shape[1]):
        if np.abs(rest).max(initial=0) <= TOLERANCE[dtype]:
            return basis[:, :k]
        rest -= (functions @ basis[:, k])[:, None] * basis[:, k]
    return basis


def blocks_of(functions: np.ndarray, cuts: list[slice], dtype: str) -> list[Block]:
    """Blocks between cuts, which may come from more or fewer eigenvalues; where all vanish there is none."""
    n = len(functions)
    if len(cuts) == 1:
        return [Block(slice(0, n), *[np.eye(functions.shape[1])] * 2)]
    ends = [0] + [round(one.stop * n / cuts[-1].stop) for one in cuts]
    cuts = [slice(a, b) for a, b in itertools.pairwise(ends) if a < b]
    functions, sizes = _relative(functions)
    bases = [basis_of(functions[columns], dtype) for columns in cuts]
    return [
        Block(columns, basis / sizes[:, None], basis.T * sizes)
        for columns, basis in zip(cuts, bases, strict=True)
        if basis.shape[1]
    ]


def _relative(functions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide by the largest for each penalty: correlations do not forgive small predictions their errors."""
    sizes = np.abs(functions).max(0, initial=0)
    sizes = np.where(sizes > 0, sizes, 1.0)
    return functions / sizes, sizes


class Operator:
    """What turns coefficients (targets, eigenvalues) into parts of the predictions of some samples."""

    def __init__(self, algebra: Algebra, n_samples: int, n_penalties: int, dtype: str) -> None:
        self._algebra, self._n_samples, self._dtype = algebra, n_samples, dtype
        self._products: list[tuple[int, Callable[[Any, Any], None]]] = []
        self._mix: list[np.ndarray] = [np.zeros((0, n_penalties))]

    def add(self, block: Block, columns: slice, matrix: Any) -> None:
        """Take some columns of a block with their matrix (eigenvalues, parts * samples)."""
        algebra = self._algebra

        def multiply(Z: Any, out: Any) -> None:
            algebra.mm_to(Z[:, columns], matrix, out)

        self._products.append((len(block.mix), multiply))
        self._mix.append(block.mix)

    def add_rows(self, block: Block, columns: slice, rows: Any, functions: Any, n_targets: int) -> None:
        """Take some columns of a block: ``rows`` (samples, columns) times ``functions`` (columns, parts).

        The functions are multiplied into the rows or into the targets' coefficients, whichever are fewer.
        """
        algebra = self._algebra
        if n_targets > rows.shape[0]:
            matrix = (functions[:, :, None] * rows.T[:, None, :]).reshape(rows.shape[1], -1)
            return self.add(block, columns, matrix)

        def multiply(Z: Any, out: Any) -> None:
            many = Z[:, columns][:, None, :] * functions.T[None, :, :]
            out[:] = algebra.mm(many.reshape(-1, rows.shape[1]), rows.T).reshape(len(Z), -1)

        self._products.append((len(block.mix), multiply))
        self._mix.append(block.mix)
        return None

    def add_constant(self, ones: Any) -> None:
        """Take a combination more, behind all others: ``ones`` (samples,) for every target."""

        def write(Z: Any, out: Any) -> None:
            out[:] = ones

        n_penalties = self._mix[0].shape[1]
        self._products.append((1, write))
        self._mix = [np.pad(mix, ((0, 0), (0, 1))) for mix in self._mix]
        self._mix.append(np.eye(n_penalties + 1)[-1:])

    def parts(self, Z: Any) -> Iterator[tuple[slice, Any]]:
        """Yield some targets at a time and their parts (targets, parts, samples), which are written over."""
        algebra, n = self._algebra, self._n_samples
        n_parts = sum(count for count, _ in self._products)
        size = 4 if self._dtype == "float32" else 8
        width = min(Z.shape[0], max(64, _BUFFER_BYTES // (size * max(n_parts, 1) * n)))
        room = algebra.empty((width, n_parts * n), self._dtype)
        for first in range(0, Z.shape[0], max(width, 1)):
            some = slice(first, min(first + width, Z.shape[0]))
            parts, at = room[: some.stop - first], 0
            for count, multiply in self._products:
                multiply(Z[some], parts[:, at : at + count * n])
                at += count * n
            yield some, parts.reshape(len(parts), n_parts, n)

    @property
    def mix(self) -> Any:
        """Shares (parts, penalties) of parts in predictions."""
        return self._algebra.array(np.concatenate(self._mix), self._dtype)

    def add_sums(self, total: Any, Z: Any, truth: Any | None = None, **options: Any) -> None:
        """Add what :func:`ridge_sums` gives of the predictions for each of Z (targets, eigenvalues)."""
        mix = self.mix
        for some, parts in self.parts(Z):
            total[some] += ridge_sums(parts, mix, None if truth is None else truth[some], **options)
