"""Stacks of episodes against loops over them; ridge about priors; gradients through a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokern.adapters import (
    LDAProbe,
    PrototypeProbe,
    ReducedRankProbe,
    ReducedRankReadout,
    RidgeHead,
    RidgeProbe,
    RidgeReadout,
)
from neurokern.adapters.closed_form import _episodes, _probe
from neurokern.ops import solve_ridge

MAKERS = {
    "ridge": RidgeProbe,
    "standardized ridge": lambda: RidgeProbe(standardize=True, targets="signed"),
    "calibrated ridge": lambda: RidgeProbe(calibrate=True),
    "lda": LDAProbe,
    "oas": lambda: LDAProbe("oas", standardize=True, uniform_prior=True),
    "prototypes": lambda: PrototypeProbe(pseudo_counts=2.0),
    "cosine": lambda: PrototypeProbe("cosine"),
    "reduced rank": lambda: ReducedRankProbe([0.1, 10.0]),
}


def episodes(n_episodes=4, n_per_class=3, n_features=20, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.stack(
        [rng.permutation(np.repeat(np.arange(n_classes), n_per_class)) for _ in range(n_episodes)]
    )
    centers = rng.normal(size=(n_classes, n_features))
    return centers[labels] + rng.normal(size=(*labels.shape, n_features)), labels


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(("n_per_class", "n_features"), [(4, 30), (8, 5), (1, 12)])
def test_a_stack_is_a_loop_over_its_episodes(maker, n_per_class, n_features, monkeypatch):
    features, labels = episodes(n_per_class=n_per_class, n_features=n_features)
    features[2] = features[2] * 100 + 5  # episodes in other units
    queries = np.random.default_rng(1).normal(size=(7, n_features))
    monkeypatch.setattr(_probe, "_CHUNK_ELEMENTS", 2 * features[0].size)
    stack = maker().fit_batched(features, labels)
    alone = [maker().fit(*episode) for episode in zip(features, labels, strict=True)]
    wanted = torch.stack([probe.decision_function(queries) for probe in alone])
    np.testing.assert_allclose(stack.decision_function_batched(queries), wanted, rtol=1e-7, atol=1e-8)
    each = stack.decision_function_batched(np.broadcast_to(queries, (4, *queries.shape)))
    np.testing.assert_allclose(each, wanted, rtol=1e-7, atol=1e-8)
    assert stack.predict_batched(queries).tolist() == [probe.predict(queries).tolist() for probe in alone]
    if isinstance(alone[0], RidgeProbe):
        np.testing.assert_allclose(stack.alpha_, [probe.alpha_ for probe in alone])
        np.testing.assert_allclose(stack.scale_, [probe.scale_ for probe in alone], rtol=1e-6)


def test_episodes_of_single_and_of_several_samples_of_a_class_mix():
    features, labels = episodes(n_episodes=2, n_per_class=2, n_classes=2)
    labels[0] = [0, 1, 1, 1]
    stack = RidgeProbe().fit_batched(features, labels)
    alone = [RidgeProbe().fit(*episode) for episode in zip(features, labels, strict=True)]
    assert stack.alpha_.tolist() == pytest.approx([probe.alpha_ for probe in alone])
    assert alone[0].alpha_ == 1.0
    np.testing.assert_allclose(stack.weights_, torch.stack([probe.weights_ for probe in alone]), atol=1e-10)


@pytest.mark.parametrize("shape", [(4, 30), (8, 5), (1, 12)])
def test_large_problems_are_solved_alike(shape, monkeypatch):
    features, labels = episodes(n_per_class=shape[0], n_features=shape[1])
    targets = np.random.default_rng(1).normal(size=(*labels.shape, 2)) + features[..., :2]
    small = [RidgeProbe().fit_batched(features, labels), RidgeReadout().fit_batched(features, targets)]
    monkeypatch.setattr(_episodes, "_LARGEST_SIDE", 1)
    large = [RidgeProbe().fit_batched(features, labels), RidgeReadout().fit_batched(features, targets)]
    for one, other in zip(small, large, strict=True):
        np.testing.assert_allclose(other.weights_, one.weights_, atol=1e-9)
        np.testing.assert_allclose(other.bias_, one.bias_, atol=1e-9)
    np.testing.assert_array_equal(large[0].alpha_, small[0].alpha_)
    np.testing.assert_array_equal(large[1].alphas_, small[1].alphas_)


def test_features_of_the_caller_are_left_alone():
    features, labels = episodes(1)
    for values in (features[0].copy(), torch.from_numpy(features[0].copy())):
        for maker in MAKERS.values():
            maker().fit(values, labels[0])
        RidgeReadout().fit(values, values[:, :2])
        np.testing.assert_array_equal(values, features[0])


@pytest.mark.parametrize("shape", [(12, 30), (30, 4)])
@pytest.mark.parametrize("kind", [RidgeReadout, ReducedRankReadout])
def test_readouts_of_a_stack_are_a_loop(shape, kind):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3, *shape)), rng.normal(size=(3, shape[0], 2))
    Y[..., 0] += X[..., 0]
    stack = kind().fit_batched(X, Y)
    wanted = torch.stack([kind().fit(x, y).predict(x) for x, y in zip(X, Y, strict=True)])
    np.testing.assert_allclose(stack.predict_batched(X), wanted, atol=1e-9)
    one = kind(1.0).fit_batched(X, Y[..., 0]).predict_batched(X)
    each = torch.stack([kind(1.0).fit(x, y).predict(x) for x, y in zip(X, Y[..., 0], strict=True)])
    np.testing.assert_allclose(one, each, atol=1e-9)


@pytest.mark.cpu_only
@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_float32_tensors_stay_float32(maker):
    features, labels = episodes()
    stack = maker().fit_batched(torch.from_numpy(features).float(), torch.from_numpy(labels))
    assert stack.decision_function_batched(features.astype(np.float16)).dtype == torch.float32
    wide = maker().fit_batched(features, labels)
    np.testing.assert_allclose(
        stack.decision_function_batched(features),
        wide.decision_function_batched(features),
        rtol=1e-3,
        atol=1e-3,
    )


def test_wrong_stacks_are_named():
    features, labels = episodes()
    probe = RidgeProbe().fit_batched(features, labels)
    with pytest.raises(RuntimeError, match="predict_batched"):
        probe.predict(features[0])
    with pytest.raises(RuntimeError, match="ask it by predict"):
        RidgeProbe().fit(features[0], labels[0]).predict_batched(features)
    with pytest.raises(ValueError, match="of 4 episodes"):
        probe.predict_batched(features[:2])
    with pytest.raises(ValueError, match=r"one entry per sample \(4, 9\)"):
        probe.fit_batched(features, labels[0])
    with pytest.raises(ValueError, match="episodes, samples, features"):
        probe.fit_batched(features[0], labels)
    labels[1] = 0
    with pytest.raises(ValueError, match="1 of 4 episodes without"):
        probe.fit_batched(features, labels)


# ---- ridge to a prior


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([(20, 6), (8, 30)]), st.booleans())
def test_ridge_to_a_prior_solves_what_the_prior_leaves(seed, shape, standardize):
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(1.0, 2.0, shape), rng.normal(size=(shape[0], 2))
    prior = RidgeReadout(1.0).fit(rng.normal(size=(40, shape[1])), rng.normal(size=(40, 2)))
    fitted = RidgeReadout(0.3, priors=prior, standardize=standardize).fit(X, Y)
    start = prior.coefficients()[0].numpy()
    spread = X.std(0) if standardize else np.ones(shape[1])
    scaled = (X - X.mean(0)) / spread
    alpha = 0.3 * np.square(scaled).sum(1).mean()
    weights, _ = solve_ridge(scaled, Y - X @ start, alpha)
    np.testing.assert_allclose(fitted.coefficients()[0], start + weights / spread[:, None], atol=1e-8)
    assert float(fitted.predict(X).mean()) == pytest.approx(Y.mean())


def test_a_strong_penalty_keeps_the_prior_and_a_weak_one_forgets_it():
    features, labels = episodes(1, 20, 10, 2)
    source = RidgeProbe().fit(features[0], labels[0])
    few, of_few = features[0][:6] + 0.1, labels[0][:6]
    kept = RidgeProbe(1e9, priors=source).fit(few, of_few)
    np.testing.assert_allclose(kept.coefficients()[0], source.coefficients()[0], atol=1e-7)
    tall, of_tall = features[0], labels[0][::-1]
    forgotten = RidgeProbe(1e-9, priors=source).fit(tall, of_tall)
    np.testing.assert_allclose(
        forgotten.coefficients()[0], RidgeProbe(1e-9).fit(tall, of_tall).coefficients()[0], atol=1e-6
    )


def test_the_source_that_predicts_left_out_samples_is_chosen():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(30, 2))
    X = rng.normal(size=(200, 30))
    right = RidgeReadout().fit(X, X @ weights)
    wrong = RidgeReadout().fit(X, X @ rng.normal(size=(30, 2)))
    few = rng.normal(size=(5, 8, 30))
    fitted = RidgeReadout(priors=[wrong, right]).fit_batched(few, few @ weights)
    assert (fitted.priors_ == 1).all()
    # The other target takes the other source.
    mixed = np.concatenate([(few @ weights)[..., :1], few @ wrong.coefficients()[0].numpy()[:, 1:]], axis=2)
    assert RidgeReadout(priors=[wrong, right]).fit(few[0], mixed[0]).priors_.tolist() == [1, 0]


def test_one_sample_of_a_class_suffices_with_a_prior_that_knows_it():
    features, labels = episodes(1, 30, 12, 3, seed=2)
    source = RidgeProbe().fit(features[0], labels[0])
    support = np.concatenate([np.flatnonzero(labels[0] == c)[:1] for c in range(3)])
    fitted = RidgeProbe(priors=[source]).fit(features[0][support], labels[0][support])
    assert fitted.prior_ == 0
    with_prior = (fitted.predict(features[0]) == labels[0]).mean()
    alone = RidgeProbe().fit(features[0][support], labels[0][support])
    assert with_prior > (alone.predict(features[0]) == labels[0]).mean()
    # A prior may know more classes than are asked for.
    two = labels[0] != 1
    fewer = RidgeProbe(1e9, priors=source).fit(features[0][two], labels[0][two])
    np.testing.assert_allclose(fewer.coefficients()[0], source.coefficients()[0][:, [0, 2]], atol=1e-6)


@pytest.mark.parametrize("targets", ["one-hot", "signed"])
def test_priors_of_other_targets_calibrated_or_saved_are_the_same_prior(targets):
    features, labels = episodes(1, 20, 10, 3)
    source = RidgeProbe(0.1).fit(features[0], labels[0])
    wanted = RidgeProbe(1.0, priors=source).fit(features[0][:9], labels[0][:9])
    for other in (
        RidgeProbe(0.1, targets="signed").fit(features[0], labels[0]),
        RidgeProbe(0.1, calibrate=True).fit(features[0], labels[0]),
        RidgeProbe(0.1, targets="signed", calibrate=True).fit(features[0], labels[0]),
    ):
        for prior in (other, RidgeProbe.from_state(other.state_dict())):
            fitted = RidgeProbe(1.0, priors=prior, targets=targets).fit(features[0][:9], labels[0][:9])
            found = fitted.decision_function(features[0])
            found = (found + 1) / 2 if targets == "signed" else found
            np.testing.assert_allclose(found, wanted.decision_function(features[0]), atol=1e-8)


def test_wrong_priors_are_named():
    features, labels = episodes(1, 4, 5, 3)
    source = RidgeProbe().fit(features[0], labels[0])
    with pytest.raises(TypeError, match="fitted read-outs, got int"):
        RidgeProbe(priors=[3])
    with pytest.raises(ValueError, match=r"without \[5, 6, 7\]"):
        RidgeProbe(priors=source).fit(features[0], labels[0] + 5)
    with pytest.raises(ValueError, match=r"shape \(4, 3\)"):
        RidgeProbe(priors=source).fit(features[0][:, :4], labels[0])
    with pytest.raises(RuntimeError, match="call fit"):
        RidgeProbe(priors=RidgeProbe()).fit(features[0], labels[0])


# ---- a head in a network


@pytest.mark.cpu_only
@pytest.mark.parametrize("shape", [(6, 3), (4, 9)])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_gradients_through_the_head_are_those_of_finite_differences(shape, fit_intercept):
    torch.manual_seed(0)
    head = RidgeHead(0.5, scale=3.0, fit_intercept=fit_intercept).double()
    support = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    query = torch.randn(2, 3, shape[1], dtype=torch.float64, requires_grad=True)
    labels = torch.arange(shape[0]).remainder(2).expand(2, -1)
    assert torch.autograd.gradcheck(lambda s, q: head(s, labels, q), (support, query))
    head(support, labels, query).square().sum().backward()
    for parameter in head.parameters():
        assert parameter.grad is not None
        step = 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step
                values.append(float(head(support, labels, query).square().sum()))
                parameter -= sign * step
        assert float(parameter.grad) == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-6
        )


def test_the_head_answers_as_the_probe_of_its_penalty():
    features, labels = episodes(3, 4, 25, 3)
    centered = features - features.mean(1, keepdims=True)
    features = features / np.square(centered).sum(2).mean(1)[:, None, None] ** 0.5
    head = RidgeHead(0.3).double()
    outputs = head(torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(features))
    wanted = RidgeProbe(0.3).fit_batched(features, labels).decision_function_batched(features)
    np.testing.assert_allclose(outputs.detach(), wanted, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_features_are_solved_in_float32(dtype):
    torch.manual_seed(0)
    support, query = torch.randn(2, 6, 4).to(dtype), torch.randn(2, 3, 4).to(dtype)
    support.requires_grad_()
    labels = torch.arange(6).remainder(2).expand(2, -1)
    outputs = RidgeHead()(support, labels, query)
    assert outputs.dtype == torch.float32
    outputs.sum().backward()
    assert support.grad.dtype == dtype
    assert torch.isfinite(support.grad).all()


def test_features_learn_to_be_read_out_from_few_samples():
    """Two informative dimensions hide among loud ones; a linear map learned through the head finds them."""
    torch.manual_seed(0)
    net, head = torch.nn.Linear(20, 4, bias=False), RidgeHead(scale=10.0)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=0.03)

    def draw(n):
        labels = torch.arange(20).remainder(2).expand(n, -1)
        signs = torch.randn(n, 1, 2).sign() * (2 * labels[..., None] - 1)
        return torch.cat([signs + 0.3 * torch.randn(n, 20, 2), 3 * torch.randn(n, 20, 18)], 2), labels

    def loss(features, labels):
        outputs = head(net(features[:, :10]), labels[:, :10], net(features[:, 10:]))
        return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels[:, 10:].flatten())

    held_out = draw(64)
    before = loss(*held_out).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss(*draw(16)).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(loss(*held_out)) < 0.5 * before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support": torch.ones(3, 4)}, "support and query must have shape"),
        ({"query": torch.ones(2, 3, 5)}, "same episodes and features"),
        ({"targets": torch.zeros(2, 5)}, "targets must have shape"),
        ({"targets": torch.zeros(2, 4)}, "whole numbers of classes"),
        ({"support": torch.full((2, 4, 3), torch.nan)}, "finite"),
    ],
)
def test_a_head_names_what_does_not_fit(change, message):
    given = {
        "support": torch.ones(2, 4, 3),
        "targets": torch.arange(4).remainder(2).expand(2, -1),
        "query": torch.ones(2, 3, 3),
    }
    with pytest.raises(ValueError, match=message):
        RidgeHead()(**given | change)
