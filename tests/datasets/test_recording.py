"""Recordings: what is repaired is said, what cannot be is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.datasets import SpikeRecording


def test_unsorted_times_are_sorted_and_noted():
    recording = SpikeRecording.from_arrays([0.3, 0.1, 0.2], [0, 1, 2])
    assert recording.times.tolist() == [0.1, 0.2, 0.3]
    assert recording.units.tolist() == [1, 2, 0]
    assert "sorted the spikes: their times were not in order" in recording.notes


def test_spikes_at_the_same_time_keep_their_order():
    assert SpikeRecording.from_arrays([0.5, 0.2, 0.5], [2, 0, 1]).units.tolist() == [0, 2, 1]


def test_nan_infinite_and_negative_times_are_dropped_and_counted():
    recording = SpikeRecording.from_arrays([0.1, np.nan, np.inf, -0.2, 0.4], [0, 0, 1, 1, 1])
    assert recording.times.tolist() == [0.1, 0.4]
    assert recording.units.tolist() == [0, 1]
    assert "dropped 3 spikes with a NaN, infinite or negative time" in recording.notes


def test_negative_ids_are_dropped_and_counted():
    recording = SpikeRecording.from_arrays([0.1, 0.2, 0.3], [4, -1, 4])
    assert recording.unit_table["id"].tolist() == [4]
    assert recording.n_spikes == 2
    assert "dropped 1 spikes with a negative unit id" in recording.notes


def test_ids_with_gaps_are_numbered_and_kept_in_the_table():
    recording = SpikeRecording.from_arrays([0.1, 0.2, 0.3], [900, 7, 900])
    assert recording.units.tolist() == [1, 0, 1]
    assert recording.units.dtype == np.int32
    assert recording.unit_table["id"].tolist() == [7, 900]
    assert any("numbered 2 units" in note for note in recording.notes)


def test_huge_ids_need_no_table_of_their_size():
    recording = SpikeRecording.from_arrays([0.1, 0.2], [2**62, 5])
    assert recording.unit_table["id"].tolist() == [5, 2**62]
    assert recording.units.tolist() == [1, 0]


def test_clean_input_leaves_no_notes():
    assert SpikeRecording.from_arrays([0.1, 0.2], [0, 1]).notes == ()


def test_units_that_never_fire_keep_their_row():
    recording = SpikeRecording.from_arrays([0.1, 0.2], [2, 2], unit_ids=[0, 2, 5], regions=["a", "b", "c"])
    assert recording.n_units == 3
    assert recording.regions.tolist() == ["a", "b", "c"]
    assert recording.rates.tolist() == [0.0, 2.0, 0.0]
    assert any("2 of 3 units never fire" in note for note in recording.notes)


def test_rows_of_the_table_follow_the_ids_not_the_order_given():
    recording = SpikeRecording.from_arrays([0.1], [3], unit_ids=[9, 3], depths=[90.0, 30.0])
    assert recording.unit_table["id"].tolist() == [3, 9]
    assert recording.unit_table["depth"].tolist() == [30.0, 90.0]


def test_empty_recording_is_a_recording_without_units():
    recording = SpikeRecording.from_arrays([], [])
    assert (recording.n_spikes, recording.n_units, recording.duration) == (0, 0, 0.0)
    assert "the recording has no spikes" in recording.notes


def test_recording_whose_spikes_are_all_unusable_is_empty():
    assert SpikeRecording.from_arrays([np.nan, -1.0], [0, 0]).n_spikes == 0


def test_bounds_are_the_whole_seconds_around_the_spikes():
    recording = SpikeRecording.from_arrays([10.2, 12.0], [0, 0])
    assert (recording.start, recording.stop) == (10.0, 13.0)


def test_spikes_outside_the_bounds_given_are_refused():
    with pytest.raises(ValueError, match="lie outside start=0, stop=1 s"):
        SpikeRecording.from_arrays([0.5, 1.5], [0, 0], start=0.0, stop=1.0)


def test_integer_times_need_a_sampling_rate():
    with pytest.raises(ValueError, match="pass sfreq="):
        SpikeRecording.from_arrays([30, 60], [0, 0])
    assert SpikeRecording.from_arrays([30, 60], [0, 0], sfreq=30.0).times.tolist() == [1.0, 2.0]


def test_sampling_rate_with_times_in_seconds_is_refused():
    with pytest.raises(ValueError, match="sfreq is for integer samples"):
        SpikeRecording.from_arrays([0.5], [0], sfreq=30_000.0)


@pytest.mark.parametrize("sfreq", [0, -1.0, np.nan, np.inf])
def test_sampling_rate_must_be_positive(sfreq):
    with pytest.raises(ValueError, match="sfreq must be a finite number above 0"):
        SpikeRecording.from_arrays([1, 2], [0, 0], sfreq=sfreq)


def test_whole_floats_are_accepted_as_ids():
    assert SpikeRecording.from_arrays([0.1, 0.2], [3.0, 1.0]).unit_table["id"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0.5, 1.0], "must be whole numbers"),
        ([np.nan, 1.0], "must be whole numbers"),
        (["a", "b"], "must be integers"),
        (np.array([2**63, 1], dtype=np.uint64), "64-bit"),
        ([[0, 1], [2, 3]], "must be 1-D"),
        ([0], "2 spike times, but 1 unit ids"),
    ],
)
def test_bad_ids_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        SpikeRecording.from_arrays([0.1, 0.2], ids)


def test_id_without_a_row_is_refused():
    with pytest.raises(ValueError, match=r"1 unit ids of spikes have no row .*are \[8\]"):
        SpikeRecording.from_arrays([0.1, 0.2], [1, 8], unit_ids=[0, 1])


def test_doubled_ids_of_the_table_are_refused():
    with pytest.raises(ValueError, match="must be distinct"):
        SpikeRecording.from_arrays([0.1], [1], unit_ids=[1, 1])


def test_regions_and_ids_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 unit_ids, but 3 regions"):
        SpikeRecording.from_arrays([0.1], [1], unit_ids=[0, 1], regions=["a", "b", "c"])


def test_regions_without_ids_belong_to_row_numbers_if_there_are_more_of_them():
    recording = SpikeRecording.from_arrays([0.1], [1], regions=["a", "b", "c"])
    assert recording.unit_table["id"].tolist() == [0, 1, 2]


def test_missing_regions_are_empty_strings_and_missing_depths_nan():
    table = SpikeRecording.from_arrays([0.1, 0.2], [0, 1], regions=["CA1", None]).unit_table
    assert table["region"].tolist() == ["CA1", ""]
    assert np.isnan(table["depth"]).all()


def test_constructor_refuses_what_from_arrays_repairs():
    table = pd.DataFrame({"id": [0], "region": [""], "depth": [np.nan]})
    fields = {"unit_table": table, "session": "s", "start": 0.0, "stop": 1.0}
    one = np.zeros(1, dtype=np.int32)
    for times in ([0.5, 0.2], [0.5, np.nan]):
        with pytest.raises(ValueError, match="must be sorted and finite"):
            SpikeRecording(times=np.array(times), units=np.zeros(2, dtype=np.int32), **fields)
    with pytest.raises(ValueError, match="must be rows of unit_table"):
        SpikeRecording(times=np.array([0.5]), units=one + 1, **fields)
    with pytest.raises(ValueError, match="lie outside"):
        SpikeRecording(times=np.array([2.0]), units=one, **fields)


def test_selection_by_rate_region_and_query_is_noted():
    recording = SpikeRecording.from_arrays(
        [0.1, 0.2, 0.3, 0.4], [0, 1, 1, 2], regions=["CA1", "CA1", "DG"], depths=[10.0, 20.0, 30.0], stop=1.0
    )
    chosen = recording.select_units(min_rate=2.0)
    assert chosen.unit_table["id"].tolist() == [1]
    assert (chosen.times.tolist(), chosen.units.tolist()) == ([0.2, 0.3], [0, 0])
    assert chosen.notes[-1] == "kept 1 of 3 units: min_rate=2.0"
    assert recording.select_units(regions=["CA1"]).n_units == 2
    assert recording.select_units(query="depth >= 20").unit_table["id"].tolist() == [1, 2]
    assert recording.select_units([2, 0]).unit_table["id"].tolist() == [0, 2]
    assert recording.select_units(np.array([False, True, False])).units.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_rate": 1e9}, "no unit of 2 is left by min_rate"),
        ({"regions": ["CA9"]}, r"no unit lies in \['CA9'\]; the regions are"),
        ({"query": "nosuch > 1"}, "cannot evaluate query"),
        ({"query": "depth + 1"}, "one truth value per unit"),
        ({"units": [5]}, "rows below 2"),
        ({"units": []}, "no unit of 2 is left"),
    ],
)
def test_impossible_selections_are_refused(arguments, message):
    recording = SpikeRecording.from_arrays([0.1, 0.2], [0, 1], regions=["a", "b"])
    with pytest.raises(ValueError, match=message):
        recording.select_units(**arguments)


TIMES = st.floats(allow_nan=True, allow_infinity=True, width=64, min_value=None, max_value=None)
SPIKES = st.lists(st.tuples(st.one_of(st.floats(-1, 10), TIMES), st.integers(-3, 2**40)), max_size=40)


@given(SPIKES)
def test_normalization_keeps_exactly_the_usable_spikes(spikes):
    times, ids = [t for t, _ in spikes], [i for _, i in spikes]
    recording = SpikeRecording.from_arrays(np.array(times, dtype=float), np.array(ids, dtype=np.int64))
    usable = sorted((t, i) for t, i in spikes if np.isfinite(t) and t >= 0 and i >= 0)
    found = zip(
        recording.times.tolist(), recording.unit_table["id"].to_numpy()[recording.units].tolist(), strict=True
    )
    assert sorted(found) == usable
    assert recording.unit_table["id"].tolist() == sorted({i for _, i in usable})
    assert recording.start <= recording.stop
    n_dropped = sum(int(note.split()[1]) for note in recording.notes if note.startswith("dropped"))
    assert n_dropped == len(spikes) - len(usable)


@given(SPIKES)
def test_normalization_of_normalized_spikes_changes_nothing(spikes):
    once = SpikeRecording.from_arrays(np.array([t for t, _ in spikes], dtype=float), [i for _, i in spikes])
    again = SpikeRecording.from_arrays(once.times, once.units, unit_ids=np.arange(once.n_units))
    np.testing.assert_array_equal(again.times, once.times)
    np.testing.assert_array_equal(again.units, once.units)
