"""Dropout and attention with dropout: torch's, but for the draws."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from neurokern.models.blocks import attention
from neurokern.models.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_entries_are_dropped_as_often_as_asked_and_the_others_made_up_for(
    p: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(1)
    x = torch.full((40, 50, 60), 3.0, dtype=dtype, requires_grad=True)
    y = dropout(x, p)
    y.float().sum().backward()
    dropped = y == 0
    assert abs(float(dropped.float().mean()) - p) < 0.005  # 3.5 standard deviations at most
    torch.testing.assert_close(y[~dropped], torch.full_like(y[~dropped], 3.0 / (1 - p)))
    torch.testing.assert_close(x.grad, y.detach() / 3.0)
    for dim in range(3):  # whole rows would show up as other shares
        other = tuple(set(range(3)) - {dim})
        assert float((dropped.float().mean(other) - p).abs().max()) < 0.07


def test_draws_follow_the_seed_of_torch_and_differ_from_call_to_call() -> None:
    x = torch.ones(8, 9, 10)
    torch.manual_seed(5)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(5)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_at_zero_or_in_evaluation_and_all_at_one() -> None:
    x = torch.randn(3, 4, 5)
    assert dropout(x, 0.0) is x
    assert Dropout(0.5).eval()(x) is x
    assert not dropout(x, 1.0).any()
    assert dropout(x[:0], 0.5).shape == (0, 4, 5)
    assert dropout(x[0, 0], 0.5).shape == (5,)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_with_dropout_is_the_mean_over_its_draws(masked: bool) -> None:
    torch.manual_seed(2)
    query, key, value = torch.randn(3, 2, 2, 6, 8).unbind(0)
    attend = torch.ones(6, 6, dtype=torch.bool).tril() if masked else None
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=attend)
    torch.testing.assert_close(attention(query, key, value, attend, 0.0), expected)
    torch.testing.assert_close(attention(query, key, value, attend, 1e-9), expected)  # drops nothing
    many = [one.repeat(4000, 1, 1, 1) for one in (query, key, value)]
    mean = attention(*many, attend, 0.3).unflatten(0, (4000, 2)).mean(0)
    torch.testing.assert_close(mean, expected, atol=0.08, rtol=0)
