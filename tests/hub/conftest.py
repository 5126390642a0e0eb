"""A small model, a card that may be published, and a Hub that is a folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from neurokern.hub import DataSource, ModelCard
from neurokern.models import MtM, MtMConfig

SIZES = {"n_bins": 8, "hidden_size": 16, "n_layers": 1, "n_heads": 2, "mlp_size": 16, "stitch_size": 6}
SESSIONS = ("Cori_2016-12-14", "sub-01/ses 2")


@pytest.fixture
def model() -> MtM:
    torch.manual_seed(0)
    made = MtM(MtMConfig.small(**SIZES))
    counts = np.random.default_rng(0).poisson(1.0, (6, 8, 5)).astype(np.uint8)
    made.add_session(SESSIONS[0], 5, regions=["CA1", "CA1", "VISp", "VISp", "root"], counts=counts)
    made.add_session(SESSIONS[1], 3, counts=counts[:, :, :3])
    return made.eval()


@pytest.fixture
def card() -> ModelCard:
    data = DataSource(name="Steinmetz et al. 2019", license="cc-by-4.0", citation="Nature 576:266")
    return ModelCard(title="MtM of mice | visual task", license="mit", data=(data,), citation="us, 2026")


class FakeHub:
    """What :mod:`neurokern.hub` uses of huggingface_hub, on a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.calls: list[tuple[str, dict]] = []

    def HfApi(self, token: str | None = None) -> SimpleNamespace:
        self.calls.append(("HfApi", {"token": token}))
        return SimpleNamespace(create_repo=self.create_repo, upload_folder=self.upload_folder)

    def create_repo(self, repo_id: str, **options: object) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        (self.place / repo_id).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, *, repo_id: str, folder_path: str, **options: object) -> SimpleNamespace:
        self.calls.append(("upload_folder", {"repo_id": repo_id, **options}))
        for file in Path(folder_path).iterdir():
            shutil.copy(file, self.place / repo_id)
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")

    def snapshot_download(self, repo_id: str, **options: object) -> str:
        self.calls.append(("snapshot_download", {"repo_id": repo_id, **options}))
        if not (self.place / repo_id).is_dir():
            raise OSError(f"404 for {repo_id}\nmore")
        return str(self.place / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "remote")
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)  # type: ignore[arg-type]
    return fake
