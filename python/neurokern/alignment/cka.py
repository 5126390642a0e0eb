"""Centered kernel alignment: how alike two sets of responses to the same stimuli are, up to rotation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from neurokern._check import check_choice, check_flag, check_memory, check_positive
from neurokern.alignment._patterns import (
    as_patterns,
    center,
    center_kernel,
    check_same_samples,
    square_distances,
)
from neurokern.encoding._arrays import like

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["CKA_KERNELS", "CkaAccumulator", "cka"]

CKA_KERNELS = ("linear", "rbf")
_TOO_LARGE = "feed batches to CkaAccumulator"


def cka(
    X: Array, Y: Array, *, kernel: str = "linear", debiased: bool = False, bandwidth: float = 1.0
) -> Array:
    r"""Centered kernel alignment of responses to the same samples.

    :math:`\operatorname{HSIC}(K, L) / \sqrt{\operatorname{HSIC}(K, K) \operatorname{HSIC}(L, L)}` of the
    kernels of X and Y [1]_. It is 1 for patterns that are rotated, scaled or moved copies of each other.

    Parameters
    ----------
    X : array or tensor of shape (..., samples, features of X)
    Y : array or tensor of shape (..., samples, features of Y)
        Leading axes are broadcast: layers (L, 1, samples, p) against regions x times (T, samples, q).
    kernel : {"linear", "rbf"}
    debiased : bool, default False
        Use the unbiased estimate of HSIC [2]_, which is 0 on average for unrelated responses. The plain one
        grows with features over samples, to about 1 when there are many more features than samples: use
        ``debiased`` where the numbers of units differ. Needs four samples.
    bandwidth : float, default 1.0
        Of "rbf", in medians of the distances between different samples.

    Returns
    -------
    similarity : array or tensor of the broadcast leading shape, float64
        NaN where X or Y never varies (or has a debiased HSIC with itself of 0 or below).

    Raises
    ------
    ValueError
        If the numbers of samples differ, there are too few, a value is not finite, or the kernels would not
        fit into memory.

    Notes
    -----
    With fewer features than samples the linear kernels are not formed: :math:`O(n p q)` for the whole.

    References
    ----------
    .. [1] Kornblith et al., "Similarity of neural network representations revisited", ICML 2019.
    .. [2] Song et al., "Feature selection via dependence maximization", JMLR 13 (2012), 1393-1434, eq. 5.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(float(cka(X, 2 * X[:, ::-1] + 1)), 6)
    1.0
    """
    function = "cka"
    check_choice(function, "kernel", kernel, CKA_KERNELS)
    check_flag(function, "debiased", debiased)
    check_positive(function, "bandwidth", bandwidth)
    least = 4 if debiased else 2
    a = as_patterns(function, "X", X, least=least)
    b = as_patterns(function, "Y", Y, least=least).to(a.device)
    check_same_samples(function, a, b)
    sides = [prepare_cka(one, kernel=kernel, debiased=debiased, bandwidth=bandwidth) for one in (a, b)]
    return like(X, compare_prepared(*sides))


class Prepared(NamedTuple):
    """One side of CKA: a centered kernel, or centered features where these are fewer than samples."""

    values: Tensor
    is_kernel: bool
    own: Tensor  # HSIC with itself
    debiased: bool


def prepare_cka(
    X: Tensor, *, kernel: str = "linear", debiased: bool = False, bandwidth: float = 1.0
) -> Prepared:
    """Do once what is the same for every comparison of X (..., samples, features); no larger than X."""
    X = center(X)
    if kernel == "linear" and X.shape[-1] < X.shape[-2]:
        return Prepared(X, False, _hsic_of_features(X, X, debiased), debiased)
    K = _kernel("cka", X, kernel, bandwidth)
    K = _u_centered(K) if debiased else center_kernel(K)
    return Prepared(K, True, K.square().sum((-2, -1)), debiased)


def compare_prepared(a: Prepared, b: Prepared) -> Tensor:
    """Return CKA of two sides; leading axes are broadcast."""
    if a.is_kernel and b.is_kernel:
        cross = (a.values * b.values).sum((-2, -1))
    elif a.is_kernel or b.is_kernel:
        K, X = (a.values, b.values) if a.is_kernel else (b.values, a.values)
        cross = ((K @ X) * X).sum((-2, -1))  # K is centered, which centers the other kernel as well
    else:
        cross = _hsic_of_features(a.values, b.values, a.debiased)
    return _ratio(cross, a.own, b.own)


class CkaAccumulator:
    """CKA of many layers with many layers or regions, from batches that need not fit into memory together.

    HSIC is estimated without bias in each batch, and the estimates are averaged [1]_: the result does not
    depend on the size of the batches but for noise, and no batch sees another.

    Parameters
    ----------
    kernel : {"linear", "rbf"}
    bandwidth : float, default 1.0
        As in :func:`cka`; the median is that of each batch.

    Examples
    --------
    >>> accumulator = CkaAccumulator()
    >>> for batch in np.random.default_rng(0).normal(size=(4, 32, 5)):
    ...     accumulator.update([batch, batch**3], [batch[:, :2]])
    >>> accumulator.result().shape
    (2, 1)

    References
    ----------
    .. [1] Nguyen, Raghu, Kornblith, "Do wide and deep networks learn the same things?", ICLR 2021.
    """

    def __init__(self, kernel: str = "linear", *, bandwidth: float = 1.0) -> None:
        self.kernel = check_choice("CkaAccumulator", "kernel", kernel, CKA_KERNELS)
        self.bandwidth = check_positive("CkaAccumulator", "bandwidth", bandwidth)
        self.n_batches = 0
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None
        self._given: Any = None

    def update(self, xs: Sequence[Array], ys: Sequence[Array]) -> None:
        """Take in a batch.

        Parameters
        ----------
        xs, ys : sequences of arrays or tensors of shape (samples, features)
            Responses of each layer, or region, to the samples of the batch: at least four, the same number
            in all. Every batch must bring as many layers as the first.
        """
        function = "CkaAccumulator.update"
        if not xs or not ys:
            raise ValueError(f"{function}: xs and ys must hold at least one array each")
        sides = [[as_patterns(function, "xs and ys", one, least=4) for one in side] for side in (xs, ys)]
        sides = [[one.to(sides[0][0].device) for one in side] for side in sides]
        for one in (*sides[0], *sides[1]):
            if one.ndim != 2:
                raise ValueError(
                    f"{function}: arrays must have shape (samples, features), got {tuple(one.shape)}"
                )
            check_same_samples(function, sides[0][0], one, ("the first array", "the others"))
        # One row per layer: the unbiased HSIC is a scalar product of such rows.
        K, L = (torch.stack([self._row(one) for one in side]) for side in sides)
        pairs = len(sides[0][0]) * (len(sides[0][0]) - 3)
        new = (K @ L.mT / pairs, K.square().sum(1) / pairs, L.square().sum(1) / pairs)
        if self._sums is None:
            self._sums, self._given = new, xs[0]
        elif self._sums[0].shape != new[0].shape:
            raise ValueError(
                f"{function}: every batch must have as many arrays as the first, "
                f"{tuple(self._sums[0].shape)}, got {tuple(new[0].shape)}"
            )
        else:
            self._sums = tuple(old + one for old, one in zip(self._sums, new, strict=True))  # type: ignore[assignment]
        self.n_batches += 1

    def _row(self, features: Tensor) -> Tensor:
        return _u_centered(_kernel("CkaAccumulator.update", features, self.kernel, self.bandwidth)).flatten()

    def result(self) -> Array:
        """Return CKA, (layers of xs, layers of ys), float64; NaN for a layer that never varies.

        Raises
        ------
        ValueError
            If there was no batch.
        """
        if self._sums is None:
            raise ValueError("CkaAccumulator.result: there was no batch; call update first")
        cross, own_x, own_y = self._sums
        return like(self._given, _ratio(cross, own_x[:, None], own_y[None]))


def _kernel(function: str, X: Tensor, kernel: str, bandwidth: float) -> Tensor:
    n_samples = X.shape[-2]
    n_bytes = 8.0 * math.prod(X.shape[:-2]) * n_samples**2
    check_memory(function, f"kernels of {n_samples} samples", 4 * n_bytes, _TOO_LARGE)
    if kernel == "linear":
        X = center(X)
        return X @ X.mT
    distances = square_distances(X, X)
    row, column = torch.triu_indices(n_samples, n_samples, 1, device=X.device)
    median = distances[..., row, column].median(-1).values[..., None, None]
    return torch.exp(-distances / (2 * bandwidth**2 * median.where(median > 0, 1.0)))


def _u_centered(K: Tensor) -> Tensor:
    """Centered with an empty diagonal, so that products estimate HSIC without bias (Szekely & Rizzo 2014)."""
    n = K.shape[-1]
    K = K.clone()
    K.diagonal(dim1=-2, dim2=-1).zero_()
    rows = K.sum(-1, keepdim=True) / (n - 2)
    K = K - rows - rows.mT + rows.sum(-2, keepdim=True) / (n - 1)
    K.diagonal(dim1=-2, dim2=-1).zero_()
    return K


def _hsic_of_features(a: Tensor, b: Tensor, debiased: bool) -> Tensor:
    """HSIC of linear kernels of centered features; Song et al. eq. 5 with row sums of the kernel -k_ii."""
    cross = (a.mT @ b).square().sum((-2, -1))
    if not debiased:
        return cross
    n = a.shape[-2]
    own_a, own_b = a.square().sum(-1), b.square().sum(-1)
    both = (own_a * own_b).sum(-1)
    return cross - both + own_a.sum(-1) * own_b.sum(-1) / ((n - 1) * (n - 2)) - 2 * both / (n - 2)


def _ratio(cross: Tensor, own_x: Tensor, own_y: Tensor) -> Tensor:
    product = own_x.clamp_min(0) * own_y.clamp_min(0)
    return torch.where(product > 0, cross / product.sqrt(), math.nan)
