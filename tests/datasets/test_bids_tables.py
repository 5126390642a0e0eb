"""Tables and sidecars as they are found: what can be read is read as it was meant, the rest is named."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.datasets._bids_tables import read_json, read_names, read_tsv


@pytest.fixture
def table(tmp_path):
    def read(content, reader=read_tsv):
        path = tmp_path / "sub-01_task-a_events.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return reader(path)

    return read


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("\ufeffa\tb\r\n1\tn/a\r\n", {"a": [1], "b": [math.nan]}),
        ("a\tb\r1\t2\r", {"a": [1], "b": [2]}),
        (" a \tb\n1 \t x \n", {"a": [1], "b": ["x"]}),
        ("a\tb\n1\t2\t\n3\t4\t\n", {"a": [1, 3], "b": [2, 4]}),
        ("a\tb\t\n1\t2\t\n", {"a": [1], "b": [2]}),
        ("a\tb\n\n1\t2\n\n", {"a": [1], "b": [2]}),
        ("a\tb\n1\n2\t3\n", {"a": [1, 2], "b": [math.nan, 3.0]}),
        ("a\tb\nNA\t1\nNaN\t2\n", {"a": [math.nan, math.nan], "b": [1, 2]}),
        (
            "a\tb\nNone\tn/a\nface\tNA\nn/a\tx\n",
            {"a": ["None", "face", math.nan], "b": [math.nan, "NA", "x"]},
        ),
        ("a\nNone\nnone\n", {"a": ["None", "none"]}),
        ("a\tb\nTrue\tTrue\nFalse\tn/a\n", {"a": [True, False], "b": [True, math.nan]}),
        ("a\n1e400\n-0\n", {"a": [math.inf, 0]}),
    ],
)
def test_what_is_loosely_written_is_read_as_it_was_meant(table, content, wanted):
    found = table(content)
    pd.testing.assert_frame_equal(found, pd.DataFrame(wanted), check_dtype=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be a table with tabs"),
        ("a\tb\n1\t2\t3\n4\t5\t6\n", "as many values in each row as names"),
        ("a\tb\n1\t2\n4\t5\t6\n", "line 3, saw 3"),
        ("a,b\n1,2\n", "must have tabs between its columns, got the heading 'a,b'"),
        ("a\tb\ta\n1\t2\t3\n", "several of a"),
        ("a\tb\n1\t2\n".encode("utf-16"), "in UTF-8"),
        ("a\tb\n1\tgr\xfcn\n".encode("latin-1"), "in UTF-8"),
        ('a\tb\n1\t"open\n2\t3\n', "sub-01_task-a_events.tsv must be a table"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_the_files_name(table, content, message):
    with pytest.raises(ValueError, match=message):
        table(content)


def test_a_row_longer_than_the_heading_moves_no_column(table):
    """Of such a table pandas alone makes the first column the names of rows: times become durations."""
    with pytest.raises(ValueError, match="as many values in each row"):
        table("onset\tduration\n1.5\t2\t9\n3.5\t2\t9\n")


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=False, width=32),
            st.integers(-(2**53), 2**53),
            st.sampled_from(["face", "None", "NA", "nan", "01a", "T1"]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from(["", "\t"]),
)
def test_what_was_written_comes_back(tmp_path_factory, rows, end, mark, tail):
    path = tmp_path_factory.mktemp("t") / "x.tsv"
    lines = ["real\twhole\ttext"] + [
        f"{'n/a' if math.isnan(r) else repr(r)}\t{w}\t{t}" for r, w, t in [*rows, (0.5, 1, "word")]
    ]
    text = ("\ufeff" if mark else "") + end.join(line + tail for line in lines) + end
    path.write_bytes(text.encode())
    found = read_tsv(path)
    assert list(found) == ["real", "whole", "text"]
    np.testing.assert_array_equal(found["real"].to_numpy(float), [r for r, _, _ in rows] + [0.5])
    assert found["whole"].tolist() == [w for _, w, _ in rows] + [1]
    assert found["text"].tolist() == [t for _, _, t in rows] + ["word"]


def test_names_of_channels_stay_texts(table):
    found = table("name\ttype\n NA\tEEG\n1 \tn/a\n", read_names)
    assert found.to_numpy().tolist() == [["NA", "EEG"], ["1", ""]]
    with pytest.raises(ValueError, match="must have a column name, got label"):
        table("label\nCz\n", read_names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be JSON"),
        ('{"a": 1,}', "must be JSON"),
        ("[1]", "must hold an object of fields, got list"),
        ("[" * 100_000, "must be JSON"),
        ('{"a": ' + "9" * 5000 + "}", "must be JSON"),
        ('{"a": 1}'.encode("utf-16"), "must be JSON"),
        ('{"RepetitionTime": 2, "RepetitionTime": 3}', "RepetitionTime is there twice, as 2 and as 3"),
    ],
)
def test_sidecars_that_cannot_be_read_are_named(tmp_path, content, message):
    path = tmp_path / "task-a_bold.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"task-a_bold.json.*{message}"):
        read_json(path)


def test_a_field_given_twice_alike_is_no_contradiction(tmp_path):
    (tmp_path / "a.json").write_text('\ufeff{"a": 1, "a": 1, "b": {"c": 2}}')
    assert read_json(tmp_path / "a.json") == {"a": 1, "b": {"c": 2}}
