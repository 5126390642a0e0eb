"""The check of instruction counts can fail, and the committed counts are of the kernels that are run."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import instruction_counts

ROOT = Path(__file__).parents[2]
ACCEPTED = json.loads(instruction_counts.ACCEPTED.read_text())


@pytest.mark.parametrize("factor", [1.03, 0.97, 2.0])
def test_a_count_that_moved_by_three_percent_either_way_is_named(factor):
    name = "v3 bin_spikes session uint8"
    measured = ACCEPTED["counts"] | {name: round(ACCEPTED["counts"][name] * factor)}
    problems = instruction_counts.compare(ACCEPTED["counts"], measured)
    assert len(problems) == 1
    assert problems[0].startswith(f"{name}: ")
    assert f"({factor - 1:+.1%})" in problems[0]


def test_counts_within_the_tolerance_pass():
    measured = {name: round(count * 1.019) for name, count in ACCEPTED["counts"].items()}
    assert instruction_counts.compare(ACCEPTED["counts"], measured) == []


def test_a_kernel_that_is_gone_or_new_is_named():
    problems = instruction_counts.compare({"old": 5, "both": 7}, {"both": 7, "new": 6})
    assert problems == ["new: 6 instructions, but no accepted count", "old: accepted, but no longer measured"]


def test_every_kernel_and_instruction_set_has_an_accepted_count():
    source = (ROOT / "benchmarks" / "instruction_counts.cpp").read_text()
    listed = re.findall(r'count\("([^"]+)"', source)
    assert listed
    for isa in instruction_counts.ISAS:
        assert {f"{isa} bin_spikes {name}" for name in listed} <= ACCEPTED["counts"].keys()
        assert sum(name.startswith(f"{isa} mask_regions") for name in ACCEPTED["counts"]) >= 10


def test_kernels_are_counted_with_the_flags_of_the_build():
    flags = instruction_counts.kernel_flags()
    assert {"-O3", "-ffp-contract=off"} <= set(flags)


def test_another_compiler_skips_the_check_by_name(tmp_path, monkeypatch, capsys):
    file = tmp_path / "accepted.json"
    file.write_text(json.dumps({"compiler": "another one 1.0", "counts": {}}))
    monkeypatch.setattr(instruction_counts, "ACCEPTED", file)
    monkeypatch.setattr(sys, "argv", ["instruction_counts.py", "--check"])
    assert instruction_counts.main() == 0
    assert capsys.readouterr().out.startswith("skipped: instruction counts (")
