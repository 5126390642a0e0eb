"""Scores of many targets against scipy and scikit-learn, target by target."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import explained_variance_score, mean_squared_error, r2_score

from neurokern.encoding import score_predictions, scores

REFERENCES = {
    "pearson": lambda p, y: pearsonr(p, y)[0],
    "r2": lambda p, y: r2_score(y, p),
    "explained_variance": lambda p, y: explained_variance_score(y, p),
    "mse": lambda p, y: mean_squared_error(y, p),
}


def pair(n_samples=40, n_targets=5, seed=0, mean=0.0):
    generator = np.random.default_rng(seed)
    y = generator.normal(mean, 1, (n_samples, n_targets))
    return y * 0.5 + generator.normal(0.3, 1, y.shape) + mean / 2, y


@pytest.mark.parametrize("metric", REFERENCES)
@given(seed=st.integers(0, 2**31), n_samples=st.integers(3, 30), n_targets=st.integers(1, 4))
def test_scores_match_references(metric, seed, n_samples, n_targets):
    p, y = pair(n_samples, n_targets, seed)
    expected = [REFERENCES[metric](p[:, t], y[:, t]) for t in range(n_targets)]
    np.testing.assert_allclose(score_predictions(p, y, metric), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", REFERENCES)
def test_tiles_do_not_change_the_scores(metric, monkeypatch):
    p, y = pair(37, 9, mean=100.0)
    whole = score_predictions(p, y, metric)
    monkeypatch.setattr(scores, "_COLUMNS", 4)
    monkeypatch.setattr(scores, "CHUNK_ELEMENTS", 20)
    np.testing.assert_allclose(score_predictions(p, y, metric), whole, rtol=1e-10)


@pytest.mark.parametrize("metric", REFERENCES)
def test_values_far_from_zero_lose_no_accuracy(metric):
    p, y = (np.float32(1e4) + values.astype(np.float32) for values in pair(5000, 1))
    expected = REFERENCES[metric](p[:, 0].astype(float), y[:, 0].astype(float))
    np.testing.assert_allclose(score_predictions(p, y, metric), [expected], rtol=1e-7)


def test_a_constant_target_has_no_score_and_a_constant_prediction_correlates_with_nothing():
    p, y = pair(10, 3)
    y[:, 0], p[:, 1] = 0.1, 0.7
    pearson = score_predictions(p, y, "pearson")
    assert np.isnan(pearson[0])
    assert pearson[1] == 0
    for metric in ("r2", "explained_variance"):
        assert np.isnan(score_predictions(p, y, metric)).tolist() == [True, False, False]
    assert np.isfinite(score_predictions(p, y, "mse")).all()


def test_kinds_shapes_and_types_follow_the_targets():
    p, y = pair(6, 2)
    result = score_predictions(torch.from_numpy(p).half(), torch.from_numpy(y).float(), "r2")
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float64
    one = score_predictions(p[:, 0], y[:, 0], "r2")
    assert one.shape == ()
    assert float(one) == pytest.approx(r2_score(y[:, 0], p[:, 0]))
    counts = np.arange(6, dtype=np.uint8)
    assert float(score_predictions(counts, counts, "r2")) == 1


@pytest.mark.parametrize(
    ("p", "y", "metric", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 1)), "r2", "same shape"),
        (np.ones((3, 2, 1)), np.ones((3, 2, 1)), "r2", "same shape"),
        (np.ones((1, 2)), np.ones((1, 2)), "pearson", "at least 2 samples"),
        (np.ones((0, 2)), np.ones((0, 2)), "mse", "at least 1 samples"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "r2", "finite"),
        (np.ones((3, 2)), np.full((3, 2), np.inf), "mse", "finite"),
        (np.ones((3, 2)), np.ones((3, 2)), "accuracy", "metric must be one of"),
    ],
)
def test_bad_arguments_are_refused(p, y, metric, message):
    with pytest.raises(ValueError, match=message):
        score_predictions(p, y, metric)
