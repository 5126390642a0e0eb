"""``neurokern env``: versions, instruction set, CUDA, devices, threads."""

from __future__ import annotations

import argparse
import json

from neurokern._environment import describe_environment, format_environment
from neurokern.cli._common import new_parser, say

_EXAMPLES = """\
  neurokern env
  neurokern env --json > environment.json
  NEUROKERN_ISA=v2 neurokern env        force an instruction set
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``env``."""
    parser = new_parser(
        commands,
        "env",
        run,
        summary="versions, instruction set, CUDA, threads",
        description="Show what neurokern runs on here. Works without torch and without a GPU.",
        examples=_EXAMPLES,
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> None:
    """Print the facts."""
    facts = describe_environment()
    say(json.dumps(facts, indent=2) if args.json else format_environment(facts))
