"""Real EEG, MEG and LFP hold, through this layer, what their descriptions state."""

import numpy as np
import pytest


@pytest.fixture
def eeg(shared_data, tmp_path, monkeypatch):
    """The folder of EEG, with a cache of the test's own."""
    pytest.importorskip("torch")
    pytest.importorskip("mne")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    return shared_data / "eeg"


def spectrum(values, sfreq, seconds=2.0):
    """Frequencies, and mean power of stretches under a Hann window, (frequencies, channels)."""
    n = round(seconds * sfreq)
    parts = values[: len(values) // n * n].reshape(-1, n, values.shape[1]).astype(np.float64)
    parts = (parts - parts.mean(1, keepdims=True)) * np.hanning(n)[:, None]
    return np.fft.rfftfreq(n, 1 / sfreq), (np.abs(np.fft.rfft(parts, axis=1)) ** 2).mean(0)


def slope(frequency, power, low, high=40.0):
    """Exponent of the power's fall with frequency."""
    band = (frequency >= low) & (frequency <= high)
    return np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]


def halves(signal):
    """Correlation of the averages of even and odd trials, over channels and times."""
    return np.corrcoef(signal[::2].mean(0).ravel(), signal[1::2].mean(0).ravel())[0, 1]


@pytest.mark.parametrize("form", ["bids", "set"])
def test_the_visual_response_is_the_same_in_both_halves_of_the_trials(eeg, form):
    from neurokern.datasets import BIDSDataset, MEEGWindows
    from neurokern.extractors import MEEGExtractor

    extractor = MEEGExtractor("eeg", l_freq=0.5, h_freq=30.0)
    options = {"events": "square", "tmin": -0.2, "tmax": 0.8}
    if form == "bids":
        windows = BIDSDataset(eeg / "bids_eeg_mini", "eeg", task="visualattention").with_extractor(
            extractor, **options
        )
    else:
        windows = MEEGWindows(eeg / "eeglab_set/eeglab_data.set", extractor, **options)
    assert len(windows) == 80
    signal = windows.batch(range(80))["signal"].numpy()
    signal = signal - signal[:, :25].mean(1, keepdims=True)
    assert halves(signal) == pytest.approx(0.84, abs=0.02)
    strength = signal.mean(0).std(1)  # global field power
    peak = windows.batch([0])["onset"].item() + strength[38:].argmax() / 128 + 38 / 128
    assert 0.285 < peak < 0.4
    names = windows.channels(0).names
    assert len(names) == (30 if form == "bids" else 32)  # only the tables tell which two are of the eyes
    assert {"Fz", "Cz", "Oz"} <= set(names)
    assert np.isfinite(windows.channels(0).positions).all()


def test_the_visual_recording_has_a_falling_spectrum_with_alpha(eeg):
    from neurokern.datasets import BIDSDataset
    from neurokern.extractors import MEEGExtractor

    data = BIDSDataset(eeg / "bids_eeg_mini", "eeg", task="visualattention")
    assert data.run(0).events["trial_type"].value_counts().to_dict() == {"square": 80, "rt": 74}
    frequency, power = spectrum(MEEGExtractor("eeg").values(data.run(0)), 128)
    power = power.mean(1)
    assert slope(frequency, power, 1) == pytest.approx(-1.8, abs=0.1)
    alpha = (frequency > 6) & (frequency < 13)
    assert frequency[alpha][power[alpha].argmax()] == pytest.approx(10, abs=0.5)
    assert power[alpha].max() > 15 * power[(frequency > 14) & (frequency < 18)].mean()


def test_the_bids_copy_and_the_original_are_the_same_signal(eeg):
    from neurokern.datasets import MEEGWindows
    from neurokern.extractors import MEEGExtractor

    copy = eeg / "bids_eeg_mini/sub-01/eeg/sub-01_task-visualattention_eeg.vhdr"
    names = ["Fz", "Cz", "Pz", "Oz"]
    one = MEEGWindows(copy, MEEGExtractor(names), duration=1.0)
    other = MEEGWindows(eeg / "eeglab_set/eeglab_data.set", MEEGExtractor(names), duration=1.0)
    assert len(one) == len(other) == 238
    assert abs(one.batch(range(238))["signal"] - other.batch(range(238))["signal"]).max() < 6e-8  # volts
    assert one[0]["subject"] == "01"


def test_movement_trials_of_an_edf_with_dotted_names_load(eeg):
    from neurokern.datasets import BIDSDataset
    from neurokern.extractors import MEEGExtractor

    data = BIDSDataset(eeg / "bids_eeg_mini", "eeg", task="motor")
    assert data.run(0).events["trial_type"].value_counts().to_dict() == {"T0": 19, "T1": 10, "T2": 9}
    extractor = MEEGExtractor()
    windows = data.with_extractor(extractor, events=["T1", "T2"], tmax=2.0)
    assert len(windows) == 19
    assert windows.channels(0).names[0] == "FC5"  # "Fc5." in the file
    frequency, power = spectrum(extractor.values(data.run(0)), 128, seconds=4.0)
    assert np.median([slope(frequency, own, 2) for own in power.T]) == pytest.approx(-1.5, abs=0.1)
    level = power[:, list(windows.channels(0).names).index("Pz")] * frequency**1.5  # without the fall
    alpha = (frequency >= 6) & (frequency <= 13)
    assert 8 <= frequency[alpha][level[alpha].argmax()] <= 10


@pytest.mark.parametrize(
    ("file", "n_channels", "sfreq", "seconds"),
    [
        ("biosemi_72ch_1s.bdf", {"eeg": 72}, 2048, 1),
        ("brainvision/test.vhdr", {"eeg": 26}, 1000, 7.9),
        ("../meg/kit_157ch_2s.sqd", {"mag": 157}, 1000, 2),
        ("../meg/neuromag306_eeg60_1s_raw.fif", {"mag": 102, "grad": 204, "eeg": 60}, 300, 1),
    ],
)
def test_format_samples_have_their_channels_and_rates(eeg, file, n_channels, sfreq, seconds):
    from neurokern.datasets import MEEGWindows
    from neurokern.extractors import MEEGExtractor

    windows = MEEGWindows(eeg / file, MEEGExtractor(bads="keep"))
    channels = windows.channels(0)
    assert {kind: channels.types.count(kind) for kind in set(channels.types)} == n_channels
    item = windows[0]
    assert item["sfreq"] == pytest.approx(sfreq, rel=0.01)
    assert len(item["signal"]) / item["sfreq"] == pytest.approx(seconds, rel=0.05)
    assert bool(np.isfinite(item["signal"].numpy()).all())
    if "mag" in n_channels:
        coils = [kind in ("mag", "grad") for kind in channels.types]
        np.testing.assert_allclose(np.linalg.norm(channels.orientations[coils], axis=1), 1, atol=1e-3)
        assert np.isfinite(channels.positions[coils]).all()
        assert channels.frame == "head"


def test_a_bdf_that_is_cut_short_is_an_error(eeg, tmp_path):
    from neurokern.datasets import MEEGWindows
    from neurokern.extractors import MEEGExtractor

    whole = (eeg / "biosemi_72ch_1s.bdf").read_bytes()
    (tmp_path / "a.bdf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is cut short: 0 of 1 records"):
        MEEGWindows(tmp_path / "a.bdf", MEEGExtractor())


def test_visual_responses_of_14_people_become_windows(eeg):
    import mne

    from neurokern.datasets import MEEGWindows
    from neurokern.extractors import MEEGExtractor

    with np.load(eeg / "uci_vep_14sub.npz") as file:
        data, subject, names = file["data_uV"] * 1e-6, file["subject"], [str(n) for n in file["channels"]]
    info = mne.create_info(names, 256.0, "eeg", verbose="ERROR")
    people = [mne.EpochsArray(data[subject == s], info, verbose="ERROR") for s in np.unique(subject)]
    windows = MEEGWindows(people, MEEGExtractor("eeg"))
    assert (len(windows), len(people)) == (70, 14)
    assert windows.offsets.tolist() == list(range(0, 75, 5))
    signal = windows.batch(range(70))["signal"].numpy()
    assert signal.shape == (70, 256, 64)
    by_person = [
        halves(signal[k : k + 5] - signal[k : k + 5].mean(1, keepdims=True)) for k in range(0, 70, 5)
    ]
    assert np.mean(by_person) == pytest.approx(0.27, abs=0.03)
    frequency, power = spectrum(signal.reshape(-1, 64), 256, seconds=1.0)
    assert slope(frequency, power.mean(1), 1) == pytest.approx(-1.2, abs=0.1)


def test_hippocampal_lfp_has_a_theta_rhythm(shared_data, eeg):
    import mne

    from neurokern.datasets import MEEGWindows
    from neurokern.extractors import MEEGExtractor

    values = np.load(shared_data / "ieeg/lfp_ca1_bycycle.npy", allow_pickle=False)
    info = mne.create_info(["CA1"], 1250.0, "seeg", verbose="ERROR")
    raw = mne.io.RawArray(values[None] * 1e-6, info, verbose="ERROR")
    windows = MEEGWindows(raw, MEEGExtractor(resample=250.0), duration=4.0)
    assert len(windows) == 15
    signal = windows.batch(range(15))["signal"].numpy()[:, :, 0]
    power = (np.abs(np.fft.rfft(signal * np.hanning(1000), axis=1)) ** 2).mean(0)
    frequency = np.fft.rfftfreq(1000, 1 / 250)
    theta = (frequency > 4) & (frequency < 12)
    assert frequency[theta][power[theta].argmax()] == pytest.approx(8.0, abs=0.5)
    beside = power[((frequency > 2) & (frequency < 5)) | ((frequency > 12) & (frequency < 20))].mean()
    assert power[(frequency > 7) & (frequency < 9)].mean() > 16 * beside
