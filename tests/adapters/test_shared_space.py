"""Layers from inputs of any size into a shared space."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neurokern.adapters import SubjectInput, SubjectLayers


def test_pooling_makes_any_number_of_voxels_one_size():
    inputs = torch.arange(12.0)[None]
    layer = SubjectInput(12, 4, pool_size=4, linear=False)
    assert layer(inputs).tolist() == [[2.0, 5.0, 8.0, 11.0]]
    mean = SubjectInput(12, 4, pool_size=4, pooling="mean", linear=False)
    assert mean(inputs).tolist() == [[1.0, 4.0, 7.0, 10.0]]
    for n_inputs in (3, 17, 100):  # fewer than the pool as well
        assert SubjectInput(n_inputs, 5, pool_size=8)(torch.randn(2, 6, n_inputs)).shape == (2, 6, 5)


def test_each_subject_has_its_own_layer_and_more_can_come():
    torch.manual_seed(0)
    layers = SubjectLayers({"sub-01": 7, "sub-02.b": 9}, size=4)
    layers.double()
    layers.add("new", 5)
    assert layers.subjects == ("sub-01", "sub-02.b", "new")
    assert layers(torch.randn(2, 5, dtype=torch.float64), "new").shape == (2, 4)
    layers(torch.randn(2, 7, dtype=torch.float64), "sub-01").sum().backward()
    assert layers.layers[0].linear.weight.grad is not None
    assert layers.layers[1].linear.weight.grad is None


def test_the_mean_layer_is_the_mean_of_pooled_subjects():
    layers = SubjectLayers({"a": 7, "b": 9}, size=4, pool_size=6)
    mean = layers.mean_layer(11)
    weights = [layer.linear.weight for layer in layers.layers]
    torch.testing.assert_close(mean.linear.weight, (weights[0] + weights[1]) / 2)
    assert isinstance(mean.linear, nn.Linear)
    assert mean(torch.randn(2, 11)).shape == (2, 4)
    with pytest.raises(ValueError, match="pass pool_size="):
        SubjectLayers({"a": 7, "b": 9}, size=4).mean_layer(11)


def test_bad_sizes_and_subjects_are_refused():
    for arguments in ((0, 4), (4, 0), (4, 4, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            SubjectInput(*arguments)
    with pytest.raises(ValueError, match="pool_size must be size=4"):
        SubjectInput(12, 4, pool_size=3, linear=False)
    with pytest.raises(ValueError, match="pooling"):
        SubjectInput(12, 4, pooling="median")
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 12\)"):
        SubjectInput(12, 4)(torch.zeros(2, 3))
    layers = SubjectLayers({"a": 7}, size=4)
    with pytest.raises(ValueError, match="known already"):
        layers.add("a", 3)
    with pytest.raises(ValueError, match="'b' is unknown"):
        layers(torch.zeros(1, 7), "b")
