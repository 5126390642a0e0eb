"""``neurokern cache``: what is kept between runs, whether it is whole, and making room."""

from __future__ import annotations

import argparse
import time

from tqdm import tqdm

from neurokern.cli._common import new_parser, say, size_text, text_table
from neurokern.ops._cache_files import (
    KINDS,
    CachedFile,
    cached_files,
    left_behind,
    most_bytes,
    prune_cache,
    remove_files,
    remove_left_behind,
    what_is_wrong,
)
from neurokern.ops._gzip_cache import cache_folder

_DAY = 24 * 3600
_EXAMPLES = """\
  neurokern cache                       how much of what, and where
  neurokern cache verify                read every file, and remove those that are damaged
  neurokern cache prune --max-gib 10    remove what was not used for longest, down to 10 GiB
  neurokern cache prune --unused-days 30
  NEUROKERN_CACHE=/scratch/nk neurokern cache
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``cache``."""
    parser = new_parser(
        commands,
        "cache",
        run,
        summary="list, verify or prune what is kept between runs",
        description="Packed runs, filtered signals, binned sessions, coefficients of cleaning, seek points, "
        "listings of folders and features of stimuli are kept in a folder, so that they are made once. "
        "All of it can be removed at any time: it is made again when needed.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "verify", "prune"), default="list", help="default: list"
    )
    parser.add_argument(
        "--max-gib", type=float, metavar="N", help="prune: what may stay; 0 empties the cache"
    )
    parser.add_argument(
        "--unused-days", type=float, metavar="N", help="prune: what was unused for so long goes"
    )
    parser.add_argument("--keep-damaged", action="store_true", help="verify: name damaged files only")
    return parser


def run(args: argparse.Namespace) -> None:
    """List, verify or prune."""
    if args.action != "prune" and (args.max_gib is not None or args.unused_days is not None):
        raise ValueError("cache: --max-gib and --unused-days belong to `neurokern cache prune`")
    if args.action == "verify":
        _verify(args.keep_damaged)
    elif args.action == "prune":
        _prune(args.max_gib, args.unused_days)
    else:
        _list()


def _list() -> None:
    files = cached_files()
    rows = [_row(meaning, [file for file in files if file.kind == kind]) for kind, meaning in KINDS.items()]
    say(f"{cache_folder()} (NEUROKERN_CACHE)")
    lost = left_behind()
    if lost:
        rows.append(_row("left by programs that were killed", lost))
    say(text_table(("", "files", "size", "unused for"), [*rows, _row("all", [*files, *lost])]))
    say(f"It may have {size_text(most_bytes())} (NEUROKERN_CACHE_GIB).")


def _row(meaning: str, files: list[CachedFile]) -> tuple[str, str, str, str]:
    days = (time.time() - min(file.used for file in files) / 1e9) / _DAY if files else 0.0
    longest = f"{days:.1f} days" if files else "–"
    return meaning, str(len(files)), size_text(sum(file.n_bytes for file in files)), longest


def _verify(keep: bool) -> None:
    files = cached_files()
    damaged = 0
    for file in tqdm(files, unit="file", disable=None):
        try:
            wrong = what_is_wrong(file)
        except FileNotFoundError:
            continue  # another program has removed it meanwhile
        if wrong is None:
            continue
        damaged += 1
        say(f"{file.kind}/{file.path.name}: {wrong}{'' if keep else '; removed'}")
        if not keep:
            file.path.unlink(missing_ok=True)
    if not keep and (lost := remove_left_behind()):
        say(f"removed {size_text(lost)} that programs had left when they were killed")
    say(f"{len(files)} files ({size_text(sum(file.n_bytes for file in files))}), {damaged} damaged")
    if damaged and keep:
        raise ValueError(
            f"cache verify: {damaged} of {len(files)} files are damaged; run it without --keep-damaged"
        )


def _prune(max_gib: float | None, unused_days: float | None) -> None:
    if max_gib is None and unused_days is None:
        raise ValueError("cache prune: give --max-gib, --unused-days or both")
    for flag, value in (("--max-gib", max_gib), ("--unused-days", unused_days)):
        if value is not None and not value >= 0:
            raise ValueError(f"cache prune: {flag} must be at least 0, got {value}")
    removed = remove_left_behind()
    if unused_days is not None:
        before = (time.time() - unused_days * _DAY) * 1e9
        old = [file for file in cached_files() if file.used < before]
        removed += remove_files(old, sum(file.n_bytes for file in old))
    if max_gib is not None:
        removed += prune_cache(int(min(max_gib, 2.0**30) * 2**30))
    say(f"removed {size_text(removed)}, {size_text(sum(file.n_bytes for file in cached_files()))} stay")
