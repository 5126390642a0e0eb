"""The page and its figures: self-contained, escaped, and true to the arrays they are given."""

import base64
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("torch")

from neurokern.report import Figure, Section, Table, render_page, write_page
from neurokern.report.data_figures import mask_schemes, order_by_group, raster
from neurokern.report.result_figures import few_shot_curve, loss_curves, rate_heatmaps, unit_scatter
from neurokern.report.sections import prediction_section, score_section
from neurokern.report.summary import (
    decoding_rows,
    difference_rows,
    other_score_rows,
    pair_scores,
    paired_differences,
    score_rows,
    score_table,
    verdict,
)


def svg_of(figure):
    """Return the SVG of a figure as text, after parsing it as XML."""
    kind, data = figure.source.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    text = base64.b64decode(data).decode()
    ElementTree.fromstring(text)
    return text


def page_with_everything():
    figure = Figure(source="data:image/svg+xml;base64,AAAA", alt="a <plot>", caption="5 < 6 & so on")
    table = Table(header=["task", "<MtM>"], rows=[["co-smoothing", "0.1"]], strong=frozenset({(0, 1)}))
    return render_page("A & B", ["x < y"], [Section(title="<S>", parts=[figure, table])], {"seed": "1\n2"})


def test_a_page_loads_nothing_from_elsewhere():
    page = page_with_everything()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "@import" not in page
    assert "<script" not in page


def test_text_is_escaped_everywhere():
    page = page_with_everything()
    for escaped in (
        "A &amp; B",
        "x &lt; y",
        "&lt;S&gt;",
        "a &lt;plot&gt;",
        "5 &lt; 6 &amp; so on",
        "&lt;MtM&gt;",
    ):
        assert escaped in page
    assert "<MtM>" not in page


def test_the_best_score_is_bold_and_lines_of_facts_stay():
    page = page_with_everything()
    assert "<td><b>0.1</b></td>" in page
    assert "<pre>1\n2</pre>" in page


def test_a_page_is_written_with_its_folder(tmp_path):
    path = write_page(tmp_path / "new" / "report.html", "T", [], [])
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_same_figure_gives_the_same_bytes():
    curve = (np.arange(3), np.array([3.0, 2.0, 1.0]))
    first, second = (loss_curves(curve, {"neuron": curve}, best_step=2) for _ in range(2))
    assert first == second
    svg_of(first)


def test_units_are_ordered_by_group_and_keep_their_order_within():
    groups = ["b", "a", "b", "a"]
    assert order_by_group(groups, ["a", "b"]).tolist() == [1, 3, 0, 2]


def test_a_raster_without_spikes_is_drawn():
    nothing = np.zeros(0)
    svg_of(raster(nothing, nothing.astype(int), ["a", "a"], ["a"], start=0.0, stop=1.0))


def test_mask_panels_show_seen_target_and_unscored_in_three_colors():
    from neurokern.report.data_figures import _paint

    hidden = np.array([[False, True, True]])
    target = np.array([[False, True, False]])
    colors = _paint(np.zeros((1, 3)), hidden, target)[0]
    assert len({tuple(color) for color in colors.round(3)}) == 3
    assert colors[0].tolist() == [1.0, 1.0, 1.0]


def test_mask_panels_are_drawn_for_each_scheme():
    counts = np.ones((4, 3))
    none = np.zeros((4, 3), dtype=bool)
    figure = mask_schemes(counts, [("neuron", none, none), ("causal", ~none, none)], bin_size=0.02)
    svg_of(figure)
    assert "neuron, causal" in figure.alt


def test_a_silent_unit_does_not_break_the_heatmap():
    rates = np.zeros((10, 3))
    rates[:, 0] = np.arange(10)
    svg_of(rate_heatmaps({"measured": rates, "MtM": rates}, bin_size=0.02))


def test_units_without_a_score_are_left_out_of_the_scatter():
    first, second = np.array([0.1, np.nan, 0.3]), np.array([0.2, 0.1, np.nan])
    svg_of(unit_scatter({"co-smoothing": (first, second), "none": (first * np.nan, second)}))


def test_a_few_shot_curve_draws_every_method():
    table = pd.DataFrame(
        [
            {"method": method, "shots": shots, "mean": 0.6, "low": 0.5, "high": 0.7}
            for method in ("MtM states, ridge", "raw counts, ridge")
            for shots in (1, 5)
        ]
    )
    svg_of(few_shot_curve(table, chance=0.5))


def scores(**by_predictor):
    """A table of scores: one task, one session, unit k with 20 spikes."""
    return pd.DataFrame(
        [
            {
                "predictor": name,
                "session": "a",
                "task": "co-smoothing",
                "unit": unit,
                "n_spikes": 20,
                "bits_per_spike": value,
            }
            for name, values in by_predictor.items()
            for unit, value in enumerate(values)
        ]
    )


def test_scores_are_paired_by_unit_whatever_the_order_of_rows():
    table = scores(MtM=[0.1, 0.2, 0.3], ridge=[0.0, 0.1, 0.4]).sample(frac=1, random_state=0)
    first, second = pair_scores(table, "ridge", "MtM")["co-smoothing"]
    assert sorted(zip(first, second, strict=True)) == [(0.0, 0.1), (0.1, 0.2), (0.4, 0.3)]


def test_units_with_few_spikes_are_left_out():
    table = scores(MtM=[0.1, 0.2, 0.3], ridge=[0.0, 0.1, 0.4])
    table.loc[table["unit"] == 2, "n_spikes"] = 3
    assert len(pair_scores(table, "ridge", "MtM", min_spikes=10)["co-smoothing"][0]) == 2


def test_the_paired_difference_is_the_mean_over_units():
    mean, low, high = paired_differences(scores(MtM=[0.3, 0.5], ridge=[0.1, 0.2]))["co-smoothing"]
    assert mean == pytest.approx(0.25)
    assert 0.2 - 1e-9 <= low <= high <= 0.3 + 1e-9


def test_rows_mark_the_best_predictor_and_give_the_difference():
    header, rows, strong = score_rows(scores(MtM=[0.3, 0.5], ridge=[0.1, 0.2]), 1)
    assert header == ["task", "MtM", "ridge", "MtM − ridge", "units"]
    assert rows[0][0] == "co-smoothing"
    assert rows[0][3].startswith("+0.250 [")
    assert rows[0][4] == "2"
    assert strong == {(0, 1)}


def test_many_predictors_have_a_row_each_and_tasks_not_done_stay_empty():
    table = scores(MtM=[0.3, 0.5], ridge=[0.1, 0.2], GLM=[0.6, 0.7])
    assert score_table(table, 1)[0] == score_rows(table, 1)[0]
    other = scores(MtM=[0.1, 0.1], ridge=[0.2, 0.2]).assign(task="intra-region")
    table = pd.concat([table, scores(PSTH=[-0.1, 0.0]), other])
    header, rows, strong = score_table(table, 1)
    assert header == ["", "co-smoothing", "intra-region"]
    assert [row[0] for row in rows] == ["MtM", "ridge", "GLM", "PSTH", "units"]
    assert rows[2][1].startswith("0.650 [")
    assert (rows[2][2], rows[4][1:]) == ("", ["2", "2"])
    assert strong == {(2, 1), (1, 2)}
    assert "MtM − ridge is" not in score_section(table).parts[0].caption


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ([0.3, 0.5, 0.4], [0.1, 0.2, 0.1], "MtM predicts better than ridge at co-smoothing"),
        ([0.1, 0.2, 0.1], [0.3, 0.5, 0.4], "Ridge predicts better than MtM at co-smoothing"),
        ([0.1, 0.5, 0.1], [0.3, 0.2, 0.2], "Neither is shown to be better at co-smoothing"),
    ],
)
def test_the_verdict_names_the_winner_only_where_the_interval_excludes_zero(ours, theirs, said):
    assert verdict(scores(MtM=ours, ridge=theirs), min_spikes=1).startswith(said)


def test_a_task_that_no_unit_has_spikes_for_says_so():
    table = scores(MtM=[np.nan, np.nan], ridge=[np.nan, np.nan])
    assert score_rows(table, 1)[1][0][1:3] == ["no score", "no score"]
    assert len(score_section(table, text=()).parts) == 3


def test_the_units_shown_run_from_the_best_to_the_median():
    from neurokern.report.sections import _spread_units

    scores_of_units = np.array([0.5, 0.1, 0.4, 0.3, 0.2, np.nan])
    counts = np.ones((1, 4, 6))
    assert _spread_units(counts, scores_of_units, 3).tolist() == [0, 2, 3]


def test_predictions_are_shown_for_a_single_short_window():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (1, 5, 4)).astype(float)
    section = prediction_section(
        counts, {"MtM": counts * 0 + 0.5}, np.full(4, np.nan), ["a"] * 4, ["a"], bin_size=0.02
    )
    assert len(section.parts) == 2
    for figure in section.parts:
        svg_of(figure)


def decoding_table(sessions):
    rows = [
        (session, name, "logistic", value, value - 0.1, value + 0.1, value, 0.5, *difference)
        for session, values in sessions.items()
        for name, value, difference in (
            ("raw counts", values[0], (np.nan,) * 3),
            ("MtM rates", values[1], (values[1] - values[0], -0.05, 0.15)),
        )
    ]
    columns = ["session", "features", "readout", "balanced_accuracy", "low", "high", "auc", "chance"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "difference_low", "difference_high"])


def test_decoding_is_averaged_over_sessions_and_one_session_keeps_its_own_interval():
    header, rows, strong = decoding_rows(decoding_table({"a": (0.6, 0.7), "b": (0.7, 0.9)}))
    assert header[0] == "features"
    assert [row[1][:5] for row in rows] == ["0.650", "0.800"]
    assert rows[1][3].startswith("+0.150 [")
    assert (rows[0][3], rows[1][4], strong) == ("", "2", {(1, 1)})
    _, rows, _ = decoding_rows(decoding_table({"a": (0.6, 0.7)}))
    assert rows[1][1] == "0.700 [0.600, 0.800]"
    assert rows[1][3] == "+0.100 [−0.050, +0.150]"


def test_differences_name_every_baseline_and_say_when_there_is_one_session():
    table = scores(MtM=[0.3, 0.5], ridge=[0.1, 0.2], GLM=[0.4, 0.4])
    _, rows = difference_rows(table, 1)
    assert [row[1] for row in rows] == ["ridge", "GLM"]
    assert rows[0][2].startswith("+0.250 [")
    assert (rows[1][3], rows[0][4], rows[0][5]) == ("50% of 2", "one session", "1 of 1")
    both = pd.concat([table, table.assign(session="b", bits_per_spike=table["bits_per_spike"] * 2)])
    assert re.fullmatch(r"\[\+0.\d+, \+0.\d+\]", difference_rows(both, 1)[1][0][4])
    assert difference_rows(scores(ridge=[0.1, 0.2]), 1)[1] == []


def test_other_scores_are_means_over_the_units_with_enough_spikes():
    table = scores(MtM=[0.3, 0.5], ridge=[0.1, 0.2]).assign(r2=[0.2, 0.4, -0.1, 0.1], psth_r2=np.nan)
    header, rows = other_score_rows(table, 1)
    assert header == ["task", "predictor", "R² of single bins"]
    assert rows == [["co-smoothing", "MtM", "0.300"], ["co-smoothing", "ridge", "0.000"]]
    assert other_score_rows(scores(MtM=[0.3]), 1)[1] == []
