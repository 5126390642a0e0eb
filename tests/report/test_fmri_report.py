"""Pages about fMRI: numbers that match plain numpy, figures of any image, no names, clear errors."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")
nibabel = pytest.importorskip("nibabel")

from neurokern.cli import main  # noqa: E402
from neurokern.datasets import bright_mask  # noqa: E402
from neurokern.ops import NiftiFile  # noqa: E402
from neurokern.report.fmri_figures import _planes, brain_slices, run_timeline  # noqa: E402
from neurokern.report.fmri_quality import MOTION, framewise_displacement, measure_run  # noqa: E402

SHAPE, N, TR = (8, 7, 6), 30, 2.0


def head(n_volumes=N, seed=0):
    """A bright ball of noise about 1000 on a dark ground; (x, y, z, t)."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    inside = (at**2).sum(0) < 9
    values = np.where(
        inside[..., None], rng.normal(1000, 10, (*SHAPE, n_volumes)), rng.normal(20, 3, (*SHAPE, n_volumes))
    )
    return values.astype(np.float32), inside


def save(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.diag([3.0, 3.0, 3.0, 1.0]) if affine is None else affine)
    if values.ndim > 3:
        image.header.set_zooms((3.0, 3.0, 3.0, TR))
    nibabel.save(image, path)
    return path


def report(tmp_path, *arguments):
    page = tmp_path / "page.html"
    assert main(["report", *map(str, arguments), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    for data in re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', text):
        ElementTree.fromstring(base64.b64decode(data))
    return text


def fails(capsys, *arguments):
    assert main(["report", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


# ---- the automatic mask


def test_the_bright_mask_finds_the_head():
    values, inside = head()
    assert np.array_equal(bright_mask(values.mean(3)), inside)


def test_the_bright_mask_leaves_out_what_is_not_finite_and_is_not_led_by_few_bright_voxels():
    values, inside = head()
    mean = values.mean(3)
    mean[4, 4, 3] = np.nan
    mean[0, 0, 0] = 1e6
    found = bright_mask(mean)
    assert not found[4, 4, 3]
    inside[4, 4, 3] = False
    inside[0, 0, 0] = True
    assert np.array_equal(found, inside)


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan])
def test_the_bright_mask_of_nothing_bright_is_an_error(value):
    with pytest.raises(ValueError, match="must have voxels above 0"):
        bright_mask(np.full(SHAPE, value))


def test_the_bright_mask_of_one_value_is_all_of_it():
    assert bright_mask(np.full(SHAPE, 5.0)).all()


# ---- numbers


def test_maps_and_courses_are_those_of_numpy(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "neurokern.report.fmri_quality._BLOCK_BYTES", 4 * np.prod(SHAPE) * 7
    )  # several blocks
    values, inside = head()
    quality = measure_run(NiftiFile(save(tmp_path / "a.nii.gz", values), cache=False))
    data = values.astype(np.float64)
    assert np.array_equal(quality.mask, inside)
    assert "Otsu" in quality.mask_how
    np.testing.assert_allclose(quality.mean, data.mean(3), rtol=1e-6)
    line = np.column_stack([np.ones(N), np.arange(N)])
    flat = data.reshape(-1, N).T
    left = flat - line @ np.linalg.lstsq(line, flat, rcond=None)[0]
    spread = np.sqrt((left**2).sum(0) / (N - 2)).reshape(SHAPE)
    np.testing.assert_allclose(quality.tsnr, data.mean(3) / spread, rtol=1e-5)
    rows = data[inside].T
    np.testing.assert_allclose(quality.global_signal, 100 * (rows.mean(1) / rows.mean() - 1), atol=1e-4)
    change = np.sqrt((np.diff(rows, axis=0) ** 2).mean(1)) / rows.mean() * 100
    np.testing.assert_allclose(quality.dvars[1:], change, rtol=1e-5)
    assert np.isnan(quality.dvars[0])
    assert quality.before.shape == quality.after.shape == (inside.sum(), N)
    np.testing.assert_allclose(quality.after.std(1, ddof=1), 1, rtol=1e-4)
    np.testing.assert_allclose(quality.after @ (np.arange(N) - (N - 1) / 2), 0, atol=1e-2)


def test_a_constant_voxel_and_a_straight_line_have_no_tsnr(tmp_path):
    values, _ = head()
    values[4, 3, 3] = 700
    values[4, 3, 2] = 700 + 2.0 * np.arange(N)
    quality = measure_run(NiftiFile(save(tmp_path / "a.nii", values)))
    assert np.isnan(quality.tsnr[4, 3, 2:4]).all()


def test_voxels_that_are_not_finite_are_counted_and_left_out(tmp_path):
    values, inside = head()
    values[4, 3, 3, 5] = np.nan
    values[4, 3, 2, 0] = np.inf
    quality = measure_run(NiftiFile(save(tmp_path / "a.nii", values)))
    assert quality.n_not_finite == 2
    assert quality.mask.sum() == inside.sum() - 2
    assert np.isfinite(quality.global_signal).all()


def test_displacement_is_powers_sum_unless_the_table_has_it():
    table = pd.DataFrame(np.zeros((3, 6)), columns=list(MOTION))
    table.loc[1:, "trans_x"] = -0.25
    table.loc[2, "rot_y"] = 0.01
    moved = framewise_displacement(table)
    assert np.isnan(moved[0])
    np.testing.assert_allclose(moved[1:], [0.25, 0.5])
    table["framewise_displacement"] = [np.nan, 7.0, 8.0]
    assert framewise_displacement(table)[2] == 8.0
    assert framewise_displacement(table[["trans_x"]]) is None


def test_confounds_are_taken_out_of_the_second_carpet(tmp_path):
    values, inside = head()
    motion = np.sin(np.arange(N))
    values[inside] += 40 * motion.astype(np.float32)
    confounds = pd.DataFrame({name: np.random.default_rng(3).normal(size=N) for name in MOTION})
    confounds["trans_z"] = motion
    confounds.loc[0, "rot_x"] = np.nan
    quality = measure_run(NiftiFile(save(tmp_path / "a.nii", values)), confounds=confounds)
    assert quality.removed == MOTION
    assert np.abs(quality.before @ motion).mean() > 10
    assert np.abs(quality.after @ motion).max() < 1e-2


# ---- figures


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_right_is_right_whatever_the_order_of_the_axes(order, signs):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * np.array([2.0, 3.0, 4.0])[list(order)]
    shape = tuple(np.array([5, 6, 7])[list(order)])
    world = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T
    for axis, planes_of in ((0, (1, 2)), (1, (0,)), (2, (0, 1))):
        planes = _planes(world[..., axis], np.ones(shape, bool), affine)
        for which in planes_of:
            plane = planes[which]
            across = plane.values.mean(0) if axis == (1 if which == 0 else 0) else plane.values.mean(1)
            left, right, bottom, top = plane.extent
            ends = (left, right) if axis == (1 if which == 0 else 0) else (bottom, top)
            centers = ends[0] + (np.arange(len(across)) + 0.5) * (ends[1] - ends[0]) / len(across)
            np.testing.assert_allclose(across, centers, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 1, 1), (5, 4, 1), (1, 6, 2)])
def test_planes_of_one_line_are_not_drawn(shape):
    figure = brain_slices(np.ones(shape), np.ones(shape, bool), np.eye(4), label="mean")
    assert (figure is None) == (sum(n > 1 for n in shape) < 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sizes", [(0, 0, 0), (1e30, 2, 2), (1e-30, 2, 2), (np.inf, 2, 2), (np.nan, 2, 2)])
def test_an_affine_that_is_damaged_is_drawn_with_cubes(sizes):
    affine = np.diag([*sizes, 1.0])
    for plane in _planes(np.ones(SHAPE), np.ones(SHAPE, bool), affine):
        left, right, bottom, top = plane.extent
        assert ((top - bottom), (right - left)) == plane.values.shape
    assert brain_slices(np.ones(SHAPE), np.ones(SHAPE, bool), affine, label="mean") is not None


def test_a_condition_with_dollar_signs_is_written_as_it_is():
    course = {"a": np.arange(4.0)}
    figure = run_timeline(course, {}, tr=1.0, events=[(0.0, 1.0, "$x_{$"), (1.0, 1.0, "b")])
    assert "events" in figure.alt


def test_confounds_that_are_text_are_named():
    with pytest.raises(ValueError, match="must be numbers or n/a in the columns framewise_displacement"):
        framewise_displacement(pd.DataFrame({"framewise_displacement": ["high", "low"]}))


def test_many_conditions_share_a_lane():
    events = [(float(k), 1.0, f"<{k}>") for k in range(30)]
    course, carpet = {"a": np.arange(40.0)}, {"b": np.zeros((3, 40))}
    assert "events" in run_timeline(course, carpet, tr=1.0, events=events).alt
    assert "events" not in run_timeline(course, carpet, tr=None, events=events).alt


# ---- pages


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "ds"
    for subject, seed in (("jane", 1), ("joe", 2)):
        func = root / f"sub-{subject}/func"
        save(func / f"sub-{subject}_task-look_bold.nii.gz", head(seed=seed)[0])
        rows = "onset\tduration\ttrial_type\n4\t6\tface\n30\t40\thouse\n"
        (func / f"sub-{subject}_task-look_events.tsv").write_text(rows)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Toy <1>"}))
    (root / "task-look_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    return root


@pytest.fixture
def undrawn(monkeypatch):
    """Leave figures undrawn, where a test is about the rest of the page."""
    monkeypatch.setattr("neurokern.report.fmri_figures.to_data_uri", lambda fig: _EMPTY)


_EMPTY = "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()


def test_a_page_about_a_folder_shows_each_run_and_names_nobody(folder, tmp_path):
    page = report(tmp_path, folder)
    assert page.count("<img") == 6
    assert "Toy &lt;1&gt;" in page
    assert "Subject 2, task look: 1 events go on after the end of the run" in page
    assert not re.search("jane|joe|sub-", page)
    assert "<script" not in page


def test_runs_are_chosen_and_limited(folder, undrawn, tmp_path):
    assert "1 of 2 runs" in report(tmp_path, folder, "--max-runs", "1")
    page = report(tmp_path, folder, "--subject", "joe", "--task", "look", "--title", "Mine")
    assert page.count("<img") == 3
    assert "<h1>Mine</h1>" in page
    assert "Subject 2" in page


def test_a_run_that_cannot_be_read_is_left_out_and_told(folder, undrawn, tmp_path, capsys):
    path = folder / "sub-jane/func/sub-jane_task-look_bold.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    page = report(tmp_path, folder)
    assert "Subject 1, task look is left out" in page
    assert not re.search("jane|joe|sub-", page)
    assert "left out" in capsys.readouterr().out


def test_a_page_about_one_file_finds_its_events(folder, undrawn, tmp_path):
    page = report(tmp_path, folder / "sub-joe/func/sub-joe_task-look_bold.nii.gz")
    assert "Over time: events" in page
    assert not re.search("jane|joe|sub-", page)


def test_a_mask_is_taken_or_found_beside_a_preprocessed_image(folder, undrawn, tmp_path, capsys):
    inside = head()[1].astype(np.uint8)
    path = folder / "derivatives/prep/sub-joe/func/sub-joe_task-look_space-T1w_desc-preproc_bold.nii.gz"
    save(path, head()[0])
    mask = save(path.with_name("sub-joe_task-look_space-T1w_desc-brain_mask.nii.gz"), inside)
    assert "brain mask of the preprocessing" in report(tmp_path, folder, "--space", "T1w")
    assert "Mask: given" in report(tmp_path, path, "--mask", mask)
    other = save(tmp_path / "other.nii", inside[1:])
    error = fails(capsys, path, "--mask", other, "--out", tmp_path / "x.html")
    assert "other.nii" in error
    assert "(8, 7, 6)" in error
    empty = save(tmp_path / "empty.nii", inside * 0)
    assert "at least one voxel" in fails(capsys, path, "--mask", empty, "--out", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    "values",
    [
        head()[0][..., 0],
        head()[0][..., :1],
        head()[0][..., :2],
        head()[0][..., :3],
        np.full((2, 2, 2, 5), np.nan, np.float32),
        np.zeros((3, 3, 3, 4), np.float32),
        np.full((3, 3, 3, 4), -5, np.float32),
        np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8) + 1,
        np.random.default_rng(0).normal(size=(5, 4, 1, 12)).astype(np.float32),
    ],
    ids=["3-D", "one volume", "two", "three", "NaN", "zero", "negative", "one voxel", "one slice"],
)
def test_odd_images_give_a_page_or_one_line_of_error(values, tmp_path, capsys):
    path = save(tmp_path / "a.nii", values)
    if np.isnan(values).all():
        assert "finite in all volumes" in fails(capsys, path, "--out", tmp_path / "page.html")
        return
    page = report(tmp_path, path)
    assert "Mask: " in page
    assert ("no tSNR" in page) == (values.ndim < 4 or values.shape[3] < 3)


def test_wrong_input_is_one_line(folder, tmp_path, capsys):
    assert "no such file or folder: nowhere" in fails(capsys, "nowhere")
    assert "'look'" in fails(capsys, folder, "--task", "sleep")
    assert "evaluate RUN --report" in fails(capsys, folder / "sub-joe")
    (tmp_path / "a.npz").write_bytes(b"PK")
    assert "evaluate RUN --report" in fails(capsys, tmp_path / "a.npz")
    assert "--task" in fails(capsys, folder / "sub-joe/func/sub-joe_task-look_bold.nii.gz", "--task", "look")
    (tmp_path / "a.nii").write_bytes(b"no image" * 99)
    assert "magic" in fails(capsys, tmp_path / "a.nii")
    assert "at least 1" in _usage(capsys, folder, "--max-runs", "0")


def _usage(capsys, *arguments):
    with pytest.raises(SystemExit):
        main(["report", *map(str, arguments)])
    return capsys.readouterr().err
