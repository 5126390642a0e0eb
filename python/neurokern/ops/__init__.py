"""Ops: one page each with contract, reference and dispatch; kernels lie in ``csrc/`` under the same name."""

from neurokern.ops.bin_spikes import bin_spikes
from neurokern.ops.decode_nifti import (
    NiftiFile,
    NiftiFormatError,
    NiftiHeader,
    ParcelAtlas,
    ParcelIndex,
    VoxelMask,
    decode_nifti,
    decode_parcels,
    decode_voxels,
    parcel_index,
)
from neurokern.ops.gather_regions import RegionIndex, gather_regions, region_index, scatter_regions
from neurokern.ops.mask_regions import MaskedBatch, mask_regions

__all__ = [
    "MaskedBatch",
    "NiftiFile",
    "NiftiFormatError",
    "NiftiHeader",
    "ParcelAtlas",
    "ParcelIndex",
    "RegionIndex",
    "VoxelMask",
    "bin_spikes",
    "decode_nifti",
    "decode_parcels",
    "decode_voxels",
    "gather_regions",
    "mask_regions",
    "parcel_index",
    "region_index",
    "scatter_regions",
]
