"""Compiles every Triton kernel as the ops launch it, for GPUs that are not here; run as a program.

The ops are called on CPU tensors, with launches recorded instead of made: so the types, constants and
alignments of arguments are those of real calls. Prints a line of JSON per kernel: what the assembly holds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import neurokern as nk
from neurokern.ops import _library, region_index
from neurokern.ops._mask_reference import SCHEMES

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


# ---- what the ops launch


def call_ops() -> None:
    """Call each op in the ways that differ for its kernels."""
    x = torch.ones(4, 32, 64)
    regions, counts = torch.arange(64) % 3, torch.full((4,), 5)
    for scheme in SCHEMES:
        mask(x, regions, scheme)
    mask(x, regions.repeat(4, 1), list(SCHEMES[:4]), n_units=counts, n_bins=counts, region_choice="sample")
    mask(x, regions, list(SCHEMES[2:]), replacement="random")
    mask(x, None, "neuron", replacement="random")
    mask(x[:, :31, :63], None, "random", replacement="random")
    for dtype in (torch.uint8, torch.bfloat16, torch.float64):
        mask(x.to(dtype), regions, "intra-region")
    nk.mask_regions(x, None, "random", seed=0, return_index=True, max_targets=99, backend="triton")
    for dtype in (torch.uint8, torch.bfloat16, torch.float32, torch.float64):
        for size in ({}, {"n_rows": 40, "max_rows": 9}):
            index = region_index(torch.ones(4, 64, dtype=torch.bool), **size)
            for padded in (False, True):
                rows = nk.gather_regions(x.to(dtype), index, padded=padded, backend="triton").values
                nk.scatter_regions(rows, index, backend="triton")

    seconds, samples = torch.rand(100, dtype=torch.float64), torch.arange(100)
    ids, table = torch.zeros(100, dtype=torch.int32), torch.arange(5)
    starts, ends = torch.zeros(3, dtype=torch.float64), torch.full((5,), 100)
    bin_spikes(seconds, ids, 0.03, unit_map=table)
    bin_spikes(seconds, ids.long(), 0.02, windows=starts)
    bin_spikes(seconds, ids, 0.02, windows=starts, sorted=True, unit_map=table)
    bin_spikes(samples, ids, 0.02, sfreq=30.0, closed_last=True)
    bin_spikes(samples, ids, 0.02, sfreq=30.0, windows=starts)
    bin_spikes(samples, ids, 0.02, sfreq=30.0, windows=starts, sorted=True)
    bin_spikes(seconds, None, 0.02, train_ends=ends)
    bin_spikes(seconds, None, 0.02, train_ends=ends, windows=starts)
    nk.bin_spikes(seconds, ids, edges=[0.0, 0.4, 1.0], n_units=5, backend="triton")
    for dtype in ("uint8", "int16", "uint16", "int32", "int64", "float16", "bfloat16", "float32", "float64"):
        bin_spikes(seconds, ids, 0.02, dtype=dtype)
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        for smoothing in ("gaussian", "exponential"):
            bin_spikes(seconds, ids, 0.02, dtype=dtype, smoothing=smoothing, smoothing_width=0.05)
    positions, ends = torch.arange(100), torch.arange(0, 101, 10)
    parcels = (positions, ends, torch.tensor([0, 4, 10]), torch.ones(2, dtype=torch.float64))
    int16, int64, float32 = (torch.ones(9, 500, dtype=getattr(torch, f"int{n}")) for n in (16, 64, 32))
    decode, reduce = torch.ops.neurokern.decode_voxels, torch.ops.neurokern.decode_parcels
    decode(int16, None, 3, False, 0.5, 1.0, torch.bfloat16, "triton")
    decode(int16, positions, 3, True, 0.5, 1.0, torch.float32, "triton")
    decode(int64, positions, 6, True, 0.1, 1.0, torch.float16, "triton")
    decode(float32, None, 8, False, 1.0, 0.0, torch.float32, "triton")
    reduce(int16, *parcels, 3, True, 0.5, 1.0, "triton")
    reduce(float32, *parcels, 8, False, 0.5, 1.0, "triton")
    clean = _library.triton_kernels("decode_nifti").clean
    clean(torch.ones(9, 500), torch.ones(5, 9), True)


def mask(x: Any, regions: Any, scheme: Any, **options: Any) -> None:
    nk.mask_regions(x, regions, scheme, seed=2**40, backend="triton", **options)


def bin_spikes(times: Any, units: Any, bin_size: float, dtype: str = "float32", **options: Any) -> None:
    options = {"n_units": 5, "overflow": "saturate"} | options
    nk.bin_spikes(times, units, bin_size, 1.0, dtype=getattr(torch, dtype), backend="triton", **options)


class Recorder:
    """Stands in for ``launch``: keeps a source for each kernel and kind of arguments."""

    def __init__(self) -> None:
        self.sources: dict[str, tuple[ASTSource, dict[str, Any]]] = {}

    def __call__(self, kernel: Any, n_programs: int, *arguments: Any, **constants: Any) -> None:
        if n_programs == 0:
            return
        options = {"num_warps": constants.pop("num_warps", 4), "enable_fp_fusion": False}
        values = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
        signature, constexprs, attributes = {}, {}, {}
        for place, parameter in enumerate(kernel.params):
            value = values[parameter.name]
            kind, aligned = kind_of(parameter, value)
            signature[parameter.name] = kind
            if kind == "constexpr":
                constexprs[parameter.name] = value
            elif aligned:
                attributes[(place,)] = [["tt.divisibility", 16]]
        key = f"{kernel.__name__} {signature} {constexprs} {sorted(attributes)} {options}"
        self.sources[key] = (ASTSource(kernel, signature, constexprs, attributes), options)


def kind_of(parameter: Any, value: Any) -> tuple[str, bool]:
    """Return what Triton would take an argument for, and whether it would know it as a multiple of 16."""
    if parameter.is_constexpr or value is None:
        return "constexpr", False
    if isinstance(value, torch.Tensor):
        name = str(value.dtype).removeprefix("torch.")
        short = {"bfloat16": "bf16"}.get(name) or re.sub("^float", "fp", re.sub("^(u?)int", r"\1i", name))
        return "*" + short.replace("ui", "u"), value.data_ptr() % 16 == 0
    if value == 1 and not parameter.do_not_specialize:
        return "constexpr", False
    kind = parameter.annotation_type or ("i32" if -(2**31) <= value < 2**31 else "i64")
    return kind, value % 16 == 0 and not parameter.do_not_specialize


def record() -> dict[str, tuple[ASTSource, dict[str, Any]]]:
    recorder = Recorder()
    _library._check_triton = lambda function, device: None  # type: ignore[assignment]
    for op in ("bin_spikes", "decode_nifti", "gather_regions", "mask_regions", "smoothing"):
        _library.triton_kernels(op).launch = recorder  # type: ignore[attr-defined]
    call_ops()
    return recorder.sources


# ---- what the compiler makes of it


def facts_of(compiled: Any) -> dict[str, Any]:
    if "ptx" not in compiled.asm:
        text = compiled.asm["amdgcn"]
        # Scalar registers are kept in vector registers when they run out, which costs no memory.
        spills = [int(n) for n in re.findall(r"\.vgpr_spill_count:\s*(\d+)", text)]
        scratch = [int(n) for n in re.findall(r"\.private_segment_fixed_size:\s*(\d+)", text)]
        fused = re.findall(r"\bv_(?:fma|fmac|pk_fma)_f32\w*", text)
        return {"spilled": sum(spills) + sum(scratch), "fused": fused}
    text = compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = tool("cuobjdump", "--dump-resource-usage", file.name)
        sass = tool("nvdisasm", file.name)
    stack, local, registers = (
        int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("STACK", "LOCAL", "REG")
    )
    return {
        "atomics": sorted(set(re.findall(r"\b(?:atom|red)\.[\w.:]+", text))),
        "fused": re.findall(r"\bfma\.[\w.]+", text),
        "divides": "div.rn.f64" in text,  # of which the assembler makes fused instructions, rightly
        "fused_by_assembler": re.findall(r"\b[FD]FMA\b", sass),
        "spilled": stack + local + len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        "registers": registers,
    }


def tool(name: str, *arguments: str) -> str:
    command = [str(TOOLS / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(target: str, only: str = "", fuse: bool = False) -> None:
    for source, options in record().values():
        if not source.fn.__name__.startswith(only):
            continue
        options = options | {"enable_fp_fusion": fuse}
        compiled = triton.compile(source, target=TARGETS[target], options=options)
        row = {
            "kernel": source.fn.__name__,
            "signature": str(source.signature),
            "constants": str(source.constants),
        }
        print(json.dumps(row | facts_of(compiled)), flush=True)


if __name__ == "__main__":
    assert os.environ.get("TRITON_INTERPRET") != "1"
    main(*sys.argv[1:3], fuse="--fuse" in sys.argv)
