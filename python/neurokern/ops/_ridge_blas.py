"""Linear algebra under the ridge solvers: numpy for arrays on the CPU, torch for tensors on a GPU.

Products of float32 matrices on the CPU take the fastest of the libraries that are there. Which that is
depends on the processor: torch's MKL does not use AVX-512 on AMD and reaches half of what OpenBLAS and oneDNN
reach. So the candidates are timed once per process (about 15 ms), at the first large product.
``NEUROKERN_BLAS=numpy|torch|onednn`` chooses without a measurement.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from neurokern.ops._library import torch

ROUTES = ("numpy", "torch", "onednn")
_LARGE = 1 << 24  # multiply-adds of a product that is worth choosing a library for
_TRIAL = 384  # rows and columns of the matrices of the trial
_lock = threading.RLock()


class NumpyAlgebra:
    """Arrays of the CPU."""

    xp: Any = np

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        return np.zeros(shape, dtype)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return np.empty(shape, dtype)

    def array(self, values: Any, dtype: str) -> Any:
        """Return host values as an array of this algebra."""
        return np.asarray(values, dtype)

    def cast(self, values: Any, dtype: str) -> Any:
        return values.astype(dtype, copy=False)

    def host(self, values: Any) -> np.ndarray:
        return np.asarray(values)

    def mm(self, a: Any, b: Any) -> Any:
        """Product of two matrices of one type."""
        if a.dtype != np.float32 or a.shape[0] * a.shape[1] * b.shape[1] < _LARGE:
            return a @ b
        return _PRODUCTS[_route()](a, b)

    def mm_to(self, a: Any, b: Any, out: Any) -> None:
        """Write the product into ``out``, of which each row is contiguous."""
        if a.dtype != np.float32 or a.shape[0] * a.shape[1] * b.shape[1] < _LARGE or _route() == "numpy":
            np.matmul(a, b, out=out)
        else:
            out[:] = _PRODUCTS[_route()](a, b)

    def gram(self, a: Any) -> Any:
        """``a.T @ a``; numpy computes one triangle and mirrors it."""
        return a.T @ a

    def eigh(self, a: Any) -> tuple[Any, Any]:
        values, vectors = np.linalg.eigh(a)
        return values, vectors

    def cholesky(self, a: Any) -> Any | None:
        """Lower factor, or None if ``a`` is not positive definite."""
        try:
            return np.linalg.cholesky(a)
        except np.linalg.LinAlgError:
            return None

    def triangle(self, a: Any) -> Any:
        """Upper factor R of ``a = QR``."""
        return np.linalg.qr(a, mode="r")

    def solve(self, a: Any, b: Any) -> Any:
        """Solve ``a x = b`` for a symmetric positive definite ``a``."""
        return np.linalg.solve(a, b)

    def inverse(self, a: Any) -> Any:
        """Inverse of a symmetric positive definite matrix."""
        factor = self.cholesky(a)
        if torch is None or factor is None:
            return np.linalg.inv(a)
        # numpy has no inverse from a factor; this one lies by columns, and is symmetric.
        return torch.cholesky_inverse(torch.from_numpy(factor)).numpy().T


class TorchAlgebra:
    """Tensors of one device; float32 products in full precision, whatever the user's flags say."""

    xp: Any = torch

    def __init__(self, device: Any) -> None:
        self.device = device

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        return torch.zeros(shape, dtype=getattr(torch, dtype), device=self.device)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)

    def array(self, values: Any, dtype: str) -> Any:
        return torch.as_tensor(values, device=self.device).to(getattr(torch, dtype))

    def cast(self, values: Any, dtype: str) -> Any:
        return values.to(getattr(torch, dtype))

    def host(self, values: Any) -> np.ndarray:
        return values.detach().cpu().numpy()

    def mm(self, a: Any, b: Any) -> Any:
        return a @ b

    def mm_to(self, a: Any, b: Any, out: Any) -> None:
        torch.mm(a, b, out=out)

    def gram(self, a: Any) -> Any:
        return a.T @ a

    def eigh(self, a: Any) -> tuple[Any, Any]:
        values, vectors = torch.linalg.eigh(a)
        return values, vectors

    def cholesky(self, a: Any) -> Any | None:
        factor, failed = torch.linalg.cholesky_ex(a)
        return None if int(failed) else factor

    def triangle(self, a: Any) -> Any:
        return torch.linalg.qr(a, mode="r").R

    def solve(self, a: Any, b: Any) -> Any:
        return torch.cholesky_solve(b, torch.linalg.cholesky(a))

    def inverse(self, a: Any) -> Any:
        return torch.cholesky_inverse(torch.linalg.cholesky(a))


Algebra = NumpyAlgebra | TorchAlgebra


def device_of(tensor: Any) -> Any | None:
    """Return None for a tensor that is computed on as a numpy array, else its device."""
    return None if tensor.device.type == "cpu" else tensor.device


@contextlib.contextmanager
def algebra_for(device: Any | None) -> Iterator[Algebra]:
    """Give the algebra for numpy arrays and tensors of the CPU (None) or of a device.

    On the CPU numpy's library gets the thread count of torch, which is 1 in DataLoader workers. On a GPU the
    flag that lets float32 products use TF32 is off meanwhile; another thread that sets it in that time is not
    stopped.
    """
    with _threads() if device is None else _full_precision():
        yield NumpyAlgebra() if device is None else TorchAlgebra(device)


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    with _lock:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _threads() -> Iterator[None]:
    calls = _openblas_threads()
    wanted = torch.get_num_threads() if torch is not None else None
    if calls is None or wanted is None or (before := calls[0]()) == wanted:
        yield
        return
    calls[1](wanted)
    try:
        yield
    finally:
        calls[1](before)


@functools.cache
def _openblas_threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """How to get and set the threads of the OpenBLAS that numpy uses; None if it uses another library."""
    core = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    library = ctypes.CDLL(importlib.import_module(f"{core}._multiarray_umath").__file__)
    for prefix, suffix in (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", "")):
        with contextlib.suppress(AttributeError):
            get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
            return get, getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
    return None


def _torch_product(a: Any, b: Any) -> Any:
    return torch.mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()


def _onednn_product(a: Any, b: Any) -> Any:
    weight = torch.from_numpy(b).T
    return torch.ops.mkldnn._linear_pointwise(torch.from_numpy(a), weight, None, "none", [], "").numpy()


_PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "numpy": np.matmul,
    "torch": _torch_product,
    "onednn": _onednn_product,
}


def _route() -> str:
    """Library for a large product of float32 matrices, at torch's present thread count."""
    asked = os.environ.get("NEUROKERN_BLAS", "")
    if asked and asked not in ROUTES:
        raise ValueError(f"NEUROKERN_BLAS must be one of {', '.join(ROUTES)}, got {asked!r}")
    # torch's and oneDNN's products may compute in bfloat16 if the user allows it for his own; numpy's never
    # do.
    if asked == "numpy" or torch is None or torch.get_float32_matmul_precision() != "highest":
        return "numpy"
    return asked or fastest_route(torch.get_num_threads())


@functools.cache
def fastest_route(n_threads: int) -> str:
    """Library with the fastest product of float32 matrices; timed once for each thread count."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((_TRIAL, _TRIAL), np.float32) for _ in range(2))
    clock = time.thread_time if n_threads == 1 else time.perf_counter  # other processes stretch the latter
    best = {"numpy": _best_time(np.matmul, a, b, clock)}
    for name in ROUTES[1:]:
        with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError):  # not in this build
            best[name] = _best_time(_PRODUCTS[name], a, b, clock)
    # numpy stays unless another library is clearly faster: it ignores the precision flags.
    fastest = min(best, key=lambda name: best[name])
    return fastest if best[fastest] < 0.85 * best["numpy"] else "numpy"


def _best_time(product: Callable[[Any, Any], Any], a: Any, b: Any, clock: Callable[[], float]) -> float:
    times = []
    for _ in range(5):
        before = clock()
        product(a, b)
        times.append(clock() - before)
    return min(times)
