"""The Poisson loss of hidden counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neurokern.models import poisson_loss

LOG_RATES = torch.tensor([[[0.0, math.log(2.0)], [math.log(3.0), 1.0]]])  # (1, 2, 2)
COUNTS = torch.tensor([[[1.0, 0.0], [2.0, 5.0]]])
MASK = torch.tensor([[[True, True], [True, False]]])


def test_sum_over_the_targets_of_exp_f_minus_y_f() -> None:
    expected = (1 - 0) + (2 - 0) + (3 - 2 * math.log(3.0))
    assert poisson_loss(LOG_RATES, COUNTS, MASK).item() == pytest.approx(expected, rel=1e-6)


def test_mean_divides_by_the_number_of_targets() -> None:
    total = poisson_loss(LOG_RATES, COUNTS, MASK)
    assert poisson_loss(LOG_RATES, COUNTS, MASK, "mean").item() == pytest.approx(total.item() / 3, rel=1e-6)


def test_none_keeps_the_shape_with_zeros_outside_the_mask() -> None:
    loss = poisson_loss(LOG_RATES, COUNTS, MASK, "none")
    assert loss.shape == COUNTS.shape
    assert loss[0, 1, 1] == 0


def test_without_a_mask_every_entry_counts() -> None:
    everything = torch.ones_like(MASK)
    assert torch.equal(poisson_loss(LOG_RATES, COUNTS), poisson_loss(LOG_RATES, COUNTS, everything))


def test_matches_torch_and_is_least_at_the_counts() -> None:
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    y = torch.poisson(torch.full((3, 4, 5), 2.0), generator=generator).double()
    expected = torch.nn.functional.poisson_nll_loss(f.float(), y.float(), reduction="sum")
    torch.testing.assert_close(poisson_loss(f, y).float(), expected)
    at_the_counts = poisson_loss((y + 1e-9).log(), y)
    assert at_the_counts < poisson_loss(f, y)


def test_entries_outside_the_mask_give_neither_value_nor_gradient_even_if_they_overflow() -> None:
    f = torch.tensor([[[0.5, 1e4, float("nan")]]], requires_grad=True)
    counts = torch.tensor([[[1.0, 2.0, 3.0]]])
    loss = poisson_loss(f, counts, torch.tensor([[[True, False, False]]]))
    loss.backward()
    assert loss.item() == pytest.approx(math.exp(0.5) - 0.5, rel=1e-6)
    np.testing.assert_allclose(f.grad.numpy(), [[[math.exp(0.5) - 1, 0, 0]]], rtol=1e-6)


@pytest.mark.parametrize("mask", [[[[True], [False]]], [[[True, False]]]], ids=["bins", "units"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_a_mask_of_whole_bins_or_units_stands_for_all_their_entries(mask: object, reduction: str) -> None:
    small = torch.tensor(mask)
    expected = poisson_loss(LOG_RATES, COUNTS, small.expand_as(COUNTS), reduction)  # type: ignore[arg-type]
    assert torch.equal(poisson_loss(LOG_RATES, COUNTS, small, reduction), expected)  # type: ignore[arg-type]


def test_no_targets_give_zero_and_not_nan() -> None:
    nothing = torch.zeros_like(MASK)
    assert poisson_loss(LOG_RATES, COUNTS, nothing, "mean") == 0


def test_weights_scale_the_loss_of_each_unit() -> None:
    weighted = poisson_loss(LOG_RATES, COUNTS, MASK, "none", torch.tensor([2.0, 0.0]))
    plain = poisson_loss(LOG_RATES, COUNTS, MASK, "none")
    assert torch.equal(weighted, plain * torch.tensor([2.0, 0.0]))


def test_half_precision_is_summed_in_float32() -> None:
    loss = poisson_loss(torch.zeros(4, 100, 100, dtype=torch.bfloat16), torch.zeros(4, 100, 100))
    assert loss.dtype == torch.float32
    assert loss.item() == 40_000  # bfloat16 would stop counting at 256


def test_different_shapes_and_unknown_reductions_are_errors() -> None:
    with pytest.raises(ValueError, match=r"broadcast to it, got \(1, 2, 2\), \(1, 2, 3\)"):
        poisson_loss(LOG_RATES, torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="reduction must be one of"):
        poisson_loss(LOG_RATES, COUNTS, MASK, "average")  # type: ignore[arg-type]
