"""Contrastive losses between predicted and target embeddings: InfoNCE, SoftCLIP and MixCo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Mixed",
    "info_nce",
    "mix_inputs",
    "mixco_loss",
    "soft_clip",
]


def info_nce(predicted: Tensor, target: Tensor, temperature: float | Tensor = 0.07) -> Tensor:
    r"""Symmetric InfoNCE (CLIP) loss: the mean of both directions.

    With cosines :math:`s_{ij} = p_i \cdot t_j / \tau` the loss is the mean over i of
    :math:`-\tfrac12 \left[ \ln \mathrm{softmax}_j(s_{ij})_i + \ln \mathrm{softmax}_j(s_{ji})_i \right]`
    [1]_ [2]_.

    Parameters
    ----------
    predicted, target : tensors of shape (samples, dimensions)
        Row i of one belongs to row i of the other. Rows are normalized here.
    temperature : float or tensor, default 0.07

    Returns
    -------
    loss : tensor of shape ()

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two samples (one has nothing to be told from), or the
        temperature is not above 0.

    References
    ----------
    .. [1] van den Oord, Li, Vinyals, "Representation learning with contrastive predictive coding",
       arXiv:1807.03748.
    .. [2] Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021.
    """
    similarity = cosine_similarity("info_nce", predicted, target, temperature)
    own = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def soft_clip(predicted: Tensor, target: Tensor, temperature: float | Tensor = 0.07) -> Tensor:
    r"""SoftCLIP: the targets' own similarities take the place of one-hot labels.

    With :math:`q_{ij} = \mathrm{softmax}_j(t_i \cdot t_j / \tau)` the loss is the mean over i and over both
    directions of :math:`-\sum_j q_{ij} \ln \mathrm{softmax}_j(p_i \cdot t_j / \tau)` [1]_, so that a
    prediction is not punished for likeness to a target that is like its own.

    Parameters, Returns and Raises as for :func:`info_nce`.

    References
    ----------
    .. [1] Scotti et al., "Reconstructing the mind's eye: fMRI-to-image with contrastive learning and
       diffusion priors", NeurIPS 2023, section 2.1 (arXiv:2305.18274).
    """
    similarity = cosine_similarity("soft_clip", predicted, target, temperature)
    normal = F.normalize(target, dim=1)
    wanted = (normal @ normal.T / temperature).softmax(1)
    forward = -(wanted * similarity.log_softmax(1)).sum(1).mean()
    backward = -(wanted * similarity.T.log_softmax(1)).sum(1).mean()
    return (forward + backward) / 2


@dataclass(frozen=True, eq=False)
class Mixed:
    """Inputs mixed in pairs.

    Attributes
    ----------
    inputs : tensor of shape (samples, ...)
        ``share * x + (1 - share) * x[partner]``.
    partner : int64 tensor of shape (samples,)
    share : tensor of shape (samples,)
    """

    inputs: Tensor
    partner: Tensor
    share: Tensor


def mix_inputs(inputs: Tensor, generator: torch.Generator | None = None, beta: float = 0.15) -> Mixed:
    """Mix each sample with another one of the batch, for :func:`mixco_loss`.

    Parameters
    ----------
    inputs : float tensor of shape (samples, ...)
    generator : torch.Generator, optional
        On the CPU; without one, torch's global generator.
    beta : float, default 0.15
        Shares are drawn from Beta(beta, beta), as published [1]_: most samples stay nearly whole.

    References
    ----------
    .. [1] Kim et al., "MixCo: Mix-up contrastive learning for visual representation", arXiv:2010.06300.
    """
    if not beta > 0:
        raise ValueError(f"mix_inputs: beta must be above 0, got {beta!r}")
    n = len(inputs)
    partner = torch.randperm(n, generator=generator).to(inputs.device)
    # torch.distributions takes no generator; a ratio of two gamma draws is a beta draw.
    gamma = torch._standard_gamma(torch.full((2, n), float(beta), dtype=torch.float64), generator)
    share = torch.where(gamma.sum(0) > 0, gamma[0] / gamma.sum(0).clamp_min(1e-300), 0.5)
    share = share.to(inputs.device, inputs.dtype)
    column = share.reshape(-1, *[1] * (inputs.ndim - 1))
    return Mixed(column * inputs + (1 - column) * inputs[partner], partner, share)


def mixco_loss(
    predicted: Tensor, target: Tensor, partner: Tensor, share: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    r"""Bidirectional MixCo: a mixed sample belongs to two targets, in its shares.

    With the matrix :math:`M_{ij} = \lambda_i [j = i] + (1 - \lambda_i) [j = k_i]` of what each mixed input
    i holds of target j, the loss is the mean of :math:`-\sum_j M_{ij} \ln \mathrm{softmax}_j(s_{ij})` over
    i and of :math:`-\sum_i M_{ij} \ln \mathrm{softmax}_i(s_{ij})` over j, halved ([1]_, equation 1, which
    sums instead).

    Parameters
    ----------
    predicted : tensor of shape (samples, dimensions)
        From the inputs that :func:`mix_inputs` made.
    target : tensor of shape (samples, dimensions)
        Of the samples as they were.
    partner, share : tensors of shape (samples,)
        Of :class:`Mixed`.
    temperature : float or tensor, default 0.07

    References
    ----------
    .. [1] Scotti et al., arXiv:2305.18274.
    """
    similarity = cosine_similarity("mixco_loss", predicted, target, temperature)
    n = len(similarity)
    rows = torch.arange(n, device=similarity.device)
    held = torch.zeros_like(similarity)
    held = held.index_put((rows, rows), share.to(held.dtype), accumulate=True)
    held = held.index_put((rows, partner), 1 - share.to(held.dtype), accumulate=True)
    forward = -(held * similarity.log_softmax(1)).sum() / n
    backward = -(held * similarity.log_softmax(0)).sum() / n
    return (forward + backward) / 2


def cosine_similarity(
    function: str, predicted: Tensor, target: Tensor, temperature: float | Tensor
) -> Tensor:
    """Cosines of all predictions with all targets over the temperature, ``(samples, samples)``."""
    check_pair(function, predicted, target)
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"{function}: temperature must be above 0, got {temperature!r}")
    return F.normalize(predicted, dim=1) @ F.normalize(target, dim=1).T / temperature


def check_pair(function: str, predicted: Tensor, target: Tensor) -> None:
    if predicted.shape != target.shape or predicted.ndim != 2 or len(predicted) < 2:
        raise ValueError(
            f"{function}: predicted and target must have one shape (samples, dimensions) with at least two "
            f"samples, got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
