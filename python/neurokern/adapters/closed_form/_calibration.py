"""Logits from decision scores: a scale and a bias for each class, by maximum likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 30
_HALVINGS = 12
_SMALLEST_SCALE = 1e-3  # scores that say nothing, or the contrary, still order the classes
_GAUGE = 1e-6  # a constant for all classes changes nothing; this keeps the system solvable


def calibrate(scores: Tensor, number: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    r"""Fit :math:`\mathrm{softmax}(s f + b)` to classes, episode by episode, by Newton's method.

    Targets are pulled away from 0 and 1 as in [1]_, so that scores that separate the classes have a finite
    scale.

    Parameters
    ----------
    scores : tensor of shape (episodes, samples, classes), float64
        Of samples that the read-out has not seen.
    number : int64 tensor of shape (episodes, samples)
    counts : int64 tensor of shape (episodes, classes)

    Returns
    -------
    scale : tensor of shape (episodes,)
        Above 0.
    bias : tensor of shape (episodes, classes)
        With mean 0.

    References
    ----------
    .. [1] Platt, "Probabilistic outputs for support vector machines", in Advances in Large Margin
       Classifiers, MIT Press (1999).
    """
    wanted = _smoothed(number, counts)
    n_classes = counts.shape[1]
    theta = torch.zeros(len(scores), 1 + n_classes, dtype=scores.dtype, device=scores.device)
    theta[:, 0] = 1
    loss = _loss(scores, theta, wanted)
    for _ in range(_STEPS):
        step = _newton_step(scores, theta, wanted)
        theta, loss, moved = _descend(scores, wanted, theta, loss, step)
        if not bool(moved.any()):
            break
    bias = theta[:, 1:]
    return theta[:, 0].clamp_min(_SMALLEST_SCALE), bias - bias.mean(1, keepdim=True)


def _smoothed(number: Tensor, counts: Tensor) -> Tensor:
    """Targets (episodes, samples, classes) that leave a little to the other classes."""
    n_classes = counts.shape[1]
    own = ((counts + 1) / (counts + 2)).double().gather(1, number)[:, :, None]
    one_hot = torch.nn.functional.one_hot(number, n_classes).double()
    return one_hot * own + (1 - one_hot) * (1 - own) / (n_classes - 1)


def _logits(scores: Tensor, theta: Tensor) -> Tensor:
    return theta[:, :1, None] * scores + theta[:, None, 1:]


def _loss(scores: Tensor, theta: Tensor, wanted: Tensor) -> Tensor:
    return -(wanted * _logits(scores, theta).log_softmax(2)).sum((1, 2))


def _newton_step(scores: Tensor, theta: Tensor, wanted: Tensor) -> Tensor:
    """The inverse of the Hessian times the gradient, (episodes, 1 + classes)."""
    p = _logits(scores, theta).softmax(2)
    missed = p - wanted
    gradient = torch.cat([(missed * scores).sum((1, 2))[:, None], missed.sum(1)], 1)
    about = scores - (p * scores).sum(2, keepdim=True)
    hessian = torch.zeros(*theta.shape, theta.shape[1], dtype=theta.dtype, device=theta.device)
    hessian[:, 0, 0] = (p * about.square()).sum((1, 2))
    hessian[:, 0, 1:] = hessian[:, 1:, 0] = (p * about).sum(1)
    hessian[:, 1:, 1:] = torch.diag_embed(p.sum(1)) - p.mT @ p
    hessian.diagonal(dim1=1, dim2=2).add_(_GAUGE)
    return torch.linalg.solve(hessian, gradient)


def _descend(
    scores: Tensor, wanted: Tensor, theta: Tensor, loss: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Go along a step, halved for the episodes that it would make worse."""
    size = torch.ones_like(loss)
    for _ in range(_HALVINGS):
        trial = theta - size[:, None] * step
        trial_loss = _loss(scores, trial, wanted)
        better = trial_loss < loss - 1e-12 * loss.abs()
        settled = step.abs().amax(1) < 1e-9
        if bool((better | settled).all()):
            break
        size = torch.where(better, size, size / 2)
    return (
        torch.where(better[:, None], trial, theta),
        torch.where(better, trial_loss, loss),
        better,
    )
