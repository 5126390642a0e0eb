"""Federated averaging: what leaves a site, what it becomes, what stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neurokern.adapters import average_states, load_shared_state, shared_state


def site(n_channels: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(n_channels, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_private_layers_stay_and_the_shared_body_becomes_the_weighted_mean():
    sites = [site(3, 0), site(5, 1)]
    own = [model[0].weight.detach().clone() for model in sites]
    states = [shared_state(model, private="0.*") for model in sites]
    assert set(states[0]) == {name for name in sites[0].state_dict() if not name.startswith("0.")}
    average = average_states(states, [30, 10])
    expected = 0.75 * states[0]["2.weight"].double() + 0.25 * states[1]["2.weight"].double()
    torch.testing.assert_close(average["2.weight"].double(), expected, rtol=1e-7, atol=1e-8)
    for model, weight in zip(sites, own, strict=True):
        load_shared_state(model, average)
        assert torch.equal(model[0].weight, weight)
        assert torch.equal(model[2].weight, average["2.weight"])


def test_a_shared_state_is_a_copy():
    model = site(3, 0)
    state = shared_state(model)
    state["2.weight"].zero_()
    assert model[2].weight.abs().sum() > 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4).filter(any))
def test_equal_states_average_to_themselves(n_samples):
    state = shared_state(site(3, 0))
    average = average_states([state] * len(n_samples), n_samples)
    for name, value in state.items():
        torch.testing.assert_close(average[name], value, rtol=1e-7, atol=0)


def test_a_site_without_samples_has_no_say_and_counters_are_not_averaged():
    states = [shared_state(site(3, seed)) for seed in (0, 1)]
    states[1]["1.num_batches_tracked"] += 7
    average = average_states(states, [5, 0])
    assert torch.equal(average["2.weight"], states[0]["2.weight"])
    assert int(average["1.num_batches_tracked"]) == 7


def test_states_that_do_not_fit_are_refused():
    first, second = (shared_state(site(3, seed)) for seed in (0, 1))
    with pytest.raises(ValueError, match=r"no weight matches 'input\.\*'"):
        shared_state(site(3, 0), private="input.*")
    with pytest.raises(ValueError, match="equally long"):
        average_states([first, second], [1])
    for n_samples in ([0, 0], [-1, 2], [float("nan"), 1]):
        with pytest.raises(ValueError, match="not all 0"):
            average_states([first, second], n_samples)
    with pytest.raises(ValueError, match="one shape"):
        average_states([first, shared_state(site(5, 0))], [1, 1])
    with pytest.raises(ValueError, match="leave layers that differ"):
        average_states([first, {"x": torch.zeros(1)}], [1, 1])
    with pytest.raises(ValueError, match="NaN"):
        average_states([first, {**second, "2.bias": torch.full((2,), torch.nan)}], [1, 1])
    with pytest.raises(ValueError, match=r"0\.weight must have the model's shape"):
        load_shared_state(site(5, 0), first)
