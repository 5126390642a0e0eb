"""A kernel with ``__launch_bounds__`` is launched with that block; a GPU refuses more threads.

The emulation cannot ask a function for its bounds, so the sources are read: both must be the same constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from cuda_emulation.build import ROOT, ops


def bounds_of(source: str) -> dict[str, str]:
    """Return the constant in the launch bounds of each kernel that has some."""
    pattern = r"__global__\s+void\s+__launch_bounds__\(\s*(\w+)[^)]*\)\s*(\w+)\("
    return {name: bound for bound, name in re.findall(pattern, source)}


def launches_in(source: str) -> Iterator[tuple[str, str]]:
    """Yield the kernel and the block of each launch; for a variable, of each kernel that it may hold."""
    for match in re.finditer(r"NK_LAUNCH(?:_SHARED)?\(", source):
        arguments, depth, at = [""], 0, match.end()
        while depth >= 0:
            letter = source[at]
            depth += (letter in "([{") - (letter in ")]}")
            if letter == "," and depth == 0:
                arguments.append("")
            else:
                arguments[-1] += letter
            at += 1
        kernel, block = (arguments[i].strip().split("<")[0] for i in (0, 2))
        held = re.search(rf"auto\*? {kernel} =([^;]*);", source[: match.start()])
        for name in re.findall(r"\w+", held[1]) if held else [kernel]:
            yield name, block


def wrong_launches(source: str) -> list[str]:
    """Return the launches whose block is not the constant of the kernel's bounds."""
    bounds = bounds_of(source)
    return [
        f"{kernel}: bounds {bounds[kernel]}, block {block}"
        for kernel, block in launches_in(source)
        if kernel in bounds and bounds[kernel] != block
    ]


@pytest.mark.parametrize("op", ops())
def test_every_kernel_is_launched_with_the_block_of_its_bounds(op):
    files = sorted((ROOT / "csrc" / op).glob("*.cu*"))
    source = "\n".join(path.read_text() for path in files)
    assert list(launches_in(source))
    assert wrong_launches(source) == []


@pytest.mark.parametrize(("block", "wrong"), [("kOurs", []), ("kOthers", ["f: bounds kOurs, block kOthers"])])
@pytest.mark.parametrize("by", ["f<T>", "kernel"])
def test_another_block_is_found(block, wrong, by):
    source = (
        "template <int N> __global__ void __launch_bounds__(kOurs, 4) f(int n) {}\n"
        f"const auto kernel = f<T>;\nNK_LAUNCH_SHARED({by}, size(n < 3 ? 1 : 2, 4), {block}, 0, stream, n);"
    )
    assert wrong_launches(source) == wrong
