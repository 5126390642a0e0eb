import dataclasses
from typing import Literal

import pytest

from neurokern._config import apply_settings, parse_flags, read_yaml, to_mapping, write_text, write_yaml


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int = 100
    rate: float = 1e-3
    schemes: tuple[str, ...] = ("neuron", "causal")
    stride: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    training: Inner = dataclasses.field(default_factory=Inner)
    name: str = "run"
    by: Literal["time", "random"] = "time"
    fast: bool = False


def test_settings_replace_only_the_values_they_name():
    config = apply_settings(Outer(), {"training": {"steps": 5}, "name": "b"})
    assert config == Outer(training=Inner(steps=5), name="b")


def test_flags_nest_by_dots_and_read_values_as_yaml():
    assert parse_flags(["training.steps=5", "training.stride=null", "name=b=c"]) == {
        "training": {"steps": 5, "stride": None},
        "name": "b=c",
    }


@pytest.mark.parametrize("flag", ["steps", "=3", "training..steps=3", "name=[1"])
def test_a_flag_that_is_no_assignment_is_refused(flag):
    with pytest.raises(ValueError, match="--set"):
        parse_flags([flag])


def test_flags_below_a_plain_value_are_refused():
    with pytest.raises(ValueError, match="already has a value"):
        parse_flags(["training=3", "training.steps=5"])


def test_scientific_notation_and_whole_numbers_become_floats():
    # YAML 1.1 reads 1e-4 as text.
    config = apply_settings(Outer(), parse_flags(["training.rate=1e-4", "training.stride=1"]))
    assert config.training.rate == 1e-4
    assert type(config.training.stride) is float


def test_an_unknown_key_names_the_nearest_one():
    with pytest.raises(
        ValueError, match=r"run.yaml: unknown key training.stepss; did you mean training.steps\?"
    ):
        apply_settings(Outer(), {"training": {"stepss": 5}}, where="run.yaml")


def test_an_unknown_key_unlike_any_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown key zzz; known: by, fast, name, training"):
        apply_settings(Outer(), {"zzz": 5})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"steps": 1.5}}, "training.steps must be of type int, got 1.5"),
        ({"training": {"steps": True}}, "training.steps must be of type int, got True"),
        ({"training": {"rate": "fast"}}, "training.rate must be a number, got 'fast'"),
        ({"training": {"schemes": "neuron"}}, "training.schemes must be a list, got 'neuron'"),
        ({"training": 3}, "training must hold names and values, got 3"),
        ({"by": "hand"}, "by must be one of 'time', 'random', got 'hand'"),
        ({"fast": 1}, "fast must be of type bool, got 1"),
    ],
)
def test_a_value_of_the_wrong_type_names_key_and_value(settings, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        apply_settings(Outer(), settings)


def test_a_config_survives_yaml(tmp_path):
    config = Outer(training=Inner(schemes=("neuron",), rate=1e-9, stride=0.5), fast=True)
    write_yaml(tmp_path / "run.yaml", config)
    assert apply_settings(Outer(), read_yaml(tmp_path / "run.yaml")) == config
    assert to_mapping(config)["training"]["schemes"] == ["neuron"]


def test_an_empty_file_holds_no_settings(tmp_path):
    (tmp_path / "run.yaml").write_text("")
    assert read_yaml(tmp_path / "run.yaml") == {}


def test_broken_yaml_names_the_line(tmp_path):
    (tmp_path / "run.yaml").write_text("a: 1\nb: [1\n")
    with pytest.raises(ValueError, match=r"run.yaml: not valid YAML \(line 3\)"):
        read_yaml(tmp_path / "run.yaml")


def test_a_list_is_not_a_configuration(tmp_path):
    (tmp_path / "run.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="must hold names and values"):
        read_yaml(tmp_path / "run.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    write_text(file, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
