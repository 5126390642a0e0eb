"""Tests marked ``gpu``: skipped without a device, and failed instead where one is demanded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

A_GPU_TEST = "datasets/test_torch_dataset.py::test_batch_is_pinned_by_the_loader"


@pytest.mark.parametrize(("demanded", "outcome", "code"), [("0", "1 skipped", 0), ("1", "1 error", 1)])
def test_gpu_tests_skip_without_a_device_and_fail_where_one_is_demanded(demanded, outcome, code):
    tests = Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(tests / A_GPU_TEST)],
        env={**os.environ, "NEUROKERN_REQUIRE_GPU": demanded, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in result.stdout
    assert result.returncode == code
