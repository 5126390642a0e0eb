// decode_nifti: the values of an image's volumes, of the voxels of a mask or as means of parcels.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace neurokern {

// Types of values in a file that can be decoded; rgb, complex and 128-bit values cannot.
enum class VoxelType : int { u8, i8, u16, i16, u32, i32, u64, i64, f32, f64 };
enum class DecodedType : int { f32, f16, bf16, raw };  // raw: as in the file, in this machine's byte order

// All pointers are the caller's and are used only for the time of the call. Positions of voxels count values
// within a volume, in file order (x fastest).
struct DecodeVolumes {
  const unsigned char* mapped;  // the file's first byte; or null: read by `descriptor`
  int descriptor;               // open file, read with pread
  std::int64_t offset;          // of the first volume to decode, in bytes of the file
  std::int64_t volume_values, n_volumes;
  VoxelType type;
  bool swapped;
  double slope, inter;

  const std::int64_t* run_starts;  // (n_runs,): the mask as runs of neighbors, ascending, apart
  const std::int64_t* run_lengths;
  std::int64_t n_runs, n_voxels;  // n_voxels: of all runs
  const std::int32_t*
      order;  // (n_voxels,): output voxel i is the mask's voxel order[i] in file order; null: i

  void* out;  // (n_volumes, n_voxels) of `decoded`, rows out_stride values apart
  std::int64_t out_stride;
  DecodedType decoded;
};

enum class DecodeStatus : int { ok, out_of_memory, read_failed, cut_short };

NK_DECLARE_KERNEL(DecodeStatus decode_volumes_cpu(const DecodeVolumes& p, int n_threads))

// Values that lie on the GPU: raw volumes, or rows of voxels that were gathered on the CPU already.
struct DecodeResident {
  const void* raw;  // (n_volumes, volume_values), as in the file
  std::int64_t volume_values, n_volumes, n_voxels;
  VoxelType type;
  bool swapped;
  double slope, inter;
  const std::int64_t* positions;  // (n_voxels,) within a volume, in output order; null: i
  void* out;                      // (n_volumes, n_voxels), rows out_stride values apart
  std::int64_t out_stride;
  DecodedType decoded;  // not raw
};

void decode_resident_cuda(const DecodeResident& p, void* stream);

}  // namespace neurokern
