"""Facts of a BIDS folder: who and what is in it, and what does not fit together."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd

from neurokern.cli.image_facts import sizes_text, tr_facts
from neurokern.cli.meeg_facts import describe_recordings, recording_groups

if TYPE_CHECKING:
    from neurokern.datasets import BIDSDataset, BIDSIndex, BIDSRun

__all__ = ["condition_names", "dataset_rows", "describe_dataset", "describe_run", "run_label"]

_MOST_NAMES = 20
_IMAGES = (".nii", ".nii.gz")
_DATA = (*_IMAGES, ".vhdr", ".edf", ".bdf", ".set", ".fif", ".ds", ".sqd", ".con", ".snirf", ".nwb")
_LABELED = ("session", "task", "acquisition", "direction", "reconstruction", "run", "echo", "part", "space")


def describe_dataset(root: pathlib.Path) -> dict[str, Any]:
    """Return facts about a BIDS folder, from names, headers and tables; signals are not read.

    Raises
    ------
    OSError, ValueError
        If the folder or its description cannot be read.
    """
    from neurokern.datasets import BIDSDataset, BIDSIndex

    index = BIDSIndex(root)
    files = index.files
    about = _description(root)
    runs, warnings = [], _fetch_first(index)
    dataset = _functional(BIDSDataset, root)
    for i in range(0 if dataset is None else len(dataset)):
        assert dataset is not None
        facts = describe_run(dataset, i)
        runs.append(facts)
        warnings += [f"{facts['file']}: {text}" for text in facts["warnings"]]
    recordings = describe_recordings(root.absolute())
    warnings += [f"{facts['file']}: {text}" for facts in recordings for text in facts["warnings"]]
    conditions = Counter[str]()
    for run in [*runs, *recordings]:
        conditions.update(run.get("conditions") or {})
    return {
        "source": root.resolve().name,
        "holds": "BIDS folder",
        "name": about["Name"],
        "bids_version": about["BIDSVersion"],
        "dataset_type": about["DatasetType"],
        "license": about["License"],
        **{f"{name}s": _values(files, name) for name in ("subject", "session", "task")},
        "files": _file_counts(files),
        "runs": runs,
        "recordings": recordings,
        "conditions": dict(sorted(conditions.items())),
        "derivatives": _derivatives(files),
        "warnings": warnings,
    }


def describe_run(dataset: BIDSDataset, i: int) -> dict[str, Any]:
    """Return facts about a run; what is wrong with its files stands in ``warnings``."""
    from neurokern.ops import NiftiFile

    row = dataset.table.iloc[i]
    path = row["path"]
    facts: dict[str, Any] = {
        "file": str(path.relative_to(dataset.root)),
        "entities": {
            name: row[name] for name in dataset.table.columns if name != "path" and row[name] is not None
        },
        **dict.fromkeys(("volumes", "shape", "zooms", "dtype", "tr_s", "tr_source")),
        **dict.fromkeys(("events", "conditions", "confounds")),
        "warnings": [],
    }
    try:
        run = dataset.run(i)
        header = NiftiFile(path).header
    except (OSError, ValueError) as error:
        facts["warnings"] = [_without(path, dataset.root, error)]
        return facts
    timing, said = tr_facts(header, run)
    facts |= {
        "volumes": header.n_volumes,
        "shape": list(header.shape),
        "zooms": [round(size, 6) for size in header.zooms],
        "dtype": header.dtype,
        **{name: timing[name] for name in ("tr_s", "tr_source")},
    }
    facts["warnings"] = said
    if not header.has_time:
        facts["warnings"].append("has no time axis; a run of fMRI has four dimensions")
    seconds = None if timing["tr_s"] is None else timing["tr_s"] * header.n_volumes
    _describe_events(facts, run, seconds)
    _describe_confounds(facts, run)
    return facts


def condition_names(events: pd.DataFrame) -> list[str]:
    """Return the condition of each event: its ``trial_type``, "n/a" where it has none."""
    if "trial_type" not in events:
        return ["event"] * len(events)
    return ["n/a" if pd.isna(name) else str(name) for name in events["trial_type"]]


def run_label(entities: dict[str, str]) -> str:
    """Return the entities of a run in words, without the subject's."""
    return ", ".join(f"{name} {entities[name]}" for name in _LABELED if name in entities) or "run"


def dataset_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts as names and text, for people."""
    version = f" {facts['bids_version']}" if facts["bids_version"] else ""
    licence = f", licence {facts['license']}" if facts["license"] else ""
    kind = facts["dataset_type"] or "raw"
    rows = [
        ("holds", f"BIDS{version} ({kind}){licence}"),
        *([("name", facts["name"])] if facts["name"] else []),
        ("subjects", _names(facts["subjects"])),
        ("sessions", _names(facts["sessions"])),
        ("files", _files_text(facts["files"])),
        *[("runs", text) for text in _run_groups(facts["runs"])],
        *[("recordings", text) for text in recording_groups(facts["recordings"])],
    ]
    if facts["runs"] or facts["recordings"]:
        both = [*facts["runs"], *facts["recordings"]]
        with_events = [run for run in both if run.get("events")]
        total = sum(run["events"] for run in with_events)
        counts = ", ".join(f"{name} {n}" for name, n in facts["conditions"].items())
        rows.append(
            ("events", f"{total:,} in {_count_runs(with_events)}: {counts}" if with_events else "none")
        )
    if facts["runs"]:
        columns = [run["confounds"] for run in facts["runs"] if run["confounds"] is not None]
        rows.append(
            ("confounds", f"of {_count_runs(columns)}, up to {max(columns)} columns" if columns else "none")
        )
    derived = [
        f"{name} ({n['images']} images, {n['tables']} tables)" for name, n in facts["derivatives"].items()
    ]
    rows.append(("derivatives", ", ".join(derived) or "none"))
    return rows


def _description(root: pathlib.Path) -> dict[str, str | None]:
    from neurokern.datasets._bids_tables import read_json

    file = root / "dataset_description.json"
    fields = read_json(file) if file.is_file() else {}
    wanted = ("Name", "BIDSVersion", "DatasetType", "License")
    return {name: str(fields[name]) if fields.get(name) else None for name in wanted}


def _functional(kind: type[BIDSDataset], root: pathlib.Path) -> BIDSDataset | None:
    """Return the runs of fMRI, or None where there are none."""
    try:
        with catch_warnings():
            simplefilter("ignore")  # what was not fetched is told among the facts
            return kind(root, derivatives=False)
    except ValueError:
        return None


def _fetch_first(index: BIDSIndex) -> list[str]:
    lost = index.links_to_nowhere()
    if not lost:
        return []
    return [
        f"{len(lost)} data files are links to nowhere, such as {lost[0].relative_to(index.root)}; fetch them "
        "first, with `datalad get` for instance"
    ]


def _values(files: pd.DataFrame, entity: str) -> list[str]:
    if entity not in files:
        return []
    return sorted({str(value) for value in files[entity] if value is not None})


def _raw(files: pd.DataFrame) -> pd.DataFrame:
    return files[files["derivative"].isna()] if len(files) else files


def _file_counts(files: pd.DataFrame) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    raw = _raw(files)
    if len(raw):
        raw = raw[raw["extension"].isin(_DATA)]
        for datatype, suffix in zip(raw["datatype"], raw["suffix"], strict=True):
            counts.setdefault(str(datatype), Counter())[str(suffix)] += 1
    return {name: dict(sorted(of.items())) for name, of in sorted(counts.items())}


def _derivatives(files: pd.DataFrame) -> dict[str, dict[str, int]]:
    if not len(files):
        return {}
    found = files[files["derivative"].notna()]
    return {
        str(name): {
            "images": int(of["extension"].isin(_IMAGES).sum()),
            "tables": int(of["extension"].eq(".tsv").sum()),
        }
        for name, of in found.groupby("derivative")
    }


def _describe_events(facts: dict[str, Any], run: BIDSRun, seconds: float | None) -> None:
    if run.events is None:
        if "rest" not in run.entities.get("task", "rest").lower():
            facts["warnings"].append("no table of events (_events.tsv) for this task")
        return
    facts["events"] = len(run.events)
    missing = [name for name in ("onset", "duration") if name not in run.events]
    if missing:
        facts["warnings"].append(
            f"events must have columns onset and duration, there is no {', '.join(missing)}"
        )
        return
    facts["conditions"] = dict(sorted(Counter(condition_names(run.events)).items()))
    onset = pd.to_numeric(run.events["onset"], errors="coerce").to_numpy(dtype=np.float64)
    duration = pd.to_numeric(run.events["duration"], errors="coerce").to_numpy(dtype=np.float64)
    if unknown := int((~np.isfinite(onset)).sum()):
        facts["warnings"].append(f"{unknown} events have no onset")
    if seconds is None:
        return
    late = np.nan_to_num(onset, nan=-1.0) >= seconds
    cut = ~late & (np.nan_to_num(onset + np.nan_to_num(duration), nan=-1.0) > seconds + 1e-6)
    if late.any():
        facts["warnings"].append(
            f"{int(late.sum())} events begin after the end of the run at {seconds:g} s, the last at "
            f"{np.nanmax(onset):g} s; is the TR right?"
        )
    if cut.any():
        facts["warnings"].append(f"{int(cut.sum())} events go on after the end of the run at {seconds:g} s")


def _describe_confounds(facts: dict[str, Any], run: BIDSRun) -> None:
    if run.confounds is None:
        return
    facts["confounds"] = len(run.confounds.columns)
    if len(run.confounds) != facts["volumes"]:
        facts["warnings"].append(
            f"confounds must have a row for each of {facts['volumes']} volumes, got {len(run.confounds)}"
        )


def _run_groups(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for all runs of one task and one shape."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        kind = [run["entities"].get(name) for name in ("task", "acquisition", "space")]
        key = (*kind, str(run["shape"]), str(run["zooms"]), run["dtype"], run["tr_s"], run["tr_source"])
        groups.setdefault(key, []).append(run)
    return [_group_text(group) for group in groups.values()]


def _group_text(group: Sequence[dict[str, Any]]) -> str:
    first = group[0]
    kept = {
        name: first["entities"][name]
        for name in ("task", "acquisition", "space")
        if name in first["entities"]
    }
    text = f"{run_label(kept)}: {_count_runs(group)}"
    if first["shape"] is None:
        return f"{text} that cannot be read"
    volumes = sorted({run["volumes"] for run in group})
    span = f"{volumes[0]:,}" if len(volumes) == 1 else f"{volumes[0]:,} to {volumes[-1]:,}"
    tr = "no TR" if first["tr_s"] is None else f"TR {first['tr_s']:g} s by the {first['tr_source']}"
    voxels = f"{sizes_text(first['shape'])} voxels of {sizes_text(first['zooms'])} mm"
    return f"{text} of {span} volumes, {tr}; {voxels}, {first['dtype']}"


def _count_runs(runs: Sequence[Any]) -> str:
    return f"{len(runs):,} run{'s' if len(runs) != 1 else ''}"


def _names(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{len(names)}: {', '.join(names[:_MOST_NAMES])}{more}"


def _files_text(counts: dict[str, dict[str, int]]) -> str:
    kinds = [
        f"{name}: {', '.join(f'{n} {suffix}' for suffix, n in of.items())}" for name, of in counts.items()
    ]
    return "; ".join(kinds) or "no data"


def _without(path: pathlib.Path, root: pathlib.Path, error: Exception) -> str:
    """Return the message without the path that stands before it anyway."""
    return " ".join(str(error).split()).removeprefix(f"{path}: ").replace(f"{root}/", "")
