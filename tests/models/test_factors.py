"""Read-in by factor analysis: hidden is not silent, and both maps start in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurokern.models import MtM, MtMConfig
from neurokern.models.factors import FactorParts, factor_analysis, recent_means

N_BINS, N_UNITS, N_FACTORS = 10, 24, 3


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Windows of 24 units that three latents drive."""
    rng = np.random.default_rng(3)
    latent = rng.normal(size=(200, 1, N_FACTORS)) + 0.3 * rng.normal(size=(200, N_BINS, N_FACTORS))
    rates = np.exp(latent @ rng.normal(scale=0.5, size=(N_FACTORS, N_UNITS)) - 0.3)
    return rng.poisson(rates).clip(max=255).astype(np.uint8)


@pytest.fixture(scope="module")
def model(counts: np.ndarray) -> MtM:
    torch.manual_seed(0)
    model = MtM(MtMConfig.small(n_bins=N_BINS, stitch_size=N_FACTORS, hidden_size=16, half_life=1e9))
    model.add_session("one", N_UNITS, counts=counts[:160])
    return model.eval()


def parts_of(model: MtM) -> FactorParts:
    parts = model.session_parts("one")
    assert isinstance(parts, FactorParts)
    return parts


def log_likelihood(rates: torch.Tensor, counts: torch.Tensor) -> float:
    return (counts * rates.log() - rates).mean().item()


def test_factor_analysis_recovers_a_covariance_of_low_rank_plus_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    noise = torch.rand(12, generator=generator, dtype=torch.float64) + 0.5
    covariance = loadings @ loadings.T + torch.diag(noise)
    got, got_noise = factor_analysis(covariance, 2)
    torch.testing.assert_close(got @ got.T, loadings @ loadings.T, rtol=0, atol=0.15)
    torch.testing.assert_close(got_noise, noise, rtol=0.15, atol=0)


def test_recent_means_follow_the_last_windows_and_stay_above_zero() -> None:
    drifting = np.zeros((100, 4, 2), dtype=np.uint8)
    drifting[90:, :, 0] = 2
    weight = 0.5 ** (np.arange(100)[::-1] / 5)
    mean, root = recent_means(drifting, weight / weight.sum())
    assert 1.0 < mean[0] < 1.6  # 2 in the last ten windows, 0.2 over all
    assert root[0] == pytest.approx(np.sqrt(2) * 0.75, abs=0.05)
    assert mean[1] == pytest.approx(0.5 / 400)
    even = np.full(100, 0.01)
    assert recent_means(drifting, even)[0][0] == pytest.approx(0.2)


def test_expected_factors_match_the_posterior_mean_written_out_by_hand(
    model: MtM, counts: np.ndarray
) -> None:
    parts = parts_of(model)
    x = torch.from_numpy(counts[160:162].astype(np.float32))
    hidden = torch.zeros(2, 1, N_UNITS, dtype=torch.bool)
    hidden[0, :, :5] = True
    hidden[1, :, 20:] = True
    factors, _ = parts.read_in(x, hidden, causal=False)
    C, r = parts.loadings.detach().double().numpy(), parts.log_noise.detach().double().exp().numpy()
    lag = np.subtract.outer(np.arange(N_BINS), np.arange(N_BINS))
    smooth = np.exp(-0.5 * lag**2)
    smooth /= smooth.sum(1, keepdims=True)
    u = smooth @ ((np.sqrt(x.double().numpy()) - parts.center.numpy()) * parts.scale.numpy())
    for row in range(2):
        seen = ~hidden[row, 0].numpy()
        gain = C[seen] / r[seen, None]
        expected = u[row][:, seen] @ gain @ np.linalg.inv(np.eye(N_FACTORS) + C[seen].T @ gain)
        np.testing.assert_allclose(factors[row].detach().numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_gives_the_same_whatever_shape_it_is_written_in(
    model: MtM, counts: np.ndarray, causal: bool
) -> None:
    x = torch.from_numpy(counts[160:164].astype(np.float32))
    generator = torch.Generator().manual_seed(1)
    units = torch.rand(4, 1, N_UNITS, generator=generator) < 0.4
    bins = torch.rand(4, N_BINS, 1, generator=generator) < 0.4
    for mask in (units, bins):
        compact, full = (
            parts_of(model).read_in(x, m, causal)[0] for m in (mask, mask.expand(x.shape).contiguous())
        )
        torch.testing.assert_close(compact, full, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scheme", ["neuron", "causal"])
def test_hidden_counts_never_reach_the_prediction(model: MtM, counts: np.ndarray, scheme: str) -> None:
    x = torch.from_numpy(counts[160:164].astype(np.float32))
    generator = torch.Generator().manual_seed(2)
    for shape in ((4, 1, N_UNITS), (4, N_BINS, 1), (4, N_BINS, N_UNITS)):
        hidden = torch.rand(shape, generator=generator) < 0.3
        expected = model(x, "one", scheme, hidden)
        for there in (x + 5, torch.full_like(x, float("nan"))):
            other = torch.where(hidden, there, x)
            assert torch.equal(expected, model(other, "one", scheme, hidden))
        assert not torch.equal(expected, model(x, "one", scheme))


def test_strict_causal_holds_for_the_read_in_too(model: MtM, counts: np.ndarray) -> None:
    x = torch.from_numpy(counts[160:164].astype(np.float32))
    later = x.clone()
    later[:, 6:] += 4
    before, after = (model(a, "one", "causal")[:, :6] for a in (x, later))
    assert torch.equal(before, after)


def test_the_start_already_predicts_hidden_units_better_than_their_mean(
    model: MtM, counts: np.ndarray
) -> None:
    x = torch.from_numpy(counts[160:].astype(np.float32))
    mean = torch.from_numpy(counts[:160].mean((0, 1), dtype=np.float32)).expand_as(x)
    for unit in (0, 7, 13):
        hidden = torch.zeros(1, 1, N_UNITS, dtype=torch.bool)
        hidden[..., unit] = True
        rates = model.predict_rates(x, "one", "neuron", hidden)
        assert log_likelihood(rates[..., unit], x[..., unit]) > log_likelihood(mean[..., unit], x[..., unit])


def test_the_start_already_predicts_the_future_better_than_the_mean(model: MtM, counts: np.ndarray) -> None:
    x = torch.from_numpy(counts[160:].astype(np.float32))
    hidden = torch.arange(N_BINS)[None, :, None] >= 8
    rates = model.predict_rates(x, "one", "causal", hidden)
    mean = torch.from_numpy(counts[:160].mean((0, 1), dtype=np.float32)).expand_as(x)
    assert log_likelihood(rates[:, 8:], x[:, 8:]) > log_likelihood(mean[:, 8:], x[:, 8:])


def test_with_everything_hidden_the_prediction_is_the_recent_mean(model: MtM) -> None:
    x = torch.zeros(1, N_BINS, N_UNITS)
    rates = model.predict_rates(x, "one", "inter-region", torch.ones(1, 1, N_UNITS, dtype=torch.bool))
    mean = parts_of(model).log_mean.exp().expand_as(rates)
    torch.testing.assert_close(rates, mean, rtol=3e-3, atol=0)  # the soft corner of the floor adds 0.25 %


def test_rates_stay_above_their_floor(model: MtM) -> None:
    x = torch.full((1, N_BINS, N_UNITS), 60.0)
    lowest = model.config.rate_floor * parts_of(model).log_mean.exp()
    assert (model.predict_rates(x, "one", "neuron") >= lowest).all()
    assert (model.predict_rates(torch.zeros_like(x), "one", "neuron") >= lowest).all()


def test_rates_are_read_from_the_expected_factors(model: MtM, counts: np.ndarray) -> None:
    x = torch.from_numpy(counts[160:164].astype(np.float32))
    factors = model.expected_factors(x, "one", "neuron")
    assert factors.shape == (4, N_BINS, N_FACTORS)
    log_rates = parts_of(model).read_out(factors, None, model.calibration[0])
    torch.testing.assert_close(log_rates, model(x, "one", "neuron"), rtol=0, atol=1e-5)
    published = MtM()
    published.add_session("one", N_UNITS)
    with pytest.raises(ValueError, match="has no factors"):
        published.expected_factors(x, "one", "neuron")


def test_less_evidence_draws_the_factors_toward_zero(model: MtM, counts: np.ndarray) -> None:
    x = torch.from_numpy(counts[160:164].astype(np.float32))
    sure, unsure = (parts_of(model).read_in(x, None, False, evidence)[0].norm() for evidence in (1.0, 0.1))
    assert unsure < 0.9 * sure


def test_calibration_is_a_gain_and_an_offset_of_departures(model: MtM) -> None:
    parts = parts_of(model)
    departure = torch.zeros(1, N_BINS, N_UNITS) + 0.4 * (0.5 * parts.log_mean).exp()  # 40 % above the mean
    nothing = torch.zeros(1, N_BINS, N_FACTORS)
    rates = parts.read_out(nothing, departure, torch.tensor([np.log(2.0), 0.0, 0.1, 0.0])).exp()
    expected = (1 + 2 * 0.4 + 0.1) * parts.log_mean.exp()
    torch.testing.assert_close(rates, expected.expand_as(rates), rtol=1e-4, atol=0)


def test_gradients_reach_loadings_noise_and_read_out(model: MtM, counts: np.ndarray) -> None:
    x = torch.from_numpy(counts[160:164].astype(np.float32))
    model.zero_grad()
    model(x, "one", "causal").square().sum().backward()
    for name, parameter in parts_of(model).named_parameters():
        if name != "token":  # the trunk adds nothing yet, so its gradient stops at the zero output
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert model.output_network.weight.grad.abs().sum() > 0


def test_a_session_can_be_refitted_to_other_windows_and_keeps_its_token(counts: np.ndarray) -> None:
    model = MtM(MtMConfig.small(n_bins=N_BINS, stitch_size=N_FACTORS, session_tokens=True))
    model.add_session("one", N_UNITS, counts=counts[:50])
    model.add_session("two", N_UNITS, counts=counts)
    token = parts_of(model).token.clone()
    model.refit_session("one", counts)
    for name in ("loadings", "log_mean", "read_out_weights"):
        assert torch.equal(getattr(parts_of(model), name), getattr(model.session_parts("two"), name))
    assert torch.equal(token, parts_of(model).token)
    with pytest.raises(ValueError, match=r"must have shape \(windows, bins, 24\)"):
        model.refit_session("one", counts[0])
    published = MtM()
    published.add_session("one", N_UNITS)
    with pytest.raises(ValueError, match="are trained, not estimated"):
        published.refit_session("one", counts)


@pytest.mark.parametrize(("n_windows", "n_units"), [(20, 1), (20, 2), (1, 12), (2, 3)])
def test_few_units_and_few_windows_give_finite_rates(n_windows: int, n_units: int) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (n_windows, N_BINS, n_units)).astype(np.uint8)
    counts[:, :, 0] = 0  # and with a unit that never fires
    model = MtM(MtMConfig.small(n_bins=N_BINS, stitch_size=8))
    model.add_session("few", n_units, counts=counts)
    rates = model.predict_rates(torch.zeros(2, N_BINS, n_units), "few", "neuron")
    assert torch.isfinite(rates).all()
    assert (rates > 0).all()
