// decode_nifti: the values of an image's volumes, of the voxels of a mask or as means of parcels.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace neurokern {

// Types of values in a file that can be decoded; rgb, complex and 128-bit values cannot.
enum class VoxelType : int { u8, i8, u16, i16, u32, i32, u64, i64, f32, f64 };
// Types of stored runs alone: no file of images has them.
constexpr VoxelType kHalf = static_cast<VoxelType>(10), kBFloat16 = static_cast<VoxelType>(11);
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

// Parcels: the voxels of the mask again, as runs that each lie in one parcel. Runs follow each other as the
// mask's voxels do in file order, and together are all of them.
struct ParcelRuns {
  const std::int32_t* lengths;  // (n_runs,), up to 65536
  const std::int32_t* parcels;  // (n_runs,), below n_parcels
  const double* sizes;          // (n_parcels,): voxels of each
  std::int64_t n_runs, n_parcels;
  // (n_voxels,): the mask's voxels in file order, those of parcel 0 first; or null. Faster where runs are
  // short.
  const std::int32_t* voxels = nullptr;
};

// Columns of a matrix (rows in time), cleaned in place: what the basis explains is taken out, and the rest
// may be brought to variance 1.
struct CleanColumns {
  float* values;       // (n_rows, n_columns), rows `stride` values apart
  const float* basis;  // (n_basis, n_rows), orthonormal rows that span the constant, too
  std::int64_t n_rows, n_columns, stride, n_basis;
  bool standardize;  // divide by the standard deviation (n_rows - 1); a column without any becomes 0
};

// Rows of a run that lie next to each other, in this machine's byte order, such as those of a packed run.
// They become ((slope * raw + inter - origin) - basis . coefficients) * factor.
struct StoredRows {
  const void* raw;  // rows raw_stride values apart
  std::int64_t raw_stride, n_columns;
  const std::int32_t* columns;  // (n_columns,): places in a row of raw; null: i
  VoxelType type;
  double slope, inter;
  const float* origin;        // (n_columns,); null: scaled alone, and the three below are not used
  const float* factor;        // (n_columns,)
  const float* coefficients;  // (n_basis, n_columns)
  const float* basis;         // (rows of the run, n_basis)
  std::int64_t n_basis;
};

// A window of a run that may reach beyond it.
struct RunWindow {
  const StoredRows* run;
  std::int64_t first, n_rows;  // rows of the run
  std::int64_t before, after;  // rows of `out` before and after them: become 0
  void* out;                   // (before + n_rows + after, n_columns), rows out_stride values apart; may be
                               // the raw values themselves
};

// Windows of several runs, written in one pass. Those of a group are of one run: its coefficients are looked
// at once for all of them.
struct GatherWindows {
  const RunWindow* windows;
  const std::int64_t* groups;  // (n_groups + 1,): first window of each, and the number of windows
  std::int64_t n_groups;
  std::int64_t n_columns;  // of `out`; those that a run does not have become 0
  std::int64_t out_stride;
  DecodedType decoded;  // not raw
};

// The sums from which a run's coefficients follow; rows may come in pieces, in the order of time.
struct FitColumns {
  const float* values;  // (n_rows, n_columns), rows `stride` values apart
  std::int64_t stride, n_rows, n_columns;
  const double* basis;  // (n_rows, n_basis)
  std::int64_t n_basis;
  const float* origin;  // (n_columns,): taken off first; a large mean would cost the digits of what varies
  double* sums;         // (n_basis, n_columns): basis . values is added
  double* squares;      // (n_columns,): squares of the values are added
};

enum class DecodeStatus : int { ok, out_of_memory, read_failed, cut_short };

NK_DECLARE_KERNEL(DecodeStatus decode_volumes_cpu(const DecodeVolumes& p, int n_threads))
// Means over parcels: p.out is (n_volumes, n_parcels) float32, p.order and p.decoded are not used.
NK_DECLARE_KERNEL(DecodeStatus decode_parcels_cpu(const DecodeVolumes& p, const ParcelRuns& parcels,
                                                  int n_threads))
NK_DECLARE_KERNEL(DecodeStatus clean_columns_cpu(const CleanColumns& p, int n_threads))
NK_DECLARE_KERNEL(void gather_windows_cpu(const GatherWindows& p, int n_threads))
NK_DECLARE_KERNEL(void fit_columns_cpu(const FitColumns& p, int n_threads))

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

// Means over parcels of values that lie on the GPU. The index is not checked before: wherever it points, no
// other memory is read.
struct ReduceResident {
  const void* raw;  // (n_volumes, volume_values), as in the file
  std::int64_t volume_values, n_volumes;
  VoxelType type;
  bool swapped;
  double slope, inter;
  const std::int64_t* positions;    // (n_voxels,) within a volume: parcel after parcel, each in file order
  const std::int64_t* run_starts;   // (n_runs + 1,): first voxel of each run of neighbors, and n_voxels
  const std::int64_t* parcel_runs;  // (n_parcels + 1,): first run of each parcel, and n_runs
  const double* sizes;              // (n_parcels,): voxels of each
  std::int64_t n_voxels, n_runs, n_parcels;
  float* out;  // (n_volumes, n_parcels)
};

void decode_resident_cuda(const DecodeResident& p, void* stream);
void reduce_resident_cuda(const ReduceResident& p, void* stream);
void clean_columns_cuda(const CleanColumns& p, void* stream);

}  // namespace neurokern
