"""Confounds by what they are, scrubbing, band-pass, and cleaning that is fitted on a part of a run."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from neurokern.datasets import BIDSDataset  # noqa: E402
from neurokern.extractors import Confounds, FMRIVoxelExtractor  # noqa: E402
from neurokern.ops import NiftiFile, VoxelMask, decode_nifti, fit_cleaning  # noqa: E402

N, TR, SHAPE = 60, 2.0, (4, 3, 2)
SIX = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
ENDS = ["", "_derivative1", "_power2", "_derivative1_power2"]


def fmriprep_table(seed=0):
    rng = np.random.default_rng(seed)
    names = [name + end for name in [*SIX, "csf", "white_matter", "global_signal"] for end in ENDS]
    names += [f"a_comp_cor_{k:02d}" for k in range(6)] + ["cosine00", "cosine01", "aroma_motion_01"]
    table = pd.DataFrame(rng.normal(size=(N, len(names))), columns=names)
    table["framewise_displacement"] = rng.uniform(0, 0.4, N)
    table["std_dvars"] = rng.uniform(0.8, 1.2, N)
    table["non_steady_state_outlier00"] = np.arange(N) == 0
    without_first = [name for name in table if "derivative1" in name]
    table.loc[0, [*without_first, "framewise_displacement", "std_dvars"]] = np.nan
    table.loc[[20, 21], "framewise_displacement"] = 2.0
    table.loc[40, "std_dvars"] = 3.0
    return table


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """One run whose voxels are confounds, a slow wave and noise; two volumes are artefacts."""
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    table = fmriprep_table()
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(6, 24))
    values = 1000 + 30 * table[SIX].to_numpy() @ mix + 20 * rng.normal(size=(N, 24))
    values[20:22] += 4000
    func = tmp_path / "ds/sub-01/func"
    func.mkdir(parents=True)
    image = nibabel.Nifti1Image(values.T.reshape(*SHAPE, N).astype(np.float32), np.eye(4))
    image.header.set_zooms((1, 1, 1, TR))
    nibabel.save(image, func / "sub-01_task-rest_bold.nii")
    (func / "sub-01_task-rest_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    table.to_csv(func / "sub-01_task-rest_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a")
    return tmp_path / "ds", values.reshape(N, 24), table


def cleaned(root, **options):
    item = BIDSDataset(root, task="rest").with_extractor(FMRIVoxelExtractor(**options))[0]
    return item["signal"].double().numpy(), item["valid"].numpy()


def least_squares(values, columns, fitted):
    """Return what is left of values when columns and a constant, fitted on some volumes, are taken out."""
    design = np.column_stack([np.ones(N), columns])
    rest = values - design @ np.linalg.lstsq(design[fitted], values[fitted], rcond=None)[0]
    return rest / rest[fitted].std(0, ddof=1) * np.sqrt(1.0)


# ---- which columns


@pytest.mark.parametrize(("motion", "ends"), [(0, 0), (6, 1), (12, 2), (24, 4)])
def test_motion_is_expanded_by_derivatives_and_squares(motion, ends):
    found = Confounds(motion=motion).columns(fmriprep_table())
    assert sorted(found) == sorted(name + end for end in ENDS[:ends] for name in SIX)


def test_each_kind_of_confound_is_found_by_what_it_is():
    chosen = Confounds(motion=0, white_matter_csf=4, global_signal=1, compcor=5, aroma=True)
    assert set(chosen.columns(fmriprep_table())) == {
        *("csf", "white_matter", "csf_derivative1", "white_matter_derivative1", "global_signal"),
        *(f"a_comp_cor_{k:02d}" for k in range(5)),
        *("cosine00", "cosine01", "aroma_motion_01"),
    }


def test_tables_of_old_versions_have_other_names():
    old = ["X", "Y", "Z", "RotX", "RotY", "RotZ", "CSF", "WhiteMatter", "GlobalSignal"]
    old += ["aCompCor01", "aCompCor00", "Cosine00", "FramewiseDisplacement", "stdDVARS"]
    table = pd.DataFrame(np.arange(3)[:, None] * np.ones(len(old)), columns=old)
    chosen = Confounds(white_matter_csf=2, global_signal=1, compcor=2, scrub_displacement=1.5, scrub_dvars=9)
    assert set(chosen.columns(table)) == set(old) - {"FramewiseDisplacement", "stdDVARS"}
    assert chosen.columns(table)[-3:] == ["aCompCor00", "aCompCor01", "Cosine00"]
    assert chosen.kept(table).tolist() == [True, True, False]


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no columns rot_x"):
        Confounds().columns(fmriprep_table().drop(columns="rot_x"))
    with pytest.raises(ValueError, match=r"compcor=9 components .* has 6"):
        Confounds(compcor=9).columns(fmriprep_table())
    with pytest.raises(ValueError, match="no columns aroma_motion_01"):
        Confounds(aroma=True).columns(fmriprep_table()[SIX])
    with pytest.raises(ValueError, match="no columns std_dvars"):
        Confounds(scrub_dvars=1).kept(fmriprep_table()[SIX])


@pytest.mark.parametrize(
    "options",
    [
        {"motion": 7},
        {"white_matter_csf": 1},
        {"global_signal": 3},
        {"compcor": -1},
        {"scrub_displacement": 0},
        {"scrub_dvars": float("nan")},
        {"scrub_around": (-1, 0)},
        {"scrub_around": (1, 1, 1)},
    ],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=f"Confounds: {next(iter(options))} must"):
        Confounds(**options)


# ---- which volumes


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 4), st.integers(0, 40))
def test_neighbours_of_a_motion_are_scrubbed_too(moved, before, after):
    moved = np.array(moved)
    table = pd.DataFrame({"framewise_displacement": np.where(moved, 1.0, 0.1)})
    kept = Confounds(scrub_displacement=0.5, scrub_around=(before, after)).kept(table)
    for volume in range(len(moved)):
        near = moved[max(volume - after, 0) : volume + before + 1]
        assert kept[volume] == (not near.any())


def test_scrubbed_volumes_are_not_valid_and_have_no_say(run_folder):
    root, values, table = run_folder
    options = Confounds(motion=6, scrub_displacement=0.5, scrub_dvars=1.5)
    signal, valid = cleaned(root, confounds=options, normalize=True)
    assert np.flatnonzero(~valid).tolist() == [0, 20, 21, 40]
    expected = least_squares(values, table[SIX].to_numpy(), valid)
    np.testing.assert_allclose(signal, expected, atol=2e-3, rtol=2e-4)
    np.testing.assert_allclose(signal[valid].std(0, ddof=1), 1, rtol=1e-5)
    assert (np.abs(signal[20]) > 50).all()  # what it was; nothing is made up


def test_scrubbing_alone_leaves_values_as_they_are(run_folder):
    root, values, _ = run_folder
    signal, valid = cleaned(root, confounds=Confounds(motion=0, scrub_displacement=0.5))
    np.testing.assert_allclose(signal, values, rtol=1e-6)
    assert valid.sum() == N - 3


def test_windows_say_which_of_their_volumes_were_scrubbed(run_folder):
    root, _, _ = run_folder
    extractor = FMRIVoxelExtractor(confounds=Confounds(scrub_displacement=0.5), normalize=True)
    windows = BIDSDataset(root, task="rest").with_extractor(extractor, length=7, pad=True)
    whole = cleaned(root, confounds=Confounds(scrub_displacement=0.5), normalize=True)[1]
    valid = np.concatenate([windows[i]["valid"].numpy() for i in range(len(windows))])
    np.testing.assert_array_equal(valid[:N], whole)
    assert not valid[N:].any()


def test_a_run_that_is_scrubbed_away_is_an_error_that_says_so(run_folder):
    root, _, _ = run_folder
    with pytest.raises(ValueError, match="of 60 volumes 0 are left"):
        cleaned(root, confounds=Confounds(scrub_dvars=0.1, scrub_around=(0, 60)), normalize=True)


# ---- fitted on a part


@pytest.mark.parametrize("part", [(0.0, 0.5), (0.25, 1.0)])
def test_what_is_predicted_has_no_say_in_its_cleaning(run_folder, part):
    root, values, table = run_folder
    fitted = np.zeros(N, bool)
    fitted[round(part[0] * N) : round(part[1] * N)] = True
    signal, _ = cleaned(root, confounds=SIX, normalize=True, detrend=True, fit_on=part)
    columns = np.column_stack([np.arange(N), table[SIX]])
    np.testing.assert_allclose(signal, least_squares(values, columns, fitted), atol=2e-3, rtol=2e-4)


def test_other_volumes_change_nothing_where_it_is_not_fitted(tmp_path, run_folder):
    root, _, table = run_folder
    image = next(root.rglob("*_bold.nii"))
    mask = VoxelMask(np.ones(SHAPE, bool))
    fitted = np.arange(N) < 40
    options = {"detrend": True, "standardize": True, "confounds": table[SIX].to_numpy(), "fitted": fitted}
    before = fit_cleaning(NiftiFile(image), mask, cache=False, **options)
    rows = decode_nifti(image, mask)
    changed = rows.clone()
    changed[45:] *= 100
    after = fit_cleaning(NiftiFile(image), mask, cache=False, rows=changed, **options)
    assert torch.equal(before.apply(rows.clone(), 0), after.apply(rows.clone(), 0))


def test_fits_on_different_volumes_are_kept_apart_in_the_cache(run_folder):
    root, _, _ = run_folder
    signals = [cleaned(root, normalize=True, fit_on=part)[0] for part in [(0.0, 1.0), (0.5, 1.0), (0.0, 1.0)]]
    assert not np.array_equal(signals[0], signals[1])
    np.testing.assert_array_equal(signals[0], signals[2])


@pytest.mark.parametrize("part", [(0.5, 0.5), (0.8, 0.2), (-0.1, 1.0), (0.0, 1.1), (0.0,)])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(ValueError, match="fit_on must be a part of the run"):
        FMRIVoxelExtractor(fit_on=part)


# ---- band-pass


def test_a_band_pass_keeps_its_cosines_and_removes_all_others(tmp_path):
    k = np.arange(1, N)
    waves = np.cos(np.pi * (np.arange(N)[:, None] + 0.5) * k / N)
    image = tmp_path / "waves.nii"
    values = np.zeros((*SHAPE, N), np.float32)
    values.reshape(24, N)[:] = 100
    values.reshape(24, N)[:20] += waves[:, ::3].T[:20].astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), image)
    low, high = 0.03, 0.1
    out = decode_nifti(
        image, np.ones(SHAPE, bool), detrend="cosine", high_pass=low, low_pass=high, tr=TR
    ).numpy()
    frequency = k[::3][:20] / (2 * N * TR)
    passes = (frequency > low) & (frequency <= high)
    assert 0 < passes.sum() < 20
    np.testing.assert_allclose(out[:, :20][:, passes], waves[:, ::3][:, :20][:, passes], atol=2e-4)
    np.testing.assert_allclose(out[:, :20][:, ~passes], 0, atol=2e-4)


def test_a_low_pass_needs_no_other_cleaning_and_takes_the_sidecars_time(run_folder):
    root, values, _ = run_folder
    smooth, _ = cleaned(root, low_pass=0.05)
    spectrum = np.abs(np.fft.rfft(smooth - smooth.mean(0), axis=0)) ** 2
    fast = np.fft.rfftfreq(N, TR) > 0.06
    before = np.abs(np.fft.rfft(values - values.mean(0), axis=0)) ** 2
    assert spectrum[fast].sum() < 0.05 * before[fast].sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low_pass": 0.3}, "low_pass must lie below 0.25 Hz"),
        ({"low_pass": -1}, "low_pass must be"),
        ({"detrend": "cosine", "high_pass": 0.1, "low_pass": 0.05}, "low_pass must be above high_pass"),
    ],
)
def test_bands_that_do_not_exist_are_refused(run_folder, options, message):
    root, _, _ = run_folder
    with pytest.raises(ValueError, match=message):
        cleaned(root, **options)
