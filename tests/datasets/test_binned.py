"""Binned sessions: counting, shapes, selection, and files of counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from neurokern.datasets import (
    BinnedSession,
    SpikeRecording,
    WindowedRecording,
    bin_windows,
    load_binned_npz,
    load_recording,
    sliding_windows,
)


def test_counts_are_windows_by_bins_by_units():
    recording = SpikeRecording.from_arrays([0.1, 0.3, 0.35, 1.9], [4, 4, 9, 4], regions=["CA1", "DG"])
    session = bin_windows(recording, np.array([[0.0, 1.0], [1.0, 2.0]]), bin_size=0.5)
    assert session.counts.dtype == np.uint8
    assert session.counts.tolist() == [[[2, 1], [0, 0]], [[0, 0], [1, 0]]]
    assert session.unit_ids.tolist() == [4, 9]
    assert session.regions.tolist() == ["CA1", "DG"]
    assert session.region_index[0].tolist() == [0, 1]
    assert session.region_index[1] == ("CA1", "DG")


def test_spike_on_an_edge_belongs_to_the_later_bin_and_window():
    recording = SpikeRecording.from_arrays([0.3, 1.0], [0, 0], stop=2.0)
    session = bin_windows(recording, sliding_windows(recording, 1.0), bin_size=0.1)
    assert np.argwhere(session.counts).tolist() == [[0, 3, 0], [1, 0, 0]]


def test_spikes_in_overlapping_windows_count_in_each():
    recording = SpikeRecording.from_arrays([0.75], [0], stop=2.0)
    session = bin_windows(recording, sliding_windows(recording, 1.0, 0.5), bin_size=1.0)
    assert session.counts.ravel().tolist() == [1, 1, 0]


def test_counts_above_255_get_a_wider_type():
    times = np.linspace(0.1, 0.9, 300)
    recording = SpikeRecording.from_arrays(times, np.zeros(300, dtype=int), start=0.0, stop=1.0)
    session = bin_windows(recording, [[0.0, 1.0]], bin_size=1.0)
    assert session.counts.dtype == np.uint16
    assert session.counts.item() == 300


def test_recording_without_spikes_gives_zeros():
    recording = SpikeRecording.from_arrays([], [], unit_ids=[0, 1], stop=2.0)
    session = bin_windows(recording, sliding_windows(recording, 1.0), bin_size=0.5)
    assert session.counts.shape == (2, 2, 2)
    assert not session.counts.any()


def test_unit_that_never_fires_keeps_its_column(random_recording):
    recording = SpikeRecording.from_arrays([0.5], [1], unit_ids=[0, 1, 2])
    assert bin_windows(recording, [[0.0, 1.0]], 1.0).counts.tolist() == [[[0, 1, 0]]]


@pytest.mark.parametrize(
    ("windows", "bin_size", "message"),
    [
        ([[0.0, 1.0]], 0, "bin_size must be a finite number above 0"),
        ([[0.0, 1.0]], -0.1, "bin_size must be a finite number above 0"),
        ([[0.0, 1.0]], np.nan, "bin_size must be a finite number above 0"),
        ([[0.0, 1.0]], 0.3, "window length, 1 s, must be a multiple of bin_size, got 0.3 s"),
        ([[0.0, 1.0]], 2.0, "must be a multiple of bin_size"),
        ([[0.0, 1.0], [1.0, 3.0]], 0.5, "must have one length, got 1 to 2 s"),
        (np.zeros((0, 2)), 0.5, "there are no windows"),
        ([0.0, 1.0], 0.5, r"must have shape \(n_windows, 2\), got \(2,\)"),
        ([[np.nan, 1.0]], 0.5, "must be finite"),
        ([[1.0, 0.0]], 0.5, "stop after they start"),
        ([[19.5, 20.5], [0.0, 1.0]], 0.5, "1 of 2 windows reach beyond the recording, 0 to 20 s"),
    ],
)
@pytest.mark.parametrize("make", [bin_windows, WindowedRecording])
def test_bad_windows_are_refused(random_recording, make, windows, bin_size, message):
    with pytest.raises(ValueError, match=message):
        make(random_recording(), windows, bin_size)


def test_lazy_twin_reads_the_same_counts(random_recording):
    recording = random_recording()
    windows = sliding_windows(recording, 1.0, 0.3)
    trials = pd.DataFrame({"number": np.arange(len(windows))})
    binned, lazy = (
        bin_windows(recording, windows, 0.05, trials),
        WindowedRecording(recording, windows, 0.05, trials),
    )
    chosen = [7, 0, 7, 12]
    np.testing.assert_array_equal(lazy.read(chosen), binned.read(chosen))
    assert lazy.read(chosen).dtype == binned.read(chosen).dtype == np.float32
    np.testing.assert_array_equal(lazy.select(chosen).bin().counts, binned.select(chosen).counts)
    assert lazy.select(chosen).trials["number"].tolist() == chosen
    for name in ("n_windows", "n_bins", "n_units", "session", "subject", "notes", "bin_size"):
        assert getattr(lazy, name) == getattr(binned, name)
    assert lazy.region_index[1] == binned.region_index[1]


def test_trials_must_match_the_windows(random_recording):
    for make in (bin_windows, WindowedRecording):
        with pytest.raises(ValueError, match="2 windows, but 1 rows of trials"):
            make(random_recording(), [[0.0, 1.0], [1.0, 2.0]], 0.5, pd.DataFrame({"a": [1]}))


def test_selection_takes_windows_and_their_labels(random_session):
    session = random_session(
        trials=pd.DataFrame({"side": list("abcdefghij")}), windows=np.arange(20.0).reshape(10, 2)
    )
    for rows in ([3, 1], np.array([3, 1]), [3, 1, 3], slice(2, 5), np.arange(10) % 2 == 0):
        chosen = session.select(rows)
        np.testing.assert_array_equal(chosen.counts, session.counts[rows])
        np.testing.assert_array_equal(chosen.windows, session.windows[rows])
        assert chosen.trials["side"].tolist() == np.array(list("abcdefghij"))[rows].tolist()
        assert chosen.trials.index.tolist() == list(range(len(chosen)))


def test_selection_takes_units_in_the_order_given(random_session):
    session = random_session()
    chosen = session.select_units([2, 0])
    np.testing.assert_array_equal(chosen.counts, session.counts[:, :, [2, 0]])
    assert chosen.unit_ids.tolist() == [2, 0]
    assert session.select_units(np.array([True, False, False])).n_units == 1


def test_wider_bins_hold_the_sum(random_session):
    session = random_session()
    wide = session.rebin(2)
    np.testing.assert_array_equal(wide.counts, session.counts[:, ::2] + session.counts[:, 1::2])
    assert wide.bin_size == pytest.approx(0.1)
    np.testing.assert_array_equal(session.rebin(1).counts, session.counts)


def test_wider_bins_do_not_wrap():
    full = BinnedSession(
        counts=np.full((1, 4, 1), 255, dtype=np.uint8),
        bin_size=0.1,
        regions=[""],
        unit_ids=np.arange(1),
        session="s",
    )
    assert full.rebin(4).counts.item() == 1020
    long = BinnedSession(
        counts=np.full((1, 300, 1), 255, dtype=np.uint8),
        bin_size=0.1,
        regions=[""],
        unit_ids=np.arange(1),
        session="s",
    )
    assert long.rebin(300).counts.item() == 76_500


@pytest.mark.parametrize("factor", [0, -2, 3, 1.5])
def test_factor_must_divide_the_bins(random_session, factor):
    with pytest.raises(ValueError, match="factor must divide the 4 bins"):
        random_session().rebin(factor)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("counts", np.zeros((2, 3), dtype=np.uint8), "must have shape"),
        ("counts", np.full((1, 1, 2), -1), "must not be negative"),
        ("counts", np.full((1, 1, 2), 0.5), "must be whole numbers"),
        ("counts", np.full((1, 1, 2), np.nan), "must not be negative or NaN"),
        ("counts", np.full((1, 1, 2), 2**40), r"must be below 2\*\*32"),
        ("counts", np.full((1, 1, 2), "a"), "must be integers"),
        ("bin_size", 0.0, "bin_size must be a finite number above 0"),
        ("regions", ["a"], r"regions must have shape \(2,\), got \(1,\)"),
        ("unit_ids", np.arange(3), r"unit_ids must have shape \(2,\), got \(3,\)"),
        ("windows", np.zeros((3, 2)), r"windows must have shape \(1, 2\)"),
        ("windows", [[np.nan, 1.0]], "windows must be finite and stop after they start"),
        ("windows", [[1.0, 1.0]], "windows must be finite and stop after they start"),
        ("trials", pd.DataFrame({"a": [1, 2]}), "1 windows, but 2 rows of trials"),
    ],
)
def test_session_checks_its_fields(field, value, message):
    fields = {
        "counts": np.zeros((1, 1, 2), dtype=np.uint8),
        "bin_size": 0.1,
        "regions": ["a", "b"],
        "unit_ids": np.arange(2),
        "session": "s",
    }
    with pytest.raises(ValueError, match=message):
        BinnedSession(**{**fields, field: value})


def test_signed_whole_counts_take_the_smallest_type():
    session = BinnedSession(
        counts=np.array([[[300, 2]]]), bin_size=0.1, regions=["a", ""], unit_ids=np.arange(2), session="s"
    )
    assert session.counts.dtype == np.uint16
    assert session.region_index[0].tolist() == [0, -1]


def steinmetz(path, **changes):
    arrays = {
        "counts": np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4),  # trials, neurons, bins
        "bin_size_s": 0.01,
        "first_bin_time_s": [5.0, 7.0],
        "brain_area": ["VISp", "root", "CA1"],
        "contrast_left": np.array([0.5, 1.0], dtype=np.float32),
        "feedback": np.array([1, -1], dtype=np.int8),
        "mouse": "Cori",
        "date": "2016-12-14",
    }
    np.savez(path, **{name: value for name, value in {**arrays, **changes}.items() if value is not None})
    return path


def test_steinmetz_layout_puts_time_before_units(tmp_path):
    session = load_binned_npz(steinmetz(tmp_path / "session01.npz"))
    assert session.counts.shape == (2, 4, 3)
    assert session.counts[0, :, 1].tolist() == [4, 5, 6, 7]
    np.testing.assert_allclose(session.windows, [[5.0, 5.04], [7.0, 7.04]])
    assert list(session.trials.columns) == ["first_bin_time_s", "contrast_left", "feedback"]
    assert (session.session, session.subject, session.bin_size) == ("session01", "Cori", 0.01)
    assert isinstance(load_recording(tmp_path / "session01.npz"), BinnedSession)


def test_axis_as_long_as_the_regions_is_that_of_the_units(tmp_path):
    path = steinmetz(tmp_path / "s.npz", brain_area=["a", "b", "c", "d"])
    assert load_binned_npz(path).counts.shape == (2, 3, 4)


def test_order_of_equal_axes_is_assumed_and_said_unless_given(tmp_path):
    path = steinmetz(tmp_path / "s.npz", counts=np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    session = load_binned_npz(path)
    assert session.counts[0, :, 0].tolist() == [0, 1, 2]
    assert "windows units bins" in session.notes[0]
    given = load_binned_npz(path, axes="windows bins units")
    assert given.counts[0, :, 0].tolist() == [0, 3, 6]
    assert given.notes == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": None}, r"needs a 3-D array 'counts'; the file holds"),
        ({"counts": np.zeros((3, 4), dtype=np.uint8)}, "needs a 3-D array"),
        ({"bin_size_s": None}, "pass bin_size= in seconds"),
        ({"bin_size_s": 0.0}, "bin_size must be a finite number above 0"),
        ({"brain_area": ["a"] * 9}, r"9 regions fit no axis of counts, \(2, 3, 4\)"),
    ],
)
def test_files_of_counts_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_binned_npz(steinmetz(tmp_path / "s.npz", **changes))


def test_unknown_axes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="axes must be one of"):
        load_binned_npz(steinmetz(tmp_path / "s.npz"), axes="bins first")


def test_saved_session_loads_the_same(tmp_path, random_session):
    session = random_session(
        n_bins=3,  # as many as units: only the layout's mark tells the axes apart
        trials=pd.DataFrame({"side": list("abcdefghij"), "contrast": np.linspace(0, 1, 10)}),
        windows=np.arange(20.0).reshape(10, 2),
        subject="m",
        notes=("a note",),
    )
    session.save(tmp_path / "s.npz")
    loaded = load_binned_npz(tmp_path / "s.npz")
    for name in ("counts", "regions", "unit_ids", "windows"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(session, name))
    for name in ("bin_size", "session", "subject", "notes"):
        assert getattr(loaded, name) == getattr(session, name)
    assert_frame_equal(loaded.trials, session.trials, check_dtype=False)


def test_session_without_tables_loads_the_same(tmp_path, random_session):
    random_session().save(tmp_path / "s.npz")
    loaded = load_binned_npz(tmp_path / "s.npz")
    assert (loaded.windows, loaded.trials, loaded.subject, loaded.notes) == (None, None, None, ())


@pytest.mark.parametrize(
    "read", [lambda s: s.read([0.7]), lambda s: s.select([0.7]), lambda s: s.select_units([0.7])]
)
def test_fractions_are_no_indices(read):
    session = BinnedSession(
        counts=np.ones((2, 3, 2), np.uint8), bin_size=0.1, regions=["a", "b"], unit_ids=[3, 5], session="s"
    )
    with pytest.raises(TypeError, match="indices must be integers or a mask"):
        read(session)
