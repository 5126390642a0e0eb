"""Flags that fill a configuration."""

from __future__ import annotations

import argparse

__all__ = ["LABEL_HELP", "add_scoring_flags", "add_settings_flags", "positive_int"]

LABEL_HELP = (
    "what to decode: COLUMN of the trials (each value is a class), or a comparison COLUMN>COLUMN or "
    "COLUMN>NUMBER (also <, >=, <=, ==, !=), such as contrast_left>contrast_right. With < or > between two "
    "columns, trials with equal values are dropped."
)


def positive_int(text: str) -> int:
    """Read a number of at least 1 off the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


positive_int.__name__ = "int"  # what argparse calls it where the text is no number


def add_scoring_flags(parser: argparse.ArgumentParser, *, max_units: int | None = None) -> None:
    """Add ``--label``, ``--max-units`` and ``--episodes``."""
    parser.add_argument("--label", metavar="EXPR", help=LABEL_HELP)
    parser.add_argument(
        "--max-units",
        type=positive_int,
        default=max_units,
        metavar="N",
        help=f"score at most N units ({max_units or 'all'})",
    )
    parser.add_argument(
        "--episodes",
        type=positive_int,
        default=100,
        metavar="N",
        help="random draws of few-shot examples (100)",
    )


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, ``--set`` and ``--seed``."""
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of settings, such as the run.yaml of a run"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="one setting, such as training.max_steps=200; wins over the file; may be repeated",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="short for --set training.seed=N --set split.seed=N (default: 42 and 0)",
    )
