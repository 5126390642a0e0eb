"""Real images, parcels and atlases hold, through this layer, what their descriptions state."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from neurokern.datasets import BIDSDataset, bright_mask

pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from neurokern import decode_nifti  # noqa: E402
from neurokern.extractors import (  # noqa: E402
    FMRIParcelExtractor,
    FMRIVolumeExtractor,
    FMRIVoxelExtractor,
    functional_connectivity,
)
from neurokern.ops import NiftiFile  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/task_activation.py"


@pytest.fixture
def fmri(shared_data, tmp_path, monkeypatch):
    """The folder of fMRI, with a cache of the test's own."""
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    return shared_data / "fmri"


def t_values(signal, events, tr, plus, minus):
    """t of one contrast in a model with a regressor for each kind of event, a mean and a slope."""
    expected = runpy.run_path(str(EXAMPLE))["expected_signal"]
    kinds, n = sorted(set(events["trial_type"])), len(signal)
    columns = [expected(events[events["trial_type"] == kind], n, tr) for kind in kinds]
    design = np.column_stack([*columns, np.ones(n), np.arange(n) / n])
    contrast = np.zeros(design.shape[1])
    for names, sign in ((plus, 1.0), (minus, -1.0)):
        for name in names:
            contrast[kinds.index(name)] = sign / len(names)
    beta = np.linalg.lstsq(design, signal, rcond=None)[0]
    noise = ((signal - design @ beta) ** 2).sum(0) / (n - design.shape[1])
    return (contrast @ beta) / np.sqrt(noise * (contrast @ np.linalg.inv(design.T @ design) @ contrast))


def test_the_localizer_is_what_its_description_says(fmri):
    brain = BIDSDataset(fmri / "bids_studyforrest_localizer")
    assert len(brain) == 1
    run, header = brain.run(0), NiftiFile(brain.run(0).path).header
    assert (header.shape, header.n_volumes, header.tr) == ((40, 40, 35), 156, pytest.approx(2.0))
    assert run.repetition_time == 2.0
    np.testing.assert_allclose(np.linalg.norm(header.affine[:3, :3], axis=0), [6, 6, 3.3], atol=0.01)
    assert abs(header.affine[1, 2]) > 0.01  # oblique
    assert run.events["trial_type"].value_counts().to_dict() == dict.fromkeys(
        ("body", "face", "house", "object", "scene", "scramble"), 32
    )
    signal = brain.with_extractor(FMRIVolumeExtractor())[0]["signal"].flatten(1).double().numpy()
    mean = signal.mean(0)
    head = mean > 0.3 * np.percentile(mean, 99)
    assert np.median(mean[head] / signal[:, head].std(0)) == pytest.approx(90, abs=3)


def test_the_localizer_answers_by_the_sidecars_tr_and_not_by_a_guess(fmri):
    brain = BIDSDataset(fmri / "bids_studyforrest_localizer")
    run = brain.run(0)
    mask = bright_mask(np.asarray(decode_nifti(run.path)).mean(0))
    signal = brain.with_extractor(FMRIVoxelExtractor(mask, detrend=True))[0]["signal"].double().numpy()
    kinds = sorted(set(run.events["trial_type"]))
    seen = t_values(signal, run.events, run.repetition_time, kinds, [])
    assert 22 < seen.max() < 30  # 24.6 by the description
    assert t_values(signal, run.events, 1.79, kinds, []).max() == pytest.approx(5, abs=0.5)
    affine = NiftiFile(run.path).header.affine
    ahead = (np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3])[:, 1]
    assert ahead[seen.argmax()] < ahead.min() + 0.33 * np.ptp(ahead)  # occipital
    contrast = t_values(signal, run.events, 2.0, ["face"], ["scene"])
    assert -14 < contrast.min() < -10
    assert 10 < contrast.max() < 14


def test_runs_and_masks_of_haxby_lie_on_the_grids_that_are_stated(fmri):
    root = fmri / "bids_haxby2001_lite"
    for acquisition, shape in (("1slice", (40, 20, 1)), ("25mm", (6, 10, 10))):
        brain = BIDSDataset(root, acquisition=acquisition)
        assert brain.table["run"].tolist() == [f"{k:02d}" for k in range(1, 10)]
        for i in range(9):
            run, header = brain.run(i), NiftiFile(brain.run(i).path).header
            assert (header.shape, header.n_volumes) == (shape, 121)
            assert run.repetition_time == 2.5
            assert sorted(run.events["trial_type"]) == sorted(
                ("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe")
            )
            assert (run.events["duration"] == 22.5).all()
    files = brain.index.files
    masks = files[files["suffix"].eq("mask")]
    assert sorted(masks["label"]) == ["brain", "gray", "hoc", "vt", "white"]
    for path in masks["path"]:
        item = BIDSDataset(root, acquisition="25mm", run=1).with_extractor(FMRIVoxelExtractor(path))[0]
        assert item["signal"].shape == (121, int((nibabel.load(path).get_fdata() != 0).sum()))


def test_a_mask_of_haxbys_other_grid_is_refused_with_both_shapes(fmri):
    root = fmri / "bids_haxby2001_lite"
    mask = next(root.glob("derivatives/masks/sub-001/*label-brain_mask.nii.gz"))
    with pytest.raises(ValueError, match=r"\(40, 20, 1\).*\(6, 10, 10\)|\(6, 10, 10\).*\(40, 20, 1\)"):
        _ = BIDSDataset(root, acquisition="1slice").with_extractor(FMRIVoxelExtractor(mask))[0]


def test_resting_parcels_have_the_stated_connectivity(fmri):
    """Homotopic correlations of 0.56 to 0.72 in AAL2, and 0.35 to 0.38 with the log of the fibers."""
    homotopic, structural = [], []
    with np.load(fmri / "roi_timeseries/gw_aal2_3sub.npz", allow_pickle=False) as file:
        people = sorted({name.partition("__")[0] for name in file.files})
        assert len(people) == 3
        for person in people:
            signal, fibers = file[f"{person}__bold"], file[f"{person}__DTI_CM"].astype(np.float64)
            assert signal.shape == (94, 355)
            together = np.asarray(functional_connectivity(signal.T.astype(np.float64)))
            homotopic.append(together[np.arange(0, 94, 2), np.arange(1, 94, 2)].mean())
            pairs = np.triu_indices(94, 1)
            structural.append(np.corrcoef(np.log1p(fibers[pairs]), together[pairs])[0, 1])
    assert (round(min(homotopic), 2), round(max(homotopic), 2)) == (0.56, 0.72)
    assert (round(min(structural), 2), round(max(structural), 2)) == (0.35, 0.38)


def test_atlases_decode_to_what_their_files_hold(shared_data):
    atlas = shared_data / "atlas"
    gray = decode_nifti(atlas / "mni152nlin2009a_gm_2mm.nii.gz")[0]
    assert tuple(gray.shape) == (99, 117, 95)
    assert 1.4 < float((gray > 50).sum()) * 8e-6 < 1.6  # liters of gray matter
    labels = np.asarray(decode_nifti(atlas / "craddock_cc400_3mm.nii.gz")[0])
    assert len(np.unique(labels)) == 1 + 392
    header = NiftiFile(atlas / "craddock_cc400_3mm.nii.gz").header
    assert header.orientation == "LAS"  # the trap: radiological x
    assert NiftiFile(atlas / "mni152nlin2009a_t1_2mm.nii.gz").header.orientation == "RAS"


def test_an_atlas_of_another_space_is_refused_and_not_resampled(fmri, shared_data):
    brain = BIDSDataset(fmri / "bids_studyforrest_localizer")
    with pytest.raises(ValueError, match=r"\(40, 40, 35\).*\(63, 75, 61\)|\(63, 75, 61\).*\(40, 40, 35\)"):
        _ = brain.with_extractor(FMRIParcelExtractor(shared_data / "atlas/craddock_cc400_3mm.nii.gz"))[0]
