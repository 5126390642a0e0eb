"""Channels grouped by region: every channel once, exactly back, and none of the padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neurokern.models import region_tokens


@st.composite
def grouped(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    n_windows, n_patches, patch, n_channels = (draw(st.integers(1, 4)) for _ in range(4))
    regions = draw(
        st.lists(st.integers(-1, 3), min_size=n_windows * n_channels, max_size=n_windows * n_channels)
    )
    regions[0] = max(regions[0], 0)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(n_windows, n_patches * patch, n_channels, generator=generator)
    return x, torch.tensor(regions).view(n_windows, n_channels), patch


@given(grouped())
def test_channels_come_back_and_unknown_ones_are_left_out(
    case: tuple[torch.Tensor, torch.Tensor, int],
) -> None:
    x, regions, patch = case
    tokens = region_tokens(x, regions, patch=patch)
    assert torch.equal(tokens.channels(), x * (regions >= 0)[:, None])
    assert torch.equal(tokens.channel_mask.sum((1, 2)), (regions >= 0).sum(1))
    unused = ~tokens.channel_mask[:, None, :, None].expand_as(tokens.values)
    assert not tokens.values[unused].any()


@given(grouped())
def test_a_token_holds_the_channels_of_its_region_in_their_order(
    case: tuple[torch.Tensor, torch.Tensor, int],
) -> None:
    x, regions, patch = case
    tokens = region_tokens(x, regions, patch=patch, n_regions=4)
    for b in range(len(x)):
        for region in range(4):
            members = (regions[b] == region).nonzero()[:, 0]
            assert bool(tokens.token_mask[b, region]) == bool(len(members))
            for p in range(x.shape[1] // patch):
                expected = x[b, p * patch : (p + 1) * patch, members]
                assert torch.equal(tokens.values[b, p, region][:, tokens.channel_mask[b, region]], expected)


def test_gradients_reach_the_channels_that_are_in_tokens() -> None:
    x = torch.randn(2, 4, 3, requires_grad=True)
    region_tokens(x, torch.tensor([1, -1, 0]), patch=2).values.sum().backward()
    assert torch.equal(x.grad, torch.tensor([1.0, 0.0, 1.0]).expand(2, 4, 3))


def test_given_sizes_fit_one_linear_layer_to_every_batch() -> None:
    for regions in ([0, 0, 1], [2, 1, 1]):
        tokens = region_tokens(
            torch.ones(1, 4, 3), torch.tensor(regions), patch=2, n_regions=3, max_channels=5
        )
        assert tokens.values.shape == (1, 2, 3, 2, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.ones(4, 3)}, r"shape \(B, T, C\)"),
        ({"regions": torch.tensor([0, 1])}, r"regions \(C,\) or \(B, C\)"),
        ({"regions": torch.zeros(5, 3, dtype=torch.int64)}, r"regions \(C,\) or \(B, C\)"),
        ({"regions": torch.zeros(3)}, "must be integers"),
        ({"regions": torch.tensor([-1, -1, -1])}, "at least one known region"),
        ({"patch": 3}, "must divide the 4 time steps, got 3"),
        ({"patch": 0}, "must divide"),
        ({"n_regions": 1}, "below n_regions=1, got 1"),
        ({"max_channels": 1}, r"the largest region \(2\), got 1"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, object], message: str) -> None:
    arguments = {"x": torch.ones(2, 4, 3), "regions": torch.tensor([0, 1, 1]), "patch": 2}
    with pytest.raises(ValueError, match=message):
        region_tokens(**{**arguments, **changes})
