"""The Triton kernels compiled for GPUs that are not here: what their assembly must hold, and must not."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

KERNELS = {
    "rank_regions",
    "mask_tile",
    "gather_tile",
    "scatter_tile",
    "count_targets",
    "write_targets",
    "count_spikes",
    "count_spikes_in_windows",
    "count_windows_of_sorted",
    "convert_totals",
    "smooth_gaussian",
    "smooth_exponential",
    "decode_values",
    "reduce_parcels",
    "clean_columns",
}
ADDING = {"count_spikes", "count_spikes_in_windows", "count_windows_of_sorted"}
NVIDIA = ["sm_80", "sm_90", "sm_100"]
no_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
pytestmark = [pytest.mark.slow, no_triton]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    """Return what gives the facts of each kernel for a target, compiled once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def facts(target: str, *options: str) -> list[dict[str, Any]]:
        kept = folder / "-".join(["ahead", target, *options])
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_text(compile_ahead(target, *options))
        return [json.loads(line) for line in kept.read_text().splitlines()]

    return facts


def compile_ahead(*arguments: str) -> str:
    """Compile anew, in a process that does not interpret."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = str(Path(__file__).with_name("ahead.py"))
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, program, *arguments],
            env=environment | {"TRITON_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("target", [*NVIDIA, "gfx942"])
def test_every_kernel_compiles_without_spilling(compiled, target):
    rows = compiled(target)
    assert {row["kernel"] for row in rows} == KERNELS
    assert [row for row in rows if row["spilled"]] == []


@pytest.mark.parametrize("target", NVIDIA)
def test_atomics_are_relaxed(compiled, target):
    for row in compiled(target):
        assert all(".relaxed." in atomic for atomic in row["atomics"]), row
        assert row["atomics"] or row["kernel"] not in ADDING


@pytest.mark.parametrize("target", NVIDIA)
def test_no_product_is_fused_into_a_sum(compiled, target):
    rows = compiled(target)
    assert [row for row in rows if row["fused"]] == []
    assert [row for row in rows if row["fused_by_assembler"] and not row["divides"]] == []
    assert any(row["kernel"] in ADDING and not row["divides"] for row in rows)  # edges by products, too


def test_smoothing_is_not_fused_on_amd(compiled):
    assert [row for row in compiled("gfx942") if row["fused"] and row["kernel"].startswith("smooth")] == []


def test_the_check_sees_a_fused_product(compiled):
    rows = compiled("sm_90", "smooth_gaussian", "--fuse")
    assert rows
    assert all(row["fused"] or row["fused_by_assembler"] for row in rows)
