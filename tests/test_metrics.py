"""Scores of predicted rates against plain references and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln
from sklearn.metrics import roc_auc_score

from neurokern.metrics import (
    _blocks,
    balanced_accuracy,
    bits_per_spike,
    bootstrap_interval,
    hierarchical_interval,
    poisson_d2,
    psth_r2,
    r2,
    roc_auc,
)


def reference_bits_per_spike(rates: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The published definition, unit by unit, with the factorial term kept."""
    scores = []
    for unit in range(counts.shape[-1]):
        y = counts[..., unit].astype(np.float64).ravel()
        rate = np.maximum(rates[..., unit].astype(np.float64).ravel(), 1e-9)
        null = np.full_like(y, max(y.mean(), 1e-9))
        nll_model = (rate - y * np.log(rate) + gammaln(y + 1)).sum()
        nll_null = (null - y * np.log(null) + gammaln(y + 1)).sum()
        scores.append((nll_null - nll_model) / (y.sum() * math.log(2)) if y.sum() else math.nan)
    return np.array(scores)


def reference_r2(predictions: np.ndarray, targets: np.ndarray) -> float:
    return 1 - ((targets - predictions) ** 2).sum() / ((targets - targets.mean()) ** 2).sum()


def random_case(seed: int = 0, shape: tuple[int, int, int] = (7, 5, 4)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rates = generator.gamma(2.0, 0.5, shape).astype(np.float32)
    return rates, generator.poisson(rates).astype(np.uint8)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))
def test_bits_per_spike_matches_the_published_definition(seed, windows, bins, units):
    rates, counts = random_case(seed, (windows, bins, units))
    np.testing.assert_allclose(
        bits_per_spike(rates, counts), reference_bits_per_spike(rates, counts), atol=1e-9
    )


def test_blocks_do_not_change_a_score(monkeypatch):
    rates, counts = random_case(1, (9, 3, 4))
    conditions = np.arange(9) % 2
    whole = [bits_per_spike(rates, counts), poisson_d2(rates, counts), psth_r2(rates, counts, conditions)]
    whole += [r2(rates, counts), r2(rates, counts, per_window=True)]
    monkeypatch.setattr(_blocks, "BLOCK_ELEMENTS", 30)
    parts = [bits_per_spike(rates, counts), poisson_d2(rates, counts), psth_r2(rates, counts, conditions)]
    parts += [r2(rates, counts), r2(rates, counts, per_window=True)]
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_result_has_the_kind_of_the_input():
    rates, counts = random_case()
    assert isinstance(bits_per_spike(rates, counts), np.ndarray)
    scores = bits_per_spike(torch.from_numpy(rates), torch.from_numpy(counts))
    assert scores.dtype == torch.float64
    np.testing.assert_array_equal(scores.numpy(), bits_per_spike(rates, counts))


def test_scores_are_the_same_on_every_device(device):
    rates, counts = random_case(8)
    conditions = np.arange(7) % 3
    on_device = [torch.from_numpy(array).to(device) for array in (rates, counts)]
    for score in (bits_per_spike, poisson_d2, r2):
        result = score(*on_device)
        assert result.device.type == device
        np.testing.assert_allclose(result.cpu(), score(rates, counts), rtol=1e-12)
    psth = psth_r2(*on_device, torch.from_numpy(conditions).to(device))
    np.testing.assert_allclose(psth.cpu(), psth_r2(rates, counts, conditions), rtol=1e-12)


def test_read_only_and_broadcast_arrays_are_accepted():
    counts = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.uint16)
    rates = np.broadcast_to(np.array([0.5, 0.5], dtype=np.float32), counts.shape)
    assert np.isfinite(bits_per_spike(rates, counts)).all()


def test_units_own_mean_scores_zero_and_no_constant_scores_more():
    counts = np.array([[0, 1], [2, 0], [1, 3]])
    mean = np.broadcast_to(counts.mean(0), counts.shape)
    np.testing.assert_allclose(bits_per_spike(mean, counts), 0, atol=1e-15)
    for factor in (0.5, 0.99, 1.01, 3.0):
        assert (bits_per_spike(mean * factor, counts) < 0).all()


def test_a_perfect_binary_prediction_is_worth_the_entropy_of_the_null():
    # One spike in 4 bins, known exactly: ln L rises from ln(1/4) - 1 to 0 - 1, that is log2(4) = 2 bits.
    counts = np.array([[0.0], [1.0], [0.0], [0.0]])
    assert bits_per_spike(counts, counts)[0] == pytest.approx(2.0, abs=1e-7)


def test_true_rates_score_best_on_many_samples():
    generator = np.random.default_rng(0)
    rates = generator.gamma(2.0, 0.4, (4000, 3))
    counts = generator.poisson(rates)
    best = bits_per_spike(rates, counts)
    for wrong in (rates**0.7, rates * 1.2, rates + 0.1):
        assert (bits_per_spike(wrong, counts) < best).all()


def test_null_may_be_given_per_unit_or_per_sample():
    rates, counts = random_case(3)
    null = np.full(4, 0.7)
    expanded = np.broadcast_to(null, counts.shape)
    np.testing.assert_allclose(bits_per_spike(rates, counts, null), bits_per_spike(rates, counts, expanded))
    np.testing.assert_allclose(bits_per_spike(expanded, counts, null), 0, atol=1e-12)


def test_silent_unit_is_nan_and_leaves_the_others_alone():
    rates, counts = random_case(4)
    counts[..., 2] = 0
    for score in (bits_per_spike, poisson_d2, r2):
        result = score(rates, counts)
        assert np.isnan(result[2])
        assert np.isfinite(np.delete(result, 2)).all()


def test_zero_rates_are_floored():
    counts = np.array([[1.0], [0.0]])
    rates = np.zeros((2, 1))
    expected = ((math.log(1e-9) - 2e-9) - (math.log(0.5) - 1)) / math.log(2)
    assert bits_per_spike(rates, counts)[0] == pytest.approx(expected)


def test_poisson_d2_matches_the_deviances():
    rates, counts = random_case(5)
    y, rate = counts.reshape(-1, 4).astype(float), rates.reshape(-1, 4).astype(float)

    def deviance(mean):
        with np.errstate(divide="ignore", invalid="ignore"):
            return 2 * (np.where(y > 0, y * np.log(y / mean), 0) - y + mean).sum(0)

    np.testing.assert_allclose(poisson_d2(rates, counts), 1 - deviance(rate) / deviance(y.mean(0)))


def test_poisson_d2_of_the_counts_is_one_and_of_constant_counts_nan():
    counts = np.array([[1, 1], [3, 1]])
    scores = poisson_d2(counts.astype(float), counts)
    assert scores[0] == pytest.approx(1)
    assert np.isnan(scores[1])


def test_r2_matches_its_definition_per_unit_and_per_window():
    rates, counts = random_case(6)
    flat = [reference_r2(rates[..., n].astype(float), counts[..., n].astype(float)) for n in range(4)]
    np.testing.assert_allclose(r2(rates, counts), flat)
    by_window = np.array(
        [
            [
                reference_r2(rates[w, :, n].astype(float), counts[w, :, n].astype(float))
                if np.ptp(counts[w, :, n])
                else math.nan
                for n in range(4)
            ]
            for w in range(7)
        ]
    )
    np.testing.assert_allclose(r2(rates, counts, per_window=True), np.nanmean(by_window, 0))


def test_psth_r2_compares_condition_averages():
    rates, counts = random_case(7)
    conditions = np.array(["left", "right", "left", "right", "right", "left", "left"])
    expected = []
    for unit in range(4):
        averages = [
            np.stack([array[conditions == c, :, unit].mean(0, dtype=float) for c in ("left", "right")])
            for array in (rates, counts)
        ]
        expected.append(reference_r2(*averages))
    np.testing.assert_allclose(psth_r2(rates, counts, conditions), expected)


def test_psth_r2_forgives_single_trial_noise_and_r2_does_not():
    generator = np.random.default_rng(0)
    profile = np.array([0.2, 1.5, 0.4])[None, :, None]
    rates = np.broadcast_to(profile, (500, 3, 2))
    counts = generator.poisson(rates)
    assert (psth_r2(rates, counts, np.zeros(500)) > 0.95).all()
    assert (r2(rates, counts) < 0.7).all()


@pytest.mark.parametrize(
    ("rates", "counts", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "same shape"),
        (np.ones((0, 3)), np.ones((0, 3)), "at least one sample"),
        (np.ones(3), np.ones(3), "units"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "finite"),
        (np.full((2, 3), np.inf), np.ones((2, 3)), "finite"),
        (np.ones((2, 3)), -np.ones((2, 3)), "negative"),
    ],
)
def test_bad_rates_and_counts_are_refused(rates, counts, message):
    with pytest.raises(ValueError, match=message):
        bits_per_spike(rates, counts)


def test_other_bad_arguments_are_refused():
    rates, counts = random_case()
    with pytest.raises(TypeError, match="both"):
        bits_per_spike(torch.from_numpy(rates), counts)
    with pytest.raises(ValueError, match="one rate per unit"):
        bits_per_spike(rates, counts, np.ones(3))
    with pytest.raises(ValueError, match="one label per trial"):
        psth_r2(rates, counts, np.zeros(3))
    with pytest.raises(ValueError, match="windows, bins, units"):
        r2(rates[0], counts[0], per_window=True)
    with pytest.raises(ValueError, match="finite"):
        r2(np.full((2, 1), np.nan), np.ones((2, 1)))


def test_bootstrap_interval_holds_the_mean_ignores_nan_and_repeats():
    values = np.append(np.random.default_rng(0).normal(1.0, 1.0, 400), np.nan)
    low, high = bootstrap_interval(values)
    assert low < np.nanmean(values) < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)  # standard error 1 / sqrt(400)
    assert (low, high) == bootstrap_interval(values)
    assert bootstrap_interval(np.array([3.0])) == (3.0, 3.0)
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([math.nan])))
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval(values, confidence=95)
    with pytest.raises(ValueError, match="n_bootstrap"):
        bootstrap_interval(values, n_bootstrap=0)


def test_lists_are_neither_tensors_nor_arrays():
    with pytest.raises(TypeError, match="must both be torch tensors or both numpy arrays, got list and list"):
        bits_per_spike([[0.5]], [[1.0]])


def brute_force_hierarchical(values, groups, n_bootstrap, seed):
    generator = np.random.default_rng(seed)
    names = np.unique(groups)
    means = []
    for _ in range(n_bootstrap):
        drawn = [values[groups == g] for g in generator.choice(names, len(names))]
        means.append(np.concatenate([generator.choice(part, len(part)) for part in drawn]).mean())
    return np.quantile(means, [0.025, 0.975])


def test_hierarchical_interval_draws_groups_and_then_values():
    generator = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c", "d"], [40, 10, 25, 60])
    effect = {"a": 0.0, "b": 1.0, "c": -0.5, "d": 0.4}
    values = np.array([effect[g] for g in groups]) + 0.5 * generator.normal(size=len(groups))
    low, high = hierarchical_interval(np.append(values, np.nan), np.append(groups, "a"))
    expected = brute_force_hierarchical(values, groups, 3000, 1)
    np.testing.assert_allclose([low, high], expected, atol=0.06)
    plain = bootstrap_interval(values)
    assert high - low > 2 * (plain[1] - plain[0])
    assert (low, high) == hierarchical_interval(values, groups)


@given(st.integers(2, 5), st.integers(1, 12), st.floats(-5, 5), st.floats(0.1, 10), st.integers(0, 2**32 - 1))
def test_hierarchical_interval_moves_and_scales_with_the_values(n_groups, most, shift, scale, seed):
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), generator.integers(1, most + 1, n_groups))
    values = generator.normal(size=len(groups))
    low, high = hierarchical_interval(values, groups, n_bootstrap=200)
    assert values.min() - 1e-12 <= low <= high <= values.max() + 1e-12
    moved = hierarchical_interval(scale * values + shift, groups, n_bootstrap=200)
    np.testing.assert_allclose(moved, (scale * low + shift, scale * high + shift), atol=1e-9)
    renamed = hierarchical_interval(values, np.array([f"session {g}" for g in groups]), n_bootstrap=200)
    assert renamed == (low, high)


@given(st.integers(2, 4), st.integers(4, 30), st.integers(0, 2**32 - 1))
def test_roc_auc_depends_on_the_order_of_scores_alone_and_turns_with_their_sign(n_classes, n, seed):
    generator = np.random.default_rng(seed)
    labels, scores = generator.integers(0, n_classes, n), generator.integers(-9, 9, (n, n_classes))
    classes = np.arange(n_classes)
    area = roc_auc(scores, labels, classes)
    if math.isnan(area):
        assert len(np.unique(labels)) == 1
        return
    assert 0 <= area <= 1
    assert roc_auc(-scores, labels, classes) == pytest.approx(1 - area)
    assert roc_auc(scores * 3 + 1, labels, classes) == pytest.approx(area)
    order = generator.permutation(n)
    assert roc_auc(scores[order], labels[order], classes) == pytest.approx(area)


def test_hierarchical_interval_of_one_group_is_that_over_its_values():
    values = np.random.default_rng(0).normal(size=30)
    assert hierarchical_interval(values, np.zeros(30)) == bootstrap_interval(values)
    assert all(math.isnan(end) for end in hierarchical_interval(np.full(2, math.nan), np.arange(2)))
    with pytest.raises(ValueError, match="groups must label each of 30"):
        hierarchical_interval(values, np.zeros(3))
    with pytest.raises(ValueError, match="hierarchical_interval: confidence"):
        hierarchical_interval(values, np.arange(30), confidence=95)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_roc_auc_matches_scikit_learn_with_ties_too(n_classes):
    generator = np.random.default_rng(n_classes)
    labels = generator.integers(0, n_classes, 60)
    scores = generator.integers(0, 6, (60, n_classes)) / 6
    classes = np.arange(n_classes)
    if n_classes == 2:
        expected = roc_auc_score(labels, scores[:, 1] - scores[:, 0])
    else:
        expected = np.mean([roc_auc_score(labels == c, scores[:, c]) for c in classes])
    assert roc_auc(scores, labels, classes) == pytest.approx(expected)


def test_roc_auc_of_one_class_is_nan_and_bad_scores_are_refused():
    assert math.isnan(roc_auc(np.ones((3, 2)), np.zeros(3), np.arange(2)))
    with pytest.raises(ValueError, match="NaN"):
        roc_auc(np.full((3, 2), np.nan), np.arange(3) % 2, np.arange(2))
    with pytest.raises(ValueError, match="shape"):
        roc_auc(np.ones((3, 2)), np.arange(4), np.arange(2))
    with pytest.raises(ValueError, match="balanced_accuracy"):
        balanced_accuracy(np.ones(2), np.ones(3))
