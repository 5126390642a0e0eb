"""Anatomical images of a BIDS folder, several modalities of one, and pipelines of derivatives."""

import json

import numpy as np
import pytest

from neurokern.datasets import BIDSDataset, BIDSIndex

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import (  # noqa: E402
    AnatomicalImages,
    group_windows,
    leave_one_out,
    split_windows,
)
from neurokern.extractors import (  # noqa: E402
    FMRIParcelExtractor,
    FMRIVolumeExtractor,
    FMRIVoxelExtractor,
    MEEGExtractor,
)

SHAPE = (5, 4, 3)


def write_image(path, seed, shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return values


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "ds"
    for k, subject in enumerate(("01", "02", "03")):
        stem = f"sub-{subject}"
        write_image(root / stem / f"anat/{stem}_T1w.nii.gz", k)
        write_image(root / stem / f"anat/{stem}_T2w.nii.gz", 10 + k)
        write_image(root / stem / f"func/{stem}_task-a_bold.nii.gz", 20 + k, (*SHAPE, 6))
        write_image(
            root / f"derivatives/prep/{stem}/anat/{stem}_space-MNI_desc-preproc_T1w.nii.gz", 30 + k, (3, 3, 3)
        )
        write_image(root / f"derivatives/other/{stem}/anat/{stem}_space-MNI_desc-preproc_T1w.nii.gz", 40 + k)
    (root / "T1w.json").write_text(json.dumps({"EchoTime": 0.003}))
    (root / "task-a_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    (root / "sub-01/eeg").mkdir()
    (root / "sub-01/eeg/sub-01_task-a_eeg.edf").touch()
    return root


def values_of(root, subject, suffix="T1w"):
    image = nibabel.load(root / f"sub-{subject}/anat/sub-{subject}_{suffix}.nii.gz")
    return np.asarray(image.dataobj, dtype=np.float32)


def test_an_image_is_an_item_without_time(root):
    images = BIDSDataset(root, "anat").with_extractor(FMRIVolumeExtractor())
    assert isinstance(images, AnatomicalImages)
    assert (len(images), images.feature_dim) == (3, SHAPE)
    item = images[1]
    np.testing.assert_array_equal(item["signal"], values_of(root, "02"))
    assert (item["subject"], item["session"], item["space"]) == ("02", "", "")
    assert images.runs[0].metadata == {"EchoTime": 0.003}


def test_masks_crops_and_parcels_are_taken_of_it(root):
    brain = BIDSDataset(root, "anat", suffix="T2w", subject="03")
    volume = values_of(root, "03", "T2w")
    mask = np.zeros(SHAPE, bool)
    mask[1:4, 2, :2] = True
    np.testing.assert_array_equal(brain.with_extractor(FMRIVoxelExtractor(mask))[0]["signal"], volume[mask])
    cropped = brain.with_extractor(FMRIVolumeExtractor(crop=mask))
    np.testing.assert_array_equal(cropped[0]["signal"], volume[1:4, 2:3, :2])
    means = brain.with_extractor(FMRIParcelExtractor(mask.astype(int)))[0]["signal"]
    np.testing.assert_allclose(means, [volume[mask].mean()], rtol=1e-6)


def test_batches_come_through_any_loader_and_splits(root):
    images = BIDSDataset(root, "anat").with_extractor(FMRIVolumeExtractor())
    (batch,) = DataLoader(images, batch_size=3)
    assert batch["signal"].shape == (3, *SHAPE)
    assert batch["subject"] == ["01", "02", "03"]
    parts = split_windows(images, by="subject", test=0.34, validation=0)
    assert (len(parts.train), len(parts.test)) == (2, 1)
    assert {fold.name for fold in leave_one_out(images)} == {"subject 01", "subject 02", "subject 03"}
    alone = group_windows(images)["subject 02"]
    np.testing.assert_array_equal(alone[0]["signal"], values_of(root, "02"))


def test_what_looks_along_time_is_refused(root):
    with pytest.raises(ValueError, match="look along time, which an anatomical image has not"):
        BIDSDataset(root, "anat").with_extractor(FMRIVolumeExtractor(normalize=True))
    with pytest.raises(TypeError, match=r"extractor must be an object of neurokern.extractors for images"):
        BIDSDataset(root, "anat").with_extractor(MEEGExtractor())
    write_image(root / "sub-01/anat/sub-01_T1w.nii.gz", 0, (*SHAPE, 2))
    with pytest.raises(ValueError, match=r"sub-01_T1w.nii.gz: .* must have one volume, it has 2"):
        _ = BIDSDataset(root, "anat").with_extractor(FMRIVolumeExtractor())[0]


def test_images_of_several_shapes_make_no_batch(root):
    write_image(root / "sub-01/anat/sub-01_T1w.nii.gz", 0, (5, 4, 4))
    images = BIDSDataset(root, "anat").with_extractor(FMRIVolumeExtractor())
    with pytest.raises(ValueError, match=r"one shape, got \[\(5, 4, 3\), \(5, 4, 4\)\]; choose images"):
        next(iter(DataLoader(images, batch_size=2)))
    assert len(list(DataLoader(images, batch_size=1))) == 3


def test_one_pipeline_of_several_can_be_named(root):
    assert len(BIDSDataset(root, "anat", space="MNI")) == 6
    prep = BIDSDataset(root, "anat", derivatives="prep", space="MNI")
    assert prep.with_extractor(FMRIVolumeExtractor()).feature_dim == (3, 3, 3)
    with pytest.raises(ValueError, match=r"derivatives must name a folder .*\(other, prep\), got 'old'"):
        BIDSDataset(root, "anat", derivatives="old")


def test_several_modalities_are_one_table_that_can_be_asked_again(root):
    every = BIDSDataset(root, None)
    assert sorted(every.table["datatype"]) == ["anat"] * 3 + ["eeg"] + ["func"] * 3
    assert every.modality is None
    assert "anat: 3 runs" in repr(every)
    with pytest.raises(ValueError, match=r"runs must be of one modality.*query"):
        every.with_extractor(FMRIVolumeExtractor())
    func = every.query("func", subject=["01", "03"])
    assert (func.modality, len(func)) == ("func", 2)
    assert func.with_extractor(FMRIVolumeExtractor())[0]["signal"].shape == (6, *SHAPE)
    assert func.table["subject"].tolist() == ["01", "03"]
    assert [len(every.query(kind)) for kind in ("anat", "eeg")] == [3, 1]
    assert len(every.query(["anat", "func"], subject="02")) == 2
    with pytest.raises(ValueError, match=r"no run in .* fits subject='09'"):
        every.query(subject="09")
    with pytest.raises(ValueError, match="modality must be"):
        BIDSDataset(root, ("func", "anat")).query("eeg")


def test_an_index_serves_several_datasets(root):
    index = BIDSIndex(root)
    assert len(BIDSDataset(index, "anat")) == len(BIDSDataset(index)) == 3
    assert BIDSDataset(index, "anat").index is index


def test_a_folder_without_anatomy_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match=r"such as sub-01/anat/sub-01_T1w.nii.gz, got none"):
        BIDSDataset(tmp_path, "anat")
