"""Ops: one page each with contract, reference and dispatch; kernels lie in ``csrc/`` under the same name."""

from neurokern.ops._cache_files import prune_cache
from neurokern.ops.banded_ridge import BandedRidgeResult, banded_ridge_cv, solve_banded_ridge
from neurokern.ops.bin_spikes import bin_spikes
from neurokern.ops.decode_nifti import (
    CleaningFit,
    NiftiFile,
    NiftiFormatError,
    NiftiHeader,
    PackedRun,
    ParcelAtlas,
    ParcelIndex,
    StoredRun,
    VoxelBox,
    VoxelMask,
    decode_nifti,
    decode_parcels,
    decode_voxels,
    fit_cleaning,
    gather_windows,
    parcel_index,
)
from neurokern.ops.gather_regions import RegionIndex, gather_regions, region_index, scatter_regions
from neurokern.ops.mask_regions import MaskedBatch, mask_regions
from neurokern.ops.reduced_rank_ridge import ReducedRankRidgeResult, reduced_rank_ridge_cv
from neurokern.ops.solve_ridge import (
    BatchedRidge,
    RidgeAccumulator,
    RidgeCVResult,
    RidgePlan,
    RidgeSolution,
    ridge_cv,
    solve_ridge,
    solve_ridge_batched,
)

__all__ = [
    "BandedRidgeResult",
    "BatchedRidge",
    "CleaningFit",
    "MaskedBatch",
    "NiftiFile",
    "NiftiFormatError",
    "NiftiHeader",
    "PackedRun",
    "ParcelAtlas",
    "ParcelIndex",
    "ReducedRankRidgeResult",
    "RegionIndex",
    "RidgeAccumulator",
    "RidgeCVResult",
    "RidgePlan",
    "RidgeSolution",
    "StoredRun",
    "VoxelBox",
    "VoxelMask",
    "banded_ridge_cv",
    "bin_spikes",
    "decode_nifti",
    "decode_parcels",
    "decode_voxels",
    "fit_cleaning",
    "gather_regions",
    "gather_windows",
    "mask_regions",
    "parcel_index",
    "prune_cache",
    "reduced_rank_ridge_cv",
    "region_index",
    "ridge_cv",
    "scatter_regions",
    "solve_banded_ridge",
    "solve_ridge",
    "solve_ridge_batched",
]
