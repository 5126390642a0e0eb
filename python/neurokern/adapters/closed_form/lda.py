"""Linear discriminant analysis with a shrunk covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from neurokern._check import check_fraction
from neurokern.adapters._labels import Scaler, class_counts
from neurokern.adapters.closed_form._probe import ClosedFormProbe, Solution
from neurokern.ops import solve_ridge_batched

_ESTIMATES = ("ledoit-wolf", "oas")


class LDAProbe(ClosedFormProbe):
    r"""Linear discriminant analysis with a shrunk covariance.

    The covariance within classes :math:`S` (over all n samples, divided by n) is replaced by
    :math:`(1 - \gamma) S + \gamma \, \mathrm{tr}(S) / p \, I`; weights are :math:`S^{-1} \mu_c` and biases
    :math:`-\mu_c^T S^{-1} \mu_c / 2 + \ln \pi_c` [1]_, with class means about the mean of the support set.

    Parameters
    ----------
    shrinkage : "ledoit-wolf", "oas" or float in [0, 1], default "ledoit-wolf"
        :math:`\gamma`, or the estimate of [2]_ or [3]_ from the samples about their class means.
    standardize : bool, default False
        Divide features by their spread over the support set. Counts, rates and factors come in units
        of their own; spreads over a few samples would blow up the rarest of them.
    uniform_prior : bool, default False
        Take all classes as equally likely instead of in their share of the support set.

    Attributes
    ----------
    shrinkage_ : float
        The gamma that was used; of a stack (episodes,).

    Notes
    -----
    With more features than samples :math:`S^{-1} \mu = (\mu - W) / \beta`, where W are ridge weights of
    :math:`X \mu` on the samples X about their class means: the solver's dual form, so that no matrix of size
    features x features is formed. With one sample per class there is no covariance within classes, and the
    nearest class mean wins.

    References
    ----------
    .. [1] Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 2nd ed., section 4.3.
    .. [2] Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
       J. Multivariate Anal. 88 (2004), 365-411.
    .. [3] Chen, Wiesel, Eldar, Hero, "Shrinkage algorithms for MMSE covariance estimation", IEEE Trans.
       Signal Process. 58 (2010), 5016-5029.
    """

    def __init__(
        self,
        shrinkage: float | str = "ledoit-wolf",
        *,
        standardize: bool = False,
        uniform_prior: bool = False,
    ) -> None:
        super().__init__(standardize=standardize)
        if isinstance(shrinkage, str):
            if shrinkage not in _ESTIMATES:
                raise ValueError(
                    f'LDAProbe: shrinkage must be "ledoit-wolf", "oas" or a number, got {shrinkage!r}'
                )
        else:
            shrinkage = check_fraction("LDAProbe", "shrinkage", shrinkage)
        self._shrinkage = shrinkage
        self._uniform_prior = uniform_prior
        self.shrinkage_: float | Tensor = float("nan")

    def _solve(self, features: Tensor, number: Tensor, scaler: Scaler) -> Solution:
        features = features.double()
        one_hot = torch.nn.functional.one_hot(number, len(self.classes_)).double()
        counts = class_counts(number, len(self.classes_)).double()
        means = one_hot.mT @ features / counts[:, :, None]  # (episodes, classes, features)
        within = features - one_hot @ means
        dual = within.shape[2] > within.shape[1]
        gram = (within @ within.mT if dual else within.mT @ within) / within.shape[1]
        variance = within.square().sum((1, 2)) / within[0].numel()
        gamma = self._gamma(within, gram, variance)
        # Without any covariance the nearest mean wins, which the identity does.
        varies = variance > 0
        gamma, variance = torch.where(varies, gamma, 1.0), torch.where(varies, variance, 1.0)
        solve = _solve_dual if dual else _solve_primal
        weights = solve(within, gram, gamma, gamma * variance, means.mT)
        prior = torch.ones_like(counts) if self._uniform_prior else counts
        bias = (prior / prior.sum(1, keepdim=True)).log() - 0.5 * (means.mT * weights).sum(1)
        return Solution(weights, bias, {"shrinkage_": gamma})

    def _gamma(self, within: Tensor, gram: Tensor, variance: Tensor) -> Tensor:
        if not isinstance(self._shrinkage, str):
            return torch.full_like(variance, self._shrinkage)
        _, n_samples, n_features = within.shape
        size = gram.square().sum((1, 2))  # |S|^2, the same for either Gram matrix
        distance = size - n_features * variance**2  # |S - variance I|^2
        if self._shrinkage == "ledoit-wolf":
            fourth = within.square().sum(2).square().sum(1)
            noise = (fourth / n_samples - size) / n_samples
        else:
            noise = (size + (n_features * variance) ** 2) / (n_samples + 1)
        known = distance > 1e-12 * size
        return torch.where(known, (noise / torch.where(known, distance, 1.0)).clamp(0, 1), 1.0)


def _solve_primal(within: Tensor, gram: Tensor, gamma: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    """Solve with (1 - gamma) gram + ridge I, (episodes, features, features)."""
    system = (1 - gamma)[:, None, None] * gram
    system.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    factor, failed = torch.linalg.cholesky_ex(system)
    if bool(failed.any()):
        raise ValueError(_singular(within))
    return torch.cholesky_solve(right, factor)


def _solve_dual(within: Tensor, gram: Tensor, gamma: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    """Solve with the same matrix by way of the samples: (X'X + I)^-1 m = m - X'(XX' + I)^-1 X m."""
    if bool((ridge == 0).any()):
        raise ValueError(_singular(within))
    X = within * ((1 - gamma) / (within.shape[1] * ridge)).sqrt()[:, None, None]
    along = solve_ridge_batched(X, X @ right, 1.0, fit_intercept=False).weights
    return (right - along) / ridge[:, None, None]


def _singular(within: Tensor) -> str:
    return (
        f"LDAProbe: the covariance of {within.shape[2]} features over {within.shape[1]} samples cannot be "
        "inverted; use a shrinkage above 0"
    )
