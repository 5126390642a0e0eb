"""On sessions with known rates one scheme alone breaks other tasks, and all schemes together break none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "masking_ablation.py"


@pytest.fixture(scope="module")
def ablation():
    spec = importlib.util.spec_from_file_location("masking_ablation", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scores(ablation):
    """Bits per spike of the small version, one seed."""
    return ablation.run_ablation(ablation.QUICK, 0)


def test_training_within_regions_alone_collapses_between_them(scores):
    neuron, intra = scores.loc["neuron"], scores.loc["intra-region"]
    assert intra["intra-region"] > 0.1
    assert neuron["co-smoothing"] > intra["co-smoothing"] + 0.1
    assert intra["inter-region"] < scores.loc["unit mean", "inter-region"] - 0.03


def test_all_schemes_together_beat_the_mean_everywhere_and_nearly_reach_each_single_one(scores):
    mtm = scores.loc["MtM"]
    assert (mtm > scores.loc["unit mean"] + 0.03).all()
    assert mtm["co-smoothing"] > 0.85 * scores.loc["neuron", "co-smoothing"]
    assert mtm["intra-region"] > 0.85 * scores.loc["intra-region", "intra-region"]


def test_nothing_beats_the_true_rates(scores):
    assert (scores.drop("true rates") < scores.loc["true rates"]).all(axis=None)


def test_the_table_gives_the_mean_and_the_range_over_seeds(ablation):
    names = [*ablation.SINGLE, "MtM", "true rates"]
    columns = list(ablation.TASKS)
    first = pd.DataFrame(0.4, index=names, columns=columns)
    first.loc["true rates"] = 0.8
    text = ablation.as_markdown([first, first + 0.2])
    assert "| neuron | 0.50 (0.40 to 0.60) |" in text
    assert "| MtM / best single | 100% | 100% | 100% | 100% |" in text
    assert "| MtM / true rates | 56% |" in text
