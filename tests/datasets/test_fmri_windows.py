"""Windows of fMRI runs: padding, batches, the cache, cleaning, crops."""

import dataclasses
import json
import pickle

import numpy as np
import pandas as pd
import pytest

from neurokern.datasets import (
    BIDSDataset,
    SessionBatchSampler,
    fmri_events,
)
from neurokern.ops import NiftiFile, VoxelBox, _array_cache, decode_nifti

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from torch.utils.data import DataLoader, Subset  # noqa: E402

from neurokern.datasets import collate_windows  # noqa: E402
from neurokern.extractors import (  # noqa: E402
    FMRIParcelExtractor,
    FMRIVolumeExtractor,
    FMRIVoxelExtractor,
    fmri,
)

SHAPE, TR = (6, 5, 4), 2.0
MASK = np.zeros(SHAPE, bool)
MASK[1:5, 1:4, 1:3] = True
LABELS = MASK * np.arange(1, 7)[:, None, None]
EXTRACTORS = {
    "voxels": lambda **options: FMRIVoxelExtractor(MASK, **options),
    "all voxels": FMRIVoxelExtractor,
    "parcels": lambda **options: FMRIParcelExtractor(LABELS, **options),
    "volumes": FMRIVolumeExtractor,
    "cropped volumes": lambda **options: FMRIVolumeExtractor(crop=MASK, **options),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three runs of 20, 30 and 13 volumes, the second not compressed."""
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_array_cache, "_LEAST_FREE", 0)
    root = tmp_path / "ds"
    events = pd.DataFrame(
        [(0.0, 4.0, "face"), (10.0, 4.0, "house"), (36.0, 4.0, "face"), (12.0, 2.0, None)],
        columns=["onset", "duration", "trial_type"],
    )
    for i, (n, suffix) in enumerate(((20, ".nii.gz"), (30, ".nii"), (13, ".nii.gz"))):
        folder = root / f"sub-0{i}/func"
        folder.mkdir(parents=True)
        values = np.random.default_rng(i).normal(1000, 30, (*SHAPE, n)).astype(np.int16)
        image = nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0]))
        nibabel.save(image, folder / f"sub-0{i}_task-look_bold{suffix}")
        (folder / f"sub-0{i}_task-look_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
        events.to_csv(folder / f"sub-0{i}_task-look_events.tsv", sep="\t", index=False, na_rep="n/a")
    return root


def windows(root, extractor=None, subject=None, **options):
    data = BIDSDataset(root, subject=subject)
    return data.with_extractor(extractor or FMRIVoxelExtractor(MASK), **options)


# ---- padding


def test_a_last_window_is_kept_with_what_is_valid_of_it(root):
    plain = windows(root, subject="00", length=8)
    padded = windows(root, subject="00", length=8, pad=True)
    assert [w.start for w in plain.windows] == [0, 8]
    assert [w.start for w in padded.windows] == [0, 8, 16]
    item = padded[2]
    assert item["valid"].tolist() == [True] * 4 + [False] * 4
    whole = windows(root, subject="00")[0]["signal"]
    assert torch.equal(item["signal"][:4], whole[16:])
    assert (item["signal"][4:] == 0).all()
    assert item["conditions"].tolist() == [-1, -1, 0, 0] + [-1] * 4
    assert torch.equal(padded[1]["signal"], plain[1]["signal"])


@pytest.mark.parametrize(
    ("length", "stride", "starts"),
    [
        (8, 4, [0, 4, 8, 12]),
        (8, 5, [0, 5, 10, 15]),
        (20, 20, [0]),
        (25, 25, [0]),
        (3, 9, [0, 9, 18]),
        (1, 30, [0]),
    ],
)
def test_padded_windows_hold_every_volume_that_their_stride_meets_and_none_twice_more(
    root, length, stride, starts
):
    padded = windows(root, subject="00", length=length, stride=stride, pad=True)
    assert [w.start for w in padded.windows] == starts
    assert all(padded[i]["valid"].any() for i in range(len(padded)))


def test_windows_at_events_may_begin_before_the_run_or_end_after_it(root):
    with pytest.warns(UserWarning, match="left out 2 windows that reach beyond"):
        windows(root, subject="00", length=6, events=True, tmin=-4.0)
    padded = windows(root, subject="00", length=6, events=True, tmin=-4.0, pad=True)
    assert [w.start for w in padded.windows] == [-2, 3, 16]
    first = padded[0]
    assert first["valid"].tolist() == [False, False, True, True, True, True]
    assert first["start"] == -4.0
    whole = windows(root, subject="00")[0]["signal"]
    assert torch.equal(first["signal"][2:], whole[:4])
    assert (first["signal"][:2] == 0).all()
    with pytest.warns(UserWarning, match="left out 1 windows that hold nothing"):
        windows(root, subject="00", length=2, events=True, tmin=6.0, pad=True)


def test_events_without_a_condition_have_no_windows(root):
    data = windows(root, subject="00", length=2, events=True)
    assert data.conditions == ("face", "house")
    assert len(data) == 3


def test_a_condition_that_is_a_number_has_one_name_also_beside_missing_ones(root):
    for subject, second in (("00", "2"), ("01", "n/a")):
        events = root / f"sub-{subject}/func/sub-{subject}_task-look_events.tsv"
        events.write_text(f"onset\tduration\ttrial_type\n0\t2\t1\n4\t2\t{second}\n")
    assert windows(root, subject=["00", "01"], length=2, events=True).conditions == ("1", "2")


def test_conditions_of_volumes_do_not_depend_on_how_many_are_compared_at_a_time(root, monkeypatch):
    run = BIDSDataset(root, subject="01").run(0)
    codes = {"face": 0, "house": 1}
    whole = fmri_events.conditions_of_volumes(run, 30, TR, 1.0, codes)
    # Volume k shows seconds 2 k - 1 to 2 k + 1: faces from 0 to 4 and 36 to 40 s, a house from 10 to 14 s.
    assert whole.tolist() == [0, 0, 0, -1, -1, 1, 1, 1, *[-1] * 10, 0, 0, 0, *[-1] * 9]
    monkeypatch.setattr(fmri_events, "_AT_ONCE", 7)
    np.testing.assert_array_equal(fmri_events.conditions_of_volumes(run, 30, TR, 1.0, codes), whole)


# ---- batches


def test_runs_of_different_lengths_make_one_batch(root):
    runs = windows(root)
    (batch,) = DataLoader(runs, batch_size=3)
    assert batch["signal"].shape == (3, 30, MASK.sum())
    assert batch["valid"].sum(1).tolist() == [20, 30, 13]
    for i in range(3):
        n = len(runs[i]["signal"])
        assert torch.equal(batch["signal"][i, :n], runs[i]["signal"])
        assert (batch["signal"][i, n:] == 0).all()
        assert (batch["conditions"][i, n:] == -1).all()
    (collated,) = DataLoader(Subset(runs, [0, 1, 2]), batch_size=3, collate_fn=collate_windows)
    by_hand = collate_windows([runs[i] for i in range(3)])
    for other in (collated, by_hand, runs.batch([0, 1, 2]), runs.batch([0, 1, 2], shared=True)):
        assert other.keys() == batch.keys()
        for name, value in batch.items():
            same = (
                torch.equal(other[name], value) if isinstance(value, torch.Tensor) else other[name] == value
            )
            assert same, name


def test_a_batch_that_was_read_at_once_is_not_copied(root):
    data = windows(root, length=5)
    items = data.__getitems__([0, 2, 1])
    batch = collate_windows(items)
    assert batch["signal"].data_ptr() == items[0]["signal"].data_ptr()
    alone = collate_windows([data[i] for i in (0, 2, 1)])
    assert torch.equal(batch["signal"], alone["signal"])
    assert torch.equal(batch["valid"], alone["valid"])


def test_windows_of_different_voxels_are_an_error(root):
    items = [{"signal": torch.zeros(3, n)} for n in (4, 5)]
    with pytest.raises(ValueError, match=r"same features, got \[\(4,\), \(5,\)\]"):
        collate_windows(items)
    with pytest.raises(ValueError, match="there are no windows"):
        collate_windows([])


def test_batches_of_one_run_each_can_be_resumed(root):
    data = windows(root, length=5)
    sampler = SessionBatchSampler(data, batch_size=2, seed=1)
    plan = sampler.plan(0)
    assert sorted(i for batch in plan for i in batch) == list(range(len(data)))
    assert all(len({data.windows[i].run for i in batch}) == 1 for batch in plan)
    subjects = [set(batch["subject"]) for batch in DataLoader(data, batch_sampler=sampler)]
    assert all(len(names) == 1 for names in subjects)


# ---- cache and cleaning


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("cleaning", [{}, {"normalize": True}, {"normalize": True, "detrend": True}])
def test_signals_do_not_depend_on_the_cache(root, name, cleaning):
    make = EXTRACTORS[name]
    whole = [windows(root, make(cache=cache, **cleaning)) for cache in (False, "auto", True)]
    parts = [windows(root, make(cache=cache, **cleaning), length=7) for cache in (False, "auto", True)]
    for i in range(3):
        assert all(torch.equal(data[i]["signal"], whole[0][i]["signal"]) for data in whole[1:])
    for i, window in enumerate(parts[0].windows):
        expected = whole[0][window.run]["signal"][window.start : window.start + 7]
        assert all(torch.equal(data[i]["signal"], expected) for data in parts)
    options = {"detrend": cleaning.get("detrend", False), "standardize": cleaning.get("normalize", False)}
    place = {"voxels": {"mask": MASK}, "parcels": {"labels": LABELS}, "cropped volumes": {"crop": MASK}}
    expected = decode_nifti(whole[0].runs[1].path, **place.get(name, {}), **options)
    torch.testing.assert_close(whole[0][1]["signal"].reshape(expected.shape), expected, rtol=2e-5, atol=2e-5)


def test_what_is_cached_follows_the_argument(root, tmp_path):
    packed, fits = tmp_path / "cache" / "packed_runs", tmp_path / "cache" / "fits"

    def made(folder):
        return len(list(folder.iterdir())) if folder.is_dir() else 0

    list(DataLoader(windows(root, FMRIVoxelExtractor(MASK, normalize=True, cache=False), length=5)))
    assert not (tmp_path / "cache").exists()
    list(DataLoader(windows(root, FMRIVoxelExtractor(normalize=True), length=5)))
    assert (made(packed), made(fits)) == (0, 3)  # whole volumes are not packed unasked
    list(DataLoader(windows(root, FMRIVoxelExtractor(MASK, normalize=True), length=5)))
    assert (made(packed), made(fits)) == (2, 6)  # of .nii.gz alone
    windows(root, FMRIVoxelExtractor(MASK, normalize=True, cache=True), length=5).prepare(threads=2)
    assert (made(packed), made(fits)) == (3, 6)
    with pytest.raises(ValueError, match="cache must be True, False, 'auto' or 'cleaned'"):
        FMRIVoxelExtractor(MASK, cache="yes")


def test_prepared_runs_are_not_decoded_again(root, monkeypatch):
    data = windows(root, FMRIVoxelExtractor(MASK, normalize=True, cache=True), length=5).prepare()
    again = pickle.loads(pickle.dumps(data))
    expected = [item["signal"] for item in data]
    monkeypatch.setattr(NiftiFile, "decode_into", None)
    assert all(torch.equal(again[i]["signal"], signal) for i, signal in enumerate(expected))
    with pytest.raises(ValueError, match="threads must be at least 1"):
        data.prepare(threads=0)


def test_a_cache_that_cannot_be_written_is_an_error_only_if_asked_for(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "file"))
    expected = windows(root, FMRIVoxelExtractor(MASK, normalize=True, cache=False), length=5)
    data = windows(root, FMRIVoxelExtractor(MASK, normalize=True), length=5)
    assert all(torch.equal(data[i]["signal"], expected[i]["signal"]) for i in range(len(data)))
    with pytest.raises(OSError, match="file"):
        windows(root, FMRIVoxelExtractor(MASK, cache=True), length=5)[0]
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "full"))
    monkeypatch.setenv("NEUROKERN_CACHE_GIB", "0")
    data = windows(root, FMRIVoxelExtractor(MASK, normalize=True), length=5)
    assert all(torch.equal(data[i]["signal"], expected[i]["signal"]) for i in range(len(data)))
    assert not list((tmp_path / "full").rglob("*.safetensors"))


def test_open_runs_and_coefficients_in_memory_are_bounded(root, monkeypatch):
    monkeypatch.setattr(fmri, "_RUNS_OPEN", 2)
    monkeypatch.setattr(fmri, "_FIT_BYTES", 1)
    extractor = FMRIVoxelExtractor(MASK, normalize=True, cache=False)
    data = windows(root, extractor, length=5)
    first = [item["signal"] for item in data]
    assert len(extractor._runs) == 2
    assert sum(opened.fit is not None for opened in extractor._runs.values()) == 1
    assert all(torch.equal(data[i]["signal"], first[i]) for i in reversed(range(len(data))))


def test_confounds_without_a_first_value_take_the_second(root):
    data = BIDSDataset(root, subject="00")
    run = data.run(0)
    table = pd.DataFrame({"trans_x": [np.nan, 2.0, *np.random.default_rng(0).normal(size=18)], "csf": 1.0})
    object.__setattr__(run, "confounds", table)
    columns = FMRIVoxelExtractor(MASK, confounds=["trans_*"])._columns(run)
    np.testing.assert_array_equal(columns[:, 0], [2.0, *table["trans_x"][1:]])
    with pytest.raises(TypeError, match="must be a sequence of names"):
        FMRIVoxelExtractor(MASK, confounds="trans_x")
    for wrong, message in ((["a"] * 20, "numbers, csf are none"), ([1.0] * 19 + [np.nan], "csf have not")):
        changed = dataclasses.replace(run, confounds=table.assign(csf=wrong))
        with pytest.raises(ValueError, match=f"{run.path.name}: confounds must .* {message}"):
            FMRIVoxelExtractor(MASK, confounds=["csf"])._columns(changed)


def test_half_types_reach_the_batch(root):
    for cleaning in ({}, {"normalize": True}):
        for cache in (False, True):
            make = [
                FMRIVoxelExtractor(MASK, dtype=d, cache=cache, **cleaning)
                for d in (torch.bfloat16, torch.float32)
            ]
            half, single = (windows(root, extractor, length=6)[2]["signal"] for extractor in make)
            assert torch.equal(half, single.to(torch.bfloat16))


# ---- crops


def test_cropped_volumes_know_their_place(root):
    extractor = FMRIVolumeExtractor(crop=MASK)
    data = windows(root, extractor, subject="01", length=4)
    assert data.feature_dim == (4, 3, 2)
    signal = data[1]["signal"]
    whole = windows(root, FMRIVolumeExtractor(), subject="01", length=4)[1]["signal"]
    box = extractor.box(data.runs[0])
    assert torch.equal(signal, whole[:, 1:5, 1:4, 1:3])
    assert torch.equal(box.put_back(signal)[:, 1:5, 1:4, 1:3], signal)
    bounds = FMRIVolumeExtractor(crop=[(1, 5), (1, 4), (1, 3)])
    assert torch.equal(windows(root, bounds, subject="01", length=4)[1]["signal"], signal)
    given = FMRIVolumeExtractor(crop=VoxelBox(box.bounds, SHAPE))
    assert torch.equal(windows(root, given, subject="01", length=4)[1]["signal"], signal)


# ---- real runs


def test_packed_windows_of_real_runs_are_those_of_nibabel(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    data = BIDSDataset(shared_data / "fmri" / "bids_studyforrest_localizer", task="oneback")
    image = nibabel.load(data.run(0).path)
    mask = np.asarray(image.dataobj[..., 0]) > 200
    exact = np.asarray(image.dataobj)[mask].T
    windows = data.with_extractor(FMRIVoxelExtractor(mask), length=16, pad=True)
    for item, window in zip(windows, windows.windows, strict=True):
        n = int(item["valid"].sum())
        np.testing.assert_allclose(item["signal"][:n], exact[window.start : window.start + n], rtol=1e-6)
    assert len(list((tmp_path / "packed_runs").iterdir())) == 1


# ---- batches by one call


@pytest.mark.parametrize("kind", EXTRACTORS)
@pytest.mark.parametrize("options", [{}, {"normalize": True, "detrend": True}], ids=["plain", "cleaned"])
def test_a_batch_holds_what_each_window_holds_packed_or_not(root, kind, options):
    indices = [5, 0, 7, 5]
    batches = []
    for cache in (False, "auto", True, "cleaned"):
        data = windows(root, EXTRACTORS[kind](cache=cache, **options), length=6, stride=4, pad=True)
        batches.append(data.batch(indices))
        for place, i in enumerate(indices):
            item = data[i]
            for name in ("signal", "valid", "conditions"):
                assert torch.equal(batches[-1][name][place], item[name]), (cache, name)
            one = data.windows[i]
            inside = slice(
                max(one.start, 0), min(one.start + 6, data.extractor.n_volumes(data.runs[one.run]))
            )
            alone = data.extractor.extract(data.runs[one.run], inside.start, inside.stop)
            assert torch.equal(item["signal"][item["valid"]], alone)
            assert not item["signal"][~item["valid"]].any()
    for other in batches[1:]:
        assert other.keys() == batches[0].keys()
        assert torch.equal(other["valid"], batches[0]["valid"])
        torch.testing.assert_close(other["signal"], batches[0]["signal"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cleaned_signals_that_are_kept_have_the_bits_of_those_that_are_cleaned_anew(root, dtype, tmp_path):
    options = {"normalize": True, "detrend": "cosine", "high_pass": 0.02, "dtype": dtype}
    anew = windows(root, FMRIVoxelExtractor(MASK, cache=True, **options), length=7)
    kept = windows(root, FMRIVoxelExtractor(MASK, cache="cleaned", **options), length=7).prepare()
    every = range(len(anew))
    assert torch.equal(kept.batch(every)["signal"], anew.batch(every)["signal"])
    again = windows(root, FMRIVoxelExtractor(MASK, cache="cleaned", **options), length=7)
    entries = [entry for run in again.runs for entry in again.extractor.cache_entries(run)]
    assert all(entry.path.exists() for entry in entries)
    assert len({entry.path for entry in entries}) == 3
    sizes = {entry.path.stat().st_size for entry in entries}
    assert sizes == {entry.n_bytes for entry in entries}
    again.batch(every)
    entries[0].path.write_bytes(entries[0].path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="was changed by another program"):
        again.batch(every)
    last = windows(root, FMRIVoxelExtractor(MASK, cache="cleaned", **options), length=7)
    assert torch.equal(last.batch(every)["signal"], anew.batch(every)["signal"])


def test_other_extractors_are_read_window_by_window(root):
    own = FMRIVoxelExtractor(MASK)

    class Negative:  # all that a dataset asks for, and no more
        dtype = torch.float32
        n_volumes, feature_shape, feature_dim = own.n_volumes, own.feature_shape, own.feature_dim
        kept, prepare = own.kept, own.prepare

        def extract(self, run, start, stop, out=None):
            return own.extract(run, start, stop, out).neg_()

    data, usual = (windows(root, one, length=6, stride=4, pad=True) for one in (Negative(), own))
    batch = data.batch([0, 3, len(data) - 1])
    assert torch.equal(batch["signal"], -usual.batch([0, 3, len(data) - 1])["signal"])
    assert torch.equal(batch["valid"], usual.batch([0, 3, len(data) - 1])["valid"])


def test_a_window_that_is_none_is_an_error(root):
    data = windows(root, length=5)
    for indices in ([len(data)], [-len(data) - 1], []):
        with pytest.raises(IndexError, match="items must be 0 to"):
            data.batch(indices)
    assert torch.equal(data[-1]["signal"], data[len(data) - 1]["signal"])
    with pytest.raises(ValueError, match="start and stop must lie in order within the 20 volumes"):
        data.extractor.extract(data.runs[0], 15, 21)


def test_batches_that_are_kept_are_never_written_over(root):
    data = windows(root, length=5, stride=2)
    kept = [batch["signal"] for batch in DataLoader(data, batch_size=4)]
    for place, signal in enumerate(kept):
        indices = range(4 * place, 4 * place + len(signal))
        assert torch.equal(signal, torch.stack([data[i]["signal"] for i in indices]))
