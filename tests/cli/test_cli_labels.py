import numpy as np
import pandas as pd
import pytest

from neurokern.cli.labels import choose_label, make_labels, make_split_labels

NAN = float("nan")


def trials(**columns):
    return pd.DataFrame(columns)


def test_a_column_gives_one_class_per_value_in_ascending_order():
    labels = make_labels("choice", trials(choice=[1.0, -1.0, 1.0, -1.0]))
    assert labels.values.tolist() == [1, 0, 1, 0]
    assert labels.names == ("choice -1.0", "choice 1.0")
    assert labels.note == ""


def test_a_missing_value_drops_the_trial_and_is_said():
    labels = make_labels("choice", trials(choice=[1.0, NAN, -1.0]))
    assert labels.values.tolist() == [1, -1, 0]
    assert labels.note == "dropped 1 trials without a value"


def test_ties_of_two_columns_compared_by_size_are_dropped_and_said():
    labels = make_labels("left > right", trials(left=[0.5, 0.25, 0.0], right=[0.0, 0.25, 1.0]))
    assert labels.values.tolist() == [1, -1, 0]
    assert labels.note == "dropped 1 trials with equal values"


def test_ties_of_two_columns_compared_for_equality_are_kept():
    labels = make_labels("left==right", trials(left=[0.5, 0.25], right=[0.0, 0.25]))
    assert labels.values.tolist() == [0, 1]


def test_one_missing_side_counts_as_zero_and_both_drop_the_trial():
    labels = make_labels("left>right", trials(left=[0.5, NAN, NAN, 0.0], right=[NAN, 0.5, NAN, NAN]))
    assert labels.values.tolist() == [1, 0, -1, -1]
    assert labels.note == "dropped 1 trials without a value and 1 trials with equal values"


def test_a_number_on_the_right_keeps_every_trial_that_has_a_value():
    labels = make_labels("feedback>0", trials(feedback=[1.0, 0.0, NAN, -1.0]))
    assert labels.values.tolist() == [1, 0, -1, 0]


@pytest.mark.parametrize(
    "expression", ["", "left > ", "left > right > up", "__import__('os')", "left + 1 > right", "f(left)"]
)
def test_anything_but_a_column_or_a_comparison_is_refused(expression):
    with pytest.raises(ValueError, match="must be COLUMN"):
        make_labels(expression, trials(left=[0, 1], right=[1, 0]))


def test_an_unknown_column_is_named_with_the_columns_there():
    with pytest.raises(ValueError, match=r"no column 'lefft'; they have left, right"):
        make_labels("lefft>right", trials(left=[0, 1], right=[1, 0]))


def test_a_column_of_words_cannot_be_compared():
    with pytest.raises(ValueError, match="does not hold numbers"):
        make_labels("side>0", trials(side=["left", "right"]))


def test_a_column_of_words_gives_classes():
    assert make_labels("side", trials(side=["right", "left"])).values.tolist() == [1, 0]


def test_one_class_is_nothing_to_decode():
    with pytest.raises(ValueError, match="one class"):
        make_labels("feedback", trials(feedback=[1, 1, 1]))


def test_a_continuous_column_asks_for_a_comparison():
    with pytest.raises(ValueError, match="compare it with a number"):
        make_labels("speed", trials(speed=np.linspace(0, 1, 40)))


def test_the_chosen_label_is_choice_then_side_of_the_stimulus_then_feedback():
    sides = {"contrast_left": [0.5, 0.0] * 10, "contrast_right": [0.0, 0.5] * 10}
    feedback = {"feedback": [1, -1] * 10}
    assert choose_label(trials(choice=[1, -1] * 10, **sides, **feedback)) == "choice"
    assert choose_label(trials(**sides, **feedback)) == "contrast_left>contrast_right"
    assert choose_label(trials(**feedback)) == "feedback"
    assert choose_label(trials(speed=np.linspace(0, 1, 20))) is None


def test_a_label_whose_second_class_is_rare_is_not_chosen():
    assert choose_label(trials(choice=[1] * 18 + [-1] * 2, feedback=[1, -1] * 10)) == "feedback"


def test_both_parts_of_a_split_number_their_classes_alike():
    train, test = trials(side=[0.0, 0.5, 1.0, 1.0]), trials(side=[1.0, 0.5, NAN, 1.0])  # no 0.0 in the test
    first, second = make_split_labels("side", train, test)
    assert first.values.tolist() == [0, 1, 2, 2]
    assert second.values.tolist() == [2, 1, -1, 2]
    assert first.names == second.names == ("side 0.0", "side 0.5", "side 1.0")


def test_a_part_with_one_class_is_named():
    with pytest.raises(ValueError, match="all test trials fall into one class"):
        make_split_labels("side>0", trials(side=[1, -1]), trials(side=[1, 1]))


def test_a_class_of_the_test_trials_alone_cannot_be_learned():
    with pytest.raises(ValueError, match="no training trial shows the class side 2"):
        make_split_labels("side", trials(side=[0, 1]), trials(side=[0, 2]))


def test_a_label_that_the_test_trials_do_not_show_is_passed_over():
    train = trials(choice=[1, -1] * 10, feedback=[1, -1] * 10)
    assert choose_label(train, trials(choice=[1, 1, 1, 1], feedback=[1, -1, 1, -1])) == "feedback"
