"""Real recordings hold, through this layer, what their descriptions state."""

import numpy as np
import pytest

from neurokern.datasets import (
    BinnedSession,
    TimeSeries,
    bin_windows,
    load_npz,
    load_nwb,
    load_variables,
    sliding_windows,
    unit_quality,
)


def test_ca1_units_tell_the_place_on_the_track(shared_data):
    path = shared_data / "spikes/hippocampus_ca1/linear_track.npz"
    recording = load_variables(
        path,
        times="spike_times_s",
        units="spike_units",
        series={"position": ("pos_t_s", ["pos_x_px", "pos_y_px"])},
    )
    assert (recording.n_units, recording.n_spikes) == (31, 28_829)
    position = recording.series["position"]
    assert position.columns == ("pos_x_px", "pos_y_px")
    session = bin_windows(recording, sliding_windows(recording, 0.5), 0.5)
    place, valid = position.in_windows(session.windows, 0.5)
    place, valid, counts = place[:, 0], valid[:, 0], session.counts[:, 0].astype(float)
    speed = np.linalg.norm(np.gradient(place, axis=0), axis=1) / 0.5
    moving = valid & (speed > 20)
    bins = np.digitize(place[moving, 0], np.quantile(place[moving, 0], np.linspace(0, 1, 21)[1:-1]))
    occupancy = np.bincount(bins, minlength=20) / len(bins)
    rate = np.stack([counts[moving][bins == k].mean(0) for k in range(20)])
    ratio = rate / np.maximum((occupancy[:, None] * rate).sum(0), 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nansum(occupancy[:, None] * ratio * np.log2(ratio), axis=0)
    assert np.median(information[counts[moving].sum(0) > 50]) > 0.8  # bits per spike
    quality = unit_quality(recording)
    assert quality["isi_violations"].median() < 0.001
    assert 0.2 < quality["rate"].median() < 0.3


def test_it_neurons_are_selective_for_objects(shared_data):
    from scipy import stats

    with np.load(shared_data / "spikes/macaque_it_zd7/zd7_rasters.npz") as file:
        rasters = np.unpackbits(file["raster_packed"], axis=1)[:, : int(file["n_bins"])]
        neuron, stimulus = file["row_neuron"], file["row_stimulus"]
    # Neurons were recorded one after another: a session each, on its own clock of one second per trial.
    late = rasters[:, 600:900].sum(1)  # 100 to 400 ms
    selective = [
        stats.f_oneway(*[late[(neuron == n) & (stimulus == s)] for s in range(7)]).pvalue < 0.01
        for n in range(132)
    ]
    assert np.mean(selective) > 0.75
    rows = neuron == 0
    session = BinnedSession(
        counts=rasters[rows, :, None].astype(np.uint8),
        bin_size=0.001,
        regions=np.array(["IT"]),
        unit_ids=np.array([0]),
        session="zd7 neuron 0",
    )
    assert session.n_windows in (419, 420)


@pytest.mark.parametrize(
    ("file", "n_units", "n_spikes", "seconds"),
    [
        ("Maccione2014_P9_m1_r1_bursts_filtered", 806, 176_165, 1800),
        ("Xu2011_14APR2010R1-RINGER-37C", 56, None, 1301),
        ("Wong1993_Adult", 57, 15_510, 146),
    ],
)
def test_retinas_load_from_their_hdf5_files(shared_data, file, n_units, n_spikes, seconds):
    pytest.importorskip("h5py")
    path = shared_data / f"spikes/retina_waves/{file}.h5"
    recording = load_variables(path, times="spikes", counts="sCount", unit_columns_of={"electrode": "names"})
    assert recording.n_units == n_units
    assert n_spikes in (None, recording.n_spikes)
    assert abs(recording.times[-1] - recording.times[0] - seconds) < 0.05 * seconds
    assert recording.unit_table["electrode"].nunique() > 1


def test_retinal_waves_are_shared_by_near_units_alone(shared_data):
    h5py = pytest.importorskip("h5py")
    path = shared_data / "spikes/retina_waves/Maccione2014_P9_m1_r1_bursts_filtered.h5"
    recording = load_variables(path, times="spikes", counts="sCount")
    with h5py.File(path) as file:
        places = file["epos"][()].T
    busy = np.argsort(-recording.rates)[:150]
    chosen = recording.select_units(busy)
    places = places[np.sort(busy)]
    session = bin_windows(chosen, sliding_windows(chosen, 0.5), 0.5)
    correlation = np.corrcoef(session.counts[:, 0].T.astype(float))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    near = correlation[(distance > 0) & (distance < 150)].mean()
    far = correlation[distance > 1200].mean()
    assert near > 0.3
    assert abs(far) < 0.1


def test_an_nwb_file_of_nwb_2_4_loads(shared_data):
    pytest.importorskip("h5py")
    recording = load_nwb(shared_data / "spikes/nwb/A8604-211122.nwb")
    assert (recording.n_units, recording.n_spikes) == (3, 21_354)
    assert 1080 < recording.duration < 1095
    quality = unit_quality(recording)
    assert quality["isi_violations"].median() == pytest.approx(0.0035, abs=0.001)
    assert set(recording.regions) == {""}  # the file leaves its locations empty


@pytest.mark.parametrize("number", ["20000421", "20000613"])
def test_locust_units_answer_odors(shared_data, number):
    path = shared_data / f"spikes/locust_antennal_lobe/locust{number}.npz"
    recording = load_npz(path)
    assert recording.n_units == 9
    # Trials of an odor follow each other every 10 s, from time 0; the odor comes at 3 to 5 s.
    phase = recording.times % 10
    by_unit = [np.histogram(phase[recording.units == k], np.arange(0, 9, 0.5))[0] for k in range(9)]
    ratio = np.array([counts[6:10] / counts[2:6].mean() for counts in by_unit])
    assert (abs(ratio - 1).max(axis=1) > 0.3).sum() >= 8


def test_hand_and_spikes_of_a_reach_share_a_clock(shared_data):
    with np.load(shared_data / "spikes/mc_maze_trials/trial_748.npz") as file:
        clock, counts = file["timestamp"] - file["timestamp"][0], file["counts"]
        velocity = np.stack([file["hand_vel_x"], file["hand_vel_y"]], axis=1)
    hand = TimeSeries.from_arrays(clock, velocity, columns=("x", "y"))
    values, valid = hand.at(np.arange(0, clock[-1], 0.01))
    assert valid.all()
    assert np.linalg.norm(values, axis=1).max() == pytest.approx(979, rel=0.02)
    assert np.median(counts.sum(0) / (len(counts) * 1e-3)) == pytest.approx(1.6, abs=0.3)


def test_motor_cortex_predicts_hand_velocity(shared_data):
    with np.load(shared_data / "spikes/m1_reach_chewie.npz") as file:
        spikes, velocity = file["Yte"].astype(float), file["Xte"].astype(float)
    lagged = np.hstack([np.roll(spikes, lag, axis=0) for lag in range(3)])[3:]
    velocity = velocity[3:]
    folds = np.arange(len(lagged)) * 5 // len(lagged)
    predicted = np.zeros_like(velocity)
    for fold in range(5):
        train = folds != fold
        x, y = lagged[train] - lagged[train].mean(0), velocity[train] - velocity[train].mean(0)
        weights = np.linalg.solve(x.T @ x + 200 * np.eye(x.shape[1]), x.T @ y)
        predicted[~train] = (lagged[~train] - lagged[train].mean(0)) @ weights + velocity[train].mean(0)
    r2 = 1 - ((velocity - predicted) ** 2).sum(0) / ((velocity - velocity.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(r2, [0.61, 0.55], atol=0.05)


# ---- EEG, MEG and LFP


@pytest.fixture
def eeg(shared_data, tmp_path, monkeypatch):
    """The folder of EEG, with a cache of the test's own."""
    pytest.importorskip("torch")
    pytest.importorskip("mne")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    return shared_data / "eeg"


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
    assert halves(signal) > 0.8
    strength = np.abs(signal.mean(0)).mean(1)
    peak = windows.batch([0])["onset"].item() + strength[38:].argmax() / 128 + 38 / 128
    assert 0.2 < peak < 0.5
    names = windows.channels(0).names
    assert {"Fz", "Cz", "Oz"} <= set(names)
    assert np.isfinite(windows.channels(0).positions).all()


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
    extractor = MEEGExtractor()
    windows = data.with_extractor(extractor, events=["T1", "T2"], tmax=2.0)
    assert len(windows) == 19 - 4 or len(windows) >= 14
    assert windows.channels(0).names[0] == "FC5"
    values = extractor.values(data.run(0))[:, list(windows.channels(0).names).index("Oz")].astype(float)
    power = np.abs(np.fft.rfft(values * np.hanning(len(values)))) ** 2
    frequency = np.fft.rfftfreq(len(values), 1 / 128)
    band = {low: power[(frequency >= low) & (frequency < low + 2)].mean() for low in (4, 8, 20, 30)}
    assert band[8] > 2 * band[20] > 2 * band[30] * 0.5


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
    assert 0.1 < np.mean(by_person) < 0.6


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
    assert power[theta].max() > 10 * power[(frequency > 12) & (frequency < 14)].mean()
