"""What runs here: versions, instruction set, CUDA, devices, threads; also without torch or a GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from typing import Any

from neurokern import __version__

__all__ = ["describe_environment", "format_environment"]

_LIBRARIES = ("numpy", "pandas", "torch", "triton", "safetensors", "matplotlib")
_ISA_LEVELS = ("v2", "v3", "v4")


def describe_environment() -> dict[str, Any]:
    """Return facts about this installation and machine.

    Returns
    -------
    dict
        ``neurokern``, ``python``, ``platform`` : str;
        ``libraries`` : dict of name to version, None where not installed;
        ``cpu`` : dict with ``isa`` in use, ``available`` levels and ``NEUROKERN_ISA``, or an ``error``;
        ``cuda`` : dict with ``built`` and, where the module is built, ``archs``, ``runtime``, ``driver``,
        ``devices`` (list of str);
        ``backends`` : dict of "cpu" and "cuda" to the names of the backends that ops can run there, the one
        that they take by themselves first;
        ``threads`` : dict with ``cpus`` this process may use and ``torch``.
    """
    return {
        "neurokern": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "cpu": _cpu(),
        "cuda": _cuda(),
        "backends": _backends(),
        "threads": {"cpus": _cpu_count(), "torch": _torch_threads()},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_count() -> int:
    """CPUs this process may run on, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> dict[str, Any]:
    asked = os.environ.get("NEUROKERN_ISA")
    try:
        core = importlib.import_module("neurokern._core")
    except ImportError as error:
        # A module that is there and does not load (a bad NEUROKERN_ISA, a missing library) is another matter
        # than one that was never built.
        built = importlib.util.find_spec("neurokern._core") is not None
        problem = str(error).splitlines()[0] if built else "not built; install with `pip install .`"
        return {"error": problem, "NEUROKERN_ISA": asked}
    best = core.best_isa()
    available = _ISA_LEVELS[: _ISA_LEVELS.index(best) + 1] if best in _ISA_LEVELS else (best,)
    return {"isa": core.isa(), "available": list(available), "NEUROKERN_ISA": asked}


def _cuda() -> dict[str, Any]:
    if importlib.util.find_spec("neurokern._cuda") is None:
        return {"built": False}
    try:
        facts = importlib.import_module("neurokern._cuda").info()
    except ImportError as error:
        return {"built": True, "error": str(error).splitlines()[0]}
    return {
        "built": True,
        "archs": str(facts["archs"]),
        "runtime": _cuda_version(facts["runtime"]),
        "driver": _cuda_version(facts["driver"]),
        "devices": _device_names(int(facts["devices"])),
    }


def _backends() -> dict[str, list[str]]:
    """Which kernels could run, given tensors on a device; whether there is a GPU is another matter."""
    has_torch = _torch() is not None
    has_triton = has_torch and importlib.util.find_spec("triton") is not None
    reference = ["reference"] if has_torch else []
    interpreted = has_triton and os.environ.get("TRITON_INTERPRET") == "1"
    on_cpu = ["native"] if importlib.util.find_spec("neurokern._core") is not None else []
    on_cuda = ["native"] if has_torch and importlib.util.find_spec("neurokern._cuda") is not None else []
    return {
        "cpu": on_cpu + ["triton"] * interpreted + reference,
        "cuda": on_cuda + ["triton"] * has_triton + reference,
    }


def _cuda_version(number: int) -> str | None:
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _device_names(count: int) -> list[str]:
    torch = _torch()
    if torch is not None and torch.cuda.is_available() and torch.cuda.device_count() == count:
        return [torch.cuda.get_device_name(index) for index in range(count)]
    return [f"device {index}" for index in range(count)]


def _torch() -> Any:
    """Return torch, or None where it is not installed or does not load."""
    if "torch" in sys.modules or importlib.util.find_spec("torch") is not None:
        try:
            return importlib.import_module("torch")
        except (ImportError, OSError):
            return None
    return None


def _torch_threads() -> int | None:
    torch = _torch()
    return None if torch is None else int(torch.get_num_threads())


def format_environment(facts: dict[str, Any]) -> str:
    """Return the facts of :func:`describe_environment` as lines of text."""
    cpu, cuda, threads = facts["cpu"], facts["cuda"], facts["threads"]
    rows = [("neurokern", facts["neurokern"]), ("python", f"{facts['python']} on {facts['platform']}")]
    rows += [(name, version or "not installed") for name, version in facts["libraries"].items()]
    if "error" in cpu:
        rows.append(("native module", f"does not load: {cpu['error']}"))
    else:
        forced = f", NEUROKERN_ISA={cpu['NEUROKERN_ISA']}" if cpu["NEUROKERN_ISA"] else ""
        rows.append(
            ("instruction set", f"{cpu['isa']} (this CPU offers {', '.join(cpu['available'])}{forced})")
        )
    rows += _cuda_rows(cuda)
    for device, title in (("cpu", "backends, CPU"), ("cuda", "backends, GPU")):
        rows.append((title, ", ".join(facts["backends"][device]) or "none"))
    torch_threads = "torch not installed" if threads["torch"] is None else f"torch uses {threads['torch']}"
    rows.append(("threads", f"{threads['cpus']} CPUs for this process; {torch_threads}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _cuda_rows(cuda: dict[str, Any]) -> list[tuple[str, str]]:
    if not cuda["built"]:
        return [("CUDA module", "not built")]
    if "error" in cuda:
        return [("CUDA module", f"built, does not load: {cuda['error']}")]
    devices = "; ".join(cuda["devices"]) or "none found"
    return [
        ("CUDA module", f"built for {cuda['archs']}, runtime {cuda['runtime']}"),
        ("CUDA driver", cuda["driver"] or "none"),
        ("CUDA devices", devices),
    ]
