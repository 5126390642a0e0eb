"""``neurokern hub``: write a trained model as a folder that can be shared, check one, upload one."""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from neurokern._config import read_yaml, to_mapping
from neurokern.cli._common import facts_text, new_parser, require_torch, say

if TYPE_CHECKING:
    from neurokern.hub import ModelCard

_EXAMPLES = """\
  neurokern hub save runs/a --out shared/a --card card.yaml     config, weights, hashes, card, scores
  neurokern hub save runs/a --out shared/a --sessions drop      the trunk alone
  neurokern hub save runs/new/adapter --out shared/side --base lab/mtm-visual   an adapter of --adapter alone
  neurokern hub card shared/a                                   print the card
  neurokern hub check shared/a                                  are all files whole and unchanged?
  neurokern hub push shared/a lab/mtm-visual                    upload (private; --public for all)

card.yaml, of which license and data are needed before a push:
  title: MtM of mouse visual cortex
  license: cc-by-4.0
  data:
    - {name: Steinmetz et al. 2019, license: cc-by-4.0, citation: "Nature 576:266", url: ""}
  limits: [Contrast task only.]
  citation: ...

The card never names a session or a subject. config.json names the sessions, since the model is run
by their names: --sessions pseudonyms calls them session-1, session-2, ...; drop leaves them out.
"""
_TABLES = {
    "scores.csv": "bits per spike on test windows, mean over units [95 % interval]",
    "differences.csv": "MtM minus baseline in bits per spike, unit by unit [95 % interval]",
}
_NAMED = {"keep": "by name", "pseudonyms": "under pseudonyms", "drop": "left out"}
_FEW_SHOT = ("few_shot.csv", "decoding from few labeled windows")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``hub``."""
    parser = new_parser(
        commands,
        "hub",
        run,
        summary="share a trained model as a folder or on the Hugging Face Hub",
        description="Write a run as a folder with card and hashes, check such a folder, or upload it. "
        "Folders need no network and no account.",
        examples=_EXAMPLES,
    )
    parser.add_argument("action", choices=("save", "card", "check", "push"))
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="save: a run of `neurokern train`, or its adapter/ by `neurokern adapt --adapter`; else "
        "a shared folder, or OWNER/NAME",
    )
    parser.add_argument("repository", nargs="?", metavar="OWNER/NAME", help="push: where to")
    parser.add_argument("--out", metavar="FOLDER", help="save: folder to write")
    parser.add_argument("--card", metavar="FILE", help="save: YAML of what only people can say")
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="save: of an adapter, where others find its base model (OWNER/NAME, or a shared folder)",
    )
    parser.add_argument("--license", metavar="NAME", help="save: license of the weights; wins over the file")
    parser.add_argument(
        "--sessions",
        choices=("keep", "pseudonyms", "drop"),
        help="names of sessions (save: keep; push: pseudonyms, which refuses a folder that holds names)",
    )
    parser.add_argument("--public", action="store_true", help="push: a new repository is seen by all")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit")
    return parser


def run(args: argparse.Namespace) -> None:
    """Save, print, check or upload."""
    require_torch("hub")
    _check_flags(args)
    actions = {"save": _save, "card": _card, "check": _check, "push": _push}
    actions[args.action](args)


def _check_flags(args: argparse.Namespace) -> None:
    """Raise for flags of another action: they would be ignored."""
    belongs = {
        "save": {"out", "card", "license", "sessions", "base"},
        "push": {"repository", "sessions", "public", "revision"},
    }
    allowed = belongs.get(args.action, {"revision"})
    for name in ("repository", "out", "card", "license", "base", "sessions", "public", "revision"):
        if getattr(args, name) and name not in allowed:
            raise ValueError(f"hub {args.action}: takes no {'--' if name != 'repository' else ''}{name}")
    for action, name, shown in (
        ("save", "out", "--out FOLDER"),
        ("push", "repository", "OWNER/NAME to push to"),
    ):
        if args.action == action and not getattr(args, name):
            raise ValueError(f"hub {action}: needs {shown}")


def _save(args: argparse.Namespace) -> None:
    from neurokern.adapters import AdaptedModel
    from neurokern.checkpoint import load_model
    from neurokern.cli.settings import read_run_settings
    from neurokern.hub import save_pretrained

    source = pathlib.Path(args.source)
    is_adapter = not (source / "run.yaml").is_file() and (source / "config.json").is_file()
    if args.base and not is_adapter:
        raise ValueError("hub save: --base belongs to an adapter; SOURCE is none")
    run_folder = source.parent if is_adapter else source
    settings: dict[str, Any] = to_mapping(read_run_settings(run_folder))
    told = {name: settings[name] for name in ("windows", "split", "training")}  # paths of data may hold names
    card = replace(_card_of(args), settings=told)
    model: Any = load_model(run_folder / "best")
    if is_adapter:
        model = AdaptedModel.load(source, model)
    folder = save_pretrained(
        model,
        args.out,
        card=card,
        metrics=_adapter_metrics(run_folder) if is_adapter else _metrics(run_folder),
        sessions=args.sessions or "keep",
        base=args.base,
    )
    say(f"folder  {folder}")
    say(f"card    {folder / 'README.md'}")
    if is_adapter and not args.base:
        say("note: others must be told where the base model is (--base); the run's best/ is it")
    for name in ("license", "data"):
        if getattr(card, name) in ("not stated", ()):
            say(f"note: the card does not state {name}; a push will ask for it (--card)")


def _card_of(args: argparse.Namespace) -> ModelCard:
    from neurokern.hub import ModelCard

    card = ModelCard.from_dict(read_yaml(args.card)) if args.card else ModelCard()
    return replace(card, license=args.license) if args.license else card


def _metrics(run_folder: pathlib.Path) -> dict[str, pd.DataFrame]:
    """Return the tables that evaluate and adapt left in a run, without rows per session or unit."""
    found = {
        title: pd.read_csv(run_folder / file)
        for file, title in _TABLES.items()
        if (run_folder / file).is_file()
    }
    file, title = _FEW_SHOT
    if (run_folder / file).is_file():
        table = pd.read_csv(run_folder / file)
        wanted = ["metric", "method", "shots", "mean", "low", "high", "chance", "n_sessions"]
        found[title] = table[[name for name in wanted if name in table]]
    return found


def _adapter_metrics(run_folder: pathlib.Path) -> dict[str, pd.DataFrame]:
    from neurokern.cli.fit_adapter import ADAPTER_SCORES

    file = run_folder / ADAPTER_SCORES
    title = "test windows [95 % interval over windows]"
    return {title: pd.read_csv(file)} if file.is_file() else {}


def _card(args: argparse.Namespace) -> None:
    from neurokern.hub import read_folder

    say(
        (read_folder(args.source, revision=args.revision).folder / "README.md")
        .read_text(encoding="utf-8")
        .rstrip()
    )


def _check(args: argparse.Namespace) -> None:
    from neurokern.hub import read_folder

    found = read_folder(args.source, revision=args.revision)
    files = sorted(path.name for path in found.folder.iterdir() if path.is_file())
    rows = [
        ("kind", found.kind),
        (
            "sessions",
            _NAMED.get(found.sessions, found.sessions),
        ),
        ("license", found.card.license),
        ("data", ", ".join(one.name for one in found.card.data) or "not stated"),
        ("tables", ", ".join([*found.metrics, *found.alignment]) or "none"),
        ("files", ", ".join(files)),
    ]
    say(facts_text(f"{args.source}: every file is whole and unchanged (SHA-256)", rows))


def _push(args: argparse.Namespace) -> None:
    from neurokern.hub import push_to_hub

    url = push_to_hub(
        pathlib.Path(args.source),
        args.repository,
        private=not args.public,
        sessions=args.sessions or "pseudonyms",
        revision=args.revision,
    )
    say(f"uploaded  {url}")
