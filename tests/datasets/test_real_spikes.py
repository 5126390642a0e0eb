"""Real spikes hold, through this layer, what their descriptions state."""

import numpy as np
import pytest

from neurokern.datasets import (
    BinnedSession,
    SpikeRecording,
    TimeSeries,
    bin_windows,
    load_npz,
    load_nwb,
    load_recording,
    load_variables,
    sliding_windows,
    unit_quality,
)


def interval_variation(recording, at_least=20):
    """Coefficient of variation of the intervals of each unit that has this many spikes."""
    trains = [recording.times[recording.units == k] for k in range(recording.n_units)]
    intervals = [np.diff(train) for train in trains if len(train) > at_least]
    return np.array([own.std() / own.mean() for own in intervals])


def held_out_scores(x, y, folds=5):
    """Predictions of each row by dual ridge on the other folds, float64."""
    predicted, fold = np.zeros(len(y)), np.arange(len(y)) % folds
    for k in range(folds):
        train = fold != k
        mean, scale = x[train].mean(0), x[train].std(0) + 1e-6
        known, new = (x[train] - mean) / scale, (x[~train] - mean) / scale
        gram = known @ known.T
        weights = np.linalg.solve(
            gram + np.trace(gram) / len(gram) * np.eye(len(gram)), y[train] - y[train].mean()
        )
        predicted[~train] = new @ (known.T @ weights)
    return predicted


def auc(scores, positive):
    ranks = scores.argsort().argsort() + 1.0
    n = positive.sum()
    return (ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n))


def test_sessions_of_steinmetz_have_the_rates_and_variability_that_are_stated(shared_data):
    files = sorted((shared_data / "spikes/steinmetz2019").glob("*.npz"))
    sessions = [load_recording(file) for file in files]
    rates = [session.counts.mean(dtype=float) / session.bin_size for session in sessions]
    assert (round(min(rates), 1), round(max(rates), 1)) == (1.7, 6.1)
    for session in sessions:
        totals = session.counts.sum(1, dtype=float)
        busy = totals[:, totals.mean(0) > 0.4]  # above 1 Hz
        assert 1.2 < np.median(busy.var(0) / busy.mean(0)) < 2.2
    assert max(session.counts.max() for session in sessions) == 9
    assert (min(s.n_windows for s in sessions), max(s.n_windows for s in sessions)) == (114, 404)
    assert (min(s.n_units for s in sessions), max(s.n_units for s in sessions)) == (565, 1769)
    assert {session.subject for session in sessions} == {"Cori", "Forssmann", "Lederberg"}


def test_sides_and_rewards_are_read_from_the_sessions_of_steinmetz(shared_data):
    sides, rewards = [], []
    for file in sorted((shared_data / "spikes/steinmetz2019").glob("*.npz")):
        session = load_recording(file)
        features = session.counts.reshape(session.n_windows, 4, 10, -1).sum(2, dtype=float)
        features = np.sqrt(features.reshape(session.n_windows, -1))
        side = (session.trials["contrast_right"] - session.trials["contrast_left"]).to_numpy(float)
        reward = session.trials["feedback"].to_numpy(float)
        lateral = side != 0
        sides.append(auc(held_out_scores(features[lateral], np.sign(side[lateral])), side[lateral] > 0))
        rewards.append(auc(held_out_scores(features, reward), reward > 0))
    assert 0.6 < min(sides) < 0.75
    assert np.median(sides) == pytest.approx(0.95, abs=0.02)
    assert max(sides) == pytest.approx(0.98, abs=0.015)
    assert 0.55 < min(rewards) < max(rewards) < 0.82


@pytest.mark.parametrize("number", ["03", "12"])
def test_visual_cortex_answers_60_ms_after_a_stimulus_on_the_right(shared_data, number):
    session = load_recording(shared_data / f"spikes/steinmetz2019/session{number}.npz")
    left, right = (session.trials[f"contrast_{side}"].to_numpy() for side in ("left", "right"))
    strong = session.counts[(right > 0.4) & (left == 0)][:, :, session.regions == "VISp"].mean((0, 2))
    assert strong[6:9].min() > 1.4 * strong[:6].max()
    assert strong[6:9].mean() > 1.8 * strong[:6].mean()


def test_units_of_ibl_fire_as_stated(shared_data):
    recording = load_recording(shared_data / "spikes/ibl_alf_120s")
    assert (recording.n_units, recording.n_spikes, recording.duration) == (289, 124_905, 120.0)
    ids = recording.unit_table["id"]
    assert (ids.min(), ids.max()) == (0, 499)
    assert (np.diff(recording.times) >= 0).all()
    assert np.median(interval_variation(recording)) == pytest.approx(1.39, abs=0.03)
    np.testing.assert_allclose(np.percentile(recording.rates, [5, 95]), [0.02, 15.8], atol=0.05)
    assert unit_quality(recording)["isi_violations"].median() == 0


def test_ca1_units_tell_the_place_on_the_track(shared_data):
    path = shared_data / "spikes/hippocampus_ca1/linear_track.npz"
    recording = load_variables(
        path,
        times="spike_times_s",
        units="spike_units",
        series={"position": ("pos_t_s", ["pos_x_px", "pos_y_px"])},
    )
    assert (recording.n_units, recording.n_spikes) == (31, 28_829)
    assert (recording.start, recording.stop) == (4397.0, 6366.0)
    position = recording.series["position"]
    assert position.columns == ("pos_x_px", "pos_y_px")
    bin_size = 0.1
    session = bin_windows(recording, sliding_windows(recording, bin_size), bin_size)
    place, valid = position.in_windows(session.windows, bin_size)
    place, valid, counts = place[:, 0], valid[:, 0], session.counts[:, 0].astype(float)
    speed = np.linalg.norm(np.gradient(place, axis=0), axis=1) / bin_size
    moving = valid & (speed > 20)
    along = place[moving] - place[moving].mean(0)
    along = along @ np.linalg.svd(along, full_matrices=False)[2][0]  # pixels along the track
    bins = np.clip(((along - along.min()) / np.ptp(along) * 40).astype(int), 0, 39)
    occupancy = np.bincount(bins, minlength=40) / len(bins)
    total = np.zeros((40, recording.n_units))
    np.add.at(total, bins, counts[moving])
    rate = total / np.maximum(np.bincount(bins, minlength=40), 1)[:, None]
    ratio = rate / np.maximum((occupancy[:, None] * rate).sum(0), 1e-12)
    information = (occupancy[:, None] * ratio * np.log2(np.where(ratio > 0, ratio, 1))).sum(0)
    assert np.median(information[counts[moving].any(0)]) == pytest.approx(1.6, abs=0.2)  # bits per spike
    assert unit_quality(recording)["isi_violations"].median() < 5e-4
    assert np.median(recording.rates) == pytest.approx(0.25, abs=0.005)
    assert np.median(interval_variation(recording)) == pytest.approx(2.3, abs=0.03)


def test_it_neurons_are_selective_for_objects(shared_data):
    from scipy import stats

    with np.load(shared_data / "spikes/macaque_it_zd7/zd7_rasters.npz", allow_pickle=False) as file:
        rasters = np.unpackbits(file["raster_packed"], axis=1)[:, : int(file["n_bins"])]
        neuron, stimulus = file["row_neuron"], file["row_stimulus"]
    # Neurons were recorded one after another: a session each, on its own clock of one second per trial.
    late = rasters[:, 600:900].sum(1)  # 100 to 400 ms
    selective = [
        stats.f_oneway(*[late[(neuron == n) & (stimulus == s)] for s in range(7)]).pvalue < 0.01
        for n in range(132)
    ]
    assert np.mean(selective) == pytest.approx(0.80, abs=0.02)
    trial, bin_ = np.nonzero(rasters)
    intervals = np.bincount(np.diff(bin_)[np.diff(trial) == 0])
    assert intervals[2] / intervals[1] == pytest.approx(4.5, abs=0.5)  # the refractory period
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
    ("file", "n_units", "n_spikes", "seconds", "variation"),
    [
        ("Maccione2014_P9_m1_r1_bursts_filtered", 806, 176_165, 1800, 2.9),
        ("Xu2011_14APR2010R1-RINGER-37C", 56, 19_813, 1301, 3.7),
        ("Wong1993_Adult", 57, 15_510, 146, 2.5),
    ],
)
def test_retinas_load_from_their_hdf5_files(shared_data, file, n_units, n_spikes, seconds, variation):
    pytest.importorskip("h5py")
    path = shared_data / f"spikes/retina_waves/{file}.h5"
    recording = load_variables(path, times="spikes", counts="sCount", unit_columns_of={"electrode": "names"})
    assert (recording.n_units, recording.n_spikes) == (n_units, n_spikes)
    assert recording.duration == pytest.approx(seconds, abs=1)
    assert recording.unit_table["electrode"].nunique() > 1
    assert np.median(interval_variation(recording, 50)) == pytest.approx(variation, abs=0.05)


def test_retinal_waves_are_shared_by_near_units_alone(shared_data):
    h5py = pytest.importorskip("h5py")
    path = shared_data / "spikes/retina_waves/Maccione2014_P9_m1_r1_bursts_filtered.h5"
    recording = load_variables(path, times="spikes", counts="sCount")
    with h5py.File(path) as file:
        places = file["epos"][()].T
    session = bin_windows(recording, sliding_windows(recording, 0.5), 0.5)
    correlation = np.corrcoef(session.counts[:, 0].T.astype(float))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    near = correlation[(distance > 0) & (distance < 150)].mean()
    far = correlation[distance > 1200].mean()
    assert near == pytest.approx(0.45, abs=0.03)
    assert abs(far) < 0.01


def test_an_nwb_file_of_nwb_2_4_loads(shared_data):
    h5py = pytest.importorskip("h5py")
    path = shared_data / "spikes/nwb/A8604-211122.nwb"
    recording = load_nwb(path)
    assert (recording.n_units, recording.n_spikes) == (3, 21_354)
    assert recording.duration == pytest.approx(1087, abs=1)
    assert unit_quality(recording)["isi_violations"].median() == pytest.approx(0.0035, abs=5e-5)
    assert set(recording.regions) == {""}  # the file leaves its locations empty
    with h5py.File(path) as file:
        assert file["general/extracellular_ephys/electrodes/id"].shape == (383,)


@pytest.mark.parametrize(
    ("number", "n_odors", "recorded", "violations"),
    [("20000421", 13, 8.92, 0.007), ("20000613", 5, 10.0, 0.0005)],
)
def test_locust_units_answer_odors_each_on_a_clock_of_its_own(
    shared_data, number, n_odors, recorded, violations
):
    path = shared_data / f"spikes/locust_antennal_lobe/locust{number}.npz"
    together = load_npz(path)
    assert together.n_units == 9
    # The trap: times begin at 0 for every odor, so what the loader calls one recording is `n_odors` of them.
    assert any("spike_stimulus" in note for note in together.notes)
    assert unit_quality(together)["isi_violations"].median() > 2.5 * violations
    with np.load(path, allow_pickle=False) as file:
        times, units, odor = file["spike_times_s"], file["spike_units"], file["spike_stimulus"]
    odors = [
        SpikeRecording.from_arrays(times[odor == k], units[odor == k], unit_ids=np.unique(units), start=0.0)
        for k in np.unique(odor)
    ]
    assert len(odors) == n_odors
    intervals = np.array([np.maximum(np.bincount(own.units, minlength=9) - 1, 0) for own in odors])
    share = np.array([unit_quality(own)["isi_violations"].fillna(0) for own in odors])
    by_unit = (share * intervals).sum(0) / intervals.sum(0)
    assert np.median(by_unit) == pytest.approx(violations, rel=0.15)
    seconds = sum(np.unique(own.times // 10).size * recorded for own in odors)
    assert 1.0 < np.percentile(intervals.sum(0) / seconds, 15) < np.median(intervals.sum(0) / seconds) < 10.0
    # Trials follow each other every 10 s; the odor comes at 3 to 5 s.
    phase = together.times % 10
    assert phase.max() < recorded + 0.01
    histograms = [np.histogram(phase[together.units == k], np.arange(0, 9, 0.5))[0] for k in range(9)]
    ratio = np.array([counts[6:10] / counts[2:6].mean() for counts in histograms])
    assert (abs(ratio - 1).max(axis=1) > 0.3).sum() >= 8


def test_hand_and_spikes_of_a_reach_share_a_clock(shared_data):
    with np.load(shared_data / "spikes/mc_maze_trials/trial_748.npz", allow_pickle=False) as file:
        clock, counts = file["timestamp"] - file["timestamp"][0], file["counts"]
        velocity = np.stack([file["hand_vel_x"], file["hand_vel_y"]], axis=1)
    assert counts.shape == (3236, 182)
    assert counts.max() == 1
    hand = TimeSeries.from_arrays(clock, velocity, columns=("x", "y"))
    values, valid = hand.at(np.arange(0, clock[-1], 0.001))
    assert valid.all()
    assert np.linalg.norm(values, axis=1).max() == pytest.approx(979, abs=1)
    assert np.median(counts.sum(0) / (len(counts) * 1e-3)) == pytest.approx(1.6, abs=0.1)


def test_motor_cortex_predicts_hand_velocity(shared_data):
    with np.load(shared_data / "spikes/m1_reach_chewie.npz", allow_pickle=False) as file:
        counts, velocity = file["Yte"].astype(float), file["Xte"].astype(float)
        assert (file["Ytr"].shape, counts.shape) == ((1200, 71), (1818, 71))
    lagged = np.concatenate([np.roll(counts, k, axis=0) for k in range(3)], axis=1)
    lagged[:2] = 0  # what would come from the end of the recording
    block, predicted = np.arange(len(counts)) * 5 // len(counts), np.zeros_like(velocity)
    for k in range(5):
        train = block != k
        x, y = lagged[train] - lagged[train].mean(0), velocity[train] - velocity[train].mean(0)
        weights = np.linalg.solve(x.T @ x + 200 * np.eye(x.shape[1]), x.T @ y)
        predicted[~train] = (lagged[~train] - lagged[train].mean(0)) @ weights + velocity[train].mean(0)
    error = ((velocity - predicted) ** 2).sum(0) / ((velocity - velocity.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(1 - error, [0.61, 0.55], atol=0.02)
