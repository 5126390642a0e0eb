"""``neurokern train --recipe``: model and training of one name, flags on top, fixed once a run has begun."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from neurokern._config import write_yaml
from neurokern.cli.settings import RunSettings, settings_of_recipe
from neurokern.cli.train import _settings
from neurokern.models import MtMConfig
from neurokern.training import TrainingConfig


def arguments(**given: object) -> argparse.Namespace:
    defaults = {
        "recipe": None,
        "resume": False,
        "config": None,
        "seed": None,
        "settings": [],
        "data": ["a.npz"],
    }
    return argparse.Namespace(**{**defaults, **given})


@pytest.mark.parametrize("recipe", ["small", "modern", "paper", "ndt2"])
def test_a_recipe_is_a_model_and_the_training_that_belongs_to_it(recipe: str, tmp_path: Path) -> None:
    settings = _settings(arguments(recipe=recipe), tmp_path)
    assert settings.model == getattr(MtMConfig, recipe)()
    train = getattr(TrainingConfig, "paper" if recipe == "ndt2" else recipe)
    assert settings.training == train(checkpoint_every=100)


def test_without_a_recipe_the_settings_are_those_for_small_data(tmp_path: Path) -> None:
    assert settings_of_recipe("small") == RunSettings()
    assert _settings(arguments(), tmp_path).model == MtMConfig.small()


def test_flags_change_a_recipe(tmp_path: Path) -> None:
    flags = ["model.n_layers=2", "training.max_steps=7"]
    settings = _settings(arguments(recipe="modern", settings=flags), tmp_path)
    assert settings.model == MtMConfig.modern(n_layers=2)
    assert settings.training.max_steps == 7


def test_a_run_goes_on_with_its_own_recipe(tmp_path: Path) -> None:
    write_yaml(tmp_path / "run.yaml", settings_of_recipe("ndt2"))
    assert _settings(arguments(resume=True), tmp_path).model == MtMConfig.ndt2()
    with pytest.raises(ValueError, match="--recipe belongs to a new run"):
        _settings(arguments(resume=True, recipe="modern"), tmp_path)
