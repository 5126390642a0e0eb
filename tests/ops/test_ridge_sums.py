"""Sums of scores in one pass: those of a plain float64 computation, and the same bits everywhere."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from cuda_emulation.emulated import emulated_gpu

from neurokern.ops import _library
from neurokern.ops._ridge_score_op import ridge_combinations, ridge_sums

pytestmark = pytest.mark.usefixtures("device")

# targets, parts, samples, penalties: less than sixteen samples, more than a tile, rests of every kind
SHAPES = [(3, 4, 7, 1), (2, 1, 16, 6), (2, 5, 150, 9), (1, 3, 300, 35)]
CASES = ["errors", "scaled", "guesses", "residuals", "no truth", "pairs", "pairs with truth", "no mix"]


def arguments(case, shape, dtype):
    random = np.random.default_rng(0)
    n_targets, n_parts, n_samples, n_penalties = shape
    n_penalties = n_parts if case == "no mix" else n_penalties

    def draw(*size):
        return random.normal(size=size).astype(dtype)

    parts, truth = draw(n_targets, n_parts, n_samples), draw(n_targets, n_samples)
    mix, scale, ones = draw(n_parts, n_penalties), draw(n_penalties, n_samples), draw(n_samples)
    named = {
        "errors": {"truth": truth},
        "scaled": {"truth": truth, "scale": scale},
        "guesses": {"truth": truth, "scale": scale, "ones": ones},
        "residuals": {"truth": truth, "ones": ones, "residuals": True},
        "no truth": {"scale": scale},
        "pairs": {"pairs": True},
        "pairs with truth": {"truth": truth, "pairs": True},
        "no mix": {"truth": truth, "pairs": True},
    }[case]
    return (parts, None if case == "no mix" else mix), named


def plain(parts, mix=None, truth=None, scale=1.0, ones=None, pairs=False, residuals=False):
    """The same sums from all predictions at once, one target after the other, in float64."""
    sums = []
    for target in range(len(parts)):
        made = parts[target].astype(float)
        made = made if mix is None else mix.astype(float).T @ made
        y = np.zeros(parts.shape[2]) if truth is None else truth[target].astype(float)
        if pairs:
            rows = made if truth is None else np.vstack([made, y])
            sums.append([rows[i] @ rows[j] for i in range(len(rows)) for j in range(i + 1)])
            continue
        missed = (made - (0 if residuals else y)) * np.asarray(scale, float)
        found = (missed**2).sum(1)
        if ones is not None:
            guess = y + missed
            found = np.stack([found, guess @ ones.astype(float), (guess**2).sum(1), guess @ y])
        sums.append(found)
    return np.array(sums)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_are_those_of_all_predictions(case, dtype, device):
    for shape in SHAPES:
        given, named = arguments(case, shape, dtype)
        right = plain(*given, **named)
        tensors = [None if array is None else torch.tensor(array, device=device) for array in given]
        others = {
            name: torch.tensor(value, device=device) if isinstance(value, np.ndarray) else value
            for name, value in named.items()
        }
        for backend in (None, "reference"):
            found = ridge_sums(*tensors, **others, backend=backend)
            assert found.dtype == torch.float64
            tolerance = 3e-6 if dtype is np.float32 and backend is None else 1e-12
            np.testing.assert_allclose(found.cpu(), right, atol=tolerance * np.abs(right).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_combinations_are_products(dtype):
    for shape in SHAPES:
        (parts, mix), _ = arguments("errors", shape, dtype)
        right = np.einsum("tcr,cm->tmr", parts.astype(float), mix.astype(float))
        found = ridge_combinations(parts, mix)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, right, atol=1e-6 * np.abs(right).max())


def bits_of_everything():
    """All results of the CPU's kernels as bytes."""
    found = []
    for case in CASES:
        for dtype in (np.float32, np.float64):
            for shape in SHAPES:
                given, named = arguments(case, shape, dtype)
                found.append(ridge_sums(*given, **named).tobytes())
                if given[1] is not None:
                    found.append(ridge_combinations(*given).tobytes())
    return b"".join(found)


@pytest.mark.cpu_only
def test_emulated_gpu_gives_the_bits_of_the_cpu():
    right = bits_of_everything()
    with emulated_gpu():
        assert bits_of_everything() == right


@pytest.mark.cpu_only
def test_every_instruction_set_gives_the_same_bits(tmp_path):
    right = bits_of_everything()
    code = "import sys; from ops.test_ridge_sums import *; sys.stdout.buffer.write(bits_of_everything())"
    tests = os.path.dirname(os.path.dirname(__file__))
    paths = os.pathsep.join([tests, *sys.path])
    for isa in ("v2", "v3"):
        environment = {**os.environ, "NEUROKERN_ISA": isa, "PYTHONPATH": paths}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert run.stdout == right


@pytest.mark.cpu_only
def test_every_thread_count_gives_the_same_bits(monkeypatch):
    random = np.random.default_rng(0)
    parts, mix = random.normal(size=(300, 20, 130)), random.normal(size=(20, 12))  # more than one thread's
    right = ridge_sums(parts, mix, pairs=True).tobytes()
    for n_threads in (2, 5):
        monkeypatch.setattr(_library, "thread_count", lambda n=n_threads: n)
        assert ridge_sums(parts, mix, pairs=True).tobytes() == right


def test_nothing_to_sum_gives_zeros():
    for shape in ((0, 3, 5), (2, 3, 0)):
        found = ridge_sums(np.zeros(shape), np.ones((3, 2)), np.zeros((shape[0], shape[2])))
        assert found.shape == (shape[0], 2)
        assert not found.any()


def test_triton_has_no_kernel():
    with pytest.raises((ValueError, RuntimeError), match=r"[tT]riton"):  # or is not there at all
        ridge_sums(np.zeros((1, 1, 1)), backend="triton")


@pytest.mark.cpu_only
@pytest.mark.parametrize("case", CASES)
def test_registered_ops_pass_opcheck(case):
    given, named = arguments(case, (2, 3, 5, 4), np.float32)
    parts, mix = (None if array is None else torch.tensor(array) for array in given)
    named = {
        name: torch.tensor(value) if isinstance(value, np.ndarray) else value for name, value in named.items()
    }
    options = [named.get(name) for name in ("truth", "scale", "ones")]
    flags = [named.get(name, False) for name in ("pairs", "residuals")]
    torch.library.opcheck(torch.ops.neurokern.ridge_sums, (parts, mix, *options, *flags, None))
    if mix is not None:
        torch.library.opcheck(torch.ops.neurokern.ridge_combinations, (parts, mix, None))
