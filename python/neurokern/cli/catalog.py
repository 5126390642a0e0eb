"""``neurokern catalog``: public datasets, what they are, and their download."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from neurokern.cli._common import facts_text, new_parser, say, size_text, text_table
from neurokern.cli._flags import positive_int

if TYPE_CHECKING:
    from neurokern.datasets.catalog import Card, RemoteFile

_EXAMPLES = """\
  neurokern catalog                                    the datasets that there are cards of
  neurokern catalog show studyforrest                  what one is, its license, whom to cite
  neurokern catalog download studyforrest --select subject=01 --dry-run
  neurokern catalog download openneuro-ds000114 data/ --select subject=[01,02] --select task=fingerfootlips
  neurokern catalog download steinmetz2019 --include 'Cori*'    again after an interruption: it goes on
  neurokern catalog download mycard.yaml data/ --verify    read all files again, fetch those that differ
  neurokern catalog make lab_data/ --url https://lab.example/data --name lab-maze --title 'Maze' \\
      --modality spikes --contains '...' --license CC-BY-4.0 --citation '...' --out lab-maze.yaml
"""
_ACTIONS = ("list", "show", "download", "make")
_TEXTS = ("name", "url", "title", "contains", "license", "citation")
_MORE = ("homepage", "doi", "size", "load", "checked")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``catalog``."""
    parser = new_parser(
        commands,
        "catalog",
        run,
        summary="public datasets: cards, and downloads that are checked and resumed",
        description="Cards say what a dataset holds, its license, whom to cite, and how it is loaded. "
        "Downloads compare each file with the digest that its source publishes, go on after an interruption, "
        "and leave what is there and whole. Your own cards lie in ~/.config/neurokern/cards, or in "
        "NEUROKERN_CARDS.",
        examples=_EXAMPLES,
    )
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="list", help="default: list")
    parser.add_argument("what", nargs="?", metavar="NAME|FILE|FOLDER", help="a card; make: the folder")
    parser.add_argument("folder", nargs="?", metavar="TO", help="download: where to (a folder of its name)")
    parser.add_argument(
        "--select",
        metavar="ENTITY=VALUE",
        action="append",
        default=[],
        help="download: BIDS entities, such as subject=01; may be repeated",
    )
    for name, text in (("include", "take files"), ("exclude", "leave files")):
        parser.add_argument(
            f"--{name}",
            metavar="PATTERN",
            action="append",
            default=[],
            help=f"download: {text} whose path fits",
        )
    parser.add_argument("--jobs", type=positive_int, default=4, metavar="N", help="files at once (4)")
    parser.add_argument("--verify", action="store_true", help="read files that are there again")
    parser.add_argument("--dry-run", action="store_true", help="download: list what would be fetched")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    for name in (*_TEXTS, *_MORE):
        parser.add_argument(f"--{name}", metavar="TEXT", help=f"make: the card's {name}")
    parser.add_argument("--modality", metavar="NAME,NAME", help="make: the card's modalities")
    parser.add_argument("--out", metavar="FILE", help="make: the card's file")
    return parser


def run(args: argparse.Namespace) -> None:
    """List, show, download or make."""
    args.interrupted = "; the same command goes on"
    if args.action == "list":
        _list(args.json)
        return
    if args.what is None:
        raise ValueError(f"catalog {args.action}: name a {'folder' if args.action == 'make' else 'dataset'}")
    {"show": _show, "download": _download, "make": _make}[args.action](args)


def _list(as_json: bool) -> None:
    from neurokern.datasets.catalog import cards

    every = list(cards().values())
    if as_json:
        say(json.dumps([_facts(card) for card in every], indent=2))
        return
    rows = [(card.name, ", ".join(card.modality), card.source["kind"]) for card in every]
    say(text_table(("", "modality", "source"), rows))
    say("More about one: neurokern catalog show NAME")


def _show(args: argparse.Namespace) -> None:
    from neurokern.datasets.catalog import find_card

    card = find_card(args.what)
    if args.json:
        say(json.dumps(_facts(card), indent=2))
        return
    rows = [(name, value) for name, value in _facts(card).items() if isinstance(value, str) and value]
    how = card.source.get("how") or f"neurokern catalog download {args.what}"
    say(facts_text(card.name, [*rows[1:], ("modality", ", ".join(card.modality)), ("fetch", str(how))]))


def _facts(card: Card) -> dict[str, Any]:
    texts = ("name", "title", "contains", "license", "citation", "doi", "homepage", "size", "load", "checked")
    facts: dict[str, Any] = {name: " ".join(str(getattr(card, name)).split()) for name in texts}
    return facts | {"modality": list(card.modality), "source": dict(card.source), "files": len(card.files)}


def _download(args: argparse.Namespace) -> None:
    from neurokern._config import parse_flags
    from neurokern.datasets.catalog import download, find_card, list_files, select_files

    card = find_card(args.what)
    part = {"include": args.include, "exclude": args.exclude, **parse_flags(args.select)}
    if args.dry_run:
        _tell_plan(select_files(list_files(card), **part), args.json)
        return
    done = download(
        card, args.folder, jobs=args.jobs, verify=args.verify, progress=False if args.json else None, **part
    )
    if args.json:
        facts = {"folder": str(done.folder), "files": len(done.files), "fetched": done.fetched}
        say(json.dumps(facts | {"bytes": done.n_bytes, "unchecked": list(done.unchecked)}, indent=2))
        return
    if done.fetched:
        size = size_text(done.n_bytes)
        say(f"fetched {done.fetched} of {len(done.files)} files, {size}, into {done.folder}")
    else:
        say(f"nothing to do: all {len(done.files)} files are in {done.folder}")
    if done.unchecked:
        say(f"{len(done.unchecked)} of them have no digest at the source; at most their size was compared")
    say(f"load    {card.load}")
    say(f"license {' '.join(card.license.split())}")
    say(f"cite    {' '.join(card.citation.split())}")


def _tell_plan(files: list[RemoteFile], as_json: bool) -> None:
    if as_json:
        say(json.dumps([vars(file) for file in files], indent=2))
        return
    known = [file.n_bytes for file in files if file.n_bytes is not None]
    for file in files:
        size = "?" if file.n_bytes is None else size_text(file.n_bytes)
        say(f"{size:>10}  {'' if file.digest is None else file.digest[0]:6}  {file.path}")
    more = f", and {len(files) - len(known)} of unknown size" if len(known) < len(files) else ""
    say(f"{len(files)} files, {size_text(sum(known))}{more}; nothing was fetched")


def _make(args: argparse.Namespace) -> None:
    from neurokern._config import write_yaml
    from neurokern.datasets.catalog import make_card

    given = {name: getattr(args, name) for name in (*_TEXTS, "modality", "out")}
    missing = [f"--{name}" for name, value in given.items() if not value]
    if missing:
        raise ValueError(f"catalog make: a card needs {', '.join(missing)}")
    texts = {name: getattr(args, name) for name in (*_TEXTS, *_MORE) if getattr(args, name) is not None}
    modality = [name.strip() for name in args.modality.split(",") if name.strip()]
    card, values = make_card(args.what, modality=modality, progress=not args.json, **texts)
    write_yaml(args.out, values)
    n_bytes = sum(file.n_bytes or 0 for file in card.files)
    say(f"{args.out}: {len(card.files)} files, {size_text(n_bytes)}, with their SHA-256")
    say(f"try it  neurokern catalog download {args.out} copy/")
