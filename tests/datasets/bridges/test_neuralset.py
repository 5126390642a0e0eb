"""Recordings of neuralset's tables of events; the package itself is asked where it is installed.

neuralset 0.4 wants Python 3.12; on 3.11 its code runs after
``pip install neuralset exca --ignore-requires-python --no-deps``.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
mne = pytest.importorskip("mne")

from neurokern.datasets import FMRIWindows, MEEGWindows, SpikeRecording, trial_windows  # noqa: E402
from neurokern.datasets.bridges import from_neuralset  # noqa: E402
from neurokern.extractors import FMRIVoxelExtractor, MEEGExtractor  # noqa: E402


def _row(kind, start, duration, **more):
    return {"type": kind, "timeline": "t1", "start": start, "duration": duration, **more}


@pytest.fixture
def eeg(tmp_path):
    info = mne.create_info(["Fz", "Cz"], 100.0, "eeg", verbose="ERROR")
    values = np.random.default_rng(0).normal(size=(2, 1000)) * 1e-5
    raw = mne.io.RawArray(values, info, first_samp=300, verbose="ERROR")
    raw.save(tmp_path / "sub_raw.fif", fmt="double", verbose="ERROR")
    return tmp_path / "sub_raw.fif", values


def _table(path):
    recording = {"filepath": str(path), "frequency": 100.0, "subject": "1", "task": "read"}
    return pd.DataFrame([
        _row("Eeg", 3.0, 10.0, **recording),
        _row("Word", 4.0, 0.2, text="the", subject="1"),
        _row("Word", 5.25, 0.2, text="cat", subject="1"),
    ])  # fmt: skip


def test_onsets_count_from_the_first_sample(eeg):
    path, values = eeg
    run = from_neuralset(_table(path), "Eeg", trial_type="text")[0]
    assert run.entities == {"subject": "1", "task": "read"}
    assert run.events["onset"].tolist() == [1.0, 2.25]
    windows = MEEGWindows([run], MEEGExtractor(), events=True, tmax=0.5)
    assert windows.conditions == ("cat", "the")
    np.testing.assert_array_equal(windows[1]["signal"].numpy().T, values[:, 225:275].astype(np.float32))


def test_chunks_of_one_file_are_one_run_and_must_agree(eeg):
    table = _table(eeg[0])
    second = {**table.iloc[0].to_dict(), "start": 8.0, "duration": 5.0, "offset": 5.0}
    chunks = pd.concat([table.assign(offset=[0.0, np.nan, np.nan]), pd.DataFrame([second])])
    assert [run.events["onset"].tolist() for run in from_neuralset(chunks, "Eeg")] == [[1.0, 2.25]]
    with pytest.raises(ValueError, match="must begin at one time"):
        from_neuralset(chunks.assign(offset=0.0), "Eeg")


def test_events_agree_with_the_package(eeg):
    etypes = pytest.importorskip("neuralset.events.etypes")
    utils = pytest.importorskip("neuralset.events.utils")
    path, _ = eeg
    rows = [
        {**row, "start": "auto"} if row["type"] == "Eeg" else row for row in _table(path).to_dict("records")
    ]
    rows = [{key: value for key, value in row.items() if value == value} for row in rows]
    table = utils.standardize_events(pd.DataFrame(rows))
    run = from_neuralset(table, "Eeg")[0]
    assert run.events["onset"].tolist() == [1.0, 2.25]
    event = etypes.Event.from_dict(table[table["type"] == "Eeg"].iloc[0])
    ours = MEEGWindows([run], MEEGExtractor("all"))[0]["signal"].numpy().T
    np.testing.assert_array_equal(ours, event.read().get_data().astype(np.float32))


def test_images_and_their_repetition_time(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).normal(size=(3, 3, 3, 20)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "bold.nii")
    table = pd.DataFrame([
        _row("Fmri", 0.0, 40.0, filepath=str(tmp_path / "bold.nii"), frequency=0.5, subject="2", space="T1w"),
        _row("Image", 4.0, 2.0, filepath="a.png", subject="2"),
        _row("Image", 11.0, 2.0, filepath="b.png", subject="2"),
    ])  # fmt: skip
    run = from_neuralset(table, "Fmri", trial_type="filepath")[0]
    assert run.metadata == {"RepetitionTime": 2.0, "space": "T1w"}
    mask = np.ones((3, 3, 3), bool)
    windows = FMRIWindows([run], FMRIVoxelExtractor(mask), events=True, duration=4.0)
    assert [windows[i]["start"] for i in range(2)] == [4.0, 12.0]  # the nearest volume; onset tells the rest
    assert windows[1]["onset"] == 1.0
    loader = json.dumps({"cls": "x"})
    with pytest.raises(ValueError, match="images must lie in files"):
        from_neuralset(table.assign(filepath=loader), "Fmri")


def test_spikes_have_the_events_as_trials(tmp_path):
    SpikeRecording.from_arrays([0.5, 1.5], [0, 1], stop=10.0).save(tmp_path / "s.npz")
    table = pd.DataFrame([
        _row("Spikes", 0.0, 10.0, filepath=str(tmp_path / "s.npz"), frequency=1.0, subject="m"),
        _row("Image", 1.0, 2.0, filepath="a.png"),
    ])  # fmt: skip
    recording = from_neuralset(table, "Spikes")[0]
    assert (recording.subject, recording.session) == ("m", "t1")
    assert trial_windows(recording, "start", 0.0, 1.0)[0].tolist() == [[1.0, 2.0]]


def test_wrong_input_is_named(eeg):
    with pytest.raises(TypeError, match="DataFrame or a Study"):
        from_neuralset([1], "Eeg")
    with pytest.raises(ValueError, match="no event is of type 'Meg'"):
        from_neuralset(_table(eeg[0]), "Meg")
    with pytest.raises(ValueError, match="must have columns"):
        from_neuralset(pd.DataFrame({"type": ["Eeg"]}), "Eeg")
    with pytest.raises(ValueError, match="trial_type must be a column"):
        from_neuralset(_table(eeg[0]), "Eeg", trial_type="kind")


def test_a_study_of_the_package_is_run_and_read(eeg):
    neuralset = pytest.importorskip("neuralset")
    path = eeg[0]

    class MadeHere2026(neuralset.Study):
        description = "made here"

        def iter_timelines(self):
            yield {"subject": "1"}

        def _load_timeline_events(self, timeline):
            return pd.DataFrame([
                {"type": "Eeg", "start": "auto", "filepath": str(path)},
                {"type": "Word", "start": 4.0, "duration": 0.2, "text": "the"},
            ])  # fmt: skip

    runs = from_neuralset(MadeHere2026(path=path.parent), "Eeg", trial_type="text")
    assert [run.events["onset"].tolist() for run in runs] == [[1.0]]
    assert runs[0].entities["subject"].endswith("1")
    assert MEEGWindows(runs, MEEGExtractor(), events="the", tmax=0.5).conditions == ("the",)
