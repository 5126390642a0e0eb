"""Regressors of events: the closed form equals fine integration, shares count every second once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from neurokern.datasets import event_regressors, hemodynamic_response
from neurokern.encoding import delay_features


@pytest.mark.parametrize("response", ["spm", "glover"])
def test_the_response_has_integral_one_and_is_the_slope_of_its_integral(response):
    time = np.arange(0, 60, 1e-3) + 5e-4
    density = hemodynamic_response(time, response)
    assert abs(density.sum() * 1e-3 - 1) < 1e-6
    integral = hemodynamic_response(time + 5e-4, response, cumulative=True)
    np.testing.assert_allclose(np.cumsum(density) * 1e-3, integral, atol=1e-6)
    assert 4 < time[density.argmax()] < 6
    assert 10 < time[density.argmin()] < 20
    assert (hemodynamic_response([-1.0, 0.0], response) == 0).all()


def test_the_response_is_two_gamma_densities():
    gamma = pytest.importorskip("scipy.stats").gamma
    time = np.linspace(-2, 30, 50)
    wanted = (gamma.pdf(time, 6) - gamma.pdf(time, 16) / 6) / (1 - 1 / 6)
    np.testing.assert_allclose(hemodynamic_response(time), wanted, atol=1e-12)


def test_the_response_is_that_of_nilearn():
    hemodynamic_models = pytest.importorskip("nilearn.glm.first_level.hemodynamic_models")
    for name in ("spm", "glover"):
        dt = 0.01  # theirs begins one step later, on a grid
        theirs = getattr(hemodynamic_models, f"{name}_hrf")(1.0, oversampling=100, time_length=32)
        ours = hemodynamic_response(np.arange(len(theirs)) * dt - dt, name)
        assert np.corrcoef(ours, theirs)[0, 1] > 0.9999


@given(
    onset=st.floats(-5, 40),
    duration=st.sampled_from([0.0, 0.3, 2.0, 7.7]),
    tr=st.sampled_from([0.72, 2.0, 2.5]),
    sample_at=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_convolution_equals_fine_sums_wherever_the_onset_lies(onset, duration, tr, sample_at):
    found = event_regressors([onset], [duration], n_volumes=20, tr=tr, sample_at=sample_at)[:, 0]
    time = (np.arange(20) + sample_at) * tr
    if duration == 0:
        wanted = hemodynamic_response(time - onset)
    else:
        step = duration / 2000
        within = onset + (np.arange(2000) + 0.5) * step
        wanted = hemodynamic_response(time[:, None] - within).sum(1) * step
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@given(
    events=st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 5)), min_size=1, max_size=6),
    tr=st.sampled_from([0.72, 2.0]),
)
def test_shares_hold_every_second_of_the_events_once(events, tr):
    onsets, durations = np.array(events).T
    found = event_regressors(onsets, durations, n_volumes=60, tr=tr, response=None)
    np.testing.assert_allclose(found.sum() * tr, durations.sum())


def test_whole_delays_are_those_of_delay_features():
    rng = np.random.default_rng(0)
    onsets, durations = np.sort(rng.uniform(0, 50, 9)), rng.uniform(0.5, 3, 9)
    values = rng.normal(size=(9, 3)).astype(np.float32)
    shares = event_regressors(onsets, durations, values, n_volumes=20, tr=2.0, response=None)
    assert shares.dtype == np.float32
    found = event_regressors(onsets, durations, values, n_volumes=20, tr=2.0, response=[2, 4, 8])
    np.testing.assert_allclose(found, delay_features(shares, [1, 2, 4]), rtol=1e-4, atol=1e-6)


def test_blocks_of_volumes_do_not_show_and_unknown_onsets_do_not_count():
    onsets, durations, values = [3.0, np.nan, 500.2], [1.0, 1.0, np.nan], [2.0, np.nan, -1.0]
    found = event_regressors(onsets, durations, values, n_volumes=600, tr=1.0)
    wanted = 2 * event_regressors([3.0], [1.0], n_volumes=600, tr=1.0)
    wanted = wanted - event_regressors([500.2], [0.0], n_volumes=600, tr=1.0)
    np.testing.assert_allclose(found, wanted, atol=1e-15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"durations": [1.0, -1.0]}, "durations at least 0 s"),
        ({"onsets": [1.0, np.inf]}, "onsets must be finite or NaN"),
        ({"onsets": [1.0]}, r"onsets and durations must be \(events,\)"),
        ({"values": [1.0, np.nan]}, "values must be finite"),
        ({"tr": 0}, "tr must be a finite number above 0"),
        ({"response": "sharp"}, "response must be one of 'spm', 'glover'"),
        ({"response": []}, "a name or finite delays"),
        ({"n_volumes": -1}, "n_volumes must be at least 0"),
        ({"n_volumes": 10**12}, "would take"),
    ],
)
def test_wrong_input_is_named(changes, message):
    given_ = {"onsets": [1.0, 2.0], "durations": [1.0, 1.0], "n_volumes": 5, "tr": 2.0} | changes
    with pytest.raises(ValueError, match=message):
        event_regressors(given_.pop("onsets"), given_.pop("durations"), given_.pop("values", None), **given_)
