"""Recordings of MOABB's datasets: its FakeDataset, which downloads nothing.

With the real package: ``pip install moabb``; without it these tests are skipped.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
mne = pytest.importorskip("mne")
fake = pytest.importorskip("moabb.datasets.fake")

from neurokern.datasets import MEEGWindows, leave_one_out  # noqa: E402
from neurokern.datasets.bridges import from_moabb  # noqa: E402
from neurokern.extractors import MEEGExtractor  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def quiet():
    mne.set_log_level("ERROR")


def dataset(annotations: bool = False):
    options = {"n_sessions": 2, "n_runs": 2, "n_subjects": 3, "duration": 20, "n_events": 5, "seed": 0}
    return fake.FakeDataset(**options, stim=not annotations, annotations=annotations)


@pytest.mark.parametrize("annotations", [False, True])
def test_events_lie_at_the_samples_where_the_dataset_has_them(annotations):
    data = dataset(annotations)
    runs = from_moabb(data, subjects=[2, 3])
    assert [tuple(run.entities[k] for k in ("subject", "session", "run")) for run in runs] == [
        (s, e, r) for s in "23" for e in "01" for r in "01"
    ]
    windows = MEEGWindows(runs, MEEGExtractor("eeg"), events=True, tmin=0.0, tmax=1.0)
    assert windows.conditions == ("fake1", "fake2", "fake3")
    expected = data._generate_events(5, 20)
    assert (windows.table["start"][:5] * 128).tolist() == expected[:, 0].tolist()
    assert windows.table["condition"][:5].tolist() == [f"fake{code}" for code in expected[:, 2]]
    raw = runs[0].data.get_data(picks="eeg").astype(np.float32)
    first = expected[0, 0]
    np.testing.assert_array_equal(windows[0]["signal"].numpy().T, raw[:, first : first + 128])
    assert [held.name for held in leave_one_out(windows, by="subject")] == ["subject 2", "subject 3"]


def test_a_paradigm_gives_its_own_epochs():
    paradigms = pytest.importorskip("moabb.paradigms")
    paradigm = paradigms.MotorImagery(events=["fake1", "fake2"], n_classes=2, fmin=1, fmax=40)
    X, labels, metadata = paradigm.get_data(dataset(), [1])
    windows = MEEGWindows(from_moabb(dataset(), paradigm=paradigm, subjects=[1]), MEEGExtractor("all"))
    assert len(windows) == len(X)
    assert windows.table["condition"].tolist() == list(labels)
    for i in range(len(X)):
        signal = windows[i]["signal"].numpy().T
        np.testing.assert_allclose(signal * dataset().unit_factor, X[i], rtol=1e-6)
        assert windows[i]["run"] == metadata["run"].iloc[i]


def test_wrong_input_is_named():
    with pytest.raises(TypeError, match=r"one of moabb\.datasets"):
        from_moabb([1])
    with pytest.raises(ValueError, match="subjects must be of"):
        from_moabb(dataset(), subjects=[9])
