"""``torchrun -m neurokern train`` as a user starts it; a rank that is killed, and what is left then."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ranks import free_port
from training_sessions import latent_session

from neurokern.checkpoint import load_model
from neurokern.cli import main

SETTINGS = [
    "model.hidden_size=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.mlp_size=16",
    "model.stitch_size=4",
    "model.dropout=0.0",
    "model.input_dropout=0.0",
    "model.output_dropout=0.0",
    "training.batch_size=8",
    "training.max_steps=240",
    "training.validate_every=120",
    "training.checkpoint_every=40",
    "training.timeout=60",
]
WAIT = 240.0  # seconds; only a test that hangs waits so long


def train_command(data: Path, folder: Path) -> list[str]:
    flags = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["train", str(data), "--out", str(folder), *flags]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    session = latent_session("mouse.1", 12, seed=1)
    np.savez(tmp_path / "mouse.npz", counts=session.counts, bin_size=0.02, regions=session.regions)
    return tmp_path / "mouse.npz"


def children_of(process: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if re.search(rf"^PPid:\t{process}$", status.read_text(), re.MULTILINE):
                found.append(int(status.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return sorted(found)


def rank_of(process: int) -> str:
    environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next((entry[5:].decode() for entry in environment if entry.startswith(b"RANK=")), "")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the ranks in /proc")
def test_a_killed_rank_ends_the_run_with_an_error_and_it_goes_on_alone(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--master-port", str(free_port()), "-m", "neurokern", *train_command(data, folder)]
    process = subprocess.Popen(
        launcher,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},  # whatever the machine calls itself
    )
    try:
        deadline = time.monotonic() + WAIT
        while not (folder / "last" / "trainer.json").is_file():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the run writes no checkpoint"
            time.sleep(0.02)
        victim = next(child for child in children_of(process.pid) if rank_of(child) == "1")
        os.kill(victim, signal.SIGKILL)
        output, _ = process.communicate(timeout=WAIT)
    finally:
        for left in [*children_of(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
    assert process.returncode == 1
    assert output.count("12 units, 3 regions") == 1  # one process speaks
    assert "Signal 9 (SIGKILL)" in output
    names = {path.name for path in folder.iterdir()}
    assert names == {"run.yaml", "environment.json", "metrics.csv", "best", "last"}  # nothing by halves
    assert load_model(folder / "last").sessions[0] == "mouse"

    assert main([*train_command(data, folder), "--resume"]) == 0
    assert main(train_command(data, tmp_path / "alone")) == 0
    ours, alone = (pd.read_csv(path / "metrics.csv") for path in (folder, tmp_path / "alone"))
    assert ours["step"].tolist() == [0, 120, 240]
    np.testing.assert_allclose(ours["validation_loss"], alone["validation_loss"], rtol=1e-4)
