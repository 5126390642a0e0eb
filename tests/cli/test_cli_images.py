"""``neurokern info`` on NIfTI images and BIDS folders: what it says, what it warns of, how it fails."""

import json
import os
import struct

import numpy as np
import pandas as pd
import pytest

from neurokern.cli import main
from neurokern.ops import NiftiFile

nibabel = pytest.importorskip("nibabel")

SHAPE, TR, N_VOLUMES = (6, 5, 4), 2.0, 20


def info(capsys, *arguments):
    assert main(["info", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def text(capsys, *arguments):
    assert main(["info", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def fails(capsys, *arguments):
    assert main(["info", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.count("\n") == 1
    return error


def write_image(path, *, shape=(*SHAPE, N_VOLUMES), tr=TR, units="sec", affine=None, extension=None):
    values = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    if len(shape) > 3:
        image.header.set_zooms((2.0, 2.0, 3.0, tr))
        image.header.set_xyzt_units("mm", units)
    if extension is not None:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(extension, b"Somebody^Jane  "))
    nibabel.save(image, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two subjects with a run each; a derivative with confounds."""
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "Toy", "BIDSVersion": "1.8.0"}))
    for subject in ("01", "02"):
        func = tmp_path / f"sub-{subject}/func"
        func.mkdir(parents=True)
        stem = f"sub-{subject}_task-look"
        write_image(func / f"{stem}_bold.nii.gz")
        rows = [(4.0, 8.0, "face"), (20.0, 8.0, "house")]
        table = pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])
        table.to_csv(func / f"{stem}_events.tsv", sep="\t", index=False)
    (tmp_path / "task-look_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    derived = tmp_path / "derivatives/prep/sub-01/func"
    derived.mkdir(parents=True)
    write_image(derived / "sub-01_task-look_space-MNI_desc-preproc_bold.nii.gz")
    return tmp_path


def events_of(folder):
    return folder / "sub-01/func/sub-01_task-look_events.tsv"


# ---- images


def test_the_header_is_told_in_full(tmp_path, capsys):
    facts = info(capsys, write_image(tmp_path / "a.nii.gz"))[0]
    assert facts["shape"] == [*SHAPE, N_VOLUMES]
    assert facts["zooms"] == [2.0, 2.0, 3.0]
    assert (facts["dtype"], facts["byte_order"], facts["slope"], facts["inter"]) == (
        "int16",
        "little",
        1.0,
        0.0,
    )
    assert (facts["orientation"], facts["affine_source"], facts["sform_code"]) == ("RAS", "sform", 2)
    assert facts["compressed"] is True
    assert facts["bytes_on_disk"] == (tmp_path / "a.nii.gz").stat().st_size
    assert facts["bytes_decoded"] == 2 * np.prod(facts["shape"])
    shown = text(capsys, tmp_path / "a.nii.gz")
    assert "6 × 5 × 4 × 20" in shown
    assert "x right, y anterior, z superior" in shown


def test_the_tr_is_the_sidecars_and_a_differing_header_is_told(tmp_path, capsys):
    path = write_image(tmp_path / "a.nii", tr=1.79)
    (tmp_path / "a.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    facts = info(capsys, path)[0]
    assert (facts["tr_s"], facts["tr_source"], facts["tr_header_s"]) == (2.0, "sidecar", 1.79)
    assert "wrong by 3.99 s at the end of the run" in facts["warnings"][0]
    (tmp_path / "a.json").write_text(json.dumps({"RepetitionTime": 1.79}))
    assert info(capsys, path)[0]["warnings"] == []


def test_a_tr_without_a_sidecar_is_the_headers_guess(tmp_path, capsys):
    facts = info(capsys, write_image(tmp_path / "a.nii", tr=2000.0, units="msec"))[0]
    assert (facts["tr_s"], facts["tr_source"], facts["tr_header_unit"]) == (2.0, "header", "ms")
    assert "header's guess" in facts["warnings"][0]
    wrong_unit = info(capsys, write_image(tmp_path / "b.nii", tr=2000.0, units="sec"))[0]
    assert any("milliseconds" in warning for warning in wrong_unit["warnings"])
    none = info(capsys, write_image(tmp_path / "c.nii", tr=0.0))[0]
    assert none["tr_source"] is None
    assert "neither" in none["warnings"][0]
    (tmp_path / "a.json").write_text(json.dumps({"RepetitionTime": "2"}))
    assert any("positive number" in warning for warning in info(capsys, tmp_path / "a.nii")[0]["warnings"])


def test_an_image_without_a_time_axis_has_no_tr(tmp_path, capsys):
    facts = info(capsys, write_image(tmp_path / "mask.nii", shape=SHAPE))[0]
    assert (facts["shape"], facts["tr_s"], facts["warnings"]) == (list(SHAPE), None, [])


def test_extensions_are_listed_and_what_they_say_is_not(tmp_path, capsys):
    path = write_image(tmp_path / "a.nii.gz", shape=SHAPE, extension="comment")
    assert info(capsys, path)[0]["extensions"] == [{"code": 6, "name": "comment", "bytes": 32}]
    path = write_image(tmp_path / "b.nii", shape=SHAPE, extension="comment")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<i", raw, 356, 2)  # its code becomes that of DICOM
    path.write_bytes(raw)
    shown = text(capsys, path)
    assert "may name the subject" in shown
    assert "Somebody" not in shown


@pytest.mark.parametrize("size", [-8, 0, 7, 2**31 - 1])
def test_an_extension_of_impossible_size_is_told(tmp_path, capsys, size):
    path = write_image(tmp_path / "a.nii", shape=SHAPE, extension="comment")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<i", raw, 352, size)
    path.write_bytes(raw)
    assert f"got {size} bytes" in info(capsys, path)[0]["warnings"][0]


def test_an_image_without_a_place_in_space_is_told(tmp_path, capsys):
    path = write_image(tmp_path / "a.nii", shape=SHAPE)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<2h", raw, 252, 0, 0)
    path.write_bytes(raw)
    assert "left and right are a guess" in info(capsys, path)[0]["warnings"][0]
    struct.pack_into("<2h", raw, 252, 0, 1)
    struct.pack_into("<12f", raw, 280, *[0.0] * 12)
    path.write_bytes(raw)
    assert "no place in space" in text(capsys, path)


def test_axes_lead_where_nibabel_says(tmp_path):
    rng = np.random.default_rng(1)
    for _ in range(25):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        affine = np.eye(4)
        affine[:3, :3] = rotation * rng.uniform(0.5, 4.0, 3)
        header = NiftiFile(write_image(tmp_path / "a.nii", shape=SHAPE, affine=affine)).header
        assert header.orientation == "".join(nibabel.aff2axcodes(affine))
        along = [max(abs(column)) for column in rotation.T]
        assert header.obliqueness >= np.degrees(np.arccos(min(1.0, *along))) - 1e-4


def test_a_pair_is_one_image_with_the_bytes_of_both(tmp_path, capsys):
    values = np.zeros(SHAPE, np.int16)
    nibabel.save(nibabel.Nifti1Pair(values, np.eye(4)), tmp_path / "a.img")
    facts = info(capsys, tmp_path)
    assert [one["source"] for one in facts] == ["a.hdr"]
    assert facts[0]["bytes_on_disk"] == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_files_that_are_no_images_are_named_in_one_line(tmp_path, capsys):
    (tmp_path / "empty.nii").write_bytes(b"")
    assert "empty.nii: the file is empty" in fails(capsys, tmp_path / "empty.nii")
    (tmp_path / "text.nii.gz").write_text("not an image at all" * 40)
    assert "text.nii.gz: magic must be" in fails(capsys, tmp_path / "text.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    assert "it is a folder" in fails(capsys, tmp_path / "folder.nii")
    os.mkfifo(tmp_path / "pipe.nii")
    assert "pipe.nii" in fails(capsys, tmp_path / "pipe.nii")
    assert "none.nii" in fails(capsys, tmp_path / "none.nii")


# ---- BIDS folders


def test_a_folder_is_told_by_subjects_runs_and_events(folder, capsys):
    facts = info(capsys, folder)[0]
    assert (facts["name"], facts["bids_version"]) == ("Toy", "1.8.0")
    assert (facts["subjects"], facts["sessions"], facts["tasks"]) == (["01", "02"], [], ["look"])
    assert [run["volumes"] for run in facts["runs"]] == [N_VOLUMES] * 2
    assert [(run["tr_s"], run["tr_source"]) for run in facts["runs"]] == [(TR, "sidecar")] * 2
    assert facts["conditions"] == {"face": 2, "house": 2}
    assert facts["derivatives"] == {"prep": {"images": 1, "tables": 0}}
    assert facts["warnings"] == []
    shown = text(capsys, folder)
    assert "task look: 2 runs of 20 volumes, TR 2 s by the sidecar; 6 × 5 × 4 voxels" in " ".join(
        shown.split()
    )


def test_a_folder_without_a_description_is_known_by_its_subjects(folder, capsys):
    (folder / "dataset_description.json").unlink()
    assert len(info(capsys, folder)[0]["runs"]) == 2


def test_what_does_not_fit_together_is_told_with_its_file(folder, capsys):
    rows = "onset\tduration\ttrial_type\n30\t20\tface\n44\t1\thouse\nn/a\t1\thouse\n"
    events_of(folder).write_text(rows)
    write_image(folder / "sub-02/func/sub-02_task-look_bold.nii.gz", tr=1.5)
    events_of(folder).with_name("sub-02_task-look_events.tsv")
    (folder / "sub-02/func/sub-02_task-look_events.tsv").unlink()
    said = info(capsys, folder)[0]["warnings"]
    assert all(warning.startswith("sub-0") for warning in said)
    for part in (
        "1 events begin after the end of the run at 40 s, the last at 44 s",
        "1 events go on after the end of the run at 40 s",
        "1 events have no onset",
        "TR is 2 s by the sidecar and 1.5 s by the header",
        "no table of events",
    ):
        assert sum(part in warning for warning in said) == 1, part


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "task-look_bold.json").unlink(), "no sidecar (.json) with RepetitionTime"),
        (lambda f: (f / "task-look_bold.json").write_text("{"), "must be JSON"),
        (lambda f: events_of(f).write_text("onset\ttrial_type\n1\tface\n"), "there is no duration"),
        (
            lambda f: (f / "sub-01/func/sub-01_task-look_bold.nii.gz").write_bytes(b"\x1f\x8bnot gzip"),
            "bold.nii.gz",
        ),
        (lambda f: write_image(f / "sub-01/func/sub-01_task-look_bold.nii.gz", shape=SHAPE), "no time axis"),
    ],
)
def test_one_bad_file_is_a_warning_and_the_rest_is_told(folder, capsys, damage, said):
    damage(folder)
    facts = info(capsys, folder)[0]
    assert len(facts["runs"]) == 2
    assert any(said in warning for warning in facts["warnings"]), facts["warnings"]
    assert said.split()[0] in text(capsys, folder)


def test_fields_of_any_kind_and_events_without_a_type_are_told(folder, capsys):
    (folder / "dataset_description.json").write_text(
        json.dumps({"Name": 5, "BIDSVersion": [1], "License": {}})
    )
    events_of(folder).write_text("onset\tduration\ttrial_type\n1\t2\tn/a\n3\t1\tface\n")
    facts = info(capsys, folder)[0]
    assert (facts["name"], facts["license"]) == ("5", None)
    assert facts["conditions"] == {"face": 2, "house": 1, "n/a": 1}
    assert "name" in text(capsys, folder)


def test_a_sidecar_that_cannot_be_read_is_told_beside_the_header(tmp_path, capsys):
    path = write_image(tmp_path / "a.nii")
    for content in ("{", "[" * 100_000, "[1]"):
        (tmp_path / "a.json").write_text(content)
        facts = info(capsys, path)[0]
        assert "a.json must" in facts["warnings"][0]
        assert facts["tr_source"] == "header"


def test_data_that_were_not_fetched_are_told(folder, capsys):
    path = folder / "sub-01/func/sub-01_task-look_bold.nii.gz"
    path.unlink()
    path.symlink_to("../../.git/annex/objects/nowhere")
    assert "1 data files are links to nowhere" in info(capsys, folder)[0]["warnings"][0]


def test_an_image_in_a_folder_inherits_its_metadata(folder, capsys):
    facts = info(capsys, folder / "sub-01/func/sub-01_task-look_bold.nii.gz")[0]
    assert (facts["tr_source"], facts["warnings"]) == ("sidecar", [])


def test_an_empty_folder_says_what_is_expected(tmp_path, capsys):
    assert "folders of subjects" in fails(capsys, tmp_path)


def test_info_on_the_real_folders(shared_data, capsys):
    facts = info(
        capsys, shared_data / "fmri/bids_haxby2001_lite", shared_data / "fmri/bids_studyforrest_localizer"
    )
    assert len(facts[0]["runs"]) == 18
    assert facts[1]["conditions"] == dict.fromkeys(
        ["body", "face", "house", "object", "scene", "scramble"], 32
    )
    assert [one["warnings"] for one in facts] == [[], []]
