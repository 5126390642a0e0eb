"""How predicted embeddings are scored: top-k retrieval and two-way identification."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from neurokern.adapters.contrastive import check_pair, cosine_similarity

__all__ = ["retrieval_accuracy", "retrieve", "two_way_identification"]


def retrieve(predicted: Tensor, gallery: Tensor, k: int = 1) -> Tensor:
    """Return the ``k`` entries of a gallery with the largest cosine to each prediction.

    Parameters
    ----------
    predicted : tensor of shape (samples, dimensions)
    gallery : tensor of shape (candidates, dimensions)
    k : int, default 1

    Returns
    -------
    index : int64 tensor of shape (samples, k)
        The best first; of equal ones the earlier.
    """
    if predicted.ndim != 2 or gallery.ndim != 2 or predicted.shape[1] != gallery.shape[1]:
        raise ValueError(
            "retrieve: predicted and gallery must have shape (samples, dimensions) with as many dimensions, "
            f"got {tuple(predicted.shape)} and {tuple(gallery.shape)}"
        )
    if not 1 <= k <= len(gallery):
        raise ValueError(f"retrieve: k must lie between 1 and the {len(gallery)} candidates, got {k}")
    cosine = F.normalize(predicted, dim=1) @ F.normalize(gallery, dim=1).T
    return cosine.sort(dim=1, descending=True, stable=True).indices[:, :k]


def retrieval_accuracy(
    predicted: Tensor,
    target: Tensor,
    *,
    k: int = 1,
    n_candidates: int | None = None,
    repeats: int = 30,
    seed: int = 0,
) -> float:
    """Share of predictions whose own target is among the ``k`` nearest of the candidates.

    Parameters
    ----------
    predicted, target : tensors of shape (samples, dimensions)
        Row i of one belongs to row i of the other.
    k : int, default 1
    n_candidates : int, optional
        Candidates of each prediction: its own target and others drawn without replacement. All targets by
        default. The score depends on it: report it.
    repeats : int, default 30
        Draws that are averaged over, where ``n_candidates`` is given; 300 candidates and 30 draws are usual
        [1]_.
    seed : int, default 0

    Returns
    -------
    accuracy : float
        Chance is ``k / n_candidates``. A tie with the own target counts against it, so that constant
        predictions do not score.

    References
    ----------
    .. [1] Lin, Sprague, Singh, "Mind Reader", NeurIPS 2022; Scotti et al., arXiv:2305.18274.
    """
    similarity = cosine_similarity("retrieval_accuracy", predicted, target, 1.0).double()
    n = len(similarity)
    size = n if n_candidates is None else n_candidates
    if not 1 <= k <= size <= n or size < 2 or repeats < 1:
        raise ValueError(
            "retrieval_accuracy: 1 <= k <= n_candidates <= samples, n_candidates >= 2 and repeats >= 1 must "
            f"hold, got k={k}, n_candidates={size}, {n} samples, repeats={repeats}"
        )
    own = similarity.diagonal()[:, None]
    beaten = (similarity >= own).cpu().numpy()  # a tie counts as better than the own target
    np.fill_diagonal(beaten, False)
    if size == n:
        return float((beaten.sum(1) < k).mean())
    generator = np.random.default_rng(seed)
    hits = 0.0
    for _ in range(repeats):
        order = generator.random((n, n))
        np.fill_diagonal(order, np.inf)  # the own target is a candidate anyway
        drawn = np.argpartition(order, size - 2, axis=1)[:, : size - 1]
        hits += float((np.take_along_axis(beaten, drawn, 1).sum(1) < k).mean())
    return hits / repeats


def two_way_identification(predicted: Tensor, target: Tensor) -> float:
    """Share of pairs in which a prediction is nearer to its own target than to another one.

    Over all ordered pairs (own, other), by the Pearson correlation of the embeddings, as usual for
    reconstructions; a tie counts half. Chance is 0.5.

    Parameters
    ----------
    predicted, target : tensors of shape (samples, dimensions)
        Row i of one belongs to row i of the other; at least two of each.
    """
    check_pair("two_way_identification", predicted, target)
    centered = [
        F.normalize(x.double() - x.double().mean(1, keepdim=True), dim=1) for x in (predicted, target)
    ]
    correlation = centered[0] @ centered[1].T
    own = correlation.diagonal()[:, None]
    n = len(correlation)
    wins = (correlation < own).double() + (correlation == own).double() / 2
    wins.fill_diagonal_(0)
    return float(wins.sum() / (n * (n - 1)))
