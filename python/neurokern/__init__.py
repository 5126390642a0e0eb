"""neurokern: brain data at hardware speed.

Importing this package loads nothing heavy; a name below, or a package of it, loads when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME_OF = {
    "MaskedBatch": "neurokern.ops",
    "MtM": "neurokern.models",
    "MtMConfig": "neurokern.models",
    "NiftiFile": "neurokern.ops",
    "RidgeAccumulator": "neurokern.ops",
    "SpikeRecording": "neurokern.datasets",
    "bin_spikes": "neurokern.ops",
    "decode_nifti": "neurokern.ops",
    "gather_regions": "neurokern.ops",
    "load_recording": "neurokern.datasets",
    "mask_regions": "neurokern.ops",
    "ridge_cv": "neurokern.ops",
    "scatter_regions": "neurokern.ops",
    "solve_ridge": "neurokern.ops",
    "solve_ridge_batched": "neurokern.ops",
}

_PACKAGES = {
    "adapters",
    "alignment",
    "datasets",
    "encoding",
    "evaluation",
    "extractors",
    "hub",
    "metrics",
    "models",
    "ops",
    "training",
}

__all__ = [
    "MaskedBatch",
    "MtM",
    "MtMConfig",
    "NiftiFile",
    "RidgeAccumulator",
    "SpikeRecording",
    "__version__",
    "bin_spikes",
    "decode_nifti",
    "gather_regions",
    "load_recording",
    "mask_regions",
    "ridge_cv",
    "scatter_regions",
    "solve_ridge",
    "solve_ridge_batched",
]

if TYPE_CHECKING:
    from neurokern.datasets import SpikeRecording, load_recording
    from neurokern.models import MtM, MtMConfig
    from neurokern.ops.bin_spikes import bin_spikes
    from neurokern.ops.decode_nifti import NiftiFile, decode_nifti
    from neurokern.ops.gather_regions import gather_regions, scatter_regions
    from neurokern.ops.mask_regions import MaskedBatch, mask_regions
    from neurokern.ops.solve_ridge import RidgeAccumulator, ridge_cv, solve_ridge, solve_ridge_batched


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return importlib.import_module(f"neurokern.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'neurokern' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_PACKAGES})
