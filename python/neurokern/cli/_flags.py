"""Flags that fill a configuration."""

from __future__ import annotations

import argparse

__all__ = ["add_settings_flags"]


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
    parser.add_argument("--seed", type=int, help="short for --set training.seed=N --set split.seed=N")
