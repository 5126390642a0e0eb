"""What docs/results.md says of representations on real recordings holds, by the examples that it names."""

import re
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

EXAMPLES = Path(__file__).parents[1] / "examples"
OBJECTS = runpy.run_path(str(EXAMPLES / "object_geometry.py"))
CATEGORIES = runpy.run_path(str(EXAMPLES / "category_geometry.py"))


def test_inferior_temporal_neurons_tell_objects_apart_wherever_they_are(shared_data, capsys):
    OBJECTS["main"](str(shared_data / "spikes" / "macaque_it_zd7" / "zd7_rasters.npz"))
    said, _, _, *lines = capsys.readouterr().out.splitlines()
    assert said == "132 neurons, 21 conditions, 19 trials of each"
    numbers = [[float(n) for n in re.findall(r"-?\d+\.\d+", line)] for line in lines]
    before, after = numbers[2], numbers[6]  # 100 to 0 ms before, 100 to 200 ms after
    assert before[-2:] == [pytest.approx(0, abs=0.02), pytest.approx(1 / 7, abs=0.05)]
    assert before[1] < 0 < before[2]  # the interval of the object
    assert after[0] == pytest.approx(0.50, abs=0.03)
    assert after[3] == pytest.approx(0, abs=0.1)  # the position
    assert after[6] > 0.9  # the ceiling
    assert after[7] == pytest.approx(0.404, abs=0.03)
    assert after[8] > 0.8


def test_cross_validated_rdms_of_categories_are_the_most_reliable(shared_data, tmp_path, monkeypatch):
    from neurokern.datasets import BIDSDataset

    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    folder = shared_data / "fmri" / "bids_haxby2001_lite"
    means, residuals = CATEGORIES["blocks"](BIDSDataset(folder, acquisition="1slice"), 0.0)
    assert means.shape == (9, 8, 530)
    kinds = CATEGORIES["kinds_of_rdm"](residuals)
    expected = {"correlation of mean patterns": 0.17, "Euclidean": 0.25, "Euclidean, cross-validated": 0.38}
    for name, value in expected.items():
        assert CATEGORIES["agreement"](means, kinds[name]) == pytest.approx(value, abs=0.02)
