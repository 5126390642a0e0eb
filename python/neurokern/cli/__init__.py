"""The command line: ``neurokern COMMAND``, one file each. This file parses, runs and reports errors."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from neurokern import __version__
from neurokern.cli import (
    adapt,
    cache,
    catalog,
    demo,
    doctor,
    encode,
    env,
    evaluate,
    few_shot_command,
    hub,
    info,
    prepare,
    report,
    train,
    transfer,
)

__all__ = ["main"]

_COMMANDS = (
    demo,
    train,
    evaluate,
    adapt,
    few_shot_command,
    transfer,
    encode,
    info,
    catalog,
    prepare,
    doctor,
    report,
    hub,
    cache,
    env,
)
_BAD_INPUT = 2  # exit code, as argparse uses for a wrong option
_KILLED_BY = 128  # plus the number of the signal, as shells have it: 130 after Ctrl-C

_EXAMPLES = """\
examples:
  neurokern demo                          the whole path on a shipped recording, with a report
  neurokern demo --data my_session/       the same on your own spikes
  neurokern train sessions/ --out runs/a  pretrain MtM on a folder of recordings
  neurokern evaluate runs/a --report      masked-prediction scores beside the baselines
  neurokern few-shot runs/a new.npz --label choice   adapters on a recording with few labels
  neurokern transfer sessions/ --out runs/b --label choice   leave out each session in turn
  neurokern info ds000001/                what a recording, an image or a BIDS folder holds
  neurokern catalog download studyforrest --select subject=01   a public dataset, checked and resumed
  neurokern prepare ds000001/ --mask mask.nii.gz   decode all runs ahead of training
  neurokern doctor ds000001/              what is wrong with it
  neurokern report ds000001/              a page of figures about its fMRI runs
  neurokern hub save runs/a --out shared/ the model as a folder to share, with a card
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: its own or 0, 2 for bad input, 128 + a signal."""
    parser = _parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt as stop:
        hint = getattr(args, "interrupted", "")
        print(f"\nneurokern {args.command}: interrupted{hint}", file=sys.stderr)
        return _KILLED_BY + getattr(stop, "signal", signal.SIGINT)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError, OverflowError) as error:
        if args.debug:
            raise
        print(f"neurokern {args.command}: {_one_line(error)}", file=sys.stderr)
        return _BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neurokern",
        description="Spikes, NIfTI and BIDS to tensors; a multi-task-masking model, and few-shot decoders.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"neurokern {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        sub = command.add_parser(commands)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or f"{type(error).__name__} without a message (--debug shows where)"
