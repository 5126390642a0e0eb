"""How ops reach PyTorch and their kernels: one library, one choice of backend.

Ops are registered from Python, since the native modules do not know torch: one wheel serves every torch.
Without torch the ops still work on numpy arrays.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern import _core

if TYPE_CHECKING:
    import torch
else:
    try:
        import torch
    except ImportError:  # a torch-free Python: numpy arrays only
        torch = None

__all__ = [
    "address",
    "as_tensor",
    "choose_backend",
    "copy_mark",
    "core",
    "cuda",
    "device_type",
    "gpu_like",
    "gpu_module",
    "new_array",
    "pinned_bytes",
    "register",
    "runs_on_gpu",
    "thread_count",
    "to_gpu",
    "torch",
    "triton_kernels",
]

core = _core
BACKENDS = ("native", "triton", "reference")


@functools.cache
def cuda() -> types.ModuleType:
    """Return the CUDA module, loaded at first use; raise RuntimeError with the remedy if it was not built."""
    try:
        return importlib.import_module("neurokern._cuda")
    except ImportError as error:
        raise RuntimeError(
            "neurokern was built without CUDA, so its native ops cannot run on a CUDA tensor. Build it where "
            "nvcc is on PATH (NEUROKERN_CUDA=ON makes a missing nvcc an error), pass backend='reference', or "
            "move the tensor to the CPU."
        ) from error


# ---- An op's GPU path does not know what holds its arrays: the tests replace these to run it, and its
# kernels, on arrays of the CPU (tests/cuda_emulation).


def runs_on_gpu(array: Any) -> bool:
    """Return whether the native kernel for this tensor or numpy array is the CUDA one."""
    return torch is not None and isinstance(array, torch.Tensor) and array.device.type == "cuda"


@contextlib.contextmanager
def gpu_module(array: Any) -> Iterator[tuple[Any, int]]:
    """Make the device of ``array`` the current one; give the CUDA module and torch's stream there."""
    module = cuda()
    with torch.cuda.device(array.device):
        yield module, torch.cuda.current_stream(array.device).cuda_stream


def new_array(like: Any, shape: tuple[int, ...], dtype: Any, fill: float | None = None) -> Any:
    """Return a fresh array of the kind and on the device of ``like``, uninitialised unless ``fill`` is given.

    ``dtype`` is a name such as "int32", or a dtype of the kind of ``like``.
    """
    if isinstance(like, np.ndarray):
        return np.empty(shape, dtype) if fill is None else np.full(shape, fill, dtype)
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if fill is None:
        return torch.empty(shape, dtype=dtype, device=like.device)
    return torch.full(shape, fill, dtype=dtype, device=like.device)


def address(array: Any) -> int:
    """Return the first byte of a numpy array or tensor that a kernel may touch; 0 for None."""
    if array is None:
        return 0
    return int(array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data_ptr())


def gpu_like(device: Any) -> Any:
    """Return an empty tensor on a device if that is one of CUDA's, else None."""
    if device is None or torch is None or torch.device(device).type != "cuda":
        return None
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device must be one that torch finds, got {str(device)!r} without a CUDA device; leave it out, "
            "and see `neurokern env` for what torch finds"
        )
    return torch.empty(0, device=device)


def pinned_bytes(n_bytes: int) -> Any:
    """Return host memory, uninitialised, from which a GPU copies without the host."""
    return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)


def to_gpu(host: Any, like: Any) -> Any:
    """Return a copy on the device of ``like``, put on torch's stream there; if pinned, the host goes on."""
    return host.to(like.device, non_blocking=True)


def copy_mark(like: Any) -> Any:
    """Mark a place in torch's stream on the device of ``like``; ``synchronize`` waits until it is reached."""
    mark = torch.cuda.Event()
    mark.record(torch.cuda.current_stream(like.device))
    return mark


def choose_backend(function: str, device_type: str, backend: str | None) -> str:
    """Return "native", "triton" or "reference" for an array on ``device_type``; ``backend`` forces one.

    C++ kernels exist for the CPU and, where the CUDA module was built, for CUDA. On a GPU without it Triton's
    kernels run if Triton is installed, else the torch reference, which also serves all other devices.
    """
    if backend is None:
        if device_type in ("cpu", "meta"):  # of meta tensors the op gives the shapes
            return "native"
        if device_type != "cuda":
            return "reference"
        return "native" if _cuda_built() else "triton" if _triton_installed() else "reference"
    if backend not in BACKENDS:
        raise ValueError(
            f"{function}: backend must be None, 'native', 'triton' or 'reference', got {backend!r}"
        )
    if backend == "native" and device_type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"{function}: no native kernel for {device_type!r}; use backend='reference'")
    if backend == "triton" and device_type != "meta":
        _check_triton(function, device_type)
    return backend


def _check_triton(function: str, device_type: str) -> None:
    if torch is None or not _triton_installed():
        missing = "torch" if torch is None else "triton"
        raise RuntimeError(
            f"{function}: backend='triton' needs {missing}, which is not installed; "
            "pip install 'neurokern[triton]', or leave backend out"
        )
    if device_type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"{function}: backend='triton' needs arrays on a GPU, got arrays on the CPU; leave backend out, "
            "or set TRITON_INTERPRET=1 before Python starts to run Triton's (slow) interpreter"
        )
    if device_type not in ("cpu", "cuda"):
        raise ValueError(f"{function}: no Triton kernel for {device_type!r}; use backend='reference'")


def device_type(array: Any) -> str:
    """Return the kind of device that holds a tensor or numpy array."""
    return str(array.device.type) if torch is not None and isinstance(array, torch.Tensor) else "cpu"


def as_tensor(array: Any) -> Any:
    """Return a numpy array as the tensor that shares its memory; Triton's interpreter reads tensors alone."""
    if not isinstance(array, np.ndarray):
        return array
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def triton_kernels(op: str) -> types.ModuleType:
    """Return the module with an op's Triton kernels, loaded at first use."""
    return importlib.import_module(f"neurokern.ops._triton.{op}")


@functools.cache
def _cuda_built() -> bool:
    """Whether CUDA C++ kernels can run: they are built, and torch's GPUs are not those of ROCm."""
    hip = torch is not None and torch.version.hip is not None
    return not hip and importlib.util.find_spec("neurokern._cuda") is not None


@functools.cache
def _triton_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def thread_count() -> int:
    """Threads a native call may use: torch's setting, which is 1 in DataLoader workers."""
    return torch.get_num_threads() if torch is not None else 1


@functools.cache
def _library() -> torch.library.Library:
    return torch.library.Library("neurokern", "DEF")


def register(
    schema: str,
    *,
    cpu: Callable[..., Any],
    cuda: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None,
    setup_context: Callable[..., Any] | None = None,
) -> None:
    """Register ``torch.ops.neurokern.<op>``.

    Parameters
    ----------
    schema : str
        ``"name(Tensor x, ...) -> Tensor"``.
    cpu, cuda, fake : callable
        Implementation for CPU tensors, for CUDA tensors, and for shapes alone.
    backward, setup_context : callable or None
        As in :func:`torch.library.register_autograd`. With ``backward=None`` the op's backward raises: an op
        without any leaves ``grad=None`` behind with only a warning. Schemas that write an argument (``(a!)``)
        take neither: torch knows no gradient for them, and the caller must refuse tensors that need one.
    """
    if torch is None:
        return
    name = schema.split("(", 1)[0]
    library = _library()
    library.define(schema)
    library.impl(name, cpu, "CPU")
    library.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"neurokern::{name}", fake, lib=library)
    if "!)" in schema:
        return

    def no_gradient(context: Any, *gradients: Any) -> Any:
        raise RuntimeError(f"neurokern::{name} has no gradient; call it under torch.no_grad()")

    torch.library.register_autograd(
        f"neurokern::{name}", backward or no_gradient, setup_context=setup_context, lib=library
    )
