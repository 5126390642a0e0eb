"""Contrastive losses and retrieval scores against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neurokern.adapters import (
    info_nce,
    mix_inputs,
    mixco_loss,
    retrieval_accuracy,
    retrieve,
    soft_clip,
    two_way_identification,
)


def pairs(n: int = 6, size: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, size)), generator.normal(size=(n, size))


def log_softmax(values: np.ndarray) -> np.ndarray:
    return values - np.log(np.exp(values).sum(1, keepdims=True))


def normal(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_info_nce_equals_its_formula():
    predicted, target = pairs()
    similarity = normal(predicted) @ normal(target).T / 0.2
    forward, backward = (-np.diag(log_softmax(s)).mean() for s in (similarity, similarity.T))
    ours = info_nce(torch.from_numpy(predicted), torch.from_numpy(target), 0.2)
    assert float(ours) == pytest.approx((forward + backward) / 2, rel=1e-12)


def test_soft_clip_equals_its_formula():
    predicted, target = pairs()
    similarity = normal(predicted) @ normal(target).T / 0.2
    wanted = np.exp(log_softmax(normal(target) @ normal(target).T / 0.2))
    forward, backward = (-(wanted * log_softmax(s)).sum(1).mean() for s in (similarity, similarity.T))
    ours = soft_clip(torch.from_numpy(predicted), torch.from_numpy(target), 0.2)
    assert float(ours) == pytest.approx((forward + backward) / 2, rel=1e-12)


def test_mixco_equals_its_formula():
    predicted, target = pairs()
    share, partner = np.array([0.9, 0.2, 1.0, 0.5, 0.3, 0.7]), np.array([1, 2, 0, 3, 5, 1])
    similarity = normal(predicted) @ normal(target).T / 0.2
    rows, columns = log_softmax(similarity), log_softmax(similarity.T)  # columns[j, i]
    total = 0.0
    for i in range(6):
        total -= share[i] * rows[i, i] + (1 - share[i]) * rows[i, partner[i]]
    for j in range(6):
        total -= share[j] * columns[j, j]
        total -= sum((1 - share[i]) * columns[j, i] for i in range(6) if partner[i] == j)
    tensors = (torch.from_numpy(x) for x in (predicted, target, partner, share))
    assert float(mixco_loss(*tensors, temperature=0.2)) == pytest.approx(total / 12, rel=1e-12)


def test_mixco_of_unmixed_samples_is_info_nce():
    predicted, target = (torch.from_numpy(x) for x in pairs())
    whole = mixco_loss(predicted, target, torch.randperm(6), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(whole, info_nce(predicted, target))


@pytest.mark.parametrize("loss", [info_nce, soft_clip])
def test_gradients_of_the_losses(loss):
    predicted, target = (torch.from_numpy(x).requires_grad_() for x in pairs(4, 3))
    assert torch.autograd.gradcheck(lambda p, t: loss(p, t, 0.5), (predicted, target))


def test_gradient_of_mixco():
    predicted, target = (torch.from_numpy(x).requires_grad_() for x in pairs(4, 3))
    share = torch.tensor([0.1, 0.4, 0.8, 1.0], dtype=torch.float64, requires_grad=True)
    partner = torch.tensor([3, 0, 0, 2])
    assert torch.autograd.gradcheck(
        lambda p, t, s: mixco_loss(p, t, partner, s, 0.5), (predicted, target, share)
    )


def test_mixed_inputs_are_the_stated_shares_and_repeat_for_a_generator():
    inputs = torch.randn(200, 3, 2)
    first, again = (mix_inputs(inputs, torch.Generator().manual_seed(3)) for _ in range(2))
    share = first.share[:, None, None]
    torch.testing.assert_close(first.inputs, share * inputs + (1 - share) * inputs[first.partner])
    assert torch.equal(first.inputs, again.inputs)
    assert sorted(first.partner.tolist()) == list(range(200))
    # Beta(0.15, 0.15): variance 1 / (4 * (2 * 0.15 + 1)); 200 draws
    assert float(first.share.var()) == pytest.approx(1 / 5.2, abs=0.04)
    assert bool(((first.share >= 0) & (first.share <= 1)).all())


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 1000))
def test_top_k_retrieval_equals_sorting_in_numpy(n, size, seed):
    predicted, target = pairs(n, size, seed)
    similarity = normal(predicted) @ normal(target).T
    for k in {1, n}:
        hits = [i in np.argsort(-similarity[i], kind="stable")[:k] for i in range(n)]
        ours = retrieval_accuracy(torch.from_numpy(predicted), torch.from_numpy(target), k=k)
        ties = size == 1 and k == 1  # cosines of single numbers are 1 or -1: a tie counts against
        assert ours == np.mean(hits) or (ties and ours <= np.mean(hits))
    index = retrieve(torch.from_numpy(predicted), torch.from_numpy(target), k=n)
    assert sorted(index[0].tolist()) == list(range(n))


def test_fewer_candidates_are_drawn_among_the_others():
    predicted, target = (torch.from_numpy(x) for x in pairs(40, 3))
    few = retrieval_accuracy(predicted, target, n_candidates=2, repeats=400)
    assert few == retrieval_accuracy(predicted, target, n_candidates=2, repeats=400)
    cosine = normal(predicted.numpy()) @ normal(target.numpy()).T
    expected = np.mean([(cosine[i, i] > np.delete(cosine[i], i)).mean() for i in range(40)])
    assert few == pytest.approx(expected, abs=0.02)  # 16,000 draws of a share near 0.5: standard error 0.004
    assert retrieval_accuracy(predicted, target, n_candidates=40) == retrieval_accuracy(predicted, target)


def test_two_way_identification_equals_a_loop():
    predicted, target = pairs(7, 5)
    wins = [
        np.corrcoef(predicted[i], target[i])[0, 1] > np.corrcoef(predicted[i], target[j])[0, 1]
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    ours = two_way_identification(torch.from_numpy(predicted), torch.from_numpy(target))
    assert ours == pytest.approx(np.mean(wins))


def test_perfect_predictions_score_one_and_constant_ones_nothing():
    _, target = (torch.from_numpy(x) for x in pairs())
    assert retrieval_accuracy(target, target) == 1
    assert two_way_identification(target, target) == 1
    same = torch.ones(6, 4)
    assert retrieval_accuracy(same, same) == 0
    assert two_way_identification(torch.randn(1, 5).expand(6, 5), torch.randn(1, 5).expand(6, 5)) == 0.5


def test_bad_pairs_are_refused():
    predicted, target = (torch.from_numpy(x) for x in pairs())
    for loss in (info_nce, soft_clip):
        with pytest.raises(ValueError, match="one shape"):
            loss(predicted, target[:3])
        with pytest.raises(ValueError, match="at least two samples"):
            loss(predicted[:1], target[:1])
        with pytest.raises(ValueError, match="temperature must be above 0"):
            loss(predicted, target, 0.0)
    with pytest.raises(ValueError, match="beta must be above 0"):
        mix_inputs(predicted, beta=0.0)
    with pytest.raises(ValueError, match="between 1 and the 6 candidates, got 7"):
        retrieve(predicted, target, k=7)
    with pytest.raises(ValueError, match="as many dimensions"):
        retrieve(predicted, target[:, :2])
    with pytest.raises(ValueError, match="n_candidates=7"):
        retrieval_accuracy(predicted, target, n_candidates=7)
