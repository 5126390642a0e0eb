"""Windows from and to braindecode: the same samples, targets, names and places.

With the real package: ``pip install braindecode``. It brings its own torch, so it is no part of the ``test``
extra; without it these tests are skipped.
"""

from __future__ import annotations

import copy
import pickle
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
mne = pytest.importorskip("mne")

from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import MEEGWindows, collate_windows, split_windows  # noqa: E402
from neurokern.datasets.bridges import from_braindecode, to_braindecode  # noqa: E402
from neurokern.extractors import MEEGExtractor  # noqa: E402

NAMES = ("Fz", "Cz", "Oz", "aux")


def raw_of(seed: int, n: int = 2000, first_samp: int = 0):
    info = mne.create_info(list(NAMES), 250.0, ["eeg", "eeg", "eeg", "misc"], verbose="ERROR")
    values = np.random.default_rng(seed).normal(size=(4, n)) * 1e-5
    raw = mne.io.RawArray(values, info, first_samp=first_samp, verbose="ERROR")
    places = {name: np.array([0.01 * i, 0.02, 0.1]) for i, name in enumerate(NAMES[:3])}
    raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), on_missing="ignore")
    raw.info["bads"] = ["Cz"]
    onset = np.array([1.0, 2.0, 3.3, 5.0]) + first_samp / 250
    raw.set_annotations(mne.Annotations(onset, 0.5, ["right", "left", "right", "BAD_jump"]))
    return raw


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "braindecode.datasets", None)
    with pytest.raises(ImportError, match="pip install braindecode"):
        from_braindecode([])


@pytest.fixture(scope="module")
def peer():
    datasets = pytest.importorskip("braindecode.datasets")
    mne.set_log_level("ERROR")
    return datasets


def theirs(peer, first_samp: int = 0, **kwargs):
    from braindecode.preprocessing import create_windows_from_events

    parts = [
        peer.RawDataset(raw_of(s, first_samp=first_samp), {"subject": s, "session": "a", "age": 30 + s})
        for s in (1, 2)
    ]
    whole = peer.BaseConcatDataset(parts)
    return create_windows_from_events(whole, mapping={"left": 0, "right": 1}, preload=False, **kwargs)


@pytest.mark.parametrize("first_samp", [0, 777])
def test_windows_of_events_are_the_same_samples(peer, first_samp):
    dataset = theirs(peer, first_samp, trial_stop_offset_samples=20)
    windows = from_braindecode(dataset)
    assert len(windows) == len(dataset) == 6
    assert windows.conditions == ("left", "right")
    assert windows.table["age"].tolist() == [31] * 3 + [32] * 3
    for i, (X, y, crop) in enumerate(dataset):
        item = windows[i]
        np.testing.assert_array_equal(item["signal"].numpy().T, X)
        assert item["condition"] == item["target"] == y
        assert item["start"] == crop[1] / 250
        assert (item["subject"], item["session"]) == (str(1 + i // 3), "a")
        assert tuple(item["channel_names"]) == NAMES
        assert item["channel_bad"].tolist() == [False, True, False, False]
        assert bool(item["valid"].all())


def test_windows_divide_select_travel_and_batch(peer):
    windows = from_braindecode(theirs(peer))
    part = split_windows(windows, by="subject", test=0.5, validation=0.0).test
    assert part is not None
    assert len(set(part.metadata["subject"])) == 1
    assert windows.select([1, 4]).metadata["subject"].tolist() == [1, 2]
    again = pickle.loads(pickle.dumps(copy.deepcopy(windows)))
    for one in (windows, again):
        batch = next(iter(DataLoader(one, batch_size=6, collate_fn=collate_windows)))
        assert batch["target"].tolist() == [1, 0, 1] * 2
        assert torch.equal(batch["signal"], windows.batch(range(6))["signal"])


def test_epochs_and_recordings_are_taken_too(peer):
    dataset = theirs(peer)
    epochs = peer.BaseConcatDataset([part.to_epochs_dataset() for part in dataset.datasets])
    windows = from_braindecode(epochs)
    for i, (X, y, _) in enumerate(epochs):
        np.testing.assert_array_equal(windows[i]["signal"].numpy().T, X)
        assert windows[i]["target"] == y
    one = peer.RawDataset(raw_of(1), {"subject": 1, "age": 31.5}, target_name="age")
    whole = from_braindecode(one)
    assert whole[0]["signal"].shape == (2000, 4)
    assert (whole[0]["target"], whole[0]["condition"]) == (31.5, -1)


def test_what_cannot_be_kept_is_said(peer):
    dataset = theirs(peer)
    dataset.datasets[0].transform = abs
    with pytest.warns(UserWarning, match="transform"):
        from_braindecode(dataset)
    part = theirs(peer).datasets[0]
    part.metadata.loc[0, "i_stop_in_trial"] -= 3
    with pytest.raises(ValueError, match="must be of one length"):
        from_braindecode(part)
    with pytest.raises(TypeError, match="BaseConcatDataset of windows or recordings"):
        from_braindecode([1])
    beyond = MEEGWindows([raw_of(1)], MEEGExtractor("eeg"), events=True, tmin=-1.5, tmax=0, pad=True)
    with pytest.warns(UserWarning, match="1 windows that reach beyond"):
        to_braindecode(beyond)


@settings(max_examples=10)
@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3), length=st.integers(1, 300),
       strided=st.booleans())  # fmt: skip
def test_ours_come_back_as_they_were(peer, seeds, length, strided):
    options = {"duration": length / 250} if strided else {"events": True, "tmin": 0.0, "tmax": length / 250}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of windows in bad stretches
        ours = MEEGWindows([raw_of(s) for s in seeds], MEEGExtractor("all", bads="keep"), **options)
    dataset = to_braindecode(ours)
    back = from_braindecode(dataset)
    assert len(back) == len(ours) == len(dataset)
    assert [*back.table["condition"]] == [*ours.table["condition"]]
    for i in range(0, len(ours), 7):
        one, other = ours[i], back[i]
        assert torch.equal(one["signal"], other["signal"])
        np.testing.assert_array_equal(one["signal"].numpy().T, dataset[i][0])
        assert one["start"] == other["start"]
        assert one["channel_names"] == other["channel_names"]
        torch.testing.assert_close(one["positions"], other["positions"], rtol=0, atol=0, equal_nan=True)
        assert one["channel_bad"].tolist() == other["channel_bad"].tolist()


def test_a_network_of_braindecode_learns_from_our_windows(peer):
    from braindecode.models import EEGNet

    ours = MEEGWindows(
        [raw_of(s) for s in range(4)], MEEGExtractor("eeg", bads="keep"), events=True, tmax=0.5
    )
    torch.manual_seed(0)
    net = EEGNet(n_chans=3, n_outputs=2, n_times=125)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        for batch in DataLoader(ours, batch_size=12, collate_fn=collate_windows):
            scores = net(batch["signal"].transpose(1, 2) * 1e5)
            loss = torch.nn.functional.cross_entropy(scores, batch["condition"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2
