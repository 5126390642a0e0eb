"""``FewShotAdapter`` and ``few_shot_adapt``: a solved read-out on a frozen encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neurokern.adapters import FewShotAdapter, HeadProbe, SessionEncoder, Support, few_shot_adapt
from neurokern.models import MultiTaskMasking

N_UNITS = 5


@pytest.fixture(scope="module")
def trials() -> tuple[torch.Tensor, np.ndarray]:
    """Sixty trials of five units, of which the first fires more in "left" trials."""
    labels = np.array(["left", "right"] * 30)
    rates = torch.ones(60, 8, N_UNITS)
    rates[::2, :, 0] = 6.0
    return torch.poisson(rates, generator=torch.Generator().manual_seed(0)), labels


@pytest.fixture
def adapter() -> FewShotAdapter:
    torch.manual_seed(0)
    return FewShotAdapter(MultiTaskMasking(N_UNITS, 32, 4, n_bins=8, n_layers=1), output_dim=2)


def test_a_few_shots_of_each_class_decode_later_trials(
    adapter: FewShotAdapter, trials: tuple[torch.Tensor, np.ndarray]
) -> None:
    counts, labels = trials
    adapted = few_shot_adapt(adapter, (counts[:30], labels[:30]), n_shots=5)
    assert adapted.classes.tolist() == ["left", "right"]
    assert (adapted.predict(counts[30:]) == labels[30:]).mean() > 0.9
    assert adapted(counts[30:]).shape == (30, 2)


def test_it_is_the_linear_probe_on_the_first_shots(
    adapter: FewShotAdapter, trials: tuple[torch.Tensor, np.ndarray]
) -> None:
    counts, labels = trials
    adapted = few_shot_adapt(adapter, (counts, labels), n_shots=4)
    encoder = SessionEncoder(adapter.encoder.mtm, "session")
    probe = HeadProbe().fit(encoder, Support.of(counts[:8], labels[:8]))
    torch.testing.assert_close(adapted(counts[8:]), probe.forward(counts[8:]), rtol=0, atol=1e-4)


def test_the_adapter_that_was_given_stays_as_it_was(
    adapter: FewShotAdapter, trials: tuple[torch.Tensor, np.ndarray]
) -> None:
    counts, labels = trials
    before = adapter(counts)
    encoder = {name: values.clone() for name, values in adapter.encoder.state_dict().items()}
    adapted = few_shot_adapt(adapter, (counts, labels))
    assert torch.equal(adapter(counts), before)
    assert adapter.classes is None
    assert adapted.encoder is adapter.encoder
    assert all(torch.equal(values, encoder[name]) for name, values in adapter.encoder.state_dict().items())


def test_before_it_learns_it_can_be_trained_by_hand_with_a_frozen_encoder(
    adapter: FewShotAdapter, trials: tuple[torch.Tensor, np.ndarray]
) -> None:
    adapter.train()
    assert not adapter.encoder.training
    adapter(trials[0]).sum().backward()
    assert adapter.head.weight.grad is not None
    assert all(p.grad is None for p in adapter.encoder.parameters())


def test_values_are_read_out_by_ridge() -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    y = x[:, :2] * 3 + 1
    adapted = few_shot_adapt(FewShotAdapter(nn.Identity(), 2), (x[:30], y[:30]), n_shots=30)
    assert adapted.classes is None
    np.testing.assert_allclose(adapted.predict(x[30:]), y[30:], atol=0.2)


def test_support_sets_may_be_pairs_or_a_support() -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    labels = [0, 1, 0, 1, 1, 0]
    given = ((x, labels), list(zip(x, labels, strict=True)), Support.of(x, labels))
    outputs = [few_shot_adapt(FewShotAdapter(nn.Identity(), 2), support)(x) for support in given]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("support", "n_shots", "message"),
    [
        ((torch.zeros(4, 3), [0, 0, 0, 1]), 2, "n_shots must be at most the 1 of 1, got 2"),
        ((torch.zeros(4, 3), [0, 1, 2, 2]), 1, r"2 classes \[0, 1, 2\], got 3"),
        ((torch.zeros(4, 3), [0.5, 1.5, 2.0, 3.0]), 5, "at most the 4 of values"),
        ((torch.zeros(4, 3), [0.5, 1.5, 2.0, 3.0]), 4, "must hold 2 values, got 1"),
        ((torch.zeros(4, 3), [0, 1, 0, 1]), 0, "n_shots must be at least 1"),
        ((torch.zeros(4, 3), [0, 0, 0, 0]), 1, "at least 2 classes"),
        ((torch.zeros(4, 3), [0, 1]), 1, "must be a Support, a pair"),
        ([], 1, "must be a Support, a pair"),
    ],
)
def test_wrong_support_sets_are_named(support: object, n_shots: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        few_shot_adapt(FewShotAdapter(nn.Identity(), 2), support, n_shots)


def test_other_encoders_are_called_whatever_they_are_made_of(trials: tuple[torch.Tensor, np.ndarray]) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 3)  # not what the front end calls embed

        def forward(self, counts: torch.Tensor) -> torch.Tensor:
            return counts * 2.0

    counts, labels = trials
    adapted = few_shot_adapt(FewShotAdapter(Encoder(), 2), (counts, labels), n_shots=10)
    assert (adapted.predict(counts) == labels).mean() > 0.9


def test_wrong_encoders_and_sizes_are_named() -> None:
    with pytest.raises(TypeError, match="encoder must be a torch module"):
        FewShotAdapter(abs, 2)
    with pytest.raises(TypeError, match=r"pass SessionEncoder\(model, session\)"):
        FewShotAdapter(MultiTaskMasking(3, 8, 2, n_layers=1).mtm, 2)
    with pytest.raises(ValueError, match="output_dim must be at least 1"):
        FewShotAdapter(nn.Identity(), 0)
    with pytest.raises(TypeError, match="model must be a torch module"):
        few_shot_adapt(abs, (torch.zeros(2, 2), [0, 1]), 1)


def test_a_bare_encoder_gets_a_read_out_of_the_size_of_the_support() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    labels = np.array(["a", "b", "c"] * 10)
    adapted = few_shot_adapt(nn.Identity(), (x, labels))
    assert adapted.output_dim == 3
    assert torch.equal(adapted(x), few_shot_adapt(FewShotAdapter(nn.Identity(), 3), (x, labels))(x))
