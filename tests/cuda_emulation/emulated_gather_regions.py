"""Puts the emulated CUDA kernels in the place of the CPU's kernels of the region ops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_emulation.emulated import emulated_module

from neurokern.ops._mask_reference import INTER_REGION, INTRA_REGION


def core_on_emulated_cuda() -> SimpleNamespace:
    """Stand in for ``_core``: no scratch of the CPU, and room for the draws of regions as on a GPU."""

    def mask_regions(arguments: dict[str, Any], n_threads: int) -> None:
        known = {name: value for name, value in arguments.items() if name not in ("unit_codes", "bin_states")}
        by_region = arguments["schemes"] or arguments["scheme"] in (INTRA_REGION, INTER_REGION)
        ranks = None
        if arguments["regions"] and by_region and arguments["region_id"] < 0:
            n_choices = arguments["shape"][0] if arguments["choose_per_sample"] else 1
            ranks = np.full(n_choices, -1, dtype=np.int64)
            known["best_ranks"] = ranks.ctypes.data
        module = emulated_module("gather_regions")
        module.mask_regions(known | {"unit_codes": 0, "bin_states": 0}, 0)

    return SimpleNamespace(mask_regions=mask_regions)
