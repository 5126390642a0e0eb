"""What all tests share: real recordings where they are at hand, the GPU rule, and one thread unless a test
asks for more.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before torch is imported, here and in the processes that tests start: tests run side by side on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("neurokern", deadline=None, max_examples=50)
settings.load_profile("neurokern")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real recordings beside the repository; skips where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no folder of real recordings at {SHARED_DATA}")
    return SHARED_DATA


def cuda_is_available() -> bool:
    """Return whether torch is there and finds a CUDA device."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


# Files whose tests run with interpreted Triton kernels, too. A launch takes the interpreter up to a second;
# so tests of many examples, and the statistics of draws that are compared bit for bit elsewhere, do without.
INTERPRETED = {
    "test_bin_spikes",
    "test_bin_spikes_smoothing",
    "test_bin_spikes_trains",
    "test_decode_nifti_device",
    "test_decode_nifti_resident",
    "test_decode_nifti_resident_parcels",
    "test_gather_regions",
    "test_mask_regions",
}


def is_interpreted(metafunc: pytest.Metafunc) -> bool:
    """Return whether a test runs with interpreted Triton kernels; Triton must then learn of it, first."""
    many_examples = getattr(metafunc.function, "is_hypothesis_test", False)
    many_examples |= metafunc.definition.get_closest_marker("many_launches") is not None
    if many_examples or metafunc.module.__name__ not in INTERPRETED or cuda_is_available():
        return False
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    return True


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a second pass over the same tests, such as one in another order of threads, take a part of them."""
    parser.addoption("--every", type=int, default=1, metavar="N", help="run every Nth of the chosen tests")


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave every Nth test; the same ones in each process of pytest-xdist."""
    step = config.getoption("--every")
    if step < 1:
        raise pytest.UsageError(f"--every must be at least 1, got {step}")
    kept = items[::step]
    config.hook.pytest_deselected(items=[item for i, item in enumerate(items) if i % step])
    items[:] = kept


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the devices of a test: its own arrays stay on the host unless it takes ``device`` by name."""
    if "device" not in metafunc.fixturenames:
        return
    devices: list[Any] = ["cpu"]
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    if "gpu" in marks:
        devices.append("triton")
    elif "cpu_only" not in marks:
        devices.append("emulated")
        if is_interpreted(metafunc):
            devices.append("interpreted")
        if "device" in inspect.signature(metafunc.function).parameters:
            devices += [pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda", "triton")]
    metafunc.parametrize("device", devices, indirect=True, scope="module")


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the ops on one kind of device after the other, and return where tensors must lie for it.

    "cpu" runs the CPU's kernels; "emulated" the GPU path of the ops with the CUDA kernels compiled as C++
    (tests/cuda_emulation), and "interpreted" their Triton kernels, on tensors and numpy arrays of the CPU;
    "cuda" and "triton", which has Triton kernels run on CUDA tensors, fall under the GPU rule.
    """
    if request.param == "emulated":
        from cuda_emulation.emulated import emulated_gpu

        with emulated_gpu():
            yield "cpu"
    elif request.param == "interpreted":
        from triton_kernels.interpreted import interpreted_triton

        with interpreted_triton():
            yield "cpu"
    elif request.param == "triton":
        from triton_kernels.interpreted import triton_by_default

        with triton_by_default("cuda"):
            yield "cuda"
    else:
        yield request.param


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``gpu`` without a CUDA device, or fail them where NEUROKERN_REQUIRE_GPU=1 demands
    one.
    """
    if item.get_closest_marker("gpu") is None or cuda_is_available():
        return
    if os.environ.get("NEUROKERN_REQUIRE_GPU") == "1":
        pytest.fail("NEUROKERN_REQUIRE_GPU=1, but torch finds no CUDA device", pytrace=False)
    pytest.skip("torch finds no CUDA device")
