"""The tables of docs/performance.md are those that the committed results give."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import harness
import tables

RESULTS = tables.load_results()
PAGE = tables.PAGE.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_committed_results():
    assert tables.fill(PAGE, RESULTS) == PAGE, "run python benchmarks/tables.py"


def test_another_figure_gives_another_page():
    changed = json.loads(json.dumps(RESULTS))
    ours = next(line for line in changed["bin_spikes"] if line.get("candidate") == tables.OURS)
    ours["timing"]["median"] *= 2
    assert tables.fill(PAGE, changed) != PAGE


def test_a_page_without_a_mark_is_refused():
    with pytest.raises(ValueError, match="must hold the mark <!-- table: goals -->"):
        tables.fill(PAGE.replace("<!-- table: goals -->", ""), RESULTS)


@pytest.mark.parametrize("op", ["bin_spikes", "mask_regions", "gather_regions", "decode_nifti"])
def test_every_workload_names_its_machine_and_ours_is_exact(op):
    machines = {line["workload"] for line in RESULTS[op] if "machine" in line}
    for workload, candidates in tables.by_workload(RESULTS[op]).items():
        assert workload in machines
        ours = [line for line in candidates if line["candidate"] == tables.OURS]
        assert len(ours) == 1
        assert ours[0]["differing"] in (0, None)
        assert ours[0]["ratio"] == 1


def test_every_goal_has_a_peer_that_was_measured():
    for goal in tables.GOALS:
        assert tables.reached(goal, RESULTS) is not None, goal


def lines(workload, *candidates):
    return [{"workload": workload, "candidate": name, "ratio": ratio} for name, ratio in candidates]


def test_a_goal_against_the_best_peer_takes_the_fastest_and_never_ours():
    found = lines("w", ("neurokern", 1.0), ("slow", 9.0), ("fast", 3.0))
    best = tables.reached(tables.Goal("bin_spikes", "w", tables.BEST, 4), {"bin_spikes": found})
    assert best is not None
    assert best["candidate"] == "fast"


def test_a_slow_peer_is_found_on_its_shorter_session_but_not_on_other_workloads():
    found = [
        *lines("w", ("neurokern", 1.0)),
        *lines("w, 2 million spikes", ("pynapple (group prebuilt)", 70.0)),
        *lines("w, order not claimed", ("pynapple (group prebuilt)", 5.0)),
    ]
    line = tables.reached(tables.Goal("bin_spikes", "w", "pynapple", 60), {"bin_spikes": found})
    assert line is not None
    assert line["ratio"] == 70


def test_saved_rows_replace_those_of_their_workload_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    timing = harness.Timing(1.0, 1.0, 1.0, 1)
    for workload, ratio in (("a", 1.0), ("b", 1.0), ("a", 2.0)):
        harness.save("op", [harness.Row(workload, "x", 1, timing, ratio, ratio, None, 0, 0)], {"load": 0})
    rows = {line["workload"]: line["ratio"] for line in harness.load("op") if "candidate" in line}
    assert rows == {"a": 2.0, "b": 1.0}
