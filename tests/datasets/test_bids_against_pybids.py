"""Index, metadata and events of generated folders are those that pybids finds: each rule of inheritance."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from neurokern.datasets import BIDSIndex
from neurokern.datasets._bids_tables import read_tsv

bids = pytest.importorskip("bids")


class Maker:
    """Folders drawn at random: two subjects with or without sessions, tasks, runs, echoes, derivatives."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random, self.root, self.number = np.random.default_rng(seed), root, 0

    def chance(self, p: float = 0.5) -> bool:
        return bool(self.random.random() < p)

    def name(self, entities: dict[str, str], rest: str) -> str:
        """Return a name with its entities in an odd order, the subject's first."""
        keys = [key for key in entities if key != "sub"]
        self.random.shuffle(keys)
        first = [f"sub-{entities['sub']}"] if "sub" in entities else []
        return "_".join([*first, *(f"{key}-{entities[key]}" for key in keys), rest])

    def fields(self) -> str:
        """Return a sidecar of which some fields hide others, and each file is told by one."""
        self.number += 1
        drawn = {f"Field{k}": int(self.random.integers(100)) for k in range(4) if self.chance()}
        return json.dumps({"RepetitionTime": 2.0, f"Only{self.number}": True} | drawn)

    def sidecars(self, folder: Path, entities: dict[str, str], suffix: str) -> None:
        """Write at most one sidecar and one table of events for a file into its folder and each above."""
        levels = [folder, *folder.parents]
        for level in levels[: levels.index(self.root) + 1]:
            fitting = [p for p in level.glob(f"*_{suffix}.json") if applies(p, entities)]
            kept = {k: v for k, v in entities.items() if k == "task" or self.chance()}
            if self.chance(0.6) and not fitting and kept:
                (level / self.name(kept, f"{suffix}.json")).write_text(self.fields())

    def dataset(self) -> None:
        self.root.mkdir(parents=True)
        about = {"Name": "x", "BIDSVersion": "1.8.0", "DatasetType": "raw"}
        (self.root / "dataset_description.json").write_text(json.dumps(about))
        for subject in ("01", "02"):
            for session in ("a", "b") if self.chance() else (None,):
                self.session(subject, session)

    def session(self, subject: str, session: str | None) -> None:
        place = self.root / f"sub-{subject}"
        place = place / f"ses-{session}" if session else place
        common = {"sub": subject} | ({"ses": session} if session else {})
        (place / "func").mkdir(parents=True)
        (place / "anat").mkdir()
        (place / "anat" / self.name(common, "T1w.nii.gz")).touch()
        for task in ("rest", "look"):
            for run in range(int(self.random.integers(1, 3))):
                entities = common | {"task": task} | ({"run": f"{run + 1:02d}"} if self.chance(0.7) else {})
                entities |= {"acq": "fast"} if self.chance(0.3) else {}
                self.run(place / "func", entities)

    def run(self, folder: Path, entities: dict[str, str]) -> None:
        image = folder / self.name(entities, "bold.nii.gz")
        if any(applies(other, entities) for other in folder.glob("*_bold.nii.gz")):
            return
        image.touch()
        self.sidecars(folder, entities, "bold")
        if self.chance():
            table = f"onset\tduration\n{self.number}\t1\n"
            (folder / self.name(entities, "events.tsv")).write_text(table)


def applies(path: Path, entities: dict[str, str]) -> bool:
    own = dict(part.split("-") for part in path.name.split("_")[:-1])
    return own.items() <= entities.items()


def is_plain(image: Path, root: Path) -> bool:
    """Return whether each folder has at most one sidecar for a file, as BIDS demands."""
    entities = dict(part.split("-") for part in image.name.split("_")[:-1])
    levels = [image.parent, *image.parent.parents]
    counts = [
        sum(
            applies(path, entities)
            for path in level.glob(f"*_{image.name.split('_')[-1].split('.')[0]}.json")
        )
        for level in levels[: levels.index(root) + 1]
    ]
    return max(counts) <= 1


def changed(maker: Maker) -> None:
    """Add and remove a run, and write a sidecar anew."""
    maker.session("03", None)
    images = sorted(maker.root.glob("sub-0[12]/**/*_bold.nii.gz"))
    images[int(maker.random.integers(len(images)))].unlink()
    sidecars = sorted(maker.root.rglob("*_bold.json"))
    sidecars[int(maker.random.integers(len(sidecars)))].write_text(maker.fields())


def layout_of(root: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bids.BIDSLayout(root, validate=False, **options)


@pytest.mark.parametrize("seed", range(6))
def test_files_entities_and_metadata_are_those_of_pybids(tmp_path, seed, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "ds"
    maker = Maker(root, seed)
    maker.dataset()
    compare(root)
    if seed < 2:  # and once more when the folder has changed, from the listing that was kept
        changed(maker)
        compare(root)


def compare(root: Path) -> None:
    ours, theirs = BIDSIndex(root, cache=True), layout_of(root)
    images = ours.files[ours.files["extension"].eq(".nii.gz")]
    found = {str(file.path): file for file in theirs.get(extension=".nii.gz")}
    assert {str(path) for path in images["path"]} == set(found)
    compared = 0
    for _, row in images.iterrows():
        file = found[str(row["path"])]
        entities = file.get_entities()
        for name in ("subject", "session", "task", "acquisition", "datatype", "suffix"):
            assert row.get(name) == entities.get(name), name
        if row.get("run") is not None:
            assert int(row["run"]) == entities["run"]
        if is_plain(row["path"], root):
            assert ours.metadata(row["path"]) == file.get_metadata()
            compared += len(ours.metadata(row["path"])) > 0
    assert compared


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_are_datasets_of_their_own_as_in_pybids(tmp_path, seed):
    root = tmp_path / "ds"
    maker = Maker(root, seed)
    maker.dataset()
    prep = root / "derivatives" / "prep"
    folder = prep / "sub-01" / "func"
    folder.mkdir(parents=True)
    about = {
        "Name": "prep",
        "BIDSVersion": "1.8.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "prep"}],
    }
    (prep / "dataset_description.json").write_text(json.dumps(about))
    image = folder / "sub-01_task-rest_space-MNI_desc-preproc_bold.nii.gz"
    image.touch()
    (folder / "sub-01_task-rest_space-MNI_desc-preproc_bold.json").write_text('{"SkullStripped": true}')
    (prep / "task-rest_bold.json").write_text('{"Of": "derivative"}')
    ours = BIDSIndex(root)
    theirs = layout_of(root, derivatives=True)
    row = ours.files[ours.files["derivative"].eq("prep") & ours.files["suffix"].eq("bold")]
    found = theirs.get(scope="prep", suffix="bold", extension=".nii.gz")
    assert [str(path) for path in row["path"]] == [str(file.path) for file in found]
    assert ours.metadata(image) == found[0].get_metadata()
    raw = ours.files[ours.files["derivative"].isna() & ours.files["suffix"].eq("bold")]
    assert {str(p) for p in raw["path"]} == {
        str(f.path) for f in theirs.get(scope="raw", suffix="bold", extension=".nii.gz")
    }


def test_hidden_and_foreign_folders_are_left_out_as_in_pybids(tmp_path):
    root = tmp_path / "ds"
    Maker(root, 0).dataset()
    for folder in ("sourcedata", "code", "stimuli", ".git"):
        (root / folder / "sub-09" / "func").mkdir(parents=True)
        (root / folder / "sub-09" / "func" / "sub-09_task-x_bold.nii.gz").touch()
    ours = BIDSIndex(root).files
    theirs = layout_of(root)
    assert sorted(set(ours["subject"])) == sorted(theirs.get_subjects())


@pytest.mark.parametrize(
    "folder",
    ["fmri/bids_studyforrest_localizer", "fmri/bids_haxby2001_lite", "eeg/bids_eeg_mini"],
)
def test_real_folders_are_read_as_pybids_reads_them(shared_data, folder):
    root = shared_data / folder
    ours, theirs = BIDSIndex(root, cache=False), layout_of(root)
    raw = ours.files[ours.files["derivative"].isna()]
    known = {str(file.path): file for file in theirs.get() if "subject" in file.entities}
    wanted = {path for path in known if not path.endswith(".json")}
    assert {str(path) for path in raw["path"]} == wanted
    for _, row in raw.iterrows():
        file = known[str(row["path"])]
        for name in ("subject", "task", "acquisition", "datatype", "suffix"):
            assert row.get(name) == file.entities.get(name), name
        if row["suffix"] in ("bold", "eeg") and row["extension"] in (".nii.gz", ".vhdr", ".edf"):
            assert ours.metadata(row["path"]) == file.get_metadata()
            events = theirs.get(suffix="events", extension=".tsv", **{
                name: file.entities[name] for name in ("subject", "task", "run", "acquisition")
                if name in file.entities
            })  # fmt: skip
            assert ours.table(row["path"], "events").equals(read_tsv(Path(events[0].path)))
