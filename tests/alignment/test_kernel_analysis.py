"""Kernel analysis leaves each sample out exactly, and its curve falls where the task needs few dimensions."""

import numpy as np
import pytest
import torch

from neurokern.alignment import kernel_analysis


def left_out_loss(features, targets, n_dimensions):
    """Regress on the leading principal components of all samples, leaving one out at a time."""
    centered = features - features.mean(0)
    scores = np.linalg.svd(centered, full_matrices=False)[0][:, :n_dimensions]
    design = np.column_stack([np.ones(len(scores)), scores])
    errors = guesses = 0.0
    for k in range(len(targets)):
        rest = np.arange(len(targets)) != k
        weights = np.linalg.lstsq(design[rest], targets[rest], rcond=None)[0]
        errors += ((targets[k] - design[k] @ weights) ** 2).sum()
        guesses += ((targets[k] - targets[rest].mean(0)) ** 2).sum()
    return errors / guesses


def test_the_loss_is_that_of_leaving_each_sample_out():
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(14, 6)), rng.normal(size=(14, 2))
    result = kernel_analysis(features, targets, kernel="linear", n_dimensions=4)
    expected = [left_out_loss(features, targets, d) for d in range(5)]
    np.testing.assert_allclose(result.loss, expected)
    np.testing.assert_allclose(result.area, np.clip(1 - np.array(expected[1:]), 0, None).mean())
    assert result.accuracy is None
    assert np.isnan(result.scale)


def test_beyond_the_rank_the_curve_stays_flat():
    rng = np.random.default_rng(1)
    features, targets = rng.normal(size=(20, 3)), rng.normal(size=20)
    loss = kernel_analysis(features, targets, kernel="linear").loss
    assert loss.shape == (19,)
    np.testing.assert_allclose(loss[3:], left_out_loss(features, targets[:, None], 3))


def blobs(spread, n=40, seed=2):
    rng = np.random.default_rng(seed)
    labels = np.repeat(["cat", "car"], n // 2)
    places = np.where(labels == "cat", 1.0, -1.0)[:, None] * np.array([3.0, 0, 0, 0])
    return places + spread * rng.normal(size=(n, 4)), labels


def test_an_easy_task_needs_one_dimension_and_a_hard_one_more():
    easy, labels = blobs(0.3)
    hard, _ = blobs(6.0)
    result = kernel_analysis(np.stack([easy, hard]), labels)
    assert result.loss.shape == (2, 39)
    assert result.loss[0, 1] < 0.1
    assert result.area[0] > 0.9 > 0.5 > result.area[1]
    assert result.accuracy[0, 1] == 1.0
    assert result.accuracy[0, 0] < 0.6


def test_time_windows_are_done_at_once_and_are_those_of_each_alone():
    windows = np.stack([blobs(spread)[0] for spread in (0.5, 2.0, 5.0)]).astype(np.float32)
    labels = blobs(1.0)[1]
    together = kernel_analysis(torch.from_numpy(windows), labels, n_dimensions=10)
    assert isinstance(together.loss, torch.Tensor)
    for window, loss, scale in zip(windows, together.loss, together.scale, strict=True):
        alone = kernel_analysis(window, labels, n_dimensions=10)
        np.testing.assert_allclose(loss, alone.loss, rtol=1e-6)
        assert float(scale) == float(alone.scale)


def test_a_circle_around_a_point_is_seen_by_the_gaussian_kernel_alone():
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, 2 * np.pi, 60)
    radius = np.where(np.arange(60) < 30, 0.3, 2.0)
    features = (radius * np.stack([np.cos(angle), np.sin(angle)])).T + 0.05 * rng.normal(size=(60, 2))
    labels = (np.arange(60) < 30).astype(int)
    assert kernel_analysis(features, labels, n_dimensions=10).area > 0.6
    assert kernel_analysis(features, labels, kernel="linear", n_dimensions=10).area < 0.1


def test_labels_without_meaning_have_no_area_to_speak_of():
    rng = np.random.default_rng(4)
    result = kernel_analysis(rng.normal(size=(8, 50, 10)), rng.integers(0, 2, 50))
    assert result.area.mean() < 0.05


def test_features_that_never_vary_give_nan_and_leave_the_others_alone():
    features, labels = blobs(0.3)
    for kernel in ("rbf", "linear"):
        result = kernel_analysis(np.stack([features, np.full_like(features, 0.1)]), labels, kernel=kernel)
        assert np.isfinite(result.loss[0]).all()
        assert np.isnan(result.loss[1]).all()
        assert np.isnan(result.area[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(40, dtype=int)}, "at least two classes, got 1"),
        ({"labels": np.zeros(39)}, r"labels must have shape \(40,\)"),
        ({"labels": np.zeros(40)}, "finite and vary over samples"),
        ({"n_dimensions": 39}, r"n_dimensions must lie within \[1, 38\]"),
        ({"quantiles": ()}, "quantiles must lie within"),
        ({"quantiles": (0.5, 0.0)}, "quantiles must lie within"),
        ({"kernel": "poly"}, "kernel must be one of"),
        ({"features": np.full((40, 2), np.nan)}, "features must be finite"),
        ({"features": np.ones((3, 2))}, "at least 4 samples"),
    ],
)
def test_bad_input_is_an_error_that_names_it(change, message):
    features, labels = blobs(1.0)
    arguments = {"features": features, "labels": labels} | change
    with pytest.raises(ValueError, match=message):
        kernel_analysis(arguments.pop("features"), arguments.pop("labels"), **arguments)
