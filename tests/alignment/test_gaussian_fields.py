"""Gaussian fields are found where targets look, weights are ridge on pooled channels, tables take them."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from neurokern.alignment import GaussianFieldEncoder, alignment_table, layer_features, response_ceilings
from neurokern.ops import ridge_cv

MAPS = np.random.default_rng(0).normal(size=(120, 4, 10, 8))


def gaussian(center, size, n):
    weights = np.exp(-0.5 * (((np.arange(n) + 0.5) / n - center) / size) ** 2)
    return weights / weights.sum()


def pooled(maps, field):
    y, x, size = field
    return np.einsum("nchw,h,w->nc", maps, gaussian(y, size, 10), gaussian(x, size, 8))


def responses(noise=0.05):
    """Four targets, each with a field of the default grid and weights of its own."""
    rng = np.random.default_rng(1)
    fields = [(0.1, 0.9, 0.05), (0.5, 0.5, 0.15), (0.9, 0.3, 0.15), (0.7, 0.1, 0.05)]
    weights = rng.normal(size=(4, 4))
    clean = np.stack([pooled(MAPS, f) @ w for f, w in zip(fields, weights, strict=True)], 1)
    clean /= clean.std(0)
    return np.array(fields), clean + noise * rng.normal(size=clean.shape)


def test_each_target_gets_the_field_that_it_was_made_with_and_predicts_new_samples():
    fields, Y = responses()
    encoder = GaussianFieldEncoder().fit(MAPS[:90], Y[:90])
    np.testing.assert_allclose(encoder.fields_, fields)
    predicted = encoder.predict(MAPS[90:])
    assert ((predicted - Y[90:]) ** 2).mean() < 0.02
    by_hand = pooled(MAPS[90:], fields[2]) @ encoder.coef_[2] + encoder.intercept_[2]
    np.testing.assert_allclose(predicted[:, 2], by_hand, rtol=1e-6, atol=1e-8)


def test_weights_are_those_of_ridge_on_the_pooled_channels():
    fields, Y = responses()
    encoder = GaussianFieldEncoder().fit(MAPS, Y)
    channels = pooled(MAPS, fields[0])
    found = ridge_cv(channels / channels.std(0), Y[:, :1], encoder.alphas)
    np.testing.assert_allclose(encoder.coef_[0], found.weights[:, 0] / channels.std(0), rtol=1e-6)
    np.testing.assert_allclose(encoder.cv_scores_[0], found.scores[0], rtol=1e-9)
    assert encoder.alpha_[0] == found.alphas[0]


def test_tensors_one_axis_and_targets_that_never_vary():
    maps = torch.from_numpy(MAPS[:, :, :, 0]).float()
    Y = torch.stack([maps[:, 1, 0], torch.full((120,), 3.0)], 1)
    encoder = GaussianFieldEncoder(grid=3, sizes=(0.05,)).fit(maps, Y)
    predicted = encoder.predict(maps)
    assert isinstance(predicted, torch.Tensor)
    assert encoder.fields_.shape == (2, 2)
    assert encoder.fields_[0, 0] < 0.3
    torch.testing.assert_close(predicted[:, 1], torch.full((120,), 3.0))
    assert encoder.cv_scores_[1].isnan()


def test_a_table_scores_layers_of_a_network_within_their_ceilings():
    rng = np.random.default_rng(2)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Conv2d(3, 5, 3))
    images = torch.from_numpy(rng.normal(size=(200, 1, 12, 12))).float()
    layers = layer_features(network, images, ["0", "2"], pool="none")
    field = gaussian(5 / 6, 0.2, 8), gaussian(1 / 6, 0.2, 8)
    clean = np.einsum("nchw,h,w->nc", layers["2"].numpy(), *field) @ rng.normal(size=(5, 6))
    repeats = clean + 0.5 * clean.std() * rng.normal(size=(4, 200, 6))
    table = alignment_table(
        layers,
        {"V4": repeats.mean(0)},
        method="gaussian",
        encoder=GaussianFieldEncoder(grid=3, sizes=(0.2,), alphas=(0.1, 10.0)),
        ceilings=response_ceilings({"V4": repeats}, method="gaussian", n_splits=20),
    ).set_index("layer")
    assert table["score"]["2"] > table["score"]["0"]
    assert 0.8 < table["normalized"]["2"] < 1.1
    assert table.attrs["method"] == "gaussian"
    with pytest.raises(ValueError, match=r"for 'gaussian', got \(200, 5\)"):
        alignment_table({"x": layers["2"].mean((2, 3))}, {"V4": clean}, method="gaussian")
    with pytest.raises(TypeError, match="encoder must be RidgeEncoder for 'ridge', got GaussianFieldEncoder"):
        alignment_table(layers, {"V4": clean}, encoder=GaussianFieldEncoder())


def test_what_does_not_fit_is_an_error():
    _, Y = responses()
    encoder = GaussianFieldEncoder(grid=2, sizes=(0.2,))
    with pytest.raises(ValueError, match="not fitted yet"):
        encoder.predict(MAPS)
    with pytest.raises(ValueError, match=r"X must have shape \(samples, channels"):
        encoder.fit(MAPS[:, :, 0, 0], Y)
    with pytest.raises(ValueError, match=r"y must have shape \(120, targets\), got \(119, 4\)"):
        encoder.fit(MAPS, Y[1:])
    with pytest.raises(ValueError, match="X must be finite"):
        encoder.fit(np.where(MAPS > 3, np.nan, MAPS), Y)
    with pytest.raises(ValueError, match="too many fields"):
        GaussianFieldEncoder(grid=400).fit(MAPS, Y)
    encoder.fit(MAPS, Y)
    with pytest.raises(ValueError, match=r"X must have shape \(samples, 4, 10, 8\)"):
        encoder.predict(MAPS[:, :, 1:])
    for bad in ({"grid": 0}, {"sizes": ()}, {"sizes": (-1.0,)}):
        with pytest.raises(ValueError, match="GaussianFieldEncoder"):
            GaussianFieldEncoder(**bad)
