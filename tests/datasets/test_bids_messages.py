"""What a message about a BIDS folder, its tables or an extractor says: file, value, and what to do."""

import json

import numpy as np
import pandas as pd
import pytest

from neurokern.datasets import BIDSDataset

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from neurokern.extractors import FMRIVoxelExtractor  # noqa: E402

SHAPE, N = (4, 3, 2), 20
MASK = np.ones(SHAPE, bool)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    func = tmp_path / "ds/sub-01/func"
    func.mkdir(parents=True)
    values = np.random.default_rng(0).normal(100, 5, (*SHAPE, N)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), func / "sub-01_task-look_bold.nii")
    (func / "sub-01_task-look_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    write_events(tmp_path / "ds", [(4, 6, "face"), (20, 6, "house")])
    return tmp_path / "ds"


def write_events(root, rows, columns=("onset", "duration", "trial_type")):
    table = pd.DataFrame(rows, columns=list(columns))
    table.to_csv(root / "sub-01/func/sub-01_task-look_events.tsv", sep="\t", index=False)


def windows(root, extractor=None, **options):
    extractor = FMRIVoxelExtractor(MASK) if extractor is None else extractor
    return BIDSDataset(root).with_extractor(extractor, **options)


def test_a_root_that_is_no_folder_is_told_apart(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        BIDSDataset(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="is a file"):
        BIDSDataset(root / "sub-01/func/sub-01_task-look_bold.nii")
    with pytest.raises(TypeError, match="root must be the path of a folder, got NoneType"):
        BIDSDataset(None)


def test_a_folder_without_runs_says_what_is_expected(root, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold runs such as sub-01/func/sub-01_task-rest_bold.nii.gz"):
        BIDSDataset(tmp_path / "empty")
    image = root / "sub-01/func/sub-01_task-look_bold.nii"
    image.unlink()
    image.symlink_to("../../.git/annex/objects/nothing")
    with pytest.raises(ValueError, match="1 files are links to nowhere; fetch them first"):
        BIDSDataset(root)


def test_a_run_that_is_not_there_is_an_error_with_the_range(root):
    with pytest.raises(IndexError, match=r"i must lie in 0 ... 0, got 5"):
        BIDSDataset(root).run(5)


def test_a_missing_tr_says_what_to_write_where(root):
    (root / "sub-01/func/sub-01_task-look_bold.json").unlink()
    with pytest.raises(
        ValueError, match=r"got None; write .*RepetitionTime.* into sub-01_task-look_bold.json"
    ):
        _ = windows(root)[0]


@pytest.mark.parametrize("extractor", [FMRIVoxelExtractor, "mask.nii", 5])
def test_what_is_no_extractor_is_named_by_its_kind(root, extractor):
    with pytest.raises(TypeError, match=r"extractor must be an object of neurokern.extractors, such as"):
        windows(root, extractor)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"detrend": "quadratic"},
            ValueError,
            "detrend must be a bool, 'linear' or 'cosine', got 'quadratic'",
        ),
        ({"detrend": "cosine"}, ValueError, "high_pass must be given, in Hz, with detrend='cosine'"),
        ({"detrend": True, "high_pass": 0.01}, ValueError, "only with it, got 0.01 with detrend=True"),
        ({"detrend": "cosine", "high_pass": -1}, ValueError, "high_pass must be a finite number above 0"),
        ({"normalize": "psc"}, TypeError, "normalize must be True or False, got 'psc'"),
        ({"dtype": torch.int8}, ValueError, "dtype must be one of torch.float32"),
        ({"confounds": "csf"}, TypeError, "put it into a list"),
    ],
)
def test_options_of_an_extractor_are_checked_when_it_is_made(options, error, message):
    with pytest.raises(error, match=message):
        FMRIVoxelExtractor(MASK, **options)


def test_a_mask_of_another_grid_is_told_with_the_run(root):
    with pytest.raises(
        ValueError, match=r"mask must have the shape of .*sub-01_task-look_bold.nii, \(4, 3, 2\)"
    ):
        _ = windows(root, FMRIVoxelExtractor(MASK[1:]))[0]


def test_confounds_that_are_not_there_are_told_with_those_that_are(root):
    table = root / "sub-01/func/sub-01_task-look_desc-confounds_timeseries.tsv"
    table.write_text("csf\twhite_matter\n" + "1\t2\n" * N)
    with pytest.raises(ValueError, match="there is no rot_x; there are csf, white_matter"):
        _ = windows(root, FMRIVoxelExtractor(MASK, confounds=["rot_x"]))[0]


def test_confounds_that_leave_nothing_are_an_error(root):
    table = root / "sub-01/func/sub-01_task-look_desc-confounds_timeseries.tsv"
    values = np.random.default_rng(0).normal(size=(N, N))
    pd.DataFrame(values, columns=[f"c{k}" for k in range(N)]).to_csv(table, sep="\t", index=False)
    with pytest.raises(
        ValueError, match="must leave something of 20 volumes, together they span 20 dimensions"
    ):
        _ = windows(root, FMRIVoxelExtractor(MASK, confounds=["c*"]))[0]
    with pytest.raises(ValueError, match="must leave something of 20 volumes"):
        _ = windows(root, FMRIVoxelExtractor(MASK, detrend="cosine", high_pass=1.0))[0]
    assert windows(root, FMRIVoxelExtractor(MASK, confounds=["c1", "c2"]))[0]["signal"].shape == (N, 24)


def test_times_of_events_that_are_text_are_told_with_the_run(root):
    write_events(root, [("soon", 6, "face")])
    with pytest.raises(ValueError, match=r"sub-01_task-look_bold.nii: onset of its events must be seconds"):
        windows(root, length=3, events=True)
    write_events(root, [(2.0, "long", "face")])
    with pytest.raises(ValueError, match="duration of its events must be seconds or n/a"):
        _ = windows(root)[0]


def test_windows_that_all_reach_beyond_their_run_say_so(root):
    with pytest.raises(
        ValueError, match=r"all 2 windows at events reach beyond their run.*see tmin, hrf_delay"
    ):
        windows(root, length=3, events=True, tmin=500.0)
