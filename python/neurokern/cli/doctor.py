"""``neurokern doctor``: reads what a folder holds to its end, and says what is wrong with it."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from neurokern.cli._common import new_parser, say
from neurokern.cli.bids_facts import describe_dataset
from neurokern.cli.data_files import files_below, spikes_below
from neurokern.cli.doctor_images import Look, check_image, check_masks
from neurokern.cli.doctor_meeg import MODALITIES, check_recording
from neurokern.cli.doctor_spikes import check_spikes
from neurokern.cli.image_facts import describe_image, is_image
from neurokern.cli.meeg_facts import is_recording

if TYPE_CHECKING:
    from neurokern.datasets import BIDSDataset

_EXAMPLES = """\
  neurokern doctor ds000001/            a BIDS folder: names, tables, headers, and every signal
  neurokern doctor ds000001/ --quick    without signals: what names, tables and headers tell
  neurokern doctor recordings/          folders and files of spikes
  neurokern doctor sub-01_bold.nii.gz   one image
  neurokern doctor ds000001/ --json > findings.json
"""


class Finding(NamedTuple):
    """What is wrong, and where; an error is what would make results wrong, or reading fail."""

    level: str  # "error" or "warning"
    where: str
    what: str


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``doctor``."""
    parser = new_parser(
        commands,
        "doctor",
        run,
        summary="what is wrong with a folder of data, and how fast it loads",
        description=(
            "Check sidecars, TRs, events, masks, channels and clusters against each other, and read every "
            "signal to its end: NaN, flat and clipped voxels or channels, files that are cut short. Says how "
            "fast they load. The exit code is 1 if there is an error, 0 if there are warnings alone."
        ),
        examples=_EXAMPLES,
    )
    parser.add_argument("data", nargs="+", metavar="FILE|FOLDER", help="BIDS folders, images, recordings")
    parser.add_argument("--quick", action="store_true", help="do not read the signals of images and M/EEG")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 1 if there is an error among them."""
    findings: list[Finding] = []
    looks: list[Look] = []
    for path in map(pathlib.Path, args.data):
        for part in _findings(path, not args.quick, looks):
            findings += part
    speed = _speed(looks)
    n_errors = sum(finding.level == "error" for finding in findings)
    if args.json:
        say(json.dumps({"findings": [f._asdict() for f in findings], "loading": speed}, indent=2))
        return int(n_errors > 0)
    for finding in sorted(findings):  # errors first
        say(f"{finding.level:8}{finding.where}: {finding.what}")
    for kind, facts in (speed or {}).items():
        say(
            f"loading {facts['files']} {kind}, {facts['mb']:,.1f} MB in {facts['seconds']:.2f} s "
            f"({facts['mb_per_second']:,.0f} MB/s on this thread){_then(kind)}"
        )
    n_warnings = len(findings) - n_errors
    say(f"{n_errors} error{'s'[: n_errors != 1]}, {n_warnings} warning{'s'[: n_warnings != 1]}")
    return int(n_errors > 0)


def _findings(path: pathlib.Path, with_signals: bool, looks: list[Look]) -> Iterator[list[Finding]]:
    from neurokern.datasets.bids_file import is_bids_folder

    if is_image(path):
        yield [Finding("warning", path.name, text) for text in describe_image(path)["warnings"]]
        if with_signals:
            yield _look_at(path, path.name, looks)
    elif path.is_dir() and is_bids_folder(path):
        yield from _bids_findings(path, with_signals, looks)
    elif is_recording(path) and path.exists():
        yield from _recording_findings(path, path.name, with_signals, looks)
    else:
        yield from _folder_findings(path, with_signals, looks)


def _folder_findings(folder: pathlib.Path, with_signals: bool, looks: list[Look]) -> Iterator[list[Finding]]:
    """Look at a recording of spikes, or at whatever lies in a folder."""
    images, recordings = files_below(folder) if folder.is_dir() else ([], [])
    for image in images:
        where = str(image.relative_to(folder))
        yield _checked(where, lambda image=image: _of_header(image))  # type: ignore[misc]
        if with_signals:
            yield _look_at(image, where, looks)
    for recording in recordings:
        yield from _recording_findings(recording, str(recording.relative_to(folder)), with_signals, looks)
    sources = spikes_below(folder, others=bool(images or recordings))
    for source in tqdm(sources, unit="recording", disable=None if len(sources) > 1 else True):
        yield _timed(source.name, lambda source=source: check_spikes(source), looks)  # type: ignore[misc]


def _of_header(image: pathlib.Path) -> list[tuple[str, str]]:
    return [("warning", text) for text in describe_image(image)["warnings"]]


def _recording_findings(
    path: pathlib.Path, where: str, with_signals: bool, looks: list[Look]
) -> Iterator[list[Finding]]:
    from neurokern.datasets.meeg_sources import as_run

    if with_signals:
        yield _timed(where, lambda: check_recording(as_run(path)), looks)


def _bids_findings(root: pathlib.Path, with_signals: bool, looks: list[Look]) -> Iterator[list[Finding]]:
    facts = describe_dataset(root)
    if not (root / "dataset_description.json").is_file():
        yield [Finding("warning", root.name, "there is no dataset_description.json")]
    yield [_of_dataset(root, text) for text in facts["warnings"]]
    runs = _runs(root, "func")
    if runs is not None:
        yield [Finding("warning", where, what) for where, what in check_masks(runs)]
    if with_signals and runs is not None:
        for path in tqdm(runs.table["path"], unit="run", desc="func", disable=None):
            yield _look_at(path, str(path.relative_to(runs.root)), looks)
    for modality in MODALITIES if with_signals else ():
        recordings = _runs(root, modality)
        if recordings is None:
            continue
        for i in tqdm(range(len(recordings)), unit="recording", desc=modality, disable=None):
            where = str(recordings.table["path"].iloc[i].relative_to(recordings.root))
            yield _timed(where, lambda i=i, of=recordings: check_recording(of.run(i)), looks)  # type: ignore[misc]


def _of_dataset(root: pathlib.Path, text: str) -> Finding:
    """Return a warning of the index as a finding of its file."""
    where, colon, what = text.partition(": ")
    if colon and (root / where).exists():
        return Finding("warning", where, what)
    return Finding("warning", root.name, text)


def _runs(root: pathlib.Path, modality: str) -> BIDSDataset | None:
    from neurokern.datasets import BIDSDataset

    try:
        return BIDSDataset(root, modality, derivatives=False)
    except ValueError:
        return None  # no data of this kind


def _look_at(path: pathlib.Path, where: str, looks: list[Look]) -> list[Finding]:
    return _timed(where, lambda: check_image(path), looks)


def _timed(
    where: str, look_at: Callable[[], tuple[Look, list[tuple[str, str]]]], looks: list[Look]
) -> list[Finding]:
    """Return what a check finds, and keep how long reading took."""

    def check() -> list[tuple[str, str]]:
        look, found = look_at()
        looks.append(look)
        return found

    return _checked(where, check)


def _checked(where: str, check: Callable[[], list[tuple[str, str]]]) -> list[Finding]:
    """Return what a check finds; that it cannot be read is a finding, too."""
    try:
        return [Finding(level, where, what) for level, what in check()]
    except (OSError, ValueError, RuntimeError, TypeError, ImportError) as error:
        return [Finding("error", where, " ".join(str(error).split()))]


def _speed(looks: list[Look]) -> dict[str, dict[str, float]] | None:
    """Return, of each kind of data, how much was read and how fast."""
    if not looks:
        return None
    speeds = {}
    for kind in dict.fromkeys(look.kind for look in looks):
        some = [look for look in looks if look.kind == kind]
        seconds, mb = sum(look.seconds for look in some), sum(look.n_bytes for look in some) / 1e6
        speeds[kind] = {
            "files": len(some),
            "mb": mb,
            "seconds": seconds,
            "mb_per_second": mb / max(seconds, 1e-9),
        }
    return speeds


def _then(kind: str) -> str:
    """Return what makes later loads faster, where something does."""
    return "" if kind == "images" else "; `neurokern prepare` does it once"
