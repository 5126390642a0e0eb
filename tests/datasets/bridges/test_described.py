"""Windows at given samples, as bridges make them, without the packages that they come from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
mne = pytest.importorskip("mne")

from neurokern.datasets import check_no_leak, split_windows  # noqa: E402
from neurokern.datasets.bids_run import MEEGRun  # noqa: E402
from neurokern.datasets.bridges import DescribedWindows  # noqa: E402
from neurokern.datasets.meeg_sources import as_run  # noqa: E402
from neurokern.extractors import MEEGExtractor  # noqa: E402


@pytest.fixture
def made():
    """Return windows at samples 5, 50, 95 of one recording and 0, 7 of another, and the signals."""
    runs, signals = [], []
    for subject in "ab":
        info = mne.create_info(["Fz", "Cz"], 100.0, "eeg", verbose="ERROR")
        raw = mne.io.RawArray(
            np.random.default_rng(ord(subject)).normal(size=(2, 100)), info, verbose="ERROR"
        )
        entities = {"subject": subject}
        runs.append(MEEGRun(path=as_run(raw).path, entities=entities, metadata={}, events=None, data=raw))
        signals.append(raw.get_data().T.astype(np.float32))
    metadata = pd.DataFrame({"target": [1.5, 0.0, 2.0, 1.0, 3.0], "hand": list("lrlrl")})
    codes = np.array([0, 1, 0, -1, 1])
    starts = [np.array([5, 50, 95]), np.array([0, 7])]
    return DescribedWindows(
        runs, MEEGExtractor(), starts, [5, 10], ("left", "right"), codes, metadata
    ), signals


def test_windows_hold_the_samples_that_were_given(made):
    windows, signals = made
    places = [(0, 5, 5), (0, 50, 5), (0, 95, 5), (1, 0, 10), (1, 7, 10)]
    for i, (recording, start, length) in enumerate(places):
        item = windows[i]
        np.testing.assert_array_equal(item["signal"].numpy(), signals[recording][start : start + length])
        assert (item["start"], item["target"]) == (start / 100, windows.metadata["target"][i])
    assert windows.table["condition"].fillna("none").tolist() == ["left", "right", "left", "none", "right"]
    assert windows.batch([-1, 0])["target"].tolist() == [3.0, 1.5]


def test_selections_and_splits_keep_what_is_known_of_each_window(made):
    windows, _ = made
    part = windows.select([1, 4])
    assert part.events["hand"].tolist() == ["r", "l"]
    assert part.batch([0, 1])["target"].tolist() == [0.0, 3.0]
    splits = split_windows(windows, by="subject", test=0.5, validation=0.0)
    check_no_leak(splits.train, splits.test, by="subject")
    assert sorted([*splits.train.metadata["target"], *splits.test.metadata["target"]]) == [0, 1, 1.5, 2, 3]


def test_windows_beyond_their_recording_are_refused(made):
    windows, _ = made
    with pytest.raises(ValueError, match="must lie within their recordings"):
        DescribedWindows(
            windows.runs, MEEGExtractor(), [np.array([96]), np.array([0])], [5, 5], (), np.array([-1, -1]),
            pd.DataFrame({"target": [0, 1]}),
        )  # fmt: skip
