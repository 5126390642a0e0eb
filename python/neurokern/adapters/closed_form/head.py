"""A ridge read-out inside of a network: gradients flow through its solution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurokern._check import check_positive
from neurokern.ops import solve_ridge_batched


class RidgeHead(nn.Module):
    r"""Solve ridge regression on the support sets of a batch of episodes, and answer their queries.

    The base learner of R2-D2 [1]_: outputs are :math:`s (z W + b) + c`, where W and b are the ridge weights
    of the support set. The penalty alpha, the scale s and the bias c are parameters, and the solution is
    differentiated by the implicit function theorem, so that a network that makes the features learns to be
    read out from few samples.

    Parameters
    ----------
    alpha : float, default 1.0
        Penalty to start from. It is not relative to the size of features, which are learned, too.
    scale : float, default 1.0
        To start from. A softmax of regression scores in [0, 1] is flat: for classes take 10, say.
    fit_intercept : bool, default True
    learnable : bool, default True
        False keeps the three as they are.

    References
    ----------
    .. [1] Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019.

    Examples
    --------
    >>> head = RidgeHead(scale=10.0)
    >>> support, query = torch.randn(8, 25, 64, requires_grad=True), torch.randn(8, 75, 64)
    >>> labels = torch.arange(25).remainder(5).expand(8, -1)
    >>> head(support, labels, query).shape
    torch.Size([8, 75, 5])
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        scale: float = 1.0,
        fit_intercept: bool = True,
        learnable: bool = True,
    ) -> None:
        super().__init__()
        log_alpha = math.log(check_positive("RidgeHead", "alpha", alpha))
        log_scale = math.log(check_positive("RidgeHead", "scale", scale))
        self.log_alpha = nn.Parameter(torch.tensor(log_alpha, dtype=torch.float64), requires_grad=learnable)
        self.log_scale = nn.Parameter(torch.tensor(log_scale), requires_grad=learnable)
        self.bias = nn.Parameter(torch.tensor(0.0), requires_grad=learnable)
        self.fit_intercept = fit_intercept

    def forward(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """Fit each support set and return the outputs for its queries.

        Parameters
        ----------
        support : tensor of shape (episodes, samples, features)
        targets : int64 tensor of shape (episodes, samples), or tensor of shape (episodes, samples, targets)
            Numbers of classes from 0, of which outputs are scores, or continuous targets.
        query : tensor of shape (episodes, queries, features)

        Returns
        -------
        outputs : tensor of shape (episodes, queries, classes or targets)
            In float64 if the support demands it, else in float32.

        Raises
        ------
        ValueError
            If shapes do not fit, or values are NaN or infinite.
        """
        if support.ndim != 3 or query.ndim != 3 or support.shape[::2] != query.shape[::2]:
            raise ValueError(
                "RidgeHead: support and query must have shape (episodes, samples, features) with the same "
                f"episodes and features, got {tuple(support.shape)} and {tuple(query.shape)}"
            )
        if targets.shape[:2] != support.shape[:2] or targets.ndim not in (2, 3):
            raise ValueError(
                f"RidgeHead: targets must have shape {tuple(support.shape[:2])} or (..., targets), got "
                f"{tuple(targets.shape)}"
            )
        if targets.ndim == 2:
            if targets.is_floating_point():
                raise ValueError(
                    "RidgeHead: targets of shape (episodes, samples) must be whole numbers of classes, got "
                    f"{targets.dtype}; add an axis to regress on them"
                )
            targets = nn.functional.one_hot(targets.long())
        alpha = self.log_alpha.exp().reshape(1)
        fit = solve_ridge_batched(support, targets.to(support), alpha, fit_intercept=self.fit_intercept)
        # Scale and bias go into the few weights, not into the many outputs.
        scale = self.log_scale.exp().to(fit.weights)
        intercept = scale * fit.intercept + self.bias.to(fit.weights)
        return torch.baddbmm(intercept[:, None], query.to(fit.weights), scale * fit.weights)
