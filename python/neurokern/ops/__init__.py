"""Ops: one page each with contract, reference and dispatch; kernels lie in ``csrc/`` under the same name."""

from neurokern.ops.bin_spikes import bin_spikes
from neurokern.ops.decode_nifti import (
    NiftiFile,
    NiftiFormatError,
    NiftiHeader,
    ParcelAtlas,
    VoxelMask,
    decode_nifti,
    decode_voxels,
)
from neurokern.ops.gather_regions import RegionIndex, gather_regions, region_index, scatter_regions
from neurokern.ops.mask_regions import MaskedBatch, mask_regions
from neurokern.ops.solve_ridge import RidgeCVResult, RidgePlan, RidgeSolution, ridge_cv, solve_ridge

__all__ = [
    "MaskedBatch",
    "NiftiFile",
    "NiftiFormatError",
    "NiftiHeader",
    "ParcelAtlas",
    "RegionIndex",
    "RidgeCVResult",
    "RidgePlan",
    "RidgeSolution",
    "VoxelMask",
    "bin_spikes",
    "decode_nifti",
    "decode_voxels",
    "gather_regions",
    "mask_regions",
    "region_index",
    "ridge_cv",
    "scatter_regions",
    "solve_ridge",
]
