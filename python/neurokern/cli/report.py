"""``neurokern report``: one HTML page about images of a BIDS folder, or about one image."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.cli._common import Steps, new_parser, say
from neurokern.cli._flags import positive_int
from neurokern.cli.bids_facts import condition_names, describe_dataset, describe_run, run_label
from neurokern.cli.image_facts import describe_image, image_rows, is_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neurokern.datasets import BIDSRun
    from neurokern.ops import NiftiFile
    from neurokern.report import Section
    from neurokern.report.fmri_sections import ShownRun

_EXAMPLES = """\
  neurokern report sub-01_task-rest_bold.nii.gz             one image; its sidecar and events are found
  neurokern report ds000001/ --task rest --out rest.html    runs of a BIDS folder
  neurokern report bold.nii --mask brain_mask.nii.gz        with your mask

Reports on spikes come from `neurokern evaluate RUN --report`.
"""
_FILTERS = ("subject", "session", "task", "run", "space")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``report``."""
    parser = new_parser(
        commands,
        "report",
        run,
        summary="a page of figures about fMRI: an image, or runs of a BIDS folder",
        description=(
            "Write one HTML page that loads nothing: mean image and mask, temporal signal to noise, time "
            "courses, carpet plots before and after cleaning, events, header. Names of files and subjects "
            "are left out, so that the page can be shared."
        ),
        examples=_EXAMPLES,
    )
    parser.add_argument("data", metavar="FILE|FOLDER", help="a NIfTI image, or a BIDS folder")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="by default report.html")
    parser.add_argument(
        "--mask", metavar="FILE", help="mask image on the same grid; by default found or made"
    )
    parser.add_argument("--title", metavar="TEXT", help="heading of the page")
    parser.add_argument(
        "--max-runs", type=positive_int, default=4, metavar="N", help="show at most N runs of a folder (4)"
    )
    for name in _FILTERS:
        parser.add_argument(
            f"--{name}",
            dest=f"only_{name}",
            metavar="LABEL",
            action="append",
            help=f"runs of this {name} alone",
        )
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure, draw, write, and say where the page is."""
    from neurokern.report import write_page
    from neurokern.report.style import require_matplotlib

    require_matplotlib()
    path = pathlib.Path(args.data)
    _check_kind(path)
    title, lede, sections = _of_folder(path, args) if path.is_dir() else _of_file(path, args)
    page = write_page(args.out, args.title or title, lede, sections, _facts())
    say(f"report: {page}")


def _check_kind(path: pathlib.Path) -> None:
    """Raise unless a path looks like an image or a BIDS folder."""
    from neurokern.datasets.bids_file import is_bids_folder

    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    if is_bids_folder(path) if path.is_dir() else is_image(path):
        return
    raise ValueError(
        f"{path} must be a NIfTI image (.nii, .nii.gz, .hdr) or a BIDS folder (dataset_description.json, "
        "sub-*); reports on spikes come from `neurokern evaluate RUN --report`"
    )


def _of_file(path: pathlib.Path, args: argparse.Namespace) -> tuple[str, list[str], list[Section]]:
    """Return title, first paragraphs and sections of a page about one image."""
    from neurokern.datasets.bids_file import find_run
    from neurokern.report.fmri_sections import run_section, warnings_section

    given = [f"--{name}" for name in _FILTERS if getattr(args, f"only_{name}")]
    if given:
        raise ValueError(
            f"{', '.join(given)} choose among runs of a BIDS folder, {path.name} is one file; leave out"
        )
    facts = describe_image(path)
    source = find_run(path)
    title = run_label(source.entities).capitalize() if source.entities else "An image"
    steps = Steps(1)
    with steps.step(f"measure {path.name}"):
        shown = _shown_run(source, title, facts["tr_s"], args.mask, image_rows(facts))
    section = run_section(shown)
    warned = warnings_section(facts["warnings"])
    sizes = " × ".join(f"{size:,}" for size in facts["shape"])
    lede = [f"{facts['holds']}: {sizes}. {_PRIVACY}"]
    return title, lede, [*([warned] if warned else []), section]


def _of_folder(root: pathlib.Path, args: argparse.Namespace) -> tuple[str, list[str], list[Section]]:
    """Return title, first paragraphs and sections of a page about runs of a BIDS folder."""
    from neurokern.datasets import BIDSDataset
    from neurokern.report import Section
    from neurokern.report.fmri_sections import run_section, runs_table, warnings_section

    only = {name: getattr(args, f"only_{name}") for name in _FILTERS if getattr(args, f"only_{name}")}
    dataset = BIDSDataset(root, **only)
    about = describe_dataset(root)
    chosen = list(range(min(len(dataset), args.max_runs)))
    numbers = {label: at for at, label in enumerate(about["subjects"], 1)}
    steps = Steps(len(chosen))
    runs, volumes, warnings = [], [], []
    for i in chosen:
        facts = describe_run(dataset, i)
        title = _numbered(facts["entities"], numbers)
        warnings += [f"{title}: {text}" for text in facts["warnings"]]
        with steps.step(f"measure {facts['file']}"):
            try:
                source = dataset.run(i)
                rows = image_rows(describe_image(source.path))
                runs.append(_shown_run(source, title, facts["tr_s"], args.mask, rows))
                volumes.append(facts["volumes"])
            except (OSError, ValueError) as error:
                message = " ".join(str(error).split()).replace(f"{dataset.table.iloc[i]['path']}: ", "")
                steps.note(f"left out: {message}")
                warnings.append(f"{title} is left out: {_without_names(message, facts['entities'])}")
    if not runs:
        raise ValueError(f"{root}: none of {len(chosen)} runs can be shown; the last: {warnings[-1]}")
    warned = warnings_section(list(dict.fromkeys(warnings)))
    overview = Section(title="Runs", parts=[runs_table(runs, volumes)])
    left = len(dataset) - len(chosen)
    more = f" {left} more are not shown (--max-runs)." if left else ""
    shown = (
        f"{len(runs)} of {len(dataset)} runs" if left else f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    )
    lede = [f"{shown}.{more} {_PRIVACY} Subjects are numbered in the order of their folders."]
    sections = [*([warned] if warned else []), overview, *[run_section(one) for one in runs]]
    return about["name"] or "Runs of a BIDS folder", lede, sections


_PRIVACY = "Names of files and subjects are left out."


def _numbered(entities: dict[str, str], numbers: dict[str, int]) -> str:
    return f"Subject {numbers.get(entities.get('subject', ''), 1)}, {run_label(entities)}"


def _without_names(text: str, entities: dict[str, str]) -> str:
    """Return a message without words that hold the subject's label."""
    label = f"sub-{entities.get('subject', '')}"
    return " ".join("(file)" if label in word else word for word in text.split())


def _shown_run(
    source: BIDSRun, title: str, tr: float | None, mask: str | None, rows: Sequence[tuple[str, str]]
) -> ShownRun:
    from neurokern.ops import NiftiFile
    from neurokern.report.fmri_quality import measure_run
    from neurokern.report.fmri_sections import ShownRun

    file = NiftiFile(source.path)
    voxels, how = _find_mask(file, mask)
    quality = measure_run(file, mask=voxels, mask_how=how, confounds=source.confounds)
    return ShownRun(
        title=title,
        quality=quality,
        affine=file.header.affine,
        tr=tr,
        events=_events(source),
        header=[row for row in rows if row[0] != "holds"],
    )


def _find_mask(file: NiftiFile, given: str | None) -> tuple[NDArray[np.bool_] | None, str]:
    """Return the mask that was given, or that a preprocessed image has beside it, or None; and its origin."""
    from neurokern.ops import VoxelMask
    from neurokern.ops._nifti_mask import read_image

    name = file.path.name.replace("desc-preproc_bold", "desc-brain_mask")
    beside = file.path.with_name(name)
    found = name != file.path.name and beside.is_file()
    path = given or (str(beside) if found else None)
    if path is None:
        return None, ""
    VoxelMask(path).check_fits(f"mask {path}", file.header.shape, file.header.affine)
    values = read_image("mask", path)[0].reshape(file.header.shape)
    how = "given" if given else "brain mask of the preprocessing"
    return np.nan_to_num(values) != 0, how


def _events(source: BIDSRun) -> list[tuple[float, float, str]]:
    import pandas as pd

    events = source.events
    if events is None or not {"onset", "duration"} <= set(events):
        return []
    onsets = pd.to_numeric(events["onset"], errors="coerce")
    durations = pd.to_numeric(events["duration"], errors="coerce").fillna(0.0)
    rows = zip(onsets, durations, condition_names(events), strict=True)
    return [(float(on), float(long), name) for on, long, name in rows if np.isfinite(on)]


def _facts() -> dict[str, str]:
    from neurokern._environment import describe_environment

    about: dict[str, Any] = describe_environment()
    return {"neurokern": f"{about['neurokern']}, instruction set {about['cpu'].get('isa', 'unknown')}"}
