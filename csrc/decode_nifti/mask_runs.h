// A mask as runs of neighbors in file order, and the way from there to the output's order.
#pragma once

#include <cstdint>

namespace neurokern {

// `mask` is (n_x, n_y, n_z) bytes in C order (z fastest), as numpy has it; files have x fastest. Counts its
// voxels and runs.
struct MaskSize {
  std::int64_t n_voxels, n_runs;
};
MaskSize measure_mask(const unsigned char* mask, const std::int64_t (&shape)[3]);

// Fills run_starts and run_lengths (n_runs,), and order (n_voxels,): output voxel i, in C order, is voxel
// order[i] of the runs.
void index_mask(const unsigned char* mask, const std::int64_t (&shape)[3], std::int64_t* run_starts,
                std::int64_t* run_lengths, std::int32_t* order);

}  // namespace neurokern
